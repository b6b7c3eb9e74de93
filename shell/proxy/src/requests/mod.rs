//! HTTP: requests from captured connections, gateways and tunnels, to endpoints or to the local process.
mod affinity;
mod attempt;
mod body;
mod call;
mod conn;
mod convert;
mod exchange;
mod external;
mod guard;
mod h1;
mod h2_server;
mod hedge;
mod inbox;
mod mirror;
mod patience;
mod plan;
pub mod pool;
mod ratelimit;
mod record;
mod reply;
mod session;
mod spares;
mod standing;
mod streams;
mod upstream;
mod websocket;

pub use hedge::Counted as Hedges;

use crate::gateway::Door;
use crate::origin::Origin;
use crate::pods::Pod;
use crate::policy::{self, Caller};
use crate::stream::Stream;
use crate::telemetry::{Carries, EdgeCells, Peers};
use crate::upstream::Port;
use crate::worker::Worker;
use model::Key;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Waker};
use std::time::Duration;

/// First bytes of an HTTP/2 connection.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Who should come again is told so with the next answer; if none is asked for in this time, the connection is closed.
const LAST_ANSWER_PATIENCE: Duration = Duration::from_secs(15);

/// Where a connection with requests arrived.
#[derive(Debug)]
pub struct Site {
    /// On whose behalf requests go on.
    pub origin: Arc<Origin>,
    /// Who sends them.
    pub client: SocketAddr,
    /// Through which door.
    pub place: Place,
    /// The connection to the process that was opened before anything was known of requests.
    process: Mutex<Option<Stream>>,
    /// Where requests to the process are counted, for the host that was named last. Connections to the process are shared by callers of one address.
    counted: Mutex<Option<(Box<str>, Arc<EdgeCells>)>>,
}

/// Doors.
#[derive(Debug)]
pub enum Place {
    /// A pod calls a service (none: the one that each request's host names), at the address `to`.
    Service { service: Option<(Key, u16)>, to: Option<SocketAddr> },
    /// A client of a gateway; with the name that it asked for in TLS.
    Gateway(Arc<Door>, Option<Arc<str>>),
    /// Another calls a local process.
    Process { pod: Arc<Pod>, to: SocketAddr, caller: Caller },
}

impl Site {
    /// A pod, at `client`, calls a service, at the address `to` if it was captured.
    pub fn service(origin: &Arc<Origin>, port: &Port, (client, to): (SocketAddr, Option<SocketAddr>)) -> Arc<Self> {
        let service = Some((port.service().service.key.clone(), port.entry().port.port));
        Self::new(origin.clone(), client, Place::Service { service, to }, None)
    }

    /// A pod calls an address that says nothing of whose it is.
    pub fn by_host(origin: &Arc<Origin>, client: SocketAddr, to: SocketAddr) -> Arc<Self> {
        Self::new(origin.clone(), client, Place::Service { service: None, to: Some(to) }, None)
    }

    /// A client of a gateway.
    pub fn gateway(origin: Arc<Origin>, door: Arc<Door>, client: SocketAddr, name: Option<Arc<str>>) -> Arc<Self> {
        Self::new(origin, client, Place::Gateway(door, name), None)
    }

    /// Another calls a local process, to which `process` is a fresh connection.
    pub fn process(pod: &Arc<Pod>, to: SocketAddr, caller: Caller, process: Stream) -> Arc<Self> {
        let client = caller.address;
        let place = Place::Process { pod: pod.clone(), to, caller };
        Self::new(pod.origin.clone(), client, place, Some(process))
    }

    fn new(origin: Arc<Origin>, client: SocketAddr, place: Place, process: Option<Stream>) -> Arc<Self> {
        Arc::new(Self { origin, client, place, process: Mutex::new(process), counted: Mutex::default() })
    }

    /// The connection to the process that was made when the caller came, if it has not been left since.
    fn take_process(&self) -> Option<Stream> {
        let mut stream = self.process.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        let left = stream.poll_left(&mut Context::from_waker(Waker::noop())).is_ready();
        (!left).then_some(stream)
    }

    /// Where a request to the local process that names this host is counted; None: it goes elsewhere.
    fn process_cells(&self, worker: &Worker, host: &str) -> Option<Arc<EdgeCells>> {
        let Place::Process { pod, caller, .. } = &self.place else { return None };
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, cells)) = counted.as_ref().filter(|(named, _)| **named == *host) {
            return Some(cells.clone());
        }
        let cells = worker.cells.edge(&Peers::inbound(worker, pod, caller, Carries::Requests, Some(host)));
        *counted = Some((host.into(), cells.clone()));
        Some(cells)
    }

    /// Waits until the connection is to be closed while no request comes.
    async fn closing(&self, worker: &Worker) {
        match &self.place {
            // Apart: few connections have room for it.
            Place::Process { pod, caller, .. } if caller.shown.is_some() => {
                let mut again = Box::pin(async {
                    caller.coming_again(pod).await;
                    tokio::time::sleep(LAST_ANSWER_PATIENCE).await;
                });
                tokio::select! {
                    () = worker.shared.closing() => {}
                    () = &mut again => {}
                }
            }
            Place::Process { pod, to, caller } if caller.identity.is_none() => {
                let mut forbidden = Box::pin(policy::plain_text_ends(worker, pod, to.port()));
                tokio::select! {
                    () = worker.shared.closing() => {}
                    () = &mut forbidden => {}
                }
            }
            _ => worker.shared.closing().await,
        }
    }

    fn service_key(&self) -> Option<&Key> {
        match &self.place {
            Place::Service { service, .. } => service.as_ref().map(|(service, _)| service),
            Place::Gateway(..) | Place::Process { .. } => None,
        }
    }

    /// Whether clients are not of the cluster: they get less patience.
    fn is_public(&self) -> bool {
        matches!(self.place, Place::Gateway(..))
    }
}

/// Serves a connection that carries requests, in whichever HTTP it begins.
#[expect(clippy::manual_async_fn, reason = "a waiting connection would hold its arguments twice: rust-lang/rust#62958")]
pub fn serve(worker: &Arc<Worker>, site: Arc<Site>, stream: Stream) -> impl Future<Output = ()> {
    async move {
        let (mut reader, writer) = conn::halves(stream);
        if site.is_public() {
            reader.limit_silence(worker.shared.config.public_patience);
        }
        {
            // Gone when the connection is served: an idle one would hold it for ever.
            let stopped = worker.shared.closing();
            tokio::pin!(stopped);
            loop {
                let first = reader.buffered();
                if first.len() >= PREFACE.len() || !PREFACE.starts_with(first) {
                    break;
                }
                tokio::select! {
                    read = reader.fill() => if read.map_or(true, |read| read == 0) { return },
                    () = &mut stopped => return,
                }
            }
        }
        if reader.buffered().starts_with(PREFACE) {
            let Some(stream) = conn::join(reader, writer) else { return };
            Box::pin(h2_server::serve(worker, site, stream)).await;
        } else {
            h1::serve(worker, site, reader, writer).await;
        }
    }
}

/// Serves a connection whose ends agreed on HTTP/2: what does not begin with its preface is a connection error (RFC 9113, 3.4).
pub async fn serve_http2(worker: &Arc<Worker>, site: Arc<Site>, stream: Stream) {
    Box::pin(h2_server::serve(worker, site, stream)).await;
}

/// The longest method that is waited for.
const METHOD_BYTES: usize = 32;

/// Whether the first bytes of a connection, as far as they go, are those of a request: one that [`has_known_method`], or capitals before
/// what can be asked for (a path, `*`, a URL). As servers do, an empty line before it is passed over. Longer than needed to tell is not asked for.
pub fn looks_like_http(first: &[u8]) -> bool {
    const SCHEME: &[u8] = b"http";
    let request = first.strip_prefix(b"\r\n").unwrap_or(first);
    let method = request.iter().take_while(|byte| byte.is_ascii_uppercase() || b"-_".contains(byte)).count();
    let of_method = (1..=METHOD_BYTES).contains(&method);
    has_known_method(request)
        || match &request[method..] {
            [] => !first.is_empty() && method <= METHOD_BYTES,
            b"\r" => first == b"\r",
            [b' '] | [b' ', b'/' | b'*', ..] => of_method,
            [b' ', target @ ..] => {
                let length = target.len().min(SCHEME.len());
                of_method && target[..length].eq_ignore_ascii_case(&SCHEME[..length])
            }
            _ => false,
        }
}

/// Whether the first bytes of a connection begin with a method that HTTP knows, or HTTP/2's preface.
pub fn has_known_method(first: &[u8]) -> bool {
    const METHODS: [&[u8]; 9] =
        [b"GET ", b"POST ", b"PUT ", b"HEAD ", b"DELETE ", b"OPTIONS ", b"PATCH ", b"TRACE ", b"CONNECT "];
    let begins = |known: &[u8]| first.starts_with(known) || (first.len() < known.len() && known.starts_with(first));
    !first.is_empty() && (METHODS.into_iter().any(begins) || begins(&PREFACE[..16]))
}

/// A key for affinity by client address.
pub fn hash_of_address(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(v4) => model::map::stable_hash(&v4.octets()),
        IpAddr::V6(v6) => model::map::stable_hash(&v6.octets()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_is_told_by_its_first_bytes() {
        for http in ["G", "GET / HTTP/1.1\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "PO", "PATCH /"] {
            assert!(has_known_method(http.as_bytes()) && looks_like_http(http.as_bytes()), "{http}");
        }
        for http in [
            "PROPFIND /",
            "PROPFIND ",
            "PROP",
            "M-SEARCH * HTTP/1.1",
            "X_Y http://a/",
            "X_Y HT",
            "\r\nGET /",
            "\r\n",
            "\r",
        ] {
            assert!(!has_known_method(http.as_bytes()) && looks_like_http(http.as_bytes()), "{http}");
        }
        let long = "X".repeat(33);
        for other in [
            "",
            "GETS x",
            "\x16\x03\x01",
            "SSH-2.0",
            "*1\r\n$4\r\nPING\r\n",
            "get /",
            "PING\r\n",
            "PING\r",
            "NICK henry",
            " /",
            "\r\n\r\n",
            "\n",
            &long,
        ] {
            assert!(!looks_like_http(other.as_bytes()), "{other}");
        }
    }
}
