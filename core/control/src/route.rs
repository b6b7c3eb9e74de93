//! From facts to the keys that have to be looked at again.

use crate::queue::{Controller, Item};
use crate::world::{World, claim_keys, within};
use crate::{collector, node_lifecycle};
use model::cluster::Node;
use model::{Event, Key, Kind, Meta, Object, Pod, Timestamp, Truth, condition};
use std::sync::Arc;

/// Says which items the event makes dirty. `old` is the object as it was before; the world has taken the event in already.
pub fn dirty(world: &World, old: Option<&Object>, event: &Event, now: Timestamp, touch: &mut dyn FnMut(Item)) {
    match event {
        Event::Applied(object) => {
            common(world, old, object, false, touch);
            specific(world, old, object, false, now, touch);
        }
        Event::Deleted { uid, kind, key, .. } => {
            for (kind, key) in world.dependents(uid) {
                touch(Item::new(Controller::Collector, *kind, key));
            }
            if let Some(object) = old {
                common(world, Some(object), object, true, touch);
                specific(world, Some(object), object, true, now, touch);
            }
            let _ = (kind, key);
        }
        Event::Synced(kind) => synced(world, *kind, touch),
        Event::Done(_) => {}
    }
}

/// When a kind becomes fully known, everything that was held back for want of it is looked at.
fn synced(world: &World, kind: Kind, touch: &mut dyn FnMut(Item)) {
    let mut all = |controller: Controller, kind: Kind, keys: Vec<Key>| {
        for key in keys {
            touch(Item::new(controller, kind, &key));
        }
    };
    all(Controller::ReplicaSet, Kind::ReplicaSet, world.replica_sets.keys().cloned().collect());
    let controllers = world.replication_controllers.keys().cloned().collect();
    all(Controller::ReplicaSet, Kind::ReplicationController, controllers);
    all(Controller::Deployment, Kind::Deployment, world.deployments.keys().cloned().collect());
    all(Controller::StatefulSet, Kind::StatefulSet, world.stateful_sets.keys().cloned().collect());
    all(Controller::DaemonSet, Kind::DaemonSet, world.daemon_sets.keys().cloned().collect());
    all(Controller::Job, Kind::Job, world.jobs.keys().cloned().collect());
    all(Controller::CronJob, Kind::CronJob, world.cron_jobs.keys().cloned().collect());
    for controller in [Controller::EndpointSlice, Controller::Endpoints] {
        all(controller, Kind::Service, world.services.keys().cloned().collect());
    }
    for controller in [Controller::Namespace, Controller::ServiceAccount, Controller::RootCa] {
        all(controller, Kind::Namespace, world.namespaces.keys().cloned().collect());
    }
    all(Controller::Disruption, Kind::PodDisruptionBudget, world.disruption_budgets.keys().cloned().collect());
    all(Controller::Claim, Kind::PersistentVolumeClaim, world.claims.keys().cloned().collect());
    all(Controller::Volume, Kind::PersistentVolume, world.volumes.keys().cloned().collect());
    match kind {
        Kind::Node | Kind::Lease => all(Controller::NodeLifecycle, Kind::Node, world.nodes.keys().cloned().collect()),
        Kind::Pod => all(Controller::PodCollector, Kind::Pod, vec![Key::default()]),
        _ => {}
    }
}

/// What holds for every kind: ownership and namespaces.
fn common(world: &World, old: Option<&Object>, object: &Object, deleted: bool, touch: &mut dyn FnMut(Item)) {
    let (kind, meta) = (object.kind(), object.meta());
    if deleted {
        for owner in &meta.owners {
            if let Some((kind, key)) = world.by_uid(&owner.uid)
                && world.meta(*kind, key).is_some_and(Meta::is_deleting)
            {
                touch(Item::new(Controller::Collector, *kind, key));
            }
        }
    } else {
        if collector::concerns(old.map(Object::meta), meta) {
            touch(Item::new(Controller::Collector, kind, &meta.key));
        }
        // An owner that waits for its dependents to go or to be let go looks again when one is.
        for owner in old.iter().flat_map(|old| &old.meta().owners).filter(|owner| !meta.owners.contains(owner)) {
            if let Some((kind, key)) = world.by_uid(&owner.uid) {
                touch(Item::new(Controller::Collector, *kind, key));
            }
        }
    }
    let namespace = Key::new("", meta.key.namespace.clone());
    if world.namespaces.get(&namespace).is_some_and(|namespace| namespace.meta.is_deleting()) {
        touch(Item::new(Controller::Namespace, Kind::Namespace, &namespace));
    }
}

fn owner(meta: &Meta, kind: Kind, controller: Controller, touch: &mut dyn FnMut(Item)) -> bool {
    match meta.controller().filter(|owner| *owner.kind == *kind.resource().kind) {
        Some(owner) => {
            touch(Item::new(
                controller,
                kind,
                &Key { namespace: meta.key.namespace.clone(), name: owner.name.clone() },
            ));
            true
        }
        None => false,
    }
}

fn specific(
    world: &World,
    old: Option<&Object>,
    object: &Object,
    deleted: bool,
    now: Timestamp,
    touch: &mut dyn FnMut(Item),
) {
    let meta = object.meta();
    let mut own = |controller: Controller| touch(Item::new(controller, object.kind(), &meta.key));
    match object {
        Object::Pod(new) => {
            let before = match old {
                Some(Object::Pod(old)) if !deleted => Some(old),
                _ => None,
            };
            pod(world, before, new, deleted, touch);
        }
        Object::Node(new) => {
            let before = match old {
                Some(Object::Node(old)) if !deleted => Some(old),
                _ => None,
            };
            node(world, before, new, deleted, touch);
        }
        Object::Namespace(_) => {
            own(Controller::Namespace);
            own(Controller::ServiceAccount);
            own(Controller::RootCa);
        }
        Object::ServiceAccount(_) => {
            touch(Item::new(Controller::ServiceAccount, Kind::Namespace, &Key::new("", meta.key.namespace.clone())));
        }
        Object::ConfigMap(_) if &*meta.key.name == crate::namespace::ROOT_CA => {
            touch(Item::new(Controller::RootCa, Kind::Namespace, &Key::new("", meta.key.namespace.clone())));
        }
        Object::Service(_) => {
            own(Controller::EndpointSlice);
            own(Controller::Endpoints);
        }
        Object::Endpoints(_) => touch(Item::new(Controller::Endpoints, Kind::Service, &meta.key)),
        Object::EndpointSlice(slice) => {
            if let Some(name) = slice.meta.labels.get(crate::world::SERVICE_NAME_LABEL) {
                let service = Key { namespace: meta.key.namespace.clone(), name: name.clone() };
                touch(Item::new(Controller::EndpointSlice, Kind::Service, &service));
            }
        }
        Object::Deployment(_) => own(Controller::Deployment),
        Object::ReplicaSet(set) => {
            own(Controller::ReplicaSet);
            if !owner(meta, Kind::Deployment, Controller::Deployment, touch) {
                for deployment in within(&world.deployments, &meta.key.namespace) {
                    if deployment.selector.matches(&set.meta.labels) {
                        touch(Item::new(Controller::Deployment, Kind::Deployment, &deployment.meta.key));
                    }
                }
            }
        }
        Object::ReplicationController(_) => own(Controller::ReplicaSet),
        Object::StatefulSet(_) => own(Controller::StatefulSet),
        Object::DaemonSet(_) => own(Controller::DaemonSet),
        Object::ControllerRevision(_) => {
            let _ = owner(meta, Kind::StatefulSet, Controller::StatefulSet, touch)
                || owner(meta, Kind::DaemonSet, Controller::DaemonSet, touch);
        }
        Object::Job(_) => {
            own(Controller::Job);
            own(Controller::TtlAfterFinished);
            owner(meta, Kind::CronJob, Controller::CronJob, touch);
        }
        Object::CronJob(_) => own(Controller::CronJob),
        Object::PodDisruptionBudget(_) => own(Controller::Disruption),
        Object::HorizontalPodAutoscaler(_) => own(Controller::Autoscaler),
        Object::PersistentVolumeClaim(claim) => {
            own(Controller::Claim);
            if !claim.volume.is_empty() {
                touch(Item::new(Controller::Volume, Kind::PersistentVolume, &Key::new("", claim.volume.clone())));
            }
            owner(meta, Kind::StatefulSet, Controller::StatefulSet, touch);
        }
        Object::PersistentVolume(volume) => {
            own(Controller::Volume);
            match &volume.claim {
                Some((namespace, name, _)) => {
                    let claim = Key { namespace: namespace.clone(), name: name.clone() };
                    touch(Item::new(Controller::Claim, Kind::PersistentVolumeClaim, &claim));
                }
                None => pending_claims(world, touch),
            }
        }
        Object::StorageClass(_) => pending_claims(world, touch),
        Object::Lease(lease) if &*meta.key.namespace == crate::control::NODE_LEASES => {
            let key = Key::new("", lease.meta.key.name.clone());
            let waits = world.nodes.get(&key).is_some_and(|node| node_lifecycle::is_lost(node));
            if deleted || old.is_none() || waits {
                touch(Item::new(Controller::NodeLifecycle, Kind::Node, &key));
            }
        }
        _ => {}
    }
    let _ = now;
}

fn pending_claims(world: &World, touch: &mut dyn FnMut(Item)) {
    for claim in world.claims.values().filter(|claim| claim.volume.is_empty()) {
        touch(Item::new(Controller::Claim, Kind::PersistentVolumeClaim, &claim.meta.key));
    }
}

fn pod(world: &World, old: Option<&Arc<Pod>>, new: &Arc<Pod>, deleted: bool, touch: &mut dyn FnMut(Item)) {
    for pod in old.into_iter().chain([new]) {
        pod_owner(world, pod, touch);
    }
    if deleted || old.is_none_or(|old| !crate::endpoints::looks_equal(old, new)) {
        for pod in old.into_iter().chain([new]) {
            for service in world.services_selecting(&pod.meta.key.namespace, &pod.meta.labels) {
                touch(Item::new(Controller::EndpointSlice, Kind::Service, &service.meta.key));
                touch(Item::new(Controller::Endpoints, Kind::Service, &service.meta.key));
            }
        }
    }
    for budget in within(&world.disruption_budgets, &new.meta.key.namespace) {
        let selects =
            |pod: &Arc<Pod>| budget.selector.as_ref().is_some_and(|selector| selector.matches(&pod.meta.labels));
        if selects(new) || old.is_some_and(selects) {
            touch(Item::new(Controller::Disruption, Kind::PodDisruptionBudget, &budget.meta.key));
        }
    }
    let moved = old.is_none_or(|old| old.spec.node_name != new.spec.node_name);
    let deleting = old.is_none_or(|old| old.meta.is_deleting() != new.meta.is_deleting());
    if deleted || moved || deleting {
        for claim in claim_keys(new) {
            touch(Item::new(Controller::Claim, Kind::PersistentVolumeClaim, &claim));
        }
    }
    if deleted {
        return;
    }
    let node = world.nodes.get(&Key::new("", new.spec.node_name.clone()));
    let bound = !new.spec.node_name.is_empty();
    if new.meta.is_deleting() && !bound || bound && node.is_none() {
        touch(Item::new(Controller::PodCollector, Kind::Pod, &new.meta.key));
    }
    if (moved || deleting) && node.is_some_and(|node| crate::taint_eviction::evicts(node)) {
        touch(Item::new(Controller::TaintEviction, Kind::Pod, &new.meta.key));
    }
}

fn pod_owner(world: &World, pod: &Pod, touch: &mut dyn FnMut(Item)) {
    const OWNERS: [(Kind, Controller); 5] = [
        (Kind::ReplicaSet, Controller::ReplicaSet),
        (Kind::ReplicationController, Controller::ReplicaSet),
        (Kind::StatefulSet, Controller::StatefulSet),
        (Kind::DaemonSet, Controller::DaemonSet),
        (Kind::Job, Controller::Job),
    ];
    let meta = &pod.meta;
    if meta.controller().is_some() {
        for (kind, controller) in OWNERS {
            if owner(meta, kind, controller, touch) {
                if kind == Kind::ReplicaSet {
                    recreate_owner(world, pod, touch);
                }
                return;
            }
        }
        return;
    }
    let namespace = &meta.key.namespace;
    for set in within(&world.replica_sets, namespace).filter(|set| set.selector.matches(&meta.labels)) {
        touch(Item::new(Controller::ReplicaSet, Kind::ReplicaSet, &set.meta.key));
    }
    for set in within(&world.replication_controllers, namespace).filter(|set| set.selector.matches(&meta.labels)) {
        touch(Item::new(Controller::ReplicaSet, Kind::ReplicationController, &set.meta.key));
    }
    for set in within(&world.stateful_sets, namespace).filter(|set| set.selector.matches(&meta.labels)) {
        touch(Item::new(Controller::StatefulSet, Kind::StatefulSet, &set.meta.key));
    }
    for set in within(&world.daemon_sets, namespace).filter(|set| set.selector.matches(&meta.labels)) {
        touch(Item::new(Controller::DaemonSet, Kind::DaemonSet, &set.meta.key));
    }
    for job in within(&world.jobs, namespace).filter(|job| job.selector.matches(&meta.labels)) {
        touch(Item::new(Controller::Job, Kind::Job, &job.meta.key));
    }
}

/// A Deployment of the Recreate kind waits until the last old pod is gone, which changes no replica set.
fn recreate_owner(world: &World, pod: &Pod, touch: &mut dyn FnMut(Item)) {
    let set = pod.meta.controller().and_then(|owner| world.by_uid(&owner.uid));
    let Some(meta) = set.and_then(|(kind, key)| world.meta(*kind, key)) else { return };
    let Some(owner) = meta.controller() else { return };
    let key = Key { namespace: meta.key.namespace.clone(), name: owner.name.clone() };
    if let Some(deployment) = world.deployments.get(&key)
        && deployment.strategy == model::workload::DeploymentStrategy::Recreate
    {
        touch(Item::new(Controller::Deployment, Kind::Deployment, &key));
    }
}

fn node(world: &World, old: Option<&Arc<Node>>, new: &Arc<Node>, deleted: bool, touch: &mut dyn FnMut(Item)) {
    let key = &new.meta.key;
    let changed = deleted
        || old.is_none_or(|old| {
            old.meta.labels != new.meta.labels || old.taints != new.taints || old.unschedulable != new.unschedulable
        });
    if changed {
        for set in world.daemon_sets.values() {
            touch(Item::new(Controller::DaemonSet, Kind::DaemonSet, &set.meta.key));
        }
        if !deleted && (crate::taint_eviction::evicts(new) || old.is_some_and(|old| crate::taint_eviction::evicts(old)))
        {
            for pod in world.pods_on(&key.name) {
                touch(Item::new(Controller::TaintEviction, Kind::Pod, &pod.meta.key));
            }
        }
    }
    // Of a node that says that it is not ready it matters too when it said so.
    let ready = |node: &Node| {
        let said = condition::find(&node.conditions, "Ready");
        said.map(|c| (c.status, Some(c.last_update).filter(|_| c.status == Truth::False)))
    };
    if changed || old.is_none_or(|old| ready(old) != ready(new)) {
        touch(Item::new(Controller::NodeLifecycle, Kind::Node, key));
    }
    if deleted {
        for pod in world.pods_on(&key.name) {
            touch(Item::new(Controller::PodCollector, Kind::Pod, &pod.meta.key));
        }
    }
}
