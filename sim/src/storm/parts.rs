//! What nodes consist of, and what is kept on them: volumes with places and attach limits, NUMA zones, GPUs that are shared, reservations.

use super::{CREATE_MS, FAULTS_MS, Storm, meta, selector};
use crate::cluster::Cluster;
use crate::storage::{DRIVER, HANDLE};
use model::cluster::Node;
use model::scheduling::{
    Claim, CsiNodeFacts, GpuFacts, Reservation, ReservationOwner, SchedulingSpec, TopologyFacts, ZONE,
};
use model::volume::{PersistentVolume, PersistentVolumeClaim, StorageClass};
use model::{Doc, Key, Labels, Meta, Quantity};
use placement::GPU_CORE;
use std::sync::Arc;

/// Class whose volumes are made when the first pod has its node.
const LATE: &str = "late";
/// Class of volumes that are there before.
const READY: &str = "ready";
/// What makes volumes of [`LATE`].
const PROVISIONER: &str = "diolkos.io/host-path";

/// What a storm is about besides what every storm is about.
#[derive(Clone, Copy, Default)]
pub(super) struct Parts {
    volumes: bool,
    zones: bool,
    gpus: bool,
    reservations: bool,
}

/// What is told of a node besides its object.
#[derive(Clone, Default)]
pub(super) struct Furniture {
    zones: Option<TopologyFacts>,
    gpus: Option<GpuFacts>,
    attach: Option<CsiNodeFacts>,
}

impl Furniture {
    /// Tells it.
    pub(super) fn tell(self, cluster: &mut Cluster) {
        self.zones.into_iter().for_each(|zones| cluster.zones(zones));
        self.gpus.into_iter().for_each(|gpus| cluster.gpus(gpus));
        self.attach.into_iter().for_each(|limits| cluster.attach_limits(limits));
    }
}

fn named(name: &str) -> Meta {
    Meta { key: Key::new("", name), ..Meta::default() }
}

impl Storm {
    pub(super) fn choose_parts(&mut self) {
        self.parts = Parts {
            volumes: self.one_in(3),
            zones: self.one_in(3),
            gpus: self.one_in(3),
            reservations: self.one_in(3),
        };
    }

    /// Gives a node parts, and says what is to be told of them.
    pub(super) fn furnish(&mut self, node: &mut Node) -> Furniture {
        let name = node.meta.key.name.clone();
        let mut furniture = Furniture::default();
        if self.parts.gpus && self.one_in(2) {
            let count = self.random.between(1, 3) as i32;
            let amounts = &mut Arc::make_mut(&mut node.scheduling).allocatable;
            amounts.push((GPU_CORE.into(), i64::from(count) * 100));
            amounts.sort();
            furniture.gpus = Some(GpuFacts { node: name.clone(), minors: (0..count).collect() });
        }
        if self.parts.zones && self.one_in(2) {
            let policy = self.pick(&["best-effort", "restricted", "single-numa-node", "single-numa-node"]);
            let by_zone = |(name, amount): &(Arc<str>, i64)| {
                (**name != *"pods" && **name != *GPU_CORE).then(|| (name.clone(), amount / 2))
            };
            let zone: Vec<(Arc<str>, i64)> = node.scheduling.allocatable.iter().filter_map(by_zone).collect();
            furniture.zones =
                Some(TopologyFacts { node: name.clone(), policy: policy.into(), zones: vec![zone.clone(), zone] });
        }
        if self.parts.volumes && self.one_in(2) {
            let most = self.random.between(1, 2) as i32;
            furniture.attach = Some(CsiNodeFacts { name, limits: vec![(DRIVER.into(), Some(most))] });
        }
        furniture
    }

    /// Requests of parts.
    pub(super) fn want_parts(&mut self, spec: &mut SchedulingSpec) {
        if self.parts.gpus && self.one_in(4) {
            spec.requests.push((GPU_CORE.into(), self.pick(&[30, 50, 60, 60, 100, 200])));
            spec.requests.sort();
        }
        if self.parts.zones && self.one_in(2) {
            spec.guaranteed = true;
            let cores = self.pick(&[1_000, 1_000, 2_000, 500]);
            spec.requests.iter_mut().filter(|(name, _)| **name == *"cpu").for_each(|(_, amount)| *amount = cores);
            spec.nominal.0 = cores;
        }
    }

    /// Classes of storage.
    pub(super) fn classes(&mut self, cluster: &mut Cluster) {
        if !self.parts.volumes {
            return;
        }
        cluster.put(StorageClass {
            meta: named(LATE),
            provisioner: PROVISIONER.into(),
            wait_for_consumer: true,
            ..StorageClass::default()
        });
        cluster.put(StorageClass { meta: named(READY), provisioner: DRIVER.into(), ..StorageClass::default() });
    }

    /// A claim of a workload's own, whose volume is attached: in one zone, on some nodes, or anywhere.
    pub(super) fn claim(&mut self, cluster: &mut Cluster, app: &str, spec: &mut SchedulingSpec) {
        if !self.parts.volumes || !self.one_in(2) {
            return;
        }
        let modes: Vec<Arc<str>> = vec![self.pick(&["ReadWriteMany", "ReadWriteMany", "ReadWriteOncePod"]).into()];
        let capacity = Quantity::from_units(1 << 30);
        let mut labels = Labels::new();
        let mut nodes = None;
        match self.random.between(0, 2) {
            0 => drop(labels.insert(ZONE.into(), format!("zone-{}", self.random.between(0, 2)).into())),
            1 => nodes = Some((0..3).map(|at| Arc::from(format!("node-{at}"))).collect()),
            _ => {}
        }
        let annotations = Labels::from([(HANDLE.into(), Arc::from(app))]);
        cluster.put(PersistentVolume {
            meta: Meta { labels, annotations, ..named(&format!("volume-{app}")) },
            class: READY.into(),
            capacity,
            access_modes: modes.clone(),
            nodes,
            ..PersistentVolume::default()
        });
        cluster.put(PersistentVolumeClaim {
            meta: meta(app),
            class: Some(READY.into()),
            volume: format!("volume-{app}").as_str().into(),
            access_modes: modes,
            request: capacity,
            ..PersistentVolumeClaim::default()
        });
        spec.claims = vec![Claim { name: app.into(), made_for: None }];
    }

    /// Claims of a set's pods, each of its own, whose volumes are made where the pod is put.
    pub(super) fn claim_templates(&mut self, cluster: &mut Cluster, app: &str) -> Vec<(Arc<str>, Doc)> {
        if !self.parts.volumes || !self.one_in(2) {
            return Vec::new();
        }
        let body = Doc::new(format!("{{\"claim\":\"{app}\"}}"));
        let claim = PersistentVolumeClaim {
            class: Some(LATE.into()),
            access_modes: vec!["ReadWriteOnce".into()],
            request: Quantity::from_units(1 << 30),
            ..PersistentVolumeClaim::default()
        };
        cluster.api.blueprints.claims.insert(body.hash(), claim);
        vec![("data".into(), body)]
    }

    /// Room that is held for pods of some workloads; all of it ends before the calm.
    pub(super) fn reservations(&mut self, cluster: &mut Cluster) {
        if !self.parts.reservations {
            return;
        }
        for index in 0..self.random.between(1, 3) {
            let app = format!("app-{}", self.random.between(0, 7));
            let name: Arc<str> = format!("reservation-{index}").into();
            let at = self.random.between(0, 2 * CREATE_MS);
            let (cpu, memory) = (self.pick(&[500, 1_000, 2_000]), self.pick(&[256, 1024]) << 20);
            let template = SchedulingSpec {
                requests: vec![("cpu".into(), cpu), ("memory".into(), memory)],
                nominal: (cpu, memory),
                priority: self.pick(&[0, 1000]),
                ..SchedulingSpec::default()
            };
            let expires = cluster.now.plus_ms(self.random.between(at + 5_000, FAULTS_MS));
            let facts = Reservation {
                name: name.clone(),
                namespace: "team".into(),
                template: Arc::new(template),
                owners: vec![ReservationOwner { labels: Some(selector(&app)), ..ReservationOwner::default() }],
                allocate_once: self.one_in(2),
                expires: Some(expires),
                ..Reservation::default()
            };
            cluster.then(at, move |cluster| cluster.reservation(facts));
            if self.one_in(3) {
                cluster.then(at + 30_000, move |cluster| cluster.reservation_gone(&name));
            }
        }
    }
}
