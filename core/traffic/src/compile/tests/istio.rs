//! Istio's kinds: hosts, subsets, order, conflicts, entries.

use super::*;
use model::mesh::api::istio::{
    Destination, DestinationRule, EntryEndpoint, EntryPort, Instead, PolicySpec, Resolution, ServiceEntry, Subset,
    VirtualMatch, VirtualRule, VirtualService,
};
use model::mesh::api::{ResolvedName, WorkloadEntry};
use model::mesh::traffic::{Balancer, Outlier};
use model::mesh::{BackendTarget, Endpoint, EndpointGroup, Match, MatchMore, PathMatch, TrafficPolicy};

pub(super) fn to(host: &str, subset: &str) -> Destination {
    Destination { host: host.into(), subset: subset.into(), weight: 1, ..Default::default() }
}

pub(super) fn virtual_service(name: &str, created: i64, hosts: &[&str], rules: Vec<VirtualRule>) -> VirtualService {
    VirtualService {
        meta: Meta { created: Timestamp(created), ..meta("apps", name) },
        hosts: hosts.iter().map(|host| (*host).into()).collect(),
        http: rules,
        ..Default::default()
    }
}

pub(super) fn rule_to(destinations: Vec<Destination>) -> VirtualRule {
    VirtualRule { destinations, ..Default::default() }
}

pub(super) fn on_path(path: &str, destinations: Vec<Destination>) -> VirtualRule {
    let matched = Match { path: PathMatch::Text(path.into()), ..Match::default() };
    let matches = vec![VirtualMatch { matched, has_path: true, ..Default::default() }];
    VirtualRule { matches, ..rule_to(destinations) }
}

pub(super) fn object(it: VirtualService) -> Object {
    Object::VirtualService(Box::new(it))
}

pub(super) fn destination_rule(name: &str, created: i64, host: &str, subsets: &[(&str, &str)]) -> DestinationRule {
    let subset = |(name, version): &(&str, &str)| Subset {
        name: (*name).into(),
        labels: labels(&[("version", version)]),
        policy: PolicySpec::default(),
    };
    DestinationRule {
        meta: Meta { created: Timestamp(created), ..meta("apps", name) },
        host: host.into(),
        subsets: subsets.iter().map(subset).collect(),
        ..Default::default()
    }
}

pub(super) fn rule_object(it: DestinationRule) -> Object {
    Object::DestinationRule(Box::new(it))
}

fn pod(name: &str, address: &str, version: &str) -> Object {
    Object::Pod(Pod {
        key: Key::new("apps", name),
        addresses: vec![address.parse().unwrap()],
        labels: labels(&[("app", "web"), ("version", version)]),
        ..Default::default()
    })
}

fn slice(pods: &[(&str, &str)]) -> Object {
    let endpoint = |(name, address): &(&str, &str)| SliceEndpoint {
        addresses: vec![address.parse().unwrap()],
        ready: true,
        serving: true,
        target: ("Pod".into(), (*name).into()),
        ..Default::default()
    };
    Object::EndpointSlice(api::EndpointSlice {
        key: Key::new("apps", "web-x"),
        service: "web".into(),
        ports: vec![("".into(), 8080)],
        endpoints: pods.iter().map(endpoint).collect(),
    })
}

pub(super) fn web() -> Vec<Object> {
    vec![
        service("apps", "web", &[80]),
        pod("web-1", "10.0.0.1", "v1"),
        pod("web-2", "10.0.0.2", "v2"),
        slice(&[("web-1", "10.0.0.1"), ("web-2", "10.0.0.2")]),
    ]
}

fn route_named(compiler: &Compiler, name: &str) -> Option<Arc<model::mesh::Route>> {
    match compiler.told.get(&(ResourceKind::Route, name.into()))? {
        Resource::Route(route) => Some(route.clone()),
        _ => None,
    }
}

pub(super) fn endpoints(compiler: &Compiler, name: &str) -> Vec<String> {
    match compiler.told.get(&(ResourceKind::Endpoints, name.into())) {
        Some(Resource::Endpoints(group)) => group.endpoints.iter().map(|it| it.address.to_string()).collect(),
        _ => vec!["-".into()],
    }
}

pub(super) fn traffic(compiler: &Compiler, name: &str) -> Option<Arc<TrafficPolicy>> {
    match compiler.told.get(&(ResourceKind::Service, name.into())) {
        Some(Resource::Service(service)) => service.ports[0].traffic.clone(),
        _ => None,
    }
}

pub(super) fn istio_status(output: &Output, kind: ObjectKind, name: &str) -> String {
    output.istio.get(&(kind, Key::new("apps", name))).map_or("-".into(), |status| unusual(&status.conditions))
}

#[test]
fn a_subset_is_a_service_of_its_own() {
    let mut objects = web();
    objects.push(rule_object(destination_rule("dr", 1, "web", &[("v1", "v1"), ("v2", "v2")])));
    let split =
        rule_to(vec![Destination { weight: 90, ..to("web", "v1") }, Destination { weight: 10, ..to("web", "v2") }]);
    objects.push(object(virtual_service("vs", 1, &["web"], vec![split])));
    let mut compiler = compiler(objects);
    let output = compiler.take();
    assert_eq!(istio_status(&output, ObjectKind::VirtualService, "vs"), "");
    assert_eq!(istio_status(&output, ObjectKind::DestinationRule, "dr"), "");
    let route = route_named(&compiler, "VirtualService/apps/vs").unwrap();
    assert!(route.ordered);
    assert_eq!(
        route.parents[0].target,
        ParentTarget::Service { service: Key::new("apps", "web"), port: None, consumer: None }
    );
    let backends: Vec<_> = route.rules[0].backends.iter().map(|it| (it.target.clone(), it.weight)).collect();
    let target = |subset: &str| BackendTarget::Service { service: Key::new("apps", format!("web|{subset}")), port: 80 };
    assert_eq!(backends, [(target("v1"), 90), (target("v2"), 10)]);
    assert_eq!(endpoints(&compiler, "apps/web-x|v1"), ["10.0.0.1"]);
    assert_eq!(endpoints(&compiler, "apps/web-x|v2"), ["10.0.0.2"]);
    assert_eq!(endpoints(&compiler, "apps/web-x"), ["10.0.0.1", "10.0.0.2"]);
    // A pod's label moves it; a subset that is gone is taken back, and what led there says so.
    compiler.set(pod("web-2", "10.0.0.2", "v1"));
    compiler.take();
    assert_eq!(endpoints(&compiler, "apps/web-x|v1"), ["10.0.0.1", "10.0.0.2"]);
    compiler.set(rule_object(destination_rule("dr", 1, "web", &[("v1", "v1")])));
    let output = compiler.take();
    assert_eq!(endpoints(&compiler, "apps/web-x|v2"), ["-"]);
    assert_eq!(istio_status(&output, ObjectKind::VirtualService, "vs"), "ResolvedRefs=False/SubsetNotFound");
}

#[test]
fn policies_are_overridden_part_by_part() {
    let outlier = Outlier { consecutive_5xx: 1, ..Outlier::default() };
    let mut rule = destination_rule("dr", 1, "web.apps.svc.cluster.local", &[("v1", "v1")]);
    rule.policy = PolicySpec {
        balancer: Some(Balancer::RoundRobin),
        outlier: Some(outlier.clone()),
        ports: vec![(81, PolicySpec { balancer: Some(Balancer::Random), ..Default::default() })],
        ..Default::default()
    };
    rule.subsets[0].policy = PolicySpec { balancer: Some(Balancer::Random), ..Default::default() };
    let mut objects = web();
    objects[0] = service("apps", "web", &[80, 81]);
    objects.push(rule_object(rule));
    let mut compiler = compiler(objects);
    compiler.take();
    let ports = |name: &str| match &compiler.told[&(ResourceKind::Service, name.into())] {
        Resource::Service(service) => {
            service.ports.iter().map(|port| port.traffic.clone().unwrap()).collect::<Vec<_>>()
        }
        _ => panic!(),
    };
    let (whole, subset) = (ports("apps/web"), ports("apps/web|v1"));
    assert_eq!((&whole[0].balancer, &whole[0].outlier), (&Balancer::RoundRobin, &Some(outlier.clone())));
    assert_eq!((&whole[1].balancer, &whole[1].outlier), (&Balancer::Random, &None), "a port stands alone");
    assert_eq!((&subset[0].balancer, &subset[0].outlier), (&Balancer::Random, &Some(outlier)));
}

#[test]
fn the_older_of_two_families_routes_and_both_say_so() {
    let to_service = ParentRef { reference: reference("", "Service", "", "web"), ..Default::default() };
    let http = |created: i64| {
        let mut it = route("apps", "r", vec![to_service.clone()], &[], vec![backend("", "web", 80)]);
        it.meta.created = Timestamp(created);
        Object::Route(it)
    };
    let virtual_one = || object(virtual_service("vs", 5, &["web"], vec![rule_to(vec![to("web", "")])]));
    let check = |created: i64, route_status: &str, virtual_status: &str| {
        let mut objects = web();
        objects.extend([http(created), virtual_one()]);
        let mut compiler = compiler(objects);
        let output = compiler.take();
        let said = &output.routes[&(RouteKind::Http, Key::new("apps", "r"))].parents[0].conditions;
        assert_eq!(unusual(said), route_status);
        assert_eq!(istio_status(&output, ObjectKind::VirtualService, "vs"), virtual_status);
        let told = |name: &str| route_named(&compiler, name).is_some();
        assert_eq!(told("HTTPRoute/apps/r"), created < 5);
        assert_eq!(told("VirtualService/apps/vs"), created > 5);
    };
    check(1, "Conflicted=True/OtherFamily", "Accepted=False/Conflict");
    check(9, "Accepted=False/Conflict", "Conflicted=True/OtherFamily");
    // The winner goes: the other takes over by itself.
    let mut objects = web();
    objects.extend([http(1), virtual_one()]);
    let mut compiler = compiler(objects);
    compiler.take();
    compiler.remove(ObjectKind::Route(RouteKind::Http), &Key::new("apps", "r"));
    let output = compiler.take();
    assert_eq!(istio_status(&output, ObjectKind::VirtualService, "vs"), "");
    assert!(route_named(&compiler, "VirtualService/apps/vs").is_some());
}

#[test]
fn the_oldest_virtual_service_of_a_host_counts() {
    let mut objects = web();
    for (name, created) in [("young", 9), ("old", 2)] {
        objects.push(object(virtual_service(name, created, &["web"], vec![rule_to(vec![to("web", "")])])));
    }
    let mut compiler = compiler(objects);
    let output = compiler.take();
    assert_eq!(istio_status(&output, ObjectKind::VirtualService, "young"), "Accepted=False/Conflict");
    assert!(istio_status(&output, ObjectKind::VirtualService, "old").contains("Conflicted=True"));
    assert!(route_named(&compiler, "VirtualService/apps/young").is_none());
}

#[test]
fn delegates_are_joined_with_their_roots() {
    let delegating = |path: &str, name: &str| VirtualRule {
        instead: Some(Instead::Delegate { namespace: "".into(), name: name.into() }),
        ..on_path(path, vec![])
    };
    let root = virtual_service("root", 1, &["web"], vec![delegating("/a", "inner"), delegating("/z", "nobody")]);
    let inner_rules =
        vec![on_path("/a/b", vec![to("web", "")]), rule_to(vec![to("web", "")]), on_path("/c", vec![to("web", "")])];
    let mut objects = web();
    objects.extend([object(root), object(virtual_service("inner", 1, &[], inner_rules))]);
    let mut compiler = compiler(objects);
    let output = compiler.take();
    assert_eq!(istio_status(&output, ObjectKind::VirtualService, "root"), "ResolvedRefs=False/DelegateNotFound");
    assert_eq!(istio_status(&output, ObjectKind::VirtualService, "inner"), "Accepted=True/Delegate");
    let route = route_named(&compiler, "VirtualService/apps/root").unwrap();
    let paths: Vec<_> = route.rules.iter().map(|rule| rule.matches[0].path.clone()).collect();
    assert_eq!(paths, [PathMatch::Text("/a/b".into()), PathMatch::Text("/a".into())], "/c is outside of /a");
}

#[test]
fn bad_rules_are_left_out_and_told() {
    let bad = Match { path: PathMatch::Regex("(".into()), ..Match::default() };
    let bad = VirtualRule {
        matches: vec![VirtualMatch { matched: bad, ..Default::default() }],
        ..rule_to(vec![to("web", "")])
    };
    let mut objects = web();
    let rules = vec![bad, rule_to(vec![to("nobody", "")]), rule_to(vec![to("web", "")])];
    objects.push(object(virtual_service("vs", 1, &["web"], rules)));
    let mut compiler = compiler(objects);
    let output = compiler.take();
    assert_eq!(
        istio_status(&output, ObjectKind::VirtualService, "vs"),
        "ResolvedRefs=False/BackendNotFound PartiallyInvalid=True/UnsupportedValue"
    );
    assert_eq!(route_named(&compiler, "VirtualService/apps/vs").unwrap().rules.len(), 2);
}

#[test]
fn a_virtual_service_hangs_on_gateways_too() {
    let mut it = virtual_service("vs", 1, &["a.example"], vec![rule_to(vec![to("web", "")])]);
    it.gateways = vec!["infra/gw".into()];
    let mut objects = web();
    objects.extend([open_gateway(), object(it)]);
    let mut compiler = compiler(objects);
    let output = compiler.take();
    assert_eq!(istio_status(&output, ObjectKind::VirtualService, "vs"), "");
    let route = route_named(&compiler, "VirtualService/apps/vs@infra/gw").unwrap();
    assert_eq!(route.parents[0].hostnames[0].as_str(), "a.example");
    assert!(route_named(&compiler, "VirtualService/apps/vs").is_none());
}

#[test]
fn exported_routes_hold_for_their_callers_only() {
    let mut it = virtual_service("vs", 1, &["web"], vec![rule_to(vec![to("web", "")])]);
    it.export_to = vec![".".into(), "other".into()];
    let mut objects = web();
    objects.push(object(it));
    let mut compiler = compiler(objects);
    compiler.take();
    let route = route_named(&compiler, "VirtualService/apps/vs").unwrap();
    let consumers: Vec<_> = route
        .parents
        .iter()
        .map(|parent| match &parent.target {
            ParentTarget::Service { consumer, .. } => consumer.clone().unwrap(),
            ParentTarget::Listener { .. } => panic!(),
        })
        .collect();
    assert_eq!(consumers, ["apps".into(), "other".into()]);
}

pub(super) fn entry(name: &str, resolution: Resolution) -> ServiceEntry {
    ServiceEntry {
        meta: meta("apps", name),
        hosts: vec![format!("{name}.example").into()],
        ports: vec![EntryPort { port: 80, name: "http".into(), target: 8080, ..Default::default() }],
        resolution,
        ..Default::default()
    }
}

#[test]
fn service_entries_are_services() {
    let endpoint = EntryEndpoint {
        address: "192.0.2.1".into(),
        ports: vec![("http".into(), 9090)],
        labels: labels(&[("version", "v1")]),
        ..Default::default()
    };
    let mut outside = entry("outside", Resolution::Static);
    outside.endpoints = vec![endpoint, EntryEndpoint { address: "192.0.2.2".into(), ..Default::default() }];
    let mut compiler = compiler(vec![
        Object::ServiceEntry(Box::new(outside)),
        rule_object(destination_rule("dr", 1, "outside.example", &[("v1", "v1")])),
        object(virtual_service("vs", 1, &["outside.example"], vec![rule_to(vec![to("outside.example", "v1")])])),
    ]);
    let output = compiler.take();
    assert_eq!(istio_status(&output, ObjectKind::ServiceEntry, "outside"), "");
    assert_eq!(istio_status(&output, ObjectKind::VirtualService, "vs"), "");
    let Resource::Service(service) = &compiler.told[&(ResourceKind::Service, "apps/serviceentry.outside".into())]
    else {
        panic!()
    };
    assert!(service.vips[0].to_string().starts_with("240.240."));
    assert!(endpoints(&compiler, "apps/serviceentry.outside.0|v1").is_empty());
    assert_eq!(endpoints(&compiler, "apps/serviceentry.outside.1|v1"), ["192.0.2.1"]);
    let all: Vec<String> =
        (0..2).flat_map(|at| endpoints(&compiler, &format!("apps/serviceentry.outside.{at}"))).collect();
    assert_eq!(all, ["192.0.2.2", "192.0.2.1"], "by their ports: 8080 and 9090");
}

#[test]
fn no_two_service_entries_share_an_address() {
    // More than three hundred of 65,024 places: by chance some of them meet.
    let mut compiler = compiler(
        (0..600)
            .map(|number| entry(&format!("e{number}"), Resolution::Dns))
            .map(|it| Object::ServiceEntry(Box::new(it)))
            .collect(),
    );
    compiler.take();
    let vips = |compiler: &Compiler| -> Vec<_> {
        let services = compiler.told.values().filter_map(|told| match told {
            Resource::Service(service) if service.key.name.starts_with("serviceentry.") => Some(service.vips[0]),
            _ => None,
        });
        services.collect()
    };
    let given = vips(&compiler);
    assert_eq!((given.len(), given.iter().collect::<BTreeSet<_>>().len()), (600, 600));
    for number in (0..600).step_by(2) {
        compiler.remove(ObjectKind::ServiceEntry, &Key::new("apps", format!("e{number}")));
    }
    compiler.take();
    let left = vips(&compiler);
    assert_eq!((left.len(), left.iter().collect::<BTreeSet<_>>().len()), (300, 300));
}

#[test]
fn an_address_that_is_asked_for_is_given_to_nobody_else() {
    let vip = |compiler: &Compiler, name: &str| {
        let key = (ResourceKind::Service, format!("apps/serviceentry.{name}"));
        let Some(Resource::Service(service)) = compiler.told.get(&key) else { panic!("no {name}") };
        service.vips.clone()
    };
    let mut compiler = compiler(vec![Object::ServiceEntry(Box::new(entry("auto", Resolution::Dns)))]);
    compiler.take();
    let given = vip(&compiler, "auto");
    let mut explicit = entry("explicit", Resolution::Dns);
    explicit.addresses = given.clone();
    compiler.set(Object::ServiceEntry(Box::new(explicit.clone())));
    compiler.take();
    assert_eq!(vip(&compiler, "explicit"), given);
    let other = vip(&compiler, "auto");
    assert_ne!(other, given, "the one that was there before has moved, and proxies are told");
    // Another version of the same object asks for another: the first is free again.
    explicit.addresses = other;
    compiler.set(Object::ServiceEntry(Box::new(explicit)));
    compiler.take();
    assert_eq!(vip(&compiler, "auto"), given);
    compiler.remove(ObjectKind::ServiceEntry, &Key::new("apps", "explicit"));
    compiler.take();
    assert_eq!(vip(&compiler, "auto"), given);
}

#[test]
fn names_are_resolved_elsewhere() {
    let mut compiler = compiler(vec![Object::ServiceEntry(Box::new(entry("far", Resolution::Dns)))]);
    compiler.take();
    assert_eq!(compiler.wanted_names().map(|name| &**name).collect::<Vec<_>>(), ["far.example"]);
    assert_eq!(endpoints(&compiler, "apps/serviceentry.far.0"), ["-"]);
    let key = Key::new("", "far.example");
    compiler.set(Object::ResolvedName(ResolvedName { key, addresses: vec!["192.0.2.7".parse().unwrap()] }));
    compiler.take();
    assert_eq!(endpoints(&compiler, "apps/serviceentry.far.0"), ["192.0.2.7"]);
    compiler.remove(ObjectKind::ServiceEntry, &Key::new("apps", "far"));
    compiler.take();
    assert_eq!(
        (compiler.wanted_names().count(), endpoints(&compiler, "apps/serviceentry.far.0")),
        (0, vec!["-".into()])
    );
}

#[test]
fn a_selector_takes_workload_entries_too() {
    let host = WorkloadEntry {
        key: Key::new("apps", "vm"),
        labels: labels(&[("app", "web")]),
        address: Some("192.0.2.9".parse().unwrap()),
        ports: vec![("".into(), 7070)],
        ..Default::default()
    };
    let mut objects = web();
    objects.push(Object::WorkloadEntry(host));
    let mut compiler = compiler(objects);
    compiler.take();
    let Some(Resource::Endpoints(group)) = compiler.told.get(&(ResourceKind::Endpoints, "apps/web.entries.0".into()))
    else {
        panic!()
    };
    let EndpointGroup { ports, endpoints, .. } = &**group;
    let Endpoint { address, workload, .. } = &endpoints[0];
    assert_eq!((&ports[0].1, address.to_string().as_str(), &**workload), (&7070, "192.0.2.9", "host/apps/vm"));
    compiler.remove(ObjectKind::WorkloadEntry, &Key::new("apps", "vm"));
    compiler.take();
    assert!(!compiler.told.contains_key(&(ResourceKind::Endpoints, "apps/web.entries.0".into())));
    assert!(traffic(&compiler, "apps/web").is_none());
}

impl Dice {
    fn created(&mut self) -> Timestamp {
        Timestamp(self.below(3) as i64)
    }

    fn host(&mut self) -> &'static str {
        ["s0", "s1", "s0.a.svc.cluster.local", "*.a.svc.cluster.local", "e0.example"][self.below(5)]
    }

    /// One of Istio's kinds, in the same small universe.
    pub(super) fn istio(&mut self, ns: &str, name: &str) -> Object {
        let made = Meta { created: self.created(), ..meta(ns, name) };
        match self.below(6) {
            0 | 1 => {
                let mut rules = Vec::new();
                for _ in 0..1 + self.below(2) {
                    let destination = Destination {
                        host: self.pick(&["s0", "s1", "e0.example"]).into(),
                        subset: self.pick(&["", "x"]).into(),
                        weight: 1,
                        ..Default::default()
                    };
                    let instead = (self.below(4) == 0).then(|| Instead::Delegate {
                        namespace: self.pick(&["", "a"]).into(),
                        name: self.pick(&["s0", "s1"]).into(),
                    });
                    let mut matches = Vec::new();
                    if self.below(3) == 0 {
                        let source_labels = labels(&[(self.pick(&["app", "version"]), self.pick(&["s0", "s1"]))]);
                        let more = Some(Box::new(MatchMore { source_labels, ..MatchMore::default() }));
                        let matched = Match { more, ..Match::default() };
                        matches.push(VirtualMatch { matched, ..VirtualMatch::default() });
                    }
                    rules.push(VirtualRule { matches, instead, ..rule_to(vec![destination]) });
                }
                let hosts = if self.below(4) == 0 { vec![] } else { vec![self.host().into()] };
                let gateways = if self.below(3) == 0 { vec!["mesh".into(), "a/g0".into()] } else { vec![] };
                object(VirtualService { meta: made, hosts, gateways, http: rules, ..Default::default() })
            }
            2 => {
                let mut rule = destination_rule("", 0, self.host(), &[]);
                rule.meta = made;
                if self.coin() {
                    let labels = labels(&[("app", self.pick(&["s0", "s1"]))]);
                    rule.subsets = vec![Subset { name: "x".into(), labels, policy: PolicySpec::default() }];
                }
                if self.coin() {
                    rule.policy.balancer = Some(Balancer::RoundRobin);
                }
                rule_object(rule)
            }
            3 => {
                let mut it = entry("e0", [Resolution::Static, Resolution::Dns][self.below(2)]);
                it.meta = made;
                if self.coin() {
                    it.export_to = vec![self.pick(&["a", "b"]).into()];
                }
                if self.coin() {
                    it.selector = labels(&[("app", "s0")]);
                }
                Object::ServiceEntry(Box::new(it))
            }
            4 => Object::WorkloadEntry(WorkloadEntry {
                key: Key::new(ns, name),
                labels: labels(&[("app", self.pick(&["s0", "s1"]))]),
                address: self.coin().then(|| "192.0.2.9".parse().unwrap()),
                ..Default::default()
            }),
            _ => Object::ResolvedName(ResolvedName {
                key: Key::new("", "e0.example"),
                addresses: vec!["192.0.2.1".parse().unwrap()],
            }),
        }
    }
}

#[test]
fn tls_is_what_its_secret_makes_possible() {
    use model::mesh::api::istio::{TlsOrigination, TlsSpec};
    let secret = |roots: &str, flaw: &str| {
        Object::TlsSecret(TlsSecret {
            key: Key::new("apps", "outside"),
            roots: roots.into(),
            flaw: flaw.into(),
            ..Default::default()
        })
    };
    let rule = |mode, credential: &str| {
        let tls =
            TlsSpec { mode, credential: credential.into(), names: vec!["spiffe://a/b".into()], ..Default::default() };
        let policy = PolicySpec { tls: Some(tls), ..Default::default() };
        rule_object(DestinationRule { policy, ..destination_rule("web", 1, "web", &[]) })
    };
    let mut compiler = compiler(web());
    let mut after = |object: Object| {
        compiler.set(object);
        compiler.take();
        let of = |kind, name: &str| compiler.resources().get(&(kind, name.to_owned())).cloned();
        let Some(Resource::Service(web)) = of(ResourceKind::Service, "apps/web") else { panic!("no service") };
        let tls = web.ports[0].traffic.as_ref().and_then(|it| it.tls.clone());
        (tls, of(ResourceKind::Secret, "apps/outside").is_some())
    };
    let (tls, _) = after(rule(TlsOrigination::Simple, ""));
    let tls = tls.expect("TLS is begun");
    assert_eq!((&*tls.hostname, tls.system_roots, &*tls.flaw), ("web.apps.svc.cluster.local", true, ""));
    assert_eq!(tls.names, [model::mesh::SubjectName::Uri("spiffe://a/b".into())]);
    let (tls, told) = after(rule(TlsOrigination::Mutual, "outside"));
    assert!(!tls.expect("it is refused, not left out").flaw.is_empty() && !told);
    let (tls, told) = after(secret("roots", ""));
    let tls = tls.unwrap();
    assert_eq!((&*tls.flaw, &tls.roots[..], tls.system_roots), ("", &["roots".into()][..], false));
    assert!(tls.certificate == Some(Key::new("apps", "outside")) && told);
    let (tls, told) = after(rule(TlsOrigination::Simple, "outside"));
    let tls = tls.unwrap();
    assert!(tls.flaw.is_empty() && tls.certificate.is_none() && !told, "its key stays where it is");
    assert_eq!(after(rule(TlsOrigination::None, "")).0, None);
    // An entry that names it, anybody's, makes no other service of it.
    let mut theirs = entry("theirs", Resolution::None);
    (theirs.meta, theirs.hosts) = (meta("other", "theirs"), vec!["web.apps.svc.cluster.local".into()]);
    after(Object::ServiceEntry(Box::new(theirs)));
    assert_eq!(after(rule(TlsOrigination::Mesh, "")).0, None, "within the mesh it is there already");
}
