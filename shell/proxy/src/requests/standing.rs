//! Requests that last: what was decided about one is decided again when a policy changes.
use super::guard::{Ground, Guarded};
use super::{Place, Site};
use crate::worker::Worker;
use http1::RequestHead;
use tokio::sync::watch;

/// What who wants server-sent events says that he takes.
const EVENTS: &[u8] = b"text/event-stream";

/// Follows policy from before a request is decided about: for one that switches protocols, is a gRPC call, or asks for server-sent events.
/// Others are taken to be short, and their callers to pay for nothing.
pub fn follow(worker: &Worker, site: &Site, head: &RequestHead, grpc: bool) -> Option<watch::Receiver<u64>> {
    let asks_for_events = || head.fields.get("accept").is_some_and(|accepts| accepts.starts_with(EVENTS));
    let lasts = grpc || head.upgrade().is_some() || asks_for_events();
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
