//! A gRPC connection of the proxy's own, whatever is under it: clones share it.
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

/// One HTTP/2 connection, as what tonic's clients call.
#[derive(Clone, Debug)]
pub struct Channel {
    sender: SendRequest<tonic::body::Body>,
}

impl Channel {
    /// How connections begin: a peer that went away is noticed within twice `keep_alive`.
    pub fn builder(keep_alive: Duration) -> Builder<TokioExecutor> {
        let mut builder = Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new()).keep_alive_interval(keep_alive).keep_alive_timeout(keep_alive);
        builder
    }

    /// Begins one; `whose` is what it leads to, for the log.
    ///
    /// # Errors
    /// The peer speaks no HTTP/2, or went away.
    pub async fn open(
        builder: &Builder<TokioExecutor>,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        whose: &'static str,
    ) -> hyper::Result<Self> {
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, whose, "a connection ended");
            }
        });
        Ok(Self { sender })
    }

    /// Whether calls on it can only fail.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

impl tower::Service<http::Request<tonic::body::Body>> for Channel {
    type Response = http::Response<hyper::body::Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.sender.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        Box::pin(self.sender.send_request(request))
    }
}
