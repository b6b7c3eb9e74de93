//! What a change touches: services, joined hosts, or, for routes, gateways and policies, all that is told.
use super::audience::Kind;
use super::{View, routes};
use model::Key;
use model::mesh::{Resource, ResourceKind, Service, Workload};
use std::collections::BTreeSet;
use std::sync::Arc;
use xds::envoy::{self, types};

/// What has to be told anew.
#[derive(Default)]
pub(super) struct Touched {
    services: BTreeSet<Key>,
    /// Of those whose Envoys are here.
    hosts: BTreeSet<Arc<str>>,
    /// All places.
    wide: bool,
}

impl View {
    /// Takes changes in; a change costs what it touches, but for routes, gateways and policies, which are looked at together.
    pub fn apply(&mut self, changes: impl Iterator<Item = (ResourceKind, String, Option<Resource>)>) {
        let mut touched = Touched::default();
        self.directory.hold();
        for (kind, name, resource) in changes {
            match resource {
                Some(resource) => {
                    self.learn(&name, &resource, &mut touched);
                    self.directory.set(resource);
                }
                None => {
                    self.unlearn(kind, &name, &mut touched);
                    self.directory.remove(kind, &name);
                }
            }
        }
        self.directory.release();
        self.emit(touched);
    }

    /// A resource came, or is another: what the directory does not keep is noted.
    fn learn(&mut self, name: &str, resource: &Resource, touched: &mut Touched) {
        match resource {
            Resource::Service(service) => self.learn_service(service, touched),
            Resource::Endpoints(group) => drop(touched.services.insert(group.service.clone())),
            Resource::Workload(workload) => {
                touched.hosts.extend(self.served.get(&workload.name).cloned());
                let known = self.directory.workload(&workload.name);
                if !known.is_some_and(|known| same_door(known, workload)) {
                    touched.services.extend(self.of_workload.get(&*workload.name).into_iter().flatten().cloned());
                }
            }
            Resource::PeerAuthentication(policy) => {
                self.peers.set_peer(policy.clone());
                self.touch_peers(touched);
            }
            Resource::AuthorizationPolicy(policy) => {
                self.policies.insert(policy.key.clone(), policy.clone());
                touched.wide = true;
            }
            Resource::RequestAuthentication(of) => {
                self.tokens.insert(of.key.clone(), of.clone());
                touched.wide = true;
            }
            Resource::AttachedPolicy(policy) => touched.wide |= self.attach(&policy.key, Some(policy)),
            Resource::Secret(secret) => {
                let value = envoy::tls_secret(name, &secret.certificate_chain, &secret.private_key);
                self.catalog.set(types::SECRET, name, Some(value));
            }
            Resource::ExtensionProvider(provider) => {
                self.providers.insert(provider.name.clone(), provider.clone());
                touched.wide = true;
            }
            Resource::Route(_) | Resource::Gateway(_) => touched.wide = true,
            _ => {}
        }
    }

    fn learn_service(&self, service: &Service, touched: &mut Touched) {
        let before = self.directory.service(&service.key).map(|entry| &entry.service);
        touched.wide |= before.is_none_or(|it| it.hostnames != service.hostnames) && self.names_asked(service);
        // Routes say what keeps a request on its endpoint.
        let said = before.map(|it| routes::told_elsewhere(it)).unwrap_or_default();
        touched.wide |= said != routes::told_elsewhere(service);
        touched.services.insert(service.key.clone());
    }

    /// A resource is gone. Names are unique only within a kind.
    fn unlearn(&mut self, kind: ResourceKind, name: &str, touched: &mut Touched) {
        let key = name.split_once('/').map(|(namespace, name)| Key::new(namespace, name));
        match (kind, key) {
            (ResourceKind::Workload, _) => {
                touched.hosts.extend(self.served.get(name).cloned());
                touched.services.extend(self.of_workload.remove(name).into_iter().flatten());
            }
            (ResourceKind::PeerAuthentication, Some(key)) => {
                self.peers.remove_peer(&key);
                self.touch_peers(touched);
            }
            (ResourceKind::Secret, _) => drop(self.catalog.set(types::SECRET, name, None)),
            (ResourceKind::AuthorizationPolicy, Some(key)) => {
                self.policies.remove(&key);
                touched.wide = true;
            }
            (ResourceKind::RequestAuthentication, Some(key)) => {
                self.tokens.remove(&key);
                touched.wide = true;
            }
            (ResourceKind::AttachedPolicy, Some(key)) => touched.wide |= self.attach(&key, None),
            (ResourceKind::ExtensionProvider, _) => touched.wide |= self.providers.remove(name).is_some(),
            (ResourceKind::Service, Some(key)) => {
                touched.services.insert(key);
                touched.wide = true;
            }
            _ => touched.wide = true,
        }
    }

    /// What peers must show is another: hosts ask for it, and who cannot tell endpoints apart is told by services whether there is TLS.
    fn touch_peers(&self, touched: &mut Touched) {
        touched.hosts.extend(self.served.iter().cloned());
        touched.wide |= self.audience.kind == Kind::Grpc && self.audience.secured;
    }

    fn emit(&mut self, touched: Touched) {
        let Touched { mut services, mut hosts, wide } = touched;
        if wide {
            services.extend(self.directory.services().iter().map(|entry| entry.service.key.clone()));
            self.emit_gateways();
        }
        for key in &services {
            self.emit_service(key);
        }
        if !services.is_empty() {
            self.emit_sidecars();
        }
        let behind = |host: &Arc<str>| {
            self.of_workload.get(&**host).is_some_and(|of| of.iter().any(|key| services.contains(key)))
        };
        hosts.extend(self.served.iter().filter(|host| wide || behind(host)).cloned());
        for host in hosts {
            self.emit_host(&host);
        }
    }
}

/// Whether a workload is called in the same way as before.
fn same_door(a: &Workload, b: &Workload) -> bool {
    let door =
        |it: &Workload| (it.tunnel, it.service_account.clone(), it.node.is_empty(), it.peer_authentications.clone());
    door(a) == door(b)
}
