//! Who sees a ServiceEntry, and what it says of its endpoints.

use super::istio::{destination_rule, entry, istio_status, object, rule_object, rule_to, to, virtual_service};
use super::*;
use model::mesh::api::istio::{
    DestinationRule, EntryEndpoint, PolicySpec, Resolution, ServiceEntry, TlsOrigination, TlsSpec,
};
use model::mesh::{BackendTarget, SubjectName};

fn entry_in(namespace: &str, created: i64, export_to: &[&str]) -> Object {
    Object::ServiceEntry(Box::new(ServiceEntry {
        meta: Meta { created: Timestamp(created), ..meta(namespace, "far") },
        endpoints: vec![EntryEndpoint { address: "192.0.2.1".into(), ..Default::default() }],
        export_to: export_to.iter().map(|to| (*to).into()).collect(),
        ..entry("far", Resolution::Static)
    }))
}

/// Where the VirtualService of a namespace leads, or why nowhere.
fn leads(compiler: &Compiler, namespace: &str) -> String {
    let name = format!("VirtualService/{namespace}/vs");
    let Some(Resource::Route(route)) = compiler.told.get(&(ResourceKind::Route, name)) else { return "-".into() };
    match &route.rules[0].backends[0].target {
        BackendTarget::Service { service, .. } => service.to_string(),
        BackendTarget::Invalid { reason } => reason.to_string(),
    }
}

fn virtual_in(namespace: &str, created: i64) -> Object {
    let mut it = virtual_service("vs", created, &["far.example"], vec![rule_to(vec![to("far.example", "")])]);
    it.meta.key = Key::new(namespace, "vs");
    object(it)
}

#[test]
fn a_host_means_what_a_namespace_sees() {
    let own = |namespace: &str, created| entry_in(namespace, created, &[namespace]);
    let mut compiler = compiler(vec![
        own("apps", 1),
        own("shop", 2),
        virtual_in("apps", 3),
        virtual_in("shop", 4),
        virtual_in("infra", 5),
    ]);
    let output = compiler.take();
    for namespace in ["apps", "shop"] {
        let status = &output.istio[&(ObjectKind::ServiceEntry, Key::new(namespace, "far"))];
        assert_eq!(unusual(&status.conditions), "", "{namespace}");
        assert_eq!(leads(&compiler, namespace), format!("{namespace}/serviceentry.far"));
    }
    assert_eq!(leads(&compiler, "infra"), "-", "it sees none of them");
    compiler.set(entry_in("infra", 6, &[]));
    let output = compiler.take();
    let status = &output.istio[&(ObjectKind::ServiceEntry, Key::new("infra", "far"))];
    assert_eq!(unusual(&status.conditions), "", "the others go before it where they are seen");
    assert_eq!(leads(&compiler, "infra"), "infra/serviceentry.far");
    assert_eq!(leads(&compiler, "apps"), "apps/serviceentry.far");
    compiler.set(entry_in("shop", 2, &["apps"]));
    let output = compiler.take();
    let status = &output.istio[&(ObjectKind::ServiceEntry, Key::new("shop", "far"))];
    assert_eq!(unusual(&status.conditions), "Accepted=False/Conflict", "namespace apps cannot see two");
    assert_eq!(leads(&compiler, "shop"), "infra/serviceentry.far");
}

#[test]
fn an_entry_says_how_its_servers_are_named() {
    let rule = |names: Vec<Arc<str>>| {
        let tls = TlsSpec { mode: TlsOrigination::Simple, names, ..Default::default() };
        let policy = PolicySpec { tls: Some(tls), ..Default::default() };
        rule_object(DestinationRule { policy, ..destination_rule("dr", 1, "far.example", &[]) })
    };
    let names = |compiler: &Compiler| -> Vec<SubjectName> {
        let traffic = istio::traffic(compiler, "apps/serviceentry.far");
        traffic.and_then(|it| it.tls.clone()).map(|tls| tls.names.clone()).unwrap_or_default()
    };
    let Object::ServiceEntry(mut far) = entry_in("apps", 1, &[]) else { unreachable!() };
    (far.names, far.outside) = (vec!["spiffe://far/one".into(), "one.far.example".into()], true);
    let mut compiler = compiler(vec![Object::ServiceEntry(far), rule(Vec::new())]);
    let output = compiler.take();
    assert_eq!(istio_status(&output, ObjectKind::DestinationRule, "dr"), "");
    let expect = [SubjectName::Uri("spiffe://far/one".into()), SubjectName::Dns("one.far.example".into())];
    assert_eq!(names(&compiler), expect);
    compiler.set(rule(vec!["two.far.example".into()]));
    compiler.take();
    assert_eq!(names(&compiler), [SubjectName::Dns("two.far.example".into())], "the rule's own go before");
    let Some(Resource::Service(told)) = compiler.told.get(&(ResourceKind::Service, "apps/serviceentry.far".into()))
    else {
        panic!("no service")
    };
    assert!(told.outside);
}
