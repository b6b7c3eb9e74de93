//! Hash maps whose hash does not depend on the run. Iteration order still must not reach an output:
//! sort first, or use a BTreeMap.

use std::hash::{BuildHasherDefault, Hasher};

/// `HashMap` with a fixed hasher.
#[expect(clippy::disallowed_types, reason = "this is the one place that pins the hasher")]
pub type HashMap<K, V> = std::collections::HashMap<K, V, BuildHasherDefault<FxHasher>>;
/// `HashSet` with a fixed hasher.
#[expect(clippy::disallowed_types, reason = "this is the one place that pins the hasher")]
pub type HashSet<K> = std::collections::HashSet<K, BuildHasherDefault<FxHasher>>;

/// The multiply-rotate hash of rustc's FxHasher: fast on short keys, no protection against chosen keys
/// (keys from outside reach it only after admission limits on their number).
#[derive(Clone, Copy, Default)]
pub struct FxHasher {
    state: u64,
}

const K: u64 = 0xf135_7aea_2e62_a9c5;

impl FxHasher {
    fn add(&mut self, word: u64) {
        self.state = self.state.wrapping_add(word).wrapping_mul(K);
    }
}

impl Hasher for FxHasher {
    fn write(&mut self, bytes: &[u8]) {
        let mut chunks = bytes.chunks_exact(8);
        for chunk in &mut chunks {
            let mut word = [0u8; 8];
            word.copy_from_slice(chunk);
            self.add(u64::from_le_bytes(word));
        }
        let rest = chunks.remainder();
        let mut word = [0u8; 8];
        word[..rest.len()].copy_from_slice(rest);
        self.add(u64::from_le_bytes(word) ^ ((bytes.len() as u64) << 56));
    }
    fn write_u8(&mut self, n: u8) {
        self.add(u64::from(n));
    }
    fn write_u32(&mut self, n: u32) {
        self.add(u64::from(n));
    }
    fn write_u64(&mut self, n: u64) {
        self.add(n);
    }
    fn write_usize(&mut self, n: usize) {
        self.add(n as u64);
    }
    fn finish(&self) -> u64 {
        self.state.rotate_left(26)
    }
}

/// A stable 64-bit hash of bytes, the same in every build and run; for names such as `pod-template-hash`.
pub fn stable_hash(bytes: &[u8]) -> u64 {
    // FNV-1a, 64 bit.
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
