//! TrafficPolicies: what they hang on, conflicts, references.

use super::*;
use model::mesh::api::{GlobalLimitSpec, TrafficPolicy};
use model::mesh::attached::{AttachedPolicy, PolicyTarget};
use std::collections::BTreeMap;

fn policy(name: &str, created: i64, targets: &[(&str, &str, &str)]) -> TrafficPolicy {
    let target = |(kind, name, section): &(&str, &str, &str)| {
        let group = if *kind == "Service" { "" } else { GROUP };
        (reference(group, kind, "", name), Arc::from(*section))
    };
    TrafficPolicy {
        meta: Meta { created: Timestamp(created), ..meta("apps", name) },
        targets: targets.iter().map(target).collect(),
        ..Default::default()
    }
}

fn object(it: TrafficPolicy) -> Object {
    Object::TrafficPolicy(Box::new(it))
}

fn told(output: &Output) -> BTreeMap<String, Option<Vec<PolicyTarget>>> {
    let of = |resource: &Option<Resource>| match resource {
        Some(Resource::AttachedPolicy(it)) => Some(AttachedPolicy::clone(it).targets),
        _ => None,
    };
    let policies = output.resources.iter().filter(|((kind, _), _)| *kind == ResourceKind::AttachedPolicy);
    policies.map(|((_, name), resource)| (name.clone(), of(resource))).collect()
}

fn conditions(output: &Output, name: &str) -> String {
    let status = output.istio.get(&(ObjectKind::TrafficPolicy, Key::new("apps", name)));
    status.map(|it| unusual(&it.conditions)).unwrap_or_else(|| "unchanged".into())
}

fn conflicted(output: &Output, name: &str) -> bool {
    let status = &output.istio[&(ObjectKind::TrafficPolicy, Key::new("apps", name))];
    status.conditions.iter().any(|it| it.kind == "Conflicted" && it.holds)
}

fn web(port: &str) -> PolicyTarget {
    PolicyTarget::Service { service: Key::new("apps", "web"), port: port.into() }
}

#[test]
fn targets_that_are_there_and_nobody_elses() {
    let mut compiler = compiler(vec![
        object(policy("old", 1, &[("Service", "web", "")])),
        object(policy("new", 2, &[("Service", "web", ""), ("HTTPRoute", "r", "")])),
        object(policy("vain", 3, &[("HTTPRoute", "r", "nothing"), ("Service", "none", "")])),
        object(TrafficPolicy { flaw: "bad".into(), ..policy("bad", 0, &[("Service", "web", "")]) }),
    ]);
    let output = compiler.take();
    assert_eq!(told(&output), BTreeMap::from([("apps/old".into(), Some(vec![web("")]))]));
    assert_eq!(conditions(&output, "old"), "");
    assert!(conditions(&output, "new").contains("Accepted=False/Conflicted"), "{}", conditions(&output, "new"));
    assert!(conflicted(&output, "new"));
    assert!(conditions(&output, "vain").contains("Accepted=False/TargetNotFound"), "{}", conditions(&output, "vain"));
    assert!(conditions(&output, "bad").contains("Accepted=False/Invalid"), "{}", conditions(&output, "bad"));

    compiler.set(Object::Route(route("apps", "r", vec![], &[], vec![])));
    let output = compiler.take();
    let at_route = PolicyTarget::Route { route: "HTTPRoute/apps/r".into(), rule: "".into() };
    assert_eq!(told(&output), BTreeMap::from([("apps/new".into(), Some(vec![at_route.clone()]))]));
    assert!(conflicted(&output, "new") && conditions(&output, "new").is_empty(), "for a part of it");

    compiler.remove(ObjectKind::TrafficPolicy, &Key::new("apps", "old"));
    let output = compiler.take();
    let expect = [("apps/new".into(), Some(vec![at_route, web("")])), ("apps/old".into(), None)];
    assert_eq!(told(&output), BTreeMap::from(expect), "what gave way takes over");
    assert!(!conflicted(&output, "new") && conditions(&output, "new").is_empty());
}

#[test]
fn a_rate_limit_service_must_be_there_and_permitted() {
    let global = |namespace: &str, name: &str| GlobalLimitSpec {
        backend: backend(namespace, name, 80),
        domain: "d".into(),
        timeout_ms: 1,
        fail_open: true,
        descriptors: vec![],
    };
    let with = |global| object(TrafficPolicy { global: Some(global), ..policy("p", 1, &[("Service", "web", "")]) });
    let mut compiler = compiler(vec![service("infra", "rls", &[80]), with(global("", "rls"))]);
    let asks = |output: &Output| match output.resources.values().flatten().find_map(|it| match it {
        Resource::AttachedPolicy(it) => Some(it.clone()),
        _ => None,
    }) {
        Some(it) => it.global.as_ref().map(|it| it.service.to_string()),
        None => Some("unchanged".into()),
    };
    let output = compiler.take();
    assert_eq!(asks(&output), None);
    assert!(conditions(&output, "p").contains("ResolvedRefs=False/BackendNotFound"), "{}", conditions(&output, "p"));
    compiler.set(with(global("infra", "rls")));
    let output = compiler.take();
    assert!(conditions(&output, "p").contains("ResolvedRefs=False/RefNotPermitted"), "{}", conditions(&output, "p"));
    compiler.set(Object::ReferenceGrant(ReferenceGrant {
        key: Key::new("infra", "g"),
        from: vec![("mesh.diolkos.io".into(), "TrafficPolicy".into(), "apps".into())],
        to: vec![reference("", "Service", "", "")],
    }));
    let output = compiler.take();
    assert_eq!((asks(&output), conditions(&output, "p").as_str()), (Some("infra/rls".into()), ""));
}

#[test]
fn a_gateways_listeners_ask_for_a_proxy_header() {
    let gateway = gateway("edge", 1, vec![listener("a", 8080, "HTTP", ""), listener("b", 8081, "HTTP", "")]);
    let on = |section: &str| {
        let policy = policy("p", 1, &[("Gateway", "edge", section)]);
        let meta = Meta { key: Key::new("infra", "p"), ..policy.meta };
        object(TrafficPolicy { meta, proxy_protocol: true, ..policy })
    };
    let mut compiler = compiler(vec![gateway]);
    let asks = |compiler: &mut Compiler| -> Vec<bool> {
        compiler.take();
        match &compiler.resources()[&(ResourceKind::Gateway, "infra/edge".to_owned())] {
            Resource::Gateway(it) => it.listeners.iter().map(|it| it.proxy_protocol).collect(),
            _ => vec![],
        }
    };
    assert_eq!(asks(&mut compiler), [false, false]);
    compiler.set(on("b"));
    assert_eq!(asks(&mut compiler), [false, true]);
    compiler.set(on(""));
    assert_eq!(asks(&mut compiler), [true, true]);
    compiler.remove(ObjectKind::TrafficPolicy, &Key::new("infra", "p"));
    assert_eq!(asks(&mut compiler), [false, false]);
}
