//! `/diolkos/v1/traffic/NAMESPACE/NAME`: what a service had to do, over the last minutes: rates, failures, latencies as a heat map.

use model::{Key, Timestamp, latency};
use scaling::Growth;
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};

/// A column of the heat map.
pub const SLOT_MS: i64 = 10_000;
/// Columns that are kept: ten minutes.
const SLOTS_MAX: usize = 60;
/// Services that are followed.
const SERVICES_MAX: usize = 2_000;

#[derive(Clone, Debug, Default)]
struct Slot {
    at_s: i64,
    seconds: f64,
    requests: u64,
    errors: u64,
    buckets: Vec<u64>,
}

/// Services' last minutes.
#[derive(Debug, Default)]
pub struct Traffic {
    last: Option<Timestamp>,
    services: BTreeMap<Key, VecDeque<Slot>>,
}

impl Traffic {
    /// Whether a slot is full.
    pub fn is_due(&self, now: Timestamp) -> bool {
        self.last.is_none_or(|last| now.since_ms(last) >= SLOT_MS)
    }

    /// Ends a slot: what grew in it.
    pub fn close(&mut self, now: Timestamp, growth: &[Growth]) {
        self.last = Some(now);
        let mut slots = BTreeMap::<Key, Slot>::new();
        for one in growth.iter().filter(|one| one.counters.requests > 0 && &*one.key.service != "unknown") {
            let key = Key { namespace: one.key.service_namespace.clone(), name: one.key.service.clone() };
            let slot = slots.entry(key).or_insert_with(|| Slot { at_s: now.secs(), ..Slot::default() });
            slot.seconds = slot.seconds.max(one.seconds);
            slot.requests += one.counters.requests;
            slot.errors += one.counters.errors;
            slot.buckets.resize(slot.buckets.len().max(one.counters.buckets.len()), 0);
            slot.buckets.iter_mut().zip(&one.counters.buckets).for_each(|(sum, count)| *sum += count);
        }
        for (key, slot) in slots {
            if self.services.len() < SERVICES_MAX || self.services.contains_key(&key) {
                self.services.entry(key).or_default().push_back(slot);
            }
        }
        let oldest = now.secs() - SLOTS_MAX as i64 * SLOT_MS / 1000;
        self.services.retain(|_, slots| {
            while slots.front().is_some_and(|slot| slot.at_s <= oldest) {
                slots.pop_front();
            }
            !slots.is_empty()
        });
    }

    /// The answer, but for who calls. Slots without a request are left out.
    pub fn answer(&self, key: &Key) -> Value {
        let slots = self.services.get(key).map(|slots| slots.iter().collect::<Vec<_>>()).unwrap_or_default();
        let per_s = |slot: &&Slot| if slot.seconds > 0.0 { slot.requests as f64 / slot.seconds } else { 0.0 };
        json!({
            "slot_s": SLOT_MS / 1000,
            "slots": SLOTS_MAX,
            "bounds_ms": latency::bounds_ms(),
            "at_s": slots.iter().map(|slot| slot.at_s).collect::<Vec<_>>(),
            "requests_per_s": slots.iter().map(per_s).collect::<Vec<_>>(),
            "error_share": slots.iter().map(|slot| slot.errors as f64 / slot.requests.max(1) as f64).collect::<Vec<_>>(),
            "buckets": slots.iter().map(|slot| &slot.buckets).collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use scaling::{Counters, EdgeKey};

    #[test]
    fn slots_come_and_go() {
        let mut traffic = Traffic::default();
        let key = EdgeKey { service: "web".into(), service_namespace: "shop".into(), ..EdgeKey::default() };
        let counters = Counters { requests: 20, errors: 5, buckets: vec![15, 5], bytes: 0 };
        let growth = [
            Growth { key: key.clone(), counters: counters.clone(), seconds: 10.0 },
            Growth { key, counters, seconds: 9.0 },
        ];
        for round in 0..100 {
            let now = Timestamp::from_secs(round * 10);
            assert!(traffic.is_due(now) && !(round > 0 && traffic.is_due(Timestamp::from_secs(round * 10 - 9))));
            traffic.close(now, &growth);
        }
        let answer = traffic.answer(&Key::new("shop", "web"));
        assert_eq!(answer["at_s"].as_array().map(Vec::len), Some(SLOTS_MAX));
        assert_eq!((&answer["requests_per_s"][0], &answer["error_share"][0]), (&json!(4.0), &json!(0.25)));
        assert_eq!(answer["buckets"][0], json!([30, 10]));
        traffic.close(Timestamp::from_secs(5000), &[]);
        assert_eq!(traffic.answer(&Key::new("shop", "web"))["at_s"], json!([]));
    }
}
