//! What pods are given of a node's parts, and of what was reserved: told in their annotations, as Koordinator writes them.

use super::Scheduler;
use model::scheduling::{GpuFacts, Reservation};
use model::{Labels, Timestamp};
use placement::{Decision, GPU_CORE, GPU_MEMORY, GpuShare, Hint, PodId};
use std::fmt::Write as _;

/// Annotation that says which GPUs a pod has.
const DEVICES: &str = "scheduling.koordinator.sh/device-allocated";
/// Annotation that says which reservation a pod draws on.
const DRAWN: &str = "scheduling.koordinator.sh/reservation-allocated";

/// `{"gpu":[{"minor":0,"resources":{"koordinator.sh/gpu-core":"50","koordinator.sh/gpu-memory-ratio":"50"}}]}`
fn devices_text(given: &[(i32, GpuShare)]) -> String {
    let mut text = String::from("{\"gpu\":[");
    for (at, (minor, share)) in given.iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        let _ = write!(
            text,
            "{comma}{{\"minor\":{minor},\"resources\":{{\"{GPU_CORE}\":\"{}\",\"{GPU_MEMORY}\":\"{}\"}}}}",
            share.core, share.memory
        );
    }
    text + "]}"
}

/// Reads what [`devices_text`] and its peer write: minor numbers, each followed by its resources. What is not in that form is nothing.
fn read_devices(text: &str) -> Vec<(i32, GpuShare)> {
    let number = |part: &str, name: &str| -> Option<i64> {
        let (_, rest) = part.split_once(&format!("\"{name}\":"))?;
        let rest = rest.trim_start_matches([' ', '"']);
        rest[..rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())].parse().ok()
    };
    let Some((_, list)) = text.split_once("\"gpu\":") else { return Vec::new() };
    let list = list.split(']').next().unwrap_or_default();
    let one = |part: &str| {
        let minor = number(part, "minor")?;
        let share = |name: &str| number(part, name).unwrap_or(0).clamp(0, 100);
        Some((i32::try_from(minor).ok()?, GpuShare { core: share(GPU_CORE), memory: share(GPU_MEMORY) }))
    };
    list.split_inclusive("}}").filter_map(one).collect()
}

/// The name in `{"name":"r","uid":"..."}`.
fn read_drawn(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("\"name\":")?;
    rest.trim_start().strip_prefix('"')?.split('"').next()
}

impl Scheduler {
    /// A node tells of its GPUs one by one; None: no longer.
    pub fn gpus(&mut self, node: &str, facts: Option<&GpuFacts>) {
        self.pool.set_gpus(node, facts.map(|facts| &*facts.minors));
        if let Some(id) = self.pool.node_id(node) {
            self.queue.wake(&self.pool, &Hint::Node(id));
        }
    }

    /// What a placed pod's annotations say that it has.
    pub(super) fn heed_parts(&mut self, id: PodId, annotations: &Labels) {
        if let Some(text) = annotations.get(DEVICES) {
            self.pool.set_gpus_of(id, &read_devices(text));
        }
        if let Some(name) = annotations.get(DRAWN).and_then(|text| read_drawn(text))
            && !self.pool.draw(id, name)
            && self.pool.drawn_on(id).is_none()
        {
            self.reserved.expect(self.pool.pod_key(id), name);
        }
    }

    /// Annotations that a pod gets with its binding.
    pub(super) fn parts_of(&self, id: PodId) -> Labels {
        let mut annotations = Labels::new();
        let given = self.pool.gpus_of(id);
        if !given.is_empty() {
            annotations.insert(DEVICES.into(), devices_text(&given).into());
        }
        if let Some(name) = self.pool.drawn_on(id) {
            let text = match self.reserved.uid(name) {
                uid if uid.is_empty() => format!("{{\"name\":\"{name}\"}}"),
                uid => format!("{{\"name\":\"{name}\",\"uid\":\"{uid}\"}}"),
            };
            annotations.insert(DRAWN.into(), text.into());
        }
        annotations
    }

    // Reservations.

    /// A reservation is now as given: it waits for a node like a pod, and then holds what its template asks for.
    pub fn reservation(&mut self, facts: Reservation) {
        let (name, priority) = (facts.name.clone(), facts.template.priority);
        let before = self.pool.reservation_id(&name);
        let node = before.and_then(|id| self.pool.pod_node(id));
        let id = self.pool.set_reservation(facts);
        if before == Some(id) {
            // The same capacity, for others perhaps.
            self.queue.wake(&self.pool, &Hint::Reserved(id));
            return;
        }
        before.into_iter().for_each(|before| self.let_go(before));
        self.let_go(id);
        if let Some(node) = node {
            self.queue.wake(&self.pool, &Hint::PodLeft(node));
        }
        self.queue.push(id, priority);
    }

    /// A reservation is gone: what it held is free.
    pub fn reservation_gone(&mut self, name: &str) {
        if let Some(id) = self.pool.reservation_id(name) {
            self.let_go(id);
            if let Some(node) = self.pool.remove_reservation(name) {
                self.queue.wake(&self.pool, &Hint::PodLeft(node));
            }
        }
    }

    pub(super) fn decide_reservation(&mut self, id: PodId) {
        match self.pool.decide(id) {
            Decision::Place(placement) => {
                self.queue.remove(id);
                self.pool.assume(id, placement.node);
                self.queue.wake(&self.pool, &Hint::PodCame(id));
                self.queue.wake(&self.pool, &Hint::Reserved(id));
            }
            Decision::Refuse(diagnosis) => {
                self.reserved.refused(&self.pool.pod_key(id).name, &diagnosis.message());
                self.queue.refuse(id, &diagnosis);
            }
        }
    }

    /// Ends reservations whose time is over.
    pub(super) fn expire_reservations(&mut self, now: Timestamp) {
        if self.pool.next_expiry().is_none_or(|at| at > now) {
            return;
        }
        for name in self.pool.expired_reservations(now) {
            self.reservation_gone(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Effect;
    use model::scheduling::{NodeFacts, NodeScheduling, PodFacts, ReservationOwner, SchedulingSpec};
    use std::sync::Arc;

    #[test]
    fn what_is_written_is_read() {
        let given = vec![(0, GpuShare { core: 50, memory: 25 }), (3, GpuShare { core: 100, memory: 100 })];
        assert_eq!(read_devices(&devices_text(&given)), given);
        let peer = r#"{"gpu":[{"minor":1,"resources":{"koordinator.sh/gpu-core":"60","koordinator.sh/gpu-memory":"8Gi","koordinator.sh/gpu-memory-ratio":"50"}}],"rdma":[{"minor":2,"resources":{"koordinator.sh/rdma":"1"}}]}"#;
        assert_eq!(read_devices(peer), [(1, GpuShare { core: 60, memory: 50 })]);
        for text in ["", "{}", "{\"gpu\":[]}", "{\"gpu\":[{\"minor\":\"x\"}]}", "\"gpu\":é"] {
            assert_eq!(read_devices(text), []);
        }
        assert_eq!(read_drawn(r#"{"name":"r-1","uid":"u"}"#), Some("r-1"));
        assert_eq!(read_drawn("name"), None);
    }

    fn world() -> Scheduler {
        let mut scheduler = Scheduler::new();
        let allocatable =
            vec![("cpu".into(), 2000), (GPU_CORE.into(), 200), (GPU_MEMORY.into(), 200), ("pods".into(), 110)];
        let scheduling = Arc::new(NodeScheduling { allocatable, images: Vec::new() });
        scheduler.node(NodeFacts { name: "n".into(), scheduling, ..NodeFacts::default() });
        scheduler
    }

    fn pod(scheduler: &mut Scheduler, name: &str, requests: &[(&str, i64)]) {
        let requests = requests.iter().map(|(name, amount)| (Arc::from(*name), *amount)).collect();
        let facts = PodFacts {
            namespace: "team".into(),
            name: name.into(),
            uid: name.into(),
            spec: Arc::new(SchedulingSpec { requests, ..SchedulingSpec::default() }),
            ..PodFacts::default()
        };
        scheduler.pod_facts(&facts, false, true, None);
    }

    fn step(scheduler: &mut Scheduler, at: i64) -> Vec<String> {
        let orders = scheduler.step(Timestamp::from_secs(at), 100);
        let tell = |effect: &Effect| match effect {
            Effect::Bind { pod, node, annotations } => {
                Some(format!("{} to {node} {}", pod.key.name, annotations.values().next().map_or("", |text| text)))
            }
            Effect::Record(note) if note.warning => Some(note.message.to_string()),
            _ => None,
        };
        orders.iter().flat_map(|order| &order.effects).filter_map(tell).collect()
    }

    #[test]
    fn a_pod_is_told_which_gpu_it_has() {
        let mut scheduler = world();
        scheduler.gpus("n", Some(&GpuFacts { node: "n".into(), minors: vec![0, 1] }));
        for name in ["a", "b", "c"] {
            pod(&mut scheduler, name, &[(GPU_CORE, 60), (GPU_MEMORY, 60)]);
        }
        let told = step(&mut scheduler, 1);
        assert!(told[0].starts_with("a to n") && told[0].contains("\"minor\":0"), "{told:?}");
        assert!(told[1].starts_with("b to n") && told[1].contains("\"minor\":1"), "{told:?}");
        assert!(told[2].starts_with("0/1 nodes are available: 1 Insufficient gpu devices."), "{told:?}");
    }

    #[test]
    fn a_reservation_holds_until_it_ends_or_its_owner_comes() {
        let mut scheduler = world();
        let held = |expires: i64| Reservation {
            name: "r".into(),
            template: Arc::new(SchedulingSpec { requests: vec![("cpu".into(), 1500)], ..SchedulingSpec::default() }),
            owners: vec![ReservationOwner { pod: Some("mine".into()), ..ReservationOwner::default() }],
            allocate_once: true,
            expires: Some(Timestamp::from_secs(expires)),
            ..Reservation::default()
        };
        scheduler.reservation(held(100));
        step(&mut scheduler, 1);
        pod(&mut scheduler, "other", &[("cpu", 1000)]);
        let told = step(&mut scheduler, 2);
        assert!(told[0].starts_with("0/1 nodes are available: 1 Insufficient cpu."), "{told:?}");
        pod(&mut scheduler, "mine", &[("cpu", 1000)]);
        let told = step(&mut scheduler, 3);
        assert_eq!(told, ["mine to n {\"name\":\"r\"}"]);
        let mut scheduler = world();
        scheduler.reservation(held(100));
        step(&mut scheduler, 1);
        pod(&mut scheduler, "other", &[("cpu", 1000)]);
        step(&mut scheduler, 2);
        assert_eq!(scheduler.wake_at(), Some(Timestamp::from_secs(100)));
        assert_eq!(step(&mut scheduler, 100), ["other to n "]);
    }
}
