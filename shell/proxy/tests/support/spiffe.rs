//! A client of the SPIFFE Workload API.
use diolkos_proxy::mesh::Change;
use hyper_util::rt::{TokioExecutor, TokioIo};
use model::mesh::{Resource, TrustBundle};
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tonic::{Request, Status};
use tonic_prost::ProstCodec;
use xds::workload_api::SECURITY_HEADER;

/// One connection to a Workload API.
#[derive(Clone)]
pub struct Peer(hyper::client::conn::http2::SendRequest<tonic::body::Body>);

impl tower::Service<http::Request<tonic::body::Body>> for Peer {
    type Response = http::Response<hyper::body::Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, hyper::Error>> + Send>>;
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        Poll::Ready(Ok(()))
    }
    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

impl Peer {
    /// Connects to a socket.
    pub async fn connect(path: &Path) -> Peer {
        let stream = tokio::net::UnixStream::connect(path).await.unwrap();
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Peer(sender)
    }

    /// A request with the header that the specification wants.
    pub fn request<T>(message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert(SECURITY_HEADER, "true".parse().unwrap());
        request
    }

    /// A call with a stream of answers.
    pub async fn stream<Q, R>(&self, path: &'static str, request: Request<Q>) -> Result<tonic::Streaming<R>, Status>
    where
        Q: prost::Message + Default + 'static,
        R: prost::Message + Default + 'static,
    {
        let mut grpc = tonic::client::Grpc::with_origin(self.clone(), http::Uri::from_static("http://localhost"));
        let answer = grpc.server_streaming(request, path.parse().unwrap(), ProstCodec::<Q, R>::default()).await?;
        Ok(answer.into_inner())
    }

    /// A call with one answer.
    pub async fn unary<Q, R>(&self, path: &'static str, request: Q) -> Result<R, Status>
    where
        Q: prost::Message + Default + 'static,
        R: prost::Message + Default + 'static,
    {
        let mut grpc = tonic::client::Grpc::with_origin(self.clone(), http::Uri::from_static("http://localhost"));
        let answer = grpc.unary(Self::request(request), path.parse().unwrap(), ProstCodec::<Q, R>::default()).await?;
        Ok(answer.into_inner())
    }
}

/// Tells a trust domain's root.
pub fn bundle(domain: &str, root: &str) -> Change {
    Change::Set(Resource::TrustBundle(Arc::new(TrustBundle {
        trust_domain: domain.into(),
        roots: vec![root.into()],
        jwks: r#"{"keys":[]}"#.into(),
    })))
}
