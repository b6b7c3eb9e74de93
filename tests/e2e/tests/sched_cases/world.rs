//! Sets a case up in the API, plays its steps, and clears it away.

use crate::expect::{self, Seen};
use bytes::Bytes;
use client::{DeleteOptions, HttpsApi, ListOptions, ObjectApi, PatchKind, Resource};
use e2e::Check;
use http::Method;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Kinds that cases use, in the order in which they are created; they are deleted in the opposite one.
const KINDS: &[(&str, Resource)] = &[
    ("Namespace", Resource { group: "", version: "v1", plural: "namespaces" }),
    ("PriorityClass", Resource { group: "scheduling.k8s.io", version: "v1", plural: "priorityclasses" }),
    ("RuntimeClass", Resource { group: "node.k8s.io", version: "v1", plural: "runtimeclasses" }),
    ("Service", Resource { group: "", version: "v1", plural: "services" }),
    ("ReplicationController", Resource { group: "", version: "v1", plural: "replicationcontrollers" }),
    ("ReplicaSet", Resource { group: "apps", version: "v1", plural: "replicasets" }),
    ("StatefulSet", Resource { group: "apps", version: "v1", plural: "statefulsets" }),
    ("Node", Resource { group: "", version: "v1", plural: "nodes" }),
    ("StorageClass", Resource { group: "storage.k8s.io", version: "v1", plural: "storageclasses" }),
    ("CSINode", Resource { group: "storage.k8s.io", version: "v1", plural: "csinodes" }),
    ("PersistentVolume", Resource { group: "", version: "v1", plural: "persistentvolumes" }),
    ("PersistentVolumeClaim", Resource { group: "", version: "v1", plural: "persistentvolumeclaims" }),
    ("PodDisruptionBudget", Resource { group: "policy", version: "v1", plural: "poddisruptionbudgets" }),
    ("Pod", Resource { group: "", version: "v1", plural: "pods" }),
];
/// Parts of a case, in the order in which they are created.
const PARTS: &[(&str, &str)] = &[
    ("namespaces", "Namespace"),
    ("priorityclasses", "PriorityClass"),
    ("objects", ""),
    ("nodes", "Node"),
    ("storageclasses", "StorageClass"),
    ("csinodes", "CSINode"),
    ("pvs", "PersistentVolume"),
    ("pvcs", "PersistentVolumeClaim"),
    ("pdbs", "PodDisruptionBudget"),
];
/// Nothing has changed for so long: it has settled.
const QUIET: Duration = Duration::from_millis(200);
/// So long when a pod was neither bound nor told why not: it waits for its claims.
const STILL: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(25);
const PATIENCE: Duration = Duration::from_secs(20);

/// Kinds that belong to no namespace.
const CLUSTER_WIDE: &[&str] =
    &["Namespace", "Node", "PersistentVolume", "CSINode", "CSIDriver", "VolumeAttachment", "ResourceSlice"];

fn namespaced(kind: &str) -> bool {
    !(CLUSTER_WIDE.contains(&kind) || kind.ends_with("Class"))
}

fn namespace_of<'a>(kind: &str, object: &'a Value) -> &'a str {
    if namespaced(kind) { object["metadata"]["namespace"].as_str().unwrap_or("default") } else { "" }
}

fn name_of(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

struct World<'a> {
    api: &'a HttpsApi,
    /// What was made of kinds that are not in `KINDS`.
    others: RefCell<Vec<(Resource, String, String)>>,
}

/// Plays a case; whatever comes of it, the API is as before afterwards.
pub async fn play(api: &HttpsApi, case: &Value) -> Check {
    let world = World { api, others: RefCell::default() };
    let before = world.names().await?;
    let outcome = world.play(case).await;
    world.clear(&before).await?;
    outcome
}

type Names = BTreeSet<(usize, String, String)>;

impl World<'_> {
    /// Where a kind lives: one of `KINDS`, or what discovery says of `api_version` (any group's first that has it, when empty).
    async fn resource(&self, kind: &str, api_version: &str) -> Check<Resource> {
        if let Some((_, resource)) = KINDS.iter().find(|(name, _)| *name == kind) {
            return Ok(*resource);
        }
        let groups = self.document("/apis").await?;
        let served = groups["groups"].as_array().into_iter().flatten();
        let preferred =
            served.filter_map(|group| group["preferredVersion"]["groupVersion"].as_str().map(str::to_owned));
        let versions = if api_version.is_empty() {
            std::iter::once("v1".to_owned()).chain(preferred).collect()
        } else {
            vec![api_version.to_owned()]
        };
        for version in versions {
            let root = if version.contains('/') { "/apis" } else { "/api" };
            let list = self.document(&format!("{root}/{version}")).await?;
            let resources = list["resources"].as_array().into_iter().flatten();
            let plural = resources.filter(|r| r["kind"] == kind).find_map(|r| r["name"].as_str());
            if let Some(plural) = plural.filter(|plural| !plural.contains('/')) {
                let (group, version) = version.split_once('/').unwrap_or(("", &version));
                let keep = |text: &str| -> &'static str { Box::leak(text.to_owned().into_boxed_str()) };
                return Ok(Resource { group: keep(group), version: keep(version), plural: keep(plural) });
            }
        }
        Err(format!("nobody serves a {kind:?} of {api_version:?}"))
    }

    async fn document(&self, path: &str) -> Check<Value> {
        let answer = self.api.call(Method::GET, path, "application/json", Bytes::new()).await;
        let answer = answer.map_err(|error| error.to_string())?;
        serde_json::from_slice(&answer.body).map_err(|error| format!("{path}: {error}"))
    }

    async fn list(&self, of: Resource) -> Check<Vec<Value>> {
        let all = match self.api.list(of, ListOptions::default()).await {
            // A kind that is not served.
            Err(error) if error.code == 404 => return Ok(Vec::new()),
            all => all.map_err(|error| error.to_string())?,
        };
        all.items.iter().map(|item| serde_json::from_slice(item).map_err(|error| error.to_string())).collect()
    }

    async fn names(&self) -> Check<Names> {
        let mut names = Names::new();
        for (at, (kind, of)) in KINDS.iter().enumerate() {
            for object in self.list(*of).await? {
                names.insert((at, namespace_of(kind, &object).to_owned(), name_of(&object).to_owned()));
            }
        }
        Ok(names)
    }

    async fn clear(&self, before: &Names) -> Check {
        for (of, namespace, name) in self.others.take().into_iter().rev() {
            let _ = self.api.delete(of, &namespace, &name, DeleteOptions::default()).await;
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            let rest: Vec<_> = self.names().await?.difference(before).cloned().collect();
            // A Service gets its endpoints, a namespace its account; they go with them.
            if rest.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!("these do not go away: {rest:?}"));
            }
            for (at, namespace, name) in rest.into_iter().rev() {
                let (_, of) = KINDS[at];
                let options = DeleteOptions { grace_s: Some(0), ..DeleteOptions::default() };
                // What is gone already, or held by a finalizer, is seen in the next round.
                let _ = self.api.delete(of, &namespace, &name, options).await;
                if of.plural != "namespaces" {
                    let patch = Bytes::from_static(b"{\"metadata\":{\"finalizers\":null}}");
                    let _ = self.api.patch(of, &namespace, &name, None, PatchKind::Merge, patch).await;
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn create(&self, kind: &str, object: &Value) -> Check {
        let kind = object["kind"].as_str().filter(|kind| !kind.is_empty()).unwrap_or(kind);
        let of = self.resource(kind, object["apiVersion"].as_str().unwrap_or_default()).await?;
        let namespace = namespace_of(kind, object);
        let mut new = object.clone();
        if let Some(fields) = new.as_object_mut() {
            // Marks of the cases' own.
            fields.retain(|key, _| !key.starts_with("x_"));
            let version = if of.group.is_empty() { of.version.into() } else { format!("{}/{}", of.group, of.version) };
            fields.insert("apiVersion".into(), json!(version));
            fields.insert("kind".into(), json!(kind));
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.api.create(of, namespace, None, Bytes::from(new.to_string())).await {
                Ok(_) => {
                    if KINDS.iter().all(|(name, _)| *name != kind) {
                        self.others.borrow_mut().push((of, namespace.to_owned(), name_of(object).to_owned()));
                    }
                    break;
                }
                Err(error) if error.code == 409 && kind != "Pod" => {
                    // A namespace or class that is always there.
                    let patch = Bytes::from(json!({"metadata": new["metadata"]}).to_string());
                    let done = self.api.patch(of, namespace, name_of(object), None, PatchKind::Merge, patch).await;
                    return done.map(drop).map_err(|error| error.to_string());
                }
                // A new namespace has no account yet.
                Err(error) if error.code == 403 && Instant::now() < deadline => tokio::time::sleep(LOOK).await,
                Err(error) => return Err(format!("{kind} {}: {error}", name_of(object))),
            }
        }
        if object["status"].as_object().is_none_or(serde_json::Map::is_empty) {
            return Ok(());
        }
        let body = Bytes::from(json!({"status": object["status"]}).to_string());
        match self.api.patch(of, namespace, name_of(object), Some("status"), PatchKind::Merge, body).await {
            // A controller was quicker (the pod of a node that tolerates nobody), or there is no such part.
            Err(error) if error.code != 404 => Err(format!("status of {kind} {}: {error}", name_of(object))),
            _ => Ok(()),
        }
    }

    /// A merge patch; its status goes to the status subresource.
    async fn patch(&self, kind: &str, object: &Value, patch: &Value) -> Check {
        let (of, namespace, name) = (self.resource(kind, "").await?, namespace_of(kind, object), name_of(object));
        if patch.is_array() {
            let body = Bytes::from(patch.to_string());
            let done = self.api.patch(of, namespace, name, None, PatchKind::Json, body).await;
            return done.map(drop).map_err(|error| format!("patch of {kind} {name}: {error}"));
        }
        let mut main = patch.clone();
        let status = main.as_object_mut().and_then(|fields| fields.remove("status"));
        let send = async |body: Value, subresource| {
            let body = Bytes::from(body.to_string());
            let done = self.api.patch(of, namespace, name, subresource, PatchKind::Merge, body).await;
            done.map(drop).map_err(|error| format!("patch of {kind} {name}: {error}"))
        };
        if let Some(status) = status {
            send(json!({"status": status}), Some("status")).await?;
        }
        if main.as_object().is_some_and(|fields| !fields.is_empty()) {
            send(main, None).await?;
        }
        Ok(())
    }

    async fn delete(&self, kind: &str, object: &Value, grace_s: Option<i64>) -> Check {
        let options = DeleteOptions { grace_s, ..DeleteOptions::default() };
        let of = self.resource(kind, "").await?;
        let done = self.api.delete(of, namespace_of(kind, object), name_of(object), options).await;
        done.map_err(|error| format!("delete of {kind} {}: {error}", name_of(object)))
    }

    async fn set_up(&self, case: &Value) -> Check {
        for (part, kind) in PARTS {
            for object in case[*part].as_array().into_iter().flatten() {
                self.create(kind, object).await?;
            }
        }
        for pod in case["existing_pods"].as_array().into_iter().flatten() {
            self.create("Pod", pod).await?;
            if pod["x_terminating"] == json!(true) || pod["metadata"]["x_terminating"] == json!(true) {
                self.delete("Pod", pod, Some(3600)).await?;
            }
        }
        self.settle().await
    }

    async fn step(&self, step: &Value) -> Check {
        for (verb, body) in step.as_object().into_iter().flatten() {
            let kind = body["kind"].as_str().unwrap_or_default();
            let named = json!({"metadata": {"name": body["name"], "namespace": body["namespace"].as_str().unwrap_or("default")}});
            match verb.as_str() {
                "sleep" => tokio::time::sleep(Duration::from_secs_f64(body.as_f64().unwrap_or(0.0))).await,
                "create" => self.create(kind, body).await?,
                "patch" => self.patch(kind, &named, &body["patch"]).await?,
                "delete" => self.delete(kind, &named, body["grace"].as_i64()).await?,
                // What is there is changed to what is given; what is not is made.
                "update" | "apply" | "replace" => match self.patch(kind, body, body).await {
                    Err(error) if error.contains("not found") => self.create(kind, body).await?,
                    done => done?,
                },
                other => return Err(format!("unknown step {other}")),
            }
        }
        self.settle().await
    }

    /// Waits until every pod is bound or told why not, and nothing has changed for a while.
    async fn settle(&self) -> Check {
        let deadline = Instant::now() + PATIENCE;
        let (mut last, mut since) = (Vec::new(), Instant::now());
        loop {
            let mut now = Vec::new();
            let mut told = true;
            for kind in ["Node", "PersistentVolume", "PersistentVolumeClaim", "Pod"] {
                for object in self.list(self.resource(kind, "").await?).await? {
                    now.push((object["metadata"]["uid"].clone(), object["metadata"]["resourceVersion"].clone()));
                    told &=
                        kind != "Pod" || object["spec"]["nodeName"].is_string() || !expect::message(&object).is_empty();
                }
            }
            if now != last {
                (last, since) = (now, Instant::now());
            } else if since.elapsed() >= if told { QUIET } else { STILL } {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err("it does not come to rest".into());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn seen(&self) -> Check<Seen> {
        let mut objects = BTreeMap::new();
        for kind in ["Pod", "Node", "PersistentVolumeClaim"] {
            for object in self.list(self.resource(kind, "").await?).await? {
                let id = (kind.to_owned(), namespace_of(kind, &object).to_owned(), name_of(&object).to_owned());
                objects.insert(id, object);
            }
        }
        Ok(Seen { objects, whole_messages: false })
    }

    async fn play(&self, case: &Value) -> Check {
        self.set_up(case).await?;
        let batch = case["mode"] == json!("batch");
        for pod in case["pods"].as_array().into_iter().flatten() {
            self.create("Pod", pod).await?;
            if !batch {
                self.settle().await?;
            }
        }
        self.settle().await?;
        for step in expect::steps(case) {
            self.step(step).await?;
        }
        expect::check(&self.seen().await?, case)
    }
}
