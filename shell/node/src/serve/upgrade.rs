//! Turning a request into a stream of bytes or of WebSocket messages.

use super::{Answer, text};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{SinkExt, StreamExt};
use http::header::{CONNECTION, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

pub(super) const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");

pub(super) type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// How the caller wants to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    WebSocket,
    Spdy,
    Nothing,
}

pub(super) fn wish(request: &Request<Incoming>) -> Wish {
    let upgrade = request.headers().get(UPGRADE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match upgrade.to_ascii_lowercase().as_str() {
        "websocket" => Wish::WebSocket,
        "spdy/3.1" => Wish::Spdy,
        _ => Wish::Nothing,
    }
}

/// The first of `known` that the caller offers in `header`.
pub(super) fn choose(request: &Request<Incoming>, header: &HeaderName, known: &[&'static str]) -> Option<&'static str> {
    let values = request.headers().get_all(header).iter().filter_map(|value| value.to_str().ok());
    let offered: Vec<String> = values.flat_map(|value| value.split(',')).map(|word| word.trim().to_owned()).collect();
    known.iter().copied().find(|known| offered.iter().any(|word| word == known))
}

pub(super) fn no_protocol() -> Answer {
    text(StatusCode::FORBIDDEN, "unable to upgrade: none of the offered protocols is known")
}

/// The answer that begins a WebSocket.
pub(super) fn accept_websocket(request: &Request<Incoming>, protocol: &'static str) -> Option<Answer> {
    // RFC 6455: proof that this is a WebSocket server, not a secret.
    const MAGIC: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    let key = request.headers().get(SEC_WEBSOCKET_KEY)?.as_bytes();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, &[key, MAGIC].concat());
    let accept = HeaderValue::from_str(&STANDARD.encode(digest.as_ref())).ok()?;
    let mut answer = switching("websocket");
    answer.headers_mut().insert(SEC_WEBSOCKET_ACCEPT, accept);
    answer.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    Some(answer)
}

/// The answer that begins SPDY.
pub(super) fn accept_spdy(protocol: &'static str) -> Answer {
    let mut answer = switching("SPDY/3.1");
    answer.headers_mut().insert(STREAM_PROTOCOL, HeaderValue::from_static(protocol));
    answer
}

pub(super) fn switching(to: &'static str) -> Answer {
    let mut answer = Response::new(Empty::new().boxed_unsync());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.headers_mut().insert(UPGRADE, HeaderValue::from_static(to));
    answer
}

/// A message larger than this is no terminal's, and no file copy's either: clients cut at 32 KiB.
const MAX_MESSAGE: usize = 4 << 20;

pub(super) async fn websocket(upgrade: OnUpgrade) -> Option<Socket> {
    let io = TokioIo::new(upgrade.await.ok()?);
    let config = WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE));
    Some(WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await)
}

/// The bytes that binary messages carry, as a stream: SPDY inside a WebSocket.
pub(super) fn as_bytes(socket: Socket) -> DuplexStream {
    let (ours, theirs) = tokio::io::duplex(256 << 10);
    tokio::spawn(async move {
        let (mut sink, mut source) = socket.split();
        let (mut reader, mut writer) = tokio::io::split(ours);
        let inward = async {
            while let Some(Ok(message)) = source.next().await {
                let done = match message {
                    Message::Binary(bytes) => writer.write_all(&bytes).await.is_err(),
                    Message::Close(_) => true,
                    _ => false,
                };
                if done {
                    break;
                }
            }
            let _ = writer.shutdown().await;
        };
        let outward = async {
            let mut chunk = vec![0; 64 << 10];
            while let Ok(n @ 1..) = reader.read(&mut chunk).await {
                if sink.send(Message::Binary(chunk[..n].to_vec().into())).await.is_err() {
                    return;
                }
            }
            let _ = sink.close().await;
        };
        tokio::join!(inward, outward);
    });
    theirs
}
