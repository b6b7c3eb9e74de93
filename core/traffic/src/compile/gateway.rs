//! Classes, gateways and their listeners.

use super::status::{ClassStatus, Condition, FEATURES, GatewayStatus, ListenerStatus};
use super::{Compiler, Output, Unit};
use model::Key;
use model::mesh::api::{self, AllowedNamespaces, ListenerSpec};
use model::mesh::{
    Gateway, Hostname, Listener, ListenerProtocol, Resource, ResourceKind, RouteKind, TlsMode, TlsSecret,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// Gateway API's group.
pub(super) const GROUP: &str = "gateway.networking.k8s.io";

/// Why something does not hold.
type Flaw = (&'static str, String);

/// A listener as far as it could be understood. Routes look at it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ListenerState {
    pub(super) name: Arc<str>,
    pub(super) port: u16,
    pub(super) protocol: Option<ListenerProtocol>,
    pub(super) hostname: Option<Hostname>,
    pub(super) allowed_namespaces: AllowedNamespaces,
    pub(super) kinds: Vec<RouteKind>,
    certificates: Vec<Key>,
    tls: TlsMode,
    accepted: Result<(), Flaw>,
    conflict: Option<Flaw>,
    resolved: Result<(), Flaw>,
}

impl ListenerState {
    /// Whether it listens.
    pub(super) fn is_usable(&self) -> bool {
        let certified = self.tls != TlsMode::Terminate || !self.certificates.is_empty();
        self.accepted.is_ok() && self.conflict.is_none() && certified && !self.kinds.is_empty()
    }
}

/// Name of a kind of route.
pub(super) fn route_kind_name(kind: RouteKind) -> &'static str {
    match kind {
        RouteKind::Http => "HTTPRoute",
        RouteKind::Grpc => "GRPCRoute",
        RouteKind::Tls => "TLSRoute",
        RouteKind::Tcp => "TCPRoute",
        RouteKind::Udp => "UDPRoute",
    }
}

impl Compiler {
    pub(super) fn compile_class(&mut self, key: &Key, output: &mut Output) {
        let ours = self.objects.classes.get(key).filter(|class| class.controller == self.settings.controller_name);
        let Some(class) = ours else {
            self.class_statuses.remove(key);
            return;
        };
        let accepted = if class.has_parameters {
            Condition::bad("Accepted", "InvalidParameters", "this class takes no parameters")
        } else {
            Condition::good("Accepted", "Accepted", "gateways of this class are served")
        };
        let supported = Condition::good("SupportedVersion", "SupportedVersion", "Gateway API v1 is served");
        let status = ClassStatus {
            generation: class.meta.generation,
            conditions: vec![accepted, supported],
            features: FEATURES,
        };
        if self.class_statuses.get(key) != Some(&status) {
            self.class_statuses.insert(key.clone(), status.clone());
            output.classes.insert(key.clone(), status);
        }
    }

    /// Whether gateways of this class are ours to serve.
    fn serves(&self, class: &Arc<str>) -> bool {
        self.objects
            .classes
            .get(&Key { namespace: "".into(), name: class.clone() })
            .is_some_and(|class| class.controller == self.settings.controller_name && !class.has_parameters)
    }

    /// All gateways at once: they share the nodes' ports, and the older one has a port that two want.
    pub(super) fn compile_listeners(&mut self, output: &mut Output) {
        let mut order: Vec<&api::Gateway> =
            self.objects.gateways.values().filter(|gateway| self.serves(&gateway.class)).collect();
        order.sort_by_key(|gateway| (gateway.meta.created, gateway.meta.key.clone()));
        let mut claims = Claims::default();
        let mut states = BTreeMap::new();
        for gateway in order {
            let mut listeners: Vec<ListenerState> =
                gateway.listeners.iter().map(|spec| self.listener(&gateway.meta.key, spec)).collect();
            mark_conflicts(&mut listeners);
            for listener in &mut listeners {
                if listener.accepted.is_ok() && listener.conflict.is_none() {
                    listener.accepted = claims.claim(&gateway.meta.key, listener);
                }
            }
            states.insert(gateway.meta.key.clone(), listeners);
        }
        self.apply_listeners(states, output);
    }

    fn apply_listeners(&mut self, states: BTreeMap<Key, Vec<ListenerState>>, output: &mut Output) {
        let known: BTreeSet<Key> = self.listeners.keys().chain(states.keys()).cloned().collect();
        let old = std::mem::replace(&mut self.listeners, states);
        let mut secrets = BTreeSet::new();
        for key in known {
            if old.get(&key) != self.listeners.get(&key) {
                self.touch_routes_of(&key);
            }
            // Its addresses are the nodes', so its status may change without it.
            self.dirty.insert(Unit::GatewayStatus(key.clone()));
            let gateway =
                self.objects.gateways.get(&key).zip(self.listeners.get(&key)).map(|(gateway, states)| Gateway {
                    key: key.clone(),
                    listeners: states.iter().filter_map(compiled).collect(),
                    service_account: format!("{}-{}", key.name, gateway.class).into(),
                    authorization_policies: self.policies_of_gateway(gateway),
                });
            let gateway = gateway.filter(|gateway| !gateway.listeners.is_empty());
            secrets.extend(gateway.iter().flat_map(|it| &it.listeners).flat_map(|it| it.certificates.clone()));
            self.tell(
                ResourceKind::Gateway,
                key.to_string(),
                gateway.map(|it| Resource::Gateway(Arc::new(it))),
                output,
            );
        }
        self.tell_secrets(&secrets, output);
    }

    /// Only the certificates that a listener uses leave the control plane.
    fn tell_secrets(&mut self, wanted: &BTreeSet<Key>, output: &mut Output) {
        let told: Vec<String> = self
            .told
            .range((ResourceKind::Secret, String::new())..)
            .take_while(|((kind, _), _)| *kind == ResourceKind::Secret)
            .map(|((_, name), _)| name.clone())
            .collect();
        let names: BTreeSet<String> = wanted.iter().map(ToString::to_string).collect();
        for name in told.into_iter().filter(|name| !names.contains(name)) {
            self.tell(ResourceKind::Secret, name, None, output);
        }
        for key in wanted {
            let secret = self.objects.secrets.get(key).map(|secret| {
                Resource::Secret(Arc::new(TlsSecret {
                    key: key.clone(),
                    certificate_chain: secret.certificate_chain.clone(),
                    private_key: secret.private_key.clone(),
                }))
            });
            self.tell(ResourceKind::Secret, key.to_string(), secret, output);
        }
    }

    fn listener(&self, gateway: &Key, spec: &ListenerSpec) -> ListenerState {
        let (protocol, supported): (_, &[RouteKind]) = match &*spec.protocol {
            "HTTP" => (Some(ListenerProtocol::Http), &[RouteKind::Http, RouteKind::Grpc]),
            "HTTPS" => (Some(ListenerProtocol::Https), &[RouteKind::Http, RouteKind::Grpc]),
            "TLS" => (Some(ListenerProtocol::Tls), &[RouteKind::Tls]),
            "TCP" => (Some(ListenerProtocol::Tcp), &[RouteKind::Tcp]),
            _ => (None, &[]),
        };
        let mut accepted = match protocol {
            Some(_) => Ok(()),
            None => Err(("UnsupportedProtocol", format!("protocol {} is not served", spec.protocol))),
        };
        if self.settings.reserved_ports.contains(&spec.port) {
            accepted = Err(("PortUnavailable", format!("port {} is the platform's own", spec.port)));
        }
        let tls = match (protocol, spec.tls_mode.as_deref()) {
            (Some(ListenerProtocol::Https), Some("Passthrough")) => {
                accepted =
                    Err(("UnsupportedValue", "an HTTPS listener cannot pass TLS through; use protocol TLS".into()));
                TlsMode::Passthrough
            }
            (Some(ListenerProtocol::Tls), Some("Passthrough")) => TlsMode::Passthrough,
            (Some(ListenerProtocol::Https | ListenerProtocol::Tls), _) => TlsMode::Terminate,
            _ => TlsMode::None,
        };
        let (kinds, mut resolved) = allowed_kinds(spec, supported);
        let mut certificates = Vec::new();
        if tls == TlsMode::Terminate {
            if spec.certificates.is_empty() {
                resolved = Err(("InvalidCertificateRef", "tls.certificateRefs names no certificate".into()));
            }
            for reference in &spec.certificates {
                match self.certificate(gateway, reference) {
                    Ok(key) => certificates.push(key),
                    Err(flaw) => resolved = Err(flaw),
                }
            }
        }
        ListenerState {
            name: spec.name.clone(),
            port: spec.port,
            protocol,
            hostname: Hostname::new(&spec.hostname),
            allowed_namespaces: spec.allowed_namespaces.clone(),
            kinds,
            certificates,
            tls,
            accepted,
            conflict: None,
            resolved,
        }
    }

    fn certificate(&self, gateway: &Key, reference: &api::Reference) -> Result<Key, Flaw> {
        let key = reference.key(&gateway.namespace);
        if !reference.is("", "Secret") {
            let what = format!("{}/{}", reference.group, reference.kind);
            return Err(("InvalidCertificateRef", format!("{what} {key}: only Secrets hold certificates")));
        }
        if !self.permitted((GROUP, "Gateway", &gateway.namespace), reference, &key.namespace) {
            return Err(("RefNotPermitted", format!("no ReferenceGrant in {} permits Secret {key}", key.namespace)));
        }
        match self.objects.secrets.get(&key) {
            None => Err(("InvalidCertificateRef", format!("there is no Secret {key} of type kubernetes.io/tls"))),
            Some(secret) if !secret.flaw.is_empty() => {
                Err(("InvalidCertificateRef", format!("Secret {key}: {}", secret.flaw)))
            }
            Some(_) => Ok(key),
        }
    }

    pub(super) fn compile_gateway_status(&mut self, key: &Key, output: &mut Output) {
        let Some((gateway, states)) = self.objects.gateways.get(key).zip(self.listeners.get(key)) else {
            self.gateway_statuses.remove(key);
            return;
        };
        let listeners: Vec<ListenerStatus> = states
            .iter()
            .map(|state| ListenerStatus {
                name: state.name.clone(),
                kinds: state.kinds.iter().map(|kind| route_kind_name(*kind)).collect(),
                attached: self.attached.get(&(key.clone(), state.name.clone())).map_or(0, |set| set.len() as u32),
                conditions: listener_conditions(state),
            })
            .collect();
        let (addresses, address_flaw) = self.gateway_addresses(gateway);
        let status = GatewayStatus {
            generation: gateway.meta.generation,
            conditions: gateway_conditions(states, &addresses, address_flaw),
            addresses,
            listeners,
        };
        if self.gateway_statuses.get(key) != Some(&status) {
            self.gateway_statuses.insert(key.clone(), status.clone());
            output.gateways.insert(key.clone(), status);
        }
    }

    /// Every node serves every gateway, so its addresses are the nodes'; a gateway may ask for some of them only.
    fn gateway_addresses(&self, gateway: &api::Gateway) -> (Vec<IpAddr>, Option<Condition>) {
        let nodes = self.node_addresses();
        let mut wanted = Vec::new();
        for (kind, value) in &gateway.addresses {
            let address = value.parse::<IpAddr>().ok().filter(|_| &**kind == "IPAddress");
            match address {
                None if value.is_empty() => {}
                None => {
                    let message = format!("address {value:?} of type {kind} is not supported");
                    return (Vec::new(), Some(Condition::bad("Accepted", "UnsupportedAddress", message)));
                }
                Some(address) if nodes.contains(&address) => wanted.push(address),
                Some(address) => {
                    let message = format!("{address} is no node's address");
                    return (Vec::new(), Some(Condition::bad("Programmed", "AddressNotUsable", message)));
                }
            }
        }
        (if wanted.is_empty() { nodes } else { wanted }, None)
    }
}

fn compiled(state: &ListenerState) -> Option<Listener> {
    let protocol = state.protocol.filter(|_| state.is_usable())?;
    Some(Listener {
        name: state.name.clone(),
        port: state.port,
        protocol,
        hostname: state.hostname.clone(),
        certificates: state.certificates.clone(),
        tls: state.tls,
    })
}

/// The kinds that a listener takes, of those that its protocol can.
fn allowed_kinds(spec: &ListenerSpec, supported: &[RouteKind]) -> (Vec<RouteKind>, Result<(), Flaw>) {
    if spec.allowed_kinds.is_empty() {
        return (supported.to_vec(), Ok(()));
    }
    let mut kinds = Vec::new();
    let mut resolved = Ok(());
    for (group, kind) in &spec.allowed_kinds {
        let found = supported.iter().find(|it| &**group == GROUP && route_kind_name(**it) == &**kind);
        match found {
            Some(found) if !kinds.contains(found) => kinds.push(*found),
            Some(_) => {}
            None => {
                let message = format!("kind {kind} of group {group:?} cannot attach to protocol {}", spec.protocol);
                resolved = Err(("InvalidRouteKinds", message));
            }
        }
    }
    (kinds, resolved)
}

/// Listeners of one gateway must differ: on one port in hostname, and in protocol only where TLS tells them apart.
fn mark_conflicts(listeners: &mut [ListenerState]) {
    for index in 0..listeners.len() {
        let this = &listeners[index];
        let conflict = listeners.iter().enumerate().find_map(|(other_index, other)| {
            if other_index == index || other.port != this.port {
                return None;
            }
            let (Some(a), Some(b)) = (this.protocol, other.protocol) else { return None };
            if !share_port(a, b) {
                let message = format!("listener {} has port {} with another protocol", other.name, other.port);
                return Some(("ProtocolConflict", message));
            }
            (this.hostname == other.hostname).then(|| {
                ("HostnameConflict", format!("listener {} has port {} with the same hostname", other.name, other.port))
            })
        });
        listeners[index].conflict = conflict;
    }
}

/// Whether two protocols can share a port: the same one told apart by host, or both told apart by SNI.
fn share_port(a: ListenerProtocol, b: ListenerProtocol) -> bool {
    use ListenerProtocol::{Http, Https, Tls};
    matches!((a, b), (Http, Http) | (Https | Tls, Https | Tls))
}

/// Who has which port, over all gateways.
#[derive(Default)]
struct Claims {
    ports: BTreeMap<u16, Vec<(Key, ListenerProtocol, Option<Hostname>)>>,
}

impl Claims {
    fn claim(&mut self, gateway: &Key, listener: &ListenerState) -> Result<(), Flaw> {
        let Some(protocol) = listener.protocol else { return Ok(()) };
        let claimed = self.ports.entry(listener.port).or_default();
        let other = claimed.iter().find(|(owner, other, hostname)| {
            owner != gateway && (!share_port(protocol, *other) || *hostname == listener.hostname)
        });
        if let Some((owner, ..)) = other {
            let message = format!("port {} of the nodes is taken by the older Gateway {owner}", listener.port);
            return Err(("PortUnavailable", message));
        }
        claimed.push((gateway.clone(), protocol, listener.hostname.clone()));
        Ok(())
    }
}

fn listener_conditions(state: &ListenerState) -> Vec<Condition> {
    let accepted = match (&state.accepted, &state.conflict) {
        (Err((reason, message)), _) => Condition::bad("Accepted", reason, message),
        // Gateway API: a conflicted listener is not accepted, with the conflict's reason.
        (Ok(()), Some((reason, message))) => Condition::bad("Accepted", reason, message),
        (Ok(()), None) => Condition::good("Accepted", "Accepted", "the listener is valid"),
    };
    let conflicted = match &state.conflict {
        Some((reason, message)) => Condition::good("Conflicted", reason, message),
        None => Condition::bad("Conflicted", "NoConflicts", "no other listener of the gateway claims the same"),
    };
    let resolved = match &state.resolved {
        Err((reason, message)) => Condition::bad("ResolvedRefs", reason, message),
        Ok(()) => Condition::good("ResolvedRefs", "ResolvedRefs", "all references are resolved"),
    };
    let programmed = if state.is_usable() {
        Condition::good("Programmed", "Programmed", "the configuration is sent to the proxies")
    } else {
        Condition::bad("Programmed", "Invalid", "the listener cannot be served, see its other conditions")
    };
    vec![accepted, conflicted, resolved, programmed]
}

fn gateway_conditions(states: &[ListenerState], addresses: &[IpAddr], flaw: Option<Condition>) -> Vec<Condition> {
    let valid = |state: &&ListenerState| state.accepted.is_ok() && state.conflict.is_none();
    let (count, all) = (states.iter().filter(valid).count(), states.len());
    let accepted = match count {
        0 => Condition::bad("Accepted", "ListenersNotValid", "no listener is valid"),
        _ if count < all => Condition::good(
            "Accepted",
            "ListenersNotValid",
            format!("{} of {all} listeners are not valid", all - count),
        ),
        _ => Condition::good("Accepted", "Accepted", "the gateway is served by every node"),
    };
    let programmed = if !states.iter().any(ListenerState::is_usable) {
        Condition::bad("Programmed", "Invalid", "no listener can be served")
    } else if addresses.is_empty() {
        Condition::bad("Programmed", "AddressNotAssigned", "no node has an address yet")
    } else {
        Condition::good("Programmed", "Programmed", "the configuration is sent to the proxies")
    };
    match flaw {
        Some(flaw) if flaw.kind == "Accepted" => {
            let programmed = Condition::bad("Programmed", "Invalid", flaw.message.clone());
            vec![flaw, programmed]
        }
        Some(flaw) => vec![accepted, flaw],
        None => vec![accepted, programmed],
    }
}
