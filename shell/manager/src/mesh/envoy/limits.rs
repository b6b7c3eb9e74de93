//! TrafficPolicies' limits that a gateway's Envoy keeps.
use super::policies::quote;
use model::Key;
use model::mesh::attached::{AttachedPolicy, Part, PolicyTarget, RateLimit};
use model::mesh::{Match, PathMatch, TextMatch};
use std::collections::BTreeMap;
use std::sync::Arc;
use xds::envoy::{LimitPart, LocalLimit, RouteEntry, Text};

/// Policies by name.
pub type Policies = BTreeMap<Key, Arc<AttachedPolicy>>;

/// Notes on each route of a gateway's listener what its requests count in.
pub fn note<'a>(policies: &Policies, gateway: &Key, listener: &str, routes: impl Iterator<Item = &'a mut RouteEntry>) {
    if policies.is_empty() {
        return;
    }
    for route in routes {
        let mut limits = Vec::new();
        for policy in policies.values() {
            let holds = policy.targets.iter().any(|target| match target {
                PolicyTarget::Gateway { gateway: of, listener: named } => {
                    of == gateway && (named.is_empty() || **named == *listener)
                }
                PolicyTarget::Route { route: of, rule } => {
                    **of == *route.name && (rule.is_empty() || **rule == *route.rule)
                }
                // It holds at the service's endpoints.
                PolicyTarget::Service { .. } => false,
            });
            if holds {
                let numbered = policy.limits.iter().enumerate();
                limits.extend(numbered.filter_map(|(number, limit)| said(&policy.key, number, limit)));
            }
        }
        route.limits = limits;
    }
}

/// A limit in Envoy's words. None: it has none for it (docs/mesh.md).
fn said(policy: &Key, number: usize, limit: &RateLimit) -> Option<LocalLimit> {
    let mut parts = Vec::new();
    match &limit.matches[..] {
        [] => {}
        [only] => parts.extend(matches(only)?),
        _ => return None,
    }
    for part in &limit.per {
        parts.push(match part {
            Part::Header(name) => LimitPart::Header(name.to_string()),
            Part::Query(name) => LimitPart::Query(name.to_string()),
            Part::ClientAddress => LimitPart::Address,
            Part::Method => LimitPart::Header(":method".into()),
            Part::Host => LimitPart::Header(":authority".into()),
            // A gateway's clients have no identity, and a path is not seen without its query.
            Part::Path | Part::Principal | Part::Namespace => return None,
            Part::Fixed(_) => continue,
        });
    }
    let key = format!("{policy}/{number}");
    Some(LocalLimit { key, requests: limit.requests, interval_ms: limit.interval_ms, burst: limit.burst, parts })
}

/// None: it asks for more than headers and a path.
fn matches(of: &Match) -> Option<Option<LimitPart>> {
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
    Some((!all.is_empty()).then_some(LimitPart::Matches(all)))
}
