//! Gateways and what is spoken under TLS on either side of them.

use super::{
    DecodeError, address_in, address_out, arcs, key_in, key_out, keys_in, keys_out, number, pick, port_in, strings,
};
use crate::resources as wire;
use model::mesh::{BackendTls, ClientValidation, Gateway, Hostname, Listener, ListenerProtocol, SubjectName, TlsMode};

const LISTENER_PROTOCOL: &[(u32, ListenerProtocol)] = &[
    (1, ListenerProtocol::Http),
    (2, ListenerProtocol::Https),
    (3, ListenerProtocol::Tls),
    (4, ListenerProtocol::Tcp),
    (5, ListenerProtocol::Udp),
];
const TLS_MODE: &[(u32, TlsMode)] = &[(0, TlsMode::None), (1, TlsMode::Terminate), (2, TlsMode::Passthrough)];

impl From<&Gateway> for wire::Gateway {
    fn from(it: &Gateway) -> Self {
        let listener = |listener: &Listener| wire::Listener {
            name: listener.name.to_string(),
            port: listener.port.into(),
            protocol: number(listener.protocol, LISTENER_PROTOCOL),
            hostname: listener.hostname.as_ref().map(ToString::to_string).unwrap_or_default(),
            certificates: keys_out(&listener.certificates),
            tls: number(listener.tls, TLS_MODE),
            on_nodes: listener.on_nodes,
            clients: listener.clients.as_ref().map(|clients| wire::ClientValidation {
                roots: strings(&clients.roots),
                insecure_fallback: clients.insecure_fallback,
            }),
            proxy_protocol: listener.proxy_protocol,
        };
        wire::Gateway {
            key: Some(key_out(&it.key)),
            listeners: it.listeners.iter().map(listener).collect(),
            service_account: it.service_account.to_string(),
            authorization_policies: keys_out(&it.authorization_policies),
            addresses: it.addresses.iter().map(|address| address_out(*address)).collect(),
            client_certificate: it.client_certificate.as_ref().map(key_out),
        }
    }
}

impl TryFrom<wire::Gateway> for Gateway {
    type Error = DecodeError;
    fn try_from(it: wire::Gateway) -> Result<Self, DecodeError> {
        let listener = |listener: wire::Listener| {
            Ok(Listener {
                name: listener.name.into(),
                port: port_in(listener.port, "port")?,
                protocol: pick(listener.protocol, "protocol", LISTENER_PROTOCOL)?,
                hostname: Hostname::new(&listener.hostname),
                certificates: keys_in(listener.certificates, "certificates")?,
                tls: pick(listener.tls, "tls", TLS_MODE)?,
                on_nodes: listener.on_nodes,
                clients: listener.clients.map(|clients| ClientValidation {
                    roots: arcs(clients.roots),
                    insecure_fallback: clients.insecure_fallback,
                }),
                proxy_protocol: listener.proxy_protocol,
            })
        };
        let certificate = it.client_certificate.map(|key| key_in(Some(key), "client_certificate"));
        Ok(Gateway {
            key: key_in(it.key, "key")?,
            listeners: it.listeners.into_iter().map(listener).collect::<Result<_, DecodeError>>()?,
            service_account: it.service_account.into(),
            authorization_policies: keys_in(it.authorization_policies, "authorization_policies")?,
            addresses: it.addresses.iter().map(|bytes| address_in(bytes)).collect::<Result<_, _>>()?,
            client_certificate: certificate.transpose()?,
        })
    }
}

impl From<&BackendTls> for wire::BackendTls {
    fn from(it: &BackendTls) -> Self {
        let mut out = wire::BackendTls {
            hostname: it.hostname.to_string(),
            roots: strings(&it.roots),
            system_roots: it.system_roots,
            flaw: it.flaw.to_string(),
            certificate: it.certificate.as_ref().map(key_out),
            insecure: it.insecure,
            mesh: it.mesh,
            ..Default::default()
        };
        for name in &it.names {
            match name {
                SubjectName::Dns(name) => out.dns_names.push(name.to_string()),
                SubjectName::Uri(name) => out.uris.push(name.to_string()),
            }
        }
        out
    }
}

impl TryFrom<wire::BackendTls> for BackendTls {
    type Error = DecodeError;
    fn try_from(it: wire::BackendTls) -> Result<Self, DecodeError> {
        let dns = it.dns_names.into_iter().map(|name| SubjectName::Dns(name.into()));
        let uris = it.uris.into_iter().map(|name| SubjectName::Uri(name.into()));
        Ok(BackendTls {
            hostname: it.hostname.into(),
            roots: arcs(it.roots),
            system_roots: it.system_roots,
            names: dns.chain(uris).collect(),
            flaw: it.flaw.into(),
            certificate: it.certificate.map(|key| key_in(Some(key), "certificate")).transpose()?,
            insecure: it.insecure,
            mesh: it.mesh,
        })
    }
}
