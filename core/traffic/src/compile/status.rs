//! What people read on their objects: conditions, in Gateway API's words.

use model::mesh::api::ParentRef;
use model::{Key, Labels};
use std::net::IpAddr;
use std::sync::Arc;

/// A condition. Its time of transition is the writer's matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// `Accepted`, `ResolvedRefs`, ...
    pub kind: &'static str,
    /// `True` or `False`.
    pub holds: bool,
    /// One word.
    pub reason: &'static str,
    /// For a person; never empty.
    pub message: String,
}

impl Condition {
    /// It holds, for the usual reason.
    pub fn good(kind: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Condition { kind, holds: true, reason, message: message.into() }
    }
    /// It does not hold.
    pub fn bad(kind: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Condition { kind, holds: false, reason, message: message.into() }
    }
}

/// Status of a class of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassStatus {
    /// `observedGeneration`.
    pub generation: i64,
    /// Conditions.
    pub conditions: Vec<Condition>,
    /// `supportedFeatures`, sorted.
    pub features: &'static [&'static str],
}

/// Status of a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayStatus {
    /// `observedGeneration`.
    pub generation: i64,
    /// Conditions.
    pub conditions: Vec<Condition>,
    /// Addresses.
    pub addresses: Vec<IpAddr>,
    /// Its own listeners, in its order.
    pub listeners: Vec<ListenerStatus>,
    /// `attachedListenerSets`.
    pub attached_sets: u32,
    /// Name of the ServiceAccount of its identity, with the labels and annotations that it is to have.
    pub account: (Arc<str>, (Labels, Labels)),
}

/// Status of a ListenerSet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetStatus {
    /// `observedGeneration`.
    pub generation: i64,
    /// Conditions.
    pub conditions: Vec<Condition>,
    /// Listeners, in the set's order.
    pub listeners: Vec<ListenerStatus>,
}

/// Status of a BackendTLSPolicy, as far as it is ours to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsPolicyStatus {
    /// `observedGeneration`.
    pub generation: i64,
    /// One for each gateway that calls what the policy is about.
    pub ancestors: Vec<AncestorStatus>,
}

/// What holds of a policy for a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AncestorStatus {
    /// The Gateway.
    pub gateway: Key,
    /// Conditions.
    pub conditions: Vec<Condition>,
}

/// Status of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerStatus {
    /// Section name.
    pub name: Arc<str>,
    /// `supportedKinds` of the Gateway API's group.
    pub kinds: Vec<&'static str>,
    /// `attachedRoutes`.
    pub attached: u32,
    /// Conditions.
    pub conditions: Vec<Condition>,
}

/// Status of a route, as far as it is ours to write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteStatus {
    /// `observedGeneration`.
    pub generation: i64,
    /// One for each parent reference to something of ours.
    pub parents: Vec<ParentStatus>,
}

/// Status of one of Istio's kinds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IstioStatus {
    /// `observedGeneration`.
    pub generation: i64,
    /// Conditions.
    pub conditions: Vec<Condition>,
}

/// What a parent says of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParentStatus {
    /// The reference, as the route has it.
    pub parent: ParentRef,
    /// Conditions.
    pub conditions: Vec<Condition>,
}

/// The features of Gateway API's own list that hold from the control plane through the proxy, all of them but those of the mesh. The
/// official conformance suite passes with them.
pub const FEATURES: &[&str] = &[
    "BackendTLSPolicy",
    "BackendTLSPolicySANValidation",
    "GRPCRoute",
    "GRPCRouteNamedRouteRule",
    "Gateway",
    "GatewayAddressEmpty",
    "GatewayBackendClientCertificate",
    "GatewayFrontendClientCertificateValidation",
    "GatewayFrontendClientCertificateValidationInsecureFallback",
    "GatewayHTTPListenerIsolation",
    "GatewayHTTPSListenerDetectMisdirectedRequests",
    "GatewayInfrastructurePropagation",
    "GatewayPort8080",
    "GatewayStaticAddresses",
    "HTTPRoute",
    "HTTPRoute303RedirectStatusCode",
    "HTTPRoute307RedirectStatusCode",
    "HTTPRoute308RedirectStatusCode",
    "HTTPRouteBackendProtocolH2C",
    "HTTPRouteBackendProtocolWebSocket",
    "HTTPRouteBackendRequestHeaderModification",
    "HTTPRouteBackendTimeout",
    "HTTPRouteCORS",
    "HTTPRouteDestinationPortMatching",
    "HTTPRouteHostRewrite",
    "HTTPRouteMethodMatching",
    "HTTPRouteNamedRouteRule",
    "HTTPRouteParentRefPort",
    "HTTPRoutePathRedirect",
    "HTTPRoutePathRewrite",
    "HTTPRoutePortRedirect",
    "HTTPRouteQueryParamMatching",
    "HTTPRouteRequestMirror",
    "HTTPRouteRequestMultipleMirrors",
    "HTTPRouteRequestPercentageMirror",
    "HTTPRouteRequestTimeout",
    "HTTPRouteResponseHeaderModification",
    "HTTPRouteRetry",
    "HTTPRouteRetryBackendTimeout",
    "HTTPRouteRetryConnectionError",
    "HTTPRouteSchemeRedirect",
    "ListenerSet",
    "ReferenceGrant",
    "TCPRoute",
    "TLSRoute",
    "TLSRouteModeMixed",
    "TLSRouteModeTerminate",
    "UDPRoute",
];

/// The features of the mesh: of routes that hang on Services. They stand on the XMesh object and not on the class.
pub const MESH_FEATURES: &[&str] = &[
    "GRPCRoute",
    "HTTPRoute",
    "HTTPRoute303RedirectStatusCode",
    "HTTPRoute307RedirectStatusCode",
    "HTTPRoute308RedirectStatusCode",
    "HTTPRouteMethodMatching",
    "HTTPRouteParentRefPort",
    "HTTPRoutePathRedirect",
    "HTTPRoutePathRewrite",
    "HTTPRoutePortRedirect",
    "HTTPRouteQueryParamMatching",
    "HTTPRouteResponseHeaderModification",
    "HTTPRouteSchemeRedirect",
    "Mesh",
    "MeshClusterIPMatching",
    "MeshConsumerRoute",
    "MeshHTTPRouteBackendRequestHeaderModification",
    "MeshHTTPRouteNamedRouteRule",
    "MeshHTTPRouteQueryParamMatching",
    "MeshHTTPRouteRedirectPath",
    "MeshHTTPRouteRedirectPort",
    "MeshHTTPRouteRewritePath",
    "MeshHTTPRouteSchemeRedirect",
];

#[cfg(test)]
mod tests {
    #[test]
    fn features_are_sorted_and_named_once() {
        for list in [super::FEATURES, super::MESH_FEATURES] {
            assert!(list.windows(2).all(|pair| pair[0] < pair[1]));
        }
    }
}
