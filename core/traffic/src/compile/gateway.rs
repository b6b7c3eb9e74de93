//! Classes, gateways, ListenerSets and their statuses.

use super::address::{self, Given};
use super::listener::{Claims, ListenerState, Owner, add_listener, mark_conflicts};
use super::status::{ClassStatus, Condition, FEATURES, GatewayStatus, ListenerStatus, SetStatus};
use super::{Compiler, Output, Unit};
use model::Key;
use model::mesh::api;
use model::mesh::{Gateway, Listener, Resource, ResourceKind, RouteKind, TlsSecret};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// Gateway API's group.
pub(super) const GROUP: &str = "gateway.networking.k8s.io";

/// Why something does not hold.
pub(super) type Flaw = (&'static str, String);

/// A ListenerSet of a gateway of ours.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SetState {
    pub(super) gateway: Key,
    /// Why the gateway does not take it.
    pub(super) refused: Option<Flaw>,
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

/// What compiling all gateways came to.
#[derive(Default)]
struct Compiled {
    listeners: BTreeMap<Key, Vec<ListenerState>>,
    sets: BTreeMap<Key, SetState>,
    given: BTreeMap<Key, Given>,
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

    /// All gateways at once: they share the nodes' ports and the range of addresses, and the older one has what two want.
    pub(super) fn compile_listeners(&mut self, output: &mut Output) {
        let mut order: Vec<&api::Gateway> =
            self.objects.gateways.values().filter(|gateway| self.serves(&gateway.class)).collect();
        order.sort_by_key(|gateway| (gateway.meta.created, gateway.meta.key.clone()));
        let mut compiled = Compiled {
            given: address::assign(&order, self.settings.gateway_addresses, &self.node_addresses(), &self.given),
            ..Compiled::default()
        };
        let mut sets: BTreeMap<Key, Vec<&api::ListenerSet>> = BTreeMap::new();
        for set in self.objects.sets.values().filter(|set| set.parent.is(GROUP, "Gateway")) {
            sets.entry(set.parent.key(&set.meta.key.namespace)).or_default().push(set);
        }
        let mut claims = Claims::default();
        for gateway in order {
            let key = &gateway.meta.key;
            let mut of_gateway = sets.remove(key).unwrap_or_default();
            of_gateway.sort_by_key(|set| (set.meta.created, set.meta.key.clone()));
            let mut listeners = self.listeners_of(gateway, &of_gateway, &mut compiled.sets);
            if let Some(given) = compiled.given.get(key) {
                claim_nodes(key, given, &mut listeners, &mut claims);
            }
            compiled.listeners.insert(key.clone(), listeners);
        }
        self.apply_listeners(compiled, output);
    }

    /// A gateway's own listeners, then those of its ListenerSets in their order of precedence.
    fn listeners_of(
        &self,
        gateway: &api::Gateway,
        sets: &[&api::ListenerSet],
        states: &mut BTreeMap<Key, SetState>,
    ) -> Vec<ListenerState> {
        let own = Owner { gateway, set: None };
        let mut listeners: Vec<ListenerState> = gateway.listeners.iter().map(|spec| self.listener(own, spec)).collect();
        mark_conflicts(&mut listeners);
        for set in sets {
            let key = &set.meta.key;
            let allowed = self.lets_in(&gateway.allowed_sets, &gateway.meta.key.namespace, &key.namespace);
            let refused = (!allowed).then(|| {
                (
                    "NotAllowed",
                    format!("Gateway {} takes no ListenerSets of namespace {}", gateway.meta.key, key.namespace),
                )
            });
            if refused.is_none() {
                for spec in &set.listeners {
                    add_listener(&mut listeners, self.listener(Owner { gateway, set: Some(key) }, spec));
                }
            }
            states.insert(key.clone(), SetState { gateway: gateway.meta.key.clone(), refused });
        }
        listeners
    }

    fn apply_listeners(&mut self, compiled: Compiled, output: &mut Output) {
        let known: BTreeSet<Key> = self.listeners.keys().chain(compiled.listeners.keys()).cloned().collect();
        let old = std::mem::replace(&mut self.listeners, compiled.listeners);
        let old_sets = std::mem::replace(&mut self.sets, compiled.sets);
        self.given = compiled.given;
        self.dirty.extend(old_sets.keys().chain(self.sets.keys()).cloned().map(Unit::SetStatus));
        let all: BTreeSet<&Key> = self.sets.keys().chain(old_sets.keys()).collect();
        let moved: Vec<Key> =
            all.into_iter().filter(|set| old_sets.get(*set) != self.sets.get(*set)).cloned().collect();
        moved.iter().for_each(|set| self.touch_routes_of(set));
        let mut secrets = BTreeSet::new();
        for key in known {
            if old.get(&key) != self.listeners.get(&key) {
                self.touch_routes_of(&key);
                let sets: Vec<Key> =
                    self.sets.iter().filter(|(_, set)| set.gateway == key).map(|(set, _)| set.clone()).collect();
                sets.iter().for_each(|set| self.touch_routes_of(set));
            }
            // Its addresses are the nodes', so its status may change without it.
            self.dirty.insert(Unit::GatewayStatus(key.clone()));
            let gateway = self.compiled_gateway(&key);
            secrets.extend(gateway.iter().flat_map(|it| &it.listeners).flat_map(|it| it.certificates.clone()));
            secrets.extend(gateway.iter().filter_map(|it| it.client_certificate.clone()));
            self.tell(
                ResourceKind::Gateway,
                key.to_string(),
                gateway.map(|it| Resource::Gateway(Arc::new(it))),
                output,
            );
        }
        secrets.extend(self.client_secrets());
        self.tell_secrets(&secrets, output);
    }

    fn compiled_gateway(&self, key: &Key) -> Option<Gateway> {
        let gateway = self.objects.gateways.get(key).filter(|gateway| !gateway.has_parameters)?;
        let states = self.listeners.get(key)?;
        let given = self.given.get(key).filter(|given| given.flaw.is_none())?;
        let listeners = states.iter().filter_map(|state| {
            let proxy_protocol = self.requires_proxy_protocol(key, state.set.is_none().then_some(&*state.section));
            Some(Listener { proxy_protocol, ..state.compiled()? })
        });
        let listeners: Vec<_> = listeners.collect();
        (!listeners.is_empty()).then(|| Gateway {
            key: key.clone(),
            listeners,
            service_account: service_account(gateway),
            authorization_policies: self.policies_of_gateway(gateway),
            addresses: given.own.clone(),
            client_certificate: self.client_certificate(gateway).ok().flatten(),
        })
    }

    /// The certificate that a gateway shows to backends.
    fn client_certificate(&self, gateway: &api::Gateway) -> Result<Option<Key>, Flaw> {
        let Some(reference) = &gateway.client_certificate else { return Ok(None) };
        match self.certificate(("Gateway", &gateway.meta.key), reference) {
            Ok(key) => Ok(Some(key)),
            Err(("RefNotPermitted", message)) => Err(("RefNotPermitted", message)),
            Err((_, message)) => Err(("InvalidClientCertificateRef", message)),
        }
    }

    /// Only the certificates that gateways and DestinationRules use leave the control plane.
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

    pub(super) fn compile_gateway_status(&mut self, key: &Key, output: &mut Output) {
        let Some((gateway, states)) = self.objects.gateways.get(key).zip(self.listeners.get(key)) else {
            self.gateway_statuses.remove(key);
            return;
        };
        let given = self.given.get(key).cloned().unwrap_or_default();
        let own: Vec<&ListenerState> = states.iter().filter(|state| state.set.is_none()).collect();
        let addresses = self.gateway_addresses(&given, states);
        let valid = |set: &&Key| states.iter().any(|state| state.set.as_ref() == Some(*set) && is_whole(state));
        let sets = self.sets.iter().filter(|(_, set)| set.gateway == *key && set.refused.is_none());
        let status = GatewayStatus {
            generation: gateway.meta.generation,
            conditions: gateway_conditions(gateway, &own, states, &given, self.client_certificate(gateway).err()),
            addresses,
            listeners: own.iter().map(|state| self.listener_status(key, state)).collect(),
            attached_sets: sets.map(|(set, _)| set).filter(valid).count() as u32,
            account: (service_account(gateway), gateway.infrastructure.clone()),
        };
        if self.gateway_statuses.get(key) != Some(&status) {
            self.gateway_statuses.insert(key.clone(), status.clone());
            output.gateways.insert(key.clone(), status);
        }
        let sets = self.sets.iter().filter(|(_, set)| set.gateway == *key).map(|(set, _)| set.clone());
        self.dirty.extend(sets.map(Unit::SetStatus));
    }

    fn listener_status(&self, gateway: &Key, state: &ListenerState) -> ListenerStatus {
        ListenerStatus {
            name: state.section.clone(),
            kinds: state.kinds.iter().map(|kind| route_kind_name(*kind)).collect(),
            attached: self.attached.get(&(gateway.clone(), state.name.clone())).map_or(0, |set| set.len() as u32),
            conditions: state.conditions(),
        }
    }

    /// Its own, then the nodes' if all of it is served there.
    fn gateway_addresses(&self, given: &Given, states: &[ListenerState]) -> Vec<IpAddr> {
        if given.flaw.is_some() {
            return Vec::new();
        }
        let mut addresses = given.own.clone();
        addresses.extend(&given.nodes);
        let mut usable = states.iter().filter(|state| state.is_usable());
        if !given.asked && usable.all(|state| state.on_nodes) {
            addresses.extend(self.node_addresses());
        }
        addresses
    }

    pub(super) fn compile_set_status(&mut self, key: &Key, output: &mut Output) {
        let Some((set, state)) = self.objects.sets.get(key).zip(self.sets.get(key)) else {
            self.set_statuses.remove(key);
            return;
        };
        let empty = Vec::new();
        let listeners = self.listeners.get(&state.gateway).unwrap_or(&empty);
        let own: Vec<&ListenerState> = listeners.iter().filter(|it| it.set.as_ref() == Some(key)).collect();
        let parent = self.gateway_statuses.get(&state.gateway);
        let accepted = parent.is_some_and(|status| {
            status.conditions.iter().any(|it| it.kind == "Accepted" && (it.holds || it.reason == "ListenersNotValid"))
        });
        let status = SetStatus {
            generation: set.meta.generation,
            conditions: set_conditions(state, &own, accepted),
            listeners: own.iter().map(|it| self.listener_status(&state.gateway, it)).collect(),
        };
        if self.set_statuses.get(key) != Some(&status) {
            self.set_statuses.insert(key.clone(), status.clone());
            output.sets.insert(key.clone(), status);
        }
    }
}

/// Name of the ServiceAccount of a gateway's identity.
fn service_account(gateway: &api::Gateway) -> Arc<str> {
    format!("{}-{}", gateway.meta.key.name, gateway.class).into()
}

/// Valid, with everything that it refers to.
fn is_whole(state: &ListenerState) -> bool {
    state.is_valid() && state.is_usable()
}

/// The older gateway has a port of the nodes. Who has an address of its own can do without.
fn claim_nodes(key: &Key, given: &Given, listeners: &mut [ListenerState], claims: &mut Claims) {
    for listener in listeners.iter_mut().filter(|listener| listener.is_valid()) {
        if !given.on_nodes() {
            continue;
        }
        match claims.claim(key, listener) {
            Ok(()) => listener.on_nodes = true,
            Err(flaw) if given.own.is_empty() => listener.accepted = Err(flaw),
            Err(_) => {}
        }
    }
}

fn gateway_conditions(
    gateway: &api::Gateway,
    own: &[&ListenerState],
    all: &[ListenerState],
    given: &Given,
    certificate: Option<Flaw>,
) -> Vec<Condition> {
    let (count, total) = (own.iter().filter(|state| state.is_valid()).count(), own.len());
    let accepted = if gateway.has_parameters {
        Condition::bad(
            "Accepted",
            "InvalidParameters",
            "infrastructure.parametersRef: there are no parameters to refer to",
        )
    } else if count == 0 {
        Condition::bad("Accepted", "ListenersNotValid", "no listener is valid")
    } else if count < total {
        let message = format!("{} of {total} listeners are not valid", total - count);
        Condition::good("Accepted", "ListenersNotValid", message)
    } else {
        Condition::good("Accepted", "Accepted", "the gateway is served by every node")
    };
    let nowhere = given.own.is_empty() && given.nodes.is_empty() && !all.iter().any(|state| state.on_nodes);
    let programmed = if !all.iter().any(ListenerState::is_usable) {
        Condition::bad("Programmed", "Invalid", "no listener can be served")
    } else if nowhere {
        Condition::bad("Programmed", "AddressNotAssigned", "there is no address for it")
    } else {
        Condition::good("Programmed", "Programmed", "the configuration is sent to the proxies")
    };
    let resolved = match certificate {
        None => Condition::good("ResolvedRefs", "ResolvedRefs", "all references are resolved"),
        Some((reason, message)) => Condition::bad("ResolvedRefs", reason, message),
    };
    let mut conditions = match &given.flaw {
        Some(flaw) if flaw.kind == "Accepted" => {
            let programmed = Condition::bad("Programmed", "Invalid", flaw.message.clone());
            vec![flaw.clone(), programmed, resolved]
        }
        Some(flaw) => vec![accepted, flaw.clone(), resolved],
        None => vec![accepted, programmed, resolved],
    };
    let modes = gateway.frontend.iter().chain(gateway.frontend_ports.iter().filter_map(|(_, it)| it.as_ref()));
    if modes.into_iter().any(|validation| validation.insecure_fallback) {
        conditions.push(Condition::good(
            "InsecureFrontendValidationMode",
            "ConfigurationChanged",
            "clients without a valid certificate are taken too",
        ));
    }
    conditions
}

fn set_conditions(state: &SetState, own: &[&ListenerState], parent_accepted: bool) -> Vec<Condition> {
    let both = |reason: &'static str, message: &str| {
        vec![Condition::bad("Accepted", reason, message), Condition::bad("Programmed", reason, message)]
    };
    if let Some((reason, message)) = &state.refused {
        return both(reason, message);
    }
    if !parent_accepted {
        return both("ParentNotAccepted", &format!("Gateway {} is not accepted", state.gateway));
    }
    let whole = own.iter().filter(|listener| is_whole(listener)).count();
    if whole == 0 {
        return both("ListenersNotValid", "no listener is valid");
    }
    let accepted = if whole < own.len() {
        let message = format!("{} of {} listeners are not valid", own.len() - whole, own.len());
        Condition::good("Accepted", "ListenersNotValid", message)
    } else {
        Condition::good("Accepted", "Accepted", "the gateway takes the listeners")
    };
    vec![accepted, Condition::good("Programmed", "Programmed", "the configuration is sent to the proxies")]
}
