//! Whether to try again.

use model::mesh::Retry;
use model::mesh::traffic::RetryBudget;

/// How a try failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection, or a connection that ended before a byte of the request was sent on it, or that the peer refused as not
    /// processed (HTTP/2 GOAWAY above the last stream, REFUSED_STREAM): the request has had no effect.
    NotSent,
    /// The connection ended after the request was sent and before an answer.
    Reset,
    /// The try's own time was over.
    TryTimeout,
    /// An answer with this status came.
    Status(u16),
    /// An answer without a body came, with this status of gRPC.
    Grpc(u16),
}

/// What is known of a request when it has to be decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Tries made, the failed one included.
    pub tries: u32,
    /// The method is idempotent (RFC 9110: GET, HEAD, OPTIONS, TRACE, PUT, DELETE).
    pub idempotent: bool,
    /// The request can be sent again from its beginning: no body, or the whole of it is kept.
    pub replayable: bool,
    /// Milliseconds of the request's own time that remain; none when it has no limit.
    pub remaining_ms: Option<u64>,
}

/// Tries beyond the first without any policy: what failed without effect, and an idempotent request whose connection broke before an
/// answer, is tried on other endpoints. As many as a rollout may end at once before anybody has heard of it.
pub const IMPLICIT_RETRIES: u32 = 5;
/// Least pause when a policy names none (Envoy's own default).
pub const DEFAULT_BACKOFF_MS: u64 = 25;
/// Pauses grow up to this many times the least.
const BACKOFF_GROWTH_LIMIT: u32 = 10;

/// Decides about another try: after how many milliseconds, or not at all. `draw` is uniform in all of `u32`.
///
/// Without a policy what surely had no effect is tried again, and what is idempotent (RFC 9110, 9.2.2) and got no answer because its
/// connection broke. With one, answers with its codes are, too, and time-outs of tries for idempotent methods.
pub fn decide(
    policy: Option<&Retry>,
    failure: Failure,
    attempt: Attempt,
    budget: &mut Budget,
    draw: u32,
) -> Option<u64> {
    let limit = match (failure, policy) {
        // Whoever says how often to ask a service again does not speak of endpoints that were never asked.
        (Failure::NotSent, Some(policy)) => policy.attempts.max(IMPLICIT_RETRIES),
        (_, Some(policy)) => policy.attempts,
        (_, None) => IMPLICIT_RETRIES,
    };
    if attempt.tries > limit || !attempt.replayable {
        return None;
    }
    let wanted = match (failure, policy) {
        (Failure::NotSent, _) => true,
        (Failure::Status(code), Some(policy)) => policy.codes.contains(&code),
        (Failure::Grpc(status), Some(policy)) => policy.grpc.contains(&status),
        (Failure::Reset | Failure::TryTimeout, Some(policy)) => attempt.idempotent || policy.any_method,
        (Failure::Reset, None) => attempt.idempotent,
        (_, None) => false,
    };
    if !wanted {
        return None;
    }
    // The first try elsewhere after a connection was lost is at once: a dead endpoint is no overload.
    let lost = failure == Failure::NotSent || (failure == Failure::Reset && policy.is_none());
    let pause = if lost && attempt.tries == 1 { 0 } else { backoff(policy, attempt.tries, draw) };
    if attempt.remaining_ms.is_some_and(|remaining| remaining <= pause) {
        return None;
    }
    (failure == Failure::NotSent || budget.take()).then_some(pause)
}

/// Exponential, with full jitter above the least pause.
fn backoff(policy: Option<&Retry>, tries: u32, draw: u32) -> u64 {
    let least = policy.and_then(|policy| policy.backoff_ms).unwrap_or(DEFAULT_BACKOFF_MS);
    let factor = 2u64.saturating_pow(tries.saturating_sub(1)).min(u64::from(BACKOFF_GROWTH_LIMIT));
    let most = least.saturating_mul(factor);
    least + (((most - least) as u128 * u128::from(draw)) >> 32) as u64
}

/// Retries may be a share of requests: when everything fails, retries must not multiply the load. One for each service and core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// In hundredths of a retry.
    tokens: u32,
    /// What a full one holds.
    full: u32,
    /// What a request adds.
    share: u32,
}

impl Budget {
    /// Retries that a full budget holds, in hundredths.
    const FULL: u32 = 10_000;
    /// What a request adds: a fifth of a retry.
    const SHARE: u32 = 20;

    /// A full budget.
    pub const fn new() -> Self {
        Budget { tokens: Budget::FULL, full: Budget::FULL, share: Budget::SHARE }
    }

    /// As a service's policy has it: a percentage of its requests, and so many at once in any case.
    pub fn of(policy: Option<RetryBudget>) -> Self {
        let Some(policy) = policy else { return Budget::new() };
        let full = policy.min_concurrency.saturating_mul(100).max(100);
        Budget { tokens: full, full, share: policy.percent }
    }
    /// A request (not a retry) came.
    pub fn earn(&mut self) {
        self.tokens = self.tokens.saturating_add(self.share).min(self.full);
    }
    /// A retry wants to be made: whether it may.
    pub(crate) fn take(&mut self) -> bool {
        match self.tokens.checked_sub(100) {
            Some(rest) => {
                self.tokens = rest;
                true
            }
            None => false,
        }
    }
}

impl Default for Budget {
    fn default() -> Self {
        Budget::new()
    }
}

/// Whether a method is idempotent (RFC 9110, 9.2.2).
pub fn is_idempotent(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(policy: Option<&Retry>, failure: Failure, attempt: Attempt, expect: Option<u64>) {
        let mut budget = Budget::new();
        assert_eq!(decide(policy, failure, attempt, &mut budget, 0), expect, "{failure:?} {attempt:?}");
    }

    const FIRST: Attempt = Attempt { tries: 1, idempotent: true, replayable: true, remaining_ms: None };

    #[test]
    fn without_policy_what_had_no_effect_or_may_have_it_twice() {
        check(None, Failure::NotSent, FIRST, Some(0));
        check(None, Failure::NotSent, Attempt { idempotent: false, ..FIRST }, Some(0));
        check(None, Failure::NotSent, Attempt { tries: 2, ..FIRST }, Some(25));
        check(None, Failure::NotSent, Attempt { tries: IMPLICIT_RETRIES + 1, ..FIRST }, None);
        check(None, Failure::NotSent, Attempt { replayable: false, ..FIRST }, None);
        check(None, Failure::Reset, FIRST, Some(0));
        check(None, Failure::Reset, Attempt { tries: 2, ..FIRST }, Some(25));
        check(None, Failure::Reset, Attempt { idempotent: false, ..FIRST }, None);
        check(None, Failure::TryTimeout, FIRST, None);
        check(None, Failure::Status(503), FIRST, None);
    }

    #[test]
    fn a_policy_widens_it() {
        let policy = Retry { attempts: 2, backoff_ms: Some(100), codes: vec![503], ..Retry::default() };
        check(Some(&policy), Failure::Status(503), FIRST, Some(100));
        check(Some(&policy), Failure::Status(503), Attempt { idempotent: false, ..FIRST }, Some(100));
        check(Some(&policy), Failure::Status(500), FIRST, None);
        check(Some(&policy), Failure::Reset, FIRST, Some(100));
        check(Some(&policy), Failure::Reset, Attempt { idempotent: false, ..FIRST }, None);
        check(Some(&policy), Failure::TryTimeout, Attempt { tries: 3, ..FIRST }, None);
        check(Some(&policy), Failure::NotSent, Attempt { tries: 3, ..FIRST }, Some(100));
        check(Some(&policy), Failure::Reset, Attempt { remaining_ms: Some(100), ..FIRST }, None);
        check(Some(&policy), Failure::Grpc(14), FIRST, None);
        let policy = Retry { grpc: vec![14], any_method: true, ..policy };
        check(Some(&policy), Failure::Grpc(14), Attempt { idempotent: false, ..FIRST }, Some(100));
        check(Some(&policy), Failure::Grpc(13), FIRST, None);
        check(Some(&policy), Failure::Reset, Attempt { idempotent: false, ..FIRST }, Some(100));
        check(Some(&policy), Failure::TryTimeout, Attempt { idempotent: false, ..FIRST }, Some(100));
    }

    #[test]
    fn pauses_grow_and_are_spread() {
        let policy = Retry { attempts: 10, backoff_ms: Some(10), codes: vec![], ..Retry::default() };
        let pauses: Vec<u64> = (1..7).map(|tries| backoff(Some(&policy), tries, u32::MAX)).collect();
        assert_eq!(pauses, [10, 19, 39, 79, 99, 99]);
    }

    #[test]
    fn a_budget_bounds_the_share_of_retries() {
        let policy = Retry { attempts: 1, backoff_ms: None, codes: vec![503], ..Retry::default() };
        let mut budget = Budget::new();
        let mut retries = 0;
        for _ in 0..10_000 {
            budget.earn();
            retries += u32::from(decide(Some(&policy), Failure::Status(503), FIRST, &mut budget, 0).is_some());
        }
        // The full budget at the start, then a fifth.
        assert_eq!(retries, 100 + 10_000 / 5 - 1);
    }

    #[test]
    fn a_services_own_budget() {
        let policy = Retry { attempts: 1, backoff_ms: None, codes: vec![503], ..Retry::default() };
        let mut budget = Budget::of(Some(RetryBudget { percent: 10, min_concurrency: 3 }));
        let mut retries = 0;
        for _ in 0..1_000 {
            budget.earn();
            retries += u32::from(decide(Some(&policy), Failure::Status(503), FIRST, &mut budget, 0).is_some());
        }
        assert_eq!(retries, 3 + 100 - 1);
    }
}
