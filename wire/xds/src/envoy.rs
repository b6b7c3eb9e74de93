//! Envoy's own resource types (`envoy.config.*.v3`), as Envoy and proxyless gRPC read them. The control plane only writes them, so a message
//! is a writer of fields and not a struct: what is not set is not there, and the field numbers stand beside the names that the public
//! protocol gives them.

mod authorizer;
mod cluster;
mod filter;
mod inbound;
mod jwt;
mod limit;
mod listener;
mod message;
mod peer;
mod quota;
mod rbac;
mod record;
mod route;
mod secret;

pub use authorizer::authorizer_filters;
pub use cluster::{Call, Cluster, LocalEndpoint, assignment, cluster, passthrough};
pub use filter::{CorsPolicy, HttpFault, SessionState};
pub use inbound::{Inbound, InboundPort};
pub use jwt::jwt_filter;
pub use limit::{LimitPart, LocalLimit, local_limits};
pub use listener::{Door, Takes, api_listener, listener};
pub use peer::{OWN_SECRET, Peers, ROOTS_SECRET};
pub use quota::{Quota, QuotaService, quota_filter};
pub use rbac::{Permission, Principal, RbacRule, Rules, Verdict};
pub use route::{
    HeaderChange, PathRewrite, RetryPolicy, RouteAction, RouteEntry, RouteMatchPath, Text, VirtualHost,
    route_configuration,
};
pub use secret::{roots_secret, tls_secret};

/// Type URLs, in the order in which a client must be told: what is pointed at comes before what points.
pub mod types {
    /// Clusters.
    pub const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
    /// Their endpoints.
    pub const ENDPOINT: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
    /// Listeners.
    pub const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
    /// Route tables.
    pub const ROUTE: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
    /// Certificates.
    pub const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
    /// Those that all clients of a kind share.
    pub const SHARED: [&str; 4] = [CLUSTER, ENDPOINT, LISTENER, ROUTE];
    /// All of them.
    pub const ALL: [&str; 5] = [CLUSTER, ENDPOINT, LISTENER, ROUTE, SECRET];
}
