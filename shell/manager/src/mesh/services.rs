//! Services as the mesh carries them: for the dashboard.

use super::core::Core;
use model::Key;
use model::mesh::{Endpoint, Health, ParentTarget, Resource, ResourceKind, Scope, Service, Workload};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use traffic::Compiler;

/// Services that are told.
const TOLD: usize = 1000;
/// Endpoints of one service that are told.
const ENDPOINTS_TOLD: usize = 500;

/// All services, by namespace and name.
pub fn list(core: &Core) -> Value {
    core.objects(|compiler| {
        let mut ready = BTreeMap::<&Key, (usize, usize)>::new();
        for resource in of_kind(compiler, ResourceKind::Endpoints) {
            let Resource::Endpoints(group) = resource else { continue };
            let counts = ready.entry(&group.service).or_default();
            counts.0 += group.endpoints.iter().filter(|it| it.health == Health::Ready).count();
            counts.1 += group.endpoints.len();
        }
        let services: Vec<&Arc<Service>> = services(compiler).filter(|it| it.subset_of.is_none()).collect();
        let told: Vec<Value> = services
            .iter()
            .take(TOLD)
            .map(|service| {
                let (ready, all) = ready.get(&service.key).copied().unwrap_or_default();
                json!({
                    "namespace": &*service.key.namespace, "name": &*service.key.name, "hosts": hosts(service),
                    "addresses": service.vips, "ports": ports(service), "ready": ready, "endpoints": all,
                })
            })
            .collect();
        json!({ "services": told, "truncated": services.len() > TOLD })
    })
}

/// One service: its endpoints, what routes it, and the policies that hold before its workloads. None: there is none.
pub fn one(core: &Core, key: &Key) -> Option<Value> {
    core.objects(|compiler| {
        let Some(Resource::Service(service)) = compiler.resources().get(&(ResourceKind::Service, key.to_string()))
        else {
            return None;
        };
        let mut endpoints = Vec::new();
        let mut workloads = BTreeMap::<&str, &Arc<Workload>>::new();
        for resource in of_kind(compiler, ResourceKind::Endpoints) {
            let Resource::Endpoints(group) = resource else { continue };
            if group.service != *key {
                continue;
            }
            for endpoint in &group.endpoints {
                let id = (ResourceKind::Workload, endpoint.workload.to_string());
                if let Some(Resource::Workload(workload)) = compiler.resources().get(&id) {
                    workloads.insert(&workload.name, workload);
                }
                endpoints.push(endpoint_json(endpoint, workloads.get(&*endpoint.workload).copied()));
            }
        }
        let all = endpoints.len();
        endpoints.truncate(ENDPOINTS_TOLD);
        Some(json!({
            "namespace": &*key.namespace, "name": &*key.name, "hosts": hosts(service), "addresses": service.vips,
            "ports": ports(service), "endpoints": endpoints, "endpoints_truncated": all > ENDPOINTS_TOLD,
            "routes": routes(compiler, key),
            "policies": policies(compiler, key, &workloads.into_values().collect::<Vec<_>>()),
        }))
    })
}

fn of_kind(compiler: &Compiler, kind: ResourceKind) -> impl Iterator<Item = &Resource> {
    let from = compiler.resources().range((kind, String::new())..);
    from.take_while(move |((of, _), _)| *of == kind).map(|(_, resource)| resource)
}

fn services(compiler: &Compiler) -> impl Iterator<Item = &Arc<Service>> {
    of_kind(compiler, ResourceKind::Service).filter_map(|resource| match resource {
        Resource::Service(service) => Some(service),
        _ => None,
    })
}

fn hosts(service: &Service) -> Vec<&str> {
    service.hostnames.iter().map(|host| &**host).collect()
}

fn ports(service: &Service) -> Vec<Value> {
    let port = |it: &model::mesh::ServicePort| json!({ "port": it.port, "name": &*it.name, "protocol": format!("{:?}", it.app_protocol) });
    service.ports.iter().map(port).collect()
}

fn endpoint_json(of: &Endpoint, workload: Option<&Arc<Workload>>) -> Value {
    json!({
        "address": of.address,
        "health": match of.health { Health::Ready => "ready", Health::Draining => "draining", Health::NotReady => "not ready" },
        "zone": &*of.zone, "region": &*of.region, "node": &*of.node, "weight": of.weight,
        "workload": workload.map(|it| json!({ "namespace": &*it.key.namespace, "name": &*it.key.name, "of": &*it.canonical_name, "version": &*it.revision })),
        "meshed": workload.is_some_and(|it| it.tunnel == model::mesh::Tunnel::Hbone),
    })
}

fn routes(compiler: &Compiler, key: &Key) -> Vec<String> {
    let about = |resource: &Resource| match resource {
        Resource::Route(route) => {
            let hangs = route
                .parents
                .iter()
                .any(|it| matches!(&it.target, ParentTarget::Service { service, .. } if service == key));
            let leads = route.rules.iter().flat_map(|rule| &rule.backends).any(|backend| {
                matches!(&backend.target, model::mesh::BackendTarget::Service { service, .. } if service == key)
            });
            (hangs || leads).then(|| route.name.to_string())
        }
        _ => None,
    };
    of_kind(compiler, ResourceKind::Route).filter_map(about).collect()
}

/// Policies that hold at a workload of the service: those that it lists, its namespace's, and the mesh's.
fn policies(compiler: &Compiler, service: &Key, workloads: &[&Arc<Workload>]) -> Vec<Value> {
    let listed =
        |of: fn(&Workload) -> &Vec<Key>| -> BTreeSet<&Key> { workloads.iter().flat_map(|it| of(it)).collect() };
    let authorization = listed(|it| &it.authorization_policies);
    let peer = listed(|it| &it.peer_authentications);
    let request = listed(|it| &it.request_authentications);
    let holds = |scope: Scope, key: &Key, listed: &BTreeSet<&Key>| match scope {
        Scope::Mesh => true,
        Scope::Namespace => key.namespace == service.namespace,
        Scope::Workload => listed.contains(key),
    };
    let told = |kind: &str, key: &Key, scope: Scope, does: String| json!({ "kind": kind, "namespace": &*key.namespace, "name": &*key.name, "scope": format!("{scope:?}").to_lowercase(), "does": does });
    let mut all = Vec::new();
    for resource in of_kind(compiler, ResourceKind::PeerAuthentication) {
        let Resource::PeerAuthentication(it) = resource else { continue };
        if holds(it.scope, &it.key, &peer) {
            all.push(told("PeerAuthentication", &it.key, it.scope, format!("{:?}", it.mode).to_uppercase()));
        }
    }
    for resource in of_kind(compiler, ResourceKind::RequestAuthentication) {
        let Resource::RequestAuthentication(it) = resource else { continue };
        if holds(it.scope, &it.key, &request) {
            let issuers: Vec<&str> = it.rules.iter().map(|rule| &*rule.issuer).collect();
            all.push(told("RequestAuthentication", &it.key, it.scope, issuers.join(", ")));
        }
    }
    for resource in of_kind(compiler, ResourceKind::AuthorizationPolicy) {
        let Resource::AuthorizationPolicy(it) = resource else { continue };
        if holds(it.scope, &it.key, &authorization) {
            let dry = if it.dry_run { ", dry run" } else { "" };
            let does = format!("{}, {} rules{dry}", format!("{:?}", it.action).to_uppercase(), it.rules.len());
            all.push(told("AuthorizationPolicy", &it.key, it.scope, does));
        }
    }
    all
}
