use super::*;
use model::{Key, LabelSelector, Labels};
use std::sync::Arc;

fn texts(list: &str) -> Vec<Arc<str>> {
    list.split(',').map(|part| if part == "core" { "".into() } else { part.into() }).collect()
}

fn rule(verbs: &str, groups: &str, resources: &str) -> Rule {
    Rule { verbs: texts(verbs), api_groups: texts(groups), resources: texts(resources), ..Rule::default() }
}

fn binding(namespace: &str, name: &str, cluster: bool, role: &str, subjects: Vec<Subject>) -> Binding {
    Binding { key: Key::new(namespace, name), subjects, role: RoleRef { cluster, name: role.into() } }
}

fn policy() -> Policy {
    let mut builder = PolicyBuilder::default();
    let mut add = |name: &str, labels: &[(&str, &str)], rules: Vec<Rule>, aggregation| {
        let labels: Labels = labels.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        builder.cluster_roles.insert(name.into(), ClusterRole { labels, rules, aggregation });
    };
    let all = Rule { non_resource_urls: texts("*"), verbs: texts("*"), ..Rule::default() };
    add("cluster-admin", &[], vec![rule("*", "*", "*"), all], None);
    add("pods-view", &[("to-view", "true")], vec![rule("get,list", "core", "pods,pods/log")], None);
    let labels: Labels = [("to-view".into(), "true".into())].into();
    add("view", &[], vec![], Some(vec![LabelSelector::from_labels(&labels)]));
    add("scaler", &[], vec![rule("update", "*", "*/scale")], None);
    let health = Rule { verbs: texts("get"), non_resource_urls: texts("/healthz,/version/*"), ..Rule::default() };
    add("info", &[], vec![health], None);
    let one = Rule { resource_names: texts("a"), ..rule("get", "core", "configmaps") };
    builder.roles.insert(Key::new("ns", "one"), vec![one]);
    let user = |name: &str| vec![Subject::User(name.into())];
    builder.bindings = vec![
        binding("", "admin", true, "cluster-admin", vec![Subject::Group("system:masters".into())]),
        binding("ns", "view", true, "view", user("ann")),
        binding("ns", "one", false, "one", vec![Subject::ServiceAccount { namespace: "ns".into(), name: "sa".into() }]),
        binding("", "scaler", true, "scaler", user("sam")),
        binding("", "info", true, "info", vec![Subject::Group("system:unauthenticated".into())]),
        binding("", "gone", true, "gone", user("gus")),
    ];
    builder.build()
}

/// `check("ann", "get pods/log ns/x")`: caller (a user, or a group after `@`), then verb, resource[.group][/sub], namespace/name.
fn check(who: &str, what: &str, allowed: bool) {
    let policy = policy();
    let (name, groups) = match who.strip_prefix('@') {
        Some(group) => ("someone", vec![Arc::from(group)]),
        None => (who, vec![]),
    };
    let parts: Vec<&str> = what.split(' ').collect();
    let target = if parts[1].starts_with('/') {
        Target::Path(parts[1])
    } else {
        let (resource, subresource) = parts[1].split_once('/').unwrap_or((parts[1], ""));
        let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
        let (namespace, name) = parts.get(2).map_or(("", ""), |at| at.split_once('/').unwrap_or((at, "")));
        Target::Resource { group, resource, subresource, namespace, name }
    };
    let asked = Attributes { caller: Caller { name, groups: &groups }, verb: parts[0], target };
    let decision = decide(&policy, &asked);
    assert_eq!(decision.allowed, allowed, "{who}: {what}: {}", decision.reason);
}

#[test]
fn decisions() {
    check("@system:masters", "delete nodes /n", true);
    check("@system:masters", "get /metrics", true);
    check("ann", "get pods ns/x", true);
    check("ann", "list pods ns", true);
    check("ann", "get pods/log ns/x", true);
    check("ann", "get pods/exec ns/x", false);
    check("ann", "get pods other/x", false);
    check("ann", "list pods", false);
    check("ann", "delete pods ns/x", false);
    check("ann", "get pods.metrics.k8s.io ns/x", false);
    check("system:serviceaccount:ns:sa", "get configmaps ns/a", true);
    check("system:serviceaccount:ns:sa", "get configmaps ns/b", false);
    check("system:serviceaccount:ns:sa", "list configmaps ns", false);
    check("system:serviceaccount:other:sa", "get configmaps ns/a", false);
    check("sam", "update deployments.apps/scale ns/d", true);
    check("sam", "update deployments.apps ns/d", false);
    check("@system:unauthenticated", "get /healthz", true);
    check("@system:unauthenticated", "get /healthz/etcd", false);
    check("@system:unauthenticated", "get /version/x", true);
    check("nobody", "get pods ns/x", false);
}

#[test]
fn reasons_name_the_binding_or_the_missing_role() {
    let policy = policy();
    let pods = Target::Resource { group: "", resource: "pods", subresource: "", namespace: "ns", name: "x" };
    let ask = |name| decide(&policy, &Attributes { caller: Caller { name, groups: &[] }, verb: "get", target: pods });
    assert_eq!(ask("ann").reason, r#"RBAC: allowed by RoleBinding "view/ns" of ClusterRole "view" to User "ann""#);
    assert_eq!(ask("gus").reason, r#"RBAC: clusterrole.rbac.authorization.k8s.io "gone" not found"#);
    assert_eq!(ask("nobody").reason, "");
}

#[test]
fn an_aggregate_of_itself_ends() {
    let mut builder = PolicyBuilder::default();
    let labels: Labels = [("a".into(), "b".into())].into();
    let aggregation = Some(vec![LabelSelector::from_labels(&labels)]);
    builder.cluster_roles.insert("loop".into(), ClusterRole { labels, rules: vec![], aggregation });
    assert!(builder.resolve("loop").is_empty());
}

#[test]
fn nobody_grants_more_than_they_hold() {
    let held = [
        rule("get,list", "core", "pods,pods/log"),
        Rule { resource_names: texts("a"), ..rule("get", "core", "secrets") },
    ];
    let held: Vec<&Rule> = held.iter().collect();
    assert!(covers(&held, &[rule("get", "core", "pods")]));
    assert!(covers(&held, &[Rule { resource_names: texts("x"), ..rule("get", "core", "pods") }]));
    assert!(covers(&held, &[Rule { resource_names: texts("a"), ..rule("get", "core", "secrets") }]));
    assert!(!covers(&held, &[rule("get", "core", "secrets")]), "one name does not cover all");
    assert!(!covers(&held, &[rule("get", "core", "pods/exec")]));
    assert!(!covers(&held, &[rule("*", "core", "pods")]));
    let missing = uncovered(&held, &[rule("get,delete", "core", "pods,nodes")]);
    assert_eq!(missing.len(), 3);
    let everything = rule("*", "*", "*");
    assert!(covers(&[&everything], &[rule("delete", "apps", "deployments/scale")]));
}
