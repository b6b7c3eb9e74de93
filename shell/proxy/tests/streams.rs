//! Endpoints that take only so many streams on a connection.
mod support;

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use model::mesh::{AppProtocol, Health};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use support::{Node, curl, grpc_client, listen};

/// More than the endpoint takes on one connection.
const CROWD: usize = 40;

#[test]
fn more_streams_than_an_endpoint_takes_go_on_another_connection() {
    need_root!("more_streams_than_an_endpoint_takes_go_on_another_connection");
    let mut node = Node::start(|config| config.workers = 1);
    let (web, client) = (node.pod(6, "web"), node.pod(5, "client"));
    let came = Arc::new(tokio::sync::Barrier::new(CROWD));
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = connections.clone();
    // Nobody is answered before all are there.
    listen(&web, move |stream| {
        let (came, counted) = (came.clone(), counted.clone());
        let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
            let came = came.clone();
            async move {
                if request.uri().path() == "/all" {
                    came.wait().await;
                }
                Ok::<_, Infallible>(hyper::Response::new(Full::new(Bytes::from_static(b"here"))))
            }
        });
        async move {
            counted.fetch_add(1, Ordering::Relaxed);
            let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let _ = builder.max_concurrent_streams(8).serve_connection(TokioIo::new(stream), service).await;
        }
    });
    node.service("web", 50, AppProtocol::Http2, &[(6, Health::Ready)]);
    let first = curl(&client, &["--http2-prior-knowledge", "http://10.96.0.50/one"]);
    assert_eq!(first, "here");
    let answered = grpc_client(&client, async |sender| {
        let mut asked = Vec::new();
        for _ in 0..CROWD {
            let mut sender = sender.clone().ready().await.unwrap();
            let request = http::Request::get("http://web.default/all").body(()).unwrap();
            asked.push(sender.send_request(request, true).unwrap().0);
        }
        let mut answered = 0;
        for answer in asked {
            answered += usize::from(answer.await.unwrap().status() == 200);
        }
        answered
    });
    assert_eq!(answered, CROWD);
    assert!(connections.load(Ordering::Relaxed) >= CROWD / 8);
}
