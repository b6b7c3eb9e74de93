//! HTTP/1.1, plain or under TLS.

use super::{Shared, note};
use crate::proxy::certs;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, HandshakeKind};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const CONNECTIONS: usize = 64;
/// Connections that are made at a time: as many as the client keeps tickets of one server for.
const MAKERS: usize = 8;

/// Where requests go.
#[derive(Clone)]
pub struct Target {
    pub address: String,
    pub path: String,
    pub tls: Option<Arc<ClientConfig>>,
}

trait Connection: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Connection for T {}

/// A connection; true: its handshake was resumed.
async fn connect(target: &Target) -> io::Result<(Box<dyn Connection>, bool)> {
    let stream = TcpStream::connect(&target.address).await?;
    stream.set_nodelay(true)?;
    let Some(tls) = &target.tls else { return Ok((Box::new(stream), false)) };
    let name = ServerName::try_from(certs::SERVER).map_err(io::Error::other)?;
    let stream = TlsConnector::from(tls.clone()).connect(name, stream).await?;
    let resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
    Ok((Box::new(stream), resumed))
}

fn request(path: &str, connection: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: bench\r\nUser-Agent: diolkos-bench\r\nAccept: */*\r\nConnection: {connection}\r\n\r\n"
    )
}

async fn ask(stream: &mut dyn Connection, request: &str, buffer: &mut [u8]) -> io::Result<bool> {
    stream.write_all(request.as_bytes()).await?;
    let mut head = 0;
    let (status, mut left) = loop {
        let read = stream.read(&mut buffer[head..]).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        head += read;
        if let Some((status, end, length)) = head_of(&buffer[..head]) {
            break (status, (end + length).saturating_sub(head));
        }
    };
    while left > 0 {
        let read = stream.read(buffer).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        left = left.saturating_sub(read);
    }
    Ok(status == 200)
}

/// Status, end of the head, content length.
fn head_of(bytes: &[u8]) -> Option<(u16, usize, usize)> {
    let end = bytes.windows(4).position(|it| it == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&bytes[..end]).ok()?;
    let status = text.get(9..12)?.parse().ok()?;
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    Some((status, end, length.unwrap_or(0)))
}

/// Requests on connections that are kept; with a rate, each at its time. All are connected and have had an answer before the first
/// request that counts, so that no answer's time is that of a connection, to the proxy or behind it.
pub async fn saturate(target: Target, rate: Option<f64>, tally: &Shared) -> io::Result<()> {
    let mut streams = Vec::with_capacity(CONNECTIONS);
    let first = request(&target.path, "keep-alive");
    let mut buffer = vec![0; 64 * 1024];
    for _ in 0..CONNECTIONS {
        let (mut stream, _) = connect(&target).await?;
        ask(&mut *stream, &first, &mut buffer).await?;
        streams.push(stream);
    }
    tally.borrow_mut().begin();
    let begin = tally.borrow().began;
    let mut tasks = tokio::task::JoinSet::new();
    for (index, stream) in streams.into_iter().enumerate() {
        let (path, tally) = (target.path.clone(), tally.clone());
        let pace = rate.map(|rate| {
            let pause = Duration::from_secs_f64(CONNECTIONS as f64 / rate);
            (begin + pause.mul_f64(index as f64 / CONNECTIONS as f64), pause)
        });
        tasks.spawn_local(async move {
            if let Err(error) = keep_asking(stream, &path, pace, &tally).await {
                eprintln!("client: {error}");
                tally.borrow_mut().errors += 1;
            }
        });
    }
    while tasks.join_next().await.is_some() {}
    Ok(())
}

async fn keep_asking(
    mut stream: Box<dyn Connection>,
    path: &str,
    mut pace: Option<(Instant, Duration)>,
    tally: &Shared,
) -> io::Result<()> {
    let request = request(path, "keep-alive");
    let mut buffer = vec![0; 64 * 1024];
    while Instant::now() < tally.borrow().until {
        let mut began = Instant::now();
        if let Some((at, pause)) = &mut pace {
            // The runtime's timer knows milliseconds, and would send what is due in one all at once.
            while Instant::now() < *at {
                tokio::task::yield_now().await;
            }
            // A request that is late because the one before it was slow has waited since its time.
            began = *at;
            *at += *pause;
        }
        let good = ask(&mut *stream, &request, &mut buffer).await?;
        note(tally, began, good);
    }
    Ok(())
}

/// A connection for each request.
pub async fn connect_again_and_again(target: Target, tally: &Shared) -> io::Result<()> {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..MAKERS {
        let (target, tally) = (target.clone(), tally.clone());
        tasks.spawn_local(async move {
            let request = request(&target.path, "close");
            let mut buffer = vec![0; 64 * 1024];
            while Instant::now() < tally.borrow().until {
                let began = Instant::now();
                let asked = async {
                    let (mut stream, resumed) = connect(&target).await?;
                    let good = ask(&mut *stream, &request, &mut buffer).await?;
                    // Tickets come until the end.
                    let _ = stream.read(&mut buffer).await;
                    Ok::<_, io::Error>((good, resumed))
                };
                let asked = asked.await;
                if let Err(error) = &asked {
                    eprintln!("client: {error}");
                }
                let (good, resumed) = asked.unwrap_or((false, false));
                tally.borrow_mut().resumed += u64::from(resumed);
                note(&tally, began, good);
            }
        });
    }
    while tasks.join_next().await.is_some() {}
    Ok(())
}

/// Connections that have sent one request each.
pub async fn hold(target: Target, count: usize) -> io::Result<impl Sized> {
    let mut held = Vec::with_capacity(count);
    let request = request(&target.path, "keep-alive");
    let mut buffer = vec![0; 64 * 1024];
    for _ in 0..count {
        let (mut stream, _) = connect(&target).await?;
        if !ask(&mut *stream, &request, &mut buffer).await? {
            return Err(io::Error::other("a request failed"));
        }
        held.push(stream);
    }
    Ok(held)
}
