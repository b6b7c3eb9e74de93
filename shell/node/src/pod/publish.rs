//! Tells the API server of a pod's status, at its own pace: the newest status wins, and a server that is away delays nothing
//! on the node.

use super::spec::{Metadata, Pod};
use super::status::{PodStatus, patch};
use crate::resource;
use bytes::Bytes;
use client::{ApiError, ObjectApi, PatchKind};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Publishes one pod's status.
#[derive(Debug)]
pub struct Publisher {
    wanted: watch::Sender<Option<PodStatus>>,
    seen: watch::Sender<Option<PodStatus>>,
    sent: watch::Receiver<Option<PodStatus>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

const RETRY: Duration = Duration::from_millis(250);
const MAX_RETRY: Duration = Duration::from_secs(5);

impl Publisher {
    pub fn start(api: Arc<dyn ObjectApi>, pod: &Pod) -> Self {
        let (wanted, inbox) = watch::channel(None);
        let (sent_in, sent) = watch::channel(None);
        let (seen, seen_in) = watch::channel(None);
        let line = Line { api, meta: pod.metadata.clone(), wanted: inbox, seen: seen_in, sent: sent_in };
        let task = tokio::spawn(line.run(pod.status.clone()));
        Publisher { wanted, seen, sent, task }
    }

    /// What the API server shows. When somebody else has overwritten what the node knows better (a control plane that believed
    /// the node lost makes its pods unready), the node says it again.
    pub fn server_shows(&self, status: &PodStatus) {
        self.seen.send_if_modified(|seen| {
            let changed = seen.as_ref() != Some(status);
            if changed {
                *seen = Some(status.clone());
            }
            changed
        });
    }

    /// The status to publish next.
    pub fn publish(&self, status: &PodStatus) {
        self.wanted.send_if_modified(|wanted| {
            let changed = wanted.as_ref() != Some(status);
            if changed {
                *wanted = Some(status.clone());
            }
            changed
        });
    }

    /// Waits until the newest status was taken by the API server, or the pod is gone there.
    pub async fn flush(&mut self) {
        let wanted = self.wanted.borrow().clone();
        // The task ends when the pod is gone: then there is nobody to tell.
        let _ = self.sent.wait_for(|sent| *sent == wanted).await;
    }
}

/// Whether `shown` denies what only the node can know.
fn contradicts(shown: &PodStatus, sent: &PodStatus) -> bool {
    let condition = |status: &PodStatus, kind: &str| {
        status.conditions.iter().find(|condition| condition.kind == kind).map(|condition| condition.status.clone())
    };
    shown.phase != sent.phase
        || ["Ready", "ContainersReady"].iter().any(|kind| condition(shown, kind) != condition(sent, kind))
}

/// The publisher's task.
struct Line {
    api: Arc<dyn ObjectApi>,
    meta: Metadata,
    wanted: watch::Receiver<Option<PodStatus>>,
    seen: watch::Receiver<Option<PodStatus>>,
    sent: watch::Sender<Option<PodStatus>>,
}

impl Line {
    /// `server` is what the API server has.
    async fn run(mut self, mut server: PodStatus) {
        let mut pause = RETRY;
        loop {
            let Some(status) = self.wanted.borrow_and_update().clone() else {
                match self.wanted.changed().await {
                    Ok(()) => continue,
                    Err(_) => return,
                }
            };
            match self.send(&status, &server).await {
                Ok(()) => {
                    pause = RETRY;
                    server = status.clone();
                    let _ = self.sent.send(Some(status));
                    if !self.next(&mut server).await {
                        return;
                    }
                }
                Err(error) if error.is_not_found() => return,
                Err(error) => {
                    if error.is_conflict() && self.is_another().await {
                        return;
                    }
                    tracing::debug!(pod = %self.meta.name, %error, "status not published yet");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(MAX_RETRY);
                }
            }
        }
    }

    async fn send(&self, status: &PodStatus, server: &PodStatus) -> Result<(), ApiError> {
        if status == server {
            return Ok(());
        }
        let body = Bytes::from(patch(&self.meta.uid, status, server).to_string());
        let (namespace, name) = (&self.meta.namespace, &self.meta.name);
        self.api.patch(resource::PODS, namespace, name, Some("status"), PatchKind::Strategic, body).await.map(drop)
    }

    /// Waits until there is something to say. `server` becomes what is shown, when that has to be mended.
    async fn next(&mut self, server: &mut PodStatus) -> bool {
        loop {
            tokio::select! {
                wanted = self.wanted.changed() => return wanted.is_ok(),
                seen = self.seen.changed() => {
                    if seen.is_err() {
                        return false;
                    }
                    let shown = self.seen.borrow_and_update().clone();
                    if let Some(shown) = shown.filter(|shown| contradicts(shown, server)) {
                        *server = shown;
                        return true;
                    }
                }
            }
        }
    }

    /// A conflict is either a race, which is tried again, or a new pod of the same name.
    async fn is_another(&self) -> bool {
        match self.api.get(resource::PODS, &self.meta.namespace, &self.meta.name).await {
            Ok(bytes) => Pod::from_json(&bytes).is_ok_and(|pod| pod.metadata.uid != self.meta.uid),
            Err(error) => error.is_not_found(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::status::Condition;

    #[test]
    fn only_what_the_node_knows_is_said_again() {
        let status = |phase: &str, ready: &str| {
            let condition = |kind: &str, status: &str| Condition {
                kind: kind.into(),
                status: status.into(),
                ..Condition::default()
            };
            let conditions = vec![condition("Ready", ready), condition("ContainersReady", "True")];
            PodStatus { phase: phase.into(), conditions, ..PodStatus::default() }
        };
        let sent = status("Running", "True");
        assert!(contradicts(&status("Running", "False"), &sent));
        assert!(contradicts(&status("Pending", "True"), &sent));
        let mut others = sent.clone();
        others.conditions.push(Condition {
            kind: "example.com/gate".into(),
            status: "True".into(),
            ..Condition::default()
        });
        assert!(!contradicts(&others, &sent));
    }
}
