use bytes::Bytes;
use client::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;
use tokio::sync::broadcast;

type Key = (String, String, String);

/// As much of an API server as feeds a node: objects in memory, watches of pods.
pub struct FakeApi {
    objects: Mutex<BTreeMap<Key, Value>>,
    changes: broadcast::Sender<WatchEvent>,
}

impl Default for FakeApi {
    fn default() -> Self {
        FakeApi { objects: Mutex::default(), changes: broadcast::channel(10_000).0 }
    }
}

fn key(plural: &str, namespace: &str, name: &str) -> Key {
    (plural.to_owned(), namespace.to_owned(), name.to_owned())
}

fn bytes(value: &Value) -> Bytes {
    Bytes::from(value.to_string())
}

fn not_found(name: &str) -> ApiError {
    ApiError::new(404, "NotFound", format!("\"{name}\" not found"))
}

impl FakeApi {
    pub fn put(&self, plural: &str, object: &Value) {
        let meta = &object["metadata"];
        let at = key(plural, meta["namespace"].as_str().unwrap_or(""), meta["name"].as_str().unwrap());
        self.objects.lock().unwrap().insert(at, object.clone());
        self.tell(plural, EventKind::Modified, object);
    }

    fn tell(&self, plural: &str, kind: EventKind, object: &Value) {
        if plural == "pods" {
            let _ = self.changes.send(WatchEvent { kind, revision: 1, object: bytes(object) });
        }
    }

    pub fn find(&self, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        self.objects.lock().unwrap().get(&key(plural, namespace, name)).cloned()
    }

    pub fn pod(&self, name: &str) -> Value {
        self.find("pods", "default", name).unwrap_or_default()
    }

    pub fn pod_names(&self) -> Vec<String> {
        let objects = self.objects.lock().unwrap();
        objects.keys().filter(|(plural, ..)| plural == "pods").map(|(_, _, name)| name.clone()).collect()
    }

    /// As `kubectl delete`: the node removes the object when the pod has ended.
    pub fn delete_pod(&self, name: &str, grace_s: i64) {
        let Some(mut pod) = self.find("pods", "default", name) else { return };
        pod["metadata"]["deletionTimestamp"] = json!("2026-11-22T02:00:00Z");
        pod["metadata"]["deletionGracePeriodSeconds"] = json!(grace_s);
        self.put("pods", &pod);
    }

    /// The pod is gone without the node being asked.
    pub fn forget_pod(&self, name: &str) {
        let object = self.objects.lock().unwrap().remove(&key("pods", "default", name));
        self.tell("pods", EventKind::Deleted, &object.unwrap_or_default());
    }

    /// Waits until `test` holds of the pod; gives up loudly.
    pub async fn wait(&self, name: &str, what: &str, test: impl Fn(&Value) -> bool) -> Value {
        for _ in 0..1200 {
            let pod = self.pod(name);
            if test(&pod) {
                return pod;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("{name} is not {what}: {:#}\n{}", self.pod(name)["status"], self.events(name).join("\n"));
    }

    pub async fn wait_ready(&self, name: &str) -> Value {
        self.wait(name, "ready", |pod| condition(pod, "Ready") == "True").await
    }

    pub async fn wait_phase(&self, name: &str, phase: &str) -> Value {
        self.wait(name, phase, |pod| pod["status"]["phase"] == phase).await
    }

    pub async fn wait_gone(&self, name: &str) {
        self.wait(name, "gone", Value::is_null).await;
    }

    /// `reason: message` of every event about a pod.
    pub fn events(&self, name: &str) -> Vec<String> {
        let objects = self.objects.lock().unwrap();
        let events = objects.iter().filter(|((plural, ..), _)| plural == "events").map(|(_, event)| event);
        let of_pod = events.filter(|event| event["involvedObject"]["name"] == name);
        let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
        of_pod.map(|event| format!("{}: {}", text(&event["reason"]), text(&event["message"]))).collect()
    }
}

pub fn condition<'a>(pod: &'a Value, kind: &str) -> &'a str {
    let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions.find(|c| c["type"] == kind).and_then(|c| c["status"].as_str()).unwrap_or("")
}

fn merge(target: &mut Value, patch: &Value) {
    let (Some(target), Some(patch)) = (target.as_object_mut(), patch.as_object()) else {
        *target = patch.clone();
        return;
    };
    for (name, value) in patch {
        match value {
            Value::Null => drop(target.remove(name)),
            Value::Array(items) if name == "conditions" => {
                let old = target.entry(name).or_insert_with(|| json!([]));
                let mut all: Vec<Value> = old.as_array().cloned().unwrap_or_default();
                all.retain(|old| !items.iter().any(|new| new["type"] == old["type"]));
                all.extend(items.iter().cloned());
                *old = json!(all);
            }
            Value::Array(items) => {
                let kept: Vec<&Value> = items.iter().filter(|item| item["$patch"].is_null()).collect();
                target.insert(name.clone(), json!(kept));
            }
            Value::Object(_) => merge(target.entry(name).or_insert_with(|| json!({})), value),
            _ => drop(target.insert(name.clone(), value.clone())),
        }
    }
}

impl ObjectApi for FakeApi {
    fn get<'a>(&'a self, of: Resource, ns: &'a str, name: &'a str) -> BoxFuture<'a, Result<Bytes, ApiError>> {
        Box::pin(async move { self.find(of.plural, ns, name).map(|v| bytes(&v)).ok_or_else(|| not_found(name)) })
    }

    fn list<'a>(&'a self, of: Resource, _: ListOptions) -> BoxFuture<'a, Result<ObjectList, ApiError>> {
        Box::pin(async move {
            let objects = self.objects.lock().unwrap();
            let items = objects.iter().filter(|((plural, ..), _)| plural == of.plural).map(|(_, v)| bytes(v)).collect();
            Ok(ObjectList { revision: 1, items })
        })
    }

    fn watch<'a>(&'a self, _: Resource, _: ListOptions, _: u64) -> BoxFuture<'a, Result<WatchStream, ApiError>> {
        Box::pin(async move {
            let changes = self.changes.subscribe();
            let stream = futures_util::stream::unfold(changes, |mut changes| async move {
                changes.recv().await.ok().map(|event| (Ok(event), changes))
            });
            Ok(Box::pin(stream) as WatchStream)
        })
    }

    fn create<'a>(
        &'a self,
        of: Resource,
        ns: &'a str,
        at: Option<(&'a str, &'a str)>,
        body: Bytes,
    ) -> BoxFuture<'a, Result<Bytes, ApiError>> {
        Box::pin(async move {
            if let Some((account, "token")) = at {
                let expires = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(3600);
                let status =
                    json!({"token": format!("token-of-{account}"), "expirationTimestamp": expires.to_string()});
                return Ok(bytes(&json!({"status": status})));
            }
            let mut object: Value = serde_json::from_slice(&body).unwrap();
            let name = object["metadata"]["name"].as_str().unwrap().to_owned();
            if self.find(of.plural, ns, &name).is_some() {
                return Err(ApiError::new(409, "AlreadyExists", name));
            }
            if !ns.is_empty() {
                object["metadata"]["namespace"] = json!(ns);
            }
            object["metadata"]["uid"] = json!(format!("uid-{name}"));
            self.put(of.plural, &object);
            Ok(bytes(&object))
        })
    }

    fn update<'a>(
        &'a self,
        _: Resource,
        _: &'a str,
        name: &'a str,
        _: Option<&'a str>,
        _: Bytes,
    ) -> BoxFuture<'a, Result<Bytes, ApiError>> {
        Box::pin(async move { Err(not_found(name)) })
    }

    fn patch<'a>(
        &'a self,
        of: Resource,
        ns: &'a str,
        name: &'a str,
        _: Option<&'a str>,
        _: PatchKind,
        body: Bytes,
    ) -> BoxFuture<'a, Result<Bytes, ApiError>> {
        Box::pin(async move {
            let patch: Value = serde_json::from_slice(&body).unwrap();
            let mut object = self.find(of.plural, ns, name).ok_or_else(|| not_found(name))?;
            if !patch["metadata"]["uid"].is_null() && patch["metadata"]["uid"] != object["metadata"]["uid"] {
                return Err(ApiError::new(409, "Conflict", "another uid"));
            }
            merge(&mut object, &patch);
            self.put(of.plural, &object);
            Ok(bytes(&object))
        })
    }

    fn delete<'a>(
        &'a self,
        of: Resource,
        ns: &'a str,
        name: &'a str,
        options: DeleteOptions,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(async move {
            let object = self.find(of.plural, ns, name).ok_or_else(|| not_found(name))?;
            assert_eq!((options.grace_s, options.uid.as_deref()), (Some(0), object["metadata"]["uid"].as_str()));
            self.objects.lock().unwrap().remove(&key(of.plural, ns, name));
            self.tell(of.plural, EventKind::Deleted, &object);
            Ok(())
        })
    }
}
