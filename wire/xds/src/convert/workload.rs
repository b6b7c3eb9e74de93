//! Workloads, services, endpoints.

use super::route::{labels_in, labels_out, subnet_in};
use super::{
    DecodeError, address_in, address_out, arcs, key_in, key_out, keys_in, keys_out, number, pick, port_in, strings,
};
use crate::resources as wire;
use model::Timestamp;
use model::mesh::{
    AppProtocol, CallerTraffic, Endpoint, EndpointGroup, Health, Service, ServicePort, Transport, Tunnel, Workload,
    WorkloadStatus,
};
use std::sync::Arc;

const STATUS: &[(u32, WorkloadStatus)] =
    &[(0, WorkloadStatus::Running), (1, WorkloadStatus::Draining), (2, WorkloadStatus::Gone)];
const TUNNEL: &[(u32, Tunnel)] = &[(0, Tunnel::None), (1, Tunnel::Hbone)];
const TRANSPORT: &[(u32, Transport)] = &[(0, Transport::Tcp), (1, Transport::Udp)];
const APP_PROTOCOL: &[(u32, AppProtocol)] = &[
    (0, AppProtocol::Unspecified),
    (1, AppProtocol::Tcp),
    (2, AppProtocol::Http),
    (3, AppProtocol::Http2),
    (4, AppProtocol::Grpc),
    (5, AppProtocol::Tls),
];
const HEALTH: &[(u32, Health)] = &[(0, Health::NotReady), (1, Health::Draining), (2, Health::Ready)];
impl From<&Workload> for wire::Workload {
    fn from(it: &Workload) -> Self {
        wire::Workload {
            name: it.name.to_string(),
            uid: it.uid.to_string(),
            key: Some(key_out(&it.key)),
            service_account: it.service_account.to_string(),
            node: it.node.to_string(),
            addresses: it.addresses.iter().map(|address| address_out(*address)).collect(),
            status: number(it.status, STATUS),
            tunnel: number(it.tunnel, TUNNEL),
            zone: it.zone.to_string(),
            region: it.region.to_string(),
            canonical_name: it.canonical_name.to_string(),
            canonical_kind: it.canonical_kind.to_string(),
            app: it.app.to_string(),
            revision: it.revision.to_string(),
            authorization_policies: keys_out(&it.authorization_policies),
            peer_authentications: keys_out(&it.peer_authentications),
            request_authentications: keys_out(&it.request_authentications),
            labels: labels_out(&it.labels),
        }
    }
}

impl TryFrom<wire::Workload> for Workload {
    type Error = DecodeError;
    fn try_from(it: wire::Workload) -> Result<Self, DecodeError> {
        if it.name.is_empty() {
            return Err(DecodeError::Missing("name"));
        }
        Ok(Workload {
            name: it.name.into(),
            uid: it.uid.into(),
            key: key_in(it.key, "key")?,
            service_account: it.service_account.into(),
            node: it.node.into(),
            addresses: it.addresses.iter().map(|bytes| address_in(bytes)).collect::<Result<_, _>>()?,
            status: pick(it.status, "status", STATUS)?,
            tunnel: pick(it.tunnel, "tunnel", TUNNEL)?,
            zone: it.zone.into(),
            region: it.region.into(),
            canonical_name: it.canonical_name.into(),
            canonical_kind: it.canonical_kind.into(),
            app: it.app.into(),
            revision: it.revision.into(),
            authorization_policies: keys_in(it.authorization_policies, "authorization_policies")?,
            peer_authentications: keys_in(it.peer_authentications, "peer_authentications")?,
            request_authentications: keys_in(it.request_authentications, "request_authentications")?,
            labels: labels_in(it.labels),
        })
    }
}

impl From<&Service> for wire::Service {
    fn from(it: &Service) -> Self {
        let port = |port: &ServicePort| wire::ServicePort {
            port: port.port.into(),
            name: port.name.to_string(),
            transport: number(port.transport, TRANSPORT),
            app_protocol: number(port.app_protocol, APP_PROTOCOL),
            node_port: port.node_port.into(),
            traffic: port.traffic.as_ref().map(|policy| (&**policy).into()),
            tls: port.tls.as_deref().map(Into::into),
            through: port.through,
            for_callers: port
                .for_callers
                .iter()
                .map(|it| wire::traffic::CallerTraffic {
                    namespace: it.namespace.to_string(),
                    labels: labels_out(&it.labels),
                    traffic: it.traffic.as_ref().map(|policy| (&**policy).into()),
                })
                .collect(),
        };
        wire::Service {
            key: Some(key_out(&it.key)),
            vips: it.vips.iter().map(|address| address_out(*address)).collect(),
            hostnames: strings(&it.hostnames),
            ports: it.ports.iter().map(port).collect(),
            headless: it.headless,
            affinity_s: it.affinity_s,
            publish_not_ready: it.publish_not_ready,
            external_name: it.external_name.as_ref().map(ToString::to_string),
            subset_of: it.subset_of.as_ref().map(key_out),
            outside: it.outside,
            export_to: strings(&it.export_to),
            blocks: it.blocks.iter().map(ToString::to_string).collect(),
            created: it.created.0,
        }
    }
}

impl TryFrom<wire::Service> for Service {
    type Error = DecodeError;
    fn try_from(it: wire::Service) -> Result<Self, DecodeError> {
        let caller = |it: wire::traffic::CallerTraffic| {
            Ok(CallerTraffic {
                namespace: it.namespace.into(),
                labels: labels_in(it.labels),
                traffic: it.traffic.map(|it| it.try_into().map(Arc::new)).transpose()?,
            })
        };
        let port = |port: wire::ServicePort| {
            Ok(ServicePort {
                port: port_in(port.port, "port")?,
                name: port.name.into(),
                transport: pick(port.transport, "transport", TRANSPORT)?,
                app_protocol: pick(port.app_protocol, "app_protocol", APP_PROTOCOL)?,
                node_port: port_in(port.node_port, "node_port")?,
                traffic: port.traffic.map(|it| it.try_into().map(Arc::new)).transpose()?,
                tls: port.tls.map(TryInto::try_into).transpose()?.map(Arc::new),
                through: port.through,
                for_callers: port.for_callers.into_iter().map(caller).collect::<Result<_, DecodeError>>()?,
            })
        };
        Ok(Service {
            key: key_in(it.key, "key")?,
            vips: it.vips.iter().map(|bytes| address_in(bytes)).collect::<Result<_, _>>()?,
            hostnames: arcs(it.hostnames),
            ports: it.ports.into_iter().map(port).collect::<Result<_, DecodeError>>()?,
            headless: it.headless,
            affinity_s: it.affinity_s,
            outside: it.outside,
            export_to: arcs(it.export_to),
            blocks: it.blocks.iter().map(|text| subnet_in(text)).collect::<Result<_, _>>()?,
            created: Timestamp(it.created),
            publish_not_ready: it.publish_not_ready,
            external_name: it.external_name.map(Into::into),
            subset_of: it.subset_of.map(|key| key_in(Some(key), "subset_of")).transpose()?,
        })
    }
}

impl From<&EndpointGroup> for wire::Endpoints {
    fn from(it: &EndpointGroup) -> Self {
        let endpoint = |endpoint: &Endpoint| wire::Endpoint {
            address: address_out(endpoint.address),
            workload: endpoint.workload.to_string(),
            health: number(endpoint.health, HEALTH),
            weight: if endpoint.weight == 1 { 0 } else { endpoint.weight },
            region: endpoint.region.to_string(),
            zone: endpoint.zone.to_string(),
            node: endpoint.node.to_string(),
            hostname: endpoint.hostname.to_string(),
        };
        wire::Endpoints {
            key: Some(key_out(&it.key)),
            service: Some(key_out(&it.service)),
            ports: it
                .ports
                .iter()
                .map(|(name, port)| wire::EndpointPort { name: name.to_string(), port: u32::from(*port) })
                .collect(),
            endpoints: it.endpoints.iter().map(endpoint).collect(),
        }
    }
}

impl TryFrom<wire::Endpoints> for EndpointGroup {
    type Error = DecodeError;
    fn try_from(it: wire::Endpoints) -> Result<Self, DecodeError> {
        let endpoint = |endpoint: wire::Endpoint| {
            Ok(Endpoint {
                address: address_in(&endpoint.address)?,
                workload: endpoint.workload.into(),
                health: pick(endpoint.health, "health", HEALTH)?,
                weight: endpoint.weight.max(1),
                region: endpoint.region.into(),
                zone: endpoint.zone.into(),
                node: endpoint.node.into(),
                hostname: endpoint.hostname.into(),
            })
        };
        Ok(EndpointGroup {
            key: key_in(it.key, "key")?,
            service: key_in(it.service, "service")?,
            ports: it
                .ports
                .into_iter()
                .map(|port| Ok((port.name.into(), port_in(port.port, "port")?)))
                .collect::<Result<_, DecodeError>>()?,
            endpoints: it.endpoints.into_iter().map(endpoint).collect::<Result<_, DecodeError>>()?,
        })
    }
}
