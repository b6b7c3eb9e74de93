//! The port that SkyWalking's language agents report to (gRPC, protocol version 3): segments and heartbeats are taken, meters, logs and profiles are
//! answered properly and forgotten.

use super::{Telemetry, lock};
use crate::executor::now;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use scaling::Peer;
use spans::skywalking::{self as wire, Commands, Ignored, InstancePing, InstanceProperties, SegmentObject};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tonic::server::{ClientStreamingService, Grpc, UnaryService};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

/// Where agents report, and what they must know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Plain text, as agents speak by default.
    pub listen: SocketAddr,
    /// What agents show as `authentication` (their `SW_AGENT_AUTHENTICATION`); none: everybody may report.
    pub token: Option<String>,
}

/// Connections at once; further ones wait.
const CONNECTIONS: usize = 4_096;
const STREAMS: u32 = 64;
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));

/// A bound port.
pub struct Port {
    listener: TcpListener,
    handler: Handler,
}

impl Port {
    /// Takes the port.
    ///
    /// # Errors
    /// It is another's.
    pub async fn bind(config: Config, telemetry: Arc<Telemetry>) -> std::io::Result<Port> {
        let listener = TcpListener::bind(config.listen).await?;
        Ok(Port { listener, handler: Handler { telemetry, token: config.token.map(Arc::from) } })
    }

    /// Serves until told to stop.
    pub async fn run(self, mut stopped: watch::Receiver<bool>) {
        let permits = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let Ok(permit) = permits.clone().acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                _ = stopped.wait_for(|stop| *stop) => return,
            };
            match accepted {
                Ok((stream, _)) => {
                    let handler = self.handler.clone();
                    let mut stopped = stopped.clone();
                    tokio::spawn(async move {
                        tokio::select! {
                            () = handler.serve(stream) => {}
                            _ = stopped.wait_for(|stop| *stop) => {}
                        }
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "agents: accept failed");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

#[derive(Clone)]
struct Handler {
    telemetry: Arc<Telemetry>,
    token: Option<Arc<str>>,
}

impl Handler {
    async fn serve(self, stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        let service = hyper::service::service_fn(move |request| {
            let handler = self.clone();
            async move { Ok::<_, Infallible>(handler.handle(request).await) }
        });
        let mut server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        server.timer(TokioTimer::new());
        server.keep_alive_interval(KEEP_ALIVE.0).keep_alive_timeout(KEEP_ALIVE.1).max_concurrent_streams(STREAMS);
        if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
            tracing::debug!(%error, "agents: connection ended");
        }
    }

    async fn handle(self, request: http::Request<Incoming>) -> http::Response<tonic::body::Body> {
        if !self.knows(&request) {
            return Status::unauthenticated("the authentication is not the one that is configured here").into_http();
        }
        let request = request.map(tonic::body::Body::new);
        let path = request.uri().path().to_owned();
        match path.as_str() {
            wire::COLLECT_PATH => Grpc::new(ProstCodec::default()).client_streaming(Segments(self), request).await,
            wire::COLLECT_IN_SYNC_PATH => Grpc::new(ProstCodec::default()).unary(Segments(self), request).await,
            wire::PROPERTIES_PATH => Grpc::new(ProstCodec::default()).unary(Introduction(self), request).await,
            wire::KEEP_ALIVE_PATH => Grpc::new(ProstCodec::default()).unary(Beat(self), request).await,
            path if wire::IGNORED_STREAMS.contains(&path) => {
                Grpc::new(ProstCodec::default()).client_streaming(Forget, request).await
            }
            path if wire::IGNORED_CALLS.contains(&path) => {
                Grpc::new(ProstCodec::default()).unary(Forget, request).await
            }
            other => Status::unimplemented(format!("there is no {other} here")).into_http(),
        }
    }

    /// Compared without telling by the time it takes how much of it was right.
    fn knows(&self, request: &http::Request<Incoming>) -> bool {
        let Some(token) = &self.token else { return true };
        let shown = request.headers().get("authentication").map_or(&b""[..], |value| value.as_bytes());
        let differs = token.bytes().zip(shown).fold(token.len() ^ shown.len(), |sum, (a, b)| sum | usize::from(a ^ b));
        differs == 0
    }
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<Commands>, Status>> + Send>>;

fn done() -> Answer {
    Box::pin(async { Ok(Response::new(Commands::default())) })
}

struct Segments(Handler);

impl ClientStreamingService<SegmentObject> for Segments {
    type Response = Commands;
    type Future = Answer;
    fn call(&mut self, request: Request<Streaming<SegmentObject>>) -> Answer {
        let telemetry = self.0.telemetry.clone();
        Box::pin(async move {
            let mut stream = request.into_inner();
            while let Some(segment) = stream.message().await? {
                lock(&telemetry.agents).take(&segment);
            }
            Ok(Response::new(Commands::default()))
        })
    }
}

impl UnaryService<wire::SegmentCollection> for Segments {
    type Response = Commands;
    type Future = Answer;
    fn call(&mut self, request: Request<wire::SegmentCollection>) -> Answer {
        let mut agents = lock(&self.0.telemetry.agents);
        request.get_ref().segments.iter().for_each(|segment| agents.take(segment));
        done()
    }
}

struct Introduction(Handler);

impl UnaryService<InstanceProperties> for Introduction {
    type Response = Commands;
    type Future = Answer;
    fn call(&mut self, request: Request<InstanceProperties>) -> Answer {
        let telemetry = &self.0.telemetry;
        let mut agents = lock(&telemetry.agents);
        agents.introduce(request.get_ref(), now().0, |pods| telemetry.workload_of(pods));
        done()
    }
}

struct Beat(Handler);

impl UnaryService<InstancePing> for Beat {
    type Response = Commands;
    type Future = Answer;
    fn call(&mut self, request: Request<InstancePing>) -> Answer {
        let ping = request.get_ref();
        lock(&self.0.telemetry.agents).beat(&ping.service, &ping.instance, now().0);
        done()
    }
}

struct Forget;

impl ClientStreamingService<Ignored> for Forget {
    type Response = Commands;
    type Future = Answer;
    fn call(&mut self, request: Request<Streaming<Ignored>>) -> Answer {
        Box::pin(async move {
            let mut stream = request.into_inner();
            while stream.message().await?.is_some() {}
            Ok(Response::new(Commands::default()))
        })
    }
}

impl UnaryService<Ignored> for Forget {
    type Response = Commands;
    type Future = Answer;
    fn call(&mut self, _: Request<Ignored>) -> Answer {
        done()
    }
}

impl Telemetry {
    /// The workload of the pod that has one of these names, if it is the only such pod.
    fn workload_of(&self, names: &[&str]) -> Option<Peer> {
        let control = self.control();
        let mut pods = control.world().pods.values().filter(|pod| names.contains(&&*pod.meta.key.name));
        let pod = pods.next().filter(|_| pods.next().is_none())?;
        Some(Peer { namespace: pod.meta.key.namespace.clone(), workload: super::routes::workload(&control, pod) })
    }
}
