//! An API that exists only in memory, over projected objects: carries orders out as an API server would, and tells what changed.
//!
//! It is what tests and the simulator let the control work against, and what a plan is tried on. It knows uids, versions, finalizers, grace
//! periods and namespaces, and refuses what is stale; it knows no admission and no schemas. Templates are opaque to the core, so
//! whoever puts a workload in says what its pods look like ([`Blueprints`]).

mod change;

use model::cluster::Namespace;
use model::effect::{Body, NewMeta, Propagation, Refusal, Target};
use model::map::HashMap;
use model::pod::{PodSpec, PodTemplate};
use model::service::{EndpointSlice, Endpoints};
use model::volume::{PersistentVolume, PersistentVolumeClaim, ReclaimPolicy};
use model::workload::ControllerRevision;
use model::{ConfigMap, Effect, Event, Job, Key, Kind, Meta, Object, Pod, ServiceAccount, Timestamp};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What templates mean, by their hash.
#[derive(Default)]
pub struct Blueprints {
    /// Pods: the template's projection and the spec of a pod made from it.
    pub pods: HashMap<u64, (PodTemplate, PodSpec)>,
    /// Jobs.
    pub jobs: HashMap<u64, Job>,
    /// Claims.
    pub claims: HashMap<u64, PersistentVolumeClaim>,
}

/// The API.
#[derive(Default)]
pub struct Api {
    objects: BTreeMap<(Kind, Key), Object>,
    in_namespace: HashMap<Arc<str>, u32>,
    /// What templates mean.
    pub blueprints: Blueprints,
    revision: u64,
    uids: u64,
}

/// What an order did: the events that watchers will see, and the object's revision.
pub type Outcome = Result<(Vec<Event>, u64), Refusal>;

/// A refusal with one of Kubernetes' reasons.
pub fn refuse(code: u16, reason: &str, message: String) -> Refusal {
    Refusal { code, reason: reason.into(), message: message.into() }
}

fn not_found(kind: Kind, key: &Key) -> Refusal {
    refuse(404, "NotFound", format!("{} \"{}\" not found", kind.resource().plural, key.name))
}

fn conflict(kind: Kind, key: &Key) -> Refusal {
    let plural = kind.resource().plural;
    refuse(
        409,
        "Conflict",
        format!("Operation cannot be fulfilled on {plural} \"{}\": the object has been modified", key.name),
    )
}

/// Calls `$with` on the object's inner value, mutably.
macro_rules! inner {
    ($object:expr, $inner:ident => $with:expr) => {
        match $object {
            Object::Pod(o) => {
                let $inner = Arc::make_mut(o);
                $with
            }
            Object::Node(o) => {
                let $inner = Arc::make_mut(o);
                $with
            }
            Object::Namespace(o) => {
                let $inner = Arc::make_mut(o);
                $with
            }
            Object::ServiceAccount(o) => {
                let $inner = Arc::make_mut(o);
                $with
            }
            Object::ConfigMap(o) => {
                let $inner = Arc::make_mut(o);
                $with
            }
            Object::Service(o) => {
                let $inner = Arc::make_mut(o);
                $with
            }
            Object::Endpoints(o) => {
                let $inner = Arc::make_mut(o);
                $with
            }
            Object::EndpointSlice(o) => {
                let $inner = Arc::make_mut(o);
                $with
            }
            Object::Deployment(o) => {
                let $inner = Arc::make_mut(o);
                $with
            }
            Object::ReplicaSet(o) => {
                let $inner = Arc::make_mut(o);
                $with
            }
            Object::ReplicationController(o) => {
                let $inner = Arc::make_mut(o);
                $with
            }
            Object::StatefulSet(o) => {
                let $inner = Arc::make_mut(o);
                $with
            }
            Object::DaemonSet(o) => {
                let $inner = Arc::make_mut(o);
                $with
            }
            Object::ControllerRevision(o) => {
                let $inner = Arc::make_mut(o);
                $with
            }
            Object::Job(o) => {
                let $inner = Arc::make_mut(o);
                $with
            }
            Object::CronJob(o) => {
                let $inner = Arc::make_mut(o);
                $with
            }
            Object::PodDisruptionBudget(o) => {
                let $inner = Arc::make_mut(o);
                $with
            }
            Object::PriorityClass(o) => {
                let $inner = Arc::make_mut(o);
                $with
            }
            Object::HorizontalPodAutoscaler(o) => {
                let $inner = Arc::make_mut(o);
                $with
            }
            Object::PersistentVolumeClaim(o) => {
                let $inner = Arc::make_mut(o);
                $with
            }
            Object::PersistentVolume(o) => {
                let $inner = Arc::make_mut(o);
                $with
            }
            Object::StorageClass(o) => {
                let $inner = Arc::make_mut(o);
                $with
            }
            Object::Lease(o) => {
                let $inner = Arc::make_mut(o);
                $with
            }
            Object::CustomResourceDefinition(o) => {
                let $inner = Arc::make_mut(o);
                $with
            }
            Object::Other(o) => {
                let $inner = Arc::make_mut(o);
                $with
            }
        }
    };
}

/// The metadata of an object, to change.
pub fn meta_mut(object: &mut Object) -> &mut Meta {
    inner!(object, inner => &mut inner.meta)
}

impl Api {
    /// The present revision.
    pub fn revision(&self) -> u64 {
        self.revision
    }
    /// An object.
    pub fn get(&self, kind: Kind, key: &Key) -> Option<&Object> {
        self.objects.get(&(kind, key.clone()))
    }
    /// Objects of one kind, by name.
    pub fn list(&self, kind: Kind) -> impl Iterator<Item = &Object> {
        let start = (kind, Key::default());
        self.objects.range(start..).take_while(move |((k, _), _)| *k == kind).map(|(_, object)| object)
    }
    /// A pod.
    pub fn pod(&self, key: &Key) -> Option<&Arc<Pod>> {
        match self.get(Kind::Pod, key)? {
            Object::Pod(pod) => Some(pod),
            _ => None,
        }
    }

    /// Puts an object in, as a user who creates it, or one who changes it when it is there (its spec counts as changed).
    pub fn put(&mut self, mut object: Object, now: Timestamp) -> Event {
        let at = (object.kind(), object.meta().key.clone());
        let old = self.objects.get(&at).map(|old| old.meta().clone());
        self.revision += 1;
        let revision = self.revision;
        let uid = match &old {
            Some(old) => old.uid.clone(),
            None => self.new_uid(),
        };
        let meta = meta_mut(&mut object);
        meta.revision = revision;
        meta.uid = uid;
        match &old {
            Some(old) => {
                meta.created = old.created;
                meta.generation = old.generation + 1;
                meta.deleting = old.deleting;
            }
            None => {
                meta.created = now;
                meta.generation = 1;
                *self.in_namespace.entry(at.1.namespace.clone()).or_default() += 1;
            }
        }
        self.objects.insert(at, object.clone());
        Event::Applied(object)
    }

    /// Changes an object as an agent that writes its status does; nothing happens when it is gone.
    pub fn change(&mut self, kind: Kind, key: &Key, change: impl FnOnce(&mut Object)) -> Option<Event> {
        let object = self.objects.get_mut(&(kind, key.clone()))?;
        let before = object.clone();
        change(object);
        if *object == before {
            return None;
        }
        self.revision += 1;
        meta_mut(object).revision = self.revision;
        Some(Event::Applied(object.clone()))
    }

    /// Takes an object away for good, as an agent that has ended its pod does; one with finalizers stays.
    pub fn remove(&mut self, kind: Kind, key: &Key, now: Timestamp) -> Option<Event> {
        let finalizers = !self.get(kind, key)?.meta().finalizers.is_empty();
        if finalizers {
            return self.change(kind, key, |object| {
                let meta = meta_mut(object);
                meta.deleting.get_or_insert(now);
                meta.deletion_grace_s = Some(0);
            });
        }
        self.revision += 1;
        let object = self.objects.remove(&(kind, key.clone()))?;
        if let Some(count) = self.in_namespace.get_mut(&key.namespace) {
            *count -= 1;
        }
        Some(Event::Deleted { kind, key: key.clone(), uid: object.meta().uid.clone(), revision: self.revision })
    }

    fn new_uid(&mut self) -> Arc<str> {
        self.uids += 1;
        format!("{:08x}-0000-4000-8000-{:012x}", self.uids >> 32, self.uids).into()
    }

    fn find(&self, target: &Target) -> Result<&Object, Refusal> {
        let object = self.get(target.kind, &target.key).ok_or_else(|| not_found(target.kind, &target.key))?;
        let meta = object.meta();
        if meta.uid != target.uid || target.revision != 0 && meta.revision != target.revision {
            return Err(conflict(target.kind, &target.key));
        }
        Ok(object)
    }

    /// Carries an order out.
    ///
    /// # Errors
    /// What an API server would answer: not found, conflict, exists already, forbidden in a terminating namespace.
    pub fn execute(&mut self, effect: &Effect, now: Timestamp) -> Outcome {
        match effect {
            Effect::Create(meta, body) => self.create(meta, body, now),
            Effect::Update(target, change) => {
                self.find(target)?;
                let event = self.change(target.kind, &target.key, |object| change::apply(object, change));
                self.finish(target, event, now)
            }
            Effect::PatchStatus(target, status) => {
                self.find(target)?;
                let event = self.change(target.kind, &target.key, |object| change::status(object, status));
                self.finish(target, event, now)
            }
            Effect::PatchMeta(target, patch) => {
                self.find(target)?;
                let event = self.change(target.kind, &target.key, |object| change::meta(meta_mut(object), patch));
                self.finish(target, event, now)
            }
            Effect::Delete { target, grace_s, propagation } => self.delete(target, *grace_s, *propagation, now),
            Effect::Bind { pod, node, annotations } => self.bind(pod, node, annotations),
            Effect::Evict { pod, grace_s } => self.delete(pod, *grace_s, Propagation::Default, now),
            Effect::Record(_) => Ok((Vec::new(), 0)),
        }
    }

    fn bind(&mut self, target: &Target, node: &Arc<str>, annotations: &model::Labels) -> Outcome {
        let found = self.get(Kind::Pod, &target.key).ok_or_else(|| not_found(Kind::Pod, &target.key))?;
        let Object::Pod(pod) = found else { return Err(not_found(Kind::Pod, &target.key)) };
        if pod.meta.uid != target.uid || !pod.spec.node_name.is_empty() || pod.meta.is_deleting() {
            return Err(conflict(Kind::Pod, &target.key));
        }
        let event = self.change(Kind::Pod, &target.key, |object| {
            if let Object::Pod(pod) = object {
                let pod = Arc::make_mut(pod);
                pod.spec.node_name = node.clone();
                pod.meta.annotations.extend(annotations.clone());
            }
        });
        Ok((event.into_iter().collect(), self.revision))
    }

    /// An object that is being deleted and has no finalizer left goes.
    fn finish(&mut self, target: &Target, event: Option<Event>, now: Timestamp) -> Outcome {
        let mut events: Vec<Event> = event.into_iter().collect();
        let Some(object) = self.get(target.kind, &target.key) else { return Ok((events, self.revision)) };
        let meta = object.meta();
        let waits = match object {
            // The node's agent has yet to end it.
            Object::Pod(pod) => {
                !pod.spec.node_name.is_empty() && meta.deletion_grace_s != Some(0) && !pod.status.phase.is_terminal()
            }
            Object::Namespace(namespace) => !namespace.finalizers.is_empty(),
            _ => false,
        };
        let revision = meta.revision;
        if meta.is_deleting() && meta.finalizers.is_empty() && !waits {
            events.extend(self.remove(target.kind, &target.key, now));
            return Ok((events, self.revision));
        }
        Ok((events, revision))
    }

    fn delete(&mut self, target: &Target, grace_s: Option<i64>, propagation: Propagation, now: Timestamp) -> Outcome {
        let object = self.find(target)?;
        let grace = match object {
            Object::Pod(pod) if pod.spec.node_name.is_empty() || pod.status.phase.is_terminal() => 0,
            Object::Pod(pod) => grace_s.unwrap_or(pod.spec.termination_grace_s),
            _ => 0,
        };
        let finalizer = match propagation {
            Propagation::Foreground => Some(crate::collector::FOREGROUND),
            Propagation::Orphan => Some(crate::collector::ORPHAN),
            Propagation::Default | Propagation::Background => None,
        };
        let event = self.change(target.kind, &target.key, |object| {
            let first = !object.meta().is_deleting();
            if let Object::Namespace(namespace) = object {
                Arc::make_mut(namespace).terminating = true;
            }
            let meta = meta_mut(object);
            if first {
                meta.deleting = Some(now.plus_ms(grace * 1000));
                meta.generation += 1;
                meta.finalizers.extend(finalizer.map(Arc::from));
            }
            meta.deletion_grace_s = Some(meta.deletion_grace_s.map_or(grace, |old| old.min(grace)));
        });
        self.finish(target, event, now)
    }

    fn create(&mut self, new: &NewMeta, body: &Body, now: Timestamp) -> Outcome {
        let kind = body.kind();
        let at = (kind, new.key.clone());
        if self.objects.contains_key(&at) {
            return Err(refuse(
                409,
                "AlreadyExists",
                format!("{} \"{}\" already exists", kind.resource().plural, new.key.name),
            ));
        }
        let namespace = self.get(Kind::Namespace, &Key::new("", new.key.namespace.clone()));
        if namespace.is_some_and(|namespace| namespace.meta().is_deleting()) {
            let text = format!(
                "unable to create new content in namespace {} because it is being terminated",
                new.key.namespace
            );
            return Err(refuse(403, "Forbidden", text));
        }
        let meta = Meta {
            key: new.key.clone(),
            labels: new.labels.clone(),
            annotations: new.annotations.clone(),
            owners: new.owners.clone(),
            finalizers: new.finalizers.clone(),
            ..Meta::default()
        };
        let object = self.build(meta, body)?;
        let event = self.put(object, now);
        Ok((vec![event], self.revision))
    }

    fn build(&self, mut meta: Meta, body: &Body) -> Result<Object, Refusal> {
        let unknown = |what: &str| refuse(422, "Invalid", format!("a {what} template without a blueprint"));
        Ok(match body {
            Body::Pod(new) => {
                let (_, spec) = self.blueprints.pods.get(&new.template.hash()).ok_or_else(|| unknown("pod"))?;
                change::pod(meta, spec, new).into()
            }
            Body::ReplicaSet { replicas, min_ready_s, selector, template, hash } => {
                let (known, _) = self.blueprints.pods.get(&template.hash()).ok_or_else(|| unknown("pod"))?;
                change::replica_set(meta, known, (*replicas, *min_ready_s), selector, hash).into()
            }
            Body::ControllerRevision { number, data } => {
                let template = meta
                    .owners
                    .first()
                    .and_then(|owner| self.template_of(&owner.kind, &meta.key.namespace, &owner.name));
                ControllerRevision { meta, number: *number, data: data.clone(), template }.into()
            }
            Body::Job { template } => {
                let mut job = self.blueprints.jobs.get(&template.hash()).ok_or_else(|| unknown("job"))?.clone();
                meta.labels.extend(job.meta.labels.clone());
                job.meta = meta;
                job.into()
            }
            Body::Claim { template } => {
                let known = self.blueprints.claims.get(&template.hash()).ok_or_else(|| unknown("claim"))?;
                PersistentVolumeClaim { meta, ..known.clone() }.into()
            }
            Body::HostPathVolume { path, node, capacity, access_modes, class, delete, block, claim } => {
                PersistentVolume {
                    meta,
                    class: class.clone(),
                    claim: Some((claim.0.namespace.clone(), claim.0.name.clone(), claim.1.clone())),
                    capacity: *capacity,
                    access_modes: access_modes.clone(),
                    reclaim: if *delete { ReclaimPolicy::Delete } else { ReclaimPolicy::Retain },
                    block: *block,
                    host_path: path.clone(),
                    nodes: Some(vec![node.clone()]),
                    ..PersistentVolume::default()
                }
                .into()
            }
            Body::EndpointSlice { address_type, ports, endpoints } => {
                EndpointSlice { meta, address_type: *address_type, ports: ports.clone(), endpoints: endpoints.clone() }
                    .into()
            }
            Body::Endpoints { subsets } => Endpoints { meta, subsets: subsets.clone() }.into(),
            Body::ServiceAccount => ServiceAccount { meta }.into(),
            Body::RootCa { pem } => ConfigMap { meta, root_ca: Some(model::map::stable_hash(pem.as_bytes())) }.into(),
        })
    }

    fn template_of(&self, kind: &str, namespace: &str, name: &str) -> Option<PodTemplate> {
        let key = Key::new(namespace, name);
        let kind = if kind == "DaemonSet" { Kind::DaemonSet } else { Kind::StatefulSet };
        match self.get(kind, &key)? {
            Object::StatefulSet(set) => Some(set.template.clone()),
            Object::DaemonSet(set) => Some(set.template.clone()),
            _ => None,
        }
    }
}

/// A namespace as an API server makes it.
pub fn namespace(name: &str) -> Namespace {
    let meta = Meta { key: Key::new("", name), ..Meta::default() };
    Namespace { meta, finalizers: vec!["kubernetes".into()], ..Namespace::default() }
}
