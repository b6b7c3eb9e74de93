//! Routes: where they may hang, and where they lead.

use super::gateway::{Flaw, GROUP, route_kind_name};
use super::index::services_of;
use super::listener::ListenerState;
use super::status::{Condition, ParentStatus, RouteStatus};
use super::{Compiler, Output, Unit};
use crate::pattern;
use model::Key;
use model::map::stable_hash;
use model::mesh::api::{self, BackendRef, FilterSpec, ParentRef, RuleSpec};
use model::mesh::{
    Backend, BackendTarget, Filter, Hostname, Match, Mirror, Parent, ParentTarget, PathMatch, Resource, ResourceKind,
    Route, RouteKind, Rule, Session, TextMatch,
};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A route's rules compiled, and what is wrong with them.
struct Rules {
    rules: Vec<Rule>,
    /// The first reference that leads nowhere.
    unresolved: Option<Flaw>,
    /// Rules that cannot be used at all and were left out.
    dropped: Vec<String>,
    /// The whole route cannot be used.
    unusable: Option<Flaw>,
}

impl Compiler {
    pub(super) fn compile_route(&mut self, kind: RouteKind, key: &Key, output: &mut Output) {
        let id = (kind, key.clone());
        let name = format!("{}/{key}", route_kind_name(kind));
        let Some(route) = self.objects.routes.get(&id) else {
            self.attach(&id, BTreeSet::new());
            self.route_statuses.remove(&id);
            self.tell(ResourceKind::Route, name, None, output);
            return;
        };
        let rules = self.rules(route);
        let mut parents = Vec::new();
        let mut status = RouteStatus { generation: route.meta.generation, parents: Vec::new() };
        let mut attached = BTreeSet::new();
        for reference in &route.parents {
            let Some(found) = self.attachment(route, reference) else { continue };
            let found = match &rules.unusable {
                Some(flaw) => Err(flaw.clone()),
                None => found,
            };
            let rivals = self.rivals(route, reference);
            let found = found.and_then(|found| rivals.clone().map(|_| found));
            let mut conditions = conditions(&found, &rules);
            conditions.extend(rivals.ok().flatten());
            status.parents.push(ParentStatus { parent: reference.clone(), conditions });
            for (parent, usable) in found.unwrap_or_default() {
                if let ParentTarget::Listener { gateway, listener } = &parent.target {
                    attached.insert((gateway.clone(), listener.clone()));
                }
                if usable {
                    merge(&mut parents, parent);
                }
            }
        }
        parents.sort();
        let compiled = (!parents.is_empty()).then(|| Route {
            name: name.as_str().into(),
            key: key.clone(),
            kind,
            created: route.meta.created,
            parents,
            rules: rules.rules,
            ordered: false,
        });
        self.attach(&id, attached);
        self.tell(ResourceKind::Route, name, compiled.map(|it| Resource::Route(Arc::new(it))), output);
        // A route that never had a parent of ours gets no status from us; one that had, gets its entries taken back.
        if status.parents.is_empty() {
            if self.route_statuses.remove(&id).is_some() {
                output.routes.insert(id, status);
            }
        } else if self.route_statuses.get(&id) != Some(&status) {
            self.route_statuses.insert(id.clone(), status.clone());
            output.routes.insert(id, status);
        }
    }

    /// Counts a route where it hangs now, and no more where it hung.
    fn attach(&mut self, id: &(RouteKind, Key), places: BTreeSet<(Key, Arc<str>)>) {
        let mut touched = BTreeSet::new();
        self.attached.retain(|place, routes| {
            if !places.contains(place) && routes.remove(id) {
                touched.insert(place.0.clone());
            }
            !routes.is_empty()
        });
        for place in places {
            if self.attached.entry(place.clone()).or_default().insert(id.clone()) {
                touched.insert(place.0);
            }
        }
        if !touched.is_empty() && !self.objects.tls_policies.is_empty() {
            let services = self.objects.routes.get(id).map(services_of).unwrap_or_default();
            services.iter().for_each(|service| self.touch_tls_policies_of(service));
        }
        self.dirty.extend(touched.into_iter().map(Unit::GatewayStatus));
    }

    /// Where a parent reference leads: the places, each with whether it is served. None: it is not ours to answer.
    fn attachment(&self, route: &api::Route, reference: &ParentRef) -> Option<Result<Vec<(Parent, bool)>, Flaw>> {
        let namespace = &route.meta.key.namespace;
        let key = reference.reference.key(namespace);
        if reference.reference.is(GROUP, "Gateway") {
            let listeners = self.listeners.get(&key)?;
            let own = listeners.iter().filter(|it| it.set.is_none()).collect();
            return Some(self.attach_to_listeners(route, reference, (&key, &key), own));
        }
        if reference.reference.is(GROUP, "ListenerSet") {
            let set = self.sets.get(&key)?;
            if let Some((_, message)) = &set.refused {
                return Some(Err(("NoMatchingParent", message.clone())));
            }
            let listeners = self.listeners.get(&set.gateway)?;
            let own = listeners.iter().filter(|it| it.set.as_ref() == Some(&key)).collect();
            return Some(self.attach_to_listeners(route, reference, (&set.gateway, &key), own));
        }
        let core = reference.reference.group.is_empty() || &*reference.reference.group == "core";
        if !core || &*reference.reference.kind != "Service" {
            return None;
        }
        let Some(service) = self.objects.services.get(&key) else {
            return Some(Err(("NoMatchingParent", format!("there is no Service {key}"))));
        };
        if let Some(port) = reference.port
            && !service.ports.iter().any(|have| have.port == port)
        {
            return Some(Err(("NoMatchingParent", format!("Service {key} has no port {port}"))));
        }
        let consumer = (key.namespace != *namespace).then(|| namespace.clone());
        let target = ParentTarget::Service { service: key, port: reference.port, consumer };
        Some(Ok(vec![(Parent { target, hostnames: Vec::new() }, true)]))
    }

    /// VirtualServices for the same service: they go before the route, or give way to it.
    fn rivals(&self, route: &api::Route, reference: &ParentRef) -> Result<Option<Condition>, Flaw> {
        let requests = matches!(route.kind, RouteKind::Http | RouteKind::Grpc);
        if !requests || &*reference.reference.kind != "Service" {
            return Ok(None);
        }
        self.rivals_of_route(&reference.reference.key(&route.meta.key.namespace))
    }

    /// `owner`: the gateway, and the object whose listeners they are (it, or a ListenerSet of its).
    pub(super) fn attach_to_listeners(
        &self,
        route: &api::Route,
        reference: &ParentRef,
        (gateway, owner): (&Key, &Key),
        listeners: Vec<&ListenerState>,
    ) -> Result<Vec<(Parent, bool)>, Flaw> {
        let named: Vec<&ListenerState> = listeners
            .into_iter()
            .filter(|listener| reference.section.is_empty() || listener.section == reference.section)
            .filter(|listener| reference.port.is_none_or(|port| port == listener.port))
            .collect();
        if named.is_empty() {
            return Err(("NoMatchingParent", format!("{owner} has no such listener")));
        }
        let allowed: Vec<&ListenerState> = named
            .into_iter()
            .filter(|listener| {
                let namespace = &route.meta.key.namespace;
                let let_in = self.lets_in(&listener.allowed_namespaces, &owner.namespace, namespace);
                listener.kinds.contains(&route.kind) && let_in
            })
            .collect();
        if allowed.is_empty() {
            let kind = route_kind_name(route.kind);
            let message = format!("no listener takes a {kind} of namespace {}", route.meta.key.namespace);
            return Err(("NotAllowedByListeners", message));
        }
        let attached: Vec<(Parent, bool)> = allowed
            .into_iter()
            .filter_map(|listener| {
                let hostnames = match route.kind {
                    RouteKind::Tcp | RouteKind::Udp => Vec::new(),
                    _ => intersect(listener.hostname.as_ref(), &route.hostnames)?,
                };
                let target = ParentTarget::Listener { gateway: gateway.clone(), listener: listener.name.clone() };
                Some((Parent { target, hostnames }, listener.is_usable()))
            })
            .collect();
        if attached.is_empty() {
            return Err(("NoMatchingListenerHostname", "no hostname is shared with a listener".into()));
        }
        Ok(attached)
    }

    fn rules(&self, route: &api::Route) -> Rules {
        let mut out = Rules { rules: Vec::new(), unresolved: None, dropped: Vec::new(), unusable: None };
        for (index, spec) in route.rules.iter().enumerate() {
            if let Some(flaw) = incompatible(&spec.filters) {
                out.unusable = Some(("IncompatibleFilters", format!("rule {index}: {flaw}")));
                return out;
            }
            match bad_value(spec) {
                Some(why) => out.dropped.push(format!("Dropped Rule {index}: {why}")),
                None => {
                    let rule = self.rule(route, spec, &mut out.unresolved);
                    out.rules.push(rule);
                }
            }
        }
        if out.rules.is_empty() && !out.dropped.is_empty() {
            out.unusable = Some(("UnsupportedValue", out.dropped.join("; ")));
        }
        out
    }

    fn rule(&self, route: &api::Route, spec: &RuleSpec, unresolved: &mut Option<Flaw>) -> Rule {
        let (filters, extension) = self.filters(route, &spec.filters, unresolved);
        let mut backends: Vec<Backend> = spec
            .backends
            .iter()
            .map(|reference| {
                let (filters, extension) = self.filters(route, &reference.filters, unresolved);
                let target = self.target(route, reference, unresolved);
                // A filter that cannot be run must not be skipped: its share is answered with an error.
                let target = if extension { invalid("InvalidKind") } else { target };
                Backend { target, weight: reference.weight, filters }
            })
            .collect();
        let mut filters = filters;
        if extension {
            filters.clear();
            backends = vec![Backend { target: invalid("InvalidKind"), weight: 1, filters: Vec::new() }];
        }
        Rule {
            name: spec.name.clone(),
            matches: if spec.matches.is_empty() { vec![Match::default()] } else { spec.matches.clone() },
            filters,
            backends,
            timeouts: spec.timeouts,
            retry: spec.retry.clone(),
            session: spec.session.as_ref().map(|session| named(route, spec, session)),
        }
    }

    /// The filters, and whether one among them is somebody's own that cannot be run.
    fn filters(&self, route: &api::Route, specs: &[FilterSpec], unresolved: &mut Option<Flaw>) -> (Vec<Filter>, bool) {
        let mut extension = false;
        let mut filters = Vec::new();
        for spec in specs {
            match spec {
                FilterSpec::Plain(filter) => filters.push(filter.clone()),
                FilterSpec::Mirror { backend, fraction } => {
                    let target = self.target(route, backend, unresolved);
                    // A mirror that leads nowhere loses only copies.
                    if matches!(target, BackendTarget::Service { .. }) {
                        filters.push(Filter::Mirror(Mirror { backend: target, fraction: *fraction }));
                    }
                }
                FilterSpec::Extension(reference) => {
                    extension = true;
                    let what = format!("{}/{} {}", reference.group, reference.kind, reference.name);
                    unresolved.get_or_insert(("InvalidKind", format!("there is no filter {what}")));
                }
            }
        }
        (filters, extension)
    }

    fn target(&self, route: &api::Route, reference: &BackendRef, unresolved: &mut Option<Flaw>) -> BackendTarget {
        match self.resolve(route, reference) {
            Ok((service, port)) => BackendTarget::Service { service, port },
            Err((reason, message)) => {
                unresolved.get_or_insert((reason, message));
                invalid(reason)
            }
        }
    }

    fn resolve(&self, route: &api::Route, backend: &BackendRef) -> Result<(Key, u16), Flaw> {
        let namespace = &route.meta.key.namespace;
        let reference = &backend.reference;
        let key = reference.key(namespace);
        let core = reference.group.is_empty() || &*reference.group == "core";
        if !core || &*reference.kind != "Service" {
            let what = format!("{}/{}", reference.group, reference.kind);
            return Err(("InvalidKind", format!("backend {key} is of kind {what}; only Services are served")));
        }
        let from = (GROUP, route_kind_name(route.kind), &**namespace);
        if !leads_home(route, &key) && !self.permitted(from, reference, &key.namespace) {
            return Err(("RefNotPermitted", format!("no ReferenceGrant in {} permits Service {key}", key.namespace)));
        }
        let Some(service) = self.objects.services.get(&key) else {
            return Err(("BackendNotFound", format!("there is no Service {key}")));
        };
        match backend.port {
            Some(port) if service.ports.iter().any(|have| have.port == port) => Ok((key, port)),
            Some(port) => Err(("BackendNotFound", format!("Service {key} has no port {port}"))),
            None => Err(("BackendNotFound", format!("the reference to Service {key} names no port"))),
        }
    }
}

/// Whether a backend is a Service that the route hangs on, and the route hangs on nothing but Services: its callers called that Service
/// already, so it opens nothing that a grant would have to open.
fn leads_home(route: &api::Route, backend: &Key) -> bool {
    let service = |parent: &ParentRef| {
        let reference = &parent.reference;
        let core = reference.group.is_empty() || &*reference.group == "core";
        (core && &*reference.kind == "Service").then(|| reference.key(&route.meta.key.namespace))
    };
    let parents: Vec<Option<Key>> = route.parents.iter().map(service).collect();
    parents.iter().all(Option::is_some) && parents.contains(&Some(backend.clone()))
}

fn invalid(reason: &str) -> BackendTarget {
    BackendTarget::Invalid { reason: reason.into() }
}

/// The hostnames of a route that a listener takes. None: there are hostnames, and none is shared.
fn intersect(listener: Option<&Hostname>, route: &[Arc<str>]) -> Option<Vec<Hostname>> {
    let own: Vec<Hostname> = route.iter().filter_map(|text| Hostname::new(text)).collect();
    if own.is_empty() {
        return Some(listener.into_iter().cloned().collect());
    }
    let Some(listener) = listener else { return Some(own) };
    let mut shared: Vec<Hostname> = own.iter().filter_map(|hostname| hostname.intersect(listener)).collect();
    shared.sort();
    shared.dedup();
    (!shared.is_empty()).then_some(shared)
}

/// Two references of a route may lead to one place: once is enough there.
fn merge(parents: &mut Vec<Parent>, parent: Parent) {
    match parents.iter_mut().find(|have| have.target == parent.target) {
        // No hostname means all of them.
        Some(have) if have.hostnames.is_empty() || parent.hostnames.is_empty() => have.hostnames.clear(),
        Some(have) => {
            have.hostnames.extend(parent.hostnames);
            have.hostnames.sort();
            have.hostnames.dedup();
        }
        None => parents.push(parent),
    }
}

fn incompatible(filters: &[FilterSpec]) -> Option<&'static str> {
    let has = |wanted: fn(&Filter) -> bool| {
        filters.iter().any(|filter| matches!(filter, FilterSpec::Plain(filter) if wanted(filter)))
    };
    let both = has(|it| matches!(it, Filter::Redirect(_))) && has(|it| matches!(it, Filter::Rewrite(_)));
    both.then_some("a redirect and a rewrite cannot both be")
}

/// Why a rule cannot be used: an expression that does not compile, or a value that was not understood.
fn bad_value(rule: &RuleSpec) -> Option<String> {
    if !rule.flaw.is_empty() {
        return Some(rule.flaw.to_string());
    }
    rule.matches.iter().find_map(|matched| {
        let path = match &matched.path {
            PathMatch::Regex(pattern) => Some(pattern),
            _ => None,
        };
        let values = matched.headers.iter().chain(&matched.query).filter_map(|value| match &value.value {
            TextMatch::Regex(pattern) => Some(pattern),
            _ => None,
        });
        path.into_iter().chain(values).find_map(|text| pattern::whole(text).err().map(|bad| bad.to_string()))
    })
}

fn conditions(found: &Result<Vec<(Parent, bool)>, Flaw>, rules: &Rules) -> Vec<Condition> {
    let accepted = match found {
        Ok(_) => Condition::good("Accepted", "Accepted", "the parent takes the route"),
        Err((reason, message)) => Condition::bad("Accepted", reason, message),
    };
    let resolved = match &rules.unresolved {
        None => Condition::good("ResolvedRefs", "ResolvedRefs", "all references are resolved"),
        Some((reason, message)) => Condition::bad("ResolvedRefs", reason, message),
    };
    let mut conditions = vec![accepted, resolved];
    if found.is_ok() && !rules.dropped.is_empty() {
        conditions.push(Condition::good("PartiallyInvalid", "UnsupportedValue", rules.dropped.join("; ")));
    }
    conditions
}

/// A session without a name gets one that is the same for every proxy, and after a restart.
fn named(route: &api::Route, spec: &RuleSpec, session: &Session) -> Session {
    if !session.name.is_empty() {
        return session.clone();
    }
    let of = format!("{}/{}/{}", route_kind_name(route.kind), route.meta.key, spec.name);
    Session { name: format!("session-{:016x}", stable_hash(of.as_bytes())).into(), ..session.clone() }
}
