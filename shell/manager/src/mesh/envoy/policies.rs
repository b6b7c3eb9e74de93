//! Authorization policies of a gateway, or of a process beside which an Envoy stands, as Envoy's RBAC. What cannot be said errs towards refusal, as it does in our own proxies: a rule of an
//! ALLOW policy that needs it is left out, a DENY rule matches without that part.
use super::{routes, tokens};
use bytes::Bytes;
use model::Key;
use model::mesh::policy::ProviderKind;
use model::mesh::{
    Action, AuthorizationPolicy, Condition, ExtensionProvider, Gateway, Operation, PolicyRule, RequestAuthentication,
    Scope, Source, Subnet, Workload,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use traffic::Directory;
use xds::envoy::{Permission, Principal, RbacRule, Rules, Text, Verdict, authorizer_filters, jwt_filter};

/// Policies by name.
pub type Policies = BTreeMap<Key, Arc<AuthorizationPolicy>>;
/// Authorizers by name.
pub type Providers = BTreeMap<Arc<str>, Arc<ExtensionProvider>>;

/// For whom policies hold.
#[derive(Clone, Copy)]
pub enum Holder<'a> {
    /// A gateway.
    Gateway(&'a Gateway),
    /// A process.
    Workload(&'a Workload),
}

impl Holder<'_> {
    fn has(&self, scope: Scope, policy: &Key, listed: bool) -> bool {
        let namespace = match self {
            Holder::Gateway(gateway) => &gateway.key.namespace,
            Holder::Workload(workload) => &workload.key.namespace,
        };
        match scope {
            Scope::Mesh => true,
            Scope::Namespace => policy.namespace == *namespace,
            Scope::Workload => listed,
        }
    }

    fn verifies(&self, it: &RequestAuthentication) -> bool {
        let listed = match self {
            Holder::Gateway(gateway) => it.gateways.contains(&gateway.key),
            Holder::Workload(workload) => workload.request_authentications.contains(&it.key),
        };
        self.has(it.scope, &it.key, listed)
    }

    fn keeps(&self, it: &AuthorizationPolicy) -> bool {
        let listed = match self {
            Holder::Gateway(gateway) => &gateway.authorization_policies,
            Holder::Workload(workload) => &workload.authorization_policies,
        };
        self.has(it.scope, &it.key, listed.contains(&it.key))
    }
}

/// The filter that verifies tokens, if there has to be one.
pub fn tokens(rules: &BTreeMap<Key, Arc<RequestAuthentication>>, holder: Holder<'_>) -> Option<Bytes> {
    let named = |it: &'_ Arc<RequestAuthentication>| -> Vec<_> {
        it.rules.iter().enumerate().map(|(index, rule)| (format!("{}/{index}", it.key), rule.clone())).collect()
    };
    let rules: Vec<_> = rules.values().filter(|it| holder.verifies(it)).flat_map(named).collect();
    (!rules.is_empty()).then(|| jwt_filter(rules.iter().map(|(name, rule)| (name.clone(), rule))))
}

/// The filters that ask somebody about requests: each authorizer once, about what any of its policies matches. What matches and names nobody who is
/// known is refused. `seen`: rules as they are where the filters stand.
pub fn asks(
    policies: &Policies,
    providers: &Providers,
    directory: &Directory,
    holder: Holder<'_>,
    seen: impl Fn(&RbacRule) -> RbacRule,
) -> Vec<Bytes> {
    let mut by_name: BTreeMap<&str, Vec<RbacRule>> = BTreeMap::new();
    for policy in holding(policies, holder).filter(|it| it.action == Action::Custom && !it.dry_run) {
        by_name.entry(&policy.provider).or_default().extend(rules(policy, true).iter().map(&seen));
    }
    let mut out = Vec::new();
    for (name, rules) in by_name {
        let Some(provider) = providers.get(name) else {
            let unknown =
                Rules { name: "diolkos.rbac.custom", verdict: Verdict::Deny, rules: Some(rules), tried: None };
            out.push(unknown.filter());
            continue;
        };
        let service =
            directory.service_for_all(&provider.service, &provider.namespace).map(|entry| entry.service.key.clone());
        let cluster = service.map_or_else(String::new, |key| match provider.kind {
            ProviderKind::Grpc => routes::asked_name(directory, &key, provider.port),
            ProviderKind::Http { .. } => routes::cluster_name(directory, &key, provider.port),
        });
        let cluster = if cluster.is_empty() { routes::INVALID } else { &cluster };
        out.extend(authorizer_filters(provider, cluster, &rules));
    }
    out
}

/// What holds for somebody, also what is tried only.
fn holding<'a>(policies: &'a Policies, holder: Holder<'a>) -> impl Iterator<Item = &'a Arc<AuthorizationPolicy>> {
    policies.values().filter(move |policy| holder.keeps(policy))
}

/// What is decided, in the order in which it is, beside those who are asked: what is noted, what is denied, then what is allowed.
fn decided<'a>(policies: impl Iterator<Item = &'a AuthorizationPolicy> + Clone) -> Vec<Rules> {
    let of = |action: Action, tried: bool| {
        let of_action = policies.clone().filter(move |it| it.action == action && it.dry_run == tried);
        let deny = action != Action::Allow;
        let mut any = false;
        let rules: Vec<RbacRule> = of_action.inspect(|_| any = true).flat_map(|policy| rules(policy, deny)).collect();
        any.then_some(rules)
    };
    let mut out = Vec::new();
    for verdict in Verdict::ALL {
        let action = match verdict {
            Verdict::Log => Action::Audit,
            Verdict::Deny => Action::Deny,
            Verdict::Allow => Action::Allow,
        };
        let (rules, mut tried) = (of(action, false), of(action, true));
        if let (Verdict::Allow, Some(tried), Some(rules)) = (verdict, &mut tried, &rules) {
            // What is tried allows beside what is in force.
            tried.extend(rules.iter().cloned());
        }
        if rules.is_some() || tried.is_some() {
            out.push(Rules { name: verdict.filter(), verdict, rules, tried });
        }
    }
    out
}

/// What is decided about requests, beside those who are [asked](asks).
pub fn of_requests(policies: &Policies, holder: Holder<'_>) -> Vec<Rules> {
    decided(holding(policies, holder).map(|policy| &**policy).collect::<Vec<_>>().into_iter())
}

/// A policy as connections see it that are passed whole. Of requests nothing is known: a rule that allows by them allows nothing, another holds without
/// that part.
fn of_streams(policy: &AuthorizationPolicy) -> AuthorizationPolicy {
    let is_of_request = |key: &str| key.starts_with("request.");
    let mut out = policy.clone();
    if out.action == Action::Custom {
        out.action = Action::Deny;
    }
    for rule in &mut out.rules {
        let before = rule.clone();
        rule.when.retain(|condition| !is_of_request(&condition.key));
        for source in &mut rule.from {
            (source.request_principals, source.not_request_principals) = (Vec::new(), Vec::new());
        }
        for to in &mut rule.to {
            *to = Operation {
                ports: std::mem::take(&mut to.ports),
                not_ports: std::mem::take(&mut to.not_ports),
                ..Operation::default()
            };
        }
        if policy.action == Action::Allow && *rule != before {
            // Of several sources and operations some may need nothing; the whole rule errs towards refusal.
            rule.when = vec![Condition { key: "request.".into(), ..Condition::default() }];
        }
    }
    out
}

/// The same for connections that are passed whole, about which nobody is asked: what CUSTOM policies match is refused.
pub fn of_connections(policies: &Policies, holder: Holder<'_>) -> Vec<Rules> {
    let all: Vec<AuthorizationPolicy> = holding(policies, holder).map(|policy| of_streams(policy)).collect();
    decided(all.iter())
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
            let says_nothing = (!rule.from.is_empty() && *source == Source::default())
                || (!rule.to.is_empty() && *operation == Operation::default());
            if !deny && (says_nothing || is_beyond_words(rule)) {
                continue;
            }
            out.push(one(name, rule, source, operation));
        }
    }
    out
}

/// What nobody knows, or a condition that says nothing.
fn is_beyond_words(rule: &PolicyRule) -> bool {
    let says_nothing = |it: &Condition| it.values.is_empty() && it.not_values.is_empty();
    rule.when.iter().any(|condition| says_nothing(condition) || attribute(&condition.key).is_none())
}

/// What a condition looks at.
enum Attribute<'a> {
    Who(Box<dyn Fn(&str) -> Principal + 'a>),
    What(Box<dyn Fn(&str) -> Permission + 'a>),
}

/// Istio's attributes, as far as Envoy's words have them.
fn attribute(key: &str) -> Option<Attribute<'_>> {
    let who = |of: fn(&str) -> Principal| Some(Attribute::Who(Box::new(of)));
    let what = |of: fn(&str) -> Permission| Some(Attribute::What(Box::new(of)));
    match key {
        "source.ip" => who(address),
        "remote.ip" => who(remote),
        "source.namespace" => who(namespace),
        "source.principal" => who(identity),
        "source.serviceAccount" => who(account),
        "destination.ip" => what(|text| {
            cidr(text).map_or(Permission::Known(false), |(address, length)| Permission::Address(address, length))
        }),
        "destination.port" => what(|text| Permission::Port(text.parse().unwrap_or(0))),
        "connection.sni" => what(|text| Permission::ServerName(pattern("", text))),
        _ if key.starts_with("request.auth.") => Some(Attribute::Who(tokens::attribute(key)?)),
        _ => {
            let name = key.strip_prefix("request.headers[")?.strip_suffix(']')?.to_ascii_lowercase();
            Some(Attribute::Who(Box::new(move |text| Principal::Header(name.clone(), pattern("", text)))))
        }
    }
}

/// Istio's texts: exact, `prefix*`, `*suffix`, `*` (any that is not empty: Envoy refuses an empty prefix, and with it all it came with).
pub(super) fn pattern(before: &str, text: &str) -> Text {
    match (text.strip_suffix('*'), text.strip_prefix('*')) {
        (Some(""), _) if before.is_empty() => Text::Regex(".+".to_owned()),
        (Some(prefix), _) => Text::Prefix(format!("{before}{prefix}")),
        (None, Some(_)) => Text::Regex(format!("{}{}", quote(before), expression(text, ".*"))),
        (None, None) => Text::Exact(format!("{before}{text}")),
    }
}

/// Such a text as an RE2 expression, with what its star stands for.
fn expression(text: &str, star: &str) -> String {
    match (text.strip_suffix('*'), text.strip_prefix('*')) {
        (Some(prefix), _) => format!("{}{star}", quote(prefix)),
        (None, Some(suffix)) => format!("{star}{}", quote(suffix)),
        (None, None) => quote(text),
    }
}

/// Hosts are the same in capitals.
fn host(text: &str) -> Text {
    Text::Regex(format!("(?i){}", if text == "*" { ".+".to_owned() } else { expression(text, ".*") }))
}

/// An RE2 expression for the text itself.
pub(super) fn quote(text: &str) -> String {
    text.chars().flat_map(|it| (!it.is_alphanumeric() && it != '/').then_some('\\').into_iter().chain([it])).collect()
}

fn path(text: &str) -> Text {
    if !text.contains('{') {
        return pattern("", text);
    }
    let quoted = quote(text).replace("\\{\\*\\*\\}", ".*").replace("\\{\\*\\}", "[^/]+");
    Text::Regex(quoted)
}

/// Address and length of the prefix; none: it is no block.
fn cidr(text: &str) -> Option<(String, u32)> {
    // A block counts its bits as those of IPv6, of which an IPv4 address is the last 32.
    let before = if text.contains(':') { 0 } else { 96 };
    let length = Subnet::parse(text)?.length() - before;
    let address = text.split_once('/').map_or(text, |(address, _)| address);
    Some((address.to_owned(), length))
}

fn nobody() -> Principal {
    Principal::Not(Box::new(Principal::Any))
}

fn address(text: &str) -> Principal {
    cidr(text).map_or_else(nobody, |(address, length)| Principal::Address(address, length))
}

fn remote(text: &str) -> Principal {
    cidr(text).map_or_else(nobody, |(address, length)| Principal::Remote(address, length))
}

fn identity(text: &str) -> Principal {
    Principal::Identity(pattern("spiffe://", text))
}

fn namespace(text: &str) -> Principal {
    Principal::Identity(Text::Regex(format!(".*/ns/{}/.*", expression(text, "[^/]*"))))
}

fn trust_domain(text: &str) -> Principal {
    Principal::Identity(Text::Regex(format!("spiffe://{}/.*", expression(text, "[^/]*"))))
}

fn account(text: &str) -> Principal {
    let (namespace, name) = text.split_once('/').unwrap_or(("", text));
    Principal::Identity(Text::Regex(format!(".*/ns/{}/sa/{}", quote(namespace), quote(name))))
}

/// Groups that must all hold: any of the positive ones, and none of the negative ones.
fn groups<T>(
    out: &mut Vec<Vec<T>>,
    (positive, negative): (&[Arc<str>], &[Arc<str>]),
    of: impl Fn(&str) -> T,
    not: fn(T) -> T,
) {
    if !positive.is_empty() {
        out.push(positive.iter().map(|text| of(text)).collect());
    }
    out.extend(negative.iter().map(|text| vec![not(of(text))]));
}

fn one(name: String, rule: &PolicyRule, source: &Source, operation: &Operation) -> RbacRule {
    let other: fn(Principal) -> Principal = |it| Principal::Not(Box::new(it));
    let nothing: fn(Permission) -> Permission = |it| Permission::Not(Box::new(it));
    let (mut who, mut what) = (Vec::new(), Vec::new());
    groups(&mut who, (&source.principals, &source.not_principals), identity, other);
    let tokens = (&source.request_principals[..], &source.not_request_principals[..]);
    groups(&mut who, tokens, tokens::request_principal, other);
    groups(&mut who, (&source.namespaces, &source.not_namespaces), namespace, other);
    groups(&mut who, (&source.service_accounts, &source.not_service_accounts), account, other);
    groups(&mut who, (&source.trust_domains, &source.not_trust_domains), trust_domain, other);
    groups(&mut who, (&source.ip_blocks, &source.not_ip_blocks), address, other);
    groups(&mut who, (&source.remote_ip_blocks, &source.not_remote_ip_blocks), remote, other);
    let header = |name: &'static str| move |text: &str| Permission::Header(name.to_owned(), pattern("", text));
    let authority = |text: &str| Permission::Header(":authority".to_owned(), host(text));
    groups(&mut what, (&operation.methods, &operation.not_methods), header(":method"), nothing);
    groups(&mut what, (&operation.hosts, &operation.not_hosts), authority, nothing);
    groups(&mut what, (&operation.paths, &operation.not_paths), |text| Permission::Path(path(text)), nothing);
    let port = |text: &str| Permission::Port(text.parse().unwrap_or(0));
    groups(&mut what, (&operation.ports, &operation.not_ports), port, nothing);
    // A condition that is beyond words is here only in a DENY rule, which holds without it.
    for condition in &rule.when {
        let texts = (&condition.values[..], &condition.not_values[..]);
        match attribute(&condition.key) {
            Some(Attribute::Who(of)) => groups(&mut who, texts, of, other),
            Some(Attribute::What(of)) => groups(&mut what, texts, of, nothing),
            None => {}
        }
    }
    RbacRule { name, who, what }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(of: &[&str]) -> Vec<Arc<str>> {
        of.iter().map(|text| (*text).into()).collect()
    }

    fn said(action: Action, rule: PolicyRule) -> Vec<String> {
        let policy = AuthorizationPolicy {
            key: Key::new("shop", "p"),
            scope: Scope::Namespace,
            action,
            dry_run: false,
            provider: "".into(),
            rules: vec![rule],
        };
        rules(&policy, action != Action::Allow).iter().map(|it| format!("{:?} {:?}", it.who, it.what)).collect()
    }

    #[test]
    fn what_a_source_says() {
        for (source, expect) in [
            (
                Source { trust_domains: texts(&["a.org", "b*"]), ..Source::default() },
                r#"[[Identity(Regex("spiffe://a\\.org/.*")), Identity(Regex("spiffe://b[^/]*/.*"))]] []"#,
            ),
            (
                Source { not_trust_domains: texts(&["*"]), ..Source::default() },
                r#"[[Not(Identity(Regex("spiffe://[^/]*/.*")))]] []"#,
            ),
            (
                Source { namespaces: texts(&["*", "a", "*b"]), ..Source::default() },
                r#"[[Identity(Regex(".*/ns/[^/]*/.*")), Identity(Regex(".*/ns/a/.*")), Identity(Regex(".*/ns/[^/]*b/.*"))]] []"#,
            ),
            (
                Source { ip_blocks: texts(&["10.0.0.0/8", "10.1.1.1", "fd00::/8", "nothing"]), ..Source::default() },
                r#"[[Address("10.0.0.0", 8), Address("10.1.1.1", 32), Address("fd00::", 8), Not(Any)]] []"#,
            ),
        ] {
            let rule = PolicyRule { from: vec![source], ..PolicyRule::default() };
            assert_eq!(said(Action::Allow, rule), [expect]);
        }
    }

    #[test]
    fn what_an_operation_says() {
        let operation = Operation {
            hosts: texts(&["Admin.shop", "a*", "*"]),
            methods: texts(&["*"]),
            paths: texts(&["/a*"]),
            ..Operation::default()
        };
        let expect = r#"[] [[Header(":method", Regex(".+"))], [Header(":authority", Regex("(?i)Admin\\.shop")), "#
            .to_owned()
            + r#"Header(":authority", Regex("(?i)a.*")), Header(":authority", Regex("(?i).+"))], [Path(Prefix("/a"))]]"#;
        assert_eq!(said(Action::Deny, PolicyRule { to: vec![operation], ..PolicyRule::default() }), [expect]);
    }

    #[test]
    fn what_says_nothing_allows_nothing_and_denies_all() {
        let condition = Condition { key: "source.ip".into(), ..Condition::default() };
        for rule in [
            PolicyRule { from: vec![Source::default()], ..PolicyRule::default() },
            PolicyRule { to: vec![Operation::default()], ..PolicyRule::default() },
            PolicyRule { when: vec![condition], ..PolicyRule::default() },
        ] {
            assert!(said(Action::Allow, rule.clone()).is_empty(), "{rule:?}");
            assert_eq!(said(Action::Deny, rule), ["[] []"]);
        }
        assert_eq!(said(Action::Allow, PolicyRule::default()), ["[] []"], "a rule without any parts is for all");
    }
}
