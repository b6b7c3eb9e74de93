//! Istio's security kinds.

use super::duration::duration_ms;
use super::{MeshError, annotation};
use crate::meta::meta;
use crate::read::{at, flag, items, labels, path, str_at, text, texts};
use model::mesh::api::{AuthorizationPolicy, PeerAuthentication, Reference, RequestAuthentication};
use model::mesh::{Action, Condition, JwtRule, MtlsMode, Operation, PolicyRule, Source};
use serde_json::Value;
use std::sync::Arc;

/// Fetching keys takes no longer: so many addresses are asked at once and no more, and slow ones hold up the others'.
const MOST_TIMEOUT_MS: u64 = 10_000;

pub(super) fn authorization(value: &Value) -> Result<AuthorizationPolicy, MeshError> {
    let spec = at(value, "spec");
    let action = match str_at(spec, "action") {
        "" | "ALLOW" => Action::Allow,
        "DENY" => Action::Deny,
        "AUDIT" => Action::Audit,
        "CUSTOM" => Action::Custom,
        other => return Err(bad("spec.action", format!("{other:?} is no action"))),
    };
    let meta = meta(value);
    let rules = items(spec, "rules").iter().map(|it| rule(it, &meta.key.namespace)).collect();
    Ok(AuthorizationPolicy {
        selector: labels(path(spec, &["selector", "matchLabels"])),
        targets: targets(spec),
        action,
        dry_run: annotation(value, "istio.io/dry-run") == "true",
        provider: text(at(spec, "provider"), "name"),
        rules,
        meta,
    })
}

fn bad(field: &str, why: impl Into<String>) -> MeshError {
    MeshError::Field { field: field.to_owned(), why: why.into() }
}

fn rule(value: &Value, namespace: &Arc<str>) -> PolicyRule {
    let mut out = PolicyRule::default();
    unknown(value, &["from", "to", "when"], &mut out.when);
    for it in items(value, "from") {
        out.from.push(source(at(it, "source"), namespace, &mut out.when));
    }
    for it in items(value, "to") {
        out.to.push(operation(at(it, "operation"), &mut out.when));
    }
    for it in items(value, "when") {
        unknown(it, &["key", "values", "notValues"], &mut out.when);
        out.when.push(Condition {
            key: text(it, "key"),
            values: texts(it, "values"),
            not_values: texts(it, "notValues"),
        });
    }
    out
}

/// A field that is not known here may be what narrows a rule. To leave it out could allow what it forbids, so it becomes a condition
/// that cannot be decided: an ALLOW rule with it matches nothing, a DENY rule matches without it.
fn unknown(value: &Value, names: &[&str], conditions: &mut Vec<Condition>) {
    for name in value.as_object().into_iter().flatten().map(|(name, _)| name.as_str()) {
        if !names.contains(&name) {
            let key = format!("unsupported.{name}").into();
            conditions.push(Condition { key, values: vec!["*".into()], not_values: Vec::new() });
        }
    }
}

fn source(value: &Value, namespace: &Arc<str>, conditions: &mut Vec<Condition>) -> Source {
    unknown(
        value,
        &[
            "principals",
            "notPrincipals",
            "requestPrincipals",
            "notRequestPrincipals",
            "namespaces",
            "notNamespaces",
            "serviceAccounts",
            "notServiceAccounts",
            "ipBlocks",
            "notIpBlocks",
            "remoteIpBlocks",
            "notRemoteIpBlocks",
            "trustDomains",
            "notTrustDomains",
        ],
        conditions,
    );
    let accounts = |name: &str| -> Vec<Arc<str>> {
        let whole = |it: Arc<str>| if it.contains('/') { it } else { format!("{namespace}/{it}").into() };
        texts(value, name).into_iter().map(whole).collect()
    };
    Source {
        principals: texts(value, "principals"),
        not_principals: texts(value, "notPrincipals"),
        request_principals: texts(value, "requestPrincipals"),
        not_request_principals: texts(value, "notRequestPrincipals"),
        namespaces: texts(value, "namespaces"),
        not_namespaces: texts(value, "notNamespaces"),
        service_accounts: accounts("serviceAccounts"),
        not_service_accounts: accounts("notServiceAccounts"),
        ip_blocks: texts(value, "ipBlocks"),
        not_ip_blocks: texts(value, "notIpBlocks"),
        remote_ip_blocks: texts(value, "remoteIpBlocks"),
        not_remote_ip_blocks: texts(value, "notRemoteIpBlocks"),
        trust_domains: texts(value, "trustDomains"),
        not_trust_domains: texts(value, "notTrustDomains"),
    }
}

fn operation(value: &Value, conditions: &mut Vec<Condition>) -> Operation {
    let names = ["hosts", "notHosts", "ports", "notPorts", "methods", "notMethods", "paths", "notPaths"];
    unknown(value, &names, conditions);
    Operation {
        hosts: texts(value, "hosts"),
        not_hosts: texts(value, "notHosts"),
        ports: texts(value, "ports"),
        not_ports: texts(value, "notPorts"),
        methods: texts(value, "methods"),
        not_methods: texts(value, "notMethods"),
        paths: texts(value, "paths"),
        not_paths: texts(value, "notPaths"),
    }
}

pub(super) fn peer(value: &Value) -> Result<PeerAuthentication, MeshError> {
    let spec = at(value, "spec");
    let mut ports = Vec::new();
    for (port, it) in at(spec, "portLevelMtls").as_object().into_iter().flatten() {
        let field = format!("spec.portLevelMtls.{port}");
        let number = port.parse().map_err(|_| bad(&field, "no port number"))?;
        ports.push((number, mode(it, &field)?));
    }
    ports.sort_unstable();
    Ok(PeerAuthentication {
        meta: meta(value),
        selector: labels(path(spec, &["selector", "matchLabels"])),
        mode: mode(at(spec, "mtls"), "spec.mtls")?,
        ports,
    })
}

fn mode(value: &Value, field: &str) -> Result<MtlsMode, MeshError> {
    match str_at(value, "mode") {
        "" | "UNSET" => Ok(MtlsMode::Unset),
        "DISABLE" => Ok(MtlsMode::Disable),
        "PERMISSIVE" => Ok(MtlsMode::Permissive),
        "STRICT" => Ok(MtlsMode::Strict),
        other => Err(bad(&format!("{field}.mode"), format!("{other:?} is no mode"))),
    }
}

/// `targetRefs`, and the older `targetRef`.
fn targets(spec: &Value) -> Vec<Reference> {
    let target = |it: &Value| Reference {
        group: text(it, "group"),
        kind: text(it, "kind"),
        namespace: text(it, "namespace"),
        name: text(it, "name"),
    };
    let single = at(spec, "targetRef");
    items(spec, "targetRefs").iter().chain(single.is_object().then_some(single)).map(target).collect()
}

pub(super) fn request(value: &Value) -> Result<RequestAuthentication, MeshError> {
    let spec = at(value, "spec");
    let (mut rules, mut timeouts) = (Vec::new(), Vec::new());
    for (index, it) in items(spec, "jwtRules").iter().enumerate() {
        // A rule that is left out would make its tokens strangers' tokens, which refuses more and not less; but one without an issuer
        // would be about nobody.
        if str_at(it, "issuer").is_empty() {
            return Err(bad(&format!("spec.jwtRules[{index}].issuer"), "is missing"));
        }
        rules.push((jwt_rule(it), text(it, "jwksUri")));
        let ms = duration_ms(str_at(it, "timeout")).filter(|ms| *ms > 0);
        timeouts.extend(ms.map(|ms| (text(it, "jwksUri"), ms.min(MOST_TIMEOUT_MS))));
    }
    Ok(RequestAuthentication {
        meta: meta(value),
        selector: labels(path(spec, &["selector", "matchLabels"])),
        targets: targets(spec),
        rules,
        timeouts,
    })
}

fn jwt_rule(value: &Value) -> JwtRule {
    let lower = |value: &Value, name: &str| -> Arc<str> { str_at(value, name).to_ascii_lowercase().into() };
    JwtRule {
        issuer: text(value, "issuer"),
        audiences: texts(value, "audiences"),
        jwks: text(value, "jwks"),
        from_headers: items(value, "fromHeaders").iter().map(|it| (lower(it, "name"), text(it, "prefix"))).collect(),
        from_params: texts(value, "fromParams"),
        from_cookies: texts(value, "fromCookies"),
        payload_header: lower(value, "outputPayloadToHeader"),
        claim_headers: items(value, "outputClaimToHeaders")
            .iter()
            .map(|it| (lower(it, "header"), text(it, "claim")))
            .collect(),
        forward: flag(value, "forwardOriginalToken"),
        space_delimited: texts(value, "spaceDelimitedClaims"),
    }
}
