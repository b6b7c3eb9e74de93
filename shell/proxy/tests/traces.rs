//! Traces and access logs, as collectors and people get them: one request through a gateway and two pods is one trace.
mod support;

use diolkos_proxy::access::{Format, Settings};
use diolkos_proxy::{Exporter, Tracing};
use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use model::mesh::*;
use prost::Message;
use spans::otlp::{self, ExportRequest, ExportResponse, OtlpSpan, Value};
use spans::skywalking::{self, Commands, SegmentObject};
use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use support::{Node, curl, eventually, gateway, inside, listen_in_threads, serve_http};
use tonic::server::Grpc;
use tonic_prost::ProstCodec;

const GRPC: u16 = 24317;
const HTTP: u16 = 24318;
/// Both, under TLS.
const SECURE: u16 = 24319;
const GATEWAY: u16 = 25090;

trait Link: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}

impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Link for T {}

/// What collectors were told.
#[derive(Default)]
struct Told {
    by_grpc: Vec<ExportRequest>,
    by_http: Vec<ExportRequest>,
    segments: Vec<SegmentObject>,
}

type Shared = Arc<Mutex<Told>>;
type Answer<T> = Pin<Box<dyn Future<Output = Result<tonic::Response<T>, tonic::Status>> + Send>>;

struct Collect(Shared);

impl tonic::server::UnaryService<ExportRequest> for Collect {
    type Response = ExportResponse;
    type Future = Answer<ExportResponse>;
    fn call(&mut self, request: tonic::Request<ExportRequest>) -> Self::Future {
        self.0.lock().unwrap().by_grpc.push(request.into_inner());
        Box::pin(async { Ok(tonic::Response::new(ExportResponse::default())) })
    }
}

impl tonic::server::ClientStreamingService<SegmentObject> for Collect {
    type Response = Commands;
    type Future = Answer<Commands>;
    fn call(&mut self, request: tonic::Request<tonic::Streaming<SegmentObject>>) -> Self::Future {
        let told = self.0.clone();
        Box::pin(async move {
            let mut stream = request.into_inner();
            while let Some(segment) = stream.message().await? {
                told.lock().unwrap().segments.push(segment);
            }
            Ok(tonic::Response::new(Commands::default()))
        })
    }
}

async fn answer(told: Shared, request: http::Request<hyper::body::Incoming>) -> http::Response<tonic::body::Body> {
    match request.uri().path() {
        otlp::EXPORT_PATH => {
            let request = request.map(tonic::body::Body::new);
            Grpc::new(ProstCodec::<ExportResponse, ExportRequest>::default()).unary(Collect(told), request).await
        }
        skywalking::COLLECT_PATH => {
            let request = request.map(tonic::body::Body::new);
            let mut grpc = Grpc::new(ProstCodec::<Commands, SegmentObject>::default());
            grpc.client_streaming(Collect(told), request).await
        }
        "/v1/traces" => {
            assert_eq!(request.headers()["content-type"], "application/x-protobuf");
            let body = request.into_body().collect().await.unwrap().to_bytes();
            told.lock().unwrap().by_http.push(ExportRequest::decode(body).unwrap());
            http::Response::new(tonic::body::Body::empty())
        }
        other => panic!("asked for {other}"),
    }
}

/// Collectors in the node's namespace: gRPC on one port, HTTP on the other, and both under TLS.
fn collectors(netns: &str, own: &rcgen::CertifiedKey<rcgen::KeyPair>) -> Shared {
    let told = Shared::default();
    let key = rustls::pki_types::PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_no_client_auth().with_single_cert(vec![own.cert.der().clone()], key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let (ready, started) = std::sync::mpsc::channel();
    let shared = told.clone();
    inside(netns, move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let grpc = tokio::net::TcpListener::bind(("127.0.0.1", GRPC)).await.unwrap();
            let http = tokio::net::TcpListener::bind(("127.0.0.1", HTTP)).await.unwrap();
            let secure = tokio::net::TcpListener::bind(("127.0.0.1", SECURE)).await.unwrap();
            ready.send(()).unwrap();
            loop {
                let (stream, tls) = tokio::select! {
                    it = grpc.accept() => (it.unwrap().0, false),
                    it = http.accept() => (it.unwrap().0, false),
                    it = secure.accept() => (it.unwrap().0, true),
                };
                let (told, acceptor) = (shared.clone(), acceptor.clone());
                tokio::spawn(async move {
                    let stream: Box<dyn Link> = match tls {
                        true => match acceptor.accept(stream).await {
                            Ok(stream) => Box::new(stream),
                            Err(_) => return,
                        },
                        false => Box::new(stream),
                    };
                    let service = hyper::service::service_fn(move |request| {
                        let told = told.clone();
                        async move { Ok::<_, Infallible>(answer(told, request).await) }
                    });
                    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
    });
    started.recv().unwrap();
    told
}

/// A process that asks `web` for every request, handing on what it was told of the trace.
fn serve_front(netns: &str) {
    listen_in_threads(netns, |mut stream| {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            if stream.read(&mut byte).unwrap_or(0) == 0 {
                break;
            }
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let handed = |line: &&str| {
            ["traceparent:", "sw8:", "b3:"].iter().any(|name| line.to_ascii_lowercase().starts_with(name))
        };
        let lines: String = head.lines().filter(handed).map(|line| format!("{line}\r\n")).collect();
        let mut web = TcpStream::connect("10.96.0.50:80").unwrap();
        write!(web, "GET /behind HTTP/1.1\r\nHost: web\r\nConnection: close\r\n{lines}\r\n").unwrap();
        let mut back = String::new();
        web.read_to_string(&mut back).unwrap();
        let body = back.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
    });
}

/// The node, with a chain gateway -> front -> web behind it.
fn chain(sampling: f64, to: &[String], log: Option<Settings>) -> (Node, Shared) {
    let exporters = to.iter().map(|text| Exporter::parse(text).unwrap()).collect();
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let roots = std::env::temp_dir().join(format!("dkp-traces-{}-{sampling}.pem", std::process::id()));
    std::fs::write(&roots, certified.cert.pem()).unwrap();
    let ca = Some(roots);
    let mut node = Node::start(move |config| {
        config.tracing = Tracing { exporters, sampling, ca };
        config.access_log = log;
    });
    let told = collectors(&node.net.node(), &certified);
    let (front, web) = (node.pod(5, "front"), node.pod(6, "web"));
    serve_front(&front);
    serve_http(&web, "web");
    node.service("web", 50, AppProtocol::Http, &[(6, Health::Ready)]);
    node.service("front", 51, AppProtocol::Http, &[(5, Health::Ready)]);
    node.proxy().apply(gateway(GATEWAY, "/shop", "front"));
    (node, told)
}

fn ask(node: &Node, more: &[&str]) -> String {
    let url = format!("http://127.0.0.1:{GATEWAY}/shop");
    curl(&node.net.node(), &[more, &[url.as_str()]].concat())
}

fn spans_of(requests: &[ExportRequest]) -> Vec<(String, OtlpSpan)> {
    let service = |of: &otlp::ResourceSpans| {
        let of = of.resource.as_ref().unwrap();
        let name = of.attributes.iter().find(|it| it.key == "service.name").unwrap();
        match name.value.as_ref().unwrap().value.as_ref().unwrap() {
            Value::Text(text) => text.clone(),
            other => panic!("{other:?}"),
        }
    };
    let each = requests.iter().flat_map(|it| &it.resource_spans);
    each.flat_map(|it| {
        let name = service(it);
        it.scope_spans.iter().flat_map(|it| &it.spans).map(move |span| (name.clone(), span.clone()))
    })
    .collect()
}

/// The spans from the one without a parent among them on, each the cause of the next.
fn chained(spans: &[(String, OtlpSpan)], root: &[u8]) -> Vec<(String, i32)> {
    let (mut found, mut parent) = (Vec::new(), root.to_vec());
    while let Some((service, span)) = spans.iter().find(|(_, span)| span.parent_span_id == parent) {
        found.push((service.clone(), span.kind));
        parent = span.span_id.clone();
    }
    found
}

#[test]
fn a_request_is_one_trace() {
    need_root!("a_request_is_one_trace");
    let to = [
        format!("otlp+grpc://127.0.0.1:{GRPC}"),
        format!("otlp+http://127.0.0.1:{HTTP}"),
        format!("skywalking://127.0.0.1:{GRPC}"),
    ];
    let (node, told) = chain(1.0, &to, None);
    eventually("the gateway answers", || {
        ask(&node, &["-H", "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"])
            .starts_with("web GET /behind")
    });
    // What the caller decided not to record is not recorded.
    std::thread::sleep(std::time::Duration::from_millis(1500));
    assert!(told.lock().unwrap().by_grpc.is_empty());
    let parent = "00f067aa0ba902b7";
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    ask(&node, &["-H", &format!("traceparent: 00-{trace}-{parent}-01")]);
    let expect = [("edge", 2), ("front", 2), ("front", 3), ("web", 2)].map(|(name, kind)| (name.to_owned(), kind));
    let root = u64::from_str_radix(parent, 16).unwrap().to_be_bytes();
    for which in ["grpc", "http"] {
        let spans = || {
            let told = told.lock().unwrap();
            spans_of(if which == "grpc" { &told.by_grpc } else { &told.by_http })
        };
        eventually(&format!("a whole trace by {which}"), || chained(&spans(), &root) == expect);
        let id = u128::from_str_radix(trace, 16).unwrap().to_be_bytes();
        assert!(
            spans().iter().all(|(_, span)| span.trace_id == id && span.end_time_unix_nano > span.start_time_unix_nano)
        );
    }
    // The same hops in SkyWalking's order: each segment names the one before.
    eventually("segments that refer to each other", || {
        let told = told.lock().unwrap();
        let from = |service: &str| -> Vec<String> {
            let of = told.segments.iter().filter(|it| it.service == service);
            let refs = of.flat_map(|it| it.spans.iter().flat_map(|span| &span.refs));
            let mut from: Vec<String> = refs.map(|it| it.service.clone()).collect();
            from.sort();
            from
        };
        from("front.default") == ["edge.default", "front.default"] && from("web.default") == ["front.default"]
    });
    let segments = told.lock().unwrap().segments.clone();
    assert!(segments.iter().all(|it| it.trace_id == segments[0].trace_id));
    // A trace of Zipkin's, and one that begins here.
    told.lock().unwrap().by_grpc.clear();
    ask(&node, &["-H", "b3: 80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1"]);
    let root = 0xe457_b5a2_e4d8_6bd1_u64.to_be_bytes();
    eventually("a trace of b3", || chained(&spans_of(&told.lock().unwrap().by_grpc), &root) == expect);
    told.lock().unwrap().by_grpc.clear();
    ask(&node, &[]);
    eventually("a trace that begins here", || chained(&spans_of(&told.lock().unwrap().by_grpc), &[]) == expect);
}

#[test]
fn a_collector_that_is_away_costs_no_request() {
    need_root!("a_collector_that_is_away_costs_no_request");
    let (node, _) = chain(1.0, &["otlp+grpc://127.0.0.1:24000".to_owned()], None);
    eventually("the gateway answers", || ask(&node, &[]).starts_with("web GET"));
    for _ in 0..20 {
        assert!(ask(&node, &[]).starts_with("web GET"));
    }
    eventually("lost spans are counted", || {
        let text = node.proxy().shared.tracer.prometheus();
        let failed = text.lines().find_map(|line| line.strip_prefix("diolkos_proxy_spans_total{result=\"failed\"} "));
        failed.and_then(|count| count.parse::<u64>().ok()).is_some_and(|count| count >= 4)
    });
}

#[test]
fn requests_are_logged_as_they_are_wished() {
    need_root!("requests_are_logged_as_they_are_wished");
    let dir = std::env::temp_dir().join(format!("diolkos-access-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let text = "%REQ(:METHOD)% %REQ(:PATH)% %PROTOCOL% %RESPONSE_CODE% %RESPONSE_FLAGS% \"%REQ(USER-AGENT):4%\" %UPSTREAM_HOST% %UPSTREAM_CLUSTER% %RESP(X-SERVER)% %DOWNSTREAM_PEER_URI_SAN% %BYTES_SENT%";
    for (form, expect) in [
        (
            text,
            &[
                "GET /shop HTTP/1.1 200 - \"curl\" 10.250.0.5:8080 default/front - - ",
                "GET /behind HTTP/1.1 200 - \"-\" 10.250.0.6:8080 default/web web - ",
                "GET /behind HTTP/1.1 200 - \"-\" 10.250.0.6:8080 - web spiffe://cluster.local/ns/default/sa/front ",
                "GET /none HTTP/1.1 404 NR ",
            ][..],
        ),
        (
            "json",
            &[
                "\"path\":\"/shop\",",
                "\"status\":200,",
                "\"caller\":\"spiffe://cluster.local/ns/default/sa/front\"",
                "\"details\":\"via_upstream\"",
                "\"flags\":\"NR\"",
            ],
        ),
    ] {
        let file = dir.join("log");
        let _ = std::fs::remove_file(&file);
        let settings = Settings { format: Format::parse(form).unwrap(), file: Some(file.clone()) };
        let (node, _) = chain(0.0, &[], Some(settings));
        eventually("the gateway answers", || ask(&node, &[]).starts_with("web GET /behind"));
        curl(&node.net.node(), &[&format!("http://127.0.0.1:{GATEWAY}/none")]);
        eventually("all lines are written", || {
            let log = std::fs::read_to_string(&file).unwrap_or_default();
            expect.iter().all(|part| log.contains(part))
        });
    }
    let _ = std::fs::remove_dir_all(&dir);
}

#[test]
fn collectors_under_tls_prove_their_names() {
    need_root!("collectors_under_tls_prove_their_names");
    let to = ["otlp+grpcs", "otlp+https", "skywalkings"].map(|scheme| format!("{scheme}://localhost:{SECURE}"));
    // The same collector by a name that its certificate is not for.
    let wrong = format!("otlp+https://127.0.0.1:{SECURE}/v1/never");
    let (node, told) = chain(1.0, &[&to[..], &[wrong]].concat(), None);
    eventually("the gateway answers", || ask(&node, &[]).contains("GET /behind"));
    eventually("all three were told", || {
        let told = told.lock().unwrap();
        !told.by_grpc.is_empty() && !told.by_http.is_empty() && !told.segments.is_empty()
    });
}
