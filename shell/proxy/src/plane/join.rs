//! How a process on a machine that is no node becomes a workload.
use super::connection::{Connection, PlaneError};
use rcgen::{CertificateParams, KeyPair};
use xds::ca::{JOIN_PATH, JoinResponse};

pub use xds::ca::JoinRequest;

/// What the control plane gave.
#[derive(Clone, Debug)]
pub struct Joined {
    /// Its answer.
    pub response: JoinResponse,
    /// PEM key of the client certificate in it.
    pub key_pem: String,
}

/// Asks `address` to join; `request.csr` is filled in here. The control plane's certificate is checked against `ca` when it is given. Without
/// it the token is sent to whoever answers there, so that is for networks that are trusted.
///
/// # Errors
/// See [`PlaneError`]; a wrong token is `Unauthenticated`.
pub async fn join(
    address: &str,
    server_name: &str,
    ca: Option<&[u8]>,
    mut request: JoinRequest,
) -> Result<Joined, PlaneError> {
    let broken = |error: rcgen::Error| PlaneError::Connect { address: address.to_owned(), why: error.to_string() };
    let key = KeyPair::generate().map_err(broken)?;
    let params = CertificateParams::default();
    request.csr = params.serialize_request(&key).and_then(|csr| csr.pem()).map_err(broken)?;
    let tls = client::client_tls(ca, None, &[b"h2"])?;
    let connection = Connection::connect(address, server_name, tls).await?;
    let response: JoinResponse = connection.unary(JOIN_PATH, request).await?;
    Ok(Joined { response, key_pem: key.serialize_pem() })
}
