//! `kubectl exec` and `attach`: the caller's WebSocket on one side, the runtime's SPDY streams on the other.
//!
//! A caller that speaks SPDY itself (older kubectl) is connected through, byte for byte.

use super::query::Query;
use super::upgrade::{self, STREAM_PROTOCOL, Socket, Wish};
use super::{Answer, text};
use crate::agent::Pods;
use crate::pod::observe::label;
use cri::spdy::{Decoder, Encoder, Frame};
use cri::{AttachRequest, ContainerState, ExecRequest};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use http::header::{CONNECTION, HOST, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{Request, StatusCode, Uri};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

/// Protocols towards the caller, best first. Version 5 can end the container's standard input without ending everything.
const WEBSOCKET: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];
/// Towards the runtime. Version 4 reports how the command ended.
const RUNTIME: &str = "v4.channel.k8s.io";

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

const GOODBYE: Duration = Duration::from_secs(2);

type Runtime = TokioIo<Upgraded>;

/// What the caller wants connected.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
}

impl Wanted {
    /// The kubelet's names and those of the API.
    fn read(query: &Query) -> Self {
        let either = |a: &str, b: &str| query.flag(a) || query.flag(b);
        let tty = query.flag("tty");
        Wanted {
            stdin: either("input", "stdin"),
            stdout: either("output", "stdout"),
            // A terminal has one output.
            stderr: either("error", "stderr") && !tty,
            tty,
        }
    }

    /// Stream kinds with their channel, in the order in which they are opened.
    fn streams(self) -> Vec<(&'static str, u8)> {
        let all = [
            ("error", ERROR, true),
            ("stdin", STDIN, self.stdin),
            ("stdout", STDOUT, self.stdout),
            ("stderr", STDERR, self.stderr),
            ("resize", RESIZE, self.tty),
        ];
        all.into_iter().filter(|(_, _, wanted)| *wanted).map(|(kind, channel, _)| (kind, channel)).collect()
    }
}

/// Runs `command` in the container; without one, attaches to its main process.
pub(super) async fn answer(
    pods: &Arc<Pods>,
    place: (&str, &str, &str),
    query: &Query,
    exec: bool,
    mut request: Request<Incoming>,
) -> Answer {
    let wanted = Wanted::read(query);
    if !(wanted.stdin || wanted.stdout || wanted.stderr) {
        return text(StatusCode::BAD_REQUEST, "you must specify at least 1 of stdin, stdout, stderr");
    }
    let id = match running(pods, place).await {
        Ok(id) => id,
        Err((status, why)) => return text(status, why),
    };
    let runtime = &pods.shared().runtime;
    let Wanted { stdin, stdout, stderr, tty } = wanted;
    let url = if exec {
        runtime.exec(ExecRequest { container_id: id, cmd: query.all("command"), tty, stdin, stdout, stderr }).await
    } else {
        runtime.attach(AttachRequest { container_id: id, stdin, tty, stdout, stderr }).await
    };
    let url = match url {
        Ok(url) => url,
        Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    };
    match upgrade::wish(&request) {
        Wish::WebSocket => {
            let Some(protocol) = upgrade::choose(&request, &SEC_WEBSOCKET_PROTOCOL, &WEBSOCKET) else {
                return upgrade::no_protocol();
            };
            let Some(answer) = upgrade::accept_websocket(&request, protocol) else { return upgrade::no_protocol() };
            let runtime = match open(&url, RUNTIME).await {
                Ok(runtime) => runtime,
                Err(why) => return text(StatusCode::BAD_GATEWAY, why),
            };
            let caller = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                if let Some(socket) = upgrade::websocket(caller).await {
                    bridge(socket, runtime, wanted, protocol).await;
                }
            });
            answer
        }
        Wish::Spdy => {
            let known = ["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];
            let Some(protocol) = upgrade::choose(&request, &STREAM_PROTOCOL, &known) else {
                return upgrade::no_protocol();
            };
            let mut runtime = match open(&url, protocol).await {
                Ok(runtime) => runtime,
                Err(why) => return text(StatusCode::BAD_GATEWAY, why),
            };
            let caller = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let Ok(caller) = caller.await else { return };
                let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(caller), &mut runtime).await;
            });
            upgrade::accept_spdy(protocol)
        }
        Wish::Nothing => text(StatusCode::BAD_REQUEST, "Upgrade request required"),
    }
}

/// The running container of that name.
async fn running(
    pods: &Pods,
    (namespace, name, container): (&str, &str, &str),
) -> Result<String, (StatusCode, String)> {
    let pod =
        pods.find(namespace, name).ok_or_else(|| (StatusCode::NOT_FOUND, format!("pods \"{name}\" not found")))?;
    let labels = BTreeMap::from([
        (label::POD_UID.to_owned(), pod.uid().to_owned()),
        (label::CONTAINER_NAME.to_owned(), container.to_owned()),
    ]);
    let listed = pods.shared().runtime.list_containers(labels).await;
    let listed = listed.map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    let found = listed.into_iter().find(|container| container.state == ContainerState::Running as i32);
    found
        .map(|container| container.id)
        .ok_or_else(|| (StatusCode::BAD_REQUEST, format!("container not found (\"{container}\")")))
}

/// Connects to the runtime's streaming server.
async fn open(url: &str, protocol: &str) -> Result<Runtime, String> {
    let uri: Uri = url.parse().map_err(|_| format!("the runtime's stream URL {url:?} is none"))?;
    let authority = uri.authority().ok_or("the runtime's stream URL has no host")?.to_string();
    let stream = TcpStream::connect(&authority).await.map_err(|error| format!("the runtime's streams: {error}"))?;
    let _ = stream.set_nodelay(true);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    tokio::spawn(connection.with_upgrades());
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::post(path)
        .header(HOST, &authority)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "SPDY/3.1")
        .header(STREAM_PROTOCOL, protocol)
        .body(Empty::<bytes::Bytes>::new())
        .map_err(|error| error.to_string())?;
    let mut answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(format!("the runtime's streams: {}", answer.status()));
    }
    let upgraded = hyper::upgrade::on(&mut answer).await.map_err(|error| error.to_string())?;
    Ok(TokioIo::new(upgraded))
}

/// Carries bytes both ways until the command has ended or the caller is gone.
async fn bridge(socket: Socket, runtime: Runtime, wanted: Wanted, protocol: &str) {
    let streams = wanted.streams();
    // A client's streams are odd.
    let stream_of = |channel: u8| {
        let at = streams.iter().position(|(_, own)| *own == channel)?;
        u32::try_from(at * 2 + 1).ok()
    };
    let (sink, mut source) = socket.split();
    let (reader, mut writer) = tokio::io::split(runtime);
    let mut encoder = Encoder::default();
    for (at, (kind, _)) in streams.iter().enumerate() {
        let opened = encoder.syn_stream((at * 2 + 1) as u32, &[("streamtype", kind)]);
        if writer.write_all(&opened).await.is_err() {
            return;
        }
    }
    let channels: BTreeMap<u32, u8> =
        streams.iter().enumerate().map(|(at, (_, channel))| ((at * 2 + 1) as u32, *channel)).collect();
    let down = async {
        let mut sink = sink;
        // Tells the caller that it is connected, before the command says anything.
        let first = [STDOUT, STDERR].into_iter().find(|channel| stream_of(*channel).is_some()).unwrap_or(ERROR);
        let _ = sink.send(Message::Binary(vec![first].into())).await;
        downward(&mut sink, reader, &channels).await;
        // Clients take anything but a normal end for a broken connection, and then for a failed command.
        let normal = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        let _ = sink.send(Message::Close(Some(normal))).await;
        let _ = sink.close().await;
    };
    let up = upward(&mut source, writer, encoder, &stream_of, protocol == WEBSOCKET[0]);
    tokio::select! {
        () = down => {}
        () = up => {}
    }
    // The caller's own goodbye: without it, what is still under way to it could be thrown away with the connection.
    let _ = tokio::time::timeout(GOODBYE, async { while let Some(Ok(_)) = source.next().await {} }).await;
}

/// From the runtime to the caller.
async fn downward(sink: &mut SplitSink<Socket, Message>, mut reader: ReadHalf<Runtime>, channels: &BTreeMap<u32, u8>) {
    let mut decoder = Decoder::default();
    let mut chunk = vec![0; 64 << 10];
    let mut status = Vec::new();
    let mut told = false;
    while let Ok(n @ 1..) = reader.read(&mut chunk).await {
        decoder.push(&chunk[..n]);
        loop {
            let frame = match decoder.next_frame() {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(error) => {
                    tracing::debug!(%error, "the runtime's streams");
                    return;
                }
            };
            let Frame::Data { stream, fin, bytes } = frame else { continue };
            let Some(channel) = channels.get(&stream).copied() else { continue };
            if channel == ERROR {
                // The status may come in pieces; callers read one message.
                status.extend_from_slice(&bytes);
                if fin && !told {
                    told = true;
                    if send(sink, ERROR, &status).await.is_err() {
                        return;
                    }
                }
            } else if !bytes.is_empty() && send(sink, channel, &bytes).await.is_err() {
                return;
            }
        }
    }
    if !told {
        let _ = send(sink, ERROR, &status).await;
    }
}

async fn send(sink: &mut SplitSink<Socket, Message>, channel: u8, bytes: &[u8]) -> Result<(), ()> {
    let message = [&[channel], bytes].concat();
    sink.send(Message::Binary(message.into())).await.map_err(drop)
}

/// From the caller to the runtime.
async fn upward(
    source: &mut SplitStream<Socket>,
    mut writer: WriteHalf<Runtime>,
    encoder: Encoder,
    stream_of: &impl Fn(u8) -> Option<u32>,
    can_close: bool,
) {
    while let Some(Ok(message)) = source.next().await {
        let bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => text.into(),
            Message::Close(_) => return,
            _ => continue,
        };
        let frame = match bytes.split_first() {
            Some((&CLOSE, [channel, ..])) if can_close => {
                stream_of(*channel).map(|stream| encoder.data(stream, true, &[]))
            }
            Some((channel @ &(STDIN | RESIZE), rest)) if !rest.is_empty() => {
                stream_of(*channel).map(|stream| encoder.data(stream, false, rest))
            }
            _ => None,
        };
        if let Some(frame) = frame
            && (writer.write_all(&frame).await.is_err() || writer.flush().await.is_err())
        {
            // The runtime is done; what it said last is still on its way down.
            std::future::pending::<()>().await;
        }
    }
}
