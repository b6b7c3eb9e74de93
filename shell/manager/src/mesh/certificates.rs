//! Signing certificates: only for identities that live where the request comes from.

use super::ca::{CaError, Subject};
use super::core::{Core, now};
use super::envoy::Claim;
use super::hosts;
use super::identity::Caller;
use model::mesh::api::WorkloadEntry;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tonic::{Request, Response, Status};
use xds::ca::{CertificateRequest, CertificateResponse, IMPERSONATED_IDENTITY};
use xds::workload_api::{JwtSvid, JwtSvidRequest, JwtSvidResponse};

/// A token lives so long: it is asked for anew for each use, and cannot be called back.
const JWT_TTL_S: u64 = 300;
/// For so many a token can be at once.
const MOST_AUDIENCES: usize = 16;
const MOST_AUDIENCE_BYTES: usize = 1_024;
/// Nobody asks for less than that in earnest (tests rotate every few seconds).
const LEAST_TTL: Duration = Duration::from_secs(1);

/// The certificate service for one connection.
#[derive(Clone)]
pub struct Certificates {
    pub core: Arc<Core>,
    pub caller: Caller,
}

impl tonic::server::UnaryService<CertificateRequest> for Certificates {
    type Response = CertificateResponse;
    type Future = Pin<Box<dyn Future<Output = Result<Response<CertificateResponse>, Status>> + Send>>;

    fn call(&mut self, request: Request<CertificateRequest>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move { service.create(request.into_inner()).await.map(Response::new) })
    }
}

/// The same for tokens.
#[derive(Clone)]
pub struct Tokens(pub Certificates);

impl tonic::server::UnaryService<JwtSvidRequest> for Tokens {
    type Response = JwtSvidResponse;
    type Future = Pin<Box<dyn Future<Output = Result<Response<JwtSvidResponse>, Status>> + Send>>;

    fn call(&mut self, request: Request<JwtSvidRequest>) -> Self::Future {
        let service = self.0.clone();
        Box::pin(async move { service.token(request.into_inner()).await.map(Response::new) })
    }
}

impl Certificates {
    async fn token(&self, request: JwtSvidRequest) -> Result<JwtSvidResponse, Status> {
        if self.caller == Caller::Anonymous {
            return Err(Status::unauthenticated("a client certificate is needed"));
        }
        let long = request.audience.iter().any(|audience| audience.is_empty() || audience.len() > MOST_AUDIENCE_BYTES);
        if long || request.audience.is_empty() || request.audience.len() > MOST_AUDIENCES {
            return Err(Status::invalid_argument(format!("1 to {MOST_AUDIENCES} audiences are needed")));
        }
        let identity = request.spiffe_id;
        if !self.is_theirs_soon(&Subject::Workload(identity.clone())).await {
            tracing::warn!(caller = self.caller.proxy(), identity, "mesh: token refused: no such workload there");
            let why = format!("{identity} is no identity of a workload of {}", self.caller.proxy());
            return Err(Status::permission_denied(why));
        }
        let svid = self.core.ca.sign_jwt(&identity, &request.audience, now().as_secs(), JWT_TTL_S);
        let svid = svid.map_err(|error| Status::internal(error.to_string()))?;
        Ok(JwtSvidResponse { svids: vec![JwtSvid { spiffe_id: identity, svid }] })
    }

    async fn create(&self, request: CertificateRequest) -> Result<CertificateResponse, Status> {
        let asked = request.metadata.as_ref().and_then(|metadata| metadata.text(IMPERSONATED_IDENTITY));
        let identity = match (&self.caller, asked) {
            (Caller::Anonymous, _) => return Err(Status::unauthenticated("a client certificate is needed")),
            (_, Some(identity)) => identity.to_owned(),
            (Caller::Host { .. }, None) => self.identity_of_host()?,
            (Caller::Node(_), None) => {
                return Err(Status::invalid_argument("metadata.ImpersonatedIdentity names no identity"));
            }
        };
        let subject = match self.caller.renewed(&identity) {
            // A host renews the certificate that it is talking with.
            Some(common_name) => Subject::Host(common_name),
            None => Subject::Workload(identity.clone()),
        };
        if !self.is_theirs_soon(&subject).await {
            tracing::warn!(caller = self.caller.proxy(), identity, "mesh: certificate refused: no such workload there");
            let why = format!("{identity} is no identity of a workload of {}", self.caller.proxy());
            return Err(Status::permission_denied(why));
        }
        let wanted = u64::try_from(request.validity_duration).unwrap_or(0);
        let most = self.core.config.certificate_ttl;
        let ttl = if wanted == 0 { most } else { Duration::from_secs(wanted).clamp(LEAST_TTL, most) };
        let signed = self.core.ca.sign(&request.csr, &subject, ttl);
        signed.map(|cert_chain| CertificateResponse { cert_chain }).map_err(|error| match error {
            CaError::Request(why) => Status::invalid_argument(why),
            other => Status::internal(other.to_string()),
        })
    }

    /// The identity that an Envoy asks for; none: who should have it is not there.
    pub fn identity_of_claim(&self, claim: &Claim) -> Option<String> {
        let (namespace, account) = match (claim, &self.caller) {
            (Claim::Host, Caller::Host { .. }) => return self.identity_of_host().ok(),
            (Claim::Gateway(key), _) => self.core.objects(|objects| {
                let gateway = objects.gateways().find(|gateway| gateway.key == *key)?;
                Some((gateway.key.namespace.to_string(), gateway.service_account.to_string()))
            })?,
            (Claim::Account(namespace, account), _) => (namespace.clone(), account.clone()),
            (Claim::None | Claim::Host, _) => return None,
        };
        Some(format!("spiffe://{}/ns/{namespace}/sa/{account}", self.core.ca.trust_domain()))
    }

    fn identity_of_host(&self) -> Result<String, Status> {
        let of = |entry: &WorkloadEntry| (entry.key.namespace.clone(), entry.service_account.clone());
        let found = self.core.objects(|objects| hosts::entry_of(objects, &self.caller).map(of));
        let (namespace, account) = found.ok_or_else(hosts::put_out)?;
        Ok(format!("spiffe://{}/ns/{namespace}/sa/{account}", self.core.ca.trust_domain()))
    }

    async fn is_theirs_soon(&self, subject: &Subject) -> bool {
        self.core.soon(|| self.is_theirs(subject)).await
    }

    /// Whether a workload with this identity runs where the caller is: a stolen node certificate is worth that node's workloads, no more.
    /// A host that was put out (its entry is gone, or is of another joining) gets nothing at all.
    pub fn is_theirs(&self, subject: &Subject) -> bool {
        let identity = match (subject, &self.caller) {
            (Subject::Workload(identity), _) => identity,
            (Subject::Host(_), Caller::Host { .. }) => return hosts::is_current(&self.core, &self.caller),
            (Subject::Host(_), _) => return false,
        };
        let Some((namespace, account)) = parts(identity, self.core.ca.trust_domain()) else { return false };
        self.core.objects(|objects| match &self.caller {
            Caller::Node(node) => {
                let pods = objects.pods_of_node(node).filter(|pod| !pod.ended);
                let mut workloads = pods.map(|pod| (&*pod.key.namespace, &*pod.service_account));
                let mut gateways =
                    objects.gateways().map(|gateway| (&*gateway.key.namespace, &*gateway.service_account));
                workloads.any(|it| it == (namespace, account)) || gateways.any(|it| it == (namespace, account))
            }
            Caller::Host { .. } => hosts::entry_of(objects, &self.caller)
                .is_some_and(|entry| (&*entry.key.namespace, &*entry.service_account) == (namespace, account)),
            Caller::Anonymous => false,
        })
    }
}

/// Namespace and ServiceAccount of an identity of our trust domain.
fn parts<'a>(identity: &'a str, trust_domain: &str) -> Option<(&'a str, &'a str)> {
    let rest = identity.strip_prefix("spiffe://")?.strip_prefix(trust_domain)?.strip_prefix("/ns/")?;
    let (namespace, account) = rest.split_once("/sa/")?;
    let fine = |part: &str| !part.is_empty() && !part.contains('/');
    (fine(namespace) && fine(account)).then_some((namespace, account))
}

#[cfg(test)]
mod tests {
    use super::parts;

    #[test]
    fn identities_are_taken_apart_strictly() {
        for (identity, expect) in [
            ("spiffe://td/ns/a/sa/b", Some(("a", "b"))),
            ("spiffe://other/ns/a/sa/b", None),
            ("spiffe://tdx/ns/a/sa/b", None),
            ("spiffe://td/ns/a/sa/b/c", None),
            ("spiffe://td/ns//sa/b", None),
            ("spiffe://td/ns/a/x/sa/b", None),
            ("td/ns/a/sa/b", None),
        ] {
            assert_eq!(parts(identity, "td"), expect, "{identity}");
        }
    }
}
