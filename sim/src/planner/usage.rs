//! Load models: what a pod really uses of what it asks for, as a function of time.

use model::map::stable_hash;

/// What a pod really uses, in per cent of its requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// CPU on average.
    pub cpu_pct: i64,
    /// Memory.
    pub memory_pct: i64,
    /// How far CPU swings up and down over a day around its average, in per cent of the average.
    pub swing_pct: i64,
    /// The second of the day at which it is highest.
    pub peak_s: i64,
    /// How much CPU jumps from five minutes to five minutes, in per cent of the average.
    pub noise_pct: i64,
    /// Tells pods' noise apart.
    pub seed: u64,
}

/// Bounds above which a node counts as hot, in per cent of what is allocatable. They are the load policy's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hot {
    /// CPU.
    pub cpu_pct: i64,
    /// Memory.
    pub memory_pct: i64,
}

/// Seconds of a day.
const DAY: i64 = 86_400;
/// Noise keeps its value for so many seconds.
const STEP: i64 = 300;

impl Usage {
    /// A model for a workload of which nothing is known: CPU between 10 and 70 % of what is asked for, memory between 40 and 95 %, a
    /// swing over the day, the peak within the working day. Pods of equal `owner` have the same but for their noise.
    pub fn assumed(owner: &str, pod: &str, seed: u64) -> Usage {
        let mut draw = crate::Random::new(stable_hash(owner.as_bytes()) ^ seed);
        Usage {
            cpu_pct: draw.between(10, 70),
            memory_pct: draw.between(40, 95),
            swing_pct: draw.between(0, 50),
            peak_s: draw.between(9 * 3600, 18 * 3600),
            noise_pct: 20,
            seed: stable_hash(pod.as_bytes()) ^ seed,
        }
    }

    /// CPU in use at a second, of `request` thousandths.
    pub(crate) fn cpu(&self, request: i64, at_s: i64) -> i64 {
        // A triangle over the day: +1 at the peak, -1 half a day off, in thousandths.
        let off = (at_s - self.peak_s).rem_euclid(DAY);
        let swing = 1000 - 4000 * off.min(DAY - off) / DAY;
        let bucket = at_s.div_euclid(STEP) as u64;
        let noise = (crate::Random::new(self.seed ^ bucket.wrapping_mul(0x9e37_79b9)).number() % 2001) as i64 - 1000;
        let share = 100_000 + self.swing_pct * swing + self.noise_pct * noise;
        (i128::from(request) * i128::from(self.cpu_pct) * i128::from(share.max(0)) / 10_000_000) as i64
    }

    /// Memory in use, of `request` bytes.
    pub(crate) fn memory(&self, request: i64) -> i64 {
        (i128::from(request) * i128::from(self.memory_pct) / 100) as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swings_around_its_average() {
        let usage = Usage { cpu_pct: 50, memory_pct: 80, swing_pct: 40, peak_s: 43_200, noise_pct: 0, seed: 1 };
        assert_eq!(usage.cpu(1000, 43_200), 700, "at noon");
        assert_eq!(usage.cpu(1000, 0), 300, "at midnight");
        assert_eq!(usage.cpu(1000, 21_600), 500, "in between");
        assert_eq!(usage.cpu(1000, 43_200 + 7 * DAY), 700, "every day");
        assert_eq!(usage.memory(1000), 800);
        let noisy = Usage { noise_pct: 50, swing_pct: 0, ..usage };
        let mean = (0..2000).map(|step| noisy.cpu(1000, step * STEP)).sum::<i64>() / 2000;
        assert!((480..=520).contains(&mean), "{mean}");
    }
}
