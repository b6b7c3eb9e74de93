//! Route tables.
use super::filter::{CorsPolicy, HttpFault, SessionState};
use super::limit::LocalLimit;
use super::message::{Message, extension};
use super::quota::Quota;
use super::rbac::Rules;
use bytes::Bytes;
use model::mesh::traffic::HashKey;

/// How a text matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Text {
    /// Equal.
    Exact(String),
    /// It begins so.
    Prefix(String),
    /// The whole of it matches this RE2 expression.
    Regex(String),
    /// It is there.
    Present,
}

const PREVIOUS_PRIORITIES: &str =
    "type.googleapis.com/envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig";
const PREVIOUS_HOSTS: &str = "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate";
/// How often another host is drawn when one was tried before.
const HOST_SELECTIONS: u64 = 5;

/// Retries of a route.
#[derive(Clone, Debug, Default)]
pub struct RetryPolicy {
    /// Tries after the first.
    pub tries: u32,
    /// Statuses that are tried again.
    pub codes: Vec<u16>,
    /// And gRPC's.
    pub grpc: Vec<u16>,
    /// So is what broke off, whatever the method.
    pub any_method: bool,
    /// Least pause between tries.
    pub least_pause_ms: Option<u64>,
    /// Limit on each.
    pub each_ms: Option<u64>,
    /// Another try may go where one was.
    pub same_hosts: bool,
    /// It goes to another priority than those that were tried.
    pub other_priorities: bool,
}

impl RetryPolicy {
    /// `envoy.config.route.v3.RetryPolicy`.
    fn message(&self) -> Message {
        const GRPC: [(u16, &str); 5] = [
            (1, "cancelled"),
            (4, "deadline-exceeded"),
            (8, "resource-exhausted"),
            (13, "internal"),
            (14, "unavailable"),
        ];
        let mut on = "connect-failure,refused-stream,retriable-status-codes".to_owned();
        // A gRPC client knows no statuses of HTTP: for it 14 is what they come to.
        let named =
            GRPC.iter().filter(|(status, _)| *status == 14 || self.grpc.contains(status)).map(|(_, name)| *name);
        for word in named.chain(self.any_method.then_some("reset")) {
            on.push(',');
            on.push_str(word);
        }
        let message = Message::new().text(1, &on).wrapped(2, u64::from(self.tries));
        let message = self.each_ms.iter().fold(message, |message, ms| message.duration_ms(3, *ms));
        let message = self.codes.iter().fold(message, |message, code| message.number(7, u64::from(*code)));
        // retry_back_off { base_interval }
        let pause = self.least_pause_ms.filter(|ms| *ms > 0);
        let message = message.maybe(8, pause.map(|ms| Message::new().duration_ms(1, ms)));
        let message = match self.other_priorities {
            // retry_priority, with update_frequency 2 as Istio has it: each priority is tried twice.
            true => message.child(
                4,
                extension(
                    "envoy.retry_priorities.previous_priorities",
                    3,
                    PREVIOUS_PRIORITIES,
                    Message::new().number(1, 2),
                ),
            ),
            false => message,
        };
        match self.same_hosts {
            true => message,
            // retry_host_predicate, host_selection_retry_max_attempts
            false => message
                .child(5, extension("envoy.retry_host_predicates.previous_hosts", 3, PREVIOUS_HOSTS, Message::new()))
                .number(6, HOST_SELECTIONS),
        }
    }
}

/// How a path matches.
#[derive(Clone, Debug)]
pub enum RouteMatchPath {
    /// Equal.
    Exact(String),
    /// Equal up to an element's end; without a final slash, and not `/`.
    Elements(String),
    /// It begins so.
    Prefix(String),
    /// The whole of it matches this RE2 expression.
    Regex(String),
}

/// A change of headers.
#[derive(Clone, Debug, Default)]
pub struct HeaderChange {
    /// Replace all values.
    pub set: Vec<(String, String)>,
    /// Add one.
    pub add: Vec<(String, String)>,
    /// Remove all.
    pub remove: Vec<String>,
}

/// A new path.
#[derive(Clone, Debug)]
pub enum PathRewrite {
    /// Whole.
    Full(String),
    /// In place of what matched.
    Prefix(String),
    /// In place of what an RE2 expression matches, with its groups as `\\1`.
    Regex(String, String),
}

/// Where a request goes.
#[derive(Clone, Debug)]
pub enum RouteAction {
    /// To clusters by weight, each with its own changes of headers on the way in.
    Clusters(Vec<(String, u32, HeaderChange)>),
    /// Elsewhere.
    Redirect {
        /// `http` or `https`.
        scheme: Option<String>,
        /// Host.
        host: Option<String>,
        /// Port.
        port: Option<u16>,
        /// Path.
        path: Option<PathRewrite>,
        /// 301, 302, 303, 307, 308.
        status: u16,
    },
    /// Answered here.
    Respond(u16, Vec<u8>),
}

/// One route.
#[derive(Clone, Debug)]
pub struct RouteEntry {
    /// For logs.
    pub name: String,
    /// The rule that it was made of; may be empty.
    pub rule: String,
    /// On the path.
    pub path: RouteMatchPath,
    /// On headers, `:method` among them.
    pub headers: Vec<(String, Text)>,
    /// On headers that must not be so; one that is missing is not.
    pub without: Vec<(String, Text)>,
    /// Paths without regard to case.
    pub ignore_case: bool,
    /// On query parameters.
    pub query: Vec<(String, Text)>,
    /// Where to.
    pub action: RouteAction,
    /// Another host.
    pub host: Option<String>,
    /// Another path.
    pub rewrite: Option<PathRewrite>,
    /// Limit on the whole; 0: none.
    pub timeout_ms: u64,
    /// Retries.
    pub retry: Option<RetryPolicy>,
    /// On the way in.
    pub request: HeaderChange,
    /// On the way out.
    pub response: HeaderChange,
    /// Clusters that get a copy, in parts of a million.
    pub mirrors: Vec<(String, u32)>,
    /// Cross-origin requests.
    pub cors: Option<CorsPolicy>,
    /// Failures that are made.
    pub fault: Option<HttpFault>,
    /// What keeps requests on an endpoint, where the cluster goes by it.
    pub hash: Option<HashKey>,
    /// The time-out of a try sends another beside it and does not end it.
    pub hedged: bool,
    /// What keeps a client on an endpoint.
    pub session: Option<SessionState>,
    /// Limits that its requests count in.
    pub limits: Vec<LocalLimit>,
    /// What a rate limit service is asked about them.
    pub quotas: Vec<Quota>,
    /// What is decided about them by filters that decide nothing themselves.
    pub decisions: Vec<Rules>,
}

/// Hosts and their routes; the first that matches counts.
#[derive(Clone, Debug)]
pub struct VirtualHost {
    /// Unique.
    pub name: String,
    /// Names, `*.suffix`, `*`.
    pub domains: Vec<String>,
    /// In order.
    pub routes: Vec<RouteEntry>,
}

/// `envoy.config.route.v3.RouteConfiguration`.
pub fn route_configuration(name: &str, hosts: &[VirtualHost]) -> Bytes {
    let hosts = hosts.iter().map(|host| {
        let message = Message::new().text(1, &host.name);
        let message = host.domains.iter().fold(message, |message, domain| message.text(2, domain));
        message.children(3, host.routes.iter().map(route))
    });
    // ignore_port_in_host_matching
    Message::new().text(1, name).children(2, hosts).number(14, 1).finish()
}

/// `envoy.type.matcher.v3.RegexMatcher`.
fn regex(expression: &str) -> Message {
    Message::new().text(2, expression)
}

/// `envoy.type.matcher.v3.StringMatcher`.
pub(super) fn string_matcher(text: &Text) -> Message {
    match text {
        Text::Exact(text) => Message::new().text(1, text),
        Text::Prefix(text) => Message::new().text(2, text),
        Text::Regex(expression) => Message::new().child(5, regex(expression)),
        Text::Present => Message::new().child(5, regex(".*")),
    }
}

fn route_match(entry: &RouteEntry) -> Message {
    let message = match &entry.path {
        RouteMatchPath::Prefix(text) => Message::new().text(1, text),
        RouteMatchPath::Exact(text) => Message::new().text(2, text),
        RouteMatchPath::Regex(expression) => Message::new().child(10, regex(expression)),
        RouteMatchPath::Elements(text) => Message::new().text(14, text),
    };
    let named = |tag: u32, present: u32| {
        move |(name, text): &(String, Text)| {
            let message = Message::new().text(1, name);
            match text {
                Text::Present => message.number(present, 1),
                text => message.child(tag, string_matcher(text)),
            }
        }
    };
    // invert_match; treat_missing_header_as_empty, for one that is missing would not match at all
    let without = entry.without.iter().map(|pair| {
        let message = named(13, 7)(pair).number(8, 1);
        if matches!(pair.1, Text::Present) { message } else { message.number(14, 1) }
    });
    let message = if entry.ignore_case { message.wrapped(4, 0) } else { message };
    // headers { name, string_match | present_match }, query_parameters { name, string_match | present_match }
    message
        .children(6, without)
        .children(6, entry.headers.iter().map(named(13, 7)))
        .children(7, entry.query.iter().map(named(5, 6)))
}

/// Field numbers of the four lists: to add (and to set), to remove, for requests and answers.
fn change(message: Message, (add, remove): (u32, u32), change: &HeaderChange) -> Message {
    // header { key, value }, append_action: OVERWRITE_IF_EXISTS_OR_ADD is 2, APPEND_IF_EXISTS_OR_ADD is 0
    let option = |(name, value): &(String, String), action: u64| {
        Message::new().child(1, Message::new().text(1, name).text(2, value)).number(3, action)
    };
    let message = message.children(add, change.set.iter().map(|pair| option(pair, 2)));
    let message = message.children(add, change.add.iter().map(|pair| option(pair, 0)));
    change.remove.iter().fold(message, |message, name| message.text(remove, name))
}

fn route(entry: &RouteEntry) -> Message {
    let message = Message::new().text(14, &entry.name).child(1, route_match(entry));
    let message = match &entry.action {
        RouteAction::Clusters(clusters) => message.child(2, to_clusters(entry, clusters)),
        RouteAction::Redirect { scheme, host, port, path, status } => {
            let redirect = host.iter().fold(Message::new(), |message, host| message.text(1, host));
            let redirect = match path {
                Some(PathRewrite::Full(path)) => redirect.text(2, path),
                Some(PathRewrite::Prefix(prefix)) => redirect.text(5, prefix),
                Some(PathRewrite::Regex(expression, text)) => {
                    redirect.child(9, Message::new().child(1, regex(expression)).text(2, text))
                }
                None => redirect,
            };
            let redirect = scheme.iter().fold(redirect, |message, scheme| message.text(7, scheme));
            let redirect = port.iter().fold(redirect, |message, port| message.number(8, u64::from(*port)));
            let code = match status {
                301 => 0,
                303 => 2,
                307 => 3,
                308 => 4,
                _ => 1,
            };
            message.child(3, redirect.number(3, code))
        }
        RouteAction::Respond(status, body) => {
            let answer = Message::new().number(1, u64::from(*status));
            let body = (!body.is_empty()).then(|| Message::new().bytes(2, body));
            message.child(7, answer.maybe(2, body))
        }
    };
    // typed_per_filter_config
    let message = message.children(13, entry.cors.iter().map(CorsPolicy::entry));
    let message = message.children(13, entry.fault.iter().map(HttpFault::entry));
    let message = message.children(13, entry.session.iter().map(SessionState::entry));
    let message = message.children(13, entry.quotas.iter().map(Quota::on_route));
    let message = message.children(13, entry.decisions.iter().map(Rules::on_route));
    change(change(message, (9, 12), &entry.request), (10, 11), &entry.response)
}

fn to_clusters(entry: &RouteEntry, clusters: &[(String, u32, HeaderChange)]) -> Message {
    let message = match clusters {
        [(name, _, changes)] if changes.set.is_empty() && changes.add.is_empty() && changes.remove.is_empty() => {
            Message::new().text(1, name)
        }
        several => {
            let weights = several.iter().map(|(name, weight, changes)| {
                change(Message::new().text(1, name).wrapped(2, u64::from(*weight)), (4, 9), changes)
            });
            Message::new().child(3, Message::new().children(1, weights))
        }
    };
    let message = match &entry.rewrite {
        Some(PathRewrite::Prefix(prefix)) => message.text(5, prefix),
        Some(PathRewrite::Full(path)) => {
            // regex_rewrite { pattern, substitution }: the whole path, whatever it is; its query stays
            message.child(32, Message::new().child(1, regex("^/[^?]*")).text(2, path))
        }
        Some(PathRewrite::Regex(expression, text)) => {
            message.child(32, Message::new().child(1, regex(expression)).text(2, text))
        }
        None => message,
    };
    let message = entry.host.iter().fold(message, |message, host| message.text(6, host));
    // timeout; cluster_not_found_response_code INTERNAL_SERVER_ERROR
    let message = message.duration_ms(8, entry.timeout_ms).number(20, 2);
    let message = match &entry.retry {
        None => message,
        Some(retry) => message.child(9, retry.message()),
    };
    // rate_limits; hash_policy; hedge_policy { hedge_on_per_try_timeout }
    let message = message.children(13, entry.limits.iter().map(LocalLimit::on_route));
    let message = message.maybe(15, entry.hash.as_ref().map(hash_policy));
    let message = message.maybe(27, entry.hedged.then(|| Message::new().number(3, 1)));
    message.children(
        30,
        entry.mirrors.iter().map(|(name, millionths)| {
            // cluster, runtime_fraction { default_value { numerator, denominator MILLION } }
            let share = Message::new().number(1, u64::from(*millionths)).number(2, 2);
            Message::new().text(1, name).child(3, Message::new().child(1, share))
        }),
    )
}

/// `RouteAction.HashPolicy`.
fn hash_policy(key: &HashKey) -> Message {
    match key {
        HashKey::Header(name) => Message::new().child(1, Message::new().text(1, name)),
        HashKey::Cookie { name, path, ttl_s } => {
            let cookie = Message::new().text(1, name);
            let cookie = ttl_s.iter().fold(cookie, |message, ttl| message.duration_ms(2, ttl * 1_000));
            let cookie = if path.is_empty() { cookie } else { cookie.text(3, path) };
            Message::new().child(2, cookie)
        }
        HashKey::SourceIp => Message::new().child(3, Message::new().number(1, 1)),
        HashKey::Query(name) => Message::new().child(5, Message::new().text(1, name)),
    }
}
