//! Tells the API server of a pod's status, at its own pace: the newest status wins, and a server that is away delays nothing
//! on the node.

use super::spec::Pod;
use super::status::{PodStatus, patch};
use crate::resource;
use bytes::Bytes;
use client::{ObjectApi, PatchKind};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Publishes one pod's status.
#[derive(Debug)]
pub struct Publisher {
    wanted: watch::Sender<Option<PodStatus>>,
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
        let meta = pod.metadata.clone();
        let server = pod.status.clone();
        let task = tokio::spawn(run(api, meta, server, inbox, sent_in));
        Publisher { wanted, sent, task }
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

async fn run(
    api: Arc<dyn ObjectApi>,
    meta: super::spec::Metadata,
    mut server: PodStatus,
    mut wanted: watch::Receiver<Option<PodStatus>>,
    sent: watch::Sender<Option<PodStatus>>,
) {
    let mut pause = RETRY;
    loop {
        let Some(status) = wanted.borrow_and_update().clone() else {
            match wanted.changed().await {
                Ok(()) => continue,
                Err(_) => return,
            }
        };
        let result = if status == server {
            Ok(())
        } else {
            let body = Bytes::from(patch(&meta.uid, &status, &server).to_string());
            let kind = PatchKind::Strategic;
            api.patch(resource::PODS, &meta.namespace, &meta.name, Some("status"), kind, body).await.map(drop)
        };
        match result {
            Ok(()) => {
                pause = RETRY;
                server = status.clone();
                let _ = sent.send(Some(status));
                if wanted.changed().await.is_err() {
                    return;
                }
            }
            // Gone, or another pod of the same name.
            Err(error) if error.is_not_found() || error.is_conflict() => return,
            Err(error) => {
                tracing::debug!(pod = %meta.name, %error, "status not published yet");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(MAX_RETRY);
            }
        }
    }
}
