//! Mesh control without sockets: what compiling, encoding and 1,000 sessions cost; and what a proxy pays to take a change in.
//!
//! A simulated stream is a real server session whose responses are encoded, decoded and answered as a proxy would; only the connection
//! (TLS, HTTP/2) and the proxy's own state are left out.

use crate::proxy_process::ProxyProcess;
use crate::report::Report;
use bytes::Bytes;
use clap::Args;
use hdrhistogram::Histogram;
use model::Key;
use model::mesh::api::{
    self, AllowedNamespaces, BackendRef, EndpointSlice, GatewayClass, ListenerSpec, Object, ParentRef, Pod, Reference,
    RuleSpec, SliceEndpoint,
};
use model::mesh::{Match, PathMatch, Resource, ResourceKind, RouteKind, ServicePort};
use prost::Message;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};
use traffic::{Compiler, Directory, Output, RequestView, Settings};
use xds::catalog::Catalog;
use xds::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node};
use xds::resources::{kind_of, type_url};
use xds::session::{Client, Server};

const RESPONSE_LIMIT: usize = 1 << 20;

#[derive(Args)]
pub struct Options {
    /// Services, each with one slice.
    #[arg(long, default_value_t = 10_000)]
    services: usize,
    /// Endpoints (pods) of each service.
    #[arg(long, default_value_t = 10)]
    endpoints: usize,
    /// Connected proxies.
    #[arg(long, default_value_t = 1_000)]
    proxies: usize,
    /// Routes on one gateway, for the proxy's part.
    #[arg(long, default_value_t = 5_000)]
    routes: usize,
    /// Changes that are measured.
    #[arg(long, default_value_t = 200)]
    changes: usize,
}

pub fn run(options: &Options) -> Result<(), String> {
    let mut report = Report::new("mesh");
    // First, while the process is small: what it has resident then is an upper bound of what a proxy needs for its routes.
    one_proxy(options, &mut report)?;
    control(options, &mut report)?;
    report.write()
}

fn pod_name(service: usize, index: usize) -> String {
    format!("s{service}-{index}")
}

fn address(service: usize, index: usize, endpoints: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + (service * endpoints + index) as u32))
}

fn pod(service: usize, index: usize, endpoints: usize) -> Object {
    Object::Pod(Pod {
        key: Key::new("default", pod_name(service, index)),
        uid: format!("00000000-0000-0000-{service:04}-{index:012}").into(),
        labels: [("app".into(), format!("s{service}").into())].into(),
        service_account: format!("s{service}").into(),
        node: format!("node-{}", (service + index) % 1_000).into(),
        addresses: vec![address(service, index, endpoints)],
        controller: ("ReplicaSet".into(), format!("s{service}-abc").into()),
        ..Pod::default()
    })
}

fn slice(service: usize, endpoints: usize, ready: bool) -> Object {
    let endpoint = |index: usize| SliceEndpoint {
        addresses: vec![address(service, index, endpoints)],
        ready: ready || index > 0,
        serving: ready || index > 0,
        target: ("Pod".into(), pod_name(service, index).into()),
        node: format!("node-{}", (service + index) % 1_000).into(),
        ..SliceEndpoint::default()
    };
    Object::EndpointSlice(EndpointSlice {
        key: Key::new("default", format!("s{service}-x")),
        service: format!("s{service}").into(),
        ports: vec![("http".into(), 8080)],
        endpoints: (0..endpoints).map(endpoint).collect(),
    })
}

fn service(service: usize) -> Object {
    Object::Service(api::Service {
        key: Key::new("default", format!("s{service}")),
        selector: [("app".into(), format!("s{service}").into())].into(),
        vips: vec![IpAddr::V4(Ipv4Addr::from(0x0a60_0000 + service as u32))],
        ports: vec![ServicePort { port: 80, name: "http".into(), ..ServicePort::default() }],
        ..api::Service::default()
    })
}

fn reference(group: &str, kind: &str, name: String) -> Reference {
    Reference { group: group.into(), kind: kind.into(), namespace: "".into(), name: name.into() }
}

fn route(index: usize, services: usize, weight: u32) -> Object {
    let backend = |service: usize| BackendRef {
        reference: reference("", "Service", format!("s{}", service % services)),
        port: Some(80),
        weight,
        filters: Vec::new(),
    };
    let matched = Match { path: PathMatch::Prefix(format!("/r{index}").into()), ..Match::default() };
    let rule =
        RuleSpec { matches: vec![matched], backends: vec![backend(index), backend(index + 1)], ..RuleSpec::default() };
    Object::Route(api::Route {
        kind: RouteKind::Http,
        meta: model::Meta { key: Key::new("default", format!("r{index}")), ..Default::default() },
        parents: vec![ParentRef {
            reference: reference("gateway.networking.k8s.io", "Gateway", "front".into()),
            ..ParentRef::default()
        }],
        hostnames: vec![format!("h{}.example", index % 100).into()],
        rules: vec![rule],
    })
}

fn gateway(compiler: &mut Compiler) {
    let settings = Settings::default();
    compiler.set(Object::GatewayClass(GatewayClass {
        meta: model::Meta { key: Key::new("", "diolkos"), ..Default::default() },
        controller: settings.controller_name,
        has_parameters: false,
    }));
    compiler.set(Object::Gateway(api::Gateway {
        meta: model::Meta { key: Key::new("default", "front"), ..Default::default() },
        class: "diolkos".into(),
        listeners: vec![ListenerSpec {
            name: "web".into(),
            port: 80,
            protocol: "HTTP".into(),
            allowed_namespaces: AllowedNamespaces::All,
            ..ListenerSpec::default()
        }],
        ..api::Gateway::default()
    }));
}

fn publish(catalog: &mut Catalog, output: &Output) {
    for ((kind, name), resource) in &output.resources {
        catalog.set(type_url(*kind), name, resource.as_ref().map(xds::convert::encode));
    }
}

fn order() -> Vec<&'static str> {
    ResourceKind::ALL.into_iter().map(type_url).collect()
}

fn catalog() -> Catalog {
    let mut catalog = Catalog::default();
    order().into_iter().for_each(|type_url| catalog.declare(type_url));
    catalog
}

/// Tells a session what it may be told until it has nothing to say, and answers for the proxy.
fn drain(server: &mut Server, catalog: &Catalog, order: &[&'static str]) -> Result<usize, String> {
    let mut bytes = 0;
    while let Some(response) = server.next(catalog, order, RESPONSE_LIMIT, &|_, _| true) {
        let encoded = Bytes::from(response.encode_to_vec());
        bytes += encoded.len();
        let received = DeltaDiscoveryResponse::decode(encoded).map_err(|error| error.to_string())?;
        let answer = DeltaDiscoveryRequest {
            type_url: received.type_url,
            response_nonce: received.nonce,
            ..DeltaDiscoveryRequest::default()
        };
        let answer =
            DeltaDiscoveryRequest::decode(answer.encode_to_vec().as_slice()).map_err(|error| error.to_string())?;
        server.receive(catalog, answer).map_err(|error| error.to_string())?;
    }
    Ok(bytes)
}

fn control(options: &Options, report: &mut Report) -> Result<(), String> {
    let name = format!("{}k services", options.services / 1_000);
    let mut compiler = Compiler::new(Settings::default());
    gateway(&mut compiler);
    for index in 0..options.services {
        compiler.set(service(index));
        for pod_index in 0..options.endpoints {
            compiler.set(pod(index, pod_index, options.endpoints));
        }
        compiler.set(slice(index, options.endpoints, true));
    }
    let mut catalog = catalog();
    let begun = Instant::now();
    publish(&mut catalog, &compiler.take());
    report.add(&name, "compile_everything", begun.elapsed().as_secs_f64() * 1e3, "ms");
    let order = order();
    let mut client = Client::new(Node::default());
    order.iter().for_each(|type_url| client.subscribe_all(type_url));
    let subscriptions = client.connected();
    let mut sessions = Vec::new();
    let mut first = Duration::ZERO;
    for index in 0..options.proxies {
        let mut server = Server::new("bench");
        let begun = Instant::now();
        for request in &subscriptions {
            server.receive(&catalog, request.clone()).map_err(|error| error.to_string())?;
        }
        // The first is measured; the others begin where it ended, as proxies that have been there for long.
        if index == 0 {
            let bytes = drain(&mut server, &catalog, &order)?;
            first = begun.elapsed();
            report.add(&name, "full_configuration", bytes as f64 / 1e6, "MB");
        } else {
            drain(&mut server, &catalog, &order)?;
        }
        sessions.push(server);
    }
    report.add(&name, "full_configuration_told", first.as_secs_f64() * 1e3, "ms");
    report.add(&name, "resident", resident_mb()?, "MB");
    for (what, change) in [
        (
            "endpoint",
            (|index, services, endpoints| slice(index % services, endpoints, false))
                as fn(usize, usize, usize) -> Object,
        ),
        ("route", |index, services, _| route(index, services, 1)),
    ] {
        let mut times = Histogram::<u64>::new(3).map_err(|error| error.to_string())?;
        for index in 0..options.changes {
            let begun = Instant::now();
            compiler.set(change(index, options.services, options.endpoints));
            publish(&mut catalog, &compiler.take());
            for server in &mut sessions {
                drain(server, &catalog, &order)?;
            }
            times.record(begun.elapsed().as_micros() as u64).map_err(|error| error.to_string())?;
        }
        let metric = |share: &str| format!("{what}_to_last_ack_{share}");
        report.add(&name, &metric("p50"), times.value_at_quantile(0.5) as f64 / 1e3, "ms");
        report.add(&name, &metric("p99"), times.value_at_quantile(0.99) as f64 / 1e3, "ms");
    }
    Ok(())
}

/// A proxy with thousands of routes on one listener: from a response's bytes to the first request that is decided by it.
fn one_proxy(options: &Options, report: &mut Report) -> Result<(), String> {
    let name = format!("{}k routes", options.routes / 1_000);
    let mut compiler = Compiler::new(Settings::default());
    gateway(&mut compiler);
    (0..100).for_each(|index| compiler.set(service(index)));
    (0..options.routes).for_each(|index| compiler.set(route(index, 100, 1)));
    let mut catalog = catalog();
    publish(&mut catalog, &compiler.take());
    drop(compiler);
    let order = order();
    let mut client = Client::new(Node::default());
    order.iter().for_each(|type_url| client.subscribe_all(type_url));
    let mut server = Server::new("bench");
    for request in client.connected() {
        server.receive(&catalog, request).map_err(|error| error.to_string())?;
    }
    let mut process = ProxyProcess::start()?;
    report.add(&name, "proxy_resident_idle", process.resident_mb(), "MB");
    let (mut other, mut asking) = (Server::new("bench"), Client::new(Node::default()));
    order.iter().for_each(|type_url| asking.subscribe_all(type_url));
    for request in asking.connected() {
        other.receive(&catalog, request).map_err(|error| error.to_string())?;
    }
    while let Some(response) = other.next(&catalog, &order, RESPONSE_LIMIT, &|_, _| true) {
        let encoded = response.encode_to_vec();
        process.tell(&encoded)?;
        let DeltaDiscoveryResponse { type_url, nonce, .. } =
            DeltaDiscoveryResponse::decode(encoded.as_slice()).map_err(|error| error.to_string())?;
        let answer = DeltaDiscoveryRequest { type_url, response_nonce: nonce, ..DeltaDiscoveryRequest::default() };
        other.receive(&catalog, answer).map_err(|error| error.to_string())?;
    }
    report.add(&name, "proxy_resident", process.resident_mb(), "MB");
    drop((process, other));
    let mut directory = Directory::new();
    let begun = Instant::now();
    take_in(&mut server, &catalog, &order, &mut client, &mut directory)?;
    report.add(&name, "first_configuration", begun.elapsed().as_secs_f64() * 1e3, "ms");
    report.add(&name, "resident_with_control", resident_mb()?, "MB");
    let mut compiler = Compiler::new(Settings::default());
    gateway(&mut compiler);
    (0..100).for_each(|index| compiler.set(service(index)));
    (0..options.routes).for_each(|index| compiler.set(route(index, 100, 1)));
    compiler.take();
    let mut times = Histogram::<u64>::new(3).map_err(|error| error.to_string())?;
    for change in 0..options.changes {
        let index = change * 7 % options.routes;
        let begun = Instant::now();
        compiler.set(route(index, 100, 2 + change as u32));
        publish(&mut catalog, &compiler.take());
        take_in(&mut server, &catalog, &order, &mut client, &mut directory)?;
        let weight = effect(&directory, index);
        times.record(begun.elapsed().as_micros() as u64).map_err(|error| error.to_string())?;
        if weight != Some(2 + change as u32) {
            return Err(format!("route r{index} is not what it was changed to: {weight:?}"));
        }
    }
    report.add(&name, "change_to_effect_p50", times.value_at_quantile(0.5) as f64 / 1e3, "ms");
    report.add(&name, "change_to_effect_p99", times.value_at_quantile(0.99) as f64 / 1e3, "ms");
    Ok(())
}

/// The weight by which a request of a route is sent now.
fn effect(directory: &Directory, index: usize) -> Option<u32> {
    let host = format!("h{}.example", index % 100);
    let path = format!("/r{index}/x");
    let gateways = directory.gateways();
    let listener = gateways.first()?.listener(80, &host)?;
    let hit = listener.table.find(&RequestView::new(&host, &path, "GET", &()))?;
    Some(hit.rule().backends.first()?.weight)
}

fn take_in(
    server: &mut Server,
    catalog: &Catalog,
    order: &[&'static str],
    client: &mut Client,
    directory: &mut Directory,
) -> Result<(), String> {
    while let Some(response) = server.next(catalog, order, RESPONSE_LIMIT, &|_, _| true) {
        let response =
            DeltaDiscoveryResponse::decode(Bytes::from(response.encode_to_vec())).map_err(|error| error.to_string())?;
        let received = client.receive(response).map_err(|error| error.to_string())?;
        let kind = kind_of(&received.type_url).ok_or("a type of our own")?;
        directory.hold();
        for resource in &received.changed {
            let decoded: Resource =
                xds::convert::decode(kind, resource.value.clone()).map_err(|error| error.to_string())?;
            directory.set(decoded);
        }
        received.removed.iter().for_each(|name| directory.remove(kind, name));
        directory.release();
        let answer = client.finish(&received, &[]);
        server.receive(catalog, answer).map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn resident_mb() -> Result<f64, String> {
    let status = std::fs::read_to_string("/proc/self/status").map_err(|error| error.to_string())?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    let kb: f64 = line.trim().trim_end_matches("kB").trim().parse().map_err(|_| "VmRSS is no number")?;
    Ok(kb / 1e3)
}
