//! One delta xDS stream.

use super::core::{Core, Stream, now};
use super::identity::Caller;
use model::Key;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use xds::discovery::{DeltaDiscoveryRequest, SharedDeltaResponse};
use xds::resources::type_url;
use xds::session::{Progress, Server};

/// About so many bytes of resources go into one response; the next waits for its answer.
const RESPONSE_LIMIT: usize = 1 << 20;
/// Responses that wait for the connection: one of each type at most is under way.
const QUEUE: usize = 16;

type Responses = ReceiverStream<Result<SharedDeltaResponse, Status>>;

/// The ADS service for one connection.
#[derive(Clone)]
pub struct Ads {
    pub core: Arc<Core>,
    pub caller: Caller,
    pub address: String,
    pub stopped: watch::Receiver<bool>,
}

impl tonic::server::StreamingService<DeltaDiscoveryRequest> for Ads {
    type Response = SharedDeltaResponse;
    type ResponseStream = Responses;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Responses>, Status>> + Send>>;

    fn call(&mut self, request: Request<Streaming<DeltaDiscoveryRequest>>) -> Self::Future {
        let ads = self.clone();
        Box::pin(async move {
            if ads.caller == Caller::Anonymous {
                return Err(Status::unauthenticated("a client certificate of a node or joined host is needed"));
            }
            let (sender, receiver) = mpsc::channel(QUEUE);
            tokio::spawn(ads.serve(request.into_inner(), sender));
            Ok(Response::new(ReceiverStream::new(receiver)))
        })
    }
}

impl Ads {
    async fn serve(
        self,
        inbound: Streaming<DeltaDiscoveryRequest>,
        outbound: mpsc::Sender<Result<SharedDeltaResponse, Status>>,
    ) {
        let mut stopped = self.stopped.clone();
        // A proxy that comes while the first configuration is being made waits for it.
        tokio::select! {
            () = self.core.ready() => {}
            _ = stopped.wait_for(|stop| *stop) => return,
            () = outbound.closed() => return,
        }
        let host = match &self.caller {
            Caller::Host { namespace, name } => Some(Key::new(namespace.as_str(), name.as_str())),
            _ => None,
        };
        let id = self.core.add_stream(Stream {
            proxy: self.caller.proxy(),
            host,
            address: self.address.clone(),
            since_s: now().as_secs(),
            progress: Vec::new(),
        });
        tracing::info!(proxy = self.caller.proxy(), address = self.address, "mesh: proxy connected");
        if let Err(status) = self.converse(id, inbound, &outbound).await {
            tracing::warn!(proxy = self.caller.proxy(), error = status.message(), "mesh: stream ended");
            let _ = outbound.try_send(Err(status));
        }
        self.core.remove_stream(id);
        tracing::info!(proxy = self.caller.proxy(), "mesh: proxy disconnected");
    }

    async fn converse(
        &self,
        id: u64,
        mut inbound: Streaming<DeltaDiscoveryRequest>,
        outbound: &mpsc::Sender<Result<SharedDeltaResponse, Status>>,
    ) -> Result<(), Status> {
        let mut session = Server::new("diolkos");
        let mut news = self.core.news();
        let mut stopped = self.stopped.clone();
        let order: Vec<&'static str> = model::mesh::ResourceKind::ALL.into_iter().map(type_url).collect();
        let is_host = matches!(self.caller, Caller::Host { .. });
        let secret = type_url(model::mesh::ResourceKind::Secret);
        // Listeners' keys go to nodes, which serve the gateways; a joined host serves none.
        let visible = move |type_url: &str, _: &str| !(is_host && type_url == secret);
        loop {
            tokio::select! {
                message = inbound.message() => match message {
                    Ok(Some(request)) => {
                        let received = session.receive(&self.core.catalog(), request);
                        received.map_err(|error| Status::invalid_argument(error.to_string()))?;
                    }
                    Ok(None) => return Ok(()),
                    // The connection broke: the proxy comes again by itself.
                    Err(_) => return Ok(()),
                },
                changed = news.changed() => if changed.is_err() { return Ok(()) },
                _ = stopped.wait_for(|stop| *stop) => {
                    return Err(Status::unavailable("mesh control is stopping"));
                }
            }
            loop {
                let response = session.next(&self.core.catalog(), &order, RESPONSE_LIMIT, &visible);
                // Noted before it is sent: what this stream was told of must not be forgotten while it is slow.
                self.note(id, &session);
                let Some(response) = response else { break };
                if outbound.send(Ok(response)).await.is_err() {
                    return Ok(());
                }
            }
        }
    }

    fn note(&self, id: u64, session: &Server) {
        let progress: Vec<Progress> = session.progress().collect();
        for refused in progress.iter().filter(|progress| progress.refusal.is_some()) {
            let message = refused.refusal.as_ref().map(|refusal| refusal.message.as_str());
            tracing::debug!(proxy = self.caller.proxy(), r#type = refused.type_url, message, "mesh: refused");
        }
        self.core.update_stream(id, progress);
    }
}
