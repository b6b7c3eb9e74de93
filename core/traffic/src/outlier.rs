//! Endpoints that fail are left out for a while (Envoy's outlier detection, as far as Istio lets one ask for it).

use model::mesh::traffic::Outlier;

/// How a request to an endpoint ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It answered, with this status.
    Status(u16),
    /// No connection, a reset, or a time-out.
    Local,
}

/// What is remembered of an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record {
    in_a_row_5xx: u32,
    in_a_row_gateway: u32,
    in_a_row_local: u32,
    /// Ejections in short order: the next lasts that much longer.
    times: u32,
    ejected_until_ms: u64,
}

impl Record {
    /// Whether it is left out now.
    pub fn is_ejected(&self, now_ms: u64) -> bool {
        self.ejected_until_ms > now_ms
    }

    /// Until when.
    pub fn ejected_until_ms(&self) -> u64 {
        self.ejected_until_ms
    }

    /// Whether nothing bad is remembered of it, so that a good answer changes nothing.
    pub fn is_clean(&self) -> bool {
        (self.in_a_row_5xx, self.in_a_row_gateway, self.in_a_row_local) == (0, 0, 0)
    }

    /// Notes how a request ended. True: it should be ejected, if its pool permits ([`may_eject`]).
    pub fn note(&mut self, policy: &Outlier, outcome: Outcome) -> bool {
        let split = policy.consecutive_local > 0;
        match outcome {
            Outcome::Status(status) if is_failure(policy, status) => {
                self.in_a_row_5xx += 1;
                self.in_a_row_gateway = if (502..505).contains(&status) { self.in_a_row_gateway + 1 } else { 0 };
                self.in_a_row_local = 0;
            }
            Outcome::Status(_) => (self.in_a_row_5xx, self.in_a_row_gateway, self.in_a_row_local) = (0, 0, 0),
            Outcome::Local if split => self.in_a_row_local += 1,
            // Counted as what a client would have seen of it: 503.
            Outcome::Local => {
                self.in_a_row_5xx += 1;
                self.in_a_row_gateway += 1;
            }
        }
        let reached = |count: u32, limit: u32| limit > 0 && count >= limit;
        reached(self.in_a_row_5xx, policy.consecutive_5xx)
            || reached(self.in_a_row_gateway, policy.consecutive_gateway)
            || reached(self.in_a_row_local, policy.consecutive_local)
    }

    /// Leaves it out.
    pub fn eject(&mut self, policy: &Outlier, now_ms: u64) {
        // Every interval that it was back and stayed takes one ejection off its count.
        let calm = now_ms.saturating_sub(self.ejected_until_ms) / policy.interval_ms.max(1);
        let before = self.times.saturating_sub(u32::try_from(calm).unwrap_or(u32::MAX));
        let times = before + 1;
        *self = Record {
            times,
            ejected_until_ms: now_ms.saturating_add(policy.base_ejection_ms.saturating_mul(u64::from(times))),
            ..Record::default()
        };
    }
}

/// Whether an answer counts as a failure.
pub fn is_failure(policy: &Outlier, status: u16) -> bool {
    if policy.statuses.is_empty() { status >= 500 } else { policy.statuses.contains(&status) }
}

/// Whether another endpoint of a pool may be ejected: one always may, more only up to the part that the policy names.
pub fn may_eject(policy: &Outlier, ejected: usize, endpoints: usize) -> bool {
    let most = endpoints * policy.max_ejection_percent as usize / 100;
    endpoints > 1 && ejected < most.max(1)
}

/// Whether ejections count at all: when too few endpoints are left, all are called.
pub fn counts(policy: &Outlier, ejected: usize, endpoints: usize) -> bool {
    let healthy = endpoints.saturating_sub(ejected);
    ejected < endpoints && healthy * 100 >= policy.min_health_percent as usize * endpoints
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> Outlier {
        Outlier { consecutive_5xx: 3, base_ejection_ms: 1_000, interval_ms: 100, ..Outlier::default() }
    }

    #[test]
    fn failures_in_a_row_eject() {
        use Outcome::{Local, Status};
        let split = Outlier { consecutive_local: 2, ..policy() };
        let gateway = Outlier { consecutive_5xx: 0, consecutive_gateway: 2, ..policy() };
        for (policy, outcomes, ejected) in [
            (policy(), &[Status(500), Status(503), Status(500)][..], true),
            (policy(), &[Status(500), Status(200), Status(500), Status(500)], false),
            (policy(), &[Status(500), Local, Local], true),
            (policy(), &[Status(404); 9], false),
            (split.clone(), &[Local, Local], true),
            (split, &[Status(500), Local], false),
            (gateway.clone(), &[Status(500); 9], false),
            (gateway.clone(), &[Status(503), Status(504)], true),
            (gateway, &[Status(503), Status(500), Status(503)], false),
        ] {
            let mut record = Record::default();
            let last = outcomes.iter().fold(false, |_, outcome| record.note(&policy, *outcome));
            assert_eq!(last, ejected, "{outcomes:?}");
        }
    }

    #[test]
    fn ejections_grow_and_are_forgiven() {
        let policy = policy();
        let mut record = Record::default();
        record.eject(&policy, 0);
        assert!(record.is_ejected(999) && !record.is_ejected(1_000) && record.is_clean());
        record.eject(&policy, 1_000);
        assert_eq!(record.ejected_until_ms(), 3_000, "at once again: twice as long");
        record.eject(&policy, 3_050);
        assert_eq!(record.ejected_until_ms(), 6_050);
        record.eject(&policy, 60_000);
        assert_eq!(record.ejected_until_ms(), 61_000, "calm for long");
    }

    #[test]
    fn pools_are_not_emptied() {
        let policy = Outlier { max_ejection_percent: 50, min_health_percent: 40, ..policy() };
        for (ejected, endpoints, may, count) in
            [(0, 1, false, true), (0, 2, true, true), (1, 2, false, true), (1, 4, true, true), (2, 4, false, true)]
        {
            assert_eq!(may_eject(&policy, ejected, endpoints), may, "{ejected} of {endpoints}");
            assert_eq!(counts(&policy, ejected, endpoints), count);
        }
        assert!(!counts(&policy, 3, 4), "a quarter healthy is less than 40%");
        assert!(!counts(&Outlier::default(), 4, 4), "nobody left");
    }
}
