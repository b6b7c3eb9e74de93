//! One route model for Gateway API and Istio's VirtualService.

use super::subnet::Subnet;
use crate::{Key, Labels, Timestamp};
use std::fmt;
use std::sync::Arc;

/// Rules, and where they hang. Resource name: `KIND/NAMESPACE/NAME`, as `HTTPRoute/default/reviews` or `VirtualService/default/reviews`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Resource name.
    pub name: Arc<str>,
    /// The object.
    pub key: Key,
    /// What it routes.
    pub kind: RouteKind,
    /// When the object was made: of two rules that are equally specific the older wins.
    pub created: Timestamp,
    /// Where it hangs: only parents that accepted it.
    pub parents: Vec<Parent>,
    /// In the object's order.
    pub rules: Vec<Rule>,
    /// The first rule that matches takes a request (VirtualService), not the most specific one (Gateway API).
    pub ordered: bool,
}

/// What a route routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteKind {
    /// HTTP requests.
    Http,
    /// gRPC calls: HTTP requests whose failures are told in gRPC's own way.
    Grpc,
    /// TLS connections by SNI.
    Tls,
    /// TCP connections.
    Tcp,
    /// UDP datagrams.
    Udp,
}

/// One place where a route hangs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Parent {
    /// The place.
    pub target: ParentTarget,
    /// Hosts for which the route holds there: the route's own, cut to the listener's. Empty: all.
    pub hostnames: Vec<Hostname>,
}

/// A place where routes hang.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ParentTarget {
    /// A gateway's listener.
    Listener {
        /// The Gateway.
        gateway: Key,
        /// Section name.
        listener: Arc<str>,
    },
    /// A Service: requests of mesh clients to it.
    Service {
        /// The Service.
        service: Key,
        /// Only this port.
        port: Option<u16>,
        /// Only callers of this namespace (a consumer route: it is in another namespace than the service); none means all callers.
        consumer: Option<Arc<str>>,
    },
}

/// A DNS name, lower case, that may begin with `*.`: then it stands for one or more labels in front.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hostname(Arc<str>);

impl Hostname {
    /// Lower-cased. An empty text or `*` is no hostname: none says the same.
    pub fn new(text: &str) -> Option<Self> {
        (!text.is_empty() && text != "*").then(|| Hostname(text.to_ascii_lowercase().into()))
    }
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// For `*.example.com` the part `.example.com`.
    pub fn wildcard_suffix(&self) -> Option<&str> {
        self.0.strip_prefix('*')
    }
    /// Whether `host` (lower case, without port) is meant by this. `*.a.b` means `x.a.b` and `y.x.a.b` but not `a.b`.
    pub fn matches(&self, host: &str) -> bool {
        match self.wildcard_suffix() {
            Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
            None => host == &*self.0,
        }
    }
    /// The hosts that both mean, if any.
    pub fn intersect(&self, other: &Hostname) -> Option<Hostname> {
        match (self.wildcard_suffix(), other.wildcard_suffix()) {
            (None, _) => other.matches(&self.0).then(|| self.clone()),
            (_, None) => self.matches(&other.0).then(|| other.clone()),
            (Some(mine), Some(theirs)) if mine.ends_with(theirs) => Some(self.clone()),
            (Some(mine), Some(theirs)) => theirs.ends_with(mine).then(|| other.clone()),
        }
    }
    /// Precedence, greater wins: characters of a name without wildcard, then characters at all.
    pub fn specificity(&self) -> (usize, usize) {
        if self.wildcard_suffix().is_some() { (0, self.0.len()) } else { (self.0.len(), self.0.len()) }
    }
}

impl fmt::Debug for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One rule: any of its matches leads here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// `name`, or empty.
    pub name: Arc<str>,
    /// Never empty: a rule without matches got one that matches everything.
    pub matches: Vec<Match>,
    /// In order.
    pub filters: Vec<Filter>,
    /// Chosen by weight. Empty (and no redirect): answer 500 (gRPC: UNAVAILABLE).
    pub backends: Vec<Backend>,
    /// Limits on time.
    pub timeouts: Timeouts,
    /// Retries.
    pub retry: Option<Retry>,
    /// What keeps a client's requests on one endpoint.
    pub session: Option<Session>,
}

/// Session persistence (GEP-1619): a client gets a token with its first answer, and requests with the token go where the first one went, as
/// long as that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Name of the cookie, or of the header (lower case).
    pub name: Arc<str>,
    /// The token is a header's value, not a cookie's.
    pub header: bool,
    /// How long a token counts; 0: for ever.
    pub absolute_s: u64,
    /// How long it counts since a request last brought it; 0: for ever.
    pub idle_s: u64,
    /// The cookie is kept for that long, not for the client's session.
    pub permanent: bool,
}

/// All of its parts must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match {
    /// On the path in its normal form, without query.
    pub path: PathMatch,
    /// Exact method.
    pub method: Option<Arc<str>>,
    /// On header values; names are lower case. Several values of one header are joined by a comma first.
    pub headers: Vec<ValueMatch>,
    /// On query parameters, decoded; the first value of a name counts.
    pub query: Vec<ValueMatch>,
    /// What only a VirtualService asks for.
    pub more: Option<Box<MatchMore>>,
}

/// Parts of a match that Gateway API does not know. All that are set must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MatchMore {
    /// Paths are compared without regard to case.
    pub ignore_case: bool,
    /// `http` or `https`.
    pub scheme: Option<TextMatch>,
    /// A method that is not given exactly.
    pub method: Option<TextMatch>,
    /// Host header or `:authority`, as sent.
    pub authority: Option<TextMatch>,
    /// None of these may hold.
    pub without_headers: Vec<ValueMatch>,
    /// The service's or listener's port.
    pub port: Option<u16>,
    /// The caller's namespace.
    pub source_namespace: Option<Arc<str>>,
    /// Labels that the caller's workload has, all of them.
    pub source_labels: Labels,
    /// Addresses that a connection was meant for, before a service was seen in them: one of these. Empty: any.
    pub destinations: Vec<Subnet>,
}

impl Default for Match {
    fn default() -> Self {
        Match { path: PathMatch::Prefix("/".into()), method: None, headers: Vec::new(), query: Vec::new(), more: None }
    }
}

/// How a path matches.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PathMatch {
    /// Equal.
    Exact(Arc<str>),
    /// Equal up to an element's end: `/a` means `/a`, `/a/` and `/a/b`, not `/ab`. A final slash in it counts for nothing.
    Prefix(Arc<str>),
    /// The whole path matches this RE2-like expression.
    Regex(Arc<str>),
    /// The path begins with this text, wherever an element ends (VirtualService).
    Text(Arc<str>),
}

/// How a text matches.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TextMatch {
    /// Equal, by case.
    Exact(Arc<str>),
    /// The whole text matches this RE2-like expression.
    Regex(Arc<str>),
    /// It begins so.
    Prefix(Arc<str>),
    /// It is there.
    Present,
}

/// A named value matches.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ValueMatch {
    /// Header (lower case) or query parameter (by case).
    pub name: Arc<str>,
    /// Its value.
    pub value: TextMatch,
}

/// What is done to a request or its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// On the way in.
    RequestHeaders(HeaderModifier),
    /// On the way out.
    ResponseHeaders(HeaderModifier),
    /// Answer with a redirect.
    Redirect(Redirect),
    /// Change host or path.
    Rewrite(Rewrite),
    /// Send a copy elsewhere and forget its answer.
    Mirror(Mirror),
    /// Cross-origin requests.
    Cors(Cors),
    /// Some requests are delayed or refused, to see who bears it.
    Fault(Fault),
    /// Answer with this.
    Respond(Response),
}

/// Failures that are made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fault {
    /// Milliseconds before the request goes on, and for which share.
    pub delay: Option<(u64, Fraction)>,
    /// An answer in place of the service's, and for which share.
    pub abort: Option<(Abort, Fraction)>,
}

/// What a request that is refused on purpose gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abort {
    /// An HTTP status.
    Http(u16),
    /// A gRPC status; to who does not speak gRPC, the HTTP status that stands for it.
    Grpc(u16),
}

/// An answer that the proxy gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Status.
    pub status: u16,
    /// Body; may be empty.
    pub body: Arc<[u8]>,
}

/// Headers to set, add, remove; names are lower case. Set is done first, then add, then remove.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderModifier {
    /// Replaces all values.
    pub set: Vec<(Arc<str>, Arc<str>)>,
    /// Adds one.
    pub add: Vec<(Arc<str>, Arc<str>)>,
    /// Removes all.
    pub remove: Vec<Arc<str>>,
}

/// Answer with a redirect. What is none stays as in the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// `http` or `https`.
    pub scheme: Option<Arc<str>>,
    /// Host.
    pub hostname: Option<Arc<str>>,
    /// Path.
    pub path: Option<PathModifier>,
    /// Port; none with a scheme means the scheme's own, none without one the listener's.
    pub port: Option<u16>,
    /// 301, 302, 303, 307, 308.
    pub status: u16,
}

/// Change host or path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// Host header.
    pub hostname: Option<Arc<str>>,
    /// Path.
    pub path: Option<PathModifier>,
}

/// A new path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathModifier {
    /// This, whole.
    ReplaceFull(Arc<str>),
    /// This in place of the prefix that matched.
    ReplacePrefix(Arc<str>),
    /// This in place of the text that matched as prefix, else of the whole path (VirtualService).
    ReplaceMatched(Arc<str>),
    /// In the path, what an RE2-like expression matches is replaced; `\1` stands for its first group.
    ReplaceRegex {
        /// The expression.
        pattern: Arc<str>,
        /// What comes in its place.
        substitution: Arc<str>,
    },
}

/// A copy elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// Where.
    pub backend: BackendTarget,
    /// Which share.
    pub fraction: Fraction,
}

/// A share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fraction {
    /// At most the denominator.
    pub numerator: u32,
    /// Not 0.
    pub denominator: u32,
}

impl Fraction {
    /// Everything.
    pub const ALL: Fraction = Fraction { numerator: 1, denominator: 1 };
    /// Whether a draw, uniform in all of `u32`, falls into the share.
    pub fn holds(self, draw: u32) -> bool {
        u64::from(draw) * u64::from(self.denominator) < (u64::from(self.numerator) << 32)
    }
}

/// Cross-origin requests, as Gateway API's HTTPCORSFilter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cors {
    /// `*`, `https://a.example` or `https://*.example`.
    pub allow_origins: Vec<Arc<str>>,
    /// Whether credentials may come.
    pub allow_credentials: bool,
    /// `*` or names.
    pub allow_methods: Vec<Arc<str>>,
    /// `*` or names.
    pub allow_headers: Vec<Arc<str>>,
    /// `*` or names.
    pub expose_headers: Vec<Arc<str>>,
    /// How long a browser may keep the answer to a preflight.
    pub max_age_s: u32,
    /// Origins by prefix or expression (VirtualService).
    pub allow_origin_patterns: Vec<TextMatch>,
    /// Preflights of other origins go to the service (VirtualService), and are not answered without a permission.
    pub pass_unmatched: bool,
}

/// Where requests go, with which share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Where.
    pub target: BackendTarget,
    /// Share relative to the rule's other backends; 0: none.
    pub weight: u32,
    /// Done after the rule's own, for this backend only.
    pub filters: Vec<Filter>,
}

/// Where requests go.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BackendTarget {
    /// A service's port.
    Service {
        /// The Service.
        service: Key,
        /// Its port (on the virtual address); 0: the port that the request came by.
        port: u16,
    },
    /// Its share is answered with 500 (gRPC: UNAVAILABLE); the reason is for logs: `BackendNotFound`, `RefNotPermitted`, `InvalidKind`.
    Invalid {
        /// Condition reason on the object.
        reason: Arc<str>,
    },
}

/// Limits on time; none or 0 means no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// From the request's first byte to the answer's last, retries included.
    pub request_ms: Option<u64>,
    /// Each try.
    pub backend_request_ms: Option<u64>,
}

/// Retries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retry {
    /// Tries after the first.
    pub attempts: u32,
    /// Least pause between tries.
    pub backoff_ms: Option<u64>,
    /// Answers that are tried again; connection failures before the request was sent always are.
    pub codes: Vec<u16>,
    /// Statuses of gRPC in an answer without a body that are tried again.
    pub grpc: Vec<u16>,
    /// What broke off without an answer, or took longer than a try may, is tried again whatever the method, not only when that is idempotent.
    pub any_method: bool,
    /// Another try may go to an endpoint that answered before (VirtualService: `retryIgnorePreviousHosts: false`).
    pub same_endpoints: bool,
    /// Another try goes to another locality than those that were tried, where the service's endpoints are in order of theirs
    /// (VirtualService: `retryRemoteLocalities`).
    pub other_localities: bool,
}
