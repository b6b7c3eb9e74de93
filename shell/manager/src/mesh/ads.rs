//! One xDS stream, delta or state of the world.

use super::certificates::Certificates;
use super::core::{Core, Stream, now};
use super::envoy::{Audience, Claim, Role, Secrets};
use super::hosts;
use super::identity::Caller;
use model::Key;
use prost::Message;
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
        let server = || Server::new("diolkos");
        let session = Delta { own: server(), envoy: server(), secrets: server(), view: self.view() };
        Box::pin(self.clone().begin(request.into_inner(), session))
    }
}

impl tonic::server::StreamingService<DiscoveryRequest> for Whole {
    type Response = DiscoveryResponse;
    type ResponseStream = Responses<DiscoveryResponse>;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Self::ResponseStream>, Status>> + Send>>;

    fn call(&mut self, request: Request<Streaming<DiscoveryRequest>>) -> Self::Future {
        let server = || WholeServer::new("diolkos");
        let session = StateOfTheWorld { session: server(), secrets: server(), view: self.0.view() };
        Box::pin(self.0.clone().begin(request.into_inner(), session))
    }
}

/// What a client may see.
struct Sight {
    /// Who it is to Envoy's types; not known before its first request.
    role: Option<Role>,
    /// To which kind it belongs.
    audience: Audience,
    /// Listeners' keys go to nodes, which serve the gateways; a joined host serves none.
    secrets: bool,
    /// What it alone is told.
    own: Secrets,
}

impl Sight {
    fn of(&self, of: &str, name: &str) -> bool {
        let is_secret = of == types::SECRET || of == type_url(model::mesh::ResourceKind::Secret);
        (self.secrets || !is_secret) && self.role.as_ref().is_none_or(|role| role.sees(of, name))
    }

    /// It is of another audience by now; who comes again is told what that is.
    fn is_stale(&self, core: &Core, caller: &Caller) -> bool {
        let stale = |role| self.audience.is_stale(core, caller, role, self.own.claimed());
        self.role.as_ref().is_some_and(stale)
    }

    /// Brings what it alone is told up to date.
    fn refresh(&mut self, ads: &Ads) {
        let certificates = Certificates { core: ads.core.clone(), caller: ads.caller.clone() };
        let (secrets, audience) = (self.secrets, &self.audience);
        self.own.refresh(&certificates, |name| {
            let change = ads.core.envoy(audience, |catalog| catalog.get(types::SECRET, name)).filter(|_| secrets)?;
            Some(xds::discovery::Resource::decode(change.encoded?).ok()?.resource?.value)
        });
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
    /// Envoy's secrets.
    secrets: Server,
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
        if request.type_url == types::SECRET {
            self.view.own.leave(&request.resource_names_unsubscribe);
            self.view.own.want(&request.resource_names_subscribe);
            self.secrets.receive(self.view.own.catalog(), request)
        } else if types::ALL.contains(&request.type_url.as_str()) {
            core.envoy(&self.view.audience, |catalog| self.envoy.receive(catalog, request))
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
        if self.envoy.progress().next().is_some() {
            let next = |catalog: &_| self.envoy.next(catalog, &types::SHARED, RESPONSE_LIMIT, &visible);
            if let Some(response) = core.envoy(&self.view.audience, next) {
                return Some(response);
            }
        }
        self.secrets.next(self.view.own.catalog(), &[types::SECRET], RESPONSE_LIMIT, &|_, _| true)
    }

    fn progress(&self) -> Vec<Progress> {
        self.own.progress().chain(self.envoy.progress()).chain(self.secrets.progress()).collect()
    }
}

struct StateOfTheWorld {
    session: WholeServer,
    /// Envoy's secrets.
    secrets: WholeServer,
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
        if request.type_url == types::SECRET {
            // Each request names all that is wanted. (An answer to what was superseded does too.)
            self.view.own.want_only(&request.resource_names);
            return self.secrets.receive(self.view.own.catalog(), request);
        }
        core.envoy(&self.view.audience, |catalog| self.session.receive(catalog, request))
    }

    fn next(&mut self, core: &Core) -> Option<Self::Response> {
        let visible = |of: &str, name: &str| self.view.of(of, name);
        let next = |catalog: &_| self.session.next(catalog, &types::SHARED, &visible);
        core.envoy(&self.view.audience, next)
            .or_else(|| self.secrets.next(self.view.own.catalog(), &[types::SECRET], &|_, _| true))
    }

    fn progress(&self) -> Vec<Progress> {
        self.session.progress().chain(self.secrets.progress()).collect()
    }
}

impl Ads {
    fn view(&self) -> Sight {
        let secrets = !matches!(self.caller, Caller::Host { .. });
        Sight { role: None, audience: Audience::default(), secrets, own: Secrets::new() }
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
        if !self.core.soon(|| hosts::is_current(&self.core, &self.caller)).await {
            tracing::warn!(proxy = self.caller.proxy(), address = self.address, "mesh: stream refused: no such host");
            let _ = outbound.try_send(Err(hosts::put_out()));
            return;
        }
        let host = match &self.caller {
            Caller::Host { namespace, name, .. } => Some(Key::new(namespace.as_str(), name.as_str())),
            _ => None,
        };
        let id = self.core.add_stream(Stream {
            proxy: self.caller.proxy(),
            host,
            audience: None,
            serves: None,
            address: self.address.clone(),
            since_s: now().as_secs(),
            progress: Vec::new(),
        });
        tracing::info!(proxy = self.caller.proxy(), address = self.address, "mesh: proxy connected");
        let ended = tokio::select! {
            ended = self.converse(id, inbound, &outbound, session) => ended,
            () = hosts::until_put_out(&self.core, &self.caller) => Err(hosts::put_out()),
        };
        if let Err(status) = ended {
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
            let due = session.sight().own.due();
            let renewal = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = renewal => {}
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
                changed = news.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    if session.sight().is_stale(&self.core, &self.caller) {
                        return Err(Status::unavailable("it is another gateway or caller now: come again"));
                    }
                }
                _ = stopped.wait_for(|stop| *stop) => {
                    return Err(Status::unavailable("mesh control is stopping"));
                }
            }
            session.sight().refresh(self);
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
        let role = Role::of(&self.caller, Some(node));
        let claim = Claim::of(&self.caller, &role, Some(node));
        sight.audience = Audience::of(&self.core, &self.caller, &role, &claim, Some(node));
        sight.own.claim(claim);
        let serves = matches!(role, Role::Host { .. }).then(|| self.caller.proxy().into());
        sight.role = Some(role);
        let name = format!("{} {} at {}", node.user_agent_name, node.id, self.caller.proxy());
        self.core.name_stream(id, name, sight.audience.clone(), serves);
    }

    fn note(&self, id: u64, progress: Vec<Progress>) {
        for refused in progress.iter().filter(|progress| progress.refusal.is_some()) {
            let message = refused.refusal.as_ref().map(|refusal| refusal.message.as_str());
            tracing::debug!(proxy = self.caller.proxy(), r#type = refused.type_url, message, "mesh: refused");
        }
        self.core.update_stream(id, progress);
    }
}
