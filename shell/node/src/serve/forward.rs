//! `kubectl port-forward`: connections into a pod's network namespace.
//!
//! Callers speak SPDY, by itself or inside a WebSocket, with a pair of streams for each connection: one for data, one for what went
//! wrong. Client libraries may use a plain WebSocket instead, with two channels for each port.

use super::query::Query;
use super::upgrade::{self, STREAM_PROTOCOL, Socket, Wish};
use super::{Answer, text};
use crate::agent::Pods;
use crate::pod::observe::{Observed, observe};
use cri::spdy::{Decoder, Encoder, Frame, Headers};
use futures_util::stream::SplitSink;
use futures_util::{SinkExt, StreamExt};
use http::header::SEC_WEBSOCKET_PROTOCOL;
use http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;

const SPDY: &str = "portforward.k8s.io";
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
const CHANNELS: [&str; 2] = ["v4.channel.k8s.io", "portforward.k8s.io"];
const CHUNK: usize = 32 << 10;
/// Connections at once in one port-forward.
const MAX_STREAMS: usize = 1000;

/// The namespace of a pod; `None` is the node's.
type Netns = Option<String>;

pub(super) async fn answer(
    pods: &Arc<Pods>,
    namespace: &str,
    name: &str,
    query: &Query,
    mut request: Request<Incoming>,
) -> Answer {
    let Some(pod) = pods.find(namespace, name) else {
        return text(StatusCode::NOT_FOUND, format!("pods \"{name}\" not found"));
    };
    let netns = match observe(&pods.shared().runtime, pod.uid(), &Observed::default()).await {
        Ok(seen) if seen.any_running() && pod.host_network() => None,
        Ok(Observed { netns: Some(netns), .. }) => Some(netns),
        Ok(_) => {
            return text(StatusCode::BAD_REQUEST, format!("unable to forward port because pod {name} is not running"));
        }
        Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    };
    let wish = upgrade::wish(&request);
    let tunnel = upgrade::choose(&request, &SEC_WEBSOCKET_PROTOCOL, &[TUNNEL]);
    let channels = upgrade::choose(&request, &SEC_WEBSOCKET_PROTOCOL, &CHANNELS);
    let answer = match (wish, tunnel.or(channels)) {
        (Wish::WebSocket, Some(protocol)) => upgrade::accept_websocket(&request, protocol),
        (Wish::Spdy, _) => upgrade::choose(&request, &STREAM_PROTOCOL, &[SPDY]).map(upgrade::accept_spdy),
        (Wish::Nothing, _) => return text(StatusCode::BAD_REQUEST, "Upgrade request required"),
        (Wish::WebSocket, None) => None,
    };
    let Some(answer) = answer else { return upgrade::no_protocol() };
    let ports: Vec<u16> = [query.all("port"), query.all("ports")]
        .concat()
        .iter()
        .flat_map(|text| text.split(','))
        .filter_map(|port| port.parse().ok())
        .collect();
    let caller = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        match (wish, tunnel) {
            (Wish::Spdy, _) => {
                if let Ok(caller) = caller.await {
                    serve(TokioIo::new(caller), netns).await;
                }
            }
            (_, Some(_)) => {
                if let Some(socket) = upgrade::websocket(caller).await {
                    serve(upgrade::as_bytes(socket), netns).await;
                }
            }
            (_, None) => {
                if let Some(socket) = upgrade::websocket(caller).await {
                    serve_channels(socket, &ports, netns).await;
                }
            }
        }
    });
    answer
}

/// A connection to the pod's loopback: what listens only there is reached too.
async fn dial(netns: Netns, port: u16) -> io::Result<TcpStream> {
    let Some(path) = netns else {
        return TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await;
    };
    let (done, result) = tokio::sync::oneshot::channel();
    // A namespace belongs to a thread: one of its own enters it, connects and ends. The socket stays in the namespace.
    std::thread::spawn(move || {
        let connect = || {
            let file = std::fs::File::open(path)?;
            nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET)?;
            std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).or_else(|error| {
                // A server may listen on IPv6 only; the first error is the one that people know.
                std::net::TcpStream::connect((Ipv6Addr::LOCALHOST, port)).map_err(|_| error)
            })
        };
        let _ = done.send(connect());
    });
    let stream = result.await.map_err(|_| io::Error::other("the connecting thread ended"))??;
    stream.set_nonblocking(true)?;
    let stream = TcpStream::from_std(stream)?;
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

/// The streams of one caller.
struct Session {
    netns: Netns,
    encoder: Arc<Mutex<Encoder>>,
    out: mpsc::Sender<Vec<u8>>,
    /// Error streams, by request.
    errors: BTreeMap<String, u32>,
    /// Where data of each stream goes; dropping a sender ends the connection's write half.
    data: BTreeMap<u32, mpsc::Sender<Vec<u8>>>,
}

/// Serves SPDY until the caller is gone.
async fn serve(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, netns: Netns) {
    let (mut reader, mut writer) = tokio::io::split(io);
    let (out, mut frames) = mpsc::channel::<Vec<u8>>(64);
    let writing = tokio::spawn(async move {
        while let Some(bytes) = frames.recv().await {
            if writer.write_all(&bytes).await.is_err() || writer.flush().await.is_err() {
                return;
            }
        }
        let _ = writer.shutdown().await;
    });
    let mut session = Session { netns, encoder: Arc::default(), out, errors: BTreeMap::new(), data: BTreeMap::new() };
    let mut decoder = Decoder::default();
    let mut chunk = vec![0; 64 << 10];
    'read: while let Ok(n @ 1..) = reader.read(&mut chunk).await {
        decoder.push(&chunk[..n]);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => session.take(frame).await,
                Ok(None) => break,
                Err(error) => {
                    tracing::debug!(%error, "port-forward");
                    break 'read;
                }
            }
        }
    }
    drop(session);
    let _ = writing.await;
}

impl Session {
    async fn take(&mut self, frame: Frame) {
        match frame {
            Frame::SynStream { stream, headers, fin } => self.open(stream, &headers, fin).await,
            Frame::Data { stream, fin, bytes } => {
                if let Some(sender) = self.data.get(&stream)
                    && !bytes.is_empty()
                {
                    let _ = sender.send(bytes).await;
                }
                if fin {
                    self.data.remove(&stream);
                }
            }
            Frame::Reset { stream } => drop(self.data.remove(&stream)),
            // Odd numbers are the caller's own; ours would be answers, and nobody asked.
            Frame::Ping { id } if id % 2 == 1 => self.send(|encoder| encoder.ping(id)).await,
            Frame::Ping { .. } | Frame::SynReply { .. } | Frame::GoAway => {}
        }
    }

    async fn send(&self, make: impl FnOnce(&mut Encoder) -> Vec<u8>) {
        let bytes = make(&mut self.encoder.lock().unwrap_or_else(PoisonError::into_inner));
        let _ = self.out.send(bytes).await;
    }

    async fn open(&mut self, stream: u32, headers: &Headers, fin: bool) {
        let header = |name: &str| headers.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value.as_str());
        let port: Option<u16> = header("port").parse().ok();
        let request = header("requestid").to_owned();
        let Some(port) = port.filter(|port| *port != 0 && self.data.len() < MAX_STREAMS) else {
            return self.send(|encoder| encoder.reset(stream)).await;
        };
        self.send(|encoder| encoder.syn_reply(stream)).await;
        match header("streamtype") {
            "error" => drop(self.errors.insert(request, stream)),
            "data" => {
                let (sender, inbox) = mpsc::channel(16);
                if !fin {
                    self.data.insert(stream, sender);
                }
                let error = self.errors.remove(&request);
                let connection = Connection {
                    netns: self.netns.clone(),
                    port,
                    stream,
                    error,
                    out: self.out.clone(),
                    encoder: self.encoder.clone(),
                };
                tokio::spawn(connection.run(inbox));
            }
            _ => self.send(|encoder| encoder.reset(stream)).await,
        }
    }
}

/// One connection of a port-forward.
struct Connection {
    netns: Netns,
    port: u16,
    stream: u32,
    error: Option<u32>,
    out: mpsc::Sender<Vec<u8>>,
    encoder: Arc<Mutex<Encoder>>,
}

impl Connection {
    async fn run(self, mut inbox: mpsc::Receiver<Vec<u8>>) {
        let mut trouble = String::new();
        match dial(self.netns.clone(), self.port).await {
            Ok(stream) => {
                let (mut reader, mut writer) = stream.into_split();
                let inward = copy_in(&mut inbox, &mut writer);
                let outward = async {
                    let mut chunk = vec![0; CHUNK];
                    while let Ok(n @ 1..) = reader.read(&mut chunk).await {
                        if self.send(self.stream, false, &chunk[..n]).await.is_err() {
                            return;
                        }
                    }
                    let _ = self.send(self.stream, true, &[]).await;
                };
                // When the pod has closed, nobody reads what the caller still sends; when the caller is done, the pod may still answer.
                tokio::select! {
                    () = outward => {}
                    () = async { inward.await; std::future::pending().await } => {}
                }
            }
            Err(error) => {
                trouble = format!("error forwarding port {}: dial tcp 127.0.0.1:{}: {error}", self.port, self.port);
                let _ = self.send(self.stream, true, &[]).await;
            }
        }
        if let Some(error) = self.error {
            let _ = self.send(error, true, trouble.as_bytes()).await;
        }
    }

    async fn send(&self, stream: u32, fin: bool, bytes: &[u8]) -> Result<(), ()> {
        let frame = self.encoder.lock().unwrap_or_else(PoisonError::into_inner).data(stream, fin, bytes);
        self.out.send(frame).await.map_err(drop)
    }
}

async fn copy_in(inbox: &mut mpsc::Receiver<Vec<u8>>, writer: &mut OwnedWriteHalf) {
    while let Some(bytes) = inbox.recv().await {
        if writer.write_all(&bytes).await.is_err() {
            return;
        }
    }
    let _ = writer.shutdown().await;
}

/// Two channels a port: data, and errors. The first message of each names the port.
async fn serve_channels(socket: Socket, ports: &[u16], netns: Netns) {
    let (sink, mut source) = socket.split();
    let (out, mut messages) = mpsc::channel::<Message>(64);
    let writing = tokio::spawn(async move {
        let mut sink: SplitSink<Socket, Message> = sink;
        while let Some(message) = messages.recv().await {
            if sink.send(message).await.is_err() {
                return;
            }
        }
        let _ = sink.close().await;
    });
    let mut inboxes = Vec::new();
    let mut tasks = tokio::task::JoinSet::new();
    for (at, port) in ports.iter().take(usize::from(u8::MAX / 2)).enumerate() {
        let (data, error) = (at as u8 * 2, at as u8 * 2 + 1);
        for channel in [data, error] {
            let [low, high] = port.to_le_bytes();
            let _ = out.send(Message::Binary(vec![channel, low, high].into())).await;
        }
        let (sender, inbox) = mpsc::channel::<Vec<u8>>(16);
        inboxes.push(sender);
        let (out, netns, port) = (out.clone(), netns.clone(), *port);
        tasks.spawn(async move {
            match dial(netns, port).await {
                Ok(stream) => forward_channel(stream, inbox, out, data).await,
                Err(why) => {
                    let text = format!("error forwarding port {port}: {why}");
                    let _ = out.send(Message::Binary([&[error], text.as_bytes()].concat().into())).await;
                }
            }
        });
    }
    drop(out);
    let inward = async {
        while let Some(Ok(message)) = source.next().await {
            match message {
                Message::Binary(bytes) => {
                    if let Some((channel, rest)) = bytes.split_first()
                        && channel % 2 == 0
                        && let Some(inbox) = inboxes.get(usize::from(channel / 2))
                    {
                        let _ = inbox.send(rest.to_vec()).await;
                    }
                }
                Message::Close(_) => break,
                _ => {}
            }
        }
    };
    tokio::select! {
        () = inward => {}
        () = async { while tasks.join_next().await.is_some() {} } => {}
    }
    tasks.shutdown().await;
    let _ = writing.await;
}

async fn forward_channel(
    stream: TcpStream,
    mut inbox: mpsc::Receiver<Vec<u8>>,
    out: mpsc::Sender<Message>,
    channel: u8,
) {
    let (mut reader, mut writer): (OwnedReadHalf, OwnedWriteHalf) = stream.into_split();
    let outward = async {
        let mut chunk = vec![0; CHUNK];
        while let Ok(n @ 1..) = reader.read(&mut chunk).await {
            if out.send(Message::Binary([&[channel], &chunk[..n]].concat().into())).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = outward => {}
        () = async { copy_in(&mut inbox, &mut writer).await; std::future::pending().await } => {}
    }
}
