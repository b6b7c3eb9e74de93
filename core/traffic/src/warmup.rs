//! Slow start: a new endpoint gets a growing share.

use model::mesh::traffic::Warmup;

/// The share of its later traffic that an endpoint of this age gets, in ten-thousandths.
///
/// As Envoy: `max(minimum, (age / duration) ^ (1 / aggression))`.
pub fn share(warmup: Warmup, age_ms: u64) -> u32 {
    if age_ms >= warmup.duration_ms {
        return 10_000;
    }
    let passed = age_ms as f64 / warmup.duration_ms as f64;
    let grown = passed.powf(100.0 / f64::from(warmup.aggression_percent.max(1)));
    let least = f64::from(warmup.minimum_percent) / 100.0;
    (grown.max(least).min(1.0) * 10_000.0) as u32
}

/// Whether an endpoint of this age takes a request that was drawn for it; else another is drawn. `draw` is uniform in all of `u32`.
pub fn takes(warmup: Warmup, age_ms: u64, draw: u32) -> bool {
    (u64::from(draw) * 10_000) >> 32 < u64::from(share(warmup, age_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_grow() {
        let even = Warmup { duration_ms: 1_000, minimum_percent: 10, aggression_percent: 100 };
        let late = Warmup { aggression_percent: 50, ..even };
        for (warmup, age_ms, expect) in [
            (even, 0, 1_000),
            (even, 50, 1_000),
            (even, 500, 5_000),
            (even, 1_000, 10_000),
            (even, 9_000, 10_000),
            (late, 500, 2_500),
        ] {
            assert_eq!(share(warmup, age_ms), expect, "{warmup:?} {age_ms}");
        }
        let taken = (0..1_000u64).filter(|step| takes(even, 500, (step * (1 << 32) / 1_000) as u32)).count();
        assert_eq!(taken, 500);
    }
}
