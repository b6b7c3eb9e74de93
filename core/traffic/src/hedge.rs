//! When a request that is slow is sent a second time, beside the first (Envoy's `hedge_on_per_try_timeout`).
//!
//! Tries race: the first good answer is passed on and the other tries are cancelled. A try that fails while another runs is forgotten; one
//! that fails alone is for [`retry`](crate::retry) to judge, and the race can begin anew with its successor. gRPC's rules (gRFC A6) are the
//! same but for answers that say that they failed: of some statuses the next try begins at once, or when the server says.

use crate::retry::{Attempt, Budget};
use model::mesh::attached::Hedging;

/// The tries of one request that run beside each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Race {
    /// A try is alone for so long.
    wait_ms: u64,
    /// When that is over for the last try, too, the request has failed: nothing else limits a try.
    ends: bool,
    /// Tries beside others that may still begin.
    left: u32,
    running: u32,
    begun: u32,
}

/// What a server says of another try (`grpc-retry-pushback-ms`, gRFC A6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushback {
    /// Nothing: at once.
    None,
    /// After so many milliseconds.
    AfterMs(u64),
    /// There should be none.
    Never,
}

impl Pushback {
    /// As the field says it. What cannot be read, or is below 0, means never.
    pub fn of(value: Option<&[u8]>) -> Self {
        let Some(value) = value else { return Pushback::None };
        let number = std::str::from_utf8(value).ok().and_then(|text| text.parse::<i32>().ok());
        number.and_then(|ms| u64::try_from(ms).ok()).map_or(Pushback::Never, Pushback::AfterMs)
    }
}

/// What is to be done when a try was alone for long enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overdue {
    /// Another begins.
    Send,
    /// Those that run are waited for.
    Wait,
    /// It took too long.
    Fail,
}

impl Race {
    /// A race of a request, if it may be sent twice. `try_ms`: how long a try may take by its route.
    pub fn new(hedging: Hedging, try_ms: Option<u64>, attempt: Attempt) -> Option<Race> {
        let wait_ms = hedging.after_ms.or(try_ms)?.max(1);
        let may = attempt.idempotent && attempt.replayable;
        may.then_some(Race { wait_ms, ends: hedging.after_ms.is_none(), left: hedging.most, running: 0, begun: 0 })
    }

    /// After so many milliseconds since the last try began [`Race::overdue`] is to be asked.
    pub fn wait_ms(&self) -> u64 {
        self.wait_ms
    }

    /// Whether time ends its tries only together.
    pub fn ends_tries_together(&self) -> bool {
        self.ends
    }

    /// How many run.
    pub fn running(&self) -> u32 {
        self.running
    }

    /// A try begins.
    pub fn begin(&mut self) {
        self.running += 1;
        self.begun += 1;
    }

    /// Tries that began before the last one.
    pub fn beside(&self) -> u32 {
        self.begun.saturating_sub(1)
    }

    /// A try failed. Whether others are waited for.
    pub fn failed(&mut self) -> bool {
        self.running = self.running.saturating_sub(1);
        self.running > 0
    }

    /// A try failed in a way that is not the last word: after how many milliseconds [`Race::overdue`] is to be asked; None: no other begins.
    pub fn goes_on(&mut self, pushback: Pushback, remaining_ms: Option<u64>) -> Option<u64> {
        let wait_ms = match pushback {
            Pushback::None => 0,
            Pushback::AfterMs(ms) => ms,
            Pushback::Never => {
                self.left = 0;
                return None;
            }
        };
        let time = remaining_ms.is_none_or(|remaining| remaining > wait_ms);
        (self.left > 0 && time).then_some(wait_ms)
    }

    /// The last try was alone for [`Race::wait_ms`]. `other`: there is an endpoint that was not asked. A try that is to be sent has taken its
    /// share of the `budget`.
    pub fn overdue(&mut self, other: bool, attempt: Attempt, budget: &mut Budget) -> Overdue {
        let time = attempt.remaining_ms.is_none_or(|remaining| remaining > 0);
        if self.left > 0 && other && time && attempt.replayable && budget.take() {
            self.left -= 1;
            return Overdue::Send;
        }
        if self.ends { Overdue::Fail } else { Overdue::Wait }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::mesh::traffic::RetryBudget;

    const FIRST: Attempt = Attempt { tries: 1, idempotent: true, replayable: true, remaining_ms: None };

    fn race(after_ms: Option<u64>, most: u32, try_ms: Option<u64>) -> Option<Race> {
        Race::new(Hedging { after_ms, most, grpc: None }, try_ms, FIRST)
    }

    #[test]
    fn only_what_may_be_sent_twice_and_has_a_time_after_which() {
        let waits = |after, try_ms| race(after, 1, try_ms).map(|race| (race.wait_ms(), race.ends_tries_together()));
        for (after, try_ms, expect) in [
            (Some(50), None, Some((50, false))),
            (Some(50), Some(900), Some((50, false))),
            (None, Some(900), Some((900, true))),
            (None, None, None),
        ] {
            assert_eq!(waits(after, try_ms), expect, "{after:?} {try_ms:?}");
        }
        let hedging = Hedging { after_ms: Some(1), most: 1, grpc: None };
        for not in [Attempt { idempotent: false, ..FIRST }, Attempt { replayable: false, ..FIRST }] {
            assert_eq!(Race::new(hedging, None, not), None);
        }
    }

    #[test]
    fn as_many_as_are_allowed_and_then_waits_or_fails() {
        for (after, last) in [(Some(5), Overdue::Wait), (None, Overdue::Fail)] {
            let mut race = race(after, 2, Some(5)).unwrap();
            let mut budget = Budget::new();
            race.begin();
            for _ in 0..2 {
                assert_eq!(race.overdue(true, FIRST, &mut budget), Overdue::Send);
                race.begin();
            }
            assert_eq!(race.overdue(true, FIRST, &mut budget), last);
            assert!(race.failed() && race.failed() && !race.failed(), "of three the last one decides");
        }
    }

    #[test]
    fn within_the_budget_and_the_time() {
        let mut empty = Budget::of(Some(RetryBudget { percent: 0, min_concurrency: 1 }));
        let mut first = race(Some(5), 1, None).unwrap();
        assert_eq!(first.overdue(true, FIRST, &mut empty), Overdue::Send);
        let mut second = race(Some(5), 1, None).unwrap();
        assert_eq!(second.overdue(true, FIRST, &mut empty), Overdue::Wait, "the budget is spent");
        assert_eq!(second.overdue(false, FIRST, &mut Budget::new()), Overdue::Wait, "there is no other endpoint");
        let late = Attempt { remaining_ms: Some(0), ..FIRST };
        assert_eq!(second.overdue(true, late, &mut Budget::new()), Overdue::Wait);
    }

    #[test]
    fn a_server_says_when_the_next_may_begin() {
        for (field, expect) in [
            (None, Pushback::None),
            (Some("0"), Pushback::AfterMs(0)),
            (Some("250"), Pushback::AfterMs(250)),
            (Some("-1"), Pushback::Never),
            (Some("soon"), Pushback::Never),
            (Some(""), Pushback::Never),
        ] {
            assert_eq!(Pushback::of(field.map(str::as_bytes)), expect, "{field:?}");
        }
        let begun = || {
            let mut race = race(Some(50), 2, None).unwrap();
            race.begin();
            race
        };
        assert_eq!(begun().goes_on(Pushback::None, None), Some(0));
        assert_eq!(begun().goes_on(Pushback::AfterMs(250), Some(300)), Some(250));
        assert_eq!(begun().goes_on(Pushback::AfterMs(250), Some(250)), None, "the call is over by then");
        let mut pushed = begun();
        assert_eq!(pushed.goes_on(Pushback::Never, None), None);
        assert_eq!(pushed.overdue(true, FIRST, &mut Budget::new()), Overdue::Wait, "nor by time");
        let mut spent = race(Some(50), 1, None).unwrap();
        assert_eq!(spent.overdue(true, FIRST, &mut Budget::new()), Overdue::Send);
        assert_eq!(spent.goes_on(Pushback::None, None), None, "as many as are allowed were made");
    }
}
