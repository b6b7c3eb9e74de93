//! Routes.

use super::{DecodeError, arcs, key_in, key_out, number, pick, port_in, strings};
use crate::resources as wire;
use crate::resources::traffic as more;
use model::mesh::{
    Abort, Backend, BackendTarget, Cors, Fault, Filter, Fraction, HeaderModifier, Hostname, Match, MatchMore, Mirror,
    Parent, ParentTarget, PathMatch, PathModifier, Redirect, Response, Retry, Rewrite, Route, RouteKind, Rule, Session,
    Subnet, TextMatch, Timeouts, ValueMatch,
};
use model::{Labels, Timestamp};
use std::sync::Arc;

const KIND: &[(u32, RouteKind)] =
    &[(1, RouteKind::Http), (2, RouteKind::Grpc), (3, RouteKind::Tls), (4, RouteKind::Tcp), (5, RouteKind::Udp)];

impl From<&Route> for wire::Route {
    fn from(it: &Route) -> Self {
        wire::Route {
            name: it.name.to_string(),
            key: Some(key_out(&it.key)),
            kind: number(it.kind, KIND),
            created: it.created.0,
            parents: it.parents.iter().map(parent_out).collect(),
            rules: it.rules.iter().map(rule_out).collect(),
            ordered: it.ordered,
        }
    }
}

impl TryFrom<wire::Route> for Route {
    type Error = DecodeError;
    fn try_from(it: wire::Route) -> Result<Self, DecodeError> {
        if it.name.is_empty() {
            return Err(DecodeError::Missing("name"));
        }
        Ok(Route {
            name: it.name.into(),
            key: key_in(it.key, "key")?,
            kind: pick(it.kind, "kind", KIND)?,
            created: Timestamp(it.created),
            parents: it.parents.into_iter().map(parent_in).collect::<Result<_, _>>()?,
            rules: it.rules.into_iter().map(rule_in).collect::<Result<_, _>>()?,
            ordered: it.ordered,
        })
    }
}

fn parent_out(it: &Parent) -> wire::Parent {
    let hostnames = it.hostnames.iter().map(ToString::to_string).collect();
    match &it.target {
        ParentTarget::Listener { gateway, listener } => wire::Parent {
            key: Some(key_out(gateway)),
            listener: listener.to_string(),
            hostnames,
            ..Default::default()
        },
        ParentTarget::Service { service, port, consumer } => wire::Parent {
            key: Some(key_out(service)),
            port: port.map_or(0, u32::from),
            hostnames,
            consumer: consumer.as_ref().map(ToString::to_string),
            ..Default::default()
        },
    }
}

fn parent_in(it: wire::Parent) -> Result<Parent, DecodeError> {
    let key = key_in(it.key, "parent")?;
    let target = if it.listener.is_empty() {
        ParentTarget::Service {
            service: key,
            port: Some(port_in(it.port, "port")?).filter(|port| *port != 0),
            consumer: it.consumer.map(Into::into),
        }
    } else {
        ParentTarget::Listener { gateway: key, listener: it.listener.into() }
    };
    Ok(Parent { target, hostnames: it.hostnames.iter().filter_map(|text| Hostname::new(text)).collect() })
}

fn rule_out(it: &Rule) -> wire::Rule {
    wire::Rule {
        name: it.name.to_string(),
        matches: it.matches.iter().map(match_out).collect(),
        filters: it.filters.iter().map(filter_out).collect(),
        backends: it
            .backends
            .iter()
            .map(|backend| wire::Backend {
                target: Some(target_out(&backend.target)),
                weight: backend.weight,
                filters: backend.filters.iter().map(filter_out).collect(),
            })
            .collect(),
        request_timeout_ms: it.timeouts.request_ms,
        backend_timeout_ms: it.timeouts.backend_request_ms,
        retry: it.retry.as_ref().map(|retry| wire::Retry {
            attempts: retry.attempts,
            backoff_ms: retry.backoff_ms,
            codes: retry.codes.iter().map(|code| u32::from(*code)).collect(),
            grpc: retry.grpc.iter().map(|status| u32::from(*status)).collect(),
            any_method: retry.any_method,
            same_endpoints: retry.same_endpoints,
            other_localities: retry.other_localities,
        }),
        session: it.session.as_ref().map(|session| wire::Session {
            name: session.name.to_string(),
            header: session.header,
            absolute_s: session.absolute_s,
            idle_s: session.idle_s,
            permanent: session.permanent,
        }),
    }
}

fn rule_in(it: wire::Rule) -> Result<Rule, DecodeError> {
    let backend = |backend: wire::Backend| {
        Ok(Backend {
            target: target_in(backend.target)?,
            weight: backend.weight,
            filters: backend.filters.into_iter().map(filter_in).collect::<Result<_, DecodeError>>()?,
        })
    };
    let retry = |retry: wire::Retry| {
        Ok(Retry {
            attempts: retry.attempts,
            backoff_ms: retry.backoff_ms,
            codes: retry.codes.into_iter().map(|code| port_in(code, "code")).collect::<Result<_, DecodeError>>()?,
            grpc: retry.grpc.into_iter().map(|it| port_in(it, "grpc")).collect::<Result<_, DecodeError>>()?,
            any_method: retry.any_method,
            same_endpoints: retry.same_endpoints,
            other_localities: retry.other_localities,
        })
    };
    Ok(Rule {
        name: it.name.into(),
        matches: it.matches.into_iter().map(match_in).collect::<Result<_, _>>()?,
        filters: it.filters.into_iter().map(filter_in).collect::<Result<_, _>>()?,
        backends: it.backends.into_iter().map(backend).collect::<Result<_, DecodeError>>()?,
        timeouts: Timeouts { request_ms: it.request_timeout_ms, backend_request_ms: it.backend_timeout_ms },
        retry: it.retry.map(retry).transpose()?,
        session: it.session.map(|session| Session {
            name: session.name.into(),
            header: session.header,
            absolute_s: session.absolute_s,
            idle_s: session.idle_s,
            permanent: session.permanent,
        }),
    })
}

pub(super) fn match_out(it: &Match) -> wire::Match {
    let (path_kind, path) = match &it.path {
        PathMatch::Prefix(path) => (0, path),
        PathMatch::Exact(path) => (1, path),
        PathMatch::Regex(path) => (2, path),
        PathMatch::Text(path) => (3, path),
    };
    wire::Match {
        path_kind,
        path: path.to_string(),
        method: it.method.as_ref().map(ToString::to_string),
        headers: it.headers.iter().map(value_out).collect(),
        query: it.query.iter().map(value_out).collect(),
        more: it.more.as_deref().map(more_out),
    }
}

pub(super) fn match_in(it: wire::Match) -> Result<Match, DecodeError> {
    let path: Arc<str> = it.path.into();
    Ok(Match {
        path: match it.path_kind {
            0 => PathMatch::Prefix(path),
            1 => PathMatch::Exact(path),
            2 => PathMatch::Regex(path),
            3 => PathMatch::Text(path),
            other => return Err(DecodeError::Unknown { field: "path_kind", value: other.to_string() }),
        },
        method: it.method.map(Into::into),
        headers: it.headers.into_iter().map(value_in).collect::<Result<_, _>>()?,
        query: it.query.into_iter().map(value_in).collect::<Result<_, _>>()?,
        more: it.more.map(more_in).transpose()?.map(Box::new),
    })
}

fn more_out(it: &MatchMore) -> more::MatchMore {
    let text = |text: &Option<TextMatch>| text.as_ref().map(text_out);
    more::MatchMore {
        ignore_case: it.ignore_case,
        scheme: text(&it.scheme),
        method: text(&it.method),
        authority: text(&it.authority),
        without_headers: it.without_headers.iter().map(value_out).collect(),
        port: it.port.map_or(0, u32::from),
        source_namespace: it.source_namespace.as_ref().map(ToString::to_string),
        source_labels: labels_out(&it.source_labels),
        destinations: it.destinations.iter().map(ToString::to_string).collect(),
    }
}

fn more_in(it: more::MatchMore) -> Result<MatchMore, DecodeError> {
    let text = |text: Option<wire::ValueMatch>| text.map(|it| value_in(it).map(|it| it.value)).transpose();
    Ok(MatchMore {
        ignore_case: it.ignore_case,
        scheme: text(it.scheme)?,
        method: text(it.method)?,
        authority: text(it.authority)?,
        without_headers: it.without_headers.into_iter().map(value_in).collect::<Result<_, _>>()?,
        port: Some(port_in(it.port, "port")?).filter(|port| *port != 0),
        source_namespace: it.source_namespace.map(Into::into),
        source_labels: labels_in(it.source_labels),
        destinations: it.destinations.iter().map(|text| subnet_in(text)).collect::<Result<_, _>>()?,
    })
}

pub(super) fn subnet_in(text: &str) -> Result<Subnet, DecodeError> {
    Subnet::parse(text).ok_or_else(|| DecodeError::Unknown { field: "block of addresses", value: text.to_owned() })
}

fn text_out(it: &TextMatch) -> wire::ValueMatch {
    value_out(&ValueMatch { name: "".into(), value: it.clone() })
}

fn fault_out(it: &Fault) -> more::Fault {
    let mut out = more::Fault::default();
    if let Some((ms, share)) = it.delay {
        out.delay_ms = Some(ms);
        (out.delay_numerator, out.delay_denominator) = (share.numerator, share.denominator);
    }
    if let Some((abort, share)) = it.abort {
        let (status, grpc) = match abort {
            Abort::Http(status) => (status, false),
            Abort::Grpc(status) => (status, true),
        };
        (out.abort_status, out.abort_grpc) = (Some(status.into()), grpc);
        (out.abort_numerator, out.abort_denominator) = (share.numerator, share.denominator);
    }
    out
}

fn fault_in(it: more::Fault) -> Result<Fault, DecodeError> {
    let share = |numerator, denominator| Fraction { numerator, denominator: std::cmp::max(denominator, 1) };
    let abort = |status| {
        let status = port_in(status, "abort_status")?;
        let abort = if it.abort_grpc { Abort::Grpc(status) } else { Abort::Http(status) };
        Ok((abort, share(it.abort_numerator, it.abort_denominator)))
    };
    Ok(Fault {
        delay: it.delay_ms.map(|ms| (ms, share(it.delay_numerator, it.delay_denominator))),
        abort: it.abort_status.map(abort).transpose()?,
    })
}

fn value_out(it: &ValueMatch) -> wire::ValueMatch {
    let (kind, value) = match &it.value {
        TextMatch::Exact(text) => (0, text.to_string()),
        TextMatch::Regex(text) => (1, text.to_string()),
        TextMatch::Prefix(text) => (2, text.to_string()),
        TextMatch::Present => (3, String::new()),
    };
    wire::ValueMatch { name: it.name.to_string(), kind, value }
}

fn value_in(it: wire::ValueMatch) -> Result<ValueMatch, DecodeError> {
    let value = match it.kind {
        0 => TextMatch::Exact(it.value.into()),
        1 => TextMatch::Regex(it.value.into()),
        2 => TextMatch::Prefix(it.value.into()),
        3 => TextMatch::Present,
        other => return Err(DecodeError::Unknown { field: "value kind", value: other.to_string() }),
    };
    Ok(ValueMatch { name: it.name.into(), value })
}

fn target_out(it: &BackendTarget) -> wire::BackendTarget {
    match it {
        BackendTarget::Service { service, port } => {
            wire::BackendTarget { service: Some(key_out(service)), port: u32::from(*port), invalid: String::new() }
        }
        BackendTarget::Invalid { reason } => {
            wire::BackendTarget { service: None, port: 0, invalid: reason.to_string() }
        }
    }
}

fn target_in(it: Option<wire::BackendTarget>) -> Result<BackendTarget, DecodeError> {
    let it = it.ok_or(DecodeError::Missing("target"))?;
    match it.service {
        Some(service) => Ok(BackendTarget::Service {
            service: key_in(Some(service), "service")?,
            port: port_in(it.port, "backend port")?,
        }),
        None => Ok(BackendTarget::Invalid { reason: it.invalid.into() }),
    }
}

fn headers_out(it: &HeaderModifier) -> wire::HeaderModifier {
    let pairs = |pairs: &[(Arc<str>, Arc<str>)]| {
        pairs.iter().map(|(name, value)| wire::Header { name: name.to_string(), value: value.to_string() }).collect()
    };
    wire::HeaderModifier { set: pairs(&it.set), add: pairs(&it.add), remove: strings(&it.remove) }
}

pub(super) fn labels_out(labels: &Labels) -> Vec<wire::Header> {
    labels.iter().map(|(name, value)| wire::Header { name: name.to_string(), value: value.to_string() }).collect()
}

pub(super) fn labels_in(labels: Vec<wire::Header>) -> Labels {
    labels.into_iter().map(|it| (it.name.into(), it.value.into())).collect()
}

fn headers_in(it: wire::HeaderModifier) -> HeaderModifier {
    let pairs =
        |pairs: Vec<wire::Header>| pairs.into_iter().map(|header| (header.name.into(), header.value.into())).collect();
    HeaderModifier { set: pairs(it.set), add: pairs(it.add), remove: arcs(it.remove) }
}

fn path_out(it: &PathModifier) -> wire::PathModifier {
    match it {
        PathModifier::ReplaceFull(value) => wire::PathModifier { value: value.to_string(), ..Default::default() },
        PathModifier::ReplacePrefix(value) => {
            wire::PathModifier { prefix: true, value: value.to_string(), ..Default::default() }
        }
        PathModifier::ReplaceMatched(value) => {
            wire::PathModifier { how: 1, value: value.to_string(), ..Default::default() }
        }
        PathModifier::ReplaceRegex { pattern, substitution } => wire::PathModifier {
            how: 2,
            value: substitution.to_string(),
            pattern: pattern.to_string(),
            ..Default::default()
        },
    }
}

fn path_in(it: wire::PathModifier) -> PathModifier {
    match (it.how, it.prefix) {
        (1, _) => PathModifier::ReplaceMatched(it.value.into()),
        (2, _) => PathModifier::ReplaceRegex { pattern: it.pattern.into(), substitution: it.value.into() },
        (_, true) => PathModifier::ReplacePrefix(it.value.into()),
        (_, false) => PathModifier::ReplaceFull(it.value.into()),
    }
}

fn filter_out(it: &Filter) -> wire::Filter {
    let text = |text: &Option<Arc<str>>| text.as_ref().map(ToString::to_string);
    let kind = match it {
        Filter::RequestHeaders(headers) => wire::FilterKind::RequestHeaders(headers_out(headers)),
        Filter::ResponseHeaders(headers) => wire::FilterKind::ResponseHeaders(headers_out(headers)),
        Filter::Redirect(redirect) => wire::FilterKind::Redirect(wire::Redirect {
            scheme: text(&redirect.scheme),
            hostname: text(&redirect.hostname),
            path: redirect.path.as_ref().map(path_out),
            port: redirect.port.map(u32::from),
            status: u32::from(redirect.status),
        }),
        Filter::Rewrite(rewrite) => wire::FilterKind::Rewrite(wire::Rewrite {
            hostname: text(&rewrite.hostname),
            path: rewrite.path.as_ref().map(path_out),
        }),
        Filter::Mirror(mirror) => wire::FilterKind::Mirror(wire::Mirror {
            backend: Some(target_out(&mirror.backend)),
            numerator: mirror.fraction.numerator,
            denominator: mirror.fraction.denominator,
        }),
        Filter::Cors(cors) => wire::FilterKind::Cors(wire::Cors {
            allow_origins: strings(&cors.allow_origins),
            allow_credentials: cors.allow_credentials,
            allow_methods: strings(&cors.allow_methods),
            allow_headers: strings(&cors.allow_headers),
            expose_headers: strings(&cors.expose_headers),
            max_age_s: cors.max_age_s,
            allow_origin_patterns: cors.allow_origin_patterns.iter().map(text_out).collect(),
            pass_unmatched: cors.pass_unmatched,
        }),
        Filter::Fault(fault) => wire::FilterKind::Fault(fault_out(fault)),
        Filter::Respond(response) => wire::FilterKind::Respond(more::Response {
            status: response.status.into(),
            body: bytes::Bytes::copy_from_slice(&response.body),
        }),
    };
    wire::Filter { kind: Some(kind) }
}

fn filter_in(it: wire::Filter) -> Result<Filter, DecodeError> {
    // A filter of a later version: to leave it out would change what the route means, so the route is refused.
    Ok(match it.kind.ok_or(DecodeError::Missing("filter"))? {
        wire::FilterKind::RequestHeaders(headers) => Filter::RequestHeaders(headers_in(headers)),
        wire::FilterKind::ResponseHeaders(headers) => Filter::ResponseHeaders(headers_in(headers)),
        wire::FilterKind::Redirect(redirect) => Filter::Redirect(Redirect {
            scheme: redirect.scheme.map(Into::into),
            hostname: redirect.hostname.map(Into::into),
            path: redirect.path.map(path_in),
            port: redirect.port.map(|port| port_in(port, "port")).transpose()?,
            status: port_in(redirect.status, "status")?,
        }),
        wire::FilterKind::Rewrite(rewrite) => {
            Filter::Rewrite(Rewrite { hostname: rewrite.hostname.map(Into::into), path: rewrite.path.map(path_in) })
        }
        wire::FilterKind::Mirror(mirror) => Filter::Mirror(Mirror {
            backend: target_in(mirror.backend)?,
            fraction: match mirror.denominator {
                0 => Fraction { numerator: mirror.numerator, denominator: 100 },
                denominator => Fraction { numerator: mirror.numerator, denominator },
            },
        }),
        wire::FilterKind::Cors(cors) => Filter::Cors(Cors {
            allow_origins: arcs(cors.allow_origins),
            allow_credentials: cors.allow_credentials,
            allow_methods: arcs(cors.allow_methods),
            allow_headers: arcs(cors.allow_headers),
            expose_headers: arcs(cors.expose_headers),
            max_age_s: cors.max_age_s,
            pass_unmatched: cors.pass_unmatched,
            allow_origin_patterns: cors
                .allow_origin_patterns
                .into_iter()
                .map(|it| value_in(it).map(|it| it.value))
                .collect::<Result<_, _>>()?,
        }),
        wire::FilterKind::Fault(fault) => Filter::Fault(fault_in(fault)?),
        wire::FilterKind::Respond(response) => {
            Filter::Respond(Response { status: port_in(response.status, "status")?, body: response.body[..].into() })
        }
    })
}
