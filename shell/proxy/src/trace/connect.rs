//! Connections to collectors: services of the mesh at one of their endpoints, anything else by name.
use crate::grpc::Channel;
use crate::random;
use crate::shared::Shared;
use model::mesh::Health;
use std::io;
use std::net::SocketAddr;
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

/// A gRPC connection in plain text.
///
/// # Errors
/// It cannot be reached, or speaks no HTTP/2.
pub async fn grpc(shared: &Shared, host: &str, port: u16) -> Result<Channel, String> {
    let stream = tcp(shared, host, port).await.map_err(|error| error.to_string())?;
    Channel::open(&Channel::builder(KEEP_ALIVE), stream, "collector").await.map_err(|error| error.to_string())
}
