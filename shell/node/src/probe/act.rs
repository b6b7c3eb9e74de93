//! Asking a container something: what probes and lifecycle hooks have in common.

use super::grpc;
use crate::pod::spec::{Container, Handler, HttpGet};
use crate::runtime::Runtime;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;

/// Where the container is reached.
#[derive(Clone, Debug)]
pub struct Target {
    pub container_id: String,
    pub pod_ip: Option<IpAddr>,
}

/// Why the answer was no; for a person.
pub type Failure = String;

/// As much of an answer's body as is worth a look.
const MAX_BODY_BYTES: usize = 10 << 10;

/// Carries out `handler`. The whole of it takes no longer than `limit`.
///
/// # Errors
/// The words that the kubelet uses in its events.
pub async fn act(
    handler: &Handler,
    container: &Container,
    target: &Target,
    runtime: &Runtime,
    limit: Duration,
) -> Result<(), Failure> {
    if let Some(sleep) = &handler.sleep {
        let wish = Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0));
        tokio::time::sleep(wish.min(limit)).await;
        return Ok(());
    }
    if let Some(exec) = &handler.exec {
        return run(runtime, &target.container_id, &exec.command, limit).await;
    }
    let asked = async {
        if let Some(get) = &handler.http_get {
            return http(get, container, target).await;
        }
        if let Some(tcp) = &handler.tcp_socket {
            let address = address(&tcp.host, container.port(&tcp.port), target)?;
            return connect(address).await.map(drop);
        }
        if let Some(ask) = &handler.grpc {
            return grpc::check(address("", Some(ask.port), target)?, &ask.service).await;
        }
        Err("no handler is given".to_owned())
    };
    tokio::time::timeout(limit, asked).await.unwrap_or_else(|_| Err(format!("timeout: no answer within {limit:?}")))
}

async fn run(runtime: &Runtime, id: &str, command: &[String], limit: Duration) -> Result<(), Failure> {
    let done = runtime.exec_sync(id, command.to_vec(), limit).await;
    let done = done.map_err(|error| match error.is_unreachable() {
        true => format!("command timed out: {command:?} timed out after {limit:?}"),
        false => error.message,
    })?;
    if done.exit_code == 0 {
        return Ok(());
    }
    let output = [done.stdout, done.stderr].concat();
    let output = String::from_utf8_lossy(&output[..output.len().min(MAX_BODY_BYTES)]).trim().to_owned();
    Err(if output.is_empty() { format!("command exited with {}", done.exit_code) } else { output })
}

fn address(host: &str, port: Option<u16>, target: &Target) -> Result<SocketAddr, Failure> {
    let port = port.ok_or("the container has no port of that name")?;
    let ip = if host.is_empty() { target.pod_ip } else { host.parse().ok() };
    Ok(SocketAddr::new(ip.ok_or_else(|| format!("no address to ask: {host:?}"))?, port))
}

async fn connect(address: SocketAddr) -> Result<TcpStream, Failure> {
    TcpStream::connect(address).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::ConnectionRefused => format!("dial tcp {address}: connect: connection refused"),
        _ => format!("dial tcp {address}: {error}"),
    })
}

async fn http(get: &HttpGet, container: &Container, target: &Target) -> Result<(), Failure> {
    let address = address(&get.host, container.port(&get.port), target)?;
    let path = if get.path.starts_with('/') { get.path.clone() } else { format!("/{}", get.path) };
    let mut request = http::Request::get(&path).header("connection", "close");
    let mut defaults =
        vec![("host", address.to_string()), ("user-agent", "kube-probe/1.37".to_owned()), ("accept", "*/*".to_owned())];
    defaults.retain(|(name, _)| !get.http_headers.iter().any(|own| own.name.eq_ignore_ascii_case(name)));
    for (name, value) in defaults {
        request = request.header(name, value);
    }
    for own in &get.http_headers {
        request = request.header(&own.name, &own.value);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
    let scheme = if get.scheme.eq_ignore_ascii_case("https") { "https" } else { "http" };
    let failed = |error: Failure| format!("Get \"{scheme}://{address}{path}\": {error}");
    let stream = connect(address).await.map_err(failed)?;
    let status = if scheme == "https" {
        let name = rustls::pki_types::ServerName::from(address.ip());
        let tls = tokio_rustls::TlsConnector::from(tls_without_trust()).connect(name, stream).await;
        send(tls.map_err(|error| failed(error.to_string()))?, request).await
    } else {
        send(stream, request).await
    };
    match status.map_err(failed)? {
        200..=399 => Ok(()),
        status => Err(format!("HTTP probe failed with statuscode: {status}")),
    }
}

async fn send<S>(stream: S, request: http::Request<Empty<Bytes>>) -> Result<u16, Failure>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let connection = tokio::spawn(connection);
    let answer = sender.send_request(request).await.map_err(|error| error.to_string());
    let status = match answer {
        Ok(answer) => {
            let status = answer.status().as_u16();
            // Read to the end, so that a server does not log a broken pipe at each probe; but not without end.
            let _ = Limited::new(answer.into_body(), MAX_BODY_BYTES).collect().await;
            Ok(status)
        }
        Err(error) => Err(error),
    };
    connection.abort();
    status
}

/// Probes do not check certificates: they ask whether somebody answers, not who.
fn tls_without_trust() -> Arc<rustls::ClientConfig> {
    static CONFIG: std::sync::LazyLock<Arc<rustls::ClientConfig>> = std::sync::LazyLock::new(|| {
        let config = client::client_tls(None, None, &[]);
        Arc::new(config.unwrap_or_else(|error| unreachable!("nothing is given that could be wrong: {error}")))
    });
    CONFIG.clone()
}
