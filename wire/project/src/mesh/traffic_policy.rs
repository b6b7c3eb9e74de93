//! The project's own TrafficPolicy.

use super::duration::opt_duration;
use super::gateway_api::{backend, http_match, reference};
use crate::meta::meta;
use crate::read::{at, items, opt_int, opt_text, str_at, text};
use model::mesh::Match;
use model::mesh::api::{GlobalLimitSpec, Reference, TrafficPolicy};
use model::mesh::attached::{Descriptor, GrpcCodes, Hedging, Part, RateLimit};
use serde_json::Value;
use std::sync::Arc;

/// How long a rate limit service may take when nothing is said.
const ASK_MS: u64 = 200;

pub(super) fn traffic_policy(value: &Value) -> TrafficPolicy {
    let spec = at(value, "spec");
    let mut flaw = String::new();
    let rate_limit = at(spec, "rateLimit");
    let limits = items(rate_limit, "local").iter().map(|it| limit(it, &mut flaw)).collect();
    let global = at(rate_limit, "global");
    let global = global.is_object().then(|| global_limit(global, &mut flaw));
    TrafficPolicy {
        meta: meta(value),
        targets: items(spec, "targetRefs").iter().map(|it| (target(it), text(it, "sectionName"))).collect(),
        limits,
        global,
        hedging: hedging(at(spec, "hedging"), &mut flaw),
        proxy_protocol: str_at(spec, "proxyProtocol") == "Required",
        flaw: flaw.into(),
    }
}

fn hedging(value: &Value, flaw: &mut String) -> Option<Hedging> {
    value.is_object().then(|| {
        let after_ms = opt_duration(value, "after", flaw);
        let most = opt_int(value, "attempts").unwrap_or(1);
        if after_ms == Some(0) || !(1..=5).contains(&most) {
            *flaw = "hedging: after must be more than 0, and attempts 1 to 5".into();
        }
        let grpc = at(value, "grpc");
        let grpc = grpc.is_object().then(|| grpc_codes(grpc, flaw));
        Hedging { after_ms, most: u32::try_from(most).unwrap_or(1), grpc }
    })
}

fn grpc_codes(value: &Value, flaw: &mut String) -> GrpcCodes {
    let mut bits = 0;
    for code in items(value, "nonFatalStatusCodes") {
        match GrpcCodes::NAMES.iter().position(|known| code.as_str() == Some(known)) {
            Some(number @ 1..) => bits |= 1 << number,
            _ => *flaw = format!("hedging.grpc: {code} is no status of a failure"),
        }
    }
    GrpcCodes::from_bits(bits)
}

fn target(value: &Value) -> Reference {
    let target = reference(value, "", "");
    // Both are said of the core group.
    if &*target.group == "core" { Reference { group: "".into(), ..target } } else { target }
}

fn limit(value: &Value, flaw: &mut String) -> RateLimit {
    let number = |name: &str| opt_int(value, name).and_then(|it| u32::try_from(it).ok());
    let requests = number("requests").filter(|it| *it > 0);
    if requests.is_none() {
        *flaw = "rateLimit.local: requests must be greater than 0".into();
    }
    let unit_ms = match str_at(value, "unit") {
        "" | "Second" => 1_000,
        "Minute" => 60_000,
        "Hour" => 3_600_000,
        "Day" => 86_400_000,
        other => {
            *flaw = format!("rateLimit.local: {other:?} is no unit");
            1_000
        }
    };
    let interval_ms = opt_duration(value, "interval", flaw).unwrap_or(unit_ms).max(1);
    let requests = requests.unwrap_or(1);
    RateLimit {
        name: text(value, "name"),
        matches: matches(value),
        per: items(value, "per").iter().map(|it| part(it, flaw)).collect(),
        requests,
        interval_ms,
        burst: number("burst").filter(|it| *it > 0).unwrap_or(requests),
    }
}

fn matches(value: &Value) -> Vec<Match> {
    items(value, "matches").iter().map(http_match).collect()
}

fn global_limit(value: &Value, flaw: &mut String) -> GlobalLimitSpec {
    let entry = |it: &Value, flaw: &mut String| {
        let part = part(it, flaw);
        let own = opt_text(it, "key").filter(|key| !key.is_empty());
        (own.unwrap_or_else(|| key_of(&part)), part)
    };
    let descriptor = |it: &Value| Descriptor {
        matches: matches(it),
        entries: items(it, "entries").iter().map(|it| entry(it, flaw)).collect(),
    };
    let descriptors: Vec<Descriptor> = items(value, "descriptors").iter().map(descriptor).collect();
    if text(value, "domain").is_empty() || descriptors.iter().any(|it| it.entries.is_empty()) {
        *flaw = "rateLimit.global: a domain, and entries in each descriptor, are needed".into();
    }
    GlobalLimitSpec {
        backend: backend(at(value, "backendRef"), &mut None),
        domain: text(value, "domain"),
        timeout_ms: opt_duration(value, "timeout", flaw).filter(|ms| *ms > 0).unwrap_or(ASK_MS),
        fail_open: at(value, "failOpen").as_bool().unwrap_or(true),
        descriptors,
    }
}

fn part(value: &Value, flaw: &mut String) -> Part {
    let name = text(value, "name");
    let lower = || -> Arc<str> { name.to_ascii_lowercase().into() };
    match (str_at(value, "type"), name.is_empty()) {
        ("Header", false) => Part::Header(lower()),
        ("QueryParam", false) => Part::Query(name),
        ("ClientAddress", _) => Part::ClientAddress,
        ("SourcePrincipal", _) => Part::Principal,
        ("SourceNamespace", _) => Part::Namespace,
        ("Method", _) => Part::Method,
        ("Path", _) => Part::Path,
        ("Host", _) => Part::Host,
        ("Generic", _) => Part::Fixed(text(value, "value")),
        (kind, _) => {
            *flaw = format!("rateLimit: type {kind:?} is not known, or has no name");
            Part::Fixed("".into())
        }
    }
}

/// Envoy's own keys where it has them.
fn key_of(part: &Part) -> Arc<str> {
    match part {
        Part::Header(name) | Part::Query(name) => name.clone(),
        Part::ClientAddress => "remote_address".into(),
        Part::Principal => "source_principal".into(),
        Part::Namespace => "source_namespace".into(),
        Part::Method => "method".into(),
        Part::Path => "path".into(),
        Part::Host => "host".into(),
        Part::Fixed(_) => "generic_key".into(),
    }
}
