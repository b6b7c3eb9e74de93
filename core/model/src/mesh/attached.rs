//! Policies that hang on gateways, routes and services: `mesh.diolkos.io` TrafficPolicy as the proxy gets it.

use super::route::Match;
use crate::Key;
use std::sync::Arc;

/// What holds for the requests of its targets. Resource name: `NAMESPACE/NAME`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttachedPolicy {
    /// The TrafficPolicy.
    pub key: Key,
    /// Where it holds: only targets that are there and that no older policy has.
    pub targets: Vec<PolicyTarget>,
    /// Limits that each proxy keeps by itself. A request must pass all of them.
    pub limits: Vec<RateLimit>,
    /// A rate limit service that is asked.
    pub global: Option<GlobalLimit>,
    /// Slow requests are sent a second time.
    pub hedging: Option<Hedging>,
}

/// A request that is slow is sent to another endpoint as well, and the first good answer is passed on (Envoy's `hedge_on_per_try_timeout`,
/// gRPC's hedging).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hedging {
    /// A try is alone for so long, at least 1. None: as long as the route's time-out of a try, which then ends no try.
    pub after_ms: Option<u64>,
    /// Tries beside the first at most, not 0.
    pub most: u32,
    /// gRPC calls with one message are sent a second time, too; who says so knows that their methods may run twice. With these
    /// statuses an answer does not end the race while another try may begin (gRFC A6, `nonFatalStatusCodes`).
    pub grpc: Option<GrpcCodes>,
}

/// Statuses of gRPC, 0 to 16.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GrpcCodes(u32);

impl GrpcCodes {
    /// As gRPC names them, by their numbers.
    pub const NAMES: [&'static str; 17] = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
    /// What a call comes to that reached nobody.
    pub const UNAVAILABLE: u32 = 14;

    /// From a number for each of them: bit 1 is CANCELLED. Others are left out; OK is no failure.
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits & 0x1_fffe)
    }

    /// See [`GrpcCodes::from_bits`].
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Whether this one is among them.
    pub const fn has(self, code: u32) -> bool {
        code < 32 && self.0 >> code & 1 == 1
    }
}

/// Where a policy holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyTarget {
    /// Requests that come by a gateway.
    Gateway {
        /// The Gateway.
        gateway: Key,
        /// Only by this listener; empty: by any.
        listener: Arc<str>,
    },
    /// Requests that a route takes.
    Route {
        /// Resource name of the route.
        route: Arc<str>,
        /// Only those that the rule of this name takes; empty: any.
        rule: Arc<str>,
    },
    /// Requests at the endpoints of a service.
    Service {
        /// The Service.
        service: Key,
        /// Only at the port of this name; empty: any.
        port: Arc<str>,
    },
}

impl PolicyTarget {
    /// The whole object, and which part of it (empty: all).
    pub fn split(&self) -> (PolicyTarget, &Arc<str>) {
        let all: Arc<str> = "".into();
        match self {
            PolicyTarget::Gateway { gateway, listener } => {
                (PolicyTarget::Gateway { gateway: gateway.clone(), listener: all }, listener)
            }
            PolicyTarget::Route { route, rule } => (PolicyTarget::Route { route: route.clone(), rule: all }, rule),
            PolicyTarget::Service { service, port } => {
                (PolicyTarget::Service { service: service.clone(), port: all }, port)
            }
        }
    }
}

/// So many requests in so much time, from each that is told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// For logs; may be empty.
    pub name: Arc<str>,
    /// Requests that count: any of these; none: all.
    pub matches: Vec<Match>,
    /// What tells requests apart: each combination of values has the whole limit. A request without one of them does not count.
    pub per: Vec<Part>,
    /// Requests in each interval; not 0.
    pub requests: u32,
    /// Interval, at least 1.
    pub interval_ms: u64,
    /// Requests at once, not 0.
    pub burst: u32,
}

/// A rate limit service (Envoy's `envoy.service.ratelimit.v3`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GlobalLimit {
    /// `domain` of the question.
    pub domain: Arc<str>,
    /// Who is asked.
    pub service: Key,
    /// Its port.
    pub port: u16,
    /// Patience.
    pub timeout_ms: u64,
    /// Without an answer requests pass; else they are answered with 500.
    pub fail_open: bool,
    /// What it is asked. A request for which none applies passes unasked.
    pub descriptors: Vec<Descriptor>,
}

/// A descriptor. It applies to requests that have all of its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Requests for which it is made: any of these; none: all.
    pub matches: Vec<Match>,
    /// Keys and whence their values come.
    pub entries: Vec<(Arc<str>, Part)>,
}

/// A part of a request that tells it apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// A header's value; lower-case name.
    Header(Arc<str>),
    /// A query parameter's first value.
    Query(Arc<str>),
    /// The client's address, without port.
    ClientAddress,
    /// The verified identity of the caller, `TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT`.
    Principal,
    /// The namespace of that identity.
    Namespace,
    /// The method.
    Method,
    /// The path, without query.
    Path,
    /// The host, without port.
    Host,
    /// Always this.
    Fixed(Arc<str>),
}
