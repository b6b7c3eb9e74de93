//! Cases whose statuses Gateway API names, and the property that makes incremental compiling safe: it comes to the same as compiling anew.

use super::*;
use model::mesh::api::{
    AllowedNamespaces, BackendRef, Gateway, GatewayClass, ListenerSpec, Namespace, Node, ParentRef, Pod, Reference,
    ReferenceGrant, Route, RuleSpec, Service, SliceEndpoint, TlsSecret,
};
use model::mesh::{Health, ParentTarget, ServicePort};
use model::{LabelSelector, Meta, Timestamp};

mod attached;
mod callers;
mod entries;
mod gateway_streams;
mod istio;
mod through;

const GROUP: &str = "gateway.networking.k8s.io";

fn meta(namespace: &str, name: &str) -> Meta {
    Meta { key: Key::new(namespace, name), generation: 1, ..Meta::default() }
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| (Arc::from(*key), Arc::from(*value))).collect()
}

fn class(name: &str, controller: &str) -> Object {
    Object::GatewayClass(GatewayClass { meta: meta("", name), controller: controller.into(), has_parameters: false })
}

fn node(name: &str, zone: &str) -> Object {
    let addresses = vec!["192.168.0.1".parse().unwrap()];
    Object::Node(Node { key: Key::new("", name), zone: zone.into(), region: "r".into(), addresses })
}

fn namespace(name: &str, pairs: &[(&str, &str)]) -> Object {
    Object::Namespace(Namespace { key: Key::new("", name), labels: labels(pairs) })
}

fn service(namespace: &str, name: &str, ports: &[u16]) -> Object {
    Object::Service(Service {
        key: Key::new(namespace, name),
        selector: labels(&[("app", name)]),
        ports: ports.iter().map(|port| ServicePort { port: *port, ..Default::default() }).collect(),
        ..Default::default()
    })
}

fn listener(name: &str, port: u16, protocol: &str, hostname: &str) -> ListenerSpec {
    ListenerSpec { name: name.into(), port, protocol: protocol.into(), hostname: hostname.into(), ..Default::default() }
}

fn gateway(name: &str, created: i64, listeners: Vec<ListenerSpec>) -> Object {
    let meta = Meta { created: Timestamp(created), ..meta("infra", name) };
    Object::Gateway(Gateway { meta, class: "diolkos".into(), listeners, ..Gateway::default() })
}

fn reference(group: &str, kind: &str, namespace: &str, name: &str) -> Reference {
    Reference { group: group.into(), kind: kind.into(), namespace: namespace.into(), name: name.into() }
}

fn to_gateway(name: &str, section: &str) -> ParentRef {
    ParentRef { reference: reference(GROUP, "Gateway", "infra", name), section: section.into(), port: None }
}

fn backend(namespace: &str, name: &str, port: u16) -> BackendRef {
    BackendRef { reference: reference("", "Service", namespace, name), port: Some(port), weight: 1, filters: vec![] }
}

fn route(namespace: &str, name: &str, parents: Vec<ParentRef>, hostnames: &[&str], backends: Vec<BackendRef>) -> Route {
    Route {
        kind: RouteKind::Http,
        meta: meta(namespace, name),
        parents,
        hostnames: hostnames.iter().map(|it| Arc::from(*it)).collect(),
        rules: vec![RuleSpec { backends, ..Default::default() }],
    }
}

fn compiler(objects: Vec<Object>) -> Compiler {
    let mut compiler = Compiler::new(Settings::default());
    let base = [
        class("diolkos", "diolkos.io/gateway-controller"),
        node("n1", "a"),
        namespace("infra", &[]),
        namespace("apps", &[("team", "red")]),
        service("apps", "web", &[80]),
    ];
    base.into_iter().chain(objects).for_each(|object| compiler.set(object));
    compiler
}

/// `Type=Status/Reason` of conditions, those that are good for the usual reason left out.
fn unusual(conditions: &[status::Condition]) -> String {
    let usual = |it: &&status::Condition| {
        (it.holds && it.reason == it.kind) || (it.kind == "Conflicted" && !it.holds && it.reason == "NoConflicts")
    };
    let text =
        |it: &status::Condition| format!("{}={}/{}", it.kind, if it.holds { "True" } else { "False" }, it.reason);
    conditions.iter().filter(|it| !usual(it)).map(text).collect::<Vec<_>>().join(" ")
}

/// What one route's only parent says.
fn check_route(objects: Vec<Object>, route: Route, expect: &str) {
    let id = (route.kind, route.meta.key.clone());
    let mut compiler = compiler(objects);
    compiler.set(Object::Route(route));
    let output = compiler.take();
    let told = output.routes.get(&id).map(|status| {
        assert_eq!(status.parents.len(), 1);
        unusual(&status.parents[0].conditions)
    });
    assert_eq!(told.as_deref(), Some(expect));
}

fn open_gateway() -> Object {
    let mut web = listener("web", 8080, "HTTP", "");
    web.allowed_namespaces = AllowedNamespaces::All;
    gateway("gw", 1, vec![web])
}

#[test]
fn routes_are_told_why_they_do_not_attach() {
    let good = || vec![backend("", "web", 80)];
    let at = |section: &str, hostnames: &[&str]| route("apps", "r", vec![to_gateway("gw", section)], hostnames, good());
    check_route(vec![open_gateway()], at("", &[]), "");
    check_route(vec![open_gateway()], at("web", &["a.example"]), "");
    check_route(vec![open_gateway()], at("other", &[]), "Accepted=False/NoMatchingParent");
    let with_port = ParentRef { port: Some(81), ..to_gateway("gw", "") };
    check_route(
        vec![open_gateway()],
        route("apps", "r", vec![with_port], &[], good()),
        "Accepted=False/NoMatchingParent",
    );
    let same = gateway("gw", 1, vec![listener("web", 8080, "HTTP", "")]);
    check_route(vec![same], at("", &[]), "Accepted=False/NotAllowedByListeners");
    let mut red = listener("web", 8080, "HTTP", "*.example");
    red.allowed_namespaces = AllowedNamespaces::Selector(LabelSelector::from_labels(&labels(&[("team", "red")])));
    check_route(vec![gateway("gw", 1, vec![red.clone()])], at("", &["a.example"]), "");
    check_route(
        vec![gateway("gw", 1, vec![red.clone()])],
        at("", &["a.test", "example"]),
        "Accepted=False/NoMatchingListenerHostname",
    );
    check_route(
        vec![gateway("gw", 1, vec![red]), namespace("apps", &[("team", "blue")])],
        at("", &["a.example"]),
        "Accepted=False/NotAllowedByListeners",
    );
    let mut grpc_only = listener("web", 8080, "HTTP", "");
    grpc_only.allowed_namespaces = AllowedNamespaces::All;
    grpc_only.allowed_kinds = vec![(GROUP.into(), "GRPCRoute".into())];
    check_route(vec![gateway("gw", 1, vec![grpc_only])], at("", &[]), "Accepted=False/NotAllowedByListeners");
}

#[test]
fn references_are_resolved_or_told_why_not() {
    let to = |backend: BackendRef| route("apps", "r", vec![to_gateway("gw", "")], &[], vec![backend]);
    check_route(vec![open_gateway()], to(backend("", "none", 80)), "ResolvedRefs=False/BackendNotFound");
    check_route(vec![open_gateway()], to(backend("", "web", 81)), "ResolvedRefs=False/BackendNotFound");
    let mut strange = backend("", "web", 80);
    strange.reference.kind = "Bucket".into();
    check_route(vec![open_gateway()], to(strange), "ResolvedRefs=False/InvalidKind");
    let other = || vec![open_gateway(), service("store", "db", &[80])];
    check_route(other(), to(backend("store", "db", 80)), "ResolvedRefs=False/RefNotPermitted");
    let grant = |kind: &str, name: &str| {
        Object::ReferenceGrant(ReferenceGrant {
            key: Key::new("store", "g"),
            from: vec![(GROUP.into(), kind.into(), "apps".into())],
            to: vec![reference("", "Service", "", name)],
        })
    };
    let with = |grant: Object| other().into_iter().chain([grant]).collect::<Vec<_>>();
    check_route(with(grant("HTTPRoute", "")), to(backend("store", "db", 80)), "");
    check_route(with(grant("HTTPRoute", "db")), to(backend("store", "db", 80)), "");
    let refused = "ResolvedRefs=False/RefNotPermitted";
    check_route(with(grant("HTTPRoute", "other")), to(backend("store", "db", 80)), refused);
    check_route(with(grant("GRPCRoute", "")), to(backend("store", "db", 80)), refused);
}

#[test]
fn what_cannot_be_used_is_told_and_left_out() {
    let mut partly = route("apps", "r", vec![to_gateway("gw", "")], &[], vec![backend("", "web", 80)]);
    let bad = model::mesh::Match { path: model::mesh::PathMatch::Regex("(".into()), ..Default::default() };
    partly.rules.push(RuleSpec { matches: vec![bad], ..Default::default() });
    check_route(vec![open_gateway()], partly.clone(), "PartiallyInvalid=True/UnsupportedValue");
    partly.rules.remove(0);
    check_route(vec![open_gateway()], partly, "Accepted=False/UnsupportedValue");
}

#[test]
fn services_are_parents_too() {
    let to = |namespace: &str, name: &str, port: Option<u16>| {
        let parent = ParentRef { reference: reference("", "Service", namespace, name), section: "".into(), port };
        route("apps", "r", vec![parent], &["ignored.example"], vec![backend("", "web", 80)])
    };
    check_route(vec![], to("", "web", None), "");
    check_route(vec![], to("", "web", Some(80)), "");
    check_route(vec![], to("", "web", Some(81)), "Accepted=False/NoMatchingParent");
    check_route(vec![], to("", "none", None), "Accepted=False/NoMatchingParent");
    // From another namespace it is a consumer route: for callers there only.
    let mut compiler = compiler(vec![service("store", "db", &[80]), Object::Route(to("store", "db", None))]);
    let output = compiler.take();
    let Some(Resource::Route(compiled)) = &output.resources[&(ResourceKind::Route, "HTTPRoute/apps/r".into())] else {
        panic!()
    };
    let target = ParentTarget::Service { service: Key::new("store", "db"), port: None, consumer: Some("apps".into()) };
    assert_eq!(compiled.parents[0].target, target);
    assert!(compiled.parents[0].hostnames.is_empty());
}

#[test]
fn a_route_of_the_mesh_leads_to_its_own_service_without_a_grant() {
    let rest = |more: Vec<ParentRef>, target: BackendRef| {
        let parent = |kind: &str| reference("", kind, "store", "db");
        let mut parents = vec![ParentRef { reference: parent("Service"), section: "".into(), port: None }];
        parents.extend(more);
        vec![
            service("store", "db", &[80]),
            service("store", "other", &[80]),
            Object::Route(route("apps", "r", parents, &[], vec![target])),
        ]
    };
    let resolved = |objects: Vec<Object>| {
        let output = compiler(objects).take();
        let status = output.routes.into_values().next().expect("the route has a status");
        status.parents[0].conditions.iter().any(|it| it.kind == "ResolvedRefs" && it.holds)
    };
    assert!(resolved(rest(vec![], backend("store", "db", 80))));
    assert!(!resolved(rest(vec![], backend("store", "other", 80))), "another service there needs a grant");
    let gateway = ParentRef { reference: reference(GROUP, "Gateway", "", "g"), section: "".into(), port: None };
    assert!(!resolved(rest(vec![gateway], backend("store", "db", 80))), "a gateway's callers need a grant");
}

/// What a gateway's listeners say, one after the other, and the gateway itself.
fn check_gateway(objects: Vec<Object>, name: &str, expect: &[&str]) {
    let mut compiler = compiler(objects);
    let output = compiler.take();
    let status = &output.gateways[&Key::new("infra", name)];
    let mut told: Vec<String> = status.listeners.iter().map(|it| unusual(&it.conditions)).collect();
    told.push(unusual(&status.conditions));
    assert_eq!(told, expect);
}

#[test]
fn listeners_are_told_what_is_wrong() {
    let http = |name: &str, hostname: &str| listener(name, 8080, "HTTP", hostname);
    check_gateway(vec![gateway("gw", 1, vec![http("a", ""), http("b", "x.example")])], "gw", &["", "", ""]);
    let clash = "Accepted=False/HostnameConflict Conflicted=True/HostnameConflict Programmed=False/HostnameConflict";
    check_gateway(
        vec![gateway("gw", 1, vec![http("a", ""), http("b", ""), http("c", "x.example")])],
        "gw",
        &[clash, clash, "", "Accepted=True/ListenersNotValid"],
    );
    let clash = "Accepted=False/ProtocolConflict Conflicted=True/ProtocolConflict Programmed=False/ProtocolConflict";
    check_gateway(
        vec![gateway("gw", 1, vec![http("a", ""), listener("b", 8080, "TCP", "")])],
        "gw",
        &[clash, clash, "Accepted=False/ListenersNotValid Programmed=False/Invalid"],
    );
    check_gateway(
        vec![gateway("gw", 1, vec![listener("a", 8080, "SCTP", "")])],
        "gw",
        &[
            "Accepted=False/UnsupportedProtocol Programmed=False/Invalid",
            "Accepted=False/ListenersNotValid Programmed=False/Invalid",
        ],
    );
    let mut kinds = http("a", "");
    kinds.allowed_kinds = vec![(GROUP.into(), "HTTPRoute".into()), ("x".into(), "Y".into())];
    check_gateway(vec![gateway("gw", 1, vec![kinds])], "gw", &["ResolvedRefs=False/InvalidRouteKinds", ""]);
    // The nodes' ports are shared: the older gateway has what both want.
    let two =
        vec![gateway("old", 1, vec![http("a", "")]), gateway("young", 2, vec![http("a", ""), http("b", "y.example")])];
    check_gateway(two.clone(), "old", &["", ""]);
    check_gateway(
        two,
        "young",
        &["Accepted=False/PortUnavailable Programmed=False/Invalid", "", "Accepted=True/ListenersNotValid"],
    );
}

#[test]
fn certificates_must_be_there_and_permitted() {
    let secret = |namespace: &str, flaw: &str| {
        let key = Key::new(namespace, "cert");
        let bytes: Arc<[u8]> = b"pem".as_slice().into();
        Object::TlsSecret(TlsSecret {
            key,
            certificate_chain: bytes.clone(),
            private_key: bytes,
            flaw: flaw.into(),
            ..Default::default()
        })
    };
    let https = |namespace: &str| {
        let mut listener = listener("a", 8443, "HTTPS", "");
        listener.tls_mode = Some("Terminate".into());
        listener.certificates = vec![reference("", "Secret", namespace, "cert")];
        gateway("gw", 1, vec![listener])
    };
    check_gateway(vec![https(""), secret("infra", "")], "gw", &["", ""]);
    let bad = |reason: &str| format!("ResolvedRefs=False/{reason} Programmed=False/Invalid");
    let broken = bad("InvalidCertificateRef");
    check_gateway(vec![https("")], "gw", &[&broken, "Programmed=False/Invalid"]);
    check_gateway(vec![https(""), secret("infra", "no key")], "gw", &[&broken, "Programmed=False/Invalid"]);
    check_gateway(
        vec![https("vault"), secret("vault", "")],
        "gw",
        &[&bad("RefNotPermitted"), "Programmed=False/Invalid"],
    );
    let grant = Object::ReferenceGrant(ReferenceGrant {
        key: Key::new("vault", "g"),
        from: vec![(GROUP.into(), "Gateway".into(), "infra".into())],
        to: vec![reference("", "Secret", "", "")],
    });
    let mut compiler = compiler(vec![https("vault"), secret("vault", ""), secret("apps", ""), grant]);
    let output = compiler.take();
    let secrets: Vec<&str> = output
        .resources
        .keys()
        .filter(|(kind, _)| *kind == ResourceKind::Secret)
        .map(|(_, name)| name.as_str())
        .collect();
    assert_eq!(secrets, ["vault/cert"], "only what a listener uses leaves");
}

#[test]
fn attached_routes_are_counted_and_uncounted() {
    let mut compiler = compiler(vec![
        open_gateway(),
        Object::Route(route("apps", "r1", vec![to_gateway("gw", "")], &[], vec![])),
        Object::Route(route("apps", "r2", vec![to_gateway("gw", "web"), to_gateway("gw", "")], &[], vec![])),
    ]);
    let count = |output: &Output| output.gateways[&Key::new("infra", "gw")].listeners[0].attached;
    assert_eq!(count(&compiler.take()), 2);
    compiler.remove(ObjectKind::Route(RouteKind::Http), &Key::new("apps", "r1"));
    assert_eq!(count(&compiler.take()), 1);
    compiler.set(Object::Route(route("apps", "r2", vec![], &[], vec![])));
    let output = compiler.take();
    assert_eq!(count(&output), 0);
    assert_eq!(output.routes.values().next().unwrap().parents.len(), 0, "its entries are taken back");
}

#[test]
fn a_terminating_pod_drains_before_its_slice_says_so() {
    let pod = |deleting: bool, ended: bool| {
        Object::Pod(Pod {
            key: Key::new("apps", "web-1"),
            addresses: vec!["10.0.0.1".parse().unwrap()],
            node: "n1".into(),
            deleting,
            ended,
            ..Default::default()
        })
    };
    let slice = Object::EndpointSlice(api::EndpointSlice {
        key: Key::new("apps", "web-x"),
        service: "web".into(),
        ports: vec![("".into(), 8080)],
        endpoints: vec![SliceEndpoint {
            addresses: vec!["10.0.0.1".parse().unwrap()],
            ready: true,
            serving: true,
            target: ("Pod".into(), "web-1".into()),
            ..Default::default()
        }],
    });
    let mut compiler = compiler(vec![slice]);
    let mut health = |object: Object| {
        compiler.set(object);
        compiler.take();
        match &compiler.told[&(ResourceKind::Endpoints, "apps/web-x".into())] {
            Resource::Endpoints(group) => group.endpoints[0].health,
            _ => panic!(),
        }
    };
    assert_eq!(health(pod(false, false)), Health::Ready);
    assert_eq!(health(pod(true, false)), Health::Draining);
    assert_eq!(health(pod(true, true)), Health::NotReady);
}

#[test]
fn workloads_list_the_policies_that_select_them() {
    let policy = |namespace: &str, name: &str, selector: &[(&str, &str)], targets: Vec<Reference>| {
        Object::AuthorizationPolicy(api::AuthorizationPolicy {
            meta: meta(namespace, name),
            selector: labels(selector),
            targets,
            action: model::mesh::Action::Deny,
            dry_run: false,
            provider: "".into(),
            rules: vec![],
        })
    };
    let pod = Object::Pod(Pod {
        key: Key::new("apps", "web-1"),
        addresses: vec!["10.0.0.1".parse().unwrap()],
        labels: labels(&[("app", "web"), ("pod-template-hash", "abc")]),
        controller: ("ReplicaSet".into(), "web-abc".into()),
        ..Default::default()
    });
    let mut compiler = compiler(vec![
        pod,
        policy("apps", "selected", &[("app", "web")], vec![]),
        policy("apps", "other", &[("app", "db")], vec![]),
        policy("apps", "everyone", &[], vec![]),
        policy("istio-system", "root", &[("app", "web")], vec![]),
        policy("elsewhere", "no", &[("app", "web")], vec![]),
        policy("apps", "service", &[], vec![reference("", "Service", "", "web")]),
    ]);
    let listed = |compiler: &mut Compiler| {
        compiler.take();
        match &compiler.told[&(ResourceKind::Workload, "pod/apps/web-1".into())] {
            Resource::Workload(it) => it.authorization_policies.iter().map(ToString::to_string).collect::<Vec<_>>(),
            _ => panic!(),
        }
    };
    assert_eq!(listed(&mut compiler), ["apps/selected", "apps/service", "istio-system/root"]);
    compiler.set(policy("apps", "selected", &[("app", "db")], vec![]));
    compiler.remove(ObjectKind::AuthorizationPolicy, &Key::new("istio-system", "root"));
    assert_eq!(listed(&mut compiler), ["apps/service"]);
    compiler.set(service("apps", "web", &[80]));
    compiler.remove(ObjectKind::Service, &Key::new("apps", "web"));
    assert!(listed(&mut compiler).is_empty());
    let Resource::Workload(workload) = &compiler.told[&(ResourceKind::Workload, "pod/apps/web-1".into())] else {
        panic!()
    };
    assert_eq!((&*workload.canonical_name, &*workload.canonical_kind), ("web", "Deployment"));
    let scope = |name: &str| match &compiler.told[&(ResourceKind::AuthorizationPolicy, name.into())] {
        Resource::AuthorizationPolicy(policy) => policy.scope,
        _ => panic!(),
    };
    assert_eq!(scope("apps/everyone"), model::mesh::Scope::Namespace);
    assert_eq!(scope("apps/selected"), model::mesh::Scope::Workload);
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
    fn pick<'a>(&mut self, among: &[&'a str]) -> &'a str {
        among[self.below(among.len())]
    }
    fn coin(&mut self) -> bool {
        self.below(2) == 0
    }

    fn selector(&mut self) -> Labels {
        if self.coin() { Labels::new() } else { labels(&[("app", self.pick(&["s0", "s1"]))]) }
    }

    /// An object of a universe so small that most references hit something.
    fn object(&mut self) -> Object {
        let ns = self.pick(&["a", "b"]);
        let name = self.pick(&["s0", "s1"]);
        let key = Key::new(ns, name);
        match self.below(20) {
            0 => namespace(self.pick(&["a", "b"]), &[("team", self.pick(&["red", "blue"]))]),
            1 => node(self.pick(&["n0", "n1"]), self.pick(&["z0", "z1"])),
            2 | 3 => Object::Pod(Pod {
                key,
                node: self.pick(&["n0", "n1"]).into(),
                labels: labels(&[("app", self.pick(&["s0", "s1"]))]),
                addresses: if self.below(4) == 0 { vec![] } else { vec!["10.0.0.1".parse().unwrap()] },
                deleting: self.coin(),
                ..Default::default()
            }),
            4 => service(ns, name, if self.coin() { &[80] } else { &[80, 81] }),
            5 => Object::EndpointSlice(api::EndpointSlice {
                key,
                service: self.pick(&["s0", "s1"]).into(),
                ports: vec![("".into(), 8080)],
                endpoints: vec![SliceEndpoint {
                    addresses: vec!["10.0.0.1".parse().unwrap()],
                    ready: self.coin(),
                    serving: self.coin(),
                    target: ("Pod".into(), self.pick(&["s0", "s1"]).into()),
                    ..Default::default()
                }],
            }),
            6 => class(self.pick(&["diolkos", "c1"]), self.pick(&["diolkos.io/gateway-controller", "other"])),
            7 => self.gateway(),
            8 | 9 => self.route(),
            10 => Object::ReferenceGrant(ReferenceGrant {
                key,
                from: vec![(GROUP.into(), self.pick(&["HTTPRoute", "Gateway"]).into(), self.pick(&["a", "b"]).into())],
                to: vec![reference("", self.pick(&["Service", "Secret"]), "", "")],
            }),
            13..=18 => self.istio(ns, name),
            11 => Object::TlsSecret(TlsSecret {
                key,
                certificate_chain: b"c".as_slice().into(),
                private_key: b"k".as_slice().into(),
                roots: self.pick(&["", "roots"]).into(),
                flaw: self.pick(&["", "broken"]).into(),
                ..Default::default()
            }),
            _ => self.policy(),
        }
    }

    fn gateway(&mut self) -> Object {
        let mut listeners = Vec::new();
        for index in 0..1 + self.below(2) {
            let name = format!("l{index}");
            let port = [8080, 8081][self.below(2)];
            let mut one = listener(&name, port, self.pick(&["HTTP", "HTTPS", "TCP"]), self.pick(&["", "*.x", "a.x"]));
            one.tls_mode = Some("Terminate".into());
            one.certificates = vec![reference("", "Secret", self.pick(&["", "b"]), self.pick(&["s0", "s1"]))];
            let selector = LabelSelector::from_labels(&labels(&[("team", "red")]));
            one.allowed_namespaces = match self.below(3) {
                0 => AllowedNamespaces::Same,
                1 => AllowedNamespaces::All,
                _ => AllowedNamespaces::Selector(selector),
            };
            listeners.push(one);
        }
        let meta =
            Meta { created: Timestamp(self.below(3) as i64), ..meta(self.pick(&["a", "b"]), self.pick(&["g0", "g1"])) };
        Object::Gateway(Gateway { meta, class: self.pick(&["diolkos", "c1"]).into(), listeners, ..Gateway::default() })
    }

    fn route(&mut self) -> Object {
        let mut parents = Vec::new();
        for _ in 0..self.below(3) {
            let namespace = self.pick(&["", "a", "b"]);
            let target = match self.coin() {
                true => reference(GROUP, "Gateway", namespace, self.pick(&["g0", "g1"])),
                false => reference("", "Service", namespace, self.pick(&["s0", "s1"])),
            };
            parents.push(ParentRef { reference: target, section: self.pick(&["", "l0", "l1"]).into(), port: None });
        }
        let backends = vec![backend(self.pick(&["", "a", "b"]), self.pick(&["s0", "s1"]), [80, 81][self.below(2)])];
        let hostname = self.pick(&["a.x", "*.x", "y"]);
        let hostnames: &[&str] = if self.coin() { &[] } else { &[hostname] };
        let mut route = route(self.pick(&["a", "b"]), self.pick(&["r0", "r1"]), parents, hostnames, backends);
        route.meta.created = Timestamp(self.below(3) as i64);
        Object::Route(route)
    }

    fn policy(&mut self) -> Object {
        let namespace = self.pick(&["a", "istio-system"]);
        let name = self.pick(&["p0", "p1"]);
        if self.coin() {
            return Object::PeerAuthentication(api::PeerAuthentication {
                meta: meta(namespace, name),
                selector: self.selector(),
                ..Default::default()
            });
        }
        let targets = match self.below(3) {
            0 => vec![reference("", "Service", "", self.pick(&["s0", "s1"]))],
            1 => vec![reference(GROUP, "Gateway", "", self.pick(&["g0", "g1"]))],
            _ => vec![],
        };
        Object::AuthorizationPolicy(api::AuthorizationPolicy {
            meta: meta(namespace, name),
            selector: if targets.is_empty() { self.selector() } else { Labels::new() },
            targets,
            action: model::mesh::Action::Allow,
            dry_run: false,
            provider: "".into(),
            rules: vec![],
        })
    }
}

#[test]
fn compiling_by_changes_comes_to_the_same_as_compiling_anew() {
    for seed in 1..400u64 {
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15u64.wrapping_mul(seed));
        let mut incremental = Compiler::new(Settings::default());
        let mut world: BTreeMap<(ObjectKind, Key), Object> = BTreeMap::new();
        for step in 0..60 {
            if dice.below(4) == 0 && !world.is_empty() {
                let index = dice.below(world.len());
                let (kind, key) = world.keys().nth(index).unwrap().clone();
                world.remove(&(kind, key.clone()));
                incremental.remove(kind, &key);
            } else {
                let object = dice.object();
                world.insert((object.kind(), object.key().clone()), object.clone());
                incremental.set(object);
            }
            if dice.coin() {
                incremental.take();
            }
            if step % 10 == 9 {
                incremental.take();
                let mut anew = Compiler::new(Settings::default());
                world.values().cloned().for_each(|object| anew.set(object));
                anew.take();
                assert_eq!(incremental.told, anew.told, "seed {seed} step {step}");
                assert_eq!(incremental.gateway_statuses, anew.gateway_statuses, "seed {seed} step {step}");
                assert_eq!(incremental.route_statuses, anew.route_statuses, "seed {seed} step {step}");
                assert_eq!(incremental.class_statuses, anew.class_statuses, "seed {seed} step {step}");
                assert_eq!(incremental.istio_statuses, anew.istio_statuses, "seed {seed} step {step}");
            }
        }
    }
}

#[test]
fn a_change_tells_only_what_it_touches() {
    let mut objects = vec![open_gateway()];
    for index in 0..50 {
        let name = format!("s{index}");
        objects.push(service("apps", &name, &[80]));
        let to = vec![backend("", &name, 80)];
        objects.push(Object::Route(route("apps", &format!("r{index}"), vec![to_gateway("gw", "")], &[], to)));
    }
    let mut compiler = compiler(objects);
    compiler.take();
    compiler.remove(ObjectKind::Service, &Key::new("apps", "s7"));
    let output = compiler.take();
    let names: Vec<&str> = output.resources.keys().map(|(_, name)| name.as_str()).collect();
    assert_eq!(names, ["apps/s7", "HTTPRoute/apps/r7"]);
    assert_eq!((output.routes.len(), output.gateways.len()), (1, 0));
    assert!(compiler.take().resources.is_empty());
}
