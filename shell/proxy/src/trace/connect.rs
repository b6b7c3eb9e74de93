//! Connections to collectors: services of the mesh at one of their endpoints, anything else by name.
use crate::config::{Exporter, Speaks};
use crate::grpc::Channel;
use crate::random;
use crate::shared::Shared;
use crate::tls_out;
use model::mesh::Health;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// Bytes both ways, under TLS or not.
pub trait Link: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Link for T {}

/// Connects to a collector.
pub async fn link(shared: &Shared, exporter: &Exporter) -> io::Result<Box<dyn Link>> {
    let (host, port) = (exporter.host.as_str(), exporter.port);
    let stream = match endpoint(shared, host, port) {
        Some(address) => TcpStream::connect(address).await?,
        None => TcpStream::connect((host, port)).await?,
    };
    stream.set_nodelay(true)?;
    if !exporter.tls {
        return Ok(Box::new(stream));
    }
    let speaks = if exporter.speaks == Speaks::OtlpHttp { tls_out::Speaks::Http1 } else { tls_out::Speaks::Http2 };
    let roots = match &shared.config.tracing.ca {
        Some(path) => Some(tokio::fs::read_to_string(path).await?),
        None => None,
    };
    Ok(Box::new(tls_out::to_host(host, roots, speaks, stream).await?))
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
    let entry = known.directory.service_for_all(&whole, "")?;
    let ready = entry.port(port)?.pool.endpoints().iter().filter(|it| it.health == Health::Ready);
    let ready: Vec<SocketAddr> = ready.map(|it| it.address()).collect();
    ready.get(random::u32() as usize % ready.len().max(1)).copied()
}

/// A gRPC connection.
///
/// # Errors
/// It cannot be reached, proves no name, or speaks no HTTP/2.
pub async fn grpc(shared: &Shared, exporter: &Exporter) -> Result<Channel, String> {
    let stream = link(shared, exporter).await.map_err(|error| error.to_string())?;
    Channel::open(&Channel::builder(KEEP_ALIVE), stream, "collector").await.map_err(|error| error.to_string())
}
