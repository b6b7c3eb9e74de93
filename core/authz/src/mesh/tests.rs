//! A table of cases whose answers are known from Istio's documentation, and a twin that decides without compiling anything.

use super::*;
use model::Timestamp;
use model::mesh::{
    Action, AuthorizationPolicy, Condition, MtlsMode, Operation, PeerAuthentication, PolicyRule, Scope, Source,
};

fn texts(list: &[&str]) -> Vec<Arc<str>> {
    list.iter().map(|text| Arc::from(*text)).collect()
}

fn policy(name: &str, action: Action, rules: Vec<PolicyRule>) -> AuthorizationPolicy {
    AuthorizationPolicy {
        key: Key::new("default", name),
        scope: Scope::Namespace,
        action,
        dry_run: false,
        provider: "".into(),
        rules,
    }
}

fn from(source: Source) -> PolicyRule {
    PolicyRule { from: vec![source], ..Default::default() }
}

fn to(operation: Operation) -> PolicyRule {
    PolicyRule { to: vec![operation], ..Default::default() }
}

fn when(key: &str, values: &[&str], not_values: &[&str]) -> PolicyRule {
    let condition = Condition { key: key.into(), values: texts(values), not_values: texts(not_values) };
    PolicyRule { when: vec![condition], ..Default::default() }
}

/// `PRINCIPAL|- SOURCE-IP PORT [METHOD AUTHORITY PATH [HEADER=VALUE]]`.
struct Sent {
    peer: Option<Identity>,
    ip: IpAddr,
    port: u16,
    http: Option<(String, String, String)>,
    headers: Vec<(String, String)>,
    jwt: Option<Jwt>,
    asked: bool,
}

impl Sent {
    fn parse(text: &str) -> Sent {
        let mut words = text.split(' ');
        let peer = Identity::parse(words.next().unwrap());
        let ip = words.next().unwrap().parse().unwrap();
        let port = words.next().unwrap().parse().unwrap();
        let http = words
            .next()
            .map(|method| (method.to_owned(), words.next().unwrap().to_owned(), words.next().unwrap().to_owned()));
        let headers = words
            .map(|pair| pair.split_once('=').unwrap())
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Sent { peer, ip, port, http, headers, jwt: None, asked: false }
    }

    fn with<T>(&self, then: impl FnOnce(&Call<'_>) -> T) -> T {
        let headers: Vec<(&str, &str)> = self.headers.iter().map(|(name, value)| (&**name, &**value)).collect();
        let headers = Pairs(&headers);
        then(&Call {
            peer: self.peer.as_ref(),
            source_ip: self.ip,
            remote_ip: self.ip,
            destination_ip: "10.244.0.9".parse().unwrap(),
            destination_port: self.port,
            sni: None,
            http: self.http.as_ref().map(|(method, authority, path)| HttpCall {
                authority,
                method,
                path,
                headers: &headers,
                jwt: self.jwt.as_ref(),
                asked: self.asked,
            }),
        })
    }
}

struct Pairs<'a>(&'a [(&'a str, &'a str)]);

impl Headers for Pairs<'_> {
    fn value(&self, name: &str) -> Option<std::borrow::Cow<'_, str>> {
        self.0.value(name)
    }
}

fn decide(policies: &[AuthorizationPolicy], call: &str) -> String {
    let mut set = PolicySet::new();
    policies.iter().for_each(|policy| set.set_authorization(policy));
    let policy = set.for_workload("default", &[], &[], &[]);
    Sent::parse(call).with(|call| policy.decide(call)).to_string()
}

const FRONTEND: &str = "spiffe://cluster.local/ns/default/sa/frontend 10.244.0.2 8080 GET reviews:8080 /reviews/1";
const OTHER: &str = "spiffe://cluster.local/ns/other/sa/frontend 10.244.0.3 8080 POST reviews:8080 /admin/x x-role=ops";
const PLAIN: &str = "- 192.168.0.1 8080 GET reviews:8080 /reviews/1";
const TCP: &str = "spiffe://cluster.local/ns/default/sa/frontend 10.244.0.2 3306";

/// Which of the four calls one rule takes, as an ALLOW policy: `f` frontend, `o` other, `p` plain, `t` TCP.
fn check(rule: PolicyRule, expect: &str) {
    let allow = policy("a", Action::Allow, vec![rule.clone()]);
    let mut taken = String::new();
    for (letter, call) in [('f', FRONTEND), ('o', OTHER), ('p', PLAIN), ('t', TCP)] {
        if decide(std::slice::from_ref(&allow), call).starts_with("allowed") {
            taken.push(letter);
        }
    }
    assert_eq!(taken, expect, "{rule:?}");
}

#[test]
fn sources() {
    let principals = |list: &[&str]| from(Source { principals: texts(list), ..Default::default() });
    check(principals(&["cluster.local/ns/default/sa/frontend"]), "ft");
    check(principals(&["*/sa/frontend"]), "fot");
    check(principals(&["cluster.local/ns/other/*"]), "o");
    check(principals(&["*"]), "fot");
    check(principals(&["cluster.local/ns/default/sa/front"]), "");
    check(from(Source { not_principals: texts(&["*/sa/frontend"]), ..Default::default() }), "p");
    check(from(Source { namespaces: texts(&["default"]), ..Default::default() }), "ft");
    check(from(Source { not_namespaces: texts(&["default"]), ..Default::default() }), "op");
    check(from(Source { service_accounts: texts(&["other/frontend"]), ..Default::default() }), "o");
    check(from(Source { ip_blocks: texts(&["10.244.0.0/24"]), ..Default::default() }), "fot");
    check(from(Source { not_ip_blocks: texts(&["10.244.0.0/24"]), ..Default::default() }), "p");
    check(from(Source { request_principals: texts(&["*"]), ..Default::default() }), "");
    check(from(Source { not_request_principals: texts(&["*"]), ..Default::default() }), "fop");
    let both = Source { namespaces: texts(&["default"]), not_ip_blocks: texts(&["10.244.0.2"]), ..Default::default() };
    check(from(both), "");
    check(from(Source::default()), "");
    check(PolicyRule::default(), "fopt");
}

#[test]
fn operations() {
    check(to(Operation { methods: texts(&["GET"]), ..Default::default() }), "fp");
    check(to(Operation { not_methods: texts(&["GET"]), ..Default::default() }), "o");
    check(to(Operation { paths: texts(&["/reviews/*"]), ..Default::default() }), "fp");
    check(to(Operation { paths: texts(&["*/x"]), ..Default::default() }), "o");
    check(to(Operation { paths: texts(&["/{*}/1"]), ..Default::default() }), "fp");
    check(to(Operation { paths: texts(&["/reviews/{**}"]), ..Default::default() }), "fp");
    check(to(Operation { ports: texts(&["8080"]), ..Default::default() }), "fop");
    check(to(Operation { not_ports: texts(&["8080"]), ..Default::default() }), "t");
    check(to(Operation { hosts: texts(&["REVIEWS:*"]), ..Default::default() }), "fop");
    check(to(Operation { hosts: texts(&["reviews"]), ..Default::default() }), "");
    check(to(Operation { hosts: texts(&["*"]), ..Default::default() }), "fop");
}

#[test]
fn conditions() {
    check(when("request.headers[X-Role]", &["op*"], &[]), "o");
    check(when("request.headers[X-Role]", &[], &["ops"]), "fp");
    check(when("source.namespace", &["default"], &[]), "ft");
    check(when("source.principal", &["*"], &["cluster.local/ns/other/*"]), "ft");
    check(when("source.ip", &["192.168.0.0/16"], &[]), "p");
    check(when("destination.port", &["3306"], &[]), "t");
    check(when("destination.ip", &["10.244.0.9"], &[]), "fopt");
    check(when("connection.sni", &["*"], &[]), "");
    check(when("request.auth.claims[iss]", &["x"], &[]), "");
    check(when("no.such.attribute", &["x"], &[]), "");
    check(when("source.ip", &[], &[]), "");
}

#[test]
fn deny_goes_before_allow_and_names_its_rule() {
    let allow = policy("allow-all", Action::Allow, vec![PolicyRule::default()]);
    let deny = policy(
        "deny-other",
        Action::Deny,
        vec![
            to(Operation { methods: texts(&["DELETE"]), ..Default::default() }),
            from(Source { namespaces: texts(&["other"]), ..Default::default() }),
        ],
    );
    let both = [allow.clone(), deny.clone()];
    assert_eq!(decide(&both, FRONTEND), "allowed default/allow-all rule 0");
    assert_eq!(decide(&both, OTHER), "denied_by_policy default/deny-other rule 1");
    assert_eq!(decide(std::slice::from_ref(&deny), FRONTEND), "no_policy");
    assert_eq!(decide(&[], FRONTEND), "no_policy");
    let none = policy("allow-nothing", Action::Allow, vec![]);
    assert_eq!(decide(std::slice::from_ref(&none), FRONTEND), "no_allow_policy_matched");
    assert_eq!(decide(&[policy("deny-nothing", Action::Deny, vec![])], FRONTEND), "no_policy");
    assert_eq!(
        decide(&[policy("ask", Action::Custom, vec![PolicyRule::default()]), allow], FRONTEND),
        "no_external_authorizer default/ask rule 0"
    );
}

#[test]
fn what_tcp_cannot_decide_errs_towards_refusal() {
    let mixed = PolicyRule {
        from: vec![Source { namespaces: texts(&["default"]), ..Default::default() }],
        to: vec![Operation { methods: texts(&["DELETE"]), ports: texts(&["3306"]), ..Default::default() }],
        when: vec![],
    };
    let deny = policy("d", Action::Deny, vec![mixed.clone()]);
    assert_eq!(decide(std::slice::from_ref(&deny), TCP), "denied_by_policy default/d rule 0");
    assert_eq!(decide(std::slice::from_ref(&deny), FRONTEND), "no_policy");
    assert_eq!(decide(&[policy("a", Action::Allow, vec![mixed])], TCP), "no_allow_policy_matched");
}

#[test]
fn dry_run_reports_only_a_difference() {
    let mut deny =
        policy("d", Action::Deny, vec![from(Source { namespaces: texts(&["other"]), ..Default::default() })]);
    deny.dry_run = true;
    let mut set = PolicySet::new();
    set.set_authorization(&deny);
    set.set_authorization(&policy("note", Action::Audit, vec![PolicyRule::default()]));
    let policy = set.for_workload("default", &[], &[], &[]);
    let other = Sent::parse(OTHER).with(|call| policy.decide(call));
    assert!(other.allow);
    assert_eq!(other.dry_run, Some(DryRun { allow: false, policy: Some(deny.key.clone()), rule: Some(0) }));
    assert_eq!(other.audited, [Key::new("default", "note")]);
    assert_eq!(Sent::parse(FRONTEND).with(|call| policy.decide(call)).dry_run, None);
}

#[test]
fn scopes() {
    let mut set = PolicySet::new();
    let deny = |namespace: &str, name: &str, scope: Scope| AuthorizationPolicy {
        key: Key::new(namespace, name),
        scope,
        action: Action::Deny,
        dry_run: false,
        provider: "".into(),
        rules: vec![PolicyRule::default()],
    };
    set.set_authorization(&deny("diolkos-system", "everywhere", Scope::Mesh));
    let before = set.revision();
    set.set_authorization(&deny("default", "here", Scope::Namespace));
    set.set_authorization(&deny("default", "one", Scope::Workload));
    assert!(set.revision() > before);
    let by = |set: &PolicySet, namespace: &str, listed: &[Key]| {
        let policy = set.for_workload(namespace, listed, &[], &[]);
        Sent::parse(FRONTEND).with(|call| policy.decide(call)).policy.map(|key| key.to_string()).unwrap_or_default()
    };
    assert_eq!(by(&set, "other", &[]), "diolkos-system/everywhere");
    set.remove_authorization(&Key::new("diolkos-system", "everywhere"));
    assert_eq!(by(&set, "other", &[]), "");
    assert_eq!(by(&set, "default", &[]), "default/here");
    set.remove_authorization(&Key::new("default", "here"));
    assert_eq!(by(&set, "default", &[]), "");
    assert_eq!(by(&set, "default", &[Key::new("default", "one"), Key::new("default", "gone")]), "default/one");
}

#[test]
fn peer_authentication() {
    let make = |namespace: &str, name: &str, scope, mode, ports: &[(u16, MtlsMode)], created| {
        Arc::new(PeerAuthentication {
            key: Key::new(namespace, name),
            scope,
            mode,
            ports: ports.to_vec(),
            created: Timestamp(created),
        })
    };
    let mut set = PolicySet::new();
    let listed = [Key::new("default", "w")];
    let mode = |set: &PolicySet, port| set.for_workload("default", &[], &listed, &[]).mtls_mode(port);
    assert_eq!(mode(&set, 80), MtlsMode::Permissive);
    set.set_peer(make("root", "m", Scope::Mesh, MtlsMode::Strict, &[], 1));
    assert_eq!(mode(&set, 80), MtlsMode::Strict);
    set.set_peer(make("default", "n2", Scope::Namespace, MtlsMode::Strict, &[], 3));
    set.set_peer(make("default", "n1", Scope::Namespace, MtlsMode::Disable, &[(80, MtlsMode::Strict)], 2));
    assert_eq!(mode(&set, 80), MtlsMode::Disable, "the oldest of the namespace, and no port modes there");
    let ports = [(80, MtlsMode::Permissive), (81, MtlsMode::Unset)];
    set.set_peer(make("default", "w", Scope::Workload, MtlsMode::Strict, &ports, 9));
    assert_eq!((mode(&set, 80), mode(&set, 81)), (MtlsMode::Permissive, MtlsMode::Strict));
    let refused = set.for_workload("default", &[], &listed, &[]).admit_plain_text(443);
    assert_eq!(refused.to_string(), "plain_text_refused default/w");
    assert!(!refused.allow);
    set.set_peer(make("default", "w", Scope::Workload, MtlsMode::Unset, &[], 9));
    assert_eq!(mode(&set, 80), MtlsMode::Disable, "unset inherits");
}

#[test]
fn identities() {
    let id = Identity::parse("spiffe://cluster.local/ns/default/sa/web").unwrap();
    assert_eq!((id.trust_domain(), id.namespace(), id.service_account()), ("cluster.local", "default", "web"));
    assert_eq!(id.to_string(), "spiffe://cluster.local/ns/default/sa/web");
    for bad in [
        "cluster.local/ns/a/sa/b",
        "spiffe://x/ns/a/sa/b/c",
        "spiffe://x/ns/a",
        "spiffe://x/sa/a/ns/b",
        "spiffe:///ns/a/sa/b",
        "spiffe://x/ns//sa/b",
        "spiffe://x/ns/a/sa/",
    ] {
        assert_eq!(Identity::parse(bad), None, "{bad}");
    }
}

/// The twin: Istio's documentation put into code as directly as possible, over the uncompiled policies.
mod twin {
    use super::*;

    fn text_matches(pattern: &str, value: &str) -> bool {
        if pattern == "*" {
            return !value.is_empty();
        }
        if let Some(prefix) = pattern.strip_suffix('*') {
            return value.starts_with(prefix);
        }
        if let Some(suffix) = pattern.strip_prefix('*') {
            return value.ends_with(suffix);
        }
        pattern == value
    }

    /// `Some(holds)`, or none when it cannot be decided; `Ok(None)` when the field is not there.
    fn field(yes: &[Arc<str>], no: &[Arc<str>], value: Option<&str>) -> Option<bool> {
        if yes.is_empty() && no.is_empty() {
            return None;
        }
        let any =
            |list: &[Arc<str>]| value.is_some_and(|value| list.iter().any(|pattern| text_matches(pattern, value)));
        Some((yes.is_empty() || any(yes)) && !any(no))
    }

    fn source(source: &Source, call: &Call<'_>, wide: bool) -> bool {
        let parts = [
            field(&source.principals, &source.not_principals, call.peer.map(Identity::principal)),
            field(&source.namespaces, &source.not_namespaces, call.peer.map(Identity::namespace)),
            field(&source.ip_blocks, &source.not_ip_blocks, Some(&call.source_ip.to_string())),
        ];
        if parts.iter().all(Option::is_none) { wide } else { parts.into_iter().flatten().all(|part| part) }
    }

    fn operation(operation: &Operation, call: &Call<'_>, wide: bool) -> bool {
        let http = |yes: &[Arc<str>], no: &[Arc<str>], value: Option<&str>| {
            field(yes, no, value).map(|holds| if call.http.is_some() { holds } else { wide })
        };
        let parts = [
            field(&operation.ports, &operation.not_ports, Some(&call.destination_port.to_string())),
            http(&operation.methods, &operation.not_methods, call.http.map(|http| http.method)),
            http(&operation.paths, &operation.not_paths, call.http.map(|http| http.path)),
        ];
        if parts.iter().all(Option::is_none) { wide } else { parts.into_iter().flatten().all(|part| part) }
    }

    /// The first rule that matches.
    fn matches(policy: &AuthorizationPolicy, call: &Call<'_>) -> Option<usize> {
        let wide = policy.action != Action::Allow;
        policy.rules.iter().position(|rule| {
            (rule.from.is_empty() || rule.from.iter().any(|it| source(it, call, wide)))
                && (rule.to.is_empty() || rule.to.iter().any(|it| operation(it, call, wide)))
        })
    }

    /// Whether it may pass, and which rule of which policy says so.
    pub fn decide(policies: &[AuthorizationPolicy], call: &Call<'_>) -> (bool, Option<Key>, Option<usize>) {
        let first = |action: Action| {
            let mut of = policies.iter().filter(|policy| policy.action == action);
            of.find_map(|policy| Some((policy.key.clone(), matches(policy, call)?)))
        };
        let by = |allow: bool, (key, rule): (Key, usize)| (allow, Some(key), Some(rule));
        match (first(Action::Deny), first(Action::Allow)) {
            (Some(denied), _) => by(false, denied),
            (None, Some(allowed)) => by(true, allowed),
            (None, None) => (!policies.iter().any(|policy| policy.action == Action::Allow), None, None),
        }
    }
}

/// A small generator: the state moves by xorshift, so a failing case is found again by its seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
    fn some(&mut self, among: &[&str]) -> Vec<Arc<str>> {
        (0..[0, 0, 1, 2][self.below(4)]).map(|_| among[self.below(among.len())].into()).collect()
    }
    fn rule(&mut self) -> PolicyRule {
        const PRINCIPALS: &[&str] = &["td/ns/a/sa/x", "td/ns/a/*", "*/sa/y", "*", "td/ns/b/sa/y"];
        const ADDRESSES: &[&str] = &["10.0.0.1", "10.0.0.2"];
        const PATHS: &[&str] = &["/a", "/a/*", "*/b", "*", "/a/b/*"];
        let from = (0..self.below(3)).map(|_| Source {
            principals: self.some(PRINCIPALS),
            not_principals: self.some(PRINCIPALS),
            namespaces: self.some(&["a", "b", "*"]),
            not_namespaces: self.some(&["a", "b*"]),
            ip_blocks: self.some(ADDRESSES),
            not_ip_blocks: self.some(ADDRESSES),
            ..Default::default()
        });
        let from = from.collect();
        let to = (0..self.below(3)).map(|_| Operation {
            ports: self.some(&["80", "81"]),
            not_ports: self.some(&["80"]),
            methods: self.some(&["GET", "P*", "*"]),
            not_methods: self.some(&["GET", "*T"]),
            paths: self.some(PATHS),
            not_paths: self.some(PATHS),
            ..Default::default()
        });
        PolicyRule { from, to: to.collect(), when: vec![] }
    }
    fn policies(&mut self) -> Vec<AuthorizationPolicy> {
        (0..self.below(5))
            .map(|index| {
                let action = if self.below(2) == 0 { Action::Allow } else { Action::Deny };
                // Few are asked one after the other, many are found by what they name.
                let bound = [4, 20][self.below(2)];
                let rules = (0..self.below(bound)).map(|_| self.rule()).collect();
                policy(&format!("p{index}"), action, rules)
            })
            .collect()
    }
}

#[test]
fn compiled_policies_decide_as_their_twin() {
    const CALLS: &[&str] = &[
        "- 10.0.0.1 80",
        "- 10.0.0.2 81 GET h /a",
        "spiffe://td/ns/a/sa/x 10.0.0.1 80",
        "spiffe://td/ns/a/sa/x 10.0.0.1 80 GET h /a/b",
        "spiffe://td/ns/a/sa/y 10.0.0.2 81 PUT h /b",
        "spiffe://td/ns/b/sa/y 10.0.0.2 80 POST h /a",
    ];
    let mut outcomes = [0; 2];
    for seed in 1..3_000 {
        let policies = Dice(0x9e37_79b9_7f4a_7c15u64.wrapping_mul(seed)).policies();
        let mut set = PolicySet::new();
        policies.iter().for_each(|policy| set.set_authorization(policy));
        let compiled = set.for_workload("default", &[], &[], &[]);
        for call in CALLS {
            Sent::parse(call).with(|view| {
                let decision = compiled.decide(view);
                let left = (decision.allow, decision.policy, decision.rule);
                assert_eq!(left, twin::decide(&policies, view), "seed {seed}, {call}: {policies:#?}");
                outcomes[usize::from(decision.allow)] += 1;
            });
        }
    }
    assert!(outcomes.iter().all(|count| *count > 1_000), "both outcomes are tried: {outcomes:?}");
}
