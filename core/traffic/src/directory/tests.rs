//! Resources join whatever the order that they come in, and leave nothing behind.

use super::*;
use model::mesh::{Match, Parent, Rule, Tunnel};

fn service() -> Resource {
    Resource::Service(Arc::new(Service {
        key: Key::new("default", "web"),
        vips: vec!["10.96.0.7".parse().unwrap()],
        hostnames: vec!["web.default.svc.cluster.local".into()],
        ports: vec![
            ServicePort { port: 80, name: "http".into(), ..Default::default() },
            ServicePort { port: 81, name: "admin".into(), ..Default::default() },
        ],
        ..Default::default()
    }))
}

fn group(name: &str, ports: &[(&str, u16)], addresses: &[&str]) -> Resource {
    let endpoint = |address: &&str| Endpoint::at(address.parse().unwrap());
    Resource::Endpoints(Arc::new(EndpointGroup {
        key: Key::new("default", name),
        service: Key::new("default", "web"),
        ports: ports.iter().map(|(name, port)| ((*name).into(), *port)).collect(),
        endpoints: addresses.iter().map(endpoint).collect(),
    }))
}

fn route(name: &str, targets: Vec<ParentTarget>) -> Resource {
    Resource::Route(Arc::new(Route {
        name: format!("HTTPRoute/default/{name}").into(),
        key: Key::new("default", name),
        kind: RouteKind::Http,
        created: Default::default(),
        parents: targets.into_iter().map(|target| Parent { target, hostnames: vec![] }).collect(),
        rules: vec![Rule { matches: vec![Match::default()], ..Default::default() }],
        ordered: false,
    }))
}

fn to_service(port: Option<u16>, consumer: Option<&str>) -> ParentTarget {
    ParentTarget::Service { service: Key::new("default", "web"), port, consumer: consumer.map(Into::into) }
}

fn to_listener(name: &str) -> ParentTarget {
    ParentTarget::Listener { gateway: Key::new("infra", "gw"), listener: name.into() }
}

fn gateway() -> Resource {
    let listener = |name: &str, hostname: &str| Listener {
        name: name.into(),
        port: 80,
        protocol: ListenerProtocol::Http,
        hostname: Hostname::new(hostname),
        certificates: vec![],
        tls: Default::default(),
        on_nodes: true,
        clients: None,
        proxy_protocol: false,
    };
    Resource::Gateway(Arc::new(Gateway {
        key: Key::new("infra", "gw"),
        listeners: vec![listener("all", ""), listener("wild", "*.x"), listener("exact", "a.x")],
        ..Default::default()
    }))
}

/// What a look at it shows.
fn shape(directory: &Directory) -> Vec<String> {
    let mut out = Vec::new();
    for entry in directory.services() {
        for port in &entry.ports {
            let pool: Vec<String> = port.pool.endpoints().iter().map(|it| it.address().to_string()).collect();
            let routes: Vec<&str> = port.table.routes().iter().map(|it| &*it.key.name).collect();
            let consumers: Vec<&str> = port.consumers.iter().map(|(of, _)| &**of).collect();
            out.push(format!("{}:{} {pool:?} {routes:?} {consumers:?}", entry.service.key, port.port.port));
        }
    }
    for entry in directory.gateways() {
        for listener in &entry.listeners {
            let routes: Vec<&str> = listener.table.routes().iter().map(|it| &*it.key.name).collect();
            out.push(format!("{}/{} {routes:?}", entry.gateway.key, listener.listener.name));
        }
    }
    out
}

fn everything() -> Vec<Resource> {
    vec![
        service(),
        group("web-1", &[("http", 8080), ("admin", 9090)], &["10.0.0.2", "10.0.0.1"]),
        group("web-2", &[("http", 8081)], &["10.0.0.3", "10.0.0.1"]),
        gateway(),
        route("mesh", vec![to_service(Some(80), None), to_service(None, Some("other"))]),
        route("edge", vec![to_listener("all"), to_listener("exact")]),
    ]
}

#[test]
fn the_order_of_coming_does_not_matter() {
    let expect = [
        r#"default/web:80 ["10.0.0.1:8080", "10.0.0.1:8081", "10.0.0.2:8080", "10.0.0.3:8081"] ["mesh"] ["other"]"#,
        r#"default/web:81 ["10.0.0.1:9090", "10.0.0.2:9090"] [] ["other"]"#,
        r#"infra/gw/all ["edge"]"#,
        r#"infra/gw/wild []"#,
        r#"infra/gw/exact ["edge"]"#,
    ];
    let all = everything();
    for start in 0..all.len() {
        for held in [false, true] {
            let mut directory = Directory::new();
            if held {
                directory.hold();
            }
            // Every rotation, and backwards.
            for index in 0..all.len() {
                let at = (start + index) % all.len();
                directory.set(all[if start % 2 == 0 { at } else { all.len() - 1 - at }].clone());
            }
            directory.release();
            assert_eq!(shape(&directory), expect, "start {start} held {held}");
        }
    }
}

#[test]
fn what_goes_leaves_nothing_behind() {
    let mut directory = Directory::new();
    everything().into_iter().for_each(|resource| directory.set(resource));
    let vip = "10.96.0.7".parse().unwrap();
    assert!(
        directory.service_at(vip).is_some()
            && directory.service_named("web.default.svc.cluster.local", "default").is_some()
    );
    for resource in everything() {
        directory.remove(resource.kind(), &resource.name());
    }
    assert!(shape(&directory).is_empty());
    assert!(directory.service_at(vip).is_none() && directory.routes().is_empty());
    assert!(directory.groups_of.is_empty() && directory.routes_of.is_empty() && directory.by_host.is_empty());
}

#[test]
fn a_route_that_moves_is_no_longer_where_it_was() {
    let mut directory = Directory::new();
    everything().into_iter().for_each(|resource| directory.set(resource));
    directory.set(route("edge", vec![to_listener("wild")]));
    let entry = directory.gateways()[0].clone();
    assert_eq!(entry.listener(80, "b.x").unwrap().table.routes().len(), 1);
    assert_eq!(entry.listener(80, "a.x").unwrap().table.routes().len(), 0, "listeners are isolated");
    assert_eq!(&*entry.listener(80, "y").unwrap().listener.name, "all");
    assert!(entry.listener(81, "y").is_none());
}

#[test]
fn an_address_belongs_to_who_runs_there_now() {
    let workload = |name: &str, status| {
        Resource::Workload(Arc::new(Workload {
            name: name.into(),
            uid: "".into(),
            key: Key::new("default", name),
            service_account: "web".into(),
            node: "".into(),
            addresses: vec!["10.0.0.1".parse().unwrap()],
            status,
            tunnel: Tunnel::Hbone,
            zone: "".into(),
            region: "".into(),
            canonical_name: "".into(),
            canonical_kind: "".into(),
            app: "".into(),
            revision: "".into(),
            authorization_policies: vec![],
            peer_authentications: vec![],
            request_authentications: vec![],
            labels: Default::default(),
        }))
    };
    let at = |directory: &Directory| directory.workload_at("10.0.0.1".parse().unwrap()).map(|it| it.name.to_string());
    let mut directory = Directory::new();
    directory.set(workload("a", WorkloadStatus::Draining));
    assert_eq!(at(&directory).as_deref(), Some("a"));
    directory.set(workload("b", WorkloadStatus::Running));
    assert_eq!(at(&directory).as_deref(), Some("b"));
    directory.set(workload("b", WorkloadStatus::Gone));
    assert_eq!(at(&directory).as_deref(), Some("a"));
    directory.remove(ResourceKind::Workload, "a");
    assert_eq!(at(&directory), None);
}

#[test]
fn a_name_means_what_the_callers_namespace_sees() {
    let entry = |namespace: &str, export_to: &[&str]| {
        Resource::Service(Arc::new(Service {
            key: Key::new(namespace, "far"),
            hostnames: vec!["far.example".into()],
            export_to: export_to.iter().map(|to| (*to).into()).collect(),
            ..Default::default()
        }))
    };
    let mut directory = Directory::new();
    directory.set(entry("all", &[]));
    directory.set(entry("shop", &["shop", "bank"]));
    directory.set(entry("shop", &["shop", "bank"]));
    let seen = |directory: &Directory, from: &str| {
        directory.service_named("far.example", from).map(|it| it.service.key.namespace.to_string())
    };
    assert_eq!((seen(&directory, "bank").as_deref(), seen(&directory, "x").as_deref()), (Some("shop"), Some("all")));
    let asked = |directory: &Directory, from: &str| {
        directory.service_for_all("far.example", from).map(|it| it.service.key.namespace.to_string())
    };
    assert_eq!((asked(&directory, "bank").as_deref(), asked(&directory, "").as_deref()), (Some("shop"), Some("all")));
    directory.set(entry("ops", &["istio-system"]));
    directory.remove(ResourceKind::Service, "all/far");
    assert_eq!((asked(&directory, "bank").as_deref(), asked(&directory, "").as_deref()), (Some("shop"), Some("ops")));
    assert_eq!((seen(&directory, "bank").as_deref(), seen(&directory, "x")), (Some("shop"), None));
    directory.remove(ResourceKind::Service, "shop/far");
    assert_eq!(seen(&directory, "bank"), None);
}
