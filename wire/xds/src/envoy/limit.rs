//! Rate limits that an Envoy keeps by itself: buckets in one filter of a listener, and on each route what its requests count in. So routes share buckets.
use super::message::{Message, extension};
use super::route::{Text, string_matcher};
use bytes::Bytes;

const FILTER: &str = "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit";
const EXPRESSION: &str = "type.googleapis.com/envoy.extensions.rate_limit_descriptors.expr.v3.Descriptor";
/// What names a limit among a request's descriptors.
const LIMIT: &str = "limit";
/// Combinations of values that have buckets of their own; more share.
const MOST_BUCKETS: u64 = 16_384;

/// A limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalLimit {
    /// Unique among all limits.
    pub key: String,
    /// Requests in each interval.
    pub requests: u32,
    /// Interval.
    pub interval_ms: u64,
    /// Requests at once.
    pub burst: u32,
    /// Requests count that have all of these, and each combination of values apart.
    pub parts: Vec<LimitPart>,
}

/// A part of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LimitPart {
    /// A header's value, `:method`, `:path` and `:authority` among them.
    Header(String),
    /// A query parameter's value.
    Query(String),
    /// The client's address.
    Address,
    /// The path, without query.
    Path,
    /// Always this text.
    Fixed(String),
    /// This text, where headers match.
    Matches(String, Vec<(String, Text)>),
}

impl LimitPart {
    /// The action that makes a descriptor's entry: `config.route.v3.RateLimit.Action`.
    pub(super) fn action(&self, key: &str) -> Message {
        match self {
            // request_headers { header_name, descriptor_key }
            LimitPart::Header(name) => Message::new().child(3, Message::new().text(1, name).text(2, key)),
            LimitPart::Query(name) => Message::new().child(12, Message::new().text(1, name).text(2, key)),
            LimitPart::Address => Message::new().child(4, Message::new()),
            // extension { name, typed_config { descriptor_key, text } }
            LimitPart::Path => {
                let expression = Message::new().text(1, key).text(3, "request.url_path");
                Message::new().child(9, extension("envoy.rate_limit_descriptors.expr", 2, EXPRESSION, expression))
            }
            // generic_key { descriptor_value, descriptor_key }
            LimitPart::Fixed(text) => Message::new().child(5, Message::new().text(1, text).text(2, key)),
            // header_value_match { descriptor_value, expect_match, headers, descriptor_key }
            LimitPart::Matches(text, headers) => {
                let headers = headers.iter().map(|(name, text)| {
                    let matcher = Message::new().text(1, name);
                    match text {
                        Text::Present => matcher.number(7, 1),
                        text => matcher.child(13, string_matcher(text)),
                    }
                });
                let matched = Message::new().text(1, text).wrapped(2, 1).children(3, headers).text(4, key);
                Message::new().child(6, matched)
            }
        }
    }

    /// The entry that it makes; an empty value stands for all.
    fn entry(&self, key: &str) -> Message {
        match self {
            LimitPart::Header(_) | LimitPart::Query(_) | LimitPart::Path => Message::new().text(1, key),
            LimitPart::Address => Message::new().text(1, "remote_address"),
            LimitPart::Fixed(text) | LimitPart::Matches(text, _) => Message::new().text(1, key).text(2, text),
        }
    }
}

impl LocalLimit {
    fn keyed(&self) -> impl Iterator<Item = (String, &LimitPart)> {
        self.parts.iter().enumerate().map(|(number, part)| (format!("part{number}"), part))
    }

    /// `config.route.v3.RateLimit`, on a route.
    pub(super) fn on_route(&self) -> Message {
        let named = LimitPart::Fixed(self.key.clone()).action(LIMIT);
        let parts = self.keyed().map(|(key, part)| part.action(&key));
        Message::new().child(3, named).children(3, parts)
    }

    /// `LocalRateLimitDescriptor`.
    fn descriptor(&self) -> Message {
        let named = Message::new().text(1, LIMIT).text(2, &self.key);
        let parts = self.keyed().map(|(key, part)| part.entry(&key));
        Message::new().child(1, named).children(1, parts).child(2, bucket(self.burst, self.requests, self.interval_ms))
    }
}

/// `type.v3.TokenBucket`.
fn bucket(most: u32, fill: u32, interval_ms: u64) -> Message {
    // Envoy takes no interval below 50 ms.
    let (fill, interval_ms) = match interval_ms {
        0..50 => (u64::from(fill) * 50 / interval_ms.max(1), 50),
        _ => (u64::from(fill), interval_ms),
    };
    Message::new().number(1, u64::from(most)).wrapped(2, fill).duration_ms(3, interval_ms)
}

/// The filter that keeps the buckets.
pub fn local_limits(limits: &[LocalLimit]) -> Bytes {
    // RuntimeFractionalPercent { default_value { numerator 100, HUNDRED } }
    let always = || Message::new().child(1, Message::new().number(1, 100));
    let told = Message::new().child(1, Message::new().text(1, "x-envoy-ratelimited").text(2, "true"));
    let filter = Message::new()
        .text(1, "limits")
        .child(4, always())
        .child(5, always())
        .child(6, told)
        .children(8, limits.iter().map(LocalLimit::descriptor))
        // enable_x_ratelimit_headers DRAFT_VERSION_03, always_consume_default_token_bucket, max_dynamic_descriptors, enable_retry_after_header
        .number(12, 1)
        .wrapped(14, 0)
        .wrapped(18, MOST_BUCKETS)
        .number(19, 1);
    extension("envoy.filters.http.local_ratelimit", 4, FILTER, filter).finish()
}
