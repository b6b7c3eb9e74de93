//! Waiting longer after every failure: 10 s, 20 s, ... 5 min, as the kubelet does for containers and image pulls.

use model::Timestamp;
use std::collections::BTreeMap;

const BASE_MS: i64 = 10_000;
const MAX_MS: i64 = 300_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    delay_ms: i64,
    updated: Timestamp,
}

/// Delays by key. A key that did not fail for twice the longest delay starts again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backoff {
    entries: BTreeMap<String, Entry>,
}

impl Backoff {
    /// When `key`, which failed at `failed`, may be tried again; `None` when it may be now.
    pub fn until(&self, key: &str, failed: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let entry = self.entries.get(key).filter(|entry| !expired(entry, failed))?;
        let until = failed.plus_ms(entry.delay_ms);
        (now < until).then_some(until)
    }

    /// The delay in force for `key`.
    pub fn delay_ms(&self, key: &str) -> i64 {
        self.entries.get(key).map_or(0, |entry| entry.delay_ms)
    }

    /// `key` is tried again after a failure at `failed`: the next failure waits longer.
    pub fn tried_again(&mut self, key: &str, failed: Timestamp, now: Timestamp) {
        let delay_ms = match self.entries.get(key) {
            Some(entry) if !expired(entry, failed) => (entry.delay_ms * 2).min(MAX_MS),
            _ => BASE_MS,
        };
        self.entries.insert(key.to_owned(), Entry { delay_ms, updated: now });
    }

    /// When `key` was last noted as failed.
    pub fn failed_at(&self, key: &str) -> Option<Timestamp> {
        self.entries.get(key).map(|entry| entry.updated)
    }

    /// Forgets one key: it succeeded.
    pub fn forget(&mut self, key: &str) {
        self.entries.remove(key);
    }

    /// Drops what has not failed for long.
    pub fn collect(&mut self, now: Timestamp) {
        self.entries.retain(|_, entry| !expired(entry, now));
    }
}

fn expired(entry: &Entry, at: Timestamp) -> bool {
    at.since_ms(entry.updated) > 2 * MAX_MS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_is_tried_at_once_and_the_next_ones_wait_twice_as_long_each() {
        let mut backoff = Backoff::default();
        let mut now = Timestamp::from_secs(1000);
        let mut waits = Vec::new();
        for _ in 0..8 {
            let failed = now;
            if let Some(until) = backoff.until("c", failed, now) {
                now = until;
            }
            waits.push(now.since_ms(failed) / 1000);
            backoff.tried_again("c", failed, now);
            now = now.plus_ms(1000);
        }
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn a_long_run_starts_again() {
        let mut backoff = Backoff::default();
        let start = Timestamp::from_secs(0);
        backoff.tried_again("c", start, start);
        backoff.tried_again("c", start, start);
        let later = start.plus_ms(2 * MAX_MS + 1);
        assert_eq!(backoff.until("c", later, later), None);
        backoff.tried_again("c", later, later);
        assert_eq!(backoff.delay_ms("c"), BASE_MS);
        backoff.collect(later.plus_ms(2 * MAX_MS + 1));
        assert_eq!(backoff, Backoff::default());
    }
}
