//! One xDS stream, delta or state of the world.

use super::core::{Core, Stream, now};
use super::envoy::Role;
use super::identity::Caller;
use model::Key;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use xds::discovery::{DeltaDiscoveryRequest, DiscoveryRequest, DiscoveryResponse, Node, SharedDeltaResponse};
use xds::envoy::types;
use xds::resources::type_url;
use xds::session::{Progress, Server, SessionError, WholeServer};

/// About so many bytes of resources go into one response; the next waits for its answer.
const RESPONSE_LIMIT: usize = 1 << 20;
/// Responses that wait for the connection: one of each type at most is under way.
const QUEUE: usize = 16;

type Responses<T> = ReceiverStream<Result<T, Status>>;

/// The ADS service for one connection.
#[derive(Clone)]
pub struct Ads {
    pub core: Arc<Core>,
    pub caller: Caller,
    pub address: String,
    pub stopped: watch::Receiver<bool>,
}

/// The same, state of the world.
#[derive(Clone)]
pub struct Whole(pub Ads);

impl tonic::server::StreamingService<DeltaDiscoveryRequest> for Ads {
    type Response = SharedDeltaResponse;
    type ResponseStream = Responses<SharedDeltaResponse>;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Self::ResponseStream>, Status>> + Send>>;

    fn call(&mut self, request: Request<Streaming<DeltaDiscoveryRequest>>) -> Self::Future {
        let session = Delta { own: Server::new("diolkos"), envoy: Server::new("diolkos"), view: self.view() };
        Box::pin(self.clone().begin(request.into_inner(), session))
    }
}

impl tonic::server::StreamingService<DiscoveryRequest> for Whole {
    type Response = DiscoveryResponse;
    type ResponseStream = Responses<DiscoveryResponse>;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Self::ResponseStream>, Status>> + Send>>;

    fn call(&mut self, request: Request<Streaming<DiscoveryRequest>>) -> Self::Future {
        let session = StateOfTheWorld { session: WholeServer::new("diolkos"), view: self.0.view() };
        Box::pin(self.0.clone().begin(request.into_inner(), session))
    }
}

/// What a client may see.
struct Sight {
    /// Who it is to Envoy's types; not known before its first request.
    role: Option<Role>,
    /// Listeners' keys go to nodes, which serve the gateways; a joined host serves none.
    secrets: bool,
}

impl Sight {
    fn of(&self, of: &str, name: &str) -> bool {
        let is_secret = of == types::SECRET || of == type_url(model::mesh::ResourceKind::Secret);
        (self.secrets || !is_secret) && self.role.as_ref().is_none_or(|role| role.sees(of, name))
    }
}

/// A protocol's half of a stream.
trait Session: Send + 'static {
    type Request: Send + 'static;
    type Response: Send + 'static;
    fn node(request: &Self::Request) -> Option<&Node>;
    fn sight(&mut self) -> &mut Sight;
    fn receive(&mut self, core: &Core, request: Self::Request) -> Result<(), SessionError>;
    fn next(&mut self, core: &Core) -> Option<Self::Response>;
    fn progress(&self) -> Vec<Progress>;
}

struct Delta {
    /// Our own types.
    own: Server,
    /// Envoy's.
    envoy: Server,
    view: Sight,
}

fn own_types() -> Vec<&'static str> {
    model::mesh::ResourceKind::ALL.into_iter().map(type_url).collect()
}

impl Session for Delta {
    type Request = DeltaDiscoveryRequest;
    type Response = SharedDeltaResponse;

    fn node(request: &Self::Request) -> Option<&Node> {
        request.node.as_ref()
    }

    fn sight(&mut self) -> &mut Sight {
        &mut self.view
    }

    fn receive(&mut self, core: &Core, request: Self::Request) -> Result<(), SessionError> {
        if types::ALL.contains(&request.type_url.as_str()) {
            core.envoy(|catalog| self.envoy.receive(catalog, request))
        } else {
            self.own.receive(&core.catalog(), request)
        }
    }

    fn next(&mut self, core: &Core) -> Option<Self::Response> {
        let visible = |of: &str, name: &str| self.view.of(of, name);
        if self.own.progress().next().is_some()
            && let Some(response) = self.own.next(&core.catalog(), &own_types(), RESPONSE_LIMIT, &visible)
        {
            return Some(response);
        }
        self.envoy.progress().next()?;
        core.envoy(|catalog| self.envoy.next(catalog, &types::ALL, RESPONSE_LIMIT, &visible))
    }

    fn progress(&self) -> Vec<Progress> {
        self.own.progress().chain(self.envoy.progress()).collect()
    }
}

struct StateOfTheWorld {
    session: WholeServer,
    view: Sight,
}

impl Session for StateOfTheWorld {
    type Request = DiscoveryRequest;
    type Response = DiscoveryResponse;

    fn node(request: &Self::Request) -> Option<&Node> {
        request.node.as_ref()
    }

    fn sight(&mut self) -> &mut Sight {
        &mut self.view
    }

    fn receive(&mut self, core: &Core, request: Self::Request) -> Result<(), SessionError> {
        core.envoy(|catalog| self.session.receive(catalog, request))
    }

    fn next(&mut self, core: &Core) -> Option<Self::Response> {
        let visible = |of: &str, name: &str| self.view.of(of, name);
        core.envoy(|catalog| self.session.next(catalog, &types::ALL, &visible))
    }

    fn progress(&self) -> Vec<Progress> {
        self.session.progress().collect()
    }
}

impl Ads {
    fn view(&self) -> Sight {
        Sight { role: None, secrets: !matches!(self.caller, Caller::Host { .. }) }
    }

    async fn begin<S: Session>(
        self,
        inbound: Streaming<S::Request>,
        session: S,
    ) -> Result<Response<Responses<S::Response>>, Status> {
        if self.caller == Caller::Anonymous {
            return Err(Status::unauthenticated("a client certificate of a node or joined host is needed"));
        }
        let (sender, receiver) = mpsc::channel(QUEUE);
        tokio::spawn(self.serve(inbound, sender, session));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn serve<S: Session>(
        self,
        inbound: Streaming<S::Request>,
        outbound: mpsc::Sender<Result<S::Response, Status>>,
        session: S,
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
        if let Err(status) = self.converse(id, inbound, &outbound, session).await {
            tracing::warn!(proxy = self.caller.proxy(), error = status.message(), "mesh: stream ended");
            let _ = outbound.try_send(Err(status));
        }
        self.core.remove_stream(id);
        tracing::info!(proxy = self.caller.proxy(), "mesh: proxy disconnected");
    }

    async fn converse<S: Session>(
        &self,
        id: u64,
        mut inbound: Streaming<S::Request>,
        outbound: &mpsc::Sender<Result<S::Response, Status>>,
        mut session: S,
    ) -> Result<(), Status> {
        let mut news = self.core.news();
        let mut stopped = self.stopped.clone();
        loop {
            tokio::select! {
                message = inbound.message() => match message {
                    Ok(Some(request)) => {
                        self.meet(id, S::node(&request), session.sight());
                        let received = session.receive(&self.core, request);
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
                let response = session.next(&self.core);
                // Noted before it is sent: what this stream was told of must not be forgotten while it is slow.
                self.note(id, session.progress());
                let Some(response) = response else { break };
                if outbound.send(Ok(response)).await.is_err() {
                    return Ok(());
                }
            }
        }
    }

    /// The first request says who an Envoy or gRPC client is; our own proxies are known by their certificate.
    fn meet(&self, id: u64, node: Option<&Node>, sight: &mut Sight) {
        let Some(node) = node.filter(|node| sight.role.is_none() && !node.user_agent_name.is_empty()) else { return };
        sight.role = Some(Role::of(Some(node)));
        self.core.name_stream(id, format!("{} {} at {}", node.user_agent_name, node.id, self.caller.proxy()));
    }

    fn note(&self, id: u64, progress: Vec<Progress>) {
        for refused in progress.iter().filter(|progress| progress.refusal.is_some()) {
            let message = refused.refusal.as_ref().map(|refusal| refusal.message.as_str());
            tracing::debug!(proxy = self.caller.proxy(), r#type = refused.type_url, message, "mesh: refused");
        }
        self.core.update_stream(id, progress);
    }
}
