//! Requests that last: what was decided about one is decided again when a policy changes.
use super::guard::{Ground, Guarded};
use super::{Place, Site};
use crate::worker::Worker;
use http1::RequestHead;
use tokio::sync::watch;

/// Follows policy from before a request is decided about: for one that switches protocols, or is a gRPC call. Others are taken to be short, and
/// their callers to pay for nothing.
pub fn follow(worker: &Worker, site: &Site, head: &RequestHead, grpc: bool) -> Option<watch::Receiver<u64>> {
    let lasts = grpc || head.upgrade().is_some();
    (lasts && !matches!(site.place, Place::Service { .. })).then(|| worker.shared.mesh.policy_changes())
}

/// A request that lasts, as it was decided about.
#[derive(Debug)]
pub struct Standing {
    head: RequestHead,
    guarded: Guarded,
    changes: watch::Receiver<u64>,
}

impl Standing {
    /// A request that is about to be decided about.
    pub fn new(head: &RequestHead, guarded: &Guarded, changes: watch::Receiver<u64>) -> Box<Self> {
        Box::new(Self { head: head.clone(), guarded: guarded.clone(), changes })
    }

    /// Waits until the request would be refused. The operator is told why.
    pub async fn revoked(&mut self, worker: &Worker, site: &Site) {
        loop {
            if self.changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            if !Ground::of(worker, site, &self.head).admits(site, &self.head, &self.guarded) {
                return;
            }
        }
    }

    /// Waits until the request would be refused. Where nothing was decided, for ever.
    pub async fn ends(standing: &mut Option<Box<Self>>, worker: &Worker, site: &Site) {
        match standing {
            Some(standing) => standing.revoked(worker, site).await,
            None => std::future::pending().await,
        }
    }
}
