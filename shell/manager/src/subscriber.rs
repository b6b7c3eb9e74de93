//! How the informers' stream is shared: reconcilers, scheduler and mesh control read one watch of each kind.

use bytes::Bytes;
use model::{Event, ResourceType};

/// One change as the informers saw it.
#[derive(Clone, Debug)]
pub struct Change {
    /// The resource that changed.
    pub resource: &'static ResourceType,
    /// The change, projected. Kinds without a projection come as `Object::Other` (metadata only).
    pub event: Event,
    /// The whole object as JSON; None for `Event::Synced`. For kinds that a subscriber decodes by itself.
    pub bytes: Option<Bytes>,
}

/// Somebody who follows the informers. Changes of one resource come in revision order; after a gap in a watch the informer
/// works out what was missed, so a subscriber never sees an object twice with the same revision, nor an object vanish unsaid.
/// `Event::Synced(kind)` comes once for each kind, after the objects that existed at the start.
pub trait Subscriber: Send + Sync + 'static {
    /// Called in the informers' loop: must not block (push to a channel and return).
    fn observe(&self, changes: &[Change]);
}
