//! Priority bands: what production pods ask for but do not use is lent to batch pods, what they will surely not need for some time
//! to pods of the middle band. Lent CPU and memory are resources of their own (`kubernetes.io/batch-cpu`, ...), so that placement
//! counts them exactly.
//!
//! The amounts are Koordinator's: batch gets the capacity less a margin, less what the system uses or has reserved, less what
//! production uses. They shrink at once and grow by small steps, so that one quiet minute does not fill a node.

use model::scheduling::Amounts;

/// How much is kept back, and how fast more is lent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BandPolicy {
    /// Share of CPU that is never lent, in per cent of capacity.
    pub cpu_margin_pct: i64,
    /// Share of memory likewise.
    pub memory_margin_pct: i64,
    /// Share of what production leaves for good that the middle band may have, in per cent of capacity at most.
    pub mid_most_pct: i64,
    /// Growth of what is lent, in per cent of capacity a step.
    pub growth_pct: i64,
}

impl Default for BandPolicy {
    /// Koordinator's margins; growth as its suppression grows.
    fn default() -> Self {
        BandPolicy { cpu_margin_pct: 40, memory_margin_pct: 35, mid_most_pct: 10, growth_pct: 10 }
    }
}

/// One resource of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BandUse {
    /// Capacity.
    pub capacity: i64,
    /// What is reserved for the system.
    pub reserved: i64,
    /// What the system uses.
    pub system_used: i64,
    /// What production pods ask for.
    pub prod_requested: i64,
    /// What production pods use at a high percentile of the last minutes.
    pub prod_used: i64,
    /// What production pods are forecast to use at most.
    pub prod_peak: i64,
}

/// What a node lends of one resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lent {
    /// To batch pods.
    pub batch: i64,
    /// To pods of the middle band.
    pub mid: i64,
}

fn pct(of: i64, share: i64) -> i64 {
    of.saturating_mul(share) / 100
}

/// What may be lent now, were it to be decided anew.
pub fn lendable(policy: &BandPolicy, margin_pct: i64, usage: &BandUse) -> Lent {
    let system = usage.system_used.max(usage.reserved);
    let batch = usage.capacity - pct(usage.capacity, margin_pct) - system - usage.prod_used;
    let spare = usage.prod_requested - usage.prod_peak;
    let mid = spare.min(pct(usage.capacity, policy.mid_most_pct));
    let batch = batch.max(0);
    // The middle band lives on what batch would get too, and comes first.
    let mid = mid.clamp(0, batch);
    Lent { batch: batch - mid, mid }
}

/// What is lent in the next step, when `before` was lent in the last one: less at once, more by the policy's growth.
pub fn next(policy: &BandPolicy, margin_pct: i64, usage: &BandUse, before: Lent) -> Lent {
    let now = lendable(policy, margin_pct, usage);
    let step = pct(usage.capacity, policy.growth_pct);
    Lent { batch: now.batch.min(before.batch + step), mid: now.mid.min(before.mid + step) }
}

/// What a node offers of lent resources, as amounts to add to its allocatable.
pub fn offered(cpu: Lent, memory: Lent) -> Amounts {
    let amounts = [
        ("kubernetes.io/batch-cpu", cpu.batch),
        ("kubernetes.io/batch-memory", memory.batch),
        ("kubernetes.io/mid-cpu", cpu.mid),
        ("kubernetes.io/mid-memory", memory.mid),
    ];
    amounts.into_iter().filter(|(_, amount)| *amount > 0).map(|(name, amount)| (name.into(), amount)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lends_what_production_leaves() {
        let policy = BandPolicy::default();
        let usage = BandUse {
            capacity: 32_000,
            reserved: 1000,
            system_used: 600,
            prod_requested: 24_000,
            prod_used: 9000,
            prod_peak: 23_000,
        };
        let lent = lendable(&policy, policy.cpu_margin_pct, &usage);
        assert_eq!((lent.batch, lent.mid), (32_000 - 12_800 - 1000 - 9000 - 1000, 1000));
        let first = next(&policy, policy.cpu_margin_pct, &usage, Lent::default());
        assert_eq!(first, Lent { batch: 3200, mid: 1000 }, "grows by a tenth of the capacity");
        let busy = BandUse { prod_used: 18_500, ..usage };
        assert_eq!(next(&policy, policy.cpu_margin_pct, &busy, lent), Lent { batch: 0, mid: 0 }, "shrinks at once");
    }

    #[test]
    fn never_lends_what_production_or_the_system_uses() {
        let policy = BandPolicy::default();
        let mut state = 7u64;
        let mut roll = |below: i64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as i64 % below
        };
        let mut before = Lent::default();
        for _ in 0..5000 {
            let usage = BandUse {
                capacity: 1000,
                reserved: roll(200),
                system_used: roll(300),
                prod_requested: roll(1000),
                prod_used: roll(1000),
                prod_peak: roll(1000),
            };
            let lent = next(&policy, 40, &usage, before);
            let free = 1000 - 400 - usage.prod_used - usage.system_used.max(usage.reserved);
            assert!(lent.batch >= 0 && lent.mid >= 0 && lent.batch + lent.mid <= free.max(0), "{usage:?} {lent:?}");
            assert!(lent.batch <= before.batch + 100 && lent.mid <= before.mid + 100);
            before = lent;
        }
    }
}
