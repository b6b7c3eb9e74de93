//! Carries out effects against an API, a bounded number at a time, and says what came of each.

use crate::recorder::Recorder;
use client::{ApiError, ObjectApi};
use model::effect::{Made, Receipt, Refusal};
use model::{Effect, Timestamp};
use project::{ApiCall, Verb};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Carries out effects. Cheap to clone; all clones share one bound on calls in flight.
#[derive(Clone)]
pub struct Executor {
    api: Arc<dyn ObjectApi>,
    permits: Arc<Semaphore>,
    recorder: Arc<Recorder>,
}

impl Executor {
    /// At most `concurrency` calls at once.
    pub fn new(api: Arc<dyn ObjectApi>, concurrency: usize) -> Self {
        let recorder = Arc::new(Recorder::new(api.clone()));
        Executor { api, permits: Arc::new(Semaphore::new(concurrency)), recorder }
    }

    /// Carries out one effect (one or several API calls, in order) and returns how it ended. `order` comes back in the receipt.
    pub async fn execute(&self, order: u64, effect: &Effect) -> Receipt {
        let _permit = self.permits.acquire().await;
        let mut outcome = Ok(Made::default());
        for call in project::render(effect, now()) {
            let result = match effect {
                Effect::Record(record) => {
                    self.recorder.record(record, &call.key.namespace, &call.key.name, call.body).await.map(|()| 0)
                }
                _ => self.call(&call).await,
            };
            outcome = result.map(|revision| Made { revision }).map_err(refusal);
            if outcome.is_err() {
                break;
            }
        }
        Receipt { order, outcome }
    }

    async fn call(&self, call: &ApiCall) -> Result<u64, ApiError> {
        let resource = resource(call.resource);
        let (namespace, name) = (call.key.namespace.as_ref(), call.key.name.as_ref());
        let body = call.body.clone();
        let answer = match &call.verb {
            Verb::Create => {
                let at = call.subresource.map(|sub| (name, sub));
                self.api.create(resource, namespace, at, body).await?
            }
            Verb::Update => self.api.update(resource, namespace, name, call.subresource, body).await?,
            Verb::Patch(kind) => {
                let kind = match kind {
                    project::PatchKind::Merge => client::PatchKind::Merge,
                    project::PatchKind::Strategic => client::PatchKind::Strategic,
                    project::PatchKind::Json => client::PatchKind::Json,
                };
                self.api.patch(resource, namespace, name, call.subresource, kind, body).await?
            }
            Verb::Delete(options) => {
                let options = client::DeleteOptions {
                    grace_s: options.grace_s,
                    uid: (!options.uid.is_empty()).then(|| options.uid.to_string()),
                    revision: (options.revision != 0).then_some(options.revision),
                    propagation: options.propagation,
                };
                self.api.delete(resource, namespace, name, options).await?;
                return Ok(0);
            }
        };
        Ok(project::revision_of(&answer))
    }
}

fn refusal(error: ApiError) -> Refusal {
    Refusal { code: error.code, reason: error.reason.into(), message: error.message.into() }
}

/// The client's name for a resource.
pub fn resource(of: &'static model::ResourceType) -> client::Resource {
    client::Resource { group: of.group, version: of.version, plural: of.plural }
}

/// The wall clock, as the core counts.
pub fn now() -> Timestamp {
    Timestamp(jiff::Timestamp::now().as_microsecond())
}
