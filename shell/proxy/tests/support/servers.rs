//! Processes of pods: each listens on port 8080 in a namespace, and is there when its function returns. And a client.
use super::inside;
use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

/// Serves each connection in a task of its own.
pub fn listen<F>(netns: &str, serve: impl Fn(tokio::net::TcpStream) -> F + Send + 'static)
where
    F: Future<Output = ()> + Send + 'static,
{
    let (ready, started) = std::sync::mpsc::channel();
    inside(netns, move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::bind("0.0.0.0:8080").await.unwrap();
            ready.send(()).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream));
            }
        });
    });
    started.recv().unwrap();
}

/// Serves each connection in a thread of its own.
pub fn listen_in_threads(netns: &str, serve: impl Fn(std::net::TcpStream) + Send + Sync + 'static) {
    let (ready, started) = std::sync::mpsc::channel();
    let serve = Arc::new(serve);
    inside(netns, move || {
        let listener = std::net::TcpListener::bind("0.0.0.0:8080").unwrap();
        ready.send(()).unwrap();
        for stream in listener.incoming().flatten() {
            let serve = serve.clone();
            std::thread::spawn(move || serve(stream));
        }
    });
    started.recv().unwrap();
}

/// An answer.
pub type Answer = hyper::Response<BoxBody<Bytes, Infallible>>;

/// An HTTP server (1.1 and 2).
pub fn serve_requests<F>(netns: &str, answer: impl Fn(hyper::Request<Incoming>) -> F + Send + Sync + 'static)
where
    F: Future<Output = Answer> + Send + 'static,
{
    let answer = Arc::new(answer);
    listen(netns, move |stream| {
        let answer = answer.clone();
        let service = service_fn(move |request| {
            let answer = answer(request);
            async move { Ok::<_, Infallible>(answer.await) }
        });
        async move {
            let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            let _ = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
        }
    });
}

/// It answers with a line that says what it got: name, method, target, the identity that its proxy vouches for, and the body's length.
pub fn serve_http(netns: &str, name: &str) {
    let name = name.to_owned();
    serve_requests(netns, move |request| echo(name.clone(), request));
}

async fn echo(name: String, request: hyper::Request<Incoming>) -> Answer {
    let (parts, body) = request.into_parts();
    let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("-").to_owned();
    let (identity, extra) = (header("x-forwarded-client-cert"), header("x-extra"));
    let length = body.collect().await.map_or(0, |body| body.to_bytes().len());
    let target = parts.uri.path_and_query().map_or("/", |it| it.as_str());
    if let Some(status) = target.strip_prefix("/status/").and_then(|code| code.parse().ok()) {
        return hyper::Response::builder().status::<u16>(status).body(Full::from("status\n").boxed()).unwrap();
    }
    if target.starts_with("/slow") {
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    if target.starts_with("/chunks") {
        // No length: chunks in HTTP/1.1.
        let pieces = futures_util::stream::unfold(0, |number| async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let frame = Frame::data(Bytes::from(format!("piece {number}\n")));
            (number < 3).then_some((Ok(frame), number + 1))
        });
        return hyper::Response::new(StreamBody::new(pieces).boxed());
    }
    if let Some(size) = target.strip_prefix("/bytes/").and_then(|size| size.parse().ok()) {
        return hyper::Response::new(Full::from(vec![b'x'; size]).boxed());
    }
    let line = format!(
        "{name} {} {target} host={} version={:?} identity={identity} extra={extra} length={length} trace={} forwarded={}\n",
        parts.method,
        header("host"),
        parts.version,
        header("traceparent") != "-",
        header("x-forwarded-for"),
    );
    hyper::Response::builder().header("x-server", name).body(Full::from(line).boxed()).unwrap()
}

/// It sends back what it gets, and ends when its client ends.
pub fn serve_tcp(netns: &str) {
    listen_in_threads(netns, |stream| {
        let (mut read, mut write) = (&stream, &stream);
        let _ = std::io::copy(&mut read, &mut write);
        let _ = stream.shutdown(std::net::Shutdown::Write);
    });
}

/// What a gRPC server answers to a message.
type Answering<Q, A> = dyn Fn(Q) -> Result<A, tonic::Status> + Send + Sync;

struct Unary<Q, A>(Arc<Answering<Q, A>>);

impl<Q, A> tonic::server::UnaryService<Q> for Unary<Q, A> {
    type Response = A;
    type Future = std::future::Ready<Result<tonic::Response<A>, tonic::Status>>;
    fn call(&mut self, request: tonic::Request<Q>) -> Self::Future {
        std::future::ready((self.0)(request.into_inner()).map(tonic::Response::new))
    }
}

/// A gRPC server with one method.
pub fn serve_grpc<Q, A>(
    netns: &str,
    path: &'static str,
    answer: impl Fn(Q) -> Result<A, tonic::Status> + Send + Sync + 'static,
) where
    Q: prost::Message + Default + 'static,
    A: prost::Message + Default + 'static,
{
    let answer: Arc<Answering<Q, A>> = Arc::new(answer);
    listen(netns, move |stream| {
        let answer = answer.clone();
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            let answer = Unary(answer.clone());
            async move {
                assert_eq!(request.uri().path(), path);
                let codec = tonic_prost::ProstCodec::<A, Q>::default();
                Ok::<_, Infallible>(tonic::server::Grpc::new(codec).unary(answer, request).await)
            }
        });
        async move {
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        }
    });
}

/// What a client in a namespace does with a connection in HTTP/2 to the service at 10.96.0.50, within 10 s.
pub fn grpc_client<T: Send + 'static>(
    netns: &str,
    work: impl AsyncFnOnce(h2::client::SendRequest<Bytes>) -> T + Send + 'static,
) -> T {
    let thread = inside(netns, move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let stream = tokio::net::TcpStream::connect(super::socket(50)).await.unwrap();
            let (sender, connection) = h2::client::handshake(stream).await.unwrap();
            tokio::spawn(connection);
            tokio::time::timeout(Duration::from_secs(10), work(sender)).await.expect("in time")
        })
    });
    thread.join().unwrap()
}
