//! ServiceEntries that let connections through, entries that share an address, and rules for some callers.

use super::istio::{destination_rule, endpoints, entry, istio_status, rule_object, traffic, web};
use super::*;
use model::mesh::api::istio::{
    DestinationRule, EntryEndpoint, EntryPort, PolicySpec, Resolution, ServiceEntry, Subset,
};
use model::mesh::api::{ResolvedName, WorkloadEntry};
use model::mesh::traffic::{Balancer, ConnectionPool};
use model::mesh::{AppProtocol, Service as Told, Subnet, Workload};

fn told(compiler: &Compiler, name: &str) -> Option<Arc<Told>> {
    match compiler.told.get(&(ResourceKind::Service, name.into())) {
        Some(Resource::Service(service)) => Some(service.clone()),
        _ => None,
    }
}

fn entry_object(it: ServiceEntry) -> Object {
    Object::ServiceEntry(Box::new(it))
}

fn through(name: &str, hosts: &[&str], blocks: &[&str]) -> ServiceEntry {
    ServiceEntry {
        hosts: hosts.iter().map(|host| (*host).into()).collect(),
        blocks: blocks.iter().map(|block| Subnet::parse(block).unwrap()).collect(),
        ..entry(name, Resolution::None)
    }
}

#[test]
fn what_is_let_through_is_a_service() {
    let mut rule = destination_rule("dr", 1, "*.far.example", &[]);
    rule.policy.balancer = Some(Balancer::RoundRobin);
    let mut compiler = compiler(vec![
        entry_object(through("far", &["*.far.example"], &["10.0.0.0/8"])),
        entry_object(ServiceEntry { resolution: Resolution::Static, ..through("bad", &["*.bad.example"], &[]) }),
        entry_object(ServiceEntry {
            resolution: Resolution::Dns,
            ..through("worse", &["worse.example"], &["10.0.0.0/8"])
        }),
        entry_object(ServiceEntry { bad_address: "ten".into(), ..through("worst", &["worst.example"], &[]) }),
        rule_object(rule),
    ]);
    let output = compiler.take();
    let status = |name: &str| istio_status(&output, ObjectKind::ServiceEntry, name);
    assert_eq!(status("far"), "");
    for name in ["bad", "worse", "worst"] {
        assert_eq!(status(name), "Accepted=False/UnsupportedValue", "{name}");
    }
    assert_eq!(istio_status(&output, ObjectKind::DestinationRule, "dr"), "");
    let service = told(&compiler, "apps/serviceentry.far").unwrap();
    assert!(service.ports[0].through && service.vips.is_empty(), "it has no address of its own");
    assert_eq!(service.blocks, [Subnet::parse("10.0.0.0/8").unwrap()]);
    assert_eq!(traffic(&compiler, "apps/serviceentry.far").unwrap().balancer, Balancer::RoundRobin);
}

#[test]
fn one_host_on_different_ports() {
    let on = |name: &str, created: i64, port: u16| {
        let meta = Meta { created: Timestamp(created), ..meta("apps", name) };
        let ports = vec![EntryPort { port, ..Default::default() }];
        entry_object(ServiceEntry { meta, ports, ..through(name, &["far.example"], &[]) })
    };
    let mut compiler = compiler(vec![on("a", 1, 80), on("b", 2, 443), on("c", 3, 80)]);
    let output = compiler.take();
    let status = |name: &str| istio_status(&output, ObjectKind::ServiceEntry, name);
    assert_eq!([status("a"), status("b"), status("c")], ["", "", "Accepted=False/Conflict"]);
}

#[test]
fn an_address_that_two_have() {
    let at = |name: &str, created: i64, port: u16, app_protocol: AppProtocol| ServiceEntry {
        meta: Meta { created: Timestamp(created), ..meta("apps", name) },
        addresses: vec!["192.0.2.1".parse().unwrap()],
        ports: vec![EntryPort { port, app_protocol, ..Default::default() }],
        ..entry(name, Resolution::Static)
    };
    use AppProtocol::{Http, Tcp, Tls};
    let objects = vec![
        entry_object(at("db", 1, 5432, Tcp)),
        entry_object(at("web", 2, 80, Http)),
        entry_object(at("shop", 3, 80, Http)),
        entry_object(at("raw", 4, 80, Tcp)),
        entry_object(at("pass", 5, 443, Tls)),
        entry_object(at("young", 6, 5432, Tcp)),
    ];
    let mut compiler = compiler(objects);
    let output = compiler.take();
    let status = |output: &Output, name: &str| istio_status(output, ObjectKind::ServiceEntry, name);
    for name in ["db", "web", "shop", "pass"] {
        assert_eq!(status(&output, name), "", "{name}");
    }
    for name in ["raw", "young"] {
        assert_eq!(status(&output, name), "Conflicted=True/SharedAddress", "{name}");
    }
    compiler.remove(ObjectKind::ServiceEntry, &Key::new("apps", "db"));
    assert_eq!(status(&compiler.take(), "young"), "", "it has the address to itself now");
}

#[test]
fn connections_pass_where_there_is_an_address() {
    let rule = |host: &str| DestinationRule {
        policy: PolicySpec { balancer: Some(Balancer::PassThrough), ..PolicySpec::default() },
        ..destination_rule(&host.replace('.', "-"), 1, host, &[])
    };
    let mut own = entry("own", Resolution::Dns);
    own.addresses = vec!["192.0.2.1".parse().unwrap()];
    let mut objects = web();
    objects.extend([entry_object(own), entry_object(entry("given", Resolution::Dns))]);
    objects.extend(["own.example", "given.example", "web"].map(|host| rule_object(rule(host))));
    let mut compiler = compiler(objects);
    compiler.take();
    for (name, expect) in [
        ("apps/serviceentry.own", Balancer::PassThrough),
        ("apps/serviceentry.given", Balancer::Random),
        ("apps/web", Balancer::Random),
    ] {
        assert_eq!(traffic(&compiler, name).unwrap().balancer, expect, "{name}");
    }
}

#[test]
fn a_rule_for_some_callers() {
    let limited = |requests: u32| PolicySpec {
        pool: Some(ConnectionPool { max_requests: requests, ..ConnectionPool::default() }),
        ..PolicySpec::default()
    };
    let for_v2 = |name: &str, namespace: &str, requests: u32| DestinationRule {
        meta: meta(namespace, name),
        callers: Some(labels(&[("version", "v2")])),
        policy: limited(requests),
        subsets: vec![Subset { name: "alone".into(), ..Subset::default() }],
        ..destination_rule(name, 1, "web.apps.svc.cluster.local", &[])
    };
    let mut all = destination_rule("all", 1, "web", &[("v1", "v1")]);
    all.policy = limited(1);
    let mut objects = web();
    // A rule of another namespace is for callers of that.
    objects.extend([rule_object(all), rule_object(for_v2("some", "apps", 2)), rule_object(for_v2("far", "infra", 3))]);
    let mut compiler = compiler(objects);
    let output = compiler.take();
    assert_eq!(istio_status(&output, ObjectKind::DestinationRule, "all"), "");
    assert_eq!(istio_status(&output, ObjectKind::DestinationRule, "some"), "PartiallyInvalid=True/UnsupportedValue");
    let limits = |compiler: &Compiler, name: &str| -> (u32, Vec<(String, u32)>) {
        let service = told(compiler, name).unwrap();
        let most =
            |policy: &Option<Arc<model::mesh::TrafficPolicy>>| policy.as_ref().map_or(0, |it| it.pool.max_requests);
        let some = service.ports[0].for_callers.iter();
        let some = some.map(|it| (format!("{} {:?}", it.namespace, it.labels.get("version")), most(&it.traffic)));
        (most(&service.ports[0].traffic), some.collect())
    };
    let both = vec![("apps Some(\"v2\")".to_owned(), 2), ("infra Some(\"v2\")".to_owned(), 3)];
    assert_eq!(limits(&compiler, "apps/web"), (1, both.clone()));
    assert_eq!(limits(&compiler, "apps/web|v1"), (1, both));
    assert!(told(&compiler, "apps/web|alone").is_none());
    let asked = |compiler: &Compiler| -> Labels {
        match compiler.told.get(&(ResourceKind::Workload, "pod/apps/web-1".into())) {
            Some(Resource::Workload(workload)) => Workload::clone(workload).labels,
            _ => panic!("no workload"),
        }
    };
    assert_eq!(asked(&compiler), labels(&[("version", "v1")]), "proxies learn the labels that rules ask for");
    compiler.remove(ObjectKind::DestinationRule, &Key::new("apps", "some"));
    compiler.remove(ObjectKind::DestinationRule, &Key::new("infra", "far"));
    compiler.take();
    assert_eq!(limits(&compiler, "apps/web"), (1, Vec::new()));
    assert_eq!(asked(&compiler), Labels::new());
}

#[test]
fn a_workload_entry_may_be_a_name() {
    let mut selecting = entry("far", Resolution::Dns);
    selecting.selector = labels(&[("app", "far")]);
    let host = WorkloadEntry {
        key: Key::new("apps", "host"),
        labels: labels(&[("app", "far")]),
        host: "host.example".into(),
        ..Default::default()
    };
    let mut compiler = compiler(vec![entry_object(selecting), Object::WorkloadEntry(host)]);
    compiler.take();
    assert_eq!(compiler.wanted_names().map(|name| &**name).collect::<Vec<_>>(), ["host.example"]);
    let known = |compiler: &Compiler| {
        let workload = compiler.told.contains_key(&(ResourceKind::Workload, "host/apps/host".into()));
        (endpoints(compiler, "apps/serviceentry.far.0").join(" "), workload)
    };
    assert_eq!(known(&compiler), ("-".into(), false));
    let mut resolved = |addresses: &[&str], expect: &str| {
        let addresses = addresses.iter().map(|it| it.parse().unwrap()).collect();
        compiler.set(Object::ResolvedName(ResolvedName { key: Key::new("", "host.example"), addresses }));
        compiler.take();
        assert_eq!(known(&compiler), (expect.into(), expect != "-"));
    };
    resolved(&["192.0.2.7"], "192.0.2.7");
    resolved(&["192.0.2.7", "192.0.2.8"], "192.0.2.7 192.0.2.8");
    resolved(&[], "-");
}

/// Who calls a gateway means the gateway, so it goes to what the entry selects.
#[test]
fn what_is_let_through_may_select_workloads() {
    let selecting = |named: bool| {
        let app: &[(&str, &str)] = if named { &[("app", "far")] } else { &[] };
        let endpoints = vec![EntryEndpoint { address: "192.0.2.9".into(), ..Default::default() }];
        let endpoints = if named { Vec::new() } else { endpoints };
        entry_object(ServiceEntry { selector: labels(app), endpoints, ..through("far", &["far.example"], &[]) })
    };
    let mut compiler = compiler(vec![selecting(false)]);
    compiler.take();
    assert_eq!(endpoints(&compiler, "apps/serviceentry.far.0"), ["-"], "these nobody may name");
    compiler.set(selecting(true));
    compiler.set(Object::WorkloadEntry(WorkloadEntry {
        key: Key::new("apps", "host"),
        labels: labels(&[("app", "far")]),
        address: "192.0.2.7".parse().ok(),
        ..Default::default()
    }));
    compiler.take();
    assert_eq!(endpoints(&compiler, "apps/serviceentry.far.0"), ["192.0.2.7"]);
    assert!(told(&compiler, "apps/serviceentry.far").unwrap().ports[0].through);
}
