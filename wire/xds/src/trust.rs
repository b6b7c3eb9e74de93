//! What a proxy tells mesh control about roots, while one follows another.

/// gRPC path of the report.
pub const REPORT_PATH: &str = "/diolkos.mesh.v1.Trust/Report";
/// Roots that a report names at most, in each of its lists.
pub const ROOTS_LIMIT: usize = 64;
/// Things that a report names at most which rest on a root that does not sign.
pub const REASONS_LIMIT: usize = 4;

/// What one process of a proxy trusts, and what it could not do without. Roots are named by the SHA-256 of the certificate, in lower case
/// hexadecimal.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct TrustReport {
    /// Tells processes of one proxy apart.
    #[prost(uint64, tag = "1")]
    pub process: u64,
    /// Roots that it trusts.
    #[prost(string, repeated, tag = "2")]
    pub trusted: Vec<String>,
    /// Roots of its own certificates, and of both ends of its open connections.
    #[prost(string, repeated, tag = "3")]
    pub rests_on: Vec<String>,
    /// What rests on another root than the one that signs, for people. At most [`REASONS_LIMIT`].
    #[prost(string, repeated, tag = "4")]
    pub because: Vec<String>,
}

/// Heard.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct TrustReportResponse {}
