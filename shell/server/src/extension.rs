use crate::body::Body;
use crate::identity::Identity;
use crate::request::{Query, RequestInfo};
use bytes::Bytes;
use client::BoxFuture;
use http::{HeaderMap, Method, Response};

/// A handler that the application hangs into the server: aggregated metrics, the dashboard's API, static files.
pub trait Extension: Send + Sync + 'static {
    /// Whether it answers this path. The first extension that says yes gets the request; built-in paths come after extensions.
    fn takes(&self, path: &str, dashboard: bool) -> bool;
    /// Whether anybody may read the path without credentials (a page's files, before sign-in). Everything else goes through
    /// authentication and RBAC: as a resource when the path lies under `/api/` or `/apis/`, else as a nonResourceURL.
    fn is_public(&self, _path: &str) -> bool {
        false
    }
    /// Answers.
    fn call(&self, request: ExtensionRequest) -> BoxFuture<'_, Response<Body>>;
}

/// A request that passed authentication, RBAC and the body limit.
pub struct ExtensionRequest {
    /// Method.
    pub method: Method,
    /// What the path means; `info.path` is the path itself.
    pub info: RequestInfo,
    /// Parameters.
    pub query: Query,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
    /// Who asks.
    pub identity: Identity,
}
