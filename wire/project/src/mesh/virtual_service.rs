//! networking.istio.io VirtualService.

use super::duration::{duration_ms, opt_duration};
use crate::meta::meta;
use crate::read::{at, flag, items, labels, opt_int, opt_text, path, str_at, text, texts};
use model::mesh::api::istio::{
    Destination, Instead, StreamMatch, StreamRule, VirtualMatch, VirtualRewrite, VirtualRule, VirtualService,
};
use model::mesh::attached::GrpcCodes;
use model::mesh::{
    Abort, Cors, Fault, Fraction, HeaderModifier, Match, MatchMore, PathMatch, PathModifier, Response, Retry, Subnet,
    TextMatch, Timeouts, ValueMatch,
};
use serde_json::Value;
use std::sync::Arc;

/// Shares are kept in millionths of a hundredth: `percentage.value` is a decimal number.
const PERCENT: u32 = 1_000_000;

pub(super) fn virtual_service(value: &Value) -> VirtualService {
    let spec = at(value, "spec");
    let streams = items(spec, "tls").iter().map(|it| stream(true, it));
    VirtualService {
        meta: meta(value),
        hosts: texts(spec, "hosts").iter().map(|host| host.to_ascii_lowercase().into()).collect(),
        gateways: texts(spec, "gateways"),
        export_to: texts(spec, "exportTo"),
        http: items(spec, "http").iter().map(rule).collect(),
        streams: streams.chain(items(spec, "tcp").iter().map(|it| stream(false, it))).collect(),
    }
}

fn rule(value: &Value) -> VirtualRule {
    let mut flaw = String::new();
    let matches = items(value, "match").iter().map(matched).collect();
    let instead = instead(value, &mut flaw);
    let rewrite = at(value, "rewrite");
    let headers = at(value, "headers");
    let retries = at(value, "retries");
    VirtualRule {
        name: text(value, "name"),
        matches,
        destinations: items(value, "route").iter().map(destination).collect(),
        instead,
        rewrite: rewrite.is_object().then(|| VirtualRewrite {
            authority: opt_text(rewrite, "authority").filter(|it| !it.is_empty()),
            path: rewritten_path(rewrite),
        }),
        fault: fault(at(value, "fault"), &mut flaw),
        mirrors: mirrors(value),
        cors: at(value, "corsPolicy").is_object().then(|| cors(at(value, "corsPolicy"))),
        headers: (modifier(at(headers, "request")), modifier(at(headers, "response"))),
        timeouts: Timeouts {
            request_ms: opt_duration(value, "timeout", &mut flaw).filter(|ms| *ms > 0),
            backend_request_ms: opt_duration(retries, "perTryTimeout", &mut flaw).filter(|ms| *ms > 0),
        },
        retry: retry(retries, &mut flaw),
        flaw: flaw.into(),
    }
}

fn matched(value: &Value) -> VirtualMatch {
    let uri = string_match(at(value, "uri"));
    let method = string_match(at(value, "method"));
    let exact = match &method {
        Some(TextMatch::Exact(method)) => Some(method.clone()),
        _ => None,
    };
    let more = MatchMore {
        ignore_case: flag(value, "ignoreUriCase"),
        scheme: string_match(at(value, "scheme")),
        method: method.filter(|_| exact.is_none()),
        authority: string_match(at(value, "authority")),
        without_headers: value_matches(at(value, "withoutHeaders"), true),
        port: opt_int(value, "port").and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0),
        source_namespace: opt_text(value, "sourceNamespace").filter(|it| !it.is_empty()),
        source_labels: labels(at(value, "sourceLabels")),
        ..MatchMore::default()
    };
    VirtualMatch {
        gateways: texts(value, "gateways"),
        has_path: uri.is_some(),
        matched: Match {
            path: match uri {
                Some(TextMatch::Exact(path)) => PathMatch::Exact(path),
                Some(TextMatch::Prefix(path)) => PathMatch::Text(path),
                Some(TextMatch::Regex(path)) => PathMatch::Regex(path),
                Some(TextMatch::Present) | None => PathMatch::Text("".into()),
            },
            method: exact,
            headers: value_matches(at(value, "headers"), true),
            query: value_matches(at(value, "queryParams"), false),
            more: (more != MatchMore::default()).then(|| Box::new(more)),
        },
    }
}

/// `{exact}`, `{prefix}`, `{regex}`; `{}` asks only that it is there. None: not an object.
fn string_match(value: &Value) -> Option<TextMatch> {
    if !value.is_object() {
        return None;
    }
    let exact = opt_text(value, "exact").map(TextMatch::Exact);
    let prefix = || opt_text(value, "prefix").map(TextMatch::Prefix);
    let regex = || opt_text(value, "regex").map(TextMatch::Regex);
    Some(exact.or_else(prefix).or_else(regex).unwrap_or(TextMatch::Present))
}

fn value_matches(value: &Value, ignore_case: bool) -> Vec<ValueMatch> {
    let entries = value.as_object().into_iter().flatten();
    entries
        .map(|(name, value)| ValueMatch {
            name: if ignore_case { name.to_ascii_lowercase().into() } else { name.as_str().into() },
            value: string_match(value).unwrap_or(TextMatch::Present),
        })
        .collect()
}

fn instead(value: &Value, flaw: &mut String) -> Option<Instead> {
    let (redirect, respond, delegate) = (at(value, "redirect"), at(value, "directResponse"), at(value, "delegate"));
    if redirect.is_object() {
        let port = opt_int(redirect, "port").and_then(|port| u16::try_from(port).ok());
        let whole = opt_text(redirect, "uri").filter(|it| !it.is_empty()).map(PathModifier::ReplaceFull);
        let prefix = opt_text(redirect, "prefixRewrite").filter(|it| !it.is_empty()).map(PathModifier::ReplaceMatched);
        return Some(Instead::Redirect {
            path: whole.or(prefix),
            authority: opt_text(redirect, "authority").filter(|it| !it.is_empty()),
            scheme: opt_text(redirect, "scheme").filter(|it| !it.is_empty()),
            port,
            status: opt_int(redirect, "redirectCode").and_then(|it| u16::try_from(it).ok()).unwrap_or(301),
        });
    }
    if respond.is_object() {
        let status = opt_int(respond, "status").and_then(|it| u16::try_from(it).ok());
        let Some(status) = status.filter(|status| (200..600).contains(status)) else {
            *flaw = "directResponse.status is no final status".into();
            return None;
        };
        let body = at(respond, "body");
        let bytes = str_at(body, "bytes");
        let body: Arc<[u8]> = match bytes.is_empty() {
            true => str_at(body, "string").as_bytes().into(),
            false => super::decode_base64(bytes).unwrap_or_default().into(),
        };
        return Some(Instead::Respond(Response { status, body }));
    }
    delegate
        .is_object()
        .then(|| Instead::Delegate { namespace: text(delegate, "namespace"), name: text(delegate, "name") })
}

fn rewritten_path(value: &Value) -> Option<PathModifier> {
    let regex = at(value, "uriRegexRewrite");
    if regex.is_object() {
        return Some(PathModifier::ReplaceRegex {
            pattern: text(regex, "match"),
            substitution: text(regex, "rewrite"),
        });
    }
    opt_text(value, "uri").filter(|it| !it.is_empty()).map(PathModifier::ReplaceMatched)
}

fn percentage(value: &Value, percent: Option<i64>) -> Fraction {
    let decimal = at(at(value, "percentage"), "value").as_f64();
    let of_field = decimal.or(at(at(value, "mirrorPercentage"), "value").as_f64());
    match of_field.or(percent.map(|it| it as f64)) {
        None if at(value, "percentage").is_object() => Fraction { numerator: 0, denominator: 1 },
        None => Fraction::ALL,
        Some(percent) => {
            let numerator = (percent.clamp(0.0, 100.0) * f64::from(PERCENT)) as u32;
            Fraction { numerator, denominator: 100 * PERCENT }
        }
    }
}

fn fault(value: &Value, flaw: &mut String) -> Option<Fault> {
    if !value.is_object() {
        return None;
    }
    let (delay, abort) = (at(value, "delay"), at(value, "abort"));
    let delayed = opt_duration(delay, "fixedDelay", flaw);
    let status = |name: &str| opt_int(abort, name).and_then(|it| u16::try_from(it).ok());
    let grpc = opt_text(abort, "grpcStatus").map(|name| grpc_status(&name));
    let kind = match (status("httpStatus"), grpc) {
        (Some(status), _) if (200..600).contains(&status) => Some(Abort::Http(status)),
        (None, Some(Some(code))) => Some(Abort::Grpc(code)),
        _ => None,
    };
    if abort.is_object() && kind.is_none() {
        *flaw = "fault.abort needs an httpStatus or a known grpcStatus".into();
    }
    if delay.is_object() && delayed.is_none() && flaw.is_empty() {
        *flaw = "fault.delay needs a fixedDelay".into();
    }
    Some(Fault {
        delay: delayed.map(|ms| (ms, percentage(delay, opt_int(delay, "percent")))),
        abort: kind.map(|kind| (kind, percentage(abort, opt_int(abort, "percent")))),
    })
}

/// A status of gRPC's by name or number.
fn grpc_status(name: &str) -> Option<u16> {
    let known = GrpcCodes::NAMES.iter().position(|known| known.eq_ignore_ascii_case(name)).map(|at| at as u16);
    known.or_else(|| name.parse().ok().filter(|code| *code < 17))
}

fn mirrors(value: &Value) -> Vec<(Destination, Fraction)> {
    let one = at(value, "mirror");
    let single = one.is_object().then(|| (place(one), percentage(value, opt_int(value, "mirrorPercent"))));
    let more = items(value, "mirrors").iter().map(|it| (place(at(it, "destination")), percentage(it, None)));
    single.into_iter().chain(more).collect()
}

fn destination(value: &Value) -> Destination {
    let headers = at(value, "headers");
    Destination {
        weight: opt_int(value, "weight").and_then(|it| u32::try_from(it).ok()).unwrap_or(0),
        headers: (modifier(at(headers, "request")), modifier(at(headers, "response"))),
        ..place(at(value, "destination"))
    }
}

fn place(value: &Value) -> Destination {
    Destination {
        host: str_at(value, "host").to_ascii_lowercase().into(),
        subset: text(value, "subset"),
        port: opt_int(at(value, "port"), "number").and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0),
        ..Default::default()
    }
}

fn modifier(value: &Value) -> HeaderModifier {
    let pairs = |name: &str| -> Vec<(Arc<str>, Arc<str>)> {
        let all = labels(at(value, name));
        all.into_iter().map(|(name, value)| (name.to_ascii_lowercase().into(), value)).collect()
    };
    let remove = items(value, "remove").iter().filter_map(Value::as_str).map(|it| it.to_ascii_lowercase().into());
    HeaderModifier { set: pairs("set"), add: pairs("add"), remove: remove.collect() }
}

fn cors(value: &Value) -> Cors {
    let mut out = Cors {
        allow_origins: texts(value, "allowOrigin"),
        allow_credentials: flag(value, "allowCredentials"),
        allow_methods: texts(value, "allowMethods"),
        allow_headers: texts(value, "allowHeaders"),
        expose_headers: texts(value, "exposeHeaders"),
        max_age_s: duration_ms(str_at(value, "maxAge")).map_or(5, |ms| u32::try_from(ms / 1_000).unwrap_or(u32::MAX)),
        allow_origin_patterns: Vec::new(),
        pass_unmatched: str_at(value, "unmatchedPreflights") != "IGNORE",
    };
    for origin in items(value, "allowOrigins").iter().filter_map(string_match) {
        match origin {
            TextMatch::Exact(text) => out.allow_origins.push(text),
            pattern => out.allow_origin_patterns.push(pattern),
        }
    }
    out
}

/// `retries`. What a failed connection or a refused stream leaves unsent is tried again in any case; the words of `retryOn` add answers.
fn retry(value: &Value, flaw: &mut String) -> Option<Retry> {
    if !value.is_object() {
        return None;
    }
    let mut out = Retry {
        attempts: opt_int(value, "attempts").and_then(|it| u32::try_from(it).ok()).unwrap_or(2),
        backoff_ms: opt_duration(value, "backoff", flaw),
        same_endpoints: at(value, "retryIgnorePreviousHosts") == &Value::Bool(false),
        other_localities: flag(value, "retryRemoteLocalities"),
        ..Retry::default()
    };
    let said = str_at(value, "retryOn");
    if said.is_empty() {
        // Istio's `connect-failure,refused-stream,unavailable,cancelled`.
        out.grpc = vec![1, 14];
    }
    said.split(',').for_each(|word| retry_on(word.trim(), &mut out));
    for list in [&mut out.codes, &mut out.grpc] {
        list.sort_unstable();
        list.dedup();
    }
    Some(out)
}

/// One of Envoy's words. Those that are not here name what was not sent, which is tried again in any case, or what is not known.
fn retry_on(word: &str, out: &mut Retry) {
    match word {
        "5xx" => {
            out.codes.extend(500..600);
            out.any_method = true;
        }
        "reset" => out.any_method = true,
        "gateway-error" => out.codes.extend(502..505),
        "retriable-4xx" => out.codes.push(409),
        "cancelled" => out.grpc.push(1),
        "deadline-exceeded" => out.grpc.push(4),
        "resource-exhausted" => out.grpc.push(8),
        "internal" => out.grpc.push(13),
        "unavailable" => {
            out.grpc.push(14);
            // An overloaded gRPC server's HTTP face.
            out.codes.push(503);
        }
        other => out.codes.extend(other.parse::<u16>().ok().filter(|code| (100..600).contains(code))),
    }
}

fn stream(tls: bool, value: &Value) -> StreamRule {
    let matches = items(value, "match");
    let mut flaw = String::new();
    for it in matches {
        if !at(it, "sourceSubnet").is_null() {
            flaw = "match.sourceSubnet is not supported".into();
        }
        if let Some(bad) = texts(it, "destinationSubnets").iter().find(|text| Subnet::parse(text).is_none()) {
            flaw = format!("match.destinationSubnets: {bad:?} is no address and no block of addresses");
        }
    }
    let matched = |it: &Value| StreamMatch {
        gateways: texts(it, "gateways"),
        port: opt_int(it, "port").and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0),
        sni: texts(it, "sniHosts"),
        namespace: opt_text(it, "sourceNamespace").filter(|it| !it.is_empty()),
        labels: labels(at(it, "sourceLabels")),
        destinations: texts(it, "destinationSubnets").iter().filter_map(|text| Subnet::parse(text)).collect(),
    };
    StreamRule {
        tls,
        matches: matches.iter().map(matched).collect(),
        destinations: items(value, "route").iter().map(destination).collect(),
        flaw: flaw.into(),
    }
}

/// `spec.exportTo` and the like are read by others too.
pub(super) fn host_of(value: &Value, field: &str) -> Arc<str> {
    str_at(path(value, &["spec"]), field).to_ascii_lowercase().into()
}
