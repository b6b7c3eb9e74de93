//! The SPIFFE Workload API for applications, on a Unix socket. Who calls is told by the kernel: on a node the process at the other end, the
//! control group that it is in, the pod that the group belongs to; on a joined host its user and groups. Nothing that the caller says of itself
//! counts.
mod authority;
mod bundles;
mod calls;
mod groups;
mod peer;

use crate::pods::Pod;
use crate::shared::Shared;
use authority::Mended;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tonic::Status;
use tonic::server::Grpc;
use tonic_prost::ProstCodec;
use xds::workload_api::*;

/// Connections at once; further ones wait.
const CONNECTIONS: usize = 1_024;
/// Who does not answer a ping for so long is gone.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Opens the socket. Everybody may connect: a pod's processes run under any user, and who may have no identity gets nothing.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
        std::fs::set_permissions(parent, std::fs::Permissions::from_mode(0o755))?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777))?;
    Ok(listener)
}

/// Serves until the process ends, or a successor serves.
pub async fn serve(shared: Arc<Shared>, listener: UnixListener) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // Never closed, so a permit always comes.
        let Ok(permit) = permits.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.stopped() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let shared = shared.clone();
                tokio::spawn(async move {
                    connection(shared, stream).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "workload API: accept failed");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(shared: Arc<Shared>, stream: UnixStream) {
    let pod = peer::pod(&shared, &stream);
    if let Err(why) = &pod {
        tracing::warn!(why, "workload API: a caller without an identity");
    }
    let handler = Handler { shared: shared.clone(), pod: pod.ok() };
    let service = hyper::service::service_fn(move |request| {
        let handler = handler.clone();
        async move { Ok::<_, Infallible>(handler.handle(request).await) }
    });
    let mut server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    server.timer(TokioTimer::new()).keep_alive_interval(KEEP_ALIVE).keep_alive_timeout(KEEP_ALIVE);
    server.max_concurrent_streams(64);
    tokio::select! {
        served = server.serve_connection(TokioIo::new(Mended::new(stream)), service) => if let Err(error) = served {
            tracing::debug!(%error, "workload API: a connection ended");
        },
        // Its clients come again, and find the successor.
        () = shared.stopped() => {}
    }
}

/// One connection's caller.
#[derive(Clone)]
pub(crate) struct Handler {
    shared: Arc<Shared>,
    /// None: it may have no identity.
    pod: Option<Arc<Pod>>,
}

impl Handler {
    async fn handle(self, request: http::Request<Incoming>) -> http::Response<tonic::body::Body> {
        let request = request.map(tonic::body::Body::new);
        if request.headers().get(SECURITY_HEADER).is_none_or(|value| value != "true") {
            return Status::invalid_argument(format!("the header {SECURITY_HEADER}: true is missing")).into_http();
        }
        if self.pod.is_none() {
            return Status::permission_denied("no identity issued").into_http();
        }
        match request.uri().path() {
            FETCH_X509_SVID => Grpc::new(ProstCodec::default()).server_streaming(calls::X509Svids(self), request).await,
            FETCH_X509_BUNDLES => {
                Grpc::new(ProstCodec::default()).server_streaming(calls::X509Bundles(self), request).await
            }
            FETCH_JWT_BUNDLES => {
                Grpc::new(ProstCodec::default()).server_streaming(calls::JwtBundles(self), request).await
            }
            FETCH_JWT_SVID => Grpc::new(ProstCodec::default()).unary(calls::JwtSvids(self), request).await,
            VALIDATE_JWT_SVID => Grpc::new(ProstCodec::default()).unary(calls::Validation(self), request).await,
            other => Status::unimplemented(format!("there is no {other} here")).into_http(),
        }
    }
}
