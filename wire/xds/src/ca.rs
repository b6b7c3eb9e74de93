//! Messages of the certificate service (`istio.v1.auth`) and of joining.

use crate::discovery::Struct;

/// gRPC path of the certificate call.
pub const CREATE_CERTIFICATE_PATH: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";
/// gRPC path of the join call.
pub const JOIN_PATH: &str = "/diolkos.mesh.v1.Join/Join";
/// Key of [`CertificateRequest::metadata`] that names the wanted identity, `spiffe://...`.
pub const IMPERSONATED_IDENTITY: &str = "ImpersonatedIdentity";

/// `IstioCertificateRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CertificateRequest {
    /// PKCS #10 request, PEM.
    #[prost(string, tag = "1")]
    pub csr: String,
    /// Wanted lifetime in seconds; 0: the CA's own. The CA may give less.
    #[prost(int64, tag = "3")]
    pub validity_duration: i64,
    /// [`IMPERSONATED_IDENTITY`]: for which workload of the caller's node.
    #[prost(message, optional, tag = "4")]
    pub metadata: Option<Struct>,
}

impl CertificateRequest {
    /// A request on behalf of a workload.
    pub fn on_behalf_of(csr: String, identity: &str, validity_s: i64) -> Self {
        use crate::discovery::{Value, ValueKind};
        let value = Value { kind: Some(ValueKind::Text(identity.to_owned())) };
        let metadata = Struct { fields: [(IMPERSONATED_IDENTITY.to_owned(), value)].into() };
        CertificateRequest { csr, validity_duration: validity_s, metadata: Some(metadata) }
    }
}

/// `IstioCertificateResponse`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct CertificateResponse {
    /// PEM certificates, leaf first, root last.
    #[prost(string, repeated, tag = "1")]
    pub cert_chain: Vec<String>,
}

/// A process on a host that is no node asks to become a workload. The call is made under server-authenticated TLS: the caller has no
/// certificate yet.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct JoinRequest {
    /// `ID.SECRET`.
    #[prost(string, tag = "1")]
    pub token: String,
    /// Service to be reached as; also its ServiceAccount, and so the last part of its identity.
    #[prost(string, tag = "2")]
    pub service: String,
    /// Namespace.
    #[prost(string, tag = "3")]
    pub namespace: String,
    /// Port of the service, and of the process.
    #[prost(uint32, tag = "4")]
    pub port: u32,
    /// Name of the host, unique in the namespace: part of the WorkloadEntry's name.
    #[prost(string, tag = "5")]
    pub host: String,
    /// Address at which proxies reach its port 15008.
    #[prost(string, tag = "6")]
    pub address: String,
    /// PKCS #10 request, PEM, for the control-plane identity.
    #[prost(string, tag = "7")]
    pub csr: String,
    /// `http`, `http2`, `grpc`, `tcp`, or empty.
    #[prost(string, tag = "8")]
    pub app_protocol: String,
}

/// Welcome.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct JoinResponse {
    /// PEM chain of the client certificate for xDS and certificate calls (CN `system:host:NAMESPACE:NAME:ID`, of this joining
    /// alone; `system:host:NAMESPACE:NAME` asks for it anew).
    #[prost(string, repeated, tag = "1")]
    pub cert_chain: Vec<String>,
    /// `spiffe://...` to ask certificates for.
    #[prost(string, tag = "2")]
    pub identity: String,
    /// Resource name of its workload, `host/NAMESPACE/NAME`.
    #[prost(string, tag = "3")]
    pub workload: String,
    /// Cluster domain, `cluster.local`.
    #[prost(string, tag = "4")]
    pub cluster_domain: String,
    /// PEM certificates of the cluster CA, to verify the control plane with from now on.
    #[prost(string, repeated, tag = "5")]
    pub cluster_ca: Vec<String>,
    /// Address ranges of services (CIDR): what to capture.
    #[prost(string, repeated, tag = "6")]
    pub service_cidrs: Vec<String>,
}
