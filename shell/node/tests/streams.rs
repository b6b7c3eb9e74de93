//! exec, attach and port-forward through the node's HTTPS server, on real containers. Needs root; skipped by name without.

mod support;

use cri::spdy::{Decoder, Encoder, Frame};
use futures_util::{SinkExt, StreamExt};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use support::{Node, pod, shell, unfit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

type Upgraded = TokioIo<hyper::upgrade::Upgraded>;

/// Upgrades a request to the node, as the API server passes it on.
async fn upgrade(node: &Node, path: &str, headers: &[(&str, &str)]) -> Result<Upgraded, (u16, String)> {
    use http_body_util::{BodyExt, Empty};
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", node.config.port)).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(node.tls()));
    let tls = connector.connect(ServerName::try_from("test-node").unwrap(), stream).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    let mut request = http::Request::get(path).header("host", "test-node").header("connection", "Upgrade");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut answer = sender.send_request(request.body(Empty::<bytes::Bytes>::new()).unwrap()).await.unwrap();
    if answer.status() != 101 {
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        return Err((status, String::from_utf8_lossy(&body).into_owned()));
    }
    Ok(TokioIo::new(hyper::upgrade::on(&mut answer).await.unwrap()))
}

async fn websocket(node: &Node, path: &str, protocol: &str) -> Result<WebSocketStream<Upgraded>, (u16, String)> {
    let key = "dGhlIHNhbXBsZSBub25jZQ==";
    let headers = [
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", key),
        ("sec-websocket-protocol", protocol),
    ];
    Ok(WebSocketStream::from_raw_socket(upgrade(node, path, &headers).await?, Role::Client, None).await)
}

/// Sends `input` (channel and bytes), then reads all channels to the end.
async fn talk(socket: WebSocketStream<Upgraded>, input: &[(u8, &str)]) -> BTreeMap<u8, String> {
    let (mut sink, mut source) = socket.split();
    for (channel, text) in input {
        sink.send(Message::Binary([&[*channel], text.as_bytes()].concat().into())).await.unwrap();
    }
    let mut out: BTreeMap<u8, Vec<u8>> = BTreeMap::new();
    let all = async {
        while let Some(Ok(message)) = source.next().await {
            if let Message::Binary(bytes) = message {
                out.entry(bytes[0]).or_default().extend(&bytes[1..]);
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), all).await.expect("the command ends");
    out.into_iter().map(|(channel, bytes)| (channel, String::from_utf8_lossy(&bytes).into_owned())).collect()
}

fn exec(command: &[&str], rest: &str) -> String {
    let encoded = |word: &&str| {
        let bytes: String = word.bytes().map(|byte| format!("%{byte:02X}")).collect();
        format!("command={bytes}")
    };
    let words: Vec<String> = command.iter().map(encoded).collect();
    format!("/exec/default/box/main?{}&{rest}", words.join("&"))
}

async fn check_exec(node: &Node) {
    let v5 = "v4.channel.k8s.io, v5.channel.k8s.io";
    let path = exec(&["sh", "-c", "echo out; echo err >&2; exit 3"], "output=1&error=1");
    let said = talk(websocket(node, &path, v5).await.unwrap(), &[]).await;
    assert_eq!((said[&1].as_str(), said[&2].as_str()), ("out\n", "err\n"));
    let status: Value = serde_json::from_str(&said[&3]).unwrap();
    assert_eq!((&status["status"], &status["reason"]), (&json!("Failure"), &json!("NonZeroExitCode")));
    assert_eq!(status["details"]["causes"][0], json!({"reason": "ExitCode", "message": "3"}));
    // Version 5 ends standard input: `cat` sees its end and leaves.
    let path = exec(&["cat"], "input=1&output=1&error=1");
    let said = talk(websocket(node, &path, v5).await.unwrap(), &[(0, "one "), (0, "two"), (255, "\0")]).await;
    assert_eq!(said[&1], "one two");
    assert_eq!(serde_json::from_str::<Value>(&said[&3]).unwrap()["status"], "Success");
    // A terminal has a size, and one output. The size comes on its own way, so it may come after the first line.
    let sized = "read x; while test \"$(stty size)\" = '0 0'; do sleep 0.1; done; stty size; echo $x >&2; exit 0";
    let path = exec(&["sh", "-c", sized], "input=1&output=1&error=1&tty=1");
    let size = r#"{"Width":123,"Height":45}"#;
    let said = talk(websocket(node, &path, v5).await.unwrap(), &[(4, size), (0, "typed\n")]).await;
    assert!(said[&1].contains("45 123") && said[&1].ends_with("typed\r\n"), "{said:?}");
    let big = exec(&["sh", "-c", "head -c 3000000 /dev/zero"], "output=1");
    assert_eq!(talk(websocket(node, &big, v5).await.unwrap(), &[]).await[&1].len(), 3_000_000);
    assert_eq!(websocket(node, &path, "v9.channel.k8s.io").await.unwrap_err().0, 403);
    let nowhere = path.replace("/main?", "/other?");
    assert_eq!(websocket(node, &nowhere, v5).await.unwrap_err(), (400, "container not found (\"other\")".into()));
    assert_eq!(node.get(&path).await.0, 400);
}

async fn check_attach(node: &Node) {
    let socket = websocket(node, "/attach/default/box/echo?stdin=true&stdout=true", "v5.channel.k8s.io").await.unwrap();
    let (mut sink, mut source) = socket.split();
    sink.send(Message::Binary(b"\0hello\n".to_vec().into())).await.unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"got hello\n") {
        if let Message::Binary(bytes) = source.next().await.unwrap().unwrap() {
            seen.extend(&bytes[1..]);
        }
    }
}

/// One connection over SPDY streams: returns the answer and the error text.
async fn forward(io: &mut (impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin), port: &str) -> (String, String) {
    let mut encoder = Encoder::default();
    let headers = |kind| [("streamtype", kind), ("port", port), ("requestid", "0")];
    let open = [
        encoder.syn_stream(1, &headers("error")),
        encoder.syn_stream(3, &headers("data")),
        encoder.data(1, true, b""),
        encoder.data(3, false, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
    ];
    io.write_all(&open.concat()).await.unwrap();
    let mut decoder = Decoder::default();
    let (mut said, mut wrong, mut open) = (Vec::new(), Vec::new(), 2);
    let mut chunk = vec![0; 4096];
    while open > 0 {
        let n = tokio::time::timeout(Duration::from_secs(20), io.read(&mut chunk)).await.unwrap().unwrap();
        assert!(n > 0, "closed too early");
        decoder.push(&chunk[..n]);
        while let Some(frame) = decoder.next_frame().unwrap() {
            if let Frame::Data { stream, fin, bytes } = frame {
                open -= usize::from(fin);
                if stream == 3 { said.extend(bytes) } else { wrong.extend(bytes) }
            }
        }
    }
    (String::from_utf8(said).unwrap(), String::from_utf8(wrong).unwrap())
}

async fn check_forward(node: &Node) {
    let headers = [("upgrade", "SPDY/3.1"), ("x-stream-protocol-version", "portforward.k8s.io")];
    let mut io = upgrade(node, "/portForward/default/box", &headers).await.unwrap();
    let (said, wrong) = forward(&mut io, "8080").await;
    assert!(said.ends_with("\r\n\r\nhi\n") && wrong.is_empty(), "{said} {wrong}");
    let mut io = upgrade(node, "/portForward/default/box", &headers).await.unwrap();
    let (said, wrong) = forward(&mut io, "9").await;
    assert!(said.is_empty() && wrong.contains("error forwarding port 9") && wrong.contains("refused"), "{wrong}");
    // A plain WebSocket, as the Python client does it: channel 0 data, channel 1 errors, each first names the port.
    let mut socket = websocket(node, "/portForward/default/box?ports=8080", "v4.channel.k8s.io").await.unwrap();
    socket.send(Message::Binary(b"\0GET / HTTP/1.1\r\n\r\n".to_vec().into())).await.unwrap();
    let said = talk(socket, &[]).await;
    assert!(said[&0].starts_with('\u{fffd}') || said[&0].as_bytes()[..2] == [0x90, 0x1f], "{said:?}");
    assert!(said[&0].ends_with("hi\n"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_reach_into_containers() {
    if let Some(reason) = unfit() {
        println!("SKIPPED callers_reach_into_containers: {reason}");
        return;
    }
    let node = Node::start(6, |_| {}).await;
    let main = shell("main", support::HTTP);
    let mut echo = shell("echo", "while read x; do echo got $x; done; sleep 1000");
    echo["stdin"] = json!(true);
    let mut spec = json!({"terminationGracePeriodSeconds": 0, "containers": [main, echo]});
    spec["containers"][0]["readinessProbe"] = json!({"tcpSocket": {"port": 8080}});
    node.api.put("pods", &pod("box", &spec));
    node.api.wait_ready("box").await;
    check_exec(&node).await;
    check_attach(&node).await;
    check_forward(&node).await;
    let (code, summary) = node.get("/stats/summary").await;
    let summary: Value = serde_json::from_str(&summary).unwrap();
    assert_eq!((code, &summary["pods"][0]["podRef"]["name"]), (200, &json!("box")));
    assert!(summary["node"]["memory"]["workingSetBytes"].as_i64().unwrap() > 0);
    assert!(node.get("/metrics").await.1.contains("diolkos_node_pods{phase=\"Running\"} 1"));
    node.stop().await;
}
