//! The SPIFFE Workload API (spiffe.io, "The SPIFFE Workload API" 4 to 7), and the call by which a proxy has JWT-SVIDs signed.

use crate::discovery::Struct;
use std::collections::BTreeMap;

/// Header that every request must carry, with the value `true`: what a browser or a proxy passes on by mistake does not.
pub const SECURITY_HEADER: &str = "workload.spiffe.io";
/// gRPC path.
pub const FETCH_X509_SVID: &str = "/SpiffeWorkloadAPI/FetchX509SVID";
/// gRPC path.
pub const FETCH_X509_BUNDLES: &str = "/SpiffeWorkloadAPI/FetchX509Bundles";
/// gRPC path.
pub const FETCH_JWT_SVID: &str = "/SpiffeWorkloadAPI/FetchJWTSVID";
/// gRPC path.
pub const FETCH_JWT_BUNDLES: &str = "/SpiffeWorkloadAPI/FetchJWTBundles";
/// gRPC path.
pub const VALIDATE_JWT_SVID: &str = "/SpiffeWorkloadAPI/ValidateJWTSVID";
/// gRPC path at mesh control.
pub const SIGN_JWT_PATH: &str = "/diolkos.mesh.v1.Svid/SignJwt";

/// `X509SVIDRequest`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct X509SvidRequest {}

/// `X509SVIDResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct X509SvidResponse {
    /// The caller's certificates.
    #[prost(message, repeated, tag = "1")]
    pub svids: Vec<X509Svid>,
    /// DER revocation lists; there are none.
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub crl: Vec<Vec<u8>>,
    /// DER roots of other trust domains, by `spiffe://TRUST-DOMAIN`.
    #[prost(btree_map = "string, bytes", tag = "3")]
    pub federated_bundles: BTreeMap<String, Vec<u8>>,
}

/// `X509SVID`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct X509Svid {
    /// `spiffe://...`.
    #[prost(string, tag = "1")]
    pub spiffe_id: String,
    /// DER certificates one behind the other, leaf first.
    #[prost(bytes = "vec", tag = "2")]
    pub x509_svid: Vec<u8>,
    /// PKCS #8 key, DER.
    #[prost(bytes = "vec", tag = "3")]
    pub x509_svid_key: Vec<u8>,
    /// DER roots of its trust domain, one behind the other.
    #[prost(bytes = "vec", tag = "4")]
    pub bundle: Vec<u8>,
}

/// `X509BundlesRequest`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct X509BundlesRequest {}

/// `X509BundlesResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct X509BundlesResponse {
    /// DER revocation lists; there are none.
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub crl: Vec<Vec<u8>>,
    /// DER roots, by `spiffe://TRUST-DOMAIN`.
    #[prost(btree_map = "string, bytes", tag = "2")]
    pub bundles: BTreeMap<String, Vec<u8>>,
}

/// `JWTSVIDRequest`; also what a proxy asks mesh control, with the identity.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct JwtSvidRequest {
    /// For whom the token is; at least one.
    #[prost(string, repeated, tag = "1")]
    pub audience: Vec<String>,
    /// The wanted identity; empty: all of the caller's.
    #[prost(string, tag = "2")]
    pub spiffe_id: String,
}

/// `JWTSVIDResponse`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct JwtSvidResponse {
    /// One for each identity.
    #[prost(message, repeated, tag = "1")]
    pub svids: Vec<JwtSvid>,
}

/// `JWTSVID`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct JwtSvid {
    /// `spiffe://...`.
    #[prost(string, tag = "1")]
    pub spiffe_id: String,
    /// The token.
    #[prost(string, tag = "2")]
    pub svid: String,
}

/// `JWTBundlesRequest`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct JwtBundlesRequest {}

/// `JWTBundlesResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct JwtBundlesResponse {
    /// JSON Web Key Sets, by `spiffe://TRUST-DOMAIN`.
    #[prost(btree_map = "string, bytes", tag = "1")]
    pub bundles: BTreeMap<String, Vec<u8>>,
}

/// `ValidateJWTSVIDRequest`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct ValidateJwtSvidRequest {
    /// Who validates: the token must be for it.
    #[prost(string, tag = "1")]
    pub audience: String,
    /// The token.
    #[prost(string, tag = "2")]
    pub svid: String,
}

/// `ValidateJWTSVIDResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ValidateJwtSvidResponse {
    /// Whose it is.
    #[prost(string, tag = "1")]
    pub spiffe_id: String,
    /// What it says.
    #[prost(message, optional, tag = "2")]
    pub claims: Option<Struct>,
}
