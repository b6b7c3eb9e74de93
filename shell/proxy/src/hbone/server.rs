//! Tunnels that end here: TLS with the pod's certificate, one process behind each CONNECT.
use super::stream::HboneStream;
use super::{
    DRAINING, ELSEWHERE, FRAME_BYTES, LAST_RESORT, STREAM_WINDOW_BYTES, STREAMS_PER_TUNNEL, TUNNEL_WINDOW_BYTES,
};
use crate::dial;
use crate::identity::trust::RootId;
use crate::inbound;
use crate::netns;
use crate::outbox::Tcp;
use crate::peer_tls::{self, Secured};
use crate::pods::{Phase, Pod};
use crate::policy::{self, Admission, Caller};
use crate::shared::Work;
use crate::stream::{Io, Stream};
use crate::worker::Worker;
use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use rustls::server::Acceptor;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves one tunnel.
pub async fn serve(worker: Arc<Worker>, pod: Arc<Pod>, stream: TcpStream, from: SocketAddr) {
    let handshake = async {
        let tls = pod.origin.identity.tls().await.map_err(std::io::Error::other)?;
        let started = LazyConfigAcceptor::new(Acceptor::default(), Tcp::from(stream)).await?;
        // A joined host captures nothing that comes in: its peers begin TLS here.
        let direct = pod.only_address().filter(|_| peer_tls::is_peer(&started.client_hello()));
        let config = if direct.is_some() { &tls.direct } else { &tls.server };
        Ok::<_, std::io::Error>((started.into_stream(config.clone()).await?, tls.root, direct))
    };
    let (stream, root, direct) = match timeout(HANDSHAKE_TIMEOUT, handshake).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, %from, pod = %pod.attachment.name, "no tunnel"),
        Err(_) => return tracing::debug!(%from, pod = %pod.attachment.name, "the handshake took too long"),
    };
    let (tcp, session) = stream.get_ref();
    // What a network takes along says no goodbye; a tunnel to nobody would rest on its roots for ever.
    let kept = if direct.is_some() { netns::ask_in_silence } else { netns::end_in_silence }(tcp.stream());
    if let Err(error) = kept {
        return tracing::debug!(%error, %from, pod = %pod.attachment.name, "a caller is gone already");
    }
    let chain = session.peer_certificates().unwrap_or_default();
    let resting = pod.origin.identity.anchors().rest(root, chain);
    let Some(identity) = peer_tls::identity(&worker, &pod, chain, from) else { return };
    let caller = Caller { identity: Some(identity), ..Caller::in_plain_text(from) };
    if let Some(to) = direct {
        let secured = Secured { stream: Io::TlsServer(Box::new(stream)).into(), resting, caller, shown: root };
        return Box::pin(secured.deliver(&worker, &pod, to, None)).await;
    }
    tokio::select! {
        ended = serve_streams(&worker, &pod, stream, root, caller) => if let Err(error) = ended {
            tracing::debug!(%error, %from, pod = %pod.attachment.name, "tunnel ended");
        },
        () = resting.withdrawn() => {
            tracing::info!(%from, pod = %pod.attachment.name, "tunnel closed: its root is no longer trusted");
        }
    }
}

async fn serve_streams(
    worker: &Arc<Worker>,
    pod: &Arc<Pod>,
    stream: TlsStream<Tcp>,
    root: RootId,
    caller: Caller,
) -> Result<(), h2::Error> {
    let handshake = h2::server::Builder::new()
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(TUNNEL_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .max_concurrent_streams(2 * STREAMS_PER_TUNNEL)
        .max_header_list_size(16 << 10)
        .handshake::<_, Bytes>(stream);
    let Ok(handshake) = timeout(HANDSHAKE_TIMEOUT, handshake).await else { return Ok(()) };
    let mut connection = handshake?;
    let mut leaving = false;
    loop {
        let accepted = tokio::select! {
            accepted = connection.accept() => accepted,
            () = pod.reached(Phase::Draining), if !leaving => {
                leaving = true;
                connection.graceful_shutdown();
                continue;
            }
            // Another root signs: a tunnel under the old one takes nothing new, so that the old one can go.
            () = pod.origin.identity.moved_from(root), if !leaving => {
                leaving = true;
                connection.graceful_shutdown();
                continue;
            }
            () = worker.shared.stopped(), if !leaving => {
                leaving = true;
                connection.graceful_shutdown();
                continue;
            }
        };
        let Some(accepted) = accepted else { return Ok(()) };
        let (request, respond) = accepted?;
        tokio::spawn(serve_stream(worker.clone(), pod.clone(), caller.clone(), request, respond));
    }
}

async fn serve_stream(
    worker: Arc<Worker>,
    pod: Arc<Pod>,
    caller: Caller,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    let _busy = worker.shared.busy(Work::Tunnelled);
    let to = match destination(&pod, &request) {
        Ok(to) => to,
        Err(status) => return answer(&mut respond, status, None),
    };
    let wish = request.headers().get(DRAINING).map(HeaderValue::as_bytes);
    let elsewhere = wish == Some(ELSEWHERE.as_bytes());
    if pod.phase() >= Phase::Draining && wish != Some(LAST_RESORT.as_bytes()) {
        return answer(&mut respond, StatusCode::SERVICE_UNAVAILABLE, Some((DRAINING, "1")));
    }
    if !policy::is_known(&worker, &pod).await {
        return answer(&mut respond, StatusCode::SERVICE_UNAVAILABLE, None);
    }
    let admission = policy::admit(&worker, &pod, &caller, to);
    if matches!(admission, Admission::Refused) {
        return answer(&mut respond, StatusCode::FORBIDDEN, None);
    }
    // The process is dialled before the tunnel is granted: a caller whose CONNECT fails knows that nothing was sent.
    let process = match dial::process(&pod, to, caller.address).await {
        Ok(process) => process,
        Err(error) => {
            tracing::debug!(%error, pod = %pod.attachment.name, "the process does not answer");
            return answer(&mut respond, StatusCode::SERVICE_UNAVAILABLE, None);
        }
    };
    let Ok(send) = respond.send_response(Response::new(()), false) else { return };
    let stream: Stream = Io::Hbone(Box::new(HboneStream::new(send, request.into_body(), None))).into();
    let caller = Caller { elsewhere, ..caller };
    inbound::deliver(&worker, &pod, stream, process.into(), &caller, to, admission).await;
}

/// The process that a CONNECT asks for: one of this pod's own, and not the proxy.
fn destination(pod: &Pod, request: &Request<RecvStream>) -> Result<SocketAddr, StatusCode> {
    if request.method() != Method::CONNECT {
        return Err(StatusCode::METHOD_NOT_ALLOWED);
    }
    let authority = request.uri().authority().ok_or(StatusCode::BAD_REQUEST)?;
    let to: SocketAddr = authority.as_str().parse().map_err(|_| StatusCode::BAD_REQUEST)?;
    if !pod.serves(to) {
        return Err(StatusCode::BAD_REQUEST);
    }
    Ok(to)
}

fn answer(respond: &mut SendResponse<Bytes>, status: StatusCode, header: Option<(&'static str, &'static str)>) {
    let mut response = Response::new(());
    *response.status_mut() = status;
    if let Some((name, value)) = header {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    // The caller may have gone; nobody is left to tell.
    let _ = respond.send_response(response, true);
}
