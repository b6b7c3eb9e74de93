//! Events: what happened to a pod or the node, for people.

use crate::{clock, resource};
use bytes::Bytes;
use client::{ObjectApi, PatchKind};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::mpsc;

/// What an event is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct About {
    pub kind: &'static str,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// `spec.containers{web}`, or empty.
    pub field: String,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Event {
    about: About,
    warning: bool,
    reason: &'static str,
    message: String,
}

/// Takes events; they are written in the background. Events are hints: when the API server is slow, the newest are dropped.
#[derive(Clone, Debug)]
pub struct Recorder {
    queue: mpsc::Sender<Event>,
}

/// Bounds what a crash loop of many pods can pile up.
const QUEUE: usize = 512;
const REMEMBERED: usize = 1024;

impl Recorder {
    /// Starts the writer. It ends when every recorder is dropped.
    pub fn start(api: Arc<dyn ObjectApi>, node: String) -> Self {
        let (queue, events) = mpsc::channel(QUEUE);
        tokio::spawn(write(api, node, events));
        Recorder { queue }
    }

    /// Something went as it should.
    pub fn normal(&self, about: &About, reason: &'static str, message: impl Into<String>) {
        self.send(about, false, reason, message.into());
    }

    /// Something did not.
    pub fn warning(&self, about: &About, reason: &'static str, message: impl Into<String>) {
        self.send(about, true, reason, message.into());
    }

    fn send(&self, about: &About, warning: bool, reason: &'static str, message: String) {
        tracing::debug!(about = %about.name, reason, message);
        let event = Event { about: about.clone(), warning, reason, message };
        if self.queue.try_send(event).is_err() {
            tracing::debug!(reason, "an event was dropped");
        }
    }
}

/// Repetitions raise the count of the first event rather than make new ones.
async fn write(api: Arc<dyn ObjectApi>, node: String, mut events: mpsc::Receiver<Event>) {
    let mut seen: BTreeMap<Event, (String, u32)> = BTreeMap::new();
    while let Some(event) = events.recv().await {
        if seen.len() >= REMEMBERED {
            seen.clear();
        }
        let now = clock::now();
        let namespace = namespace_of(&event.about).to_owned();
        if let Some((name, count)) = seen.get_mut(&event) {
            *count += 1;
            let patch = json!({"count": *count, "lastTimestamp": clock::rfc3339(now)});
            let body = Bytes::from(patch.to_string());
            if api.patch(resource::EVENTS, &namespace, name, None, PatchKind::Merge, body).await.is_ok() {
                continue;
            }
        }
        let name = format!("{}.{:x}", event.about.name, now.0);
        let body = Bytes::from(body(&event, &name, &node, now).to_string());
        match api.create(resource::EVENTS, &namespace, None, body).await {
            Ok(_) => drop(seen.insert(event, (name, 1))),
            Err(error) => tracing::debug!(%error, "an event was not written"),
        }
    }
}

/// Events about the node itself, which has no namespace, are kept in `default`.
fn namespace_of(about: &About) -> &str {
    if about.namespace.is_empty() { "default" } else { &about.namespace }
}

fn body(event: &Event, name: &str, node: &str, now: model::Timestamp) -> Value {
    let About { kind, namespace, name: object, uid, field } = &event.about;
    let mut involved = json!({"apiVersion": "v1", "kind": kind, "name": object, "uid": uid});
    for (key, value) in [("namespace", namespace), ("fieldPath", field)] {
        if !value.is_empty() {
            involved[key] = json!(value);
        }
    }
    let time = clock::rfc3339(now);
    json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": namespace_of(&event.about)},
        "involvedObject": involved,
        "type": if event.warning { "Warning" } else { "Normal" },
        "reason": event.reason,
        "message": event.message,
        "source": {"component": "kubelet", "host": node},
        "reportingComponent": "kubelet",
        "reportingInstance": node,
        "firstTimestamp": time,
        "lastTimestamp": time,
        "count": 1,
    })
}
