//! Listeners, a gateway's own and those that ListenerSets add: what is wrong with each, and which of them exclude one another.

use super::Compiler;
use super::gateway::{Flaw, GROUP, route_kind_name};
use super::status::Condition;
use model::mesh::api::{self, AllowedNamespaces, FrontendValidation, ListenerSpec, Reference};
use model::mesh::{ClientValidation, Hostname, Listener, ListenerProtocol, RouteKind, TlsMode};
use model::{Key, Labels};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A listener as far as it could be understood. Routes look at it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ListenerState {
    /// Unique in the gateway.
    pub(super) name: Arc<str>,
    /// As its object names it.
    pub(super) section: Arc<str>,
    /// The ListenerSet that adds it; none: the gateway has it itself.
    pub(super) set: Option<Key>,
    pub(super) port: u16,
    pub(super) protocol: Option<ListenerProtocol>,
    pub(super) hostname: Option<Hostname>,
    pub(super) allowed_namespaces: AllowedNamespaces,
    pub(super) kinds: Vec<RouteKind>,
    pub(super) on_nodes: bool,
    certificates: Vec<Key>,
    tls: TlsMode,
    clients: Option<ClientValidation>,
    pub(super) accepted: Result<(), Flaw>,
    pub(super) conflict: Option<Flaw>,
    resolved: Result<(), Flaw>,
}

/// Whose listener it is: the kind, for grants, and the object.
#[derive(Clone, Copy)]
pub(super) struct Owner<'a> {
    pub(super) gateway: &'a api::Gateway,
    pub(super) set: Option<&'a Key>,
}

impl Owner<'_> {
    fn kind(&self) -> &'static str {
        if self.set.is_some() { "ListenerSet" } else { "Gateway" }
    }
    fn key(&self) -> &Key {
        self.set.unwrap_or(&self.gateway.meta.key)
    }
}

impl ListenerState {
    /// Whether it ends TLS.
    pub(super) fn ends_tls(&self) -> bool {
        self.tls == TlsMode::Terminate
    }

    /// Whether it is one that could listen: others make way for it.
    pub(super) fn is_valid(&self) -> bool {
        self.accepted.is_ok() && self.conflict.is_none()
    }

    /// Whether it listens.
    pub(super) fn is_usable(&self) -> bool {
        let certified = self.tls != TlsMode::Terminate || !self.certificates.is_empty();
        self.is_valid() && certified && !self.kinds.is_empty()
    }

    /// What proxies are told of it, if it listens.
    pub(super) fn compiled(&self) -> Option<Listener> {
        let protocol = self.protocol.filter(|_| self.is_usable())?;
        Some(Listener {
            name: self.name.clone(),
            port: self.port,
            protocol,
            hostname: self.hostname.clone(),
            certificates: self.certificates.clone(),
            tls: self.tls,
            on_nodes: self.on_nodes,
            clients: self.clients.clone(),
            proxy_protocol: false,
        })
    }

    pub(super) fn conditions(&self) -> Vec<Condition> {
        let accepted = match (&self.accepted, &self.conflict) {
            (Err((reason, message)), _) => Condition::bad("Accepted", reason, message),
            // Gateway API: a conflicted listener is not accepted, with the conflict's reason.
            (Ok(()), Some((reason, message))) => Condition::bad("Accepted", reason, message),
            (Ok(()), None) => Condition::good("Accepted", "Accepted", "the listener is valid"),
        };
        let conflicted = match &self.conflict {
            Some((reason, message)) => Condition::good("Conflicted", reason, message),
            None => Condition::bad("Conflicted", "NoConflicts", "no other listener of the gateway claims the same"),
        };
        let resolved = match &self.resolved {
            Err((reason, message)) => Condition::bad("ResolvedRefs", reason, message),
            Ok(()) => Condition::good("ResolvedRefs", "ResolvedRefs", "all references are resolved"),
        };
        let programmed = match (&self.conflict, self.is_usable()) {
            (_, true) => Condition::good("Programmed", "Programmed", "the configuration is sent to the proxies"),
            (Some((reason, message)), _) => Condition::bad("Programmed", reason, message),
            (None, false) => {
                Condition::bad("Programmed", "Invalid", "the listener cannot be served, see its other conditions")
            }
        };
        vec![accepted, conflicted, resolved, programmed]
    }
}

impl Compiler {
    pub(super) fn listener(&self, owner: Owner<'_>, spec: &ListenerSpec) -> ListenerState {
        let (protocol, supported): (_, &[RouteKind]) = match &*spec.protocol {
            "HTTP" => (Some(ListenerProtocol::Http), &[RouteKind::Http, RouteKind::Grpc]),
            "HTTPS" => (Some(ListenerProtocol::Https), &[RouteKind::Http, RouteKind::Grpc]),
            "TLS" => (Some(ListenerProtocol::Tls), &[RouteKind::Tls]),
            "TCP" => (Some(ListenerProtocol::Tcp), &[RouteKind::Tcp]),
            "UDP" => (Some(ListenerProtocol::Udp), &[RouteKind::Udp]),
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
                match self.certificate((owner.kind(), owner.key()), reference) {
                    Ok(key) => certificates.push(key),
                    Err(flaw) => resolved = Err(flaw),
                }
            }
        }
        let mut clients = None;
        if protocol == Some(ListenerProtocol::Https)
            && let Some(validation) = frontend(owner.gateway, spec.port)
        {
            match self.clients(owner.gateway, validation) {
                Ok(found) => clients = Some(found),
                Err((reason, message)) => {
                    accepted = Err(("NoValidCACertificate", message.clone()));
                    resolved = Err((reason, message));
                }
            }
        }
        let name = match owner.set {
            Some(set) => format!("{set}/{}", spec.name).into(),
            None => spec.name.clone(),
        };
        ListenerState {
            name,
            section: spec.name.clone(),
            set: owner.set.cloned(),
            port: spec.port,
            protocol,
            hostname: Hostname::new(&spec.hostname),
            allowed_namespaces: spec.allowed_namespaces.clone(),
            kinds,
            on_nodes: false,
            certificates,
            tls,
            clients,
            accepted,
            conflict: None,
            resolved,
        }
    }

    /// The TLS secret that an object refers to. `from`: the object's kind and key.
    pub(super) fn certificate(&self, from: (&str, &Key), reference: &Reference) -> Result<Key, Flaw> {
        let key = reference.key(&from.1.namespace);
        if !reference.is("", "Secret") {
            let what = format!("{}/{}", reference.group, reference.kind);
            return Err(("InvalidCertificateRef", format!("{what} {key}: only Secrets hold certificates")));
        }
        if !self.permitted((GROUP, from.0, &from.1.namespace), reference, &key.namespace) {
            return Err(("RefNotPermitted", format!("no ReferenceGrant in {} permits Secret {key}", key.namespace)));
        }
        match self.objects.secrets.get(&key).filter(|secret| !secret.generic) {
            None => Err(("InvalidCertificateRef", format!("there is no Secret {key} of type kubernetes.io/tls"))),
            Some(secret) if !secret.flaw.is_empty() => {
                Err(("InvalidCertificateRef", format!("Secret {key}: {}", secret.flaw)))
            }
            Some(_) => Ok(key),
        }
    }

    /// The roots that can be used; if there is none, why the first cannot.
    fn clients(&self, gateway: &api::Gateway, validation: &FrontendValidation) -> Result<ClientValidation, Flaw> {
        let mut roots = Vec::new();
        let mut first = None;
        for reference in &validation.roots {
            match self.frontend_root(&gateway.meta.key, reference) {
                Ok(root) => roots.push(root),
                Err(flaw) => drop(first.get_or_insert(flaw)),
            }
        }
        if roots.is_empty() {
            let none = || ("InvalidCACertificateRef", "caCertificateRefs names no certificate".to_owned());
            return Err(first.unwrap_or_else(none));
        }
        Ok(ClientValidation { roots, insecure_fallback: validation.insecure_fallback })
    }

    fn frontend_root(&self, gateway: &Key, reference: &Reference) -> Result<Arc<str>, Flaw> {
        let key = reference.key(&gateway.namespace);
        if !reference.is("", "ConfigMap") {
            let what = format!("{}/{}", reference.group, reference.kind);
            return Err(("InvalidCACertificateKind", format!("{what} {key}: only ConfigMaps hold roots")));
        }
        if !self.permitted((GROUP, "Gateway", &gateway.namespace), reference, &key.namespace) {
            return Err(("RefNotPermitted", format!("no ReferenceGrant in {} permits ConfigMap {key}", key.namespace)));
        }
        self.root(&key).map_err(|message| ("InvalidCACertificateRef", message))
    }

    /// Certificates to trust, out of a ConfigMap.
    pub(super) fn root(&self, key: &Key) -> Result<Arc<str>, String> {
        match self.objects.roots.get(key) {
            None => Err(format!("there is no ConfigMap {key} with ca.crt")),
            Some(bundle) if !bundle.flaw.is_empty() => Err(format!("ConfigMap {key}: {}", bundle.flaw)),
            Some(bundle) => Ok(bundle.roots.clone()),
        }
    }

    /// Whether objects of a namespace are among those that are allowed, seen from `own`.
    pub(super) fn lets_in(&self, allowed: &AllowedNamespaces, own: &str, namespace: &Arc<str>) -> bool {
        match allowed {
            AllowedNamespaces::All => true,
            AllowedNamespaces::Same => own == &**namespace,
            AllowedNamespaces::Nobody => false,
            AllowedNamespaces::Selector(selector) => {
                let none = Labels::new();
                let key = Key { namespace: "".into(), name: namespace.clone() };
                selector.matches(self.objects.namespaces.get(&key).map_or(&none, |it| &it.labels))
            }
        }
    }
}

/// What holds for clients on a port.
fn frontend(gateway: &api::Gateway, port: u16) -> Option<&FrontendValidation> {
    let own = gateway.frontend_ports.iter().find(|(of, _)| *of == port);
    own.map_or(gateway.frontend.as_ref(), |(_, validation)| validation.as_ref())
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

/// Why two listeners of one gateway cannot both be: on one port they must differ in hostname, and in protocol only where TLS (or the
/// transport) tells them apart.
fn clash(this: &ListenerState, other: &ListenerState) -> Option<Flaw> {
    let (Some(a), Some(b)) = (this.protocol, other.protocol) else { return None };
    if other.port != this.port || (a == ListenerProtocol::Udp) != (b == ListenerProtocol::Udp) {
        return None;
    }
    if !share_port(a, b) {
        let message = format!("listener {} has port {} with another protocol", other.name, other.port);
        return Some(("ProtocolConflict", message));
    }
    (this.hostname == other.hostname).then(|| {
        ("HostnameConflict", format!("listener {} has port {} with the same hostname", other.name, other.port))
    })
}

/// Marks those of a gateway's own listeners that exclude one another: none of them is better than the others.
pub(super) fn mark_conflicts(listeners: &mut [ListenerState]) {
    for index in 0..listeners.len() {
        let this = &listeners[index];
        let others = listeners.iter().enumerate().filter(|(other, _)| *other != index);
        let conflict = others.map(|(_, other)| other).find_map(|other| clash(this, other));
        listeners[index].conflict = conflict;
    }
}

/// Adds a ListenerSet's listener to those before it, which win.
pub(super) fn add_listener(listeners: &mut Vec<ListenerState>, mut new: ListenerState) {
    let before = listeners.iter().filter(|other| other.conflict.is_none());
    new.conflict = before.into_iter().find_map(|other| clash(&new, other));
    listeners.push(new);
}

/// Whether two protocols can share a port: the same one told apart by host, or both told apart by SNI.
fn share_port(a: ListenerProtocol, b: ListenerProtocol) -> bool {
    use ListenerProtocol::{Http, Https, Tls};
    matches!((a, b), (Http, Http) | (Https | Tls, Https | Tls))
}

/// Who has which port of the nodes' own addresses, over all gateways.
#[derive(Default)]
pub(super) struct Claims {
    ports: BTreeMap<u16, Vec<(Key, ListenerProtocol, Option<Hostname>)>>,
}

impl Claims {
    /// Claims a listener's port.
    ///
    /// # Errors
    /// An older gateway has it.
    pub(super) fn claim(&mut self, gateway: &Key, listener: &ListenerState) -> Result<(), Flaw> {
        let Some(protocol) = listener.protocol else { return Ok(()) };
        let claimed = self.ports.entry(listener.port).or_default();
        let udp = |it: ListenerProtocol| it == ListenerProtocol::Udp;
        let other = claimed.iter().find(|(owner, other, hostname)| {
            owner != gateway
                && udp(protocol) == udp(*other)
                && (!share_port(protocol, *other) || *hostname == listener.hostname)
        });
        if let Some((owner, ..)) = other {
            let message = format!("port {} of the nodes is taken by the older Gateway {owner}", listener.port);
            return Err(("PortUnavailable", message));
        }
        claimed.push((gateway.clone(), protocol, listener.hostname.clone()));
        Ok(())
    }
}
