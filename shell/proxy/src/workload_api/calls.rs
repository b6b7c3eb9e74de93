//! The five calls.
use super::{Handler, bundles};
use crate::jwt;
use crate::pods::Phase;
use serde_json::Value;
use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::server::{ServerStreamingService, UnaryService};
use tonic::{Request, Response, Status};
use xds::discovery::{ListValue, Struct, Value as Wire, ValueKind};
use xds::workload_api::*;

/// Changes are looked for at most so often.
const LOOK: Duration = Duration::from_millis(200);
/// Audiences of one token.
const MOST_AUDIENCES: usize = 16;

type Answers<T> = ReceiverStream<Result<T, Status>>;
type Streaming<T> = Pin<Box<dyn Future<Output = Result<Response<Answers<T>>, Status>> + Send>>;
type Unary<T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send>>;

/// `FetchX509SVID`.
pub struct X509Svids(pub Handler);
/// `FetchX509Bundles`.
pub struct X509Bundles(pub Handler);
/// `FetchJWTBundles`.
pub struct JwtBundles(pub Handler);
/// `FetchJWTSVID`.
pub struct JwtSvids(pub Handler);
/// `ValidateJWTSVID`.
pub struct Validation(pub Handler);

impl Handler {
    /// Tells what `make` makes whenever it changes, until the caller or its pod is gone.
    fn follow<T: PartialEq + Clone + Send + 'static>(
        &self,
        make: impl Fn(&Handler) -> Option<T> + Send + 'static,
    ) -> Answers<T> {
        let (answers, receiver) = mpsc::channel(1);
        let handler = self.clone();
        tokio::spawn(async move {
            let Some(pod) = handler.pod.clone() else { return };
            let mut mesh = handler.shared.mesh.changes();
            let mut told = None;
            loop {
                let identity = pod.origin.identity.changed();
                mesh.mark_unchanged();
                if let Some(now) = make(&handler)
                    && told.as_ref() != Some(&now)
                {
                    told = Some(now.clone());
                    if answers.send(Ok(now)).await.is_err() {
                        return;
                    }
                }
                tokio::select! {
                    () = identity => {}
                    changed = mesh.changed() => if changed.is_err() { return },
                    () = answers.closed() => return,
                    () = pod.reached(Phase::Detached) => return,
                }
                tokio::time::sleep(LOOK).await;
            }
        });
        ReceiverStream::new(receiver)
    }

    fn x509_svids(&self) -> Option<X509SvidResponse> {
        let identity = &self.pod.as_ref()?.origin.identity;
        let (chain, key) = identity.svid()?;
        let mut bundles = bundles::x509(&self.shared);
        let own = bundles.remove(&format!("spiffe://{}", self.shared.identities.trust_domain()))?;
        let svid = X509Svid {
            spiffe_id: identity.name.to_string(),
            x509_svid: chain.iter().flat_map(|certificate| certificate.to_vec()).collect(),
            x509_svid_key: key.secret_der().to_vec(),
            bundle: own,
        };
        Some(X509SvidResponse { svids: vec![svid], crl: vec![], federated_bundles: bundles })
    }

    async fn jwt_svids(&self, request: JwtSvidRequest) -> Result<JwtSvidResponse, Status> {
        let identity = self.pod.as_ref().map(|pod| pod.origin.identity.name.clone());
        let identity = identity.ok_or_else(|| Status::permission_denied("no identity issued"))?;
        if request.audience.is_empty() || request.audience.len() > MOST_AUDIENCES {
            return Err(Status::invalid_argument(format!("1 to {MOST_AUDIENCES} audiences are needed")));
        }
        if !request.spiffe_id.is_empty() && *request.spiffe_id != *identity {
            return Err(Status::permission_denied("that is not the caller's identity"));
        }
        let token = self.shared.identities.sign_jwt(&identity, request.audience).await;
        let svid = token.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(JwtSvidResponse { svids: vec![JwtSvid { spiffe_id: identity.to_string(), svid }] })
    }

    fn validate(&self, request: &ValidateJwtSvidRequest) -> Result<ValidateJwtSvidResponse, Status> {
        if request.audience.is_empty() || request.svid.is_empty() {
            return Err(Status::invalid_argument("audience and svid are needed"));
        }
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
        let bundles = bundles::jwt(&self.shared);
        let jwks = |domain: &str| {
            bundles
                .get(&format!("spiffe://{domain}"))
                .and_then(|keys| std::str::from_utf8(keys).ok())
                .map(str::to_owned)
        };
        let (spiffe_id, claims) = jwt::svid(&request.svid, &request.audience, now_s, jwks)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        Ok(ValidateJwtSvidResponse { spiffe_id, claims: Some(fields(&claims)) })
    }
}

fn fields(object: &Value) -> Struct {
    let all = object.as_object().into_iter().flatten();
    Struct { fields: all.map(|(name, value)| (name.clone(), wire(value))).collect() }
}

fn wire(value: &Value) -> Wire {
    let kind = match value {
        Value::Null => ValueKind::Null(0),
        Value::Bool(value) => ValueKind::Bool(*value),
        Value::Number(number) => ValueKind::Number(number.as_f64().unwrap_or_default()),
        Value::String(text) => ValueKind::Text(text.clone()),
        Value::Array(list) => ValueKind::List(ListValue { values: list.iter().map(wire).collect() }),
        Value::Object(_) => ValueKind::Struct(fields(value)),
    };
    Wire { kind: Some(kind) }
}

impl ServerStreamingService<X509SvidRequest> for X509Svids {
    type Response = X509SvidResponse;
    type ResponseStream = Answers<X509SvidResponse>;
    type Future = Streaming<X509SvidResponse>;

    fn call(&mut self, _: Request<X509SvidRequest>) -> Self::Future {
        let answers = self.0.follow(Handler::x509_svids);
        Box::pin(std::future::ready(Ok(Response::new(answers))))
    }
}

impl ServerStreamingService<X509BundlesRequest> for X509Bundles {
    type Response = X509BundlesResponse;
    type ResponseStream = Answers<X509BundlesResponse>;
    type Future = Streaming<X509BundlesResponse>;

    fn call(&mut self, _: Request<X509BundlesRequest>) -> Self::Future {
        let make = |handler: &Handler| {
            let bundles = bundles::x509(&handler.shared);
            (!bundles.is_empty()).then_some(X509BundlesResponse { crl: vec![], bundles })
        };
        let answers = self.0.follow(make);
        Box::pin(std::future::ready(Ok(Response::new(answers))))
    }
}

impl ServerStreamingService<JwtBundlesRequest> for JwtBundles {
    type Response = JwtBundlesResponse;
    type ResponseStream = Answers<JwtBundlesResponse>;
    type Future = Streaming<JwtBundlesResponse>;

    fn call(&mut self, _: Request<JwtBundlesRequest>) -> Self::Future {
        let make = |handler: &Handler| {
            let bundles = bundles::jwt(&handler.shared);
            (!bundles.is_empty()).then_some(JwtBundlesResponse { bundles })
        };
        let answers = self.0.follow(make);
        Box::pin(std::future::ready(Ok(Response::new(answers))))
    }
}

impl UnaryService<JwtSvidRequest> for JwtSvids {
    type Response = JwtSvidResponse;
    type Future = Unary<JwtSvidResponse>;

    fn call(&mut self, request: Request<JwtSvidRequest>) -> Self::Future {
        let handler = self.0.clone();
        Box::pin(async move { handler.jwt_svids(request.into_inner()).await.map(Response::new) })
    }
}

impl UnaryService<ValidateJwtSvidRequest> for Validation {
    type Response = ValidateJwtSvidResponse;
    type Future = Unary<ValidateJwtSvidResponse>;

    fn call(&mut self, request: Request<ValidateJwtSvidRequest>) -> Self::Future {
        let validated = self.0.validate(request.get_ref()).map(Response::new);
        Box::pin(std::future::ready(validated))
    }
}
