//! An API in memory: just enough of one for informers, patches and conflicts.

use bytes::Bytes;
use client::{
    ApiError, BoxFuture, DeleteOptions, EventKind, ListOptions, ObjectApi, ObjectList, PatchKind, Resource, WatchEvent,
    WatchStream,
};
use futures_util::StreamExt;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;

type Key = (String, String, String);

pub struct MemoryApi {
    state: Mutex<State>,
    changes: broadcast::Sender<(String, WatchEvent)>,
}

#[derive(Default)]
struct State {
    revision: u64,
    objects: BTreeMap<Key, Value>,
}

impl MemoryApi {
    pub fn new() -> Arc<Self> {
        Arc::new(MemoryApi { state: Mutex::default(), changes: broadcast::Sender::new(4_096) })
    }

    pub fn revision(&self) -> u64 {
        self.state.lock().unwrap().revision
    }

    pub fn put(&self, plural: &str, object: Value) -> Value {
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
        let key = (plural.to_owned(), text("namespace"), text("name"));
        let mut state = self.state.lock().unwrap();
        state.revision += 1;
        let revision = state.revision;
        let mut object = object;
        object["metadata"]["resourceVersion"] = revision.to_string().into();
        let known = state.objects.insert(key, object.clone()).is_some();
        let kind = if known { EventKind::Modified } else { EventKind::Added };
        let event = WatchEvent { kind, revision, object: Bytes::from(object.to_string()) };
        let _ = self.changes.send((plural.to_owned(), event));
        object
    }

    pub fn delete(&self, plural: &str, namespace: &str, name: &str) {
        let mut state = self.state.lock().unwrap();
        let gone = state.objects.remove(&(plural.to_owned(), namespace.to_owned(), name.to_owned()));
        if let Some(object) = gone {
            state.revision += 1;
            let event = WatchEvent {
                kind: EventKind::Deleted,
                revision: state.revision,
                object: Bytes::from(object.to_string()),
            };
            let _ = self.changes.send((plural.to_owned(), event));
        }
    }

    pub fn get_now(&self, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        let key = (plural.to_owned(), namespace.to_owned(), name.to_owned());
        self.state.lock().unwrap().objects.get(&key).cloned()
    }
}

/// Waits (10 s at most) until something is so.
pub async fn eventually(what: &str, so: impl Fn() -> bool) {
    for _ in 0..1_000 {
        if so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never came: {what}");
}

fn merge(target: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Default::default());
    }
    for (name, value) in fields {
        merge(&mut target[name], value);
    }
}

fn bytes(value: &Value) -> Bytes {
    Bytes::from(value.to_string())
}

impl ObjectApi for MemoryApi {
    fn get<'a>(&'a self, of: Resource, namespace: &'a str, name: &'a str) -> BoxFuture<'a, Result<Bytes, ApiError>> {
        let found = self.get_now(of.plural, namespace, name);
        Box::pin(async move { found.map(|it| bytes(&it)).ok_or_else(|| ApiError::new(404, "NotFound", "not found")) })
    }

    fn list<'a>(&'a self, of: Resource, _: ListOptions) -> BoxFuture<'a, Result<ObjectList, ApiError>> {
        let state = self.state.lock().unwrap();
        let items =
            state.objects.iter().filter(|((plural, ..), _)| plural == of.plural).map(|(_, it)| bytes(it)).collect();
        let list = ObjectList { revision: state.revision, items };
        Box::pin(async move { Ok(list) })
    }

    fn watch<'a>(
        &'a self,
        of: Resource,
        _: ListOptions,
        revision: u64,
    ) -> BoxFuture<'a, Result<WatchStream, ApiError>> {
        let state = self.state.lock().unwrap();
        let receiver = self.changes.subscribe();
        // What changed between list and watch: told from the state (deletions in between would be missed, so tests wait).
        let missed: Vec<_> = state
            .objects
            .iter()
            .filter(|((plural, ..), _)| plural == of.plural)
            .filter(|(_, it)| it["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap() > revision)
            .map(|(_, it)| Ok(WatchEvent { kind: EventKind::Modified, revision: 0, object: bytes(it) }))
            .collect();
        let later = BroadcastStream::new(receiver).filter_map(move |change| async move {
            change.ok().filter(|(plural, _)| plural == of.plural).map(|(_, event)| Ok(event))
        });
        let stream: WatchStream = Box::pin(futures_util::stream::iter(missed).chain(later));
        Box::pin(async move { Ok(stream) })
    }

    fn create<'a>(
        &'a self,
        of: Resource,
        namespace: &'a str,
        _: Option<(&'a str, &'a str)>,
        body: Bytes,
    ) -> BoxFuture<'a, Result<Bytes, ApiError>> {
        let object: Value = serde_json::from_slice(&body).unwrap();
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let result = match self.get_now(of.plural, namespace, &name) {
            Some(_) => Err(ApiError::new(409, "AlreadyExists", "already exists")),
            None => Ok(bytes(&self.put(of.plural, object))),
        };
        Box::pin(async move { result })
    }

    fn update<'a>(
        &'a self,
        of: Resource,
        _: &'a str,
        _: &'a str,
        _: Option<&'a str>,
        body: Bytes,
    ) -> BoxFuture<'a, Result<Bytes, ApiError>> {
        let object = self.put(of.plural, serde_json::from_slice(&body).unwrap());
        Box::pin(async move { Ok(bytes(&object)) })
    }

    fn patch<'a>(
        &'a self,
        of: Resource,
        namespace: &'a str,
        name: &'a str,
        _: Option<&'a str>,
        _: PatchKind,
        body: Bytes,
    ) -> BoxFuture<'a, Result<Bytes, ApiError>> {
        let patch: Value = serde_json::from_slice(&body).unwrap();
        let result = match self.get_now(of.plural, namespace, name) {
            None => Err(ApiError::new(404, "NotFound", "not found")),
            Some(object)
                if patch["metadata"]["resourceVersion"].is_string()
                    && patch["metadata"]["resourceVersion"] != object["metadata"]["resourceVersion"] =>
            {
                Err(ApiError::new(409, "Conflict", "changed since"))
            }
            Some(mut object) => {
                merge(&mut object, &patch);
                Ok(bytes(&self.put(of.plural, object)))
            }
        };
        Box::pin(async move { result })
    }

    fn delete<'a>(
        &'a self,
        of: Resource,
        namespace: &'a str,
        name: &'a str,
        _: DeleteOptions,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        self.delete(of.plural, namespace, name);
        Box::pin(async move { Ok(()) })
    }
}
