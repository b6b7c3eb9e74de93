//! Workloads, services, endpoints.

use super::{Compiler, Output};
use model::Key;
use model::Labels;
use model::mesh::api::{self, SliceEndpoint};
use model::mesh::{
    Endpoint, EndpointGroup, Health, Resource, ResourceKind, Service, ServicePort, Tunnel, Workload, WorkloadStatus,
};
use std::sync::Arc;

/// Resource name of a pod's workload.
pub(super) fn pod_name(key: &Key) -> String {
    format!("pod/{key}")
}

/// Resource name of a joined host's workload.
pub(super) fn entry_name(key: &Key) -> String {
    format!("host/{key}")
}

impl Compiler {
    pub(super) fn compile_pod(&mut self, key: &Key, output: &mut Output) {
        let name = pod_name(key);
        let workload = self.objects.pods.get(key).filter(|pod| !pod.addresses.is_empty()).map(|pod| {
            let node = self.objects.nodes.get(&Key::new("", pod.node.clone()));
            let (canonical_name, canonical_kind) = canonical(pod);
            let meshed = !pod.host_network && !pod.mesh_disabled;
            let (authorization_policies, peer_authentications) = self.policies_of(&key.namespace, &pod.labels);
            Workload {
                name: name.as_str().into(),
                uid: pod.uid.clone(),
                key: key.clone(),
                service_account: pod.service_account.clone(),
                node: pod.node.clone(),
                // The addresses of a pod in its host's network are the node's, and say nothing about who speaks.
                addresses: if pod.host_network { Vec::new() } else { pod.addresses.clone() },
                status: match (pod.ended, pod.deleting) {
                    (true, _) => WorkloadStatus::Gone,
                    (false, true) => WorkloadStatus::Draining,
                    (false, false) => WorkloadStatus::Running,
                },
                tunnel: if meshed { Tunnel::Hbone } else { Tunnel::None },
                zone: node.map(|node| node.zone.clone()).unwrap_or_default(),
                region: node.map(|node| node.region.clone()).unwrap_or_default(),
                app: app(&pod.labels, &canonical_name),
                revision: revision(&pod.labels),
                canonical_name,
                canonical_kind,
                authorization_policies,
                peer_authentications,
                request_authentications: self.requests_of(&key.namespace, &pod.labels),
                labels: self.hosts.asked(&pod.labels),
            }
        });
        self.tell(ResourceKind::Workload, name, workload.map(|it| Resource::Workload(Arc::new(it))), output);
    }

    pub(super) fn compile_entry(&mut self, key: &Key, output: &mut Output) {
        let name = entry_name(key);
        let workload = self.objects.entries.get(key).and_then(|entry| {
            let addresses = self.addresses_of_entry(entry);
            if addresses.is_empty() {
                return None;
            }
            let app = app(&entry.labels, &entry.service_account);
            let (authorization_policies, peer_authentications) = self.policies_of(&key.namespace, &entry.labels);
            Some(Workload {
                name: name.as_str().into(),
                uid: entry.uid.clone(),
                key: key.clone(),
                service_account: entry.service_account.clone(),
                node: "".into(),
                addresses,
                status: if entry.deleting { WorkloadStatus::Draining } else { WorkloadStatus::Running },
                tunnel: if entry.joined { Tunnel::Hbone } else { Tunnel::None },
                zone: entry.zone.clone(),
                region: entry.region.clone(),
                canonical_name: app.clone(),
                canonical_kind: "WorkloadEntry".into(),
                app,
                revision: revision(&entry.labels),
                authorization_policies,
                peer_authentications,
                request_authentications: self.requests_of(&key.namespace, &entry.labels),
                labels: self.hosts.asked(&entry.labels),
            })
        });
        self.tell(ResourceKind::Workload, name, workload.map(|it| Resource::Workload(Arc::new(it))), output);
    }

    pub(super) fn compile_service(&mut self, key: &Key, output: &mut Output) {
        let domain = &self.settings.cluster_domain;
        let service = self.objects.services.get(key).map(|service| Service {
            key: key.clone(),
            vips: service.vips.clone(),
            hostnames: vec![format!("{}.{}.svc.{domain}", key.name, key.namespace).into()],
            ports: service
                .ports
                .iter()
                .map(|port| ServicePort { tls: self.backend_tls(key, port), ..port.clone() })
                .collect(),
            headless: service.headless,
            affinity_s: service.affinity_s,
            publish_not_ready: service.publish_not_ready,
            external_name: service.external_name.clone(),
            ..Service::default()
        });
        self.tell_service(key, service, output);
    }

    pub(super) fn compile_slice(&mut self, key: &Key, output: &mut Output) {
        let group = self.objects.slices.get(key).filter(|slice| !slice.service.is_empty()).map(|slice| {
            let service = Key { namespace: key.namespace.clone(), name: slice.service.clone() };
            let by_label = self.rules_of(&service).has_subsets();
            let mut endpoints: Vec<(Endpoint, Labels)> = slice
                .endpoints
                .iter()
                .filter_map(|endpoint| {
                    let target = by_label.then_some(&endpoint.target);
                    let labels = target.map(|target| self.labels_of_target(&key.namespace, target));
                    Some((self.endpoint(&key.namespace, endpoint)?, labels.unwrap_or_default()))
                })
                .collect();
            endpoints.sort_by_key(|(endpoint, _)| endpoint.address);
            let (endpoints, labels) = endpoints.into_iter().unzip();
            let group = EndpointGroup { key: key.clone(), service, ports: slice.ports.clone(), endpoints };
            (group, labels)
        });
        self.tell_groups(&key.to_string(), group.into_iter().collect(), output);
    }

    fn endpoint(&self, namespace: &Arc<str>, endpoint: &SliceEndpoint) -> Option<Endpoint> {
        let target = Key { namespace: namespace.clone(), name: endpoint.target.1.clone() };
        let pod = (&*endpoint.target.0 == "Pod").then(|| self.objects.pods.get(&target)).flatten();
        let workload = match &*endpoint.target.0 {
            "Pod" => pod_name(&target),
            "WorkloadEntry" => entry_name(&target),
            _ => String::new(),
        };
        // The pod's own deletion is seen before the endpoints controller has put it into the slice: it drains at once.
        let leaving = endpoint.terminating || pod.is_some_and(|pod| pod.deleting);
        let health = match (leaving, endpoint.ready, endpoint.serving) {
            (false, true, _) => Health::Ready,
            (true, _, true) | (true, true, _) => Health::Draining,
            _ => Health::NotReady,
        };
        let health = if pod.is_some_and(|pod| pod.ended) { Health::NotReady } else { health };
        let node = pod.and_then(|pod| self.objects.nodes.get(&Key::new("", pod.node.clone())));
        let region = node.map(|node| node.region.clone()).unwrap_or_default();
        Some(Endpoint {
            address: *endpoint.addresses.first()?,
            workload: workload.into(),
            health,
            weight: 1,
            region,
            zone: endpoint.zone.clone(),
            node: endpoint.node.clone(),
            hostname: endpoint.hostname.clone(),
        })
    }
}

/// Name and kind of what made a pod: the Deployment, not its ReplicaSet.
fn canonical(pod: &api::Pod) -> (Arc<str>, Arc<str>) {
    let (kind, name) = &pod.controller;
    if &**kind == "ReplicaSet"
        && let Some(hash) = pod.labels.get("pod-template-hash")
        && let Some(deployment) = name.strip_suffix(&**hash).and_then(|rest| rest.strip_suffix('-'))
    {
        return (deployment.into(), "Deployment".into());
    }
    if name.is_empty() { (pod.key.name.clone(), "Pod".into()) } else { (name.clone(), kind.clone()) }
}

fn label(labels: &Labels, keys: &[&str]) -> Option<Arc<str>> {
    keys.iter().find_map(|key| labels.get(*key).cloned())
}

fn app(labels: &Labels, fallback: &Arc<str>) -> Arc<str> {
    label(labels, &["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"])
        .unwrap_or_else(|| fallback.clone())
}

fn revision(labels: &Labels) -> Arc<str> {
    label(labels, &["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"])
        .unwrap_or_else(|| "latest".into())
}
