//! Names that the control chooses.

use std::sync::Arc;

/// Letters and digits that make no words (as apimachinery's `rand` package chooses them).
const SAFE: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// The longest base of a generated name: 63 less the suffix.
const BASE_MAX: usize = 58;

/// Writes `hash` in safe letters, `length` of them (at most 13 carry information).
pub fn safe_encode(mut hash: u64, length: usize) -> String {
    let mut text = String::with_capacity(length);
    for _ in 0..length {
        text.push(char::from(SAFE[(hash % 27) as usize]));
        hash /= 27;
    }
    text
}

/// Spreads the bits of `seed` (the finaliser of SplitMix64), so that near seeds give far names.
pub fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// `base` and five letters, as `generateName` would give.
pub fn generated(base: &str, seed: u64) -> Arc<str> {
    let mut end = base.len().min(BASE_MAX);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{}", &base[..end], safe_encode(mix(seed), 5)).into()
}

/// The value of `pod-template-hash` or of a revision's name: ten letters out of the template's content and how often that collided.
pub fn template_hash(content: u64, collisions: Option<i32>) -> String {
    safe_encode(mix(content ^ mix(collisions.map_or(0, |n| n as u64 + 1))), 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names_fit_a_label() {
        let name = generated(&"x".repeat(80), 7);
        assert_eq!(name.len(), 63);
        assert_ne!(generated("a-", 1), generated("a-", 2));
    }

    #[test]
    fn a_collision_changes_the_hash() {
        assert_ne!(template_hash(1, None), template_hash(1, Some(1)));
        assert_eq!(template_hash(1, Some(1)), template_hash(1, Some(1)));
    }
}
