//! What an Envoy beside a joined host's process is told of what comes in: who may come, what is decided, and that it goes to loopback.
use super::endpoints::HOST_PORT;
use super::{Emission, Place, View, limits, policies, routes};
use model::Key;
use model::mesh::{AppProtocol, Transport, Tunnel, Workload};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use traffic::{PortEntry, ServiceEntry};
use xds::envoy::{Inbound, InboundPort, VirtualHost, types};

/// Where captured connections come.
const CAPTURED_PORT: u16 = 15_006;

/// A port of a process, by the services that it is behind.
#[derive(Default)]
struct Port {
    protocol: AppProtocol,
    server_names: Vec<String>,
    /// Services, with the name of the port.
    services: Vec<(Key, Arc<str>)>,
}

impl View {
    /// An Envoy has come in place of this host's proxy. True: it is the first.
    pub fn serve(&mut self, host: &Arc<str>) -> bool {
        let first = self.served.insert(host.clone());
        if first {
            self.emit_host(host);
        }
        first
    }

    /// Only these hosts are still served. True: others were.
    pub fn keep_serving(&mut self, hosts: &BTreeSet<Arc<str>>) -> bool {
        let (stay, gone): (BTreeSet<_>, BTreeSet<_>) =
            std::mem::take(&mut self.served).into_iter().partition(|host| hosts.contains(host));
        self.served = stay;
        gone.iter().for_each(|host| self.emit_host(host));
        !gone.is_empty()
    }

    /// Tells what comes in at a joined host, if an Envoy is there to be told.
    pub(super) fn emit_host(&mut self, name: &Arc<str>) {
        let mut out = Emission::default();
        let joined = |it: &&Arc<Workload>| super::endpoints::is_host(it) && it.tunnel == Tunnel::Hbone;
        let workload = self.directory.workload(name).filter(joined).filter(|_| self.served.contains(name)).cloned();
        if let Some(workload) = workload {
            self.inbound(&workload, &mut out);
        }
        self.tell(Place::Host(name.clone()), out);
    }

    fn inbound(&self, workload: &Workload, out: &mut Emission) {
        let Some(address) = workload.addresses.first() else { return };
        let ports = self.ports(workload);
        let ports: Vec<InboundPort> = ports.iter().map(|(number, port)| self.port(workload, *number, port)).collect();
        if ports.is_empty() {
            return;
        }
        let (name, identity) = (workload.key.to_string(), workload.identity(&self.trust_domain));
        let inbound = Inbound {
            name: &name,
            address: *address,
            trust_domain: &self.trust_domain,
            identity: &identity,
            ports: &ports,
        };
        for (of, all) in [
            (types::CLUSTER, inbound.clusters()),
            (types::ROUTE, inbound.tables()),
            (types::LISTENER, inbound.listeners(CAPTURED_PORT, HOST_PORT)),
        ] {
            all.into_iter().for_each(|(name, value)| out.add(of, name, value));
        }
    }

    /// The ports of a process: those of services, whether it is ready or not.
    fn ports(&self, workload: &Workload) -> BTreeMap<u16, Port> {
        let mut out: BTreeMap<u16, Port> = BTreeMap::new();
        for key in self.of_workload.get(&*workload.name).into_iter().flatten() {
            let Some(entry) = self.directory.service(key) else { continue };
            let here = self.directory.groups(key).filter(|group| {
                group
                    .endpoints
                    .iter()
                    .any(|it| it.workload == workload.name && workload.addresses.contains(&it.address))
            });
            for (name, number) in here.flat_map(|group| &group.ports) {
                let of_service = entry.ports.iter().find(|it| it.port.name == *name);
                let Some(of) = of_service.filter(|it| it.port.transport == Transport::Tcp) else { continue };
                let port = out.entry(*number).or_default();
                // Where two services differ, requests are looked at.
                if !port.protocol.is_http() && of.app_protocol() != AppProtocol::Unspecified {
                    port.protocol = of.app_protocol();
                }
                port.services.push((entry.service.known_as().clone(), name.clone()));
                port.server_names.extend(server_name(entry, of));
            }
        }
        for port in out.values_mut() {
            port.server_names.sort();
            port.server_names.dedup();
        }
        out
    }

    fn port(&self, workload: &Workload, number: u16, port: &Port) -> InboundPort {
        let holder = policies::Holder::Workload(workload);
        let peers = self.peers.for_workload(&workload.key.namespace, &[], &workload.peer_authentications, &[]);
        let tokens = policies::tokens(&self.tokens, holder);
        let before = [false, true].map(|tunnel| {
            let seen = |rule: &xds::envoy::RbacRule| match tunnel {
                true => rule.at(number).through_tunnel(),
                false => rule.at(number),
            };
            let asks = policies::asks(&self.policies, &self.providers, &self.directory, holder, seen);
            tokens.clone().into_iter().chain(asks).collect()
        });
        // Where it goes is the port's own cluster.
        let host = VirtualHost { name: String::new(), domains: Vec::new(), routes: vec![routes::plain(String::new())] };
        let mut hosts = [host];
        let after = self.limit(limits::At::Process(&port.services), &mut hosts);
        let [mut host] = hosts;
        InboundPort {
            number,
            http2: port.protocol.is_http().then(|| port.protocol.is_http2()),
            server_names: port.server_names.clone(),
            mode: peers.mtls_mode(number),
            before,
            decisions: policies::of_requests(&self.policies, holder),
            whole: policies::of_connections(&self.policies, holder),
            route: host.routes.remove(0),
            after,
        }
    }
}

/// What peers ask for that mean this port of this service.
fn server_name(entry: &ServiceEntry, port: &PortEntry) -> Option<String> {
    let host = entry.service.hostnames.first()?;
    let subset = entry.service.key.name.split_once('|').map_or("", |(_, subset)| subset);
    Some(format!("outbound_.{}_.{subset}_.{host}", port.port.port))
}

#[cfg(test)]
mod tests {
    use super::super::Audience;
    use super::*;
    use model::mesh::{Endpoint, EndpointGroup, Health, Resource, ResourceKind, Service, ServicePort, WorkloadStatus};

    fn host() -> Resource {
        named("db-old", "192.0.2.7")
    }

    fn named(name: &str, address: &str) -> Resource {
        Resource::Workload(Arc::new(Workload {
            name: format!("host/shop/{name}").into(),
            uid: "".into(),
            key: Key::new("shop", name),
            service_account: "db".into(),
            node: "".into(),
            addresses: vec![address.parse().unwrap()],
            status: WorkloadStatus::Running,
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
            labels: model::Labels::new(),
        }))
    }

    fn service() -> [Resource; 2] {
        let (key, name): (_, Arc<str>) = (Key::new("shop", "db"), "http".into());
        let endpoint = |name: &str, address: &str| Endpoint {
            workload: format!("host/shop/{name}").into(),
            // What it is told does not wait for it to be ready, which waits for what it is told.
            health: Health::NotReady,
            ..Endpoint::at(address.parse().unwrap())
        };
        let endpoints = vec![endpoint("db-old", "192.0.2.7"), endpoint("db-older", "192.0.2.8")];
        let port =
            ServicePort { port: 80, name: name.clone(), app_protocol: AppProtocol::Http, ..ServicePort::default() };
        let service = Service {
            key: key.clone(),
            hostnames: vec!["db.shop.svc.cluster.local".into()],
            ports: vec![port],
            ..Service::default()
        };
        let group = EndpointGroup { key: key.clone(), service: key, ports: vec![(name, 8080)], endpoints };
        [Resource::Service(Arc::new(service)), Resource::Endpoints(Arc::new(group))]
    }

    #[test]
    fn a_host_is_told_its_ports_as_long_as_it_is_there() {
        let [service, group] = service();
        let mut view = View::new(0, "cluster.local", Audience::default(), [service, group, host()].iter());
        assert!(view.serve(&"host/shop/db-old".into()));
        let is_there = |view: &View, of: &'static str, name: &str| {
            view.catalog().get(of, name).is_some_and(|change| change.encoded.is_some())
        };
        let all = [
            (types::LISTENER, "inbound/shop/db-old/own/8080"),
            (types::LISTENER, "inbound/shop/db-old/captured/8080"),
            (types::LISTENER, "inbound/shop/db-old/captured"),
            (types::LISTENER, "inbound/shop/db-old/tunnel"),
            (types::LISTENER, "inbound/shop/db-old/inner"),
            (types::ROUTE, "inbound/shop/db-old/8080"),
            (types::ROUTE, "inbound/shop/db-old/8080/tunnel"),
            (types::ROUTE, "inbound/shop/db-old/tunnel"),
            (types::CLUSTER, "inbound|8080||shop/db-old"),
            (types::CLUSTER, "inbound|tunnel||shop/db-old"),
        ];
        assert!(all.iter().all(|(of, name)| is_there(&view, of, name)));
        let tunnel = view.catalog().get(types::LISTENER, "inbound/shop/db-old/tunnel").unwrap().encoded.unwrap();
        let named = b"outbound_.80_._.db.shop.svc.cluster.local";
        assert!(tunnel.windows(named.len()).any(|part| part == named), "peers without a tunnel find the port");
        view.apply([(ResourceKind::Workload, "host/shop/db-old".to_owned(), None)].into_iter());
        assert!(!all.iter().any(|(of, name)| is_there(&view, of, name)));
        view.apply([(ResourceKind::Workload, "host/shop/db-old".to_owned(), Some(host()))].into_iter());
        let [service, _] = self::service();
        view.apply([(ResourceKind::Service, "shop/db".to_owned(), Some(service))].into_iter());
        assert!(all.iter().all(|(of, name)| is_there(&view, of, name)), "it came again");
    }
    #[test]
    fn only_hosts_that_an_envoy_serves_are_told_of() {
        let [service, group] = service();
        let [first, other]: [Arc<str>; 2] = ["host/shop/db-old", "host/shop/db-older"].map(Into::into);
        let all = [service, group, host(), named("db-older", "192.0.2.8")];
        let mut view = View::new(0, "cluster.local", Audience::default(), all.iter());
        let told = |view: &View| {
            let all =
                [types::LISTENER, types::ROUTE, types::CLUSTER].into_iter().flat_map(|of| view.catalog().since(of, 0));
            let there = all.filter(|change| change.encoded.is_some() && change.name.starts_with("inbound"));
            let host = |name: &str| if name.contains("db-older") { "db-older" } else { "db-old" };
            there.map(|change| host(&change.name)).collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>()
        };
        assert!(told(&view).is_empty(), "nobody has come");
        assert!(view.serve(&first) && !view.serve(&first));
        assert_eq!(told(&view), ["db-old"]);
        view.apply([(ResourceKind::Workload, other.to_string(), Some(named("db-older", "192.0.2.8")))].into_iter());
        assert_eq!(told(&view), ["db-old"], "a change of another host is none of ours");
        view.serve(&other);
        assert_eq!(told(&view), ["db-old", "db-older"]);
        assert!(view.keep_serving(&BTreeSet::from([other.clone()])) && !view.keep_serving(&BTreeSet::from([other])));
        assert_eq!(told(&view), ["db-older"], "the first has gone");
    }
}
