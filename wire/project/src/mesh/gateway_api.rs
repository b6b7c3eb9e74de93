//! Gateway API v1.

use super::{key, port, weight};
use crate::meta::meta;
use crate::read::{at, flag, items, labels, opt_int, opt_text, path, str_at, text, texts};
use crate::scheduling::selector;
use model::mesh::api::{
    AllowedNamespaces, BackendRef, BackendTlsPolicy, FilterSpec, FrontendValidation, Gateway, GatewayClass,
    ListenerSet, ListenerSpec, ParentRef, Reference, ReferenceGrant, Route, RuleSpec,
};
use model::mesh::{
    Cors, Filter, Fraction, HeaderModifier, Match, PathMatch, PathModifier, Redirect, Retry, Rewrite, RouteKind,
    Session, SubjectName, TextMatch, Timeouts, ValueMatch,
};
use serde_json::Value;
use std::sync::Arc;

pub(super) const GROUP: &str = "gateway.networking.k8s.io";

pub(super) fn class(value: &Value) -> GatewayClass {
    let spec = at(value, "spec");
    GatewayClass {
        meta: meta(value),
        controller: text(spec, "controllerName"),
        has_parameters: at(spec, "parametersRef").is_object(),
    }
}

pub(super) fn gateway(value: &Value) -> Gateway {
    let spec = at(value, "spec");
    let address = |it: &Value| {
        let kind = opt_text(it, "type").unwrap_or_else(|| "IPAddress".into());
        (kind, text(it, "value"))
    };
    Gateway {
        meta: meta(value),
        class: text(spec, "gatewayClassName"),
        listeners: items(spec, "listeners").iter().map(listener).collect(),
        addresses: items(spec, "addresses").iter().map(address).collect(),
        given: super::addresses(items(at(value, "status"), "addresses").iter().map(|it| str_at(it, "value"))),
        allowed_sets: match at(spec, "allowedListeners") {
            Value::Null => AllowedNamespaces::Nobody,
            allowed => allowed_namespaces(at(allowed, "namespaces"), AllowedNamespaces::Nobody),
        },
        infrastructure: (
            labels(path(spec, &["infrastructure", "labels"])),
            labels(path(spec, &["infrastructure", "annotations"])),
        ),
        has_parameters: path(spec, &["infrastructure", "parametersRef"]).is_object(),
        client_certificate: Some(path(spec, &["tls", "backend", "clientCertificateRef"]))
            .filter(|it| it.is_object())
            .map(|it| reference(it, "", "Secret")),
        frontend: validation(path(spec, &["tls", "frontend", "default"])),
        frontend_ports: items(path(spec, &["tls", "frontend"]), "perPort")
            .iter()
            .map(|it| (port(it, "port"), validation(at(it, "tls"))))
            .collect(),
    }
}

fn validation(tls: &Value) -> Option<FrontendValidation> {
    let validation = at(tls, "validation");
    validation.is_object().then(|| FrontendValidation {
        roots: items(validation, "caCertificateRefs").iter().map(|it| reference(it, "", "ConfigMap")).collect(),
        insecure_fallback: str_at(validation, "mode") == "AllowInsecureFallback",
    })
}

pub(super) fn listener_set(value: &Value) -> ListenerSet {
    let spec = at(value, "spec");
    ListenerSet {
        meta: meta(value),
        parent: reference(at(spec, "parentRef"), GROUP, "Gateway"),
        listeners: items(spec, "listeners").iter().map(listener).collect(),
    }
}

pub(super) fn backend_tls(value: &Value) -> BackendTlsPolicy {
    let spec = at(value, "spec");
    let validation = at(spec, "validation");
    let name = |it: &Value| match str_at(it, "type") {
        "URI" => SubjectName::Uri(text(it, "uri")),
        _ => SubjectName::Dns(text(it, "hostname")),
    };
    BackendTlsPolicy {
        meta: meta(value),
        targets: items(spec, "targetRefs")
            .iter()
            .map(|it| (reference(it, "", "Service"), text(it, "sectionName")))
            .collect(),
        hostname: text(validation, "hostname"),
        roots: items(validation, "caCertificateRefs").iter().map(|it| reference(it, "", "ConfigMap")).collect(),
        well_known: text(validation, "wellKnownCACertificates"),
        names: items(validation, "subjectAltNames").iter().map(name).collect(),
    }
}

fn allowed_namespaces(namespaces: &Value, default: AllowedNamespaces) -> AllowedNamespaces {
    match str_at(namespaces, "from") {
        "" => default,
        "Same" => AllowedNamespaces::Same,
        "All" => AllowedNamespaces::All,
        "Selector" => {
            selector(at(namespaces, "selector")).map_or(AllowedNamespaces::Nobody, AllowedNamespaces::Selector)
        }
        _ => AllowedNamespaces::Nobody,
    }
}

fn listener(value: &Value) -> ListenerSpec {
    let tls = at(value, "tls");
    let allowed = at(value, "allowedRoutes");
    let kinds = items(allowed, "kinds").iter().map(|it| {
        let group = opt_text(it, "group").unwrap_or_else(|| GROUP.into());
        (group, text(it, "kind"))
    });
    ListenerSpec {
        name: text(value, "name"),
        hostname: text(value, "hostname"),
        port: port(value, "port"),
        protocol: text(value, "protocol"),
        tls_mode: tls.is_object().then(|| opt_text(tls, "mode").unwrap_or_else(|| "Terminate".into())),
        certificates: items(tls, "certificateRefs").iter().map(|it| reference(it, "", "Secret")).collect(),
        allowed_namespaces: allowed_namespaces(at(allowed, "namespaces"), AllowedNamespaces::Same),
        allowed_kinds: kinds.collect(),
    }
}

pub(super) fn reference(value: &Value, group: &str, kind: &str) -> Reference {
    Reference {
        group: opt_text(value, "group").unwrap_or_else(|| group.into()),
        kind: opt_text(value, "kind").unwrap_or_else(|| kind.into()),
        namespace: text(value, "namespace"),
        name: text(value, "name"),
    }
}

pub(super) fn grant(value: &Value) -> ReferenceGrant {
    let spec = at(value, "spec");
    let from = items(spec, "from").iter().map(|it| (text(it, "group"), text(it, "kind"), text(it, "namespace")));
    ReferenceGrant {
        key: key(value),
        from: from.collect(),
        to: items(spec, "to").iter().map(|it| reference(it, "", "")).collect(),
    }
}

pub(super) fn route(kind: RouteKind, value: &Value) -> Route {
    let spec = at(value, "spec");
    let parent = |it: &Value| ParentRef {
        reference: reference(it, GROUP, "Gateway"),
        section: text(it, "sectionName"),
        port: opt_int(it, "port").and_then(|port| u16::try_from(port).ok()),
    };
    Route {
        kind,
        meta: meta(value),
        parents: items(spec, "parentRefs").iter().map(parent).collect(),
        hostnames: texts(spec, "hostnames"),
        rules: items(spec, "rules").iter().map(|it| rule(kind, it)).collect(),
    }
}

fn rule(kind: RouteKind, value: &Value) -> RuleSpec {
    let mut flaw = String::new();
    let matches = items(value, "matches").iter().map(|it| match kind {
        RouteKind::Grpc => grpc_match(it),
        _ => http_match(it),
    });
    let mut duration = |value: &Value, name: &str| match opt_text(value, name) {
        None => None,
        Some(text) => match parse_duration(&text) {
            Some(ms) => Some(ms).filter(|ms| *ms > 0),
            None => {
                flaw = format!("{name} {text:?} is no duration");
                None
            }
        },
    };
    let timeouts = at(value, "timeouts");
    let timeouts = Timeouts {
        request_ms: duration(timeouts, "request"),
        backend_request_ms: duration(timeouts, "backendRequest"),
    };
    let retry = at(value, "retry");
    let retry = retry.is_object().then(|| Retry {
        attempts: opt_int(retry, "attempts").and_then(|it| u32::try_from(it).ok()).unwrap_or(1),
        backoff_ms: duration(retry, "backoff"),
        codes: items(retry, "codes").iter().filter_map(|it| u16::try_from(it.as_i64()?).ok()).collect(),
        ..Retry::default()
    });
    let persistence = at(value, "sessionPersistence");
    let session = persistence.is_object().then(|| {
        let header = str_at(persistence, "type") == "Header";
        let name = str_at(persistence, "sessionName");
        Session {
            name: if header { name.to_ascii_lowercase().into() } else { name.into() },
            header,
            absolute_s: duration(persistence, "absoluteTimeout").map_or(0, |ms| ms.div_ceil(1_000)),
            idle_s: duration(persistence, "idleTimeout").map_or(0, |ms| ms.div_ceil(1_000)),
            permanent: str_at(at(persistence, "cookieConfig"), "lifetimeType") == "Permanent",
        }
    });
    let mut spec = RuleSpec {
        name: text(value, "name"),
        matches: matches.collect(),
        filters: Vec::new(),
        backends: Vec::new(),
        timeouts,
        retry,
        session,
        flaw: flaw.into(),
    };
    let mut unknown = None;
    spec.filters = filters(value, &mut unknown);
    spec.backends = items(value, "backendRefs").iter().map(|it| backend(it, &mut unknown)).collect();
    if let Some(unknown) = unknown {
        spec.flaw = unknown.into();
    }
    spec
}

pub(super) fn backend(value: &Value, unknown: &mut Option<String>) -> BackendRef {
    BackendRef {
        reference: reference(value, "", "Service"),
        port: opt_int(value, "port").and_then(|port| u16::try_from(port).ok()),
        weight: weight(value),
        filters: filters(value, unknown),
    }
}

pub(super) fn http_match(value: &Value) -> Match {
    let path = at(value, "path");
    let text_of = opt_text(path, "value").unwrap_or_else(|| "/".into());
    Match {
        path: match str_at(path, "type") {
            "Exact" => PathMatch::Exact(text_of),
            "RegularExpression" => PathMatch::Regex(text_of),
            _ => PathMatch::Prefix(text_of),
        },
        method: opt_text(value, "method"),
        headers: values(value, "headers", true),
        query: values(value, "queryParams", false),
        more: None,
    }
}

/// Service and method of a gRPC call are its path, `/SERVICE/METHOD`. By precedence an exact service goes before a method of any service,
/// so the first is a prefix and the second an expression.
fn grpc_match(value: &Value) -> Match {
    let method = at(value, "method");
    let (service, name) = (opt_text(method, "service"), opt_text(method, "method"));
    let exact = str_at(method, "type") != "RegularExpression";
    let any = || "[^/]+".to_owned();
    let escape = |text: Option<Arc<str>>| text.map_or_else(any, |text| escape_regex(&text));
    let group = |text: Option<Arc<str>>| text.map_or_else(any, |text| format!("(?:{text})"));
    let path = match (service, name, exact) {
        (None, None, _) => PathMatch::Prefix("/".into()),
        (Some(service), Some(name), true) => PathMatch::Exact(format!("/{service}/{name}").into()),
        (Some(service), None, true) => PathMatch::Prefix(format!("/{service}").into()),
        (service, name, true) => PathMatch::Regex(format!("/{}/{}", escape(service), escape(name)).into()),
        (service, name, false) => PathMatch::Regex(format!("/{}/{}", group(service), group(name)).into()),
    };
    Match { path, headers: values(value, "headers", true), ..Match::default() }
}

fn escape_regex(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if r"\.+*?()|[]{}^$#&-~".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// Matches on values. Of several with one name (by case or not) only the first counts, as the specification asks.
fn values(value: &Value, field: &str, ignore_case: bool) -> Vec<ValueMatch> {
    let mut out: Vec<ValueMatch> = Vec::new();
    for it in items(value, field) {
        let name = str_at(it, "name");
        let name: Arc<str> = if ignore_case { name.to_ascii_lowercase().into() } else { name.into() };
        if out.iter().any(|have| have.name == name) {
            continue;
        }
        let text = text(it, "value");
        let value = match str_at(it, "type") {
            "RegularExpression" => TextMatch::Regex(text),
            _ => TextMatch::Exact(text),
        };
        out.push(ValueMatch { name, value });
    }
    out
}

fn filters(value: &Value, unknown: &mut Option<String>) -> Vec<FilterSpec> {
    let mut out = Vec::new();
    for it in items(value, "filters") {
        let filter = match str_at(it, "type") {
            "RequestHeaderModifier" => Filter::RequestHeaders(headers(at(it, "requestHeaderModifier"))),
            "ResponseHeaderModifier" => Filter::ResponseHeaders(headers(at(it, "responseHeaderModifier"))),
            "RequestRedirect" => Filter::Redirect(redirect(at(it, "requestRedirect"))),
            "URLRewrite" => {
                let rewrite = at(it, "urlRewrite");
                Filter::Rewrite(Rewrite { hostname: opt_text(rewrite, "hostname"), path: modifier(rewrite) })
            }
            "CORS" => Filter::Cors(cors(at(it, "cors"))),
            "RequestMirror" => {
                let mirror = at(it, "requestMirror");
                let backend = backend(at(mirror, "backendRef"), &mut None);
                out.push(FilterSpec::Mirror { backend, fraction: fraction(mirror) });
                continue;
            }
            "ExtensionRef" => {
                out.push(FilterSpec::Extension(reference(at(it, "extensionRef"), "", "")));
                continue;
            }
            other => {
                *unknown = Some(format!("filter type {other:?} is not known"));
                continue;
            }
        };
        out.push(FilterSpec::Plain(filter));
    }
    out
}

fn headers(value: &Value) -> HeaderModifier {
    let pairs = |field: &str| -> Vec<(Arc<str>, Arc<str>)> {
        items(value, field)
            .iter()
            .map(|it| (str_at(it, "name").to_ascii_lowercase().into(), text(it, "value")))
            .collect()
    };
    let remove = items(value, "remove").iter().filter_map(Value::as_str).map(|it| it.to_ascii_lowercase().into());
    HeaderModifier { set: pairs("set"), add: pairs("add"), remove: remove.collect() }
}

fn modifier(value: &Value) -> Option<PathModifier> {
    let path = at(value, "path");
    match str_at(path, "type") {
        "ReplaceFullPath" => Some(PathModifier::ReplaceFull(text(path, "replaceFullPath"))),
        "ReplacePrefixMatch" => Some(PathModifier::ReplacePrefix(text(path, "replacePrefixMatch"))),
        _ => None,
    }
}

fn redirect(value: &Value) -> Redirect {
    Redirect {
        scheme: opt_text(value, "scheme"),
        hostname: opt_text(value, "hostname"),
        path: modifier(value),
        port: opt_int(value, "port").and_then(|port| u16::try_from(port).ok()),
        status: opt_int(value, "statusCode").and_then(|code| u16::try_from(code).ok()).unwrap_or(302),
    }
}

fn fraction(value: &Value) -> Fraction {
    let number = |value: &Value, name: &str| opt_int(value, name).and_then(|it| u32::try_from(it).ok());
    let said = at(value, "fraction");
    match (number(value, "percent"), number(said, "numerator")) {
        (Some(percent), _) => Fraction { numerator: percent, denominator: 100 },
        (None, Some(numerator)) => {
            Fraction { numerator, denominator: number(said, "denominator").unwrap_or(100).max(1) }
        }
        (None, None) => Fraction::ALL,
    }
}

fn cors(value: &Value) -> Cors {
    Cors {
        allow_origins: texts(value, "allowOrigins"),
        allow_credentials: flag(value, "allowCredentials"),
        allow_methods: texts(value, "allowMethods"),
        allow_headers: texts(value, "allowHeaders"),
        expose_headers: texts(value, "exposeHeaders"),
        max_age_s: opt_int(value, "maxAge").and_then(|age| u32::try_from(age).ok()).unwrap_or(5),
        ..Cors::default()
    }
}

/// A Gateway API duration (GEP-2257): whole numbers of `h`, `m`, `s`, `ms`, each at most five digits, as `1h30m`. In milliseconds.
pub(super) fn parse_duration(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut total = 0u64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|end| (1..=5).contains(end))?;
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let units = [("ms", 1), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
        let (unit, factor) = units.into_iter().find(|(unit, _)| rest.starts_with(unit))?;
        rest = &rest[unit.len()..];
        total += number * factor;
    }
    (!text.is_empty()).then_some(total)
}

/// For [`status`](super::status): how a condition list is found.
pub(super) fn conditions<'a>(value: &'a Value, at_path: &[&str]) -> &'a [Value] {
    items(path(value, at_path), "conditions")
}
