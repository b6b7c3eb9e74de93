//! TrafficPolicies' limits: those that an Envoy keeps, and those that a rate limit service does.
use super::policies::quote;
use super::routes;
use bytes::Bytes;
use model::Key;
use model::mesh::attached::{AttachedPolicy, Descriptor, GlobalLimit, Part, PolicyTarget, RateLimit};
use model::mesh::{Match, PathMatch, TextMatch};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use traffic::Directory;
use xds::envoy::{
    LimitPart, LocalLimit, Quota, QuotaService, RouteAction, RouteEntry, Text, VirtualHost, local_limits, quota_filter,
};

/// Policies by name.
pub type Policies = BTreeMap<Key, Arc<AttachedPolicy>>;

/// Where requests are counted.
#[derive(Clone, Copy)]
pub enum At<'a> {
    /// A gateway, and a listener of it.
    Gateway(&'a Key, &'a str),
    /// Beside who calls.
    Caller,
    /// Beside a process: a port of services that it is behind, by the names of their ports.
    Process(&'a [(Key, Arc<str>)]),
}

/// Notes on each route what its requests count in.
pub fn note<'a>(policies: &Policies, at: At<'_>, routes: impl Iterator<Item = &'a mut RouteEntry>) {
    // What a route answers itself does not count.
    for route in routes.filter(|route| matches!(route.action, RouteAction::Clusters(_))) {
        let (mut limits, mut quotas) = (Vec::new(), Vec::new());
        for policy in policies.values() {
            let holds = policy.targets.iter().any(|target| match target {
                PolicyTarget::Gateway { gateway, listener } => match at {
                    At::Gateway(of, named) => of == gateway && (listener.is_empty() || **listener == *named),
                    At::Caller | At::Process(_) => false,
                },
                PolicyTarget::Route { route: of, rule } => {
                    **of == *route.name && (rule.is_empty() || **rule == *route.rule)
                }
                // It holds at the service's endpoints.
                PolicyTarget::Service { service, port } => match at {
                    At::Process(services) => {
                        services.iter().any(|(of, named)| of == service && (port.is_empty() || named == port))
                    }
                    At::Gateway(..) | At::Caller => false,
                },
            });
            if holds {
                let numbered = policy.limits.iter().enumerate();
                limits.extend(numbered.filter_map(|(number, limit)| said(&policy.key, number, limit)));
                quotas.extend(policy.global.as_ref().and_then(|global| asked(&policy.key, global)));
            }
        }
        (route.limits, route.quotas) = (limits, quotas);
    }
}

/// The filters that routes need on which something was [noted](note): this proxy's own limits decide first.
pub fn filters(policies: &Policies, directory: &Directory, hosts: &[VirtualHost]) -> Vec<Bytes> {
    let routes = || hosts.iter().flat_map(|host| &host.routes);
    let noted = routes().flat_map(|route| &route.limits);
    let noted: BTreeMap<&str, &LocalLimit> = noted.map(|limit| (limit.key.as_str(), limit)).collect();
    let buckets: Vec<LocalLimit> = noted.into_values().cloned().collect();
    let mut out: Vec<Bytes> = (!buckets.is_empty()).then(|| local_limits(&buckets)).into_iter().collect();
    let asking: BTreeSet<&str> = routes().flat_map(|route| &route.quotas).map(|quota| quota.filter.as_str()).collect();
    for policy in policies.values() {
        let filter = filter_name(&policy.key);
        let Some(global) = policy.global.as_ref().filter(|_| asking.contains(filter.as_str())) else { continue };
        out.push(quota_filter(&QuotaService {
            filter: &filter,
            domain: &global.domain,
            cluster: &routes::asked_name(directory, &global.service, global.port),
            authority: &format!("{}.{}:{}", global.service.name, global.service.namespace, global.port),
            timeout_ms: global.timeout_ms,
            fail_open: global.fail_open,
        }));
    }
    out
}

fn filter_name(policy: &Key) -> String {
    format!("diolkos.quota/{policy}")
}

/// What a rate limit service is asked. None: nothing of it can be said.
fn asked(policy: &Key, global: &GlobalLimit) -> Option<Quota> {
    let descriptors: Vec<_> = global.descriptors.iter().filter_map(descriptor).collect();
    (!descriptors.is_empty()).then(|| Quota { filter: filter_name(policy), descriptors })
}

/// Conditions ride on an entry of fixed text, for each would make an entry of its own.
fn descriptor(of: &Descriptor) -> Option<Vec<(String, LimitPart)>> {
    let mut conditions = match &of.matches[..] {
        [] => None,
        [only] => matches(only)?,
        _ => return None,
    };
    let mut out = Vec::new();
    for (key, part) in &of.entries {
        let part = match (part, conditions.take_if(|_| matches!(part, Part::Fixed(_)))) {
            (Part::Fixed(text), Some(headers)) => LimitPart::Matches(text.to_string(), headers),
            // Envoy's entry has this key and no other.
            (Part::ClientAddress, _) if &**key != "remote_address" => return None,
            (part, _) => self::part(part)?,
        };
        out.push((key.to_string(), part));
    }
    conditions.is_none().then_some(out)
}

/// None: a gateway's clients have no identity, and whose a sidecar's is nobody can say here.
fn part(of: &Part) -> Option<LimitPart> {
    Some(match of {
        Part::Header(name) if &**name == "host" => LimitPart::Header(":authority".into()),
        Part::Header(name) => LimitPart::Header(name.to_string()),
        Part::Query(name) => LimitPart::Query(name.to_string()),
        Part::ClientAddress => LimitPart::Address,
        Part::Method => LimitPart::Header(":method".into()),
        Part::Host => LimitPart::Header(":authority".into()),
        Part::Path => LimitPart::Path,
        Part::Fixed(text) => LimitPart::Fixed(text.to_string()),
        Part::Principal | Part::Namespace => return None,
    })
}

/// A limit in Envoy's words. None: it has none for it (docs/mesh.md).
fn said(policy: &Key, number: usize, limit: &RateLimit) -> Option<LocalLimit> {
    let mut parts = Vec::new();
    match &limit.matches[..] {
        [] => {}
        [only] => parts.extend(matches(only)?.map(|headers| LimitPart::Matches("yes".into(), headers))),
        _ => return None,
    }
    for of in limit.per.iter().filter(|of| !matches!(of, Part::Fixed(_))) {
        parts.push(part(of)?);
    }
    let key = format!("{policy}/{number}");
    Some(LocalLimit { key, requests: limit.requests, interval_ms: limit.interval_ms, burst: limit.burst, parts })
}

/// None: it asks for more than headers and a path.
fn matches(of: &Match) -> Option<Option<Vec<(String, Text)>>> {
    if !of.query.is_empty() || of.more.is_some() {
        return None;
    }
    let path = match &of.path {
        PathMatch::Exact(path) => Some(format!("{}(\\?.*)?", quote(path))),
        PathMatch::Prefix(path) => match path.strip_suffix('/').unwrap_or(path) {
            "" => None,
            path => Some(format!("{}([/?].*)?", quote(path))),
        },
        PathMatch::Text(path) => Some(format!("{}.*", quote(path))),
        PathMatch::Regex(expression) => Some(format!("({expression})(\\?.*)?")),
    };
    let path = path.map(|expression| (":path".to_owned(), Text::Regex(expression)));
    let method = of.method.as_ref().map(|method| (":method".to_owned(), Text::Exact(method.to_string())));
    let headers = of.headers.iter().map(|it| {
        let text = match &it.value {
            TextMatch::Exact(text) => Text::Exact(text.to_string()),
            TextMatch::Prefix(text) => Text::Prefix(text.to_string()),
            TextMatch::Regex(text) => Text::Regex(text.to_string()),
            TextMatch::Present => Text::Present,
        };
        (it.name.to_string(), text)
    });
    let all: Vec<_> = path.into_iter().chain(method).chain(headers).collect();
    Some((!all.is_empty()).then_some(all))
}
