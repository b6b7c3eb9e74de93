//! gRPC as it is on the wire: streams both ways at once, trailers, and failures told in its own words.
mod support;

use bytes::Bytes;
use diolkos_proxy::mesh::Change;
use h2::client::SendRequest;
use http::{HeaderMap, HeaderValue, Request, Response};
use model::Key;
use model::mesh::*;
use std::io::{Read, Write};
use std::sync::Arc;
use support::{Node, grpc_client, listen, listen_in_threads};

/// Sends every message back as it comes, and `grpc-status: 0` at the end.
fn serve_echo(netns: &str) {
    listen(netns, |stream| async move {
        // It sends its settings at once: that it speaks first must not hide that it speaks HTTP.
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            tokio::spawn(async move {
                let head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
                let mut send = respond.send_response(head, false).unwrap();
                let mut body = request.into_body();
                while let Some(Ok(bytes)) = body.data().await {
                    let _ = body.flow_control().release_capacity(bytes.len());
                    send.send_data(bytes, false).unwrap();
                }
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", HeaderValue::from_static("0"));
                send.send_trailers(trailers).unwrap();
            });
        }
    });
}

fn call() -> Request<()> {
    Request::post("http://10.96.0.50/echo.Echo/Chat")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap()
}

/// One call with `rounds` messages, each sent only after the one before came back. Gives the final status.
async fn chat(sender: &SendRequest<Bytes>, rounds: usize) -> String {
    let (response, mut send) = sender.clone().ready().await.unwrap().send_request(call(), false).unwrap();
    send.send_data(Bytes::from_static(b"first"), false).unwrap();
    let response = response.await.unwrap();
    assert_eq!(response.status(), 200);
    if let Some(status) = response.headers().get("grpc-status") {
        return status.to_str().unwrap().to_owned();
    }
    let mut body = response.into_body();
    assert_eq!(body.data().await.unwrap().unwrap(), "first");
    for round in 0..rounds {
        let message = Bytes::from(format!("message {round}"));
        send.send_data(message.clone(), false).unwrap();
        let bytes = body.data().await.unwrap().unwrap();
        let _ = body.flow_control().release_capacity(bytes.len());
        assert_eq!(bytes, message);
    }
    send.send_data(Bytes::new(), true).unwrap();
    while let Some(bytes) = body.data().await {
        assert!(bytes.unwrap().is_empty());
    }
    let trailers = body.trailers().await.unwrap().unwrap();
    trailers["grpc-status"].to_str().unwrap().to_owned()
}

#[test]
fn streams_flow_both_ways_and_failures_are_grpc_statuses() {
    need_root!("streams_flow_both_ways_and_failures_are_grpc_statuses");
    let mut node = Node::start(|_| {});
    let (caller, server) = (node.pod(5, "client"), node.pod(6, "web"));
    serve_echo(&server);
    node.service("web", 50, AppProtocol::Grpc, &[(6, Health::Ready)]);
    let statuses = grpc_client(&caller, async |sender| {
        let (one, two) = tokio::join!(chat(&sender, 20), chat(&sender, 20));
        [one, two]
    });
    assert_eq!(statuses, ["0", "0"]);
    let deny = AuthorizationPolicy {
        key: Key::new("default", "nobody"),
        scope: Scope::Namespace,
        action: Action::Deny,
        dry_run: false,
        provider: "".into(),
        rules: vec![PolicyRule {
            to: vec![Operation { paths: vec!["/echo.Echo/*".into()], ..Operation::default() }],
            ..PolicyRule::default()
        }],
    };
    node.proxy().apply([Change::Set(Resource::AuthorizationPolicy(Arc::new(deny)))]);
    assert_eq!(grpc_client(&caller, async |sender| chat(&sender, 0).await), "7", "PERMISSION_DENIED");
    node.proxy().apply([Change::Remove(ResourceKind::AuthorizationPolicy, "default/nobody".into())]);
    node.service("web", 50, AppProtocol::Grpc, &[]);
    assert_eq!(grpc_client(&caller, async |sender| chat(&sender, 0).await), "14", "UNAVAILABLE");
}

/// RFC 7541, 6.2.3: through two proxies, to a process that looks.
#[test]
fn fields_that_nobody_is_to_keep_are_marked_to_the_end() {
    need_root!("fields_that_nobody_is_to_keep_are_marked_to_the_end");
    let mut node = Node::start(|_| {});
    let (caller, server) = (node.pod(5, "client"), node.pod(6, "web"));
    let (tell, told) = std::sync::mpsc::sync_channel(8);
    listen_in_threads(&server, move |mut stream| {
        let limits = http2::Limits {
            streams: 8,
            header_bytes: 8192,
            stream_window: 65_535,
            connection_window: 65_535,
            waiting_bytes: 65_535,
            idle_per_second: 100,
        };
        let (mut connection, mut events) = (http2::Connection::new(limits), http2::Events::default());
        let (mut came, mut space) = (Vec::new(), [0; 4096]);
        while let Ok(count @ 1..) = stream.read(&mut space) {
            came.extend_from_slice(&space[..count]);
            let taken = connection.receive(&came, 0, &mut events).unwrap();
            came.drain(..taken);
            for event in std::mem::take(&mut events.list) {
                let http2::Event::Request { stream, head, .. } = event else { continue };
                let marks: Vec<_> =
                    head.fields.iter_sensitive().map(|(name, _, mark)| (name.to_owned(), mark)).collect();
                tell.send(marks).unwrap();
                let _ = connection.respond(stream, &http1::ResponseHead::new(204, http1::Framing::Empty), true);
                connection.forget(stream);
            }
            while !connection.output().is_empty() {
                let mut slices = [std::io::IoSlice::new(&[])];
                connection.output().slices(&mut slices);
                let sent = stream.write(&slices[0]).unwrap();
                connection.flushed(sent, &mut events);
            }
        }
    });
    node.service("web", 50, AppProtocol::Grpc, &[(6, Health::Ready)]);
    grpc_client(&caller, async |sender| {
        for _ in 0..3 {
            let mut request = call();
            let mut secret = HeaderValue::from_static("secret");
            secret.set_sensitive(true);
            request.headers_mut().insert("x-key", secret);
            request.headers_mut().insert("x-open", HeaderValue::from_static("known"));
            let (response, _) = sender.clone().ready().await.unwrap().send_request(request, true).unwrap();
            assert_eq!(response.await.unwrap().status(), 204);
        }
    });
    for _ in 0..3 {
        let marks = told.recv().unwrap();
        assert!(
            marks.contains(&("x-key".to_owned(), true)) && marks.contains(&("x-open".to_owned(), false)),
            "{marks:?}"
        );
        assert_eq!(marks.iter().filter(|(_, marked)| *marked).count(), 1, "{marks:?}");
    }
}
