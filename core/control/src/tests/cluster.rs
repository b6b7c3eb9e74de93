use crate::harness::{Cluster, labels, truth};
use crate::imagined;
use model::condition::Amount;
use model::effect::Propagation;
use model::policy::{HorizontalPodAutoscaler, MetricSpec, MetricTarget, PodDisruptionBudget};
use model::service::{Service, ServicePort, TargetPort};
use model::taint::TaintEffect;
use model::volume::{ClaimPhase, PersistentVolumeClaim, StorageClass, VolumePhase};
use model::{Endpoints, Key, Kind, LabelSelector, Meta, Object, Quantity, Toleration, Truth};
use scaling::{ContainerUsage, Sample};
use std::sync::Arc;

fn service(name: &str, app: &str) -> Service {
    Service {
        meta: Meta { key: Key::new("default", name), ..Meta::default() },
        selector: labels(&[("app", app)]),
        cluster_ips: vec!["10.96.0.5".into()],
        ports: vec![ServicePort { port: 80, target: TargetPort::Name("http".into()), ..ServicePort::default() }],
        ..Service::default()
    }
}

fn ready_endpoints(cluster: &Cluster) -> (usize, usize) {
    let slices = cluster
        .api
        .list(Kind::EndpointSlice)
        .filter_map(|o| if let Object::EndpointSlice(s) = o { Some(s) } else { None });
    let all: Vec<_> = slices.flat_map(|slice| &slice.endpoints).collect();
    (all.iter().filter(|endpoint| endpoint.ready).count(), all.len())
}

fn endpoints(cluster: &Cluster) -> &Endpoints {
    match cluster.api.list(Kind::Endpoints).next() {
        Some(Object::Endpoints(endpoints)) => endpoints,
        other => panic!("no endpoints: {other:?}"),
    }
}

#[test]
fn slices_follow_pods_and_a_terminating_one_is_out_at_once() {
    let mut cluster = Cluster::new(3);
    let deployment = cluster.new_deployment("web", 3);
    cluster.put(deployment);
    cluster.put(service("web", "web"));
    cluster.run(5);
    assert_eq!(ready_endpoints(&cluster), (3, 3));
    let Some(Object::EndpointSlice(slice)) = cluster.api.list(Kind::EndpointSlice).next() else { panic!("no slice") };
    assert_eq!((slice.ports[0].port, slice.endpoints[0].serving), (Some(8080), true));
    assert_eq!(endpoints(&cluster).subsets[0].addresses.len(), 3);
    let name = cluster.pods()[0].meta.key.name.clone();
    cluster.delete(Kind::Pod, "default", &name, Propagation::Default);
    cluster.settle();
    assert_eq!(ready_endpoints(&cluster), (2, 3), "still serving, no longer ready");
    cluster.run(5);
    assert_eq!(ready_endpoints(&cluster), (3, 3));
}

#[test]
fn more_than_a_hundred_endpoints_fill_several_slices() {
    let mut cluster = Cluster::new(3);
    let deployment = cluster.new_deployment("web", 250);
    cluster.put(deployment);
    cluster.put(service("web", "web"));
    cluster.run(20);
    assert_eq!(ready_endpoints(&cluster), (250, 250));
    let sizes: Vec<usize> = cluster
        .api
        .list(Kind::EndpointSlice)
        .filter_map(|o| if let Object::EndpointSlice(s) = o { Some(s.endpoints.len()) } else { None })
        .collect();
    assert!(sizes.iter().all(|size| *size <= 100), "{sizes:?}");
}

#[test]
fn a_deleted_service_takes_its_endpoints_along() {
    let mut cluster = Cluster::new(2);
    cluster.put(service("web", "web"));
    cluster.run(2);
    assert_eq!((cluster.count(Kind::EndpointSlice), cluster.count(Kind::Endpoints)), (1, 1));
    cluster.delete(Kind::Service, "default", "web", Propagation::Background);
    cluster.run(2);
    assert_eq!((cluster.count(Kind::EndpointSlice), cluster.count(Kind::Endpoints)), (0, 0));
}

#[test]
fn a_namespace_gets_its_account_and_bundle_and_goes_with_all_its_content() {
    let mut cluster = Cluster::new(2);
    cluster.put(imagined::namespace("team"));
    cluster.run(1);
    assert!(cluster.api.get(Kind::ServiceAccount, &Key::new("team", "default")).is_some());
    assert!(cluster.api.get(Kind::ConfigMap, &Key::new("team", "kube-root-ca.crt")).is_some());
    let mut deployment = cluster.new_deployment("web", 3);
    deployment.meta.key = Key::new("team", "web");
    cluster.put(deployment);
    cluster.run(5);
    cluster.delete(Kind::Namespace, "", "team", Propagation::Background);
    cluster.run(10);
    assert!(cluster.api.get(Kind::Namespace, &Key::new("", "team")).is_none());
    for kind in Kind::TYPED {
        assert!(cluster.api.list(*kind).all(|object| &*object.meta().key.namespace != "team"), "{kind}");
    }
}

#[test]
fn a_lost_node_is_told_tainted_and_evicted_from() {
    let mut cluster = Cluster::new(4);
    let mut deployment = cluster.new_deployment("web", 8);
    let tolerations = vec![Toleration {
        seconds: Some(30),
        ..Toleration::exists("node.kubernetes.io/unreachable", TaintEffect::NoExecute)
    }];
    deployment.template.tolerations = tolerations.clone().into();
    if let Some((_, spec)) = cluster.api.blueprints.pods.get_mut(&deployment.template.body.hash()) {
        spec.tolerations = tolerations.into();
    }
    cluster.put(deployment);
    cluster.run(5);
    cluster.dead.push("node-1".into());
    cluster.run(35);
    let node = |cluster: &Cluster| match cluster.api.get(Kind::Node, &Key::new("", "node-1")) {
        Some(Object::Node(node)) => node.clone(),
        other => panic!("no node: {other:?}"),
    };
    assert_eq!(truth(&node(&cluster).conditions, "Ready").0, Truth::True);
    cluster.run(10);
    assert_eq!(truth(&node(&cluster).conditions, "Ready"), (Truth::Unknown, "NodeStatusUnknown".into()));
    assert!(node(&cluster).taints.iter().any(|taint| taint.effect == TaintEffect::NoExecute));
    let on_lost = |cluster: &Cluster| {
        cluster.pods().iter().filter(|pod| &*pod.spec.node_name == "node-1" && pod.is_active()).count()
    };
    assert!(on_lost(&cluster) > 0, "tolerated for thirty seconds");
    assert!(cluster.pods().iter().filter(|pod| &*pod.spec.node_name == "node-1").all(|pod| !pod.is_ready()));
    cluster.run(40);
    assert_eq!(on_lost(&cluster), 0);
    assert_eq!(cluster.pods().iter().filter(|pod| pod.is_ready()).count(), 8);
    // It comes back: the agent says so, the taints go, the deleted pods end.
    cluster.dead.clear();
    let now = cluster.now;
    cluster.edit(Kind::Node, "", "node-1", |object| {
        if let Object::Node(o) = object {
            Arc::make_mut(o).conditions = vec![model::Condition::new("Ready", true, "KubeletReady", "", now)];
        }
    });
    cluster.run(5);
    assert!(node(&cluster).taints.is_empty());
    assert_eq!(cluster.pods().len(), 8);
}

/// Guards against a node that came back being declared lost again, for good, because its status was told before its lease.
#[test]
fn a_node_that_speaks_before_its_lease_is_heard() {
    let mut cluster = Cluster::new(3);
    cluster.dead.push("node-1".into());
    cluster.run(60);
    let now = cluster.now;
    cluster.edit(Kind::Node, "", "node-1", |object| {
        if let Object::Node(o) = object {
            Arc::make_mut(o).conditions = vec![model::Condition::new("Ready", true, "KubeletReady", "", now)];
        }
    });
    cluster.settle();
    cluster.dead.clear();
    cluster.run(60);
    let Some(Object::Node(node)) = cluster.api.get(Kind::Node, &Key::new("", "node-1")) else { panic!("no node") };
    assert_eq!(truth(&node.conditions, "Ready").0, Truth::True);
    assert!(node.taints.is_empty(), "{:?}", node.taints);
}

/// Somebody made the node object together with a condition of long ago, and no agent is behind it: nobody has said that it is not ready.
#[test]
fn a_condition_from_before_the_node_taints_only_with_an_agent_behind_it() {
    let mut cluster = Cluster::new(1);
    cluster.dead.push("made".into());
    let stale = cluster.now.plus_ms(-3_600_000);
    let conditions = vec![model::Condition::new("Ready", false, "KubeletReady", "", stale)];
    let meta = Meta { key: Key::new("", "made"), ..Meta::default() };
    cluster.put(model::Node { meta, conditions, ..model::Node::default() });
    cluster.run(5);
    let taints = |cluster: &Cluster| match cluster.api.get(Kind::Node, &Key::new("", "made")) {
        Some(Object::Node(node)) => node.taints.len(),
        other => panic!("no node: {other:?}"),
    };
    assert_eq!(taints(&cluster), 0);
    let now = cluster.now;
    cluster.edit(Kind::Node, "", "made", |object| {
        if let Object::Node(o) = object {
            Arc::make_mut(o).conditions = vec![model::Condition::new("Ready", false, "KubeletNotReady", "", now)];
        }
    });
    cluster.run(5);
    assert!(taints(&cluster) > 0, "now its agent says so");
}

/// Guards against a running Job's pods staying for ever after it was deleted: nobody is left to count them.
#[test]
fn pods_of_a_deleted_job_go() {
    let mut cluster = Cluster::new(3);
    let job = cluster.new_job("sum", 2, Some(4));
    cluster.put(job);
    cluster.run(5);
    assert_eq!(cluster.pods().len(), 2);
    cluster.delete(Kind::Job, "default", "sum", Propagation::Background);
    cluster.run(10);
    assert!(cluster.pods().is_empty());
}

#[test]
fn when_everything_is_lost_nothing_is_evicted() {
    let mut cluster = Cluster::new(3);
    let deployment = cluster.new_deployment("web", 3);
    cluster.put(deployment);
    cluster.run(5);
    cluster.dead = (0..3).map(|index| format!("node-{index}")).collect();
    cluster.run(120);
    assert_eq!(cluster.pods().iter().filter(|pod| pod.is_active()).count(), 3);
    let evicting = |object: &Object| {
        object.meta().key.name.len() > 1 && matches!(object, Object::Node(node) if crate::taint_eviction::evicts(node))
    };
    assert!(!cluster.api.list(Kind::Node).any(evicting), "what was begun is taken back");
}

#[test]
fn pods_of_a_node_that_is_gone_go() {
    let mut cluster = Cluster::new(3);
    let deployment = cluster.new_deployment("web", 6);
    cluster.put(deployment);
    cluster.run(5);
    cluster.dead.push("node-2".into());
    cluster.delete(Kind::Node, "", "node-2", Propagation::Background);
    cluster.run(60);
    assert_eq!(cluster.pods().iter().filter(|pod| pod.is_ready() && &*pod.spec.node_name != "node-2").count(), 6);
    assert_eq!(cluster.pods().len(), 6);
}

#[test]
fn a_budget_counts_what_may_go() {
    let mut cluster = Cluster::new(3);
    let deployment = cluster.new_deployment("web", 4);
    cluster.put(deployment);
    for (name, min, max) in [("min", Some(Amount::Number(3)), None), ("max", None, Some(Amount::Percent(50)))] {
        cluster.put(PodDisruptionBudget {
            meta: Meta { key: Key::new("default", name), ..Meta::default() },
            min_available: min,
            max_unavailable: max,
            selector: Some(LabelSelector::from_labels(&labels(&[("app", "web")]))),
            ..PodDisruptionBudget::default()
        });
    }
    cluster.run(5);
    let status =
        |cluster: &Cluster, name: &str| match cluster.api.get(Kind::PodDisruptionBudget, &Key::new("default", name)) {
            Some(Object::PodDisruptionBudget(budget)) => {
                (budget.status.allowed, budget.status.current, budget.status.desired, budget.status.expected)
            }
            other => panic!("no budget: {other:?}"),
        };
    assert_eq!(status(&cluster, "min"), (1, 4, 3, 4));
    assert_eq!(status(&cluster, "max"), (2, 4, 2, 4));
    let name = cluster.pods()[0].meta.key.name.clone();
    cluster.delete(Kind::Pod, "default", &name, Propagation::Default);
    cluster.settle();
    assert_eq!(status(&cluster, "min").0, 0);
    assert_eq!(status(&cluster, "max").0, 1);
}

#[test]
fn a_claim_gets_a_directory_and_gives_it_back() {
    let mut cluster = Cluster::new(2);
    cluster.put(StorageClass {
        meta: Meta {
            key: Key::new("", "standard"),
            annotations: labels(&[("storageclass.kubernetes.io/is-default-class", "true")]),
            ..Meta::default()
        },
        provisioner: "diolkos.io/host-path".into(),
        reclaim: model::volume::ReclaimPolicy::Delete,
        ..StorageClass::default()
    });
    cluster.put(PersistentVolumeClaim {
        meta: Meta {
            key: Key::new("default", "data"),
            finalizers: vec!["kubernetes.io/pvc-protection".into()],
            ..Meta::default()
        },
        request: Quantity::from_units(1 << 30),
        access_modes: vec!["ReadWriteOnce".into()],
        ..PersistentVolumeClaim::default()
    });
    cluster.run(2);
    let Some(Object::PersistentVolumeClaim(claim)) = cluster.api.list(Kind::PersistentVolumeClaim).next() else {
        panic!("no claim")
    };
    assert_eq!(
        (claim.phase, claim.class.as_deref(), claim.capacity),
        (ClaimPhase::Bound, Some("standard"), Some(claim.request))
    );
    let Some(Object::PersistentVolume(volume)) = cluster.api.list(Kind::PersistentVolume).next() else {
        panic!("no volume")
    };
    assert_eq!((volume.phase, volume.meta.key.name.clone()), (VolumePhase::Bound, claim.volume.clone()));
    assert!(volume.host_path.starts_with("/var/lib/diolkos/volumes/pvc-"));
    cluster.delete(Kind::PersistentVolumeClaim, "default", "data", Propagation::Background);
    cluster.run(2);
    assert_eq!((cluster.count(Kind::PersistentVolumeClaim), cluster.count(Kind::PersistentVolume)), (0, 0));
}

#[test]
fn an_autoscaler_follows_the_load() {
    let mut cluster = Cluster::new(3);
    let deployment = cluster.new_deployment("web", 2);
    cluster.put(deployment);
    cluster.put(HorizontalPodAutoscaler {
        meta: Meta { key: Key::new("default", "web"), ..Meta::default() },
        target_api_version: "apps/v1".into(),
        target_kind: "Deployment".into(),
        target_name: "web".into(),
        min_replicas: 1,
        max_replicas: 10,
        metrics: vec![MetricSpec::Resource {
            name: "cpu".into(),
            container: None,
            target: MetricTarget::Utilization(50),
        }],
        ..HorizontalPodAutoscaler::default()
    });
    let load = |cluster: &mut Cluster, milli: u64, seconds: i64| {
        for _ in 0..seconds / 5 {
            let pods: Vec<Key> = cluster.pods().iter().map(|pod| pod.meta.key.clone()).collect();
            let at = cluster.now;
            for key in pods {
                let sample = Sample { at, cpu_nano: milli * 1_000_000, memory_bytes: 1 };
                cluster.control.usage_mut().observe_pod(key, at, vec![ContainerUsage { name: "main".into(), sample }]);
            }
            cluster.run(5);
        }
    };
    load(&mut cluster, 100, 60);
    assert_eq!(cluster.deployment("web").replicas, 10, "a hundred percent of the request, doubling to the maximum");
    load(&mut cluster, 1, 120);
    assert_eq!(cluster.deployment("web").replicas, 10, "five minutes of patience");
    load(&mut cluster, 1, 300);
    assert_eq!(cluster.deployment("web").replicas, 1);
    let Some(Object::HorizontalPodAutoscaler(hpa)) = cluster.api.list(Kind::HorizontalPodAutoscaler).next() else {
        panic!("no autoscaler")
    };
    assert_eq!(truth(&hpa.status.conditions, "ScalingActive"), (Truth::True, "ValidMetricFound".into()));
    assert_eq!(hpa.status.metrics[0].utilization, Some(1));
}
