//! Connections that a gateway passes on whole: TCP, and TLS by its server name.
use super::doors::{Door, Found, Rank};
use crate::connections::{self, Onward};
use crate::policy::Rules;
use crate::random;
use crate::shared::Work;
use crate::stream::Stream;
use crate::upstream::{Asker, Port};
use crate::worker::Worker;
use model::mesh::{BackendTarget, Hostname, ParentTarget, Route, Transport};
use std::net::SocketAddr;
use std::sync::Arc;

/// Passes a connection on, to a backend of the route that takes it, as long as policy lets it.
pub async fn serve(worker: &Arc<Worker>, door: &Door, found: &Found, stream: Stream, from: SocketAddr, name: &str) {
    let _busy = worker.shared.busy(Work::Gateway);
    let mut changes = worker.shared.mesh.policy_changes();
    if !admits(worker, found, from) {
        return stream.abort();
    }
    match backend(worker, found, name, Transport::Tcp) {
        Ok(port) => {
            let onward = Onward { origin: found.origin(), gateway: Some(found.gateway()), from };
            let revoked = async {
                while changes.changed().await.is_ok() {
                    if door.listener(name).is_some_and(|found| !admits(worker, &found, from)) {
                        return;
                    }
                }
                std::future::pending().await
            };
            tokio::select! {
                biased;
                () = connections::balance(worker, onward, stream, &port) => {}
                () = revoked => {}
            }
        }
        Err(why) => {
            let gateway = &found.gateway().gateway.key;
            tracing::debug!(%gateway, listener = %found.listener().listener.name, %from, why, "connection refused");
            stream.abort();
        }
    }
}

fn admits(worker: &Worker, found: &Found, from: SocketAddr) -> bool {
    let rules = Rules::of_gateway(worker, &found.gateway().gateway, from, found.listener().listener.port);
    rules.is_none_or(|rules| rules.admits(None))
}

/// The service's port that a connection, or the first datagram of a client, goes to.
pub fn backend(worker: &Worker, found: &Found, name: &str, transport: Transport) -> Result<Arc<Port>, &'static str> {
    let route = route(found, name).ok_or("no route")?;
    let rule = route.rules.first().ok_or("the route has no rule")?;
    let index = traffic::balance::weighted(&rule.backends, random::u32()).ok_or("the rule has no backend")?;
    match &rule.backends[index].target {
        BackendTarget::Invalid { .. } => Err("the backend is not valid"),
        BackendTarget::Service { service, port } => {
            // A VirtualService need not name it.
            let port = if *port == 0 { found.listener().listener.port } else { *port };
            let port = worker.ports.get_as(&worker.shared, service, (port, transport), Asker::new(found.origin()));
            port.ok_or("the backend does not exist")
        }
    }
}

/// The route with the most specific hostname; of equals the first.
fn route<'a>(found: &'a Found, name: &str) -> Option<&'a Arc<Route>> {
    let (gateway, listener) = (&found.gateway().gateway.key, &found.listener().listener.name);
    let rank = |route: &Route| {
        let here = route.parents.iter().find(|parent| {
            matches!(&parent.target, ParentTarget::Listener { gateway: of, listener: on } if of == gateway && on == listener)
        })?;
        if here.hostnames.is_empty() {
            return Some(None);
        }
        here.hostnames.iter().filter(|hostname| hostname.matches(name)).map(Hostname::specificity).max().map(Some)
    };
    let mut best: Option<(Rank, &Arc<Route>)> = None;
    for route in &found.listener().streams {
        if let Some(rank) = rank(route)
            && best.as_ref().is_none_or(|(have, _)| rank > *have)
        {
            best = Some((rank, route));
        }
    }
    best.map(|(_, route)| route)
}
