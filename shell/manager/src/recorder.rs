//! Kubernetes Event objects: repetitions are counted on the first one, and no object can flood the store.

use bytes::Bytes;
use client::{ApiError, ObjectApi, PatchKind, Resource};
use model::effect::Record;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const EVENTS: Resource = Resource { group: "", version: "v1", plural: "events" };
/// Events whose count is remembered.
const REMEMBERED: usize = 4096;
/// Of one object from one source: so many at once (client-go's spam filter), then one in each period.
const BURST: f64 = 25.0;
const ONE_EVERY: Duration = Duration::from_secs(300);

/// Uid of the object that is talked about, and who talks.
type Talker = (Arc<str>, &'static str);
/// Tokens, and when they were last counted.
type Bucket = (f64, Instant);

/// Writes records. Shared by all clones of an executor.
pub struct Recorder {
    api: Arc<dyn ObjectApi>,
    counts: Mutex<HashMap<String, i64>>,
    buckets: Mutex<HashMap<Talker, Bucket>>,
}

impl Recorder {
    /// A recorder that writes to `api`.
    pub fn new(api: Arc<dyn ObjectApi>) -> Self {
        Recorder { api, counts: Mutex::default(), buckets: Mutex::default() }
    }

    /// Writes one record, given its rendering. A record is never worth a retry.
    pub async fn record(&self, record: &Record, namespace: &str, name: &str, body: Bytes) -> Result<(), ApiError> {
        if !self.admits(record) {
            return Ok(());
        }
        let known = lock(&self.counts).get(name).copied();
        if let Some(count) = known {
            match self.count(namespace, name, count + 1, &body).await {
                // Expired meanwhile: begins anew.
                Err(error) if error.is_not_found() => {}
                other => return other,
            }
        }
        match self.api.create(EVENTS, namespace, None, body.clone()).await {
            Ok(_) => {
                self.remember(name, 1);
                Ok(())
            }
            Err(error) if error.is_conflict() => {
                let old = self.api.get(EVENTS, namespace, name).await?;
                let old: Value = serde_json::from_slice(&old).unwrap_or_default();
                self.count(namespace, name, old["count"].as_i64().unwrap_or(1) + 1, &body).await
            }
            Err(error) => Err(error),
        }
    }

    async fn count(&self, namespace: &str, name: &str, count: i64, body: &Bytes) -> Result<(), ApiError> {
        let new: Value = serde_json::from_slice(body).unwrap_or_default();
        let patch = json!({ "count": count, "lastTimestamp": new["lastTimestamp"] });
        self.api.patch(EVENTS, namespace, name, None, PatchKind::Merge, patch.to_string().into()).await?;
        self.remember(name, count);
        Ok(())
    }

    fn remember(&self, name: &str, count: i64) {
        let mut counts = lock(&self.counts);
        if counts.len() >= REMEMBERED {
            // Forgetting costs one read each when they come again.
            counts.clear();
        }
        counts.insert(name.to_owned(), count);
    }

    fn admits(&self, record: &Record) -> bool {
        let mut buckets = lock(&self.buckets);
        if buckets.len() >= REMEMBERED {
            buckets.clear();
        }
        let now = Instant::now();
        let (tokens, at) = buckets.entry((record.about.uid.clone(), record.source)).or_insert((BURST, now));
        *tokens = (*tokens + now.duration_since(*at).as_secs_f64() / ONE_EVERY.as_secs_f64()).min(BURST);
        *at = now;
        let admitted = *tokens >= 1.0;
        if admitted {
            *tokens -= 1.0;
        }
        admitted
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // The maps are whole between any two statements: a panic elsewhere does not make them wrong.
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
