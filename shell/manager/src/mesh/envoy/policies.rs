//! Authorization policies of a gateway as Envoy's RBAC. What cannot be said errs towards refusal, as it does in our own proxies: a rule of an
//! ALLOW policy that needs it is left out, a DENY rule matches without that part.
use bytes::Bytes;
use model::Key;
use model::mesh::{Action, AuthorizationPolicy, Gateway, Operation, PolicyRule, Scope, Source};
use std::collections::BTreeMap;
use std::sync::Arc;
use xds::envoy::{Principal, RbacRule, Text, rbac_filter};

/// Filters in the order in which they decide: what is denied, then what is allowed.
pub fn filters(policies: &BTreeMap<Key, Arc<AuthorizationPolicy>>, gateway: &Gateway) -> Vec<Bytes> {
    let holds = |policy: &&Arc<AuthorizationPolicy>| {
        !policy.dry_run
            && match policy.scope {
                Scope::Mesh => true,
                Scope::Namespace => policy.key.namespace == gateway.key.namespace,
                Scope::Workload => gateway.authorization_policies.contains(&policy.key),
            }
    };
    let of = |action: Action| policies.values().filter(holds).filter(move |policy| policy.action == action);
    let mut out = Vec::new();
    let deny: Vec<RbacRule> = of(Action::Deny).flat_map(|policy| rules(policy, true)).collect();
    if !deny.is_empty() {
        out.push(rbac_filter("diolkos.rbac.deny", true, &deny));
    }
    // There is nobody to ask: nothing passes.
    if of(Action::Custom).next().is_some() {
        out.push(rbac_filter("diolkos.rbac.custom", false, &[]));
    }
    if of(Action::Allow).next().is_some() {
        let allow: Vec<RbacRule> = of(Action::Allow).flat_map(|policy| rules(policy, false)).collect();
        out.push(rbac_filter("diolkos.rbac.allow", false, &allow));
    }
    out
}

fn rules(policy: &AuthorizationPolicy, deny: bool) -> Vec<RbacRule> {
    let mut out = Vec::new();
    for (index, rule) in policy.rules.iter().enumerate() {
        let anybody = [Source::default()];
        let anything = [Operation::default()];
        let from = if rule.from.is_empty() { &anybody[..] } else { &rule.from };
        let to = if rule.to.is_empty() { &anything[..] } else { &rule.to };
        for (number, (source, operation)) in
            from.iter().flat_map(|from| to.iter().map(move |to| (from, to))).enumerate()
        {
            let name = format!("{}/{index}/{number}", policy.key);
            if !deny && is_beyond_words(rule, source, operation) {
                continue;
            }
            out.push(one(name, source, operation));
        }
    }
    out
}

fn is_beyond_words(rule: &PolicyRule, source: &Source, operation: &Operation) -> bool {
    let of_source = [
        source.request_principals.len(),
        source.not_request_principals.len(),
        source.remote_ip_blocks.len(),
        source.not_remote_ip_blocks.len(),
    ];
    let of_operation =
        [operation.not_hosts.len(), operation.not_methods.len(), operation.not_paths.len(), operation.not_ports.len()];
    !rule.when.is_empty() || of_source.iter().chain(&of_operation).any(|count| *count > 0)
}

/// Istio's texts: exact, `prefix*`, `*suffix`, `*`.
fn pattern(before: &str, text: &str) -> Text {
    match (text.strip_suffix('*'), text.strip_prefix('*')) {
        (Some(""), _) => Text::Prefix(before.to_owned()),
        (Some(prefix), _) => Text::Prefix(format!("{before}{prefix}")),
        (None, Some(suffix)) => Text::Regex(format!("{}.*{}", quote(before), quote(suffix))),
        (None, None) => Text::Exact(format!("{before}{text}")),
    }
}

/// An RE2 expression for the text itself.
fn quote(text: &str) -> String {
    text.chars().flat_map(|it| (!it.is_alphanumeric() && it != '/').then_some('\\').into_iter().chain([it])).collect()
}

fn path(text: &str) -> Text {
    if !text.contains('{') {
        return pattern("", text);
    }
    let quoted = quote(text).replace("\\{\\*\\*\\}", ".*").replace("\\{\\*\\}", "[^/]+");
    Text::Regex(quoted)
}

fn one(name: String, source: &Source, operation: &Operation) -> RbacRule {
    let mut who: Vec<Vec<Principal>> = Vec::new();
    let mut group = |positive: Vec<Principal>, negative: Vec<Principal>| {
        if !positive.is_empty() {
            who.push(positive);
        }
        who.extend(negative.into_iter().map(|it| vec![Principal::Not(Box::new(it))]));
    };
    let list = |texts: &[Arc<str>], of: fn(&str) -> Principal| texts.iter().map(|text| of(text)).collect::<Vec<_>>();
    let identity: fn(&str) -> Principal = |text| Principal::Identity(pattern("spiffe://", text));
    let namespace: fn(&str) -> Principal = |text| match pattern("", text) {
        Text::Exact(text) => Principal::Identity(Text::Regex(format!(".*/ns/{}/.*", quote(&text)))),
        Text::Prefix(text) => Principal::Identity(Text::Regex(format!(".*/ns/{}[^/]*/.*", quote(&text)))),
        Text::Regex(expression) => Principal::Identity(Text::Regex(format!(".*/ns/{expression}/.*"))),
        Text::Present => Principal::Any,
    };
    let account: fn(&str) -> Principal = |text| {
        let (namespace, name) = text.split_once('/').unwrap_or(("", text));
        Principal::Identity(Text::Regex(format!(".*/ns/{}/sa/{}", quote(namespace), quote(name))))
    };
    let address: fn(&str) -> Principal = |text| {
        let whole = if text.contains(':') { 128 } else { 32 };
        let (address, length) = text.split_once('/').unwrap_or((text, ""));
        Principal::Address(address.to_owned(), length.parse().unwrap_or(whole))
    };
    group(list(&source.principals, identity), list(&source.not_principals, identity));
    group(list(&source.namespaces, namespace), list(&source.not_namespaces, namespace));
    group(list(&source.service_accounts, account), list(&source.not_service_accounts, account));
    group(list(&source.ip_blocks, address), list(&source.not_ip_blocks, address));
    let header = |name: &'static str, texts: &[Arc<str>]| {
        texts.iter().map(|text| (name.to_owned(), pattern("", text))).collect::<Vec<_>>()
    };
    let headers = [header(":method", &operation.methods), header(":authority", &operation.hosts)];
    RbacRule {
        name,
        who,
        headers: headers.into_iter().filter(|group| !group.is_empty()).collect(),
        paths: operation.paths.iter().map(|text| path(text)).collect(),
        ports: operation.ports.iter().filter_map(|port| port.parse().ok()).collect(),
    }
}
