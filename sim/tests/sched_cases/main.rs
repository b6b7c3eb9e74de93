//! Every case of `shared/data/sched-cases` against the scheduler, without I/O: a small API in memory carries out its orders.
//! The cases are plain Kubernetes objects with what kube-scheduler 1.36 did; the directory's README gives the form.

use control::scheduler::{Order, Scheduler};
use model::effect::{Change, Made, Receipt, Status};
use model::scheduling::SpreadOwner;
use model::{Effect, Event, Key, Kind, Timestamp, Truth};
use placement::StorageChange;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

mod expect;

use expect::{Id, Seen};

fn cases() -> Option<PathBuf> {
    let shared = std::env::var_os("DIOLKOS_SHARED").map(PathBuf::from);
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let directory = shared.unwrap_or(beside).join("data/sched-cases");
    directory.is_dir().then_some(directory)
}

/// JSON merge patch (RFC 7386).
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    for (key, value) in patch {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(key);
        } else {
            merge(target.as_object_mut().unwrap().entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

/// The API in memory.
struct World {
    scheduler: Scheduler,
    objects: BTreeMap<Id, Value>,
    volumes_are_bound: bool,
    now: Timestamp,
    uids: u64,
}

impl World {
    fn new(case: &Value) -> Self {
        let mut world = World {
            scheduler: Scheduler::new(),
            objects: BTreeMap::new(),
            volumes_are_bound: case["pv_controller"] == json!(true),
            now: Timestamp::from_secs(1_800_000_000),
            uids: 0,
        };
        for (name, value) in [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)] {
            world.create(json!({"kind": "PriorityClass", "metadata": {"name": name}, "value": value}));
        }
        for name in ["default", "kube-system"] {
            world.create(json!({"kind": "Namespace", "metadata": {"name": name}}));
        }
        for part in
            ["namespaces", "priorityclasses", "objects", "nodes", "storageclasses", "csinodes", "pvs", "pvcs", "pdbs"]
        {
            for object in case[part].as_array().into_iter().flatten() {
                world.create(object.clone());
            }
        }
        for pod in case["existing_pods"].as_array().into_iter().flatten() {
            let mut pod = pod.clone();
            if pod["x_terminating"] == json!(true) || pod["metadata"]["x_terminating"] == json!(true) {
                pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            }
            world.create(pod);
        }
        world
    }

    fn id(object: &Value) -> Id {
        let kind = object["kind"].as_str().unwrap().to_owned();
        let namespaced = matches!(
            kind.as_str(),
            "Pod"
                | "PersistentVolumeClaim"
                | "PodDisruptionBudget"
                | "Service"
                | "ReplicaSet"
                | "StatefulSet"
                | "ReplicationController"
        );
        let namespace = if namespaced { object["metadata"]["namespace"].as_str().unwrap_or("default") } else { "" };
        (kind, namespace.to_owned(), object["metadata"]["name"].as_str().unwrap().to_owned())
    }

    /// What admission does to a new pod.
    fn admit(&self, pod: &mut Value) {
        let spec = &mut pod["spec"];
        if let Some(name) = spec["priorityClassName"].as_str() {
            let class = &self.objects[&("PriorityClass".to_owned(), String::new(), name.to_owned())];
            spec["priority"] = class["value"].clone();
            if !class["preemptionPolicy"].is_null() {
                spec["preemptionPolicy"] = class["preemptionPolicy"].clone();
            }
        } else {
            let default = self
                .objects
                .values()
                .find(|o| o["kind"] == json!("PriorityClass") && o["globalDefault"] == json!(true));
            if let Some(class) = default {
                spec["priority"] = class["value"].clone();
                if !class["preemptionPolicy"].is_null() {
                    spec["preemptionPolicy"] = class["preemptionPolicy"].clone();
                }
            }
        }
        if let Some(name) = spec["runtimeClassName"].as_str() {
            let class = &self.objects[&("RuntimeClass".to_owned(), String::new(), name.to_owned())];
            if let Some(overhead) = class["overhead"]["podFixed"].as_object() {
                spec["overhead"] = Value::Object(overhead.clone());
            }
            let scheduling = class["scheduling"].clone();
            for (key, value) in scheduling["nodeSelector"].as_object().into_iter().flatten() {
                spec["nodeSelector"][key] = value.clone();
            }
            extend(&mut spec["tolerations"], scheduling["tolerations"].as_array().cloned().unwrap_or_default());
        }
        for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
            let covered = spec["tolerations"].as_array().into_iter().flatten().any(|t| {
                let effect = t["effect"].as_str().unwrap_or_default();
                (t["key"] == json!(key) || t["key"].as_str().unwrap_or_default().is_empty())
                    && (effect == "NoExecute" || effect.is_empty())
            });
            if !covered {
                let toleration =
                    json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300});
                extend(&mut spec["tolerations"], vec![toleration]);
            }
        }
    }

    fn create(&mut self, mut object: Value) {
        let id = World::id(&object);
        self.uids += 1;
        object["metadata"]["uid"] = json!(format!("uid-{}", self.uids));
        if !id.1.is_empty() {
            object["metadata"]["namespace"] = json!(id.1);
        }
        if id.0 == "Pod" {
            self.admit(&mut object);
        }
        if id.0 == "Namespace" {
            object["metadata"]["labels"]["kubernetes.io/metadata.name"] = json!(id.2);
        }
        self.objects.insert(id.clone(), object);
        self.tell(&id);
        if matches!(id.0.as_str(), "PersistentVolume" | "PersistentVolumeClaim") {
            self.bind_volumes();
        }
    }

    /// Tells the scheduler an object as it is now.
    fn tell(&mut self, id: &Id) {
        use project::scheduling as read;
        let object = &self.objects[id];
        let scheduler = &mut self.scheduler;
        match id.0.as_str() {
            "Pod" => {
                let phase = object["status"]["phase"].as_str().unwrap_or_default();
                let ended = matches!(phase, "Succeeded" | "Failed");
                let ours = object["spec"]["schedulerName"].as_str().is_none_or(|name| name == control::scheduler::NAME);
                let message = Some(expect::message(object).to_owned()).filter(|message| !message.is_empty());
                scheduler.pod_facts(&read::pod(object), ended, ours, message);
            }
            "Node" => scheduler.node(read::node(object)),
            "Namespace" => {
                let facts = read::pod(object);
                let namespace = model::Namespace {
                    meta: model::Meta {
                        key: Key::new("", id.2.as_str()),
                        labels: (*facts.labels).clone(),
                        ..Default::default()
                    },
                    ..Default::default()
                };
                scheduler.observe(&Event::Applied(namespace.into()));
            }
            "PodDisruptionBudget" => scheduler.budget(read::budget(object)),
            "PersistentVolume" => scheduler.storage(StorageChange::Volume(read::volume(object))),
            "PersistentVolumeClaim" => scheduler.storage(StorageChange::Claim(read::claim(object))),
            "StorageClass" => scheduler.storage(StorageChange::Class(read::storage_class(object))),
            "CSINode" => scheduler.storage(StorageChange::CsiNode(read::csi_node(object))),
            "Service" | "ReplicaSet" | "StatefulSet" | "ReplicationController" => {
                let kind = ["Service", "ReplicaSet", "StatefulSet", "ReplicationController"];
                let kind = kind.into_iter().find(|kind| *kind == id.0).unwrap();
                if let Some(selector) = read::spread_selector(object) {
                    scheduler.owner(SpreadOwner {
                        namespace: id.1.as_str().into(),
                        kind,
                        name: id.2.as_str().into(),
                        selector,
                    });
                }
            }
            _ => {}
        }
    }

    fn delete(&mut self, id: &Id) -> Result<(), String> {
        self.objects.remove(id);
        let key = Key::new(id.1.as_str(), id.2.as_str());
        let deleted = |kind| Event::Deleted { kind, key: key.clone(), uid: "".into(), revision: 0 };
        match id.0.as_str() {
            "Pod" => self.scheduler.observe(&deleted(Kind::Pod)),
            "Node" => self.scheduler.observe(&deleted(Kind::Node)),
            "Namespace" => self.scheduler.observe(&deleted(Kind::Namespace)),
            "PodDisruptionBudget" => self.scheduler.observe(&deleted(Kind::PodDisruptionBudget)),
            "Service" => self.scheduler.observe(&deleted(Kind::Service)),
            "PersistentVolume" => self.scheduler.storage(StorageChange::VolumeGone(id.2.as_str().into())),
            "PersistentVolumeClaim" => self.scheduler.storage(StorageChange::ClaimGone(key)),
            "StorageClass" => self.scheduler.storage(StorageChange::ClassGone(id.2.as_str().into())),
            "CSINode" => self.scheduler.storage(StorageChange::CsiNodeGone(id.2.as_str().into())),
            other => return Err(format!("the scheduler is not told that a {other} is deleted")),
        }
        Ok(())
    }

    /// The volume controller: a volume that names a claim and its claim are bound on both sides.
    fn bind_volumes(&mut self) {
        if !self.volumes_are_bound {
            return;
        }
        let named: Vec<(Id, Id)> = self
            .objects
            .iter()
            .filter(|(id, _)| id.0 == "PersistentVolume")
            .filter_map(|(id, volume)| {
                let claim = &volume["spec"]["claimRef"];
                let claim = (
                    "PersistentVolumeClaim".to_owned(),
                    claim["namespace"].as_str()?.to_owned(),
                    claim["name"].as_str()?.to_owned(),
                );
                Some((id.clone(), claim))
            })
            .collect();
        for (volume, claim) in named {
            let Some(object) = self.objects.get_mut(&claim).filter(|o| o["spec"]["volumeName"].is_null()) else {
                continue;
            };
            object["spec"]["volumeName"] = json!(volume.2);
            object["metadata"]["annotations"]["pv.kubernetes.io/bind-completed"] = json!("yes");
            object["status"]["phase"] = json!("Bound");
            self.tell(&claim);
        }
    }

    fn run(&mut self) {
        for _ in 0..10_000 {
            let orders = self.scheduler.step(self.now, 64);
            if orders.is_empty() {
                match self.scheduler.wake_at().filter(|at| *at <= self.now.plus_ms(60_000)) {
                    Some(at) => self.now = at,
                    None => return,
                }
            }
            for order in orders {
                self.carry_out(&order);
            }
        }
        panic!("the scheduler does not come to rest");
    }

    fn carry_out(&mut self, order: &Order) {
        for effect in &order.effects {
            self.effect(effect);
        }
        self.scheduler.observe(&Event::Done(Receipt { order: order.id, outcome: Ok(Made::default()) }));
    }

    fn effect(&mut self, effect: &Effect) {
        let id = |kind: &str, key: &Key| (kind.to_owned(), key.namespace.to_string(), key.name.to_string());
        match effect {
            Effect::Bind { pod, node, .. } => {
                let id = id("Pod", &pod.key);
                let object = self.objects.get_mut(&id).expect("binds a pod that is there");
                assert!(object["spec"]["nodeName"].is_null(), "{} is bound twice", id.2);
                object["spec"]["nodeName"] = json!(&**node);
                self.tell(&id);
            }
            Effect::PatchStatus(target, Status::PodConditions { conditions, nominated_node }) => {
                let id = id("Pod", &target.key);
                let Some(object) = self.objects.get_mut(&id) else { return };
                for condition in conditions.iter().filter(|c| &*c.kind == "PodScheduled") {
                    assert_eq!(condition.status, Truth::False);
                    object["status"]["conditions"] =
                        json!([{"type": "PodScheduled", "status": "False", "message": &*condition.message}]);
                }
                if let Some(node) = nominated_node {
                    object["status"]["nominatedNodeName"] = json!(&**node);
                }
                self.tell(&id);
            }
            Effect::Delete { target, .. } => {
                let id = id("Pod", &target.key);
                let Some(object) = self.objects.get_mut(&id) else { return };
                if object["spec"]["terminationGracePeriodSeconds"] == json!(0) {
                    self.delete(&id).expect("pods are told");
                } else {
                    object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
                    self.tell(&id);
                }
            }
            Effect::Update(target, Change::VolumeClaim(Some((claim, _)))) => {
                let id = id("PersistentVolume", &target.key);
                let object = self.objects.get_mut(&id).expect("a volume that is there");
                object["spec"]["claimRef"] = json!({"namespace": &*claim.namespace, "name": &*claim.name});
                self.tell(&id);
                self.bind_volumes();
            }
            Effect::PatchMeta(target, patch) => {
                let id = id("PersistentVolumeClaim", &target.key);
                let object = self.objects.get_mut(&id).expect("a claim that is there");
                for (key, value) in &patch.annotations {
                    object["metadata"]["annotations"][&**key] = json!(value.as_deref());
                }
                self.tell(&id);
            }
            Effect::Record(_) => {}
            other => panic!("the scheduler gives no such order: {other:?}"),
        }
    }

    fn step(&mut self, step: &Value) -> Result<(), String> {
        for (verb, body) in step.as_object().ok_or_else(|| format!("a step is an object and not {step}"))? {
            match verb.as_str() {
                "sleep" => {
                    let seconds = body.as_f64().ok_or_else(|| format!("sleep takes seconds and not {body}"))?;
                    self.now = self.now.plus_ms((seconds * 1000.0) as i64);
                }
                "create" => self.create(body.clone()),
                "delete" | "patch" => {
                    let object = json!({"kind": body["kind"], "metadata": {"name": body["name"], "namespace": body["namespace"]}});
                    let id = World::id(&object);
                    if verb == "delete" {
                        self.delete(&id)?;
                    } else {
                        let patched =
                            self.objects.get_mut(&id).ok_or_else(|| format!("{id:?} is not there to be patched"))?;
                        merge(patched, &body["patch"]);
                        self.tell(&id);
                    }
                }
                other => return Err(format!("unknown step {other}")),
            }
        }
        self.run();
        Ok(())
    }
}

fn extend(list: &mut Value, more: Vec<Value>) {
    if !list.is_array() {
        *list = json!([]);
    }
    list.as_array_mut().unwrap().extend(more);
}

/// No node has more pods or more requests than it can hold.
fn room_is_kept(world: &World) -> Result<(), String> {
    let mut used: BTreeMap<(String, Arc<str>), i64> = BTreeMap::new();
    for pod in world.objects.values().filter(|object| object["kind"] == json!("Pod")) {
        let facts = project::scheduling::pod(pod);
        if facts.node.is_empty() || matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed")) {
            continue;
        }
        for (resource, amount) in facts.spec.requests.iter().chain([&("pods".into(), 1)]) {
            *used.entry((facts.node.to_string(), resource.clone())).or_default() += amount;
        }
    }
    for ((node, resource), used) in used {
        let Some(object) = world.objects.get(&("Node".to_owned(), String::new(), node.clone())) else { continue };
        let facts = project::scheduling::node(object);
        let allocatable =
            facts.scheduling.allocatable.iter().find(|(name, _)| *name == resource).map_or(0, |(_, a)| *a);
        if used > allocatable && used > 0 {
            return Err(format!("{node} has {used} of {allocatable} {resource}"));
        }
    }
    Ok(())
}

fn run_case(case: &Value) -> Result<(), String> {
    let mut world = World::new(case);
    let batch = case["mode"] == json!("batch");
    for pod in case["pods"].as_array().into_iter().flatten() {
        world.create(pod.clone());
        if !batch {
            world.run();
        }
    }
    world.run();
    for step in expect::steps(case) {
        world.step(step)?;
    }
    if !case["expect"]["bound"].is_null() {
        room_is_kept(&world)?;
    }
    expect::check(&Seen { objects: world.objects, whole_messages: true }, case)
}

#[test]
fn agrees_with_kube_scheduler() {
    let Some(directory) = cases() else {
        println!(
            "SKIPPED agrees_with_kube_scheduler: no shared/data/sched-cases beside the repository (DIOLKOS_SHARED)"
        );
        return;
    };
    let mut files: Vec<PathBuf> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    let mut wrong = Vec::new();
    for path in &files {
        let case: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        if let Err(why) = run_case(&case) {
            wrong.push(format!("{}: {why}", path.file_stem().unwrap().to_string_lossy()));
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases differ:\n{}", wrong.len(), files.len(), wrong.join("\n"));
}
