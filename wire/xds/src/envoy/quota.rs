//! Limits that a rate limit service keeps: one filter of a listener for each policy, and on each route what the service is asked.
use super::authorizer::grpc_service;
use super::filter::entry;
use super::limit::LimitPart;
use super::message::{Message, extension};
use bytes::Bytes;

const FILTER: &str = "type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit";
const ROUTE: &str = "type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimitPerRoute";
/// Routes' lists are for the limits that an Envoy keeps by itself: at this stage there are none of them.
const STAGE: u64 = 1;

/// What a route's requests are asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Name of the filter that asks.
    pub filter: String,
    /// Descriptors: entries with their keys. One that lacks a value is not asked about.
    pub descriptors: Vec<Vec<(String, LimitPart)>>,
}

/// Who is asked.
#[derive(Clone, Copy, Debug)]
pub struct QuotaService<'a> {
    /// Name of the filter.
    pub filter: &'a str,
    /// `domain` of the question.
    pub domain: &'a str,
    /// Its cluster, which speaks HTTP/2.
    pub cluster: &'a str,
    /// `:authority` of the question.
    pub authority: &'a str,
    /// Patience.
    pub timeout_ms: u64,
    /// Without an answer requests pass; else they are answered with 500.
    pub fail_open: bool,
}

impl Quota {
    pub(super) fn on_route(&self) -> Message {
        let actions = |parts: &Vec<(String, LimitPart)>| {
            Message::new().children(3, parts.iter().map(|(key, part)| part.action(key)))
        };
        // rate_limits { actions }
        entry(&self.filter, ROUTE, Message::new().children(3, self.descriptors.iter().map(actions)))
    }
}

/// The filter that asks.
pub fn quota_filter(of: &QuotaService<'_>) -> Bytes {
    // rate_limit_service { grpc_service, transport_api_version V3 }
    let service = Message::new().child(2, grpc_service(of.cluster, of.authority, of.timeout_ms)).number(4, 2);
    // domain, stage, timeout, failure_mode_deny, rate_limit_service, enable_x_ratelimit_headers DRAFT_VERSION_03
    let filter = Message::new()
        .text(1, of.domain)
        .number(2, STAGE)
        .duration_ms(4, of.timeout_ms)
        .number(5, u64::from(!of.fail_open))
        .child(7, service)
        .number(8, 1);
    extension(of.filter, 4, FILTER, filter).finish()
}
