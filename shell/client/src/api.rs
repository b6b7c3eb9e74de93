use crate::ApiError;
use bytes::Bytes;
use futures_core::Stream;
use std::future::Future;
use std::pin::Pin;

/// A boxed future that may cross threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
/// Watch events in revision order; ends when the server closes the watch. An `Err` is the last item.
pub type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchEvent, ApiError>> + Send>>;

/// Group, version and plural of a resource: `("apps", "v1", "deployments")`; the core group is `""`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Resource {
    /// API group, `""` for core.
    pub group: &'static str,
    /// Version.
    pub version: &'static str,
    /// Plural, lower case.
    pub plural: &'static str,
}

/// What to list.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    /// Only this namespace.
    pub namespace: Option<String>,
    /// `labelSelector` text.
    pub label_selector: Option<String>,
    /// `fieldSelector` text.
    pub field_selector: Option<String>,
}

/// A list and the revision that it is consistent with.
#[derive(Clone, Debug)]
pub struct ObjectList {
    /// Start a watch from here.
    pub revision: u64,
    /// Whole objects as JSON.
    pub items: Vec<Bytes>,
}

/// Kind of a watch event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// New to the watcher.
    Added,
    /// Changed.
    Modified,
    /// Gone (or no longer selected); the object is its last state.
    Deleted,
    /// Nothing happened up to `revision`.
    Bookmark,
}

/// One change.
#[derive(Clone, Debug)]
pub struct WatchEvent {
    /// What happened.
    pub kind: EventKind,
    /// The revision of the change, when the source knows it without decoding (0: read it from the object).
    pub revision: u64,
    /// The object as JSON.
    pub object: Bytes,
}

/// Content type of a patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    /// `application/json-patch+json` (RFC 6902).
    Json,
    /// `application/merge-patch+json` (RFC 7386).
    Merge,
    /// `application/strategic-merge-patch+json`.
    Strategic,
    /// `application/apply-patch+yaml`, with this field manager, forced.
    Apply(&'static str),
}

/// How to delete.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    /// `gracePeriodSeconds`.
    pub grace_s: Option<i64>,
    /// `preconditions.uid`.
    pub uid: Option<String>,
    /// `preconditions.resourceVersion`.
    pub revision: Option<u64>,
    /// `propagationPolicy`: `Background`, `Foreground` or `Orphan`.
    pub propagation: Option<&'static str>,
}

/// Any Kubernetes API. Bodies and answers are JSON bytes of whole objects.
pub trait ObjectApi: Send + Sync + 'static {
    /// One object.
    fn get<'a>(&'a self, of: Resource, namespace: &'a str, name: &'a str) -> BoxFuture<'a, Result<Bytes, ApiError>>;
    /// Everything that `options` select.
    fn list<'a>(&'a self, of: Resource, options: ListOptions) -> BoxFuture<'a, Result<ObjectList, ApiError>>;
    /// Changes after `revision`.
    fn watch<'a>(
        &'a self,
        of: Resource,
        options: ListOptions,
        revision: u64,
    ) -> BoxFuture<'a, Result<WatchStream, ApiError>>;
    /// POST; `subresource` is for `pods/NAME/binding`, `pods/NAME/eviction`, `serviceaccounts/NAME/token`: then `name` is given too.
    fn create<'a>(
        &'a self,
        of: Resource,
        namespace: &'a str,
        at: Option<(&'a str, &'a str)>,
        body: Bytes,
    ) -> BoxFuture<'a, Result<Bytes, ApiError>>;
    /// PUT; `subresource` is `Some("status")`, `Some("scale")` or `None`. A resourceVersion in the body is a precondition.
    fn update<'a>(
        &'a self,
        of: Resource,
        namespace: &'a str,
        name: &'a str,
        subresource: Option<&'a str>,
        body: Bytes,
    ) -> BoxFuture<'a, Result<Bytes, ApiError>>;
    /// PATCH.
    fn patch<'a>(
        &'a self,
        of: Resource,
        namespace: &'a str,
        name: &'a str,
        subresource: Option<&'a str>,
        kind: PatchKind,
        body: Bytes,
    ) -> BoxFuture<'a, Result<Bytes, ApiError>>;
    /// DELETE.
    fn delete<'a>(
        &'a self,
        of: Resource,
        namespace: &'a str,
        name: &'a str,
        options: DeleteOptions,
    ) -> BoxFuture<'a, Result<(), ApiError>>;
}
