use crate::harness::{Cluster, labels, meta, truth};
use model::condition::Amount;
use model::effect::Propagation;
use model::workload::{DaemonSetUpdate, DeploymentStrategy, StatefulSetUpdate};
use model::{Effect, Kind, LabelSelector, Object, ReplicaSet, ReplicationController, Truth};
use std::sync::Arc;

fn set_template(cluster: &mut Cluster, kind: Kind, name: &str, version: &str) {
    let template = cluster.template(name, version);
    cluster.edit(kind, "default", name, |object| match object {
        Object::Deployment(o) => Arc::make_mut(o).template = template,
        Object::StatefulSet(o) => Arc::make_mut(o).template = template,
        Object::DaemonSet(o) => Arc::make_mut(o).template = template,
        _ => {}
    });
}

fn scale(cluster: &mut Cluster, kind: Kind, name: &str, replicas: i32) {
    cluster.edit(kind, "default", name, |object| match object {
        Object::Deployment(o) => Arc::make_mut(o).replicas = replicas,
        Object::StatefulSet(o) => Arc::make_mut(o).replicas = replicas,
        _ => {}
    });
}

#[test]
fn a_deployment_makes_its_pods_once() {
    let mut cluster = Cluster::new(3);
    let deployment = cluster.new_deployment("web", 10);
    cluster.put(deployment);
    cluster.run(10);
    let made = cluster
        .orders
        .iter()
        .filter(|effect| matches!(effect, Effect::Create(_, body) if body.kind() == Kind::Pod))
        .count();
    assert_eq!((cluster.pods().len(), made), (10, 10));
    let status = &cluster.deployment("web").status;
    assert_eq!(
        (status.replicas, status.updated, status.ready, status.available, status.unavailable),
        (10, 10, 10, 10, 0)
    );
    assert_eq!(truth(&status.conditions, "Available"), (Truth::True, "MinimumReplicasAvailable".into()));
    assert_eq!(truth(&status.conditions, "Progressing"), (Truth::True, "NewReplicaSetAvailable".into()));
    assert_eq!(cluster.deployment("web").meta.annotation(crate::deployment::REVISION), Some("1"));
}

#[test]
fn a_replication_controller_is_a_replica_set_of_the_core_group() {
    let mut cluster = Cluster::new(3);
    let template = cluster.template("old", "1");
    let selector = LabelSelector::from_labels(&labels(&[("app", "old")]));
    let set = ReplicaSet { meta: meta("default", "old", 1), replicas: 3, selector, template, ..ReplicaSet::default() };
    cluster.put(ReplicationController(set));
    cluster.run(10);
    let owners: Vec<_> = cluster.pods().iter().map(|pod| pod.meta.controller().cloned().unwrap()).collect();
    assert!(owners.len() == 3 && owners.iter().all(|o| (&*o.kind, &*o.api_version) == ("ReplicationController", "v1")));
    cluster.edit(Kind::ReplicationController, "default", "old", |object| {
        let Object::ReplicationController(set) = object else { unreachable!() };
        assert_eq!((set.status.replicas, set.status.ready, set.status.fully_labeled), (3, 3, 3));
        Arc::make_mut(set).replicas = 1;
    });
    cluster.run(10);
    assert_eq!(cluster.pods().len(), 1);
    cluster.delete(Kind::ReplicationController, "default", "old", Propagation::Background);
    cluster.run(10);
    assert_eq!((cluster.count(Kind::ReplicationController), cluster.pods().len()), (0, 0));
}

#[test]
fn a_rolling_update_stays_within_surge_and_unavailability() {
    for (surge, unavailable) in [
        (Amount::Percent(25), Amount::Percent(25)),
        (Amount::Number(1), Amount::Number(0)),
        (Amount::Number(0), Amount::Number(2)),
    ] {
        let mut cluster = Cluster::new(3);
        let mut deployment = cluster.new_deployment("web", 8);
        deployment.strategy = DeploymentStrategy::RollingUpdate { max_surge: surge, max_unavailable: unavailable };
        cluster.put(deployment);
        cluster.run(5);
        set_template(&mut cluster, Kind::Deployment, "web", "2");
        for _ in 0..60 {
            cluster.run(1);
            let pods = cluster.pods();
            let active = pods.iter().filter(|pod| pod.is_active()).count() as i32;
            let ready = pods.iter().filter(|pod| pod.is_active() && pod.is_ready()).count() as i32;
            assert!(active <= 8 + surge.of(8, true), "{active} pods");
            assert!(ready >= 8 - unavailable.of(8, false), "{ready} ready");
        }
        let status = &cluster.deployment("web").status;
        assert_eq!((status.replicas, status.updated, status.available), (8, 8, 8), "{surge:?} {unavailable:?}");
        assert_eq!(cluster.count(Kind::ReplicaSet), 2);
        assert_eq!(cluster.deployment("web").meta.annotation(crate::deployment::REVISION), Some("2"));
    }
}

#[test]
fn going_back_takes_the_old_set_again_and_counts_up() {
    let mut cluster = Cluster::new(2);
    let deployment = cluster.new_deployment("web", 3);
    cluster.put(deployment);
    cluster.run(5);
    set_template(&mut cluster, Kind::Deployment, "web", "2");
    cluster.run(30);
    set_template(&mut cluster, Kind::Deployment, "web", "1");
    cluster.run(30);
    assert_eq!(cluster.count(Kind::ReplicaSet), 2);
    assert_eq!(cluster.deployment("web").meta.annotation(crate::deployment::REVISION), Some("3"));
    let status = &cluster.deployment("web").status;
    assert_eq!((status.updated, status.available), (3, 3));
}

#[test]
fn recreate_waits_for_the_last_old_pod() {
    let mut cluster = Cluster::new(2);
    let mut deployment = cluster.new_deployment("web", 4);
    deployment.strategy = DeploymentStrategy::Recreate;
    cluster.put(deployment);
    cluster.run(5);
    let old: Vec<_> = cluster.pods().iter().map(|pod| pod.meta.uid.clone()).collect();
    set_template(&mut cluster, Kind::Deployment, "web", "2");
    for _ in 0..20 {
        cluster.run(1);
        let pods = cluster.pods();
        let olds = pods.iter().filter(|pod| old.contains(&pod.meta.uid)).count();
        assert!(olds == 0 || olds == pods.len(), "old and new side by side");
    }
    assert_eq!(cluster.deployment("web").status.available, 4);
}

#[test]
fn a_paused_deployment_scales_in_proportion_and_rolls_nothing() {
    let mut cluster = Cluster::new(2);
    let deployment = cluster.new_deployment("web", 10);
    cluster.put(deployment);
    cluster.run(5);
    // Half way through a rollout that is stuck, pause and scale.
    cluster.broken.push("web-".into());
    set_template(&mut cluster, Kind::Deployment, "web", "2");
    cluster.run(5);
    cluster.edit(Kind::Deployment, "default", "web", |object| {
        if let Object::Deployment(o) = object {
            Arc::make_mut(o).paused = true;
            Arc::make_mut(o).replicas = 20;
        }
    });
    cluster.run(5);
    let mut sizes: Vec<i32> = cluster
        .api
        .list(Kind::ReplicaSet)
        .filter_map(|o| if let Object::ReplicaSet(set) = o { Some(set.replicas) } else { None })
        .collect();
    sizes.sort_unstable();
    // 8 old and 5 new of at most 13 become 25 in the same proportion.
    assert_eq!(sizes, [10, 15]);
    assert_eq!(
        truth(&cluster.deployment("web").status.conditions, "Progressing"),
        (Truth::Unknown, "DeploymentPaused".into())
    );
}

#[test]
fn a_rollout_that_does_not_get_on_times_out() {
    let mut cluster = Cluster::new(2);
    let mut deployment = cluster.new_deployment("web", 2);
    deployment.progress_deadline_s = Some(10);
    cluster.broken.push("web-".into());
    cluster.put(deployment);
    cluster.run(15);
    assert_eq!(
        truth(&cluster.deployment("web").status.conditions, "Progressing"),
        (Truth::False, "ProgressDeadlineExceeded".into())
    );
    assert_eq!(truth(&cluster.deployment("web").status.conditions, "Available").0, Truth::False);
}

#[test]
fn history_is_limited() {
    let mut cluster = Cluster::new(2);
    let mut deployment = cluster.new_deployment("web", 1);
    deployment.history_limit = Some(2);
    cluster.put(deployment);
    for version in ["2", "3", "4", "5"] {
        cluster.run(10);
        set_template(&mut cluster, Kind::Deployment, "web", version);
    }
    cluster.run(10);
    assert_eq!(cluster.count(Kind::ReplicaSet), 3);
}

#[test]
fn scaling_down_and_deleting_take_everything_along() {
    let mut cluster = Cluster::new(3);
    let deployment = cluster.new_deployment("web", 6);
    cluster.put(deployment);
    cluster.run(5);
    scale(&mut cluster, Kind::Deployment, "web", 2);
    cluster.run(5);
    assert_eq!(cluster.pods().len(), 2);
    cluster.delete(Kind::Deployment, "default", "web", Propagation::Background);
    cluster.run(10);
    assert_eq!((cluster.count(Kind::ReplicaSet), cluster.pods().len()), (0, 0));
}

#[test]
fn a_foreground_deletion_ends_with_the_owner_and_orphans_stay() {
    let mut cluster = Cluster::new(3);
    for name in ["web", "api"] {
        let deployment = cluster.new_deployment(name, 2);
        cluster.put(deployment);
    }
    cluster.run(5);
    cluster.delete(Kind::Deployment, "default", "web", Propagation::Foreground);
    cluster.settle();
    assert!(cluster.deployment("web").meta.is_deleting(), "waits for its dependents");
    cluster.delete(Kind::Deployment, "default", "api", Propagation::Orphan);
    cluster.run(10);
    assert_eq!((cluster.count(Kind::Deployment), cluster.count(Kind::ReplicaSet), cluster.pods().len()), (0, 1, 2));
    assert!(cluster.pods().iter().all(|pod| pod.meta.label("app") == Some("api")));
}

#[test]
fn a_stateful_set_goes_in_order_and_keeps_names_and_claims() {
    let mut cluster = Cluster::new(3);
    let mut set = cluster.new_stateful_set("db", 3);
    let claim = model::Doc::new("{\"claim\":1}");
    cluster.api.blueprints.claims.insert(claim.hash(), model::PersistentVolumeClaim::default());
    set.claim_templates = vec![("data".into(), claim)];
    cluster.put(set);
    for _ in 0..10 {
        cluster.run(1);
        let pods = cluster.pods();
        for (index, pod) in pods.iter().enumerate() {
            assert_eq!(&*pod.meta.key.name, format!("db-{index}"));
            assert!(index + 1 == pods.len() || pod.is_ready(), "the next comes when the one before is ready");
        }
    }
    assert_eq!((cluster.pods().len(), cluster.count(Kind::PersistentVolumeClaim)), (3, 3));
    assert_eq!(cluster.pods()[1].spec.claims, [Arc::from("data-db-1")]);
    scale(&mut cluster, Kind::StatefulSet, "db", 1);
    cluster.run(10);
    assert_eq!((cluster.pods().len(), cluster.count(Kind::PersistentVolumeClaim)), (1, 3));
}

#[test]
fn a_stateful_set_rolls_from_the_top_down_to_the_partition() {
    let mut cluster = Cluster::new(3);
    let mut set = cluster.new_stateful_set("db", 4);
    set.update = StatefulSetUpdate::RollingUpdate { partition: 2, max_unavailable: Amount::Number(1) };
    cluster.put(set);
    cluster.run(10);
    let before: Vec<_> = cluster.pods().iter().map(|pod| pod.meta.uid.clone()).collect();
    set_template(&mut cluster, Kind::StatefulSet, "db", "2");
    for _ in 0..15 {
        cluster.run(1);
        assert!(cluster.pods().iter().filter(|pod| pod.is_ready()).count() >= 3);
    }
    let after: Vec<_> = cluster.pods().iter().map(|pod| pod.meta.uid.clone()).collect();
    assert_eq!(before[..2], after[..2]);
    assert!(before[2] != after[2] && before[3] != after[3]);
    // A pod below the partition that dies comes back as it was.
    cluster.delete(Kind::Pod, "default", "db-0", Propagation::Default);
    cluster.run(5);
    let revision = |index: usize| cluster.pods()[index].meta.label("controller-revision-hash").map(str::to_owned);
    assert_eq!(revision(0), revision(1));
    assert_ne!(revision(0), revision(3));
}

#[test]
fn a_daemon_set_follows_nodes_and_their_taints() {
    let mut cluster = Cluster::new(4);
    let mut set = cluster.new_daemon_set("agent");
    set.update = DaemonSetUpdate::RollingUpdate { max_unavailable: Amount::Number(1), max_surge: Amount::Number(0) };
    cluster.put(set);
    cluster.run(6);
    assert_eq!(cluster.pods().len(), 4);
    cluster.edit(Kind::Node, "", "node-0", |object| {
        if let Object::Node(o) = object {
            Arc::make_mut(o).taints.push(model::Taint::new("dedicated", model::taint::TaintEffect::NoExecute));
        }
    });
    cluster.run(4);
    assert_eq!(cluster.pods().len(), 3);
    set_template(&mut cluster, Kind::DaemonSet, "agent", "2");
    let old: Vec<_> = cluster.pods().iter().map(|pod| pod.meta.uid.clone()).collect();
    for _ in 0..15 {
        cluster.run(1);
        assert!(cluster.pods().iter().filter(|pod| pod.is_ready()).count() >= 2);
    }
    assert!(cluster.pods().iter().all(|pod| !old.contains(&pod.meta.uid)));
    let Some(Object::DaemonSet(set)) = cluster.api.list(Kind::DaemonSet).next() else { panic!("no set") };
    assert_eq!((set.status.desired, set.status.ready, set.status.updated, set.status.misscheduled), (3, 3, 3, 0));
}

#[test]
fn orphans_are_adopted_and_strays_released() {
    let mut cluster = Cluster::new(2);
    let deployment = cluster.new_deployment("web", 2);
    cluster.put(deployment);
    cluster.run(5);
    let stray = cluster.pods()[0].meta.key.clone();
    cluster.edit(Kind::Pod, "default", &stray.name, |object| {
        crate::imagined::meta_mut(object).labels = labels(&[("app", "other")])
    });
    cluster.run(5);
    let pods = cluster.pods();
    assert_eq!(pods.len(), 3);
    assert!(pods.iter().any(|pod| pod.meta.key == stray && pod.meta.owners.is_empty()));
}
