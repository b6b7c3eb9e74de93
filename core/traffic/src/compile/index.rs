//! Who refers to whom.

use model::Key;
use model::map::HashMap;
use model::mesh::RouteKind;
use model::mesh::api::{BackendRef, EndpointSlice, FilterSpec, Pod, Route};
use std::collections::BTreeSet;
use std::hash::Hash;
use std::sync::Arc;

type RouteId = (RouteKind, Key);

/// Reverse references.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) pods_by_node: HashMap<Arc<str>, BTreeSet<Key>>,
    pub(super) pods_by_namespace: HashMap<Arc<str>, BTreeSet<Key>>,
    pub(super) slices_by_pod: HashMap<Key, BTreeSet<Key>>,
    /// By the WorkloadEntries in them.
    pub(super) slices_by_entry: HashMap<Key, BTreeSet<Key>>,
    pub(super) slices_by_service: HashMap<Key, BTreeSet<Key>>,
    pub(super) routes_by_service: HashMap<Key, BTreeSet<RouteId>>,
    pub(super) routes_by_gateway: HashMap<Key, BTreeSet<RouteId>>,
    /// Routes with a backend in another namespace: a grant decides about them.
    pub(super) crossing_routes: BTreeSet<RouteId>,
}

impl Index {
    pub(super) fn pod(&mut self, key: &Key, old: Option<&Pod>, new: Option<&Pod>) {
        if let Some(old) = old {
            remove(&mut self.pods_by_node, &old.node, key);
            remove(&mut self.pods_by_namespace, &key.namespace, key);
        }
        if let Some(new) = new {
            self.pods_by_node.entry(new.node.clone()).or_default().insert(key.clone());
            self.pods_by_namespace.entry(key.namespace.clone()).or_default().insert(key.clone());
        }
    }

    pub(super) fn slice(&mut self, key: &Key, old: Option<&EndpointSlice>, new: Option<&EndpointSlice>) {
        for (slice, present) in [(old, false), (new, true)] {
            let Some(slice) = slice else { continue };
            for pod in targets(slice, "Pod") {
                put(&mut self.slices_by_pod, pod, key, present);
            }
            for entry in targets(slice, "WorkloadEntry") {
                put(&mut self.slices_by_entry, entry, key, present);
            }
            let service = Key { namespace: key.namespace.clone(), name: slice.service.clone() };
            put(&mut self.slices_by_service, service, key, present);
        }
    }

    pub(super) fn route(&mut self, id: &RouteId, old: Option<&Route>, new: Option<&Route>) {
        for (service, gateway) in old.into_iter().flat_map(references) {
            service.iter().for_each(|service| remove(&mut self.routes_by_service, service, id));
            gateway.iter().for_each(|gateway| remove(&mut self.routes_by_gateway, gateway, id));
        }
        self.crossing_routes.remove(id);
        for (service, gateway) in new.into_iter().flat_map(references) {
            if let Some(service) = service {
                if service.namespace != id.1.namespace {
                    self.crossing_routes.insert(id.clone());
                }
                self.routes_by_service.entry(service).or_default().insert(id.clone());
            }
            if let Some(gateway) = gateway {
                self.routes_by_gateway.entry(gateway).or_default().insert(id.clone());
            }
        }
    }
}

fn put<K: Hash + Eq, V: Ord + Clone>(map: &mut HashMap<K, BTreeSet<V>>, key: K, value: &V, present: bool) {
    if present {
        map.entry(key).or_default().insert(value.clone());
    } else {
        remove(map, &key, value);
    }
}

fn remove<K: Hash + Eq, V: Ord>(map: &mut HashMap<K, BTreeSet<V>>, key: &K, value: &V) {
    if let Some(set) = map.get_mut(key) {
        set.remove(value);
        if set.is_empty() {
            map.remove(key);
        }
    }
}

/// Services that a route names as backend, mirror or parent.
pub(super) fn services_of(route: &Route) -> BTreeSet<Key> {
    references(route).into_iter().filter_map(|(service, _)| service).collect()
}

fn targets<'a>(slice: &'a EndpointSlice, kind: &'a str) -> impl Iterator<Item = Key> + 'a {
    slice
        .endpoints
        .iter()
        .filter(move |endpoint| &*endpoint.target.0 == kind)
        .map(|endpoint| Key { namespace: slice.key.namespace.clone(), name: endpoint.target.1.clone() })
}

/// Services (parents, backends, mirrors) and gateways that a route names. Kinds are not checked here: a wrong one is touched in vain.
fn references(route: &Route) -> Vec<(Option<Key>, Option<Key>)> {
    let namespace = &route.meta.key.namespace;
    let mut found = Vec::new();
    for parent in &route.parents {
        let key = parent.reference.key(namespace);
        found.push(if &*parent.reference.kind == "Service" { (Some(key), None) } else { (None, Some(key)) });
    }
    let mut backend = |backend: &BackendRef| found.push((Some(backend.reference.key(namespace)), None));
    let filters = |filters: &[FilterSpec], backend: &mut dyn FnMut(&BackendRef)| {
        for filter in filters {
            if let FilterSpec::Mirror { backend: mirror, .. } = filter {
                backend(mirror);
            }
        }
    };
    for rule in &route.rules {
        filters(&rule.filters, &mut backend);
        for reference in &rule.backends {
            backend(reference);
            filters(&reference.filters, &mut backend);
        }
    }
    found
}
