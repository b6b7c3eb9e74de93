//! The node's HTTPS server: what the API server asks a node for on behalf of kubectl.
//!
//! Paths are the kubelet's, so that a Kubernetes API server can ask too. Who may ask is decided by client certificate alone: the
//! cluster's administrators and the API server itself.

mod auth;
mod exec;
mod forward;
mod logs;
mod metrics;
mod query;
mod stats;
mod upgrade;

use crate::agent::Pods;
use crate::config::TlsFiles;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use query::Query;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// Why the server could not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("port {port}: {error}")]
    Bind { port: u16, error: std::io::Error },
    #[error(transparent)]
    Tls(#[from] auth::TlsError),
}

/// A body that may still be growing.
pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;
pub(crate) type Answer = Response<Body>;

/// A listener that is bound, not yet serving.
pub struct Server {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    pods: Arc<Pods>,
}

const HEADER_PATIENCE: Duration = Duration::from_secs(15);

/// Takes the port and reads the certificates.
///
/// # Errors
/// The port is taken, or a certificate cannot be read.
pub async fn bind(pods: Arc<Pods>) -> Result<Server, ServeError> {
    let config = &pods.shared().config;
    let files =
        config.tls.clone().unwrap_or_else(|| TlsFiles { certificate: "".into(), key: "".into(), client_ca: "".into() });
    let acceptor = TlsAcceptor::from(Arc::new(auth::server_config(&files)?));
    let port = config.port;
    let address = SocketAddr::from(([0, 0, 0, 0], port));
    let listener = TcpListener::bind(address).await.map_err(|error| ServeError::Bind { port, error })?;
    Ok(Server { listener, acceptor, pods })
}

impl Server {
    /// Serves for ever.
    pub async fn run(self) {
        loop {
            let (stream, _) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors: others must finish first.
                    tracing::warn!(%error, "accept");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let (acceptor, pods) = (self.acceptor.clone(), self.pods.clone());
            tokio::spawn(async move {
                let tls = tokio::time::timeout(HEADER_PATIENCE, acceptor.accept(stream)).await;
                let Ok(Ok(tls)) = tls else { return };
                let caller = auth::caller(tls.get_ref().1.peer_certificates());
                let service = service_fn(move |request| {
                    let (pods, caller) = (pods.clone(), caller.clone());
                    async move { Ok::<_, Infallible>(answer(request, &caller, pods).await) }
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEADER_PATIENCE)
                    .serve_connection(TokioIo::new(tls), service)
                    .with_upgrades();
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "a connection ended");
                }
            });
        }
    }
}

async fn answer(request: Request<Incoming>, caller: &auth::Caller, pods: Arc<Pods>) -> Answer {
    match caller {
        auth::Caller::Allowed => {}
        auth::Caller::Nobody => return text(StatusCode::UNAUTHORIZED, "Unauthorized"),
        auth::Caller::Other(name) => {
            return text(
                StatusCode::FORBIDDEN,
                format!("Forbidden (user={name}, verb={}, resource=nodes)", request.method()),
            );
        }
    }
    let path = request.uri().path().trim_matches('/').to_owned();
    let parts: Vec<&str> = path.split('/').collect();
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let get = request.method() == Method::GET;
    match parts.as_slice() {
        ["healthz"] if get => text(StatusCode::OK, "ok"),
        ["pods" | "runningpods"] if get => stats::pods(&pods).await,
        ["containerLogs", namespace, pod, container] if get => {
            logs::answer(&pods, namespace, pod, container, &query).await
        }
        ["stats", "summary"] if get => stats::summary(&pods).await,
        ["metrics"] if get => metrics::metrics(&pods).await,
        ["metrics", "resource"] if get => metrics::resource(&pods).await,
        ["telemetry"] if get => stats::telemetry(&pods).await,
        [kind @ ("exec" | "attach"), namespace, pod, container] => {
            exec::answer(&pods, (namespace, pod, container), &query, *kind == "exec", request).await
        }
        ["portForward", namespace, pod] => forward::answer(&pods, namespace, pod, &query, request).await,
        _ => text(StatusCode::NOT_FOUND, format!("404 page not found: /{path}")),
    }
}

/// A plain answer.
pub(crate) fn text(status: StatusCode, message: impl Into<String>) -> Answer {
    typed(status, "text/plain; charset=utf-8", message.into())
}

pub(crate) fn json(value: &serde_json::Value) -> Answer {
    typed(StatusCode::OK, "application/json", value.to_string())
}

pub(crate) fn typed(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()).boxed_unsync());
    *answer.status_mut() = status;
    answer.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    answer
}
