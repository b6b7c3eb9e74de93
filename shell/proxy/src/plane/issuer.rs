//! Certificates from the control plane's CA.
use super::connection::Connection;
use crate::config::ControlPlane;
use crate::identity::{IdentityError, Issuer, Signing, Token};
use tokio::sync::Mutex;
use xds::ca::{CREATE_CERTIFICATE_PATH, CertificateRequest, CertificateResponse};
use xds::workload_api::{JwtSvidRequest, JwtSvidResponse, SIGN_JWT_PATH};

/// Asks the control plane to sign. The connection is kept for the next request: pods come in groups.
pub struct PlaneIssuer {
    plane: ControlPlane,
    connection: Mutex<Option<Connection>>,
}

impl PlaneIssuer {
    /// An issuer that connects when it is first asked.
    pub fn new(plane: ControlPlane) -> Self {
        Self { plane, connection: Mutex::default() }
    }

    async fn connection(&self) -> Result<Connection, IdentityError> {
        let mut kept = self.connection.lock().await;
        if let Some(connection) = kept.as_ref().filter(|connection| !connection.is_closed()) {
            return Ok(connection.clone());
        }
        let opened = Connection::open(&self.plane).await.map_err(|error| IdentityError::Issuer(error.to_string()))?;
        Ok(kept.insert(opened).clone())
    }
}

impl Issuer for PlaneIssuer {
    fn sign<'a>(&'a self, identity: &'a str, request_pem: String) -> Signing<'a> {
        Box::pin(async move {
            let connection = self.connection().await?;
            // Lifetime 0: as long as the CA gives.
            let request = CertificateRequest::on_behalf_of(request_pem, identity, 0);
            let answer = connection.unary(CREATE_CERTIFICATE_PATH, request).await;
            let answer: CertificateResponse = answer.map_err(|error| IdentityError::Issuer(error.to_string()))?;
            Ok(answer.cert_chain)
        })
    }

    fn sign_jwt<'a>(&'a self, identity: &'a str, audience: Vec<String>) -> Token<'a> {
        Box::pin(async move {
            let connection = self.connection().await?;
            let request = JwtSvidRequest { audience, spiffe_id: identity.to_owned() };
            let answer = connection.unary(SIGN_JWT_PATH, request).await;
            let answer: JwtSvidResponse = answer.map_err(|error| IdentityError::Issuer(error.to_string()))?;
            let svid = answer.svids.into_iter().next().ok_or(IdentityError::Unusable("there is no token"))?;
            Ok(svid.svid)
        })
    }
}
