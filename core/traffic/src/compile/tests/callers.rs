//! Rules that hold for some callers only, by the labels of their workloads.

use super::istio::{object, on_path, rule_to, to, virtual_service, web};
use super::*;
use model::mesh::api::istio::{StreamMatch, StreamRule, VirtualMatch, VirtualRule};
use model::mesh::{Match, MatchMore, PathMatch, Workload};

fn from(pairs: &[(&str, &str)]) -> VirtualMatch {
    let more = MatchMore { source_labels: labels(pairs), ..MatchMore::default() };
    let matched = Match { path: PathMatch::Text("".into()), more: Some(Box::new(more)), ..Match::default() };
    VirtualMatch { matched, ..VirtualMatch::default() }
}

fn workload(compiler: &Compiler, name: &str) -> Arc<Workload> {
    match compiler.told.get(&(ResourceKind::Workload, name.into())) {
        Some(Resource::Workload(workload)) => workload.clone(),
        _ => panic!("no workload {name}"),
    }
}

#[test]
fn proxies_learn_the_labels_that_rules_ask_for() {
    let mut compiler = compiler(web());
    compiler.take();
    assert_eq!(workload(&compiler, "pod/apps/web-1").labels, Labels::new());
    let rule = VirtualRule { matches: vec![from(&[("version", "v1")])], ..rule_to(vec![to("web", "")]) };
    compiler.set(object(virtual_service("vs", 1, &["web"], vec![rule])));
    let told = compiler.take();
    assert_eq!(workload(&compiler, "pod/apps/web-1").labels, labels(&[("version", "v1")]), "and not the others");
    let told: Vec<&String> =
        told.resources.keys().filter(|(kind, _)| *kind == ResourceKind::Workload).map(|(_, name)| name).collect();
    assert_eq!(told, ["pod/apps/web-1", "pod/apps/web-2"]);
    compiler.remove(ObjectKind::VirtualService, &Key::new("apps", "vs"));
    compiler.take();
    assert_eq!(workload(&compiler, "pod/apps/web-1").labels, Labels::new());
}

#[test]
fn a_stream_rules_matches_are_taken_by_themselves() {
    let matched = |sni: &str, port: u16| StreamMatch {
        sni: vec![sni.into()],
        port: Some(port),
        labels: labels(&[("version", "v1")]),
        ..StreamMatch::default()
    };
    let at_gateways = StreamMatch { gateways: vec!["edge".into()], ..matched("c.example", 80) };
    let rule = StreamRule {
        tls: true,
        matches: vec![matched("a.example", 80), matched("b.example", 81), at_gateways],
        destinations: vec![to("web", "")],
        ..StreamRule::default()
    };
    let mut it = virtual_service("vs", 1, &["web"], Vec::new());
    it.streams = vec![rule];
    let mut compiler = compiler(web());
    compiler.set(object(it));
    compiler.take();
    let told: Vec<String> = compiler
        .told
        .values()
        .filter_map(|told| match told {
            Resource::Route(route) => Some((route, &route.parents[0])),
            _ => None,
        })
        .map(|(route, parent)| match &parent.target {
            ParentTarget::Service { port, .. } => {
                format!("{} {port:?} {:?}", route.name, parent.hostnames)
            }
            ParentTarget::Listener { .. } => "?".into(),
        })
        .collect();
    let expect = [
        r#"VirtualService/apps/vs#0000.0000 Some(80) ["a.example"]"#,
        r#"VirtualService/apps/vs#0000.0001 Some(81) ["b.example"]"#,
    ];
    assert_eq!(told, expect);
    assert_eq!(workload(&compiler, "pod/apps/web-1").labels, labels(&[("version", "v1")]));
}

#[test]
fn a_delegates_callers_must_be_its_roots_too() {
    use model::mesh::api::istio::Instead;
    let root = |pairs: &[(&str, &str)]| VirtualRule {
        matches: vec![from(pairs)],
        instead: Some(Instead::Delegate { namespace: "".into(), name: "inner".into() }),
        ..Default::default()
    };
    let mut inner = virtual_service("inner", 1, &[], vec![on_path("/a", vec![to("web", "")])]);
    inner.http[0].matches[0].matched.more = from(&[("version", "v1"), ("app", "web")]).matched.more;
    let mut compiler = compiler(web());
    compiler.set(object(inner));
    compiler.set(object(virtual_service("vs", 1, &["web"], vec![root(&[("version", "v2")]), root(&[("tier", "x")])])));
    compiler.take();
    let Some(Resource::Route(route)) = compiler.told.get(&(ResourceKind::Route, "VirtualService/apps/vs".into()))
    else {
        panic!("no route")
    };
    let asked: Vec<Labels> =
        route.rules.iter().map(|rule| rule.matches[0].more.as_ref().unwrap().source_labels.clone()).collect();
    assert_eq!(asked, [labels(&[("app", "web"), ("tier", "x"), ("version", "v1")])], "nobody is of two versions");
}
