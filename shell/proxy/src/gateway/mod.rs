//! Gateways: listeners on addresses of their own and on the host's ports, from what the mesh knows.
mod addresses;
mod doors;
mod proxied;
mod streams;
mod tls;
mod udp;

pub use addresses::ROUTE_PROTOCOL as ADDRESS_ROUTES;
pub use doors::{Door, Found, Kind, Place, Sockets, serve};

use crate::netns::Netns;
use crate::origin::Origin;
use crate::shared::Shared;
use crate::worker::Command;
use addresses::Addresses;
use doors::User;
use model::Key;
use model::map::HashMap;
use model::mesh::TlsSecret;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use traffic::GatewayEntry;

/// A port that is in use is tried again.
const BIND_PAUSE: Duration = Duration::from_secs(3);

/// How often it is said that gateways wait for policies.
const TOLD_LOG: Duration = Duration::from_secs(30);

/// What the control thread keeps of gateways.
#[derive(Default)]
struct State {
    doors: BTreeMap<Place, Arc<Door>>,
    origins: HashMap<Key, Arc<Origin>>,
    addresses: Addresses,
    configs: tls::Configs,
    /// The policies that gateways list.
    policies: BTreeMap<Key, Vec<Key>>,
}

/// Keeps the listeners as the gateways want them. Runs on the control thread.
pub async fn control(shared: Arc<Shared>, workers: Vec<mpsc::UnboundedSender<Command>>) {
    // A gateway that is told before its policies would let everybody in.
    while tokio::time::timeout(TOLD_LOG, shared.informed()).await.is_err() {
        if !shared.mesh.known().directory.gateways().is_empty() {
            tracing::warn!("gateways wait: the control plane has told no policies yet, and none are kept");
        }
    }
    let mut changes = shared.mesh.changes();
    let mut state = State::default();
    loop {
        let failed = state.reconcile(&shared, &workers);
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(BIND_PAUSE), if failed => {}
            () = shared.stopped() => {
                for (place, door) in &state.doors {
                    shared.lent.forget_place(place);
                    door.close();
                }
                return;
            }
        }
    }
}

impl State {
    /// True: something could not be bound.
    fn reconcile(&mut self, shared: &Arc<Shared>, workers: &[mpsc::UnboundedSender<Command>]) -> bool {
        let (gateways, secrets) = {
            let known = shared.mesh.known();
            let gateways: Vec<_> = known.directory.gateways().into_iter().cloned().collect();
            (gateways, known.secrets.clone())
        };
        self.origins.retain(|key, _| gateways.iter().any(|gateway| gateway.gateway.key == *key));
        let wanted = self.wanted(shared, &gateways, &secrets);
        self.configs.sweep();
        self.doors.retain(|place, door| {
            let stays = wanted.contains_key(place);
            if !stays {
                tracing::info!(%place, "gateway port closed");
                shared.lent.forget_place(place);
                door.close();
            }
            stays
        });
        let own = gateways.iter().flat_map(|gateway| gateway.gateway.addresses.iter().copied());
        let own: Arc<BTreeSet<IpAddr>> = Arc::new(own.collect());
        let mut failed = false;
        for (place, users) in wanted {
            if let Some(known) = self.doors.get(&place) {
                known.set_users(users);
                known.set_foreign(&own);
                continue;
            }
            let door = Arc::new(Door::new(place, users));
            door.set_foreign(&own);
            match self.bind(shared, place, workers, &door) {
                Ok(()) => {
                    tracing::info!(%place, "gateway port open");
                    self.doors.insert(place, door);
                }
                Err(error) => {
                    tracing::error!(%place, %error, "a gateway's port cannot be bound; trying again");
                    failed = true;
                }
            }
        }
        self.addresses.keep_only(&own);
        // A policy is told before the gateway that lists it, so only now does it hold for what is open.
        let of = |it: &Arc<GatewayEntry>| (it.gateway.key.clone(), it.gateway.authorization_policies.clone());
        let policies = gateways.iter().map(of).collect();
        if std::mem::replace(&mut self.policies, policies) != self.policies {
            shared.mesh.policies_moved();
        }
        failed
    }

    fn wanted(
        &mut self,
        shared: &Shared,
        gateways: &[Arc<GatewayEntry>],
        secrets: &BTreeMap<Key, Arc<TlsSecret>>,
    ) -> BTreeMap<Place, Vec<User>> {
        let mut wanted: BTreeMap<Place, Vec<User>> = BTreeMap::new();
        for gateway in gateways {
            let user = User {
                entry: gateway.clone(),
                origin: origin_of(shared, &mut self.origins, gateway),
                configs: gateway.listeners.iter().map(|it| self.configs.of(&it.listener, secrets)).collect(),
            };
            for entry in &gateway.listeners {
                let (port, kind) = (entry.listener.port, Kind::of(entry.listener.protocol));
                let own = gateway.gateway.addresses.iter().map(|address| Some(*address));
                for address in own.chain(entry.listener.on_nodes.then_some(None)) {
                    let users = wanted.entry(Place { address, port, kind }).or_default();
                    if !users.iter().any(|user| Arc::ptr_eq(&user.entry, gateway)) {
                        users.push(user.clone());
                    }
                }
            }
        }
        wanted
    }

    fn bind(
        &mut self,
        shared: &Shared,
        place: Place,
        workers: &[mpsc::UnboundedSender<Command>],
        door: &Arc<Door>,
    ) -> io::Result<()> {
        let sockets = self.sockets(shared, place, workers.len())?;
        shared.lent.place(place, &sockets);
        for (worker, sockets) in workers.iter().zip(sockets) {
            // A worker that is gone means that the process ends.
            let _ = worker.send(Command::Gateway(door.clone(), sockets));
        }
        Ok(())
    }

    /// Those that a predecessor left, or new ones.
    fn sockets(&mut self, shared: &Shared, place: Place, workers: usize) -> io::Result<Vec<Sockets>> {
        if let Some(left) = shared.places.take(place, workers) {
            if let Some(address) = place.address {
                // It is local already; from now on it is ours to take back.
                self.addresses.add(address)?;
            }
            return Ok(left);
        }
        match Sockets::bind(place, workers) {
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                let Some(address) = place.address else { return Err(error) };
                self.addresses.add(address)?;
                Sockets::bind(place, workers)
            }
            other => other,
        }
    }
}

fn origin_of(shared: &Shared, origins: &mut HashMap<Key, Arc<Origin>>, gateway: &GatewayEntry) -> Arc<Origin> {
    let key = &gateway.gateway.key;
    let new = || {
        let identity = shared.identities.acquire(&key.namespace, &gateway.gateway.service_account);
        Arc::new(Origin::new(Netns::Own, identity, &key.namespace, &key.name, Vec::new()))
    };
    origins.entry(key.clone()).or_insert_with(new).clone()
}
