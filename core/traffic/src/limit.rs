//! Rate limits: token buckets, one for each that is told apart, in a table that does not grow without end.
//!
//! A bucket is exact in whole numbers: a token is as many units as the interval has microseconds, and each microsecond adds as many units
//! as the limit has requests. A full bucket says as much as none, so those are what the table forgets. When it has only others, further keys
//! share one bucket: whoever makes up keys limits himself, and gets nobody's tokens.

use model::mesh::attached::RateLimit;
use std::collections::BTreeMap;

/// Keys that a limit tells apart at most.
pub const MOST_KEYS: usize = 16_384;
/// Buckets that are looked at, to find one that can be forgotten, for each new key.
const LOOKS: usize = 8;
/// What of a key counts. Longer ones that begin alike share a bucket.
const KEY_BYTES: usize = 512;

/// What a bucket says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the request passes.
    pub pass: bool,
    /// Requests that would pass right after it.
    pub remaining: u32,
    /// Until the bucket is full again.
    pub reset_us: u64,
    /// Until the next request passes; 0 when it does now.
    pub retry_us: u64,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    units: u128,
    at_us: u64,
}

/// Rate in units.
#[derive(Clone, Copy, Debug)]
struct Rate {
    /// Each microsecond.
    gain: u128,
    token: u128,
    full: u128,
}

impl Rate {
    fn of(limit: &RateLimit) -> Self {
        let token = u128::from(limit.interval_ms.max(1)) * 1_000;
        Rate { gain: u128::from(limit.requests.max(1)), token, full: token * u128::from(limit.burst.max(1)) }
    }
}

impl Bucket {
    fn full(rate: Rate, now_us: u64) -> Self {
        Bucket { units: rate.full, at_us: now_us }
    }

    fn fill(&mut self, rate: Rate, now_us: u64) {
        let passed = u128::from(now_us.saturating_sub(self.at_us));
        self.units = rate.full.min(self.units + passed * rate.gain);
        self.at_us = self.at_us.max(now_us);
    }

    fn take(&mut self, rate: Rate, now_us: u64) -> Verdict {
        self.fill(rate, now_us);
        let pass = self.units >= rate.token;
        if pass {
            self.units -= rate.token;
        }
        let wait = |units: u128| u64::try_from(units.div_ceil(rate.gain)).unwrap_or(u64::MAX);
        Verdict {
            pass,
            remaining: u32::try_from(self.units / rate.token).unwrap_or(u32::MAX),
            reset_us: wait(rate.full - self.units),
            retry_us: wait(rate.token.saturating_sub(self.units)),
        }
    }
}

/// The buckets of one limit.
#[derive(Clone, Debug)]
pub struct Buckets {
    rate: Rate,
    most: usize,
    by_key: BTreeMap<Box<str>, usize>,
    slots: Vec<(Box<str>, Bucket)>,
    /// Where the search for a full bucket goes on.
    hand: usize,
    /// Of keys that found no place.
    shared: Bucket,
}

impl Buckets {
    /// Full buckets for everybody, of at most so many keys ([`MOST_KEYS`]).
    pub fn new(limit: &RateLimit, most: usize, now_us: u64) -> Self {
        let rate = Rate::of(limit);
        let shared = Bucket::full(rate, now_us);
        Buckets { rate, most, by_key: BTreeMap::new(), slots: Vec::new(), hand: 0, shared }
    }

    /// Takes a token for a request of `key`.
    pub fn take(&mut self, key: &str, now_us: u64) -> Verdict {
        let key = cut(key);
        let rate = self.rate;
        if let Some(slot) = self.by_key.get(key) {
            return self.slots[*slot].1.take(rate, now_us);
        }
        self.shared.fill(rate, now_us);
        // Its tokens may be gone from the shared bucket: it goes on with what is left there, so that a place gives no second burst.
        let slot = (key.into(), self.shared);
        let index = if self.slots.len() < self.most {
            self.slots.push(slot);
            self.slots.len() - 1
        } else if let Some(index) = self.forgettable(now_us) {
            let old = std::mem::replace(&mut self.slots[index], slot);
            self.by_key.remove(&old.0);
            index
        } else {
            return self.shared.take(rate, now_us);
        };
        self.by_key.insert(key.into(), index);
        self.slots[index].1.take(rate, now_us)
    }

    /// A full bucket.
    fn forgettable(&mut self, now_us: u64) -> Option<usize> {
        for _ in 0..LOOKS.min(self.slots.len()) {
            let slot = self.hand;
            self.hand = (self.hand + 1) % self.slots.len();
            let bucket = &mut self.slots[slot].1;
            bucket.fill(self.rate, now_us);
            if bucket.units == self.rate.full {
                return Some(slot);
            }
        }
        None
    }
}

fn cut(key: &str) -> &str {
    let mut end = key.len().min(KEY_BYTES);
    while !key.is_char_boundary(end) {
        end -= 1;
    }
    &key[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(requests: u32, interval_ms: u64, burst: u32) -> RateLimit {
        RateLimit { name: "".into(), matches: vec![], per: vec![], requests, interval_ms, burst }
    }

    /// Level of a bucket in units after the takes at these times, microsecond by microsecond.
    fn brute_force(limit: &RateLimit, takes: &[u64], now_us: u64) -> i128 {
        let token = i128::from(limit.interval_ms) * 1_000;
        let full = token * i128::from(limit.burst);
        let mut units = full;
        for at in 0..=now_us {
            if at > 0 {
                units = full.min(units + i128::from(limit.requests));
            }
            units -= token * takes.iter().filter(|take| **take == at).count() as i128;
        }
        units
    }

    fn random(state: &mut u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    }

    #[test]
    fn a_bucket_is_what_it_says() {
        let mut buckets = Buckets::new(&limit(2, 1_000, 3), 8, 0);
        let pass = |buckets: &mut Buckets, at_us| buckets.take("a", at_us).pass;
        assert!((0..3).all(|_| pass(&mut buckets, 0)), "the burst");
        let refused = buckets.take("a", 0);
        assert_eq!(refused, Verdict { pass: false, remaining: 0, reset_us: 1_500_000, retry_us: 500_000 });
        assert!(!pass(&mut buckets, 499_999) && pass(&mut buckets, 500_000) && !pass(&mut buckets, 500_001));
        assert!(buckets.take("b", 500_001).pass, "another's is another's");
        assert!(!pass(&mut buckets, 400_000), "a clock that goes back gives nothing");
    }

    #[test]
    fn like_brute_force_while_all_keys_have_a_place() {
        let mut seed = 0x9e37_79b9_7f4a_7c15;
        for round in 0..60 {
            let limit = limit(1 + random(&mut seed) as u32 % 5, 1, 1 + random(&mut seed) as u32 % 4);
            let mut buckets = Buckets::new(&limit, 4, 0);
            let mut takes: [Vec<u64>; 4] = Default::default();
            let mut now_us = 0;
            for step in 0..60 {
                now_us += random(&mut seed) % 400;
                let who = random(&mut seed) as usize % 4;
                let verdict = buckets.take(["a", "b", "c", "d"][who], now_us);
                let has = brute_force(&limit, &takes[who], now_us);
                assert_eq!(verdict.pass, has >= 1_000, "round {round}, step {step}");
                takes[who].extend(verdict.pass.then_some(now_us));
                let left = if verdict.pass { has - 1_000 } else { has };
                assert_eq!(i128::from(verdict.remaining), left / 1_000, "round {round}, step {step}");
            }
        }
    }

    #[test]
    fn more_keys_than_places_get_less_and_never_more() {
        let mut seed = 7;
        let mut refused_early = 0;
        for round in 0..40 {
            let limit = limit(1 + random(&mut seed) as u32 % 3, 1, 1 + random(&mut seed) as u32 % 3);
            let mut buckets = Buckets::new(&limit, 3, 0);
            let mut takes: Vec<Vec<u64>> = vec![Vec::new(); 12];
            let mut now_us = 0;
            for step in 0..120 {
                now_us += random(&mut seed) % 150;
                let who = random(&mut seed) as usize % takes.len();
                let pass = buckets.take(&who.to_string(), now_us).pass;
                let has = brute_force(&limit, &takes[who], now_us) >= 1_000;
                assert!(!pass || has, "round {round}, step {step}: more than its own bucket gives");
                refused_early += usize::from(has && !pass);
                takes[who].extend(pass.then_some(now_us));
                assert!(buckets.slots.len() <= 3 && buckets.by_key.len() <= 3);
            }
        }
        assert!(refused_early > 0, "the case is met at all");
    }

    #[test]
    fn a_key_is_cut() {
        let mut buckets = Buckets::new(&limit(1, 60_000, 1), 8, 0);
        let long = "ü".repeat(400);
        assert!(buckets.take(&long, 0).pass && !buckets.take(&format!("{long}x"), 0).pass);
    }
}
