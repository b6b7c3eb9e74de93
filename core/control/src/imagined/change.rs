//! What orders do to projected objects.

use model::condition;
use model::effect::{Change, MetaPatch, NewPod, Status};
use model::pod::{PodSpec, PodTemplate};
use model::scheduling::{Claim, NodeTerm, SchedulingSpec};
use model::selector::{LabelSelector, Operator, Requirement};
use model::workload::ReplicaSet;
use model::{Labels, Meta, Object, Phase, Pod};
use std::sync::Arc;

/// A pod from its template's spec.
pub fn pod(meta: Meta, spec: &PodSpec, new: &NewPod) -> Pod {
    let mut spec = spec.clone();
    for (field, text) in [
        (&mut spec.node_name, &new.node_name),
        (&mut spec.hostname, &new.hostname),
        (&mut spec.subdomain, &new.subdomain),
    ] {
        if !text.is_empty() {
            field.clone_from(text);
        }
    }
    if !new.claims.is_empty() || new.only_node.is_some() || !new.tolerations.is_empty() {
        let mut scheduling = SchedulingSpec::clone(&spec.scheduling);
        for (_, claim) in &new.claims {
            spec.claims.push(claim.clone());
            scheduling.claims.push(Claim { name: claim.clone(), made_for: None });
        }
        if let Some(node) = &new.only_node {
            only_node(&mut scheduling, node);
        }
        let mut tolerations = spec.tolerations.to_vec();
        tolerations.extend(new.tolerations.iter().cloned());
        scheduling.tolerations.clone_from(&tolerations);
        spec.tolerations = tolerations.into();
        spec.scheduling = Arc::new(scheduling);
    }
    Pod { meta, spec, ..Pod::default() }
}

fn only_node(scheduling: &mut SchedulingSpec, node: &Arc<str>) {
    let field = Requirement { key: "metadata.name".into(), operator: Operator::In, values: vec![node.clone()] };
    match &mut scheduling.node_affinity {
        Some(terms) => terms.iter_mut().for_each(|term| term.fields = vec![field.clone()]),
        none => *none = Some(vec![NodeTerm { expressions: Vec::new(), fields: vec![field] }]),
    }
}

/// A replica set of a deployment.
pub fn replica_set(
    meta: Meta,
    template: &PodTemplate,
    (replicas, min_ready_s): (i32, i32),
    selector: &LabelSelector,
    hash: &Arc<str>,
) -> ReplicaSet {
    let label: Arc<str> = crate::TEMPLATE_HASH.into();
    let mut template = template.clone();
    template.labels.insert(label.clone(), hash.clone());
    let mut selector = selector.clone();
    selector.requirements.push(Requirement { key: label, operator: Operator::In, values: vec![hash.clone()] });
    ReplicaSet { meta, replicas, min_ready_s, selector, template, ..ReplicaSet::default() }
}

fn set_all(into: &mut Labels, entries: &Labels) {
    into.extend(entries.iter().map(|(key, value)| (key.clone(), value.clone())));
}

/// A change of metadata.
pub fn meta(meta: &mut Meta, patch: &MetaPatch) {
    for (map, entries) in [(&mut meta.labels, &patch.labels), (&mut meta.annotations, &patch.annotations)] {
        for (key, value) in entries {
            match value {
                Some(value) => map.insert(key.clone(), value.clone()),
                None => map.remove(key),
            };
        }
    }
    if let Some(owners) = &patch.owners {
        meta.owners.clone_from(owners);
    }
    if let Some(finalizers) = &patch.finalizers {
        meta.finalizers.clone_from(finalizers);
    }
}

/// A change of fields that are no status.
pub fn apply(object: &mut Object, change: &Change) {
    match (object, change) {
        (Object::ReplicaSet(set), Change::ReplicaSet { replicas, min_ready_s, annotations }) => {
            let set = Arc::make_mut(set);
            let before = (set.replicas, set.min_ready_s);
            set.replicas = replicas.unwrap_or(set.replicas);
            set.min_ready_s = min_ready_s.unwrap_or(set.min_ready_s);
            set.meta.generation += i64::from(before != (set.replicas, set.min_ready_s));
            set_all(&mut set.meta.annotations, annotations);
        }
        (object, Change::Annotations(annotations)) => set_all(&mut super::meta_mut(object).annotations, annotations),
        (object, Change::Scale { replicas }) => scale(object, *replicas),
        (Object::ControllerRevision(revision), Change::RevisionNumber(number)) => {
            Arc::make_mut(revision).number = *number
        }
        (Object::EndpointSlice(slice), Change::EndpointSlice { ports, endpoints, labels, annotations }) => {
            let slice = Arc::make_mut(slice);
            slice.ports.clone_from(ports);
            slice.endpoints.clone_from(endpoints);
            set_all(&mut slice.meta.labels, labels);
            set_all(&mut slice.meta.annotations, annotations);
        }
        (Object::Endpoints(all), Change::Endpoints { subsets, labels, annotations }) => {
            let all = Arc::make_mut(all);
            all.subsets.clone_from(subsets);
            set_all(&mut all.meta.labels, labels);
            set_all(&mut all.meta.annotations, annotations);
        }
        (Object::Node(node), Change::Taints(taints)) => Arc::make_mut(node).taints.clone_from(taints),
        (Object::PersistentVolume(volume), Change::VolumeClaim(claim)) => {
            Arc::make_mut(volume).claim =
                claim.as_ref().map(|(key, uid)| (key.namespace.clone(), key.name.clone(), uid.clone()));
        }
        (Object::PersistentVolumeClaim(claim), Change::ClaimVolume { volume, annotations }) => {
            let claim = Arc::make_mut(claim);
            claim.volume = volume.clone();
            set_all(&mut claim.meta.annotations, annotations);
        }
        (Object::PersistentVolumeClaim(claim), Change::ClaimClass(class)) => {
            Arc::make_mut(claim).class = Some(class.clone())
        }
        (Object::Namespace(namespace), Change::FinalizeNamespace(_)) => {
            Arc::make_mut(namespace).finalizers.retain(|finalizer| &**finalizer != "kubernetes");
        }
        (Object::ConfigMap(map), Change::RootCa(pem)) => {
            Arc::make_mut(map).root_ca = Some(model::map::stable_hash(pem.as_bytes()))
        }
        (Object::Job(job), Change::Suspend(suspend)) => Arc::make_mut(job).suspend = *suspend,
        // An order for another kind than its change is for: nothing to do.
        _ => {}
    }
}

fn scale(object: &mut Object, replicas: i32) {
    let (now, meta) = match object {
        Object::Deployment(set) => {
            let set = Arc::make_mut(set);
            (&mut set.replicas, &mut set.meta)
        }
        Object::ReplicaSet(set) => {
            let set = Arc::make_mut(set);
            (&mut set.replicas, &mut set.meta)
        }
        Object::ReplicationController(set) => {
            let set = &mut Arc::make_mut(set).0;
            (&mut set.replicas, &mut set.meta)
        }
        Object::StatefulSet(set) => {
            let set = Arc::make_mut(set);
            (&mut set.replicas, &mut set.meta)
        }
        _ => return,
    };
    if *now != replicas {
        *now = replicas;
        meta.generation += 1;
    }
}

/// A new status.
pub fn status(object: &mut Object, status: &Status) {
    match (object, status) {
        (Object::Deployment(o), Status::Deployment(s)) => Arc::make_mut(o).status = s.clone(),
        (Object::ReplicaSet(o), Status::ReplicaSet(s)) => Arc::make_mut(o).status = s.clone(),
        (Object::ReplicationController(o), Status::ReplicaSet(s)) => Arc::make_mut(o).status = s.clone(),
        (Object::StatefulSet(o), Status::StatefulSet(s)) => Arc::make_mut(o).status = s.clone(),
        (Object::DaemonSet(o), Status::DaemonSet(s)) => Arc::make_mut(o).status = s.clone(),
        (Object::Job(o), Status::Job(s)) => Arc::make_mut(o).status = s.clone(),
        (Object::CronJob(o), Status::CronJob(s)) => Arc::make_mut(o).status = s.clone(),
        (Object::PodDisruptionBudget(o), Status::Disruption(s)) => Arc::make_mut(o).status = s.clone(),
        (Object::HorizontalPodAutoscaler(o), Status::Autoscaler(s)) => Arc::make_mut(o).status = s.clone(),
        (Object::PersistentVolumeClaim(o), Status::Claim { phase, capacity, access_modes }) => {
            let claim = Arc::make_mut(o);
            claim.phase = *phase;
            claim.capacity = *capacity;
            let _ = access_modes;
        }
        (Object::PersistentVolume(o), Status::Volume { phase }) => Arc::make_mut(o).phase = *phase,
        (Object::Namespace(o), Status::Namespace { terminating, conditions }) => {
            let namespace = Arc::make_mut(o);
            namespace.terminating = *terminating;
            namespace.conditions.clone_from(conditions);
        }
        (Object::Node(o), Status::NodeConditions(list)) => {
            let node = Arc::make_mut(o);
            list.iter().for_each(|new| replace(&mut node.conditions, new));
        }
        (Object::Pod(o), Status::PodConditions { conditions, nominated_node }) => {
            let pod = Arc::make_mut(o);
            conditions.iter().for_each(|new| replace(&mut pod.status.conditions, new));
            if let Some(node) = nominated_node {
                pod.status.nominated_node = node.clone();
            }
        }
        (Object::Pod(o), Status::PodFailed { reason, message, conditions }) => {
            let pod = Arc::make_mut(o);
            pod.status.phase = Phase::Failed;
            pod.status.reason = reason.clone();
            pod.status.message = message.clone();
            conditions.iter().for_each(|new| replace(&mut pod.status.conditions, new));
        }
        _ => {}
    }
}

fn replace(list: &mut Vec<model::Condition>, new: &model::Condition) {
    condition::set(list, new.clone());
}
