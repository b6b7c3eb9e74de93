//! The buckets that latencies are counted in, everywhere the same: sums of what proxies and agents tell are sums of like things.

/// Upper bounds in microseconds; one more bucket takes what is above.
pub const BOUNDS_US: [u64; 24] = [
    250, 500, 1_000, 2_000, 3_000, 5_000, 7_500, 10_000, 15_000, 20_000, 25_000, 35_000, 50_000, 75_000, 100_000,
    150_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000, 30_000_000, 60_000_000,
];

/// The bucket of a latency.
pub fn bucket(us: u64) -> usize {
    BOUNDS_US.partition_point(|bound| *bound < us)
}

/// The bounds in milliseconds.
pub fn bounds_ms() -> Vec<f64> {
    BOUNDS_US.iter().map(|us| *us as f64 / 1000.0).collect()
}
