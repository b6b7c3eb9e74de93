//! Route tables in Envoy's words: a list in which the first that matches counts, so precedence is put into its order.
use super::audience::Source;
use super::policies::quote;
use model::Key;
use model::mesh::Service;
use model::mesh::traffic::{Balancer, HashKey};
use model::mesh::{
    Abort, Backend, BackendTarget, Cors, Filter, Fraction, HeaderModifier, Hostname, Match, MatchMore, ParentTarget,
    PathMatch, PathModifier, Route, Rule, TextMatch,
};
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;
use traffic::{Directory, ListenerEntry, PortEntry, ServiceEntry};
use xds::envoy::{
    CorsPolicy, HeaderChange, HttpFault, PathRewrite, RetryPolicy, RouteAction, RouteEntry, RouteMatchPath,
    SessionState, Text, VirtualHost,
};

/// A cluster that never is: its share of requests is answered with 500.
pub const INVALID: &str = "invalid";

/// The cluster of a service's port.
pub fn cluster_name(directory: &Directory, key: &Key, port: u16) -> String {
    let (name, subset) = key.name.split_once('|').unwrap_or((&key.name, ""));
    let whole = Key::new(&*key.namespace, name);
    let host = directory.service(&whole).and_then(|entry| entry.service.hostnames.first().cloned());
    let host = host.unwrap_or_else(|| format!("{name}.{}", key.namespace).into());
    format!("outbound|{port}|{subset}|{host}")
}

/// The same of a service that is asked about requests: whatever its port is called, it is spoken to in HTTP/2.
pub fn asked_name(directory: &Directory, key: &Key, port: u16) -> String {
    cluster_name(directory, key, port).replacen("outbound", "asked", 1)
}

/// Names by which a service may be asked for from anywhere: its own, and `NAME.NAMESPACE` and `NAME.NAMESPACE.svc`. The name alone means a
/// service of the asker's namespace, which is not known here.
pub fn names(service: &Service) -> Vec<String> {
    let mut names: Vec<String> =
        service.hostnames.iter().filter(|name| name.contains('.')).map(ToString::to_string).collect();
    let short = format!("{}.{}", service.key.name, service.key.namespace);
    if names.iter().any(|name| name.strip_prefix(&short).is_some_and(|rest| rest.starts_with(".svc."))) {
        names.extend([format!("{short}.svc"), short]);
    }
    names.sort();
    names.dedup();
    names
}

/// Where the bytes of a TCP or TLS route go: clusters with their weights, and how long a connection may be without bytes and last at all (milliseconds;
/// 0: as long as it wants).
pub fn stream(directory: &Directory, route: &Route) -> (Vec<(String, u32)>, (u64, u64)) {
    let backends = || route.rules.first().into_iter().flat_map(|rule| &rule.backends).filter(|it| it.weight > 0);
    let named = |backend: &Backend| match &backend.target {
        BackendTarget::Service { service, port } => cluster_name(directory, service, *port),
        BackendTarget::Invalid { .. } => INVALID.to_owned(),
    };
    let clusters = backends().map(|backend| (named(backend), backend.weight)).collect();
    let of_first = backends().find_map(|backend| match &backend.target {
        BackendTarget::Service { service, port } => {
            let entry = directory.service(service)?;
            entry.ports.iter().find(|it| it.port.port == *port).map(lasting_ms)
        }
        BackendTarget::Invalid { .. } => None,
    });
    (clusters, of_first.unwrap_or_default())
}

/// How long opaque connections to a port may be without bytes, and last at all.
pub fn lasting_ms(port: &PortEntry) -> (u64, u64) {
    let pool = port.port.traffic.as_ref().map(|policy| policy.pool).unwrap_or_default();
    (pool.tcp_idle_timeout_ms, pool.tcp_max_duration_ms)
}

/// Requests to a service's port, by this caller; none: by anybody.
pub fn of_service(
    directory: &Directory,
    entry: &ServiceEntry,
    port: &PortEntry,
    source: Option<&Source>,
) -> Vec<VirtualHost> {
    let number = port.port.port;
    let own = cluster_name(directory, &entry.service.key, number);
    let table = source.map_or(&port.table, |source| port.table_for(&source.namespace));
    let candidates = table.routes().iter().flat_map(|route| candidates(directory, route, number, source)).collect();
    let mut routes = in_order(candidates);
    if table.is_empty() {
        let hash = hash_of(directory, [(&entry.service.key, number)].into_iter());
        routes.push(RouteEntry { hash, ..plain(own) });
    }
    vec![VirtualHost { name: "all".to_owned(), domains: vec!["*".to_owned()], routes }]
}

/// Requests to services by their names.
pub fn by_name(directory: &Directory, source: Option<&Source>) -> Vec<VirtualHost> {
    let mut hosts = Vec::new();
    for entry in directory.services().into_iter().filter(|entry| super::is_named(&entry.service)) {
        let http = |port: &&PortEntry| port.app_protocol().is_http();
        let first = entry.ports.iter().filter(http).min_by_key(|port| (port.port.port != 80, port.port.port));
        let Some(port) = first else { continue };
        let domains = names(&entry.service);
        for host in of_service(directory, entry, port, source) {
            hosts.push(VirtualHost { name: entry.service.key.to_string(), domains: domains.clone(), ..host });
        }
    }
    hosts.retain(|host| !host.domains.is_empty());
    hosts.sort_by(|a, b| a.name.cmp(&b.name));
    hosts
}

/// Requests to a gateway's port. A host's own routes come first, then those of wider names that it falls under.
pub fn of_gateway(directory: &Directory, gateway: &Key, listeners: &[&ListenerEntry]) -> Vec<VirtualHost> {
    let mut names: BTreeSet<Option<Hostname>> = BTreeSet::new();
    let mut hung: Vec<(Option<Hostname>, Arc<Route>)> = Vec::new();
    for listener in listeners {
        for route in listener.table.routes() {
            let here = |target: &ParentTarget| matches!(target, ParentTarget::Listener { gateway: of, listener: name } if of == gateway && *name == listener.listener.name);
            for parent in route.parents.iter().filter(|parent| here(&parent.target)) {
                let hostnames: Vec<Option<Hostname>> = if parent.hostnames.is_empty() {
                    vec![listener.listener.hostname.clone()]
                } else {
                    parent.hostnames.iter().cloned().map(Some).collect()
                };
                for hostname in hostnames {
                    names.insert(hostname.clone());
                    hung.push((hostname, route.clone()));
                }
            }
        }
    }
    let port = listeners.first().map_or(0, |it| it.listener.port);
    let host = |name: &Option<Hostname>| {
        let mut groups: Vec<&Option<Hostname>> = names.iter().filter(|wider| covers(wider, name)).collect();
        groups.sort_by_key(|wider| Reverse(wider.as_ref().map(Hostname::specificity)));
        let routes = groups.into_iter().flat_map(|group| {
            let of_group = hung.iter().filter(|(of, _)| of == group);
            in_order(of_group.flat_map(|(_, route)| candidates(directory, route, port, None)).collect())
        });
        let domain = name.as_ref().map_or_else(|| "*".to_owned(), ToString::to_string);
        VirtualHost { name: domain.clone(), domains: vec![domain], routes: routes.collect() }
    };
    names.iter().map(host).collect()
}

fn covers(wider: &Option<Hostname>, name: &Option<Hostname>) -> bool {
    match (wider, name) {
        (None, _) => true,
        (Some(wider), Some(name)) => wider == name || wider.intersect(name).as_ref() == Some(name),
        (Some(_), None) => false,
    }
}

/// What orders routes: the ordered ones as they are, before the others by Gateway API's precedence.
type Rank = (bool, u8, Reverse<usize>, Reverse<(bool, usize, usize)>, (i64, Arc<str>), usize, usize);

/// Whether a rule may be for this caller; nobody known: it is for all.
fn is_for(more: &MatchMore, source: Option<&Source>) -> bool {
    match source {
        Some(source) => {
            more.source_namespace.as_ref().is_none_or(|namespace| *namespace == source.namespace)
                && more.source_labels.iter().all(|(name, value)| source.labels.get(name) == Some(value))
        }
        None => more.source_namespace.is_none() && more.source_labels.is_empty(),
    }
}

fn candidates(
    directory: &Directory,
    route: &Arc<Route>,
    port: u16,
    source: Option<&Source>,
) -> Vec<(Rank, RouteEntry)> {
    let mut out = Vec::new();
    for (rule_index, rule) in route.rules.iter().enumerate() {
        for (match_index, matched) in rule.matches.iter().enumerate() {
            // What Envoy's table cannot say here is left out rather than widened (docs/mesh.md): who calls is known of a sidecar only.
            let elsewhere = |more: &MatchMore| !is_for(more, source) || more.port.is_some_and(|of| of != port);
            if matched.more.as_deref().is_some_and(elsewhere) {
                continue;
            }
            let (class, length) = match &matched.path {
                _ if route.ordered => (0, 0),
                PathMatch::Exact(_) => (0, 0),
                PathMatch::Prefix(prefix) if &**prefix != "/" => (1, prefix.len()),
                PathMatch::Text(prefix) => (1, prefix.len()),
                PathMatch::Regex(_) => (2, 0),
                PathMatch::Prefix(_) => (3, 0),
            };
            let more = if route.ordered {
                (false, 0, 0)
            } else {
                (matched.method.is_some(), matched.headers.len(), matched.query.len())
            };
            let age = (route.created.0, route.name.clone());
            let rank = (!route.ordered, class, Reverse(length), Reverse(more), age, rule_index, match_index);
            out.push((rank, entry(directory, route, rule, matched, port)));
        }
    }
    out
}

fn in_order(mut candidates: Vec<(Rank, RouteEntry)>) -> Vec<RouteEntry> {
    candidates.sort_by(|(a, _), (b, _)| a.cmp(b));
    candidates.into_iter().map(|(_, entry)| entry).collect()
}

fn text(of: &TextMatch) -> Text {
    match of {
        TextMatch::Exact(text) => Text::Exact(text.to_string()),
        TextMatch::Prefix(text) => Text::Prefix(text.to_string()),
        TextMatch::Regex(text) => Text::Regex(text.to_string()),
        TextMatch::Present => Text::Present,
    }
}

/// All requests to a cluster.
pub fn plain(cluster: String) -> RouteEntry {
    RouteEntry {
        name: cluster.clone(),
        rule: String::new(),
        path: RouteMatchPath::Prefix("/".to_owned()),
        headers: Vec::new(),
        without: Vec::new(),
        ignore_case: false,
        query: Vec::new(),
        action: RouteAction::Clusters(vec![(cluster, 1, HeaderChange::default())]),
        host: None,
        rewrite: None,
        timeout_ms: 0,
        retry: None,
        request: HeaderChange::default(),
        response: HeaderChange::default(),
        mirrors: Vec::new(),
        cors: None,
        fault: None,
        hash: None,
        hedged: false,
        session: None,
        limits: Vec::new(),
        quotas: Vec::new(),
        decisions: Vec::new(),
    }
}

/// What a service says that is told with routes and listeners which lead to it: by port, what keeps requests on an endpoint, and how long connections
/// last.
pub fn told_elsewhere(service: &Service) -> Vec<(u16, Option<&HashKey>, (u64, u64))> {
    let policies = service.ports.iter().filter_map(|port| Some((port.port, port.traffic.as_deref()?)));
    let said = policies.map(|(port, policy)| {
        let key = match &policy.balancer {
            Balancer::Hash { key, .. } => Some(key),
            _ => None,
        };
        (port, key, (policy.pool.tcp_idle_timeout_ms, policy.pool.tcp_max_duration_ms))
    });
    said.filter(|(_, key, lasting)| key.is_some() || *lasting != (0, 0)).collect()
}

/// What keeps requests to these on an endpoint, if a DestinationRule says so.
fn hash_of<'a>(directory: &Directory, mut backends: impl Iterator<Item = (&'a Key, u16)>) -> Option<HashKey> {
    backends.find_map(|(service, port)| {
        let entry = directory.service(service)?;
        let port = entry.ports.iter().find(|it| it.port.port == port)?;
        match &port.port.traffic.as_ref()?.balancer {
            Balancer::Hash { key, .. } => Some(key.clone()),
            _ => None,
        }
    })
}

fn entry(directory: &Directory, route: &Route, rule: &Rule, matched: &Match, port: u16) -> RouteEntry {
    let path = match &matched.path {
        PathMatch::Exact(path) => RouteMatchPath::Exact(path.to_string()),
        PathMatch::Regex(expression) => RouteMatchPath::Regex(expression.to_string()),
        PathMatch::Text(prefix) => RouteMatchPath::Prefix(prefix.to_string()),
        PathMatch::Prefix(prefix) => match prefix.strip_suffix('/').unwrap_or(prefix) {
            "" => RouteMatchPath::Prefix("/".to_owned()),
            prefix => RouteMatchPath::Elements(prefix.to_owned()),
        },
    };
    let method = matched.method.iter().map(|method| (":method".to_owned(), Text::Exact(method.to_string())));
    let named = |it: &model::mesh::ValueMatch| (it.name.to_string(), text(&it.value));
    let more = matched.more.as_deref();
    let pseudo = more.into_iter().flat_map(|more| {
        let parts = [(":scheme", &more.scheme), (":method", &more.method), (":authority", &more.authority)];
        parts.into_iter().filter_map(|(name, of)| Some((name.to_owned(), text(of.as_ref()?))))
    });
    let mut entry = RouteEntry {
        name: route.name.to_string(),
        rule: rule.name.to_string(),
        session: rule.session.as_ref().map(|session| SessionState {
            name: session.name.to_string(),
            header: session.header,
            ttl_s: if session.permanent { session.absolute_s } else { 0 },
        }),
        path,
        headers: method.chain(pseudo).chain(matched.headers.iter().map(named)).collect(),
        without: more.into_iter().flat_map(|more| &more.without_headers).map(named).collect(),
        ignore_case: more.is_some_and(|more| more.ignore_case),
        query: matched.query.iter().map(named).collect(),
        action: clusters(directory, &rule.backends, port),
        timeout_ms: rule.timeouts.request_ms.unwrap_or(0),
        retry: rule.retry.as_ref().map(|retry| RetryPolicy {
            tries: retry.attempts,
            codes: retry.codes.clone(),
            grpc: retry.grpc.clone(),
            any_method: retry.any_method,
            least_pause_ms: retry.backoff_ms,
            each_ms: rule.timeouts.backend_request_ms.filter(|ms| *ms > 0),
            same_hosts: retry.same_endpoints,
            other_priorities: retry.other_localities,
        }),
        ..plain(String::new())
    };
    for filter in &rule.filters {
        apply(directory, &mut entry, filter, port);
    }
    entry.hash = hash_of(
        directory,
        rule.backends.iter().filter_map(|backend| match &backend.target {
            BackendTarget::Service { service, port: 0 } => Some((service, port)),
            BackendTarget::Service { service, port } => Some((service, *port)),
            BackendTarget::Invalid { .. } => None,
        }),
    );
    entry
}

fn clusters(directory: &Directory, backends: &[Backend], port: u16) -> RouteAction {
    let shares = backends.iter().filter(|backend| backend.weight > 0).map(|backend| {
        let name = match &backend.target {
            BackendTarget::Service { service, port: 0 } => cluster_name(directory, service, port),
            BackendTarget::Service { service, port } => cluster_name(directory, service, *port),
            BackendTarget::Invalid { .. } => INVALID.to_owned(),
        };
        let mut changes = HeaderChange::default();
        for filter in &backend.filters {
            if let Filter::RequestHeaders(modifier) = filter {
                changes = change(modifier);
            }
        }
        (name, backend.weight, changes)
    });
    let shares: Vec<_> = shares.collect();
    if shares.is_empty() { RouteAction::Respond(500, Vec::new()) } else { RouteAction::Clusters(shares) }
}

fn change(modifier: &HeaderModifier) -> HeaderChange {
    let pairs = |pairs: &[(Arc<str>, Arc<str>)]| {
        pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    };
    HeaderChange {
        set: pairs(&modifier.set),
        add: pairs(&modifier.add),
        remove: modifier.remove.iter().map(ToString::to_string).collect(),
    }
}

fn rewrite(modifier: &PathModifier) -> Option<PathRewrite> {
    match modifier {
        PathModifier::ReplaceFull(path) => Some(PathRewrite::Full(path.to_string())),
        PathModifier::ReplacePrefix(prefix) | PathModifier::ReplaceMatched(prefix) => {
            Some(PathRewrite::Prefix(prefix.to_string()))
        }
        PathModifier::ReplaceRegex { pattern, substitution } => {
            Some(PathRewrite::Regex(pattern.to_string(), substitution.to_string()))
        }
    }
}

fn apply(directory: &Directory, entry: &mut RouteEntry, filter: &Filter, port: u16) {
    match filter {
        Filter::RequestHeaders(modifier) => entry.request = change(modifier),
        Filter::ResponseHeaders(modifier) => entry.response = change(modifier),
        Filter::Redirect(redirect) => {
            entry.action = RouteAction::Redirect {
                scheme: redirect.scheme.as_ref().map(ToString::to_string),
                host: redirect.hostname.as_ref().map(ToString::to_string),
                port: redirect.port,
                path: redirect.path.as_ref().and_then(rewrite),
                status: redirect.status,
            };
        }
        Filter::Rewrite(change) => {
            entry.host = change.hostname.as_ref().map(ToString::to_string);
            entry.rewrite = change.path.as_ref().and_then(rewrite);
        }
        Filter::Mirror(mirror) => {
            if let BackendTarget::Service { service, port: of } = &mirror.backend {
                let share = millionths(mirror.fraction);
                let of = if *of == 0 { port } else { *of };
                entry.mirrors.push((cluster_name(directory, service, of), share));
            }
        }
        Filter::Respond(answer) => entry.action = RouteAction::Respond(answer.status, answer.body.to_vec()),
        Filter::Cors(cors) => entry.cors = Some(cross_origin(cors)),
        Filter::Fault(fault) => {
            entry.fault = Some(HttpFault {
                delay: fault.delay.map(|(ms, share)| (ms, millionths(share))),
                abort: fault.abort.map(|(abort, share)| match abort {
                    Abort::Http(status) => (status, false, millionths(share)),
                    Abort::Grpc(status) => (status, true, millionths(share)),
                }),
            });
        }
    }
}

fn millionths(share: Fraction) -> u32 {
    (u64::from(share.numerator) * 1_000_000 / u64::from(share.denominator.max(1))) as u32
}

/// Origins are `*`, exact, or with `*.` for subdomains.
fn cross_origin(cors: &Cors) -> CorsPolicy {
    let origin = |origin: &Arc<str>| match origin.split_once('*') {
        Some(("", "")) => Text::Regex(".*".to_owned()),
        Some((before, after)) => Text::Regex(format!("{}.*{}", quote(before), quote(after))),
        None => Text::Exact(origin.to_string()),
    };
    let texts = |texts: &[Arc<str>]| texts.iter().map(ToString::to_string).collect();
    CorsPolicy {
        origins: cors.allow_origins.iter().map(origin).chain(cors.allow_origin_patterns.iter().map(text)).collect(),
        methods: texts(&cors.allow_methods),
        headers: texts(&cors.allow_headers),
        expose: texts(&cors.expose_headers),
        max_age_s: cors.max_age_s,
        credentials: cors.allow_credentials,
        pass_unmatched: cors.pass_unmatched,
    }
}
