//! Connections to collectors: services of the mesh at one of their endpoints, anything else by name.
use crate::random;
use crate::shared::Shared;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use model::mesh::Health;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;

const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// Connects to a host and port.
pub async fn tcp(shared: &Shared, host: &str, port: u16) -> io::Result<TcpStream> {
    let stream = match endpoint(shared, host, port) {
        Some(address) => TcpStream::connect(address).await?,
        None => TcpStream::connect((host, port)).await?,
    };
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// An endpoint of a service of the mesh; None: it is no such service, or nothing of it is ready.
fn endpoint(shared: &Shared, host: &str, port: u16) -> Option<SocketAddr> {
    let domain = &shared.config.cluster_domain;
    let whole = match host.matches('.').count() {
        1 => format!("{host}.svc.{domain}"),
        2 if host.ends_with(".svc") => format!("{host}.{domain}"),
        _ => host.to_owned(),
    };
    let known = shared.mesh.known();
    let entry = known.directory.service_named(&whole)?;
    let ready = entry.port(port)?.pool.endpoints().iter().filter(|it| it.health == Health::Ready);
    let ready: Vec<SocketAddr> = ready.map(|it| it.address()).collect();
    ready.get(random::u32() as usize % ready.len().max(1)).copied()
}

/// A gRPC connection in plain text; clones share it.
#[derive(Clone, Debug)]
pub struct Grpc {
    sender: hyper::client::conn::http2::SendRequest<tonic::body::Body>,
}

impl Grpc {
    /// Connects.
    pub async fn open(shared: &Shared, host: &str, port: u16) -> Result<Self, String> {
        let stream = tcp(shared, host, port).await.map_err(|error| error.to_string())?;
        let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new()).keep_alive_interval(KEEP_ALIVE).keep_alive_timeout(KEEP_ALIVE);
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to a collector ended");
            }
        });
        Ok(Self { sender })
    }

    /// Whether calls on it can only fail.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

impl tower::Service<http::Request<tonic::body::Body>> for Grpc {
    type Response = http::Response<hyper::body::Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.sender.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        Box::pin(self.sender.send_request(request))
    }
}
