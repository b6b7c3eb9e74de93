//! Clusters and their endpoints, as a client at a place sees them.
use super::View;
use super::audience::{Kind, PROVIDER};
use model::mesh::{BackendTls, MtlsMode, SubjectName, Tunnel, Workload};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use traffic::balance::PoolEndpoint;
use traffic::balance::locality::{Groups, Place};
use traffic::{PortEntry, ServiceEntry};
use xds::envoy::{Call, Cluster, LocalEndpoint, Peers};

/// Where joined hosts take peers' TLS.
pub(super) const HOST_PORT: u16 = 15_008;
/// Localities share by percent; within one that covers several, by what they can bear.
const SHARE: u32 = 1_000;

/// What a client is told of a service's port.
pub struct Told {
    pub cluster: bytes::Bytes,
    pub endpoints: bytes::Bytes,
}

impl View {
    /// The workload of an endpoint, if it takes the mesh's TLS.
    fn meshed(&self, endpoint: &PoolEndpoint) -> Option<&Workload> {
        let named = self.directory.workload(&endpoint.workload);
        let workload = named.or_else(|| self.directory.workload_at(endpoint.address));
        workload.map(|it| &**it).filter(|it| it.tunnel == Tunnel::Hbone)
    }

    /// Whether all endpoints of a port can be called under the mesh's TLS by who cannot tell them apart. Where plain text is taken, TLS without a
    /// protocol of Istio's is the process's own.
    fn all_secured(&self, port: &PortEntry) -> bool {
        let secured = |it: &PoolEndpoint| {
            self.meshed(it).is_some_and(|workload| {
                let namespace = &workload.key.namespace;
                let policy = self.peers.for_workload(namespace, &[], &workload.peer_authentications, &[]);
                is_host(workload) || policy.mtls_mode(it.port) == MtlsMode::Strict
            })
        };
        !port.pool.endpoints().is_empty() && port.pool.endpoints().iter().all(secured)
    }

    /// See [`Told`].
    pub(super) fn told(&self, name: &str, entry: &ServiceEntry, port: &PortEntry, http2: bool) -> Told {
        let policy = port.port.traffic.as_deref();
        let own = policy.and_then(|policy| policy.tls.as_deref());
        let of_gateways = port.port.tls.as_deref().filter(|_| self.audience.kind == Kind::Gateway);
        let own = of_gateways.or(own);
        // The mesh's TLS, also with hosts outside of it that are said to have it.
        let outside = own.filter(|tls| tls.mesh);
        let own = own.filter(|tls| !tls.mesh);
        let secured = self.audience.secured && own.is_none() && (outside.is_some() || !entry.service.outside);
        let marks = match self.audience.kind {
            Kind::Grpc => secured && (outside.is_some() || self.all_secured(port)),
            Kind::Sidecar | Kind::Gateway => secured,
        };
        let names: BTreeSet<String> = match marks {
            true => port
                .pool
                .endpoints()
                .iter()
                .filter_map(|it| self.meshed(it))
                .map(|it| it.identity(&self.trust_domain))
                .collect(),
            false => BTreeSet::new(),
        };
        let identities =
            identities(names, outside.filter(|_| port.pool.endpoints().iter().any(|it| self.meshed(it).is_none())));
        let host = entry.service.hostnames.first().map_or("", |name| name);
        let subset = entry.service.key.name.split_once('|').map_or("", |(_, subset)| subset);
        let server_name = match outside {
            Some(tls) => tls.hostname.to_string(),
            None => format!("outbound_.{}_.{subset}_.{host}", port.port.port),
        };
        let peers =
            Peers { identities: &identities, trust_domain: &self.trust_domain, server_name: &server_name, http2 };
        let call = match (own, self.audience.kind) {
            (Some(tls), _) => Call::Own(tls, tls.certificate.as_ref().or(self.audience.shows.as_ref())),
            _ if !marks => Call::Plain,
            (_, Kind::Grpc) => Call::Provider(PROVIDER, peers),
            (_, Kind::Sidecar | Kind::Gateway) => Call::Marked(peers),
        };
        let grpc = self.audience.kind == Kind::Grpc;
        let shares = matches!(self.groups(port), Some(Groups::Shares(_)));
        let cluster = xds::envoy::cluster(&Cluster { name, http2, policy, call, grpc, shares });
        // What cannot be called as it must be is not called at all.
        let flawed = own.is_some_and(|tls| !tls.flaw.is_empty()) || (outside.is_some() && !marks);
        let endpoints = if flawed { Vec::new() } else { self.placed(port, marks, outside.is_some()) };
        Told { cluster, endpoints: xds::envoy::assignment(name, endpoints) }
    }

    /// Near endpoints first, if a DestinationRule says so.
    fn groups(&self, port: &PortEntry) -> Option<Groups> {
        let place = Place { region: self.audience.region.clone(), zone: self.audience.zone.clone(), node: "".into() };
        Groups::new(port.port.traffic.as_ref()?, &place, port.pool.endpoints())
    }

    /// Endpoints in their order for this place: by priority, or each locality with its share.
    fn placed<'a>(&self, port: &'a PortEntry, marks: bool, all_marked: bool) -> Vec<LocalEndpoint<'a>> {
        let all = port.pool.endpoints();
        let at = |it: &'a PoolEndpoint, priority: u32, locality_weight: u32| {
            let workload = self.meshed(it).filter(|_| marks);
            let host = workload.filter(|it| is_host(it));
            let port = if host.is_some() { HOST_PORT } else { it.port };
            LocalEndpoint {
                priority,
                region: &it.region,
                zone: &it.zone,
                address: SocketAddr::new(it.address, port),
                weight: it.weight,
                marked: workload.is_some() || all_marked,
                locality_weight,
            }
        };
        let mut out: Vec<LocalEndpoint<'a>> = match self.groups(port) {
            None => all.iter().map(|it| at(it, 0, 0)).collect(),
            Some(Groups::Priorities(priorities)) => {
                let ranked = priorities.iter().zip(0..);
                ranked
                    .flat_map(|(group, priority)| group.iter().map(move |index| (*index, priority)))
                    .map(|(index, priority)| at(&all[index], priority, 0))
                    .collect()
            }
            Some(Groups::Shares(shares)) => {
                let live = shares.iter().filter(|(percent, group)| *percent > 0 && !group.is_empty());
                live.flat_map(|(percent, group)| {
                    let here = move |index: &usize| {
                        let it = &all[*index];
                        let beside = group
                            .iter()
                            .filter(|other| (&all[**other].region, &all[**other].zone) == (&it.region, &it.zone));
                        let part = beside.count() as u32;
                        (percent * SHARE * part / group.len() as u32).max(1)
                    };
                    group.iter().map(move |index| (*index, here(index)))
                })
                .map(|(index, weight)| at(&all[index], 0, weight))
                .collect()
            }
        };
        out.sort();
        out
    }
}

/// Who may be there: the workloads that are known, and outside of the mesh whom a rule names; nobody: any of the mesh.
fn identities(mut known: BTreeSet<String>, outside: Option<&BackendTls>) -> Vec<String> {
    let Some(tls) = outside else { return known.into_iter().collect() };
    let named = tls.names.iter().map(|name| match name {
        SubjectName::Uri(name) | SubjectName::Dns(name) => name.to_string(),
    });
    let named: Vec<String> = named.collect();
    if named.is_empty() {
        return named;
    }
    known.extend(named);
    known.into_iter().collect()
}

/// A joined host: it captures nothing that comes in.
pub(super) fn is_host(workload: &Workload) -> bool {
    workload.node.is_empty()
}
