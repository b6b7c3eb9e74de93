//! Draws for balancing and trace ids: cheap, a worker's own, and of no use where secrets are made.
use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};

thread_local! {
    static STATE: Cell<u64> = Cell::new(RandomState::new().hash_one(0u8) | 1);
}

/// Uniform in all of `u64` (splitmix64).
pub fn u64() -> u64 {
    STATE.with(|state| {
        let next = state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        state.set(next);
        let mut value = next;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    })
}

/// Uniform in all of `u32`.
pub fn u32() -> u32 {
    (u64() >> 32) as u32
}

/// Uniform in all of `u128`.
pub fn u128() -> u128 {
    u128::from(u64()) << 64 | u128::from(u64())
}
