//! What HTTP filters do for one route: cross-origin requests, failures that are made.
use super::message::{Message, extension};
use super::route::{Text, string_matcher};

const CORS: &str = "envoy.filters.http.cors";
const FAULT: &str = "envoy.filters.http.fault";
const CORS_FILTER: &str = "type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors";
const CORS_POLICY: &str = "type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy";
const HTTP_FAULT: &str = "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault";
const SESSION: &str = "envoy.filters.http.stateful_session";
const STATEFUL: &str = "type.googleapis.com/envoy.extensions.filters.http.stateful_session.v3.StatefulSession";
const STATEFUL_ROUTE: &str =
    "type.googleapis.com/envoy.extensions.filters.http.stateful_session.v3.StatefulSessionPerRoute";
const SESSION_COOKIE: &str =
    "type.googleapis.com/envoy.extensions.http.stateful_session.cookie.v3.CookieBasedSessionState";
const SESSION_HEADER: &str =
    "type.googleapis.com/envoy.extensions.http.stateful_session.header.v3.HeaderBasedSessionState";
const FILTER_CONFIG: &str = "type.googleapis.com/envoy.config.route.v3.FilterConfig";

/// Cross-origin requests.
#[derive(Clone, Debug, Default)]
pub struct CorsPolicy {
    /// Origins that may.
    pub origins: Vec<Text>,
    /// Methods, `*` or names.
    pub methods: Vec<String>,
    /// Headers, `*` or names.
    pub headers: Vec<String>,
    /// Headers that scripts see.
    pub expose: Vec<String>,
    /// How long a preflight's answer is kept.
    pub max_age_s: u32,
    /// Whether credentials may come.
    pub credentials: bool,
    /// Whether preflights of other origins go on.
    pub pass_unmatched: bool,
}

/// What keeps a client on an endpoint: Envoy's `stateful_session`, which names the endpoint in a cookie or a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionState {
    /// Of the cookie or header.
    pub name: String,
    /// It is a header.
    pub header: bool,
    /// How long the cookie is kept; 0: for the client's session.
    pub ttl_s: u64,
}

/// Failures that are made, each with its share in parts of a million.
#[derive(Clone, Copy, Debug, Default)]
pub struct HttpFault {
    /// Milliseconds.
    pub delay: Option<(u64, u32)>,
    /// Status, and whether it is gRPC's.
    pub abort: Option<(u16, bool, u32)>,
}

/// Filters that do nothing where a route does not ask for it: one before policies decide (a preflight has no identity), one after.
pub(super) fn cors_filter() -> Message {
    extension(CORS, 4, CORS_FILTER, Message::new())
}

pub(super) fn fault_filter() -> Message {
    extension(FAULT, 4, HTTP_FAULT, Message::new())
}

pub(super) fn session_filter() -> Message {
    extension(SESSION, 4, STATEFUL, Message::new())
}

impl SessionState {
    pub(super) fn entry(&self) -> Message {
        let state = if self.header {
            extension("envoy.http.stateful_session.header", 2, SESSION_HEADER, Message::new().text(1, &self.name))
        } else {
            let cookie = Message::new().text(1, &self.name).duration_ms(2, self.ttl_s * 1_000).text(3, "/");
            extension("envoy.http.stateful_session.cookie", 2, SESSION_COOKIE, Message::new().child(1, cookie))
        };
        // stateful_session { session_state }
        let session = Message::new().child(1, state);
        entry(SESSION, STATEFUL_ROUTE, Message::new().child(2, session))
    }
}

/// `envoy.type.v3.FractionalPercent`, of a million.
fn share(millionths: u32) -> Message {
    Message::new().number(1, u64::from(millionths)).number(2, 2)
}

/// An entry of `typed_per_filter_config`, optional: a gRPC client does not know all of them.
pub(super) fn entry(name: &str, type_url: &str, value: Message) -> Message {
    let config = Message::new().any(1, type_url, value).number(2, 1);
    Message::new().text(1, name).any(2, FILTER_CONFIG, config)
}

impl CorsPolicy {
    pub(super) fn entry(&self) -> Message {
        let origins = Message::new().children(1, self.origins.iter().map(string_matcher));
        let lists = [(2, &self.methods), (3, &self.headers), (4, &self.expose)];
        let said = lists.into_iter().filter(|(_, list)| !list.is_empty());
        let policy = said.fold(origins, |message, (tag, list)| message.text(tag, &list.join(",")));
        let policy = policy.text(5, &self.max_age_s.to_string()).wrapped(6, u64::from(self.credentials));
        let policy = policy.wrapped(10, u64::from(self.pass_unmatched));
        entry(CORS, CORS_POLICY, policy)
    }
}

impl HttpFault {
    pub(super) fn entry(&self) -> Message {
        let delay = self.delay.map(|(ms, part)| Message::new().duration_ms(3, ms).child(4, share(part)));
        let abort = self.abort.map(|(status, grpc, part)| {
            let message = Message::new().number(if grpc { 5 } else { 2 }, u64::from(status));
            message.child(3, share(part))
        });
        entry(FAULT, HTTP_FAULT, Message::new().maybe(1, delay).maybe(2, abort))
    }
}
