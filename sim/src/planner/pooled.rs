//! The placement engine's pool and queue as players: all its rules, whole GPUs as a resource.

use super::run::{Engine, Step};
use super::scenario::{GPU, GPU_MODEL, GpuAsk, Policy, Scenario};
use super::usage::Hot;
use model::scheduling::{NodeTerm, PodFacts, SchedulingSpec};
use model::selector::{Operator, Requirement};
use placement::{Decision, Diagnosis, FitStrategy, Hint, LoadPolicy, NodeId, PodId, Pool, Queue};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

pub(crate) struct Pooled<'a> {
    scenario: &'a Scenario,
    pool: Pool,
    queue: Queue,
    specs: Vec<Arc<SchedulingSpec>>,
    /// By the pool's number: ours.
    pods: BTreeMap<PodId, u32>,
    nodes: Vec<NodeId>,
    numbers: BTreeMap<NodeId, usize>,
    steps: VecDeque<Step>,
    /// Kinds of pods (spec and labels, by address) that were refused since the pool last changed, and why: others of the kind are
    /// refused for the same reasons.
    refused: BTreeMap<(usize, usize), Diagnosis>,
}

/// The spec with its GPUs as the pool knows them: a resource, and a rule on the node's model.
fn with_gpus(spec: &SchedulingSpec, gpu: &GpuAsk) -> SchedulingSpec {
    let mut spec = spec.clone();
    spec.requests.push((GPU.into(), i64::from(gpu.count)));
    spec.requests.sort();
    if !gpu.models.is_empty() {
        let mut values = gpu.models.clone();
        values.sort();
        let wanted = Requirement { key: GPU_MODEL.into(), operator: Operator::In, values };
        let terms = spec.node_affinity.get_or_insert_with(|| vec![NodeTerm::default()]);
        for term in terms {
            term.expressions.push(wanted.clone());
        }
    }
    spec
}

fn specs(scenario: &Scenario) -> Vec<Arc<SchedulingSpec>> {
    let mut known: BTreeMap<(*const SchedulingSpec, &GpuAsk), Arc<SchedulingSpec>> = BTreeMap::new();
    let spec = |pod: &'_ super::scenario::PlannedPod| (Arc::as_ptr(&pod.spec), pod.spec.clone());
    scenario
        .pods
        .iter()
        .map(|pod| {
            let (address, own) = spec(pod);
            if pod.gpu.count == 0 {
                return own;
            }
            known.entry((address, &pod.gpu)).or_insert_with(|| Arc::new(with_gpus(&own, &pod.gpu))).clone()
        })
        .collect()
}

impl<'a> Pooled<'a> {
    pub(crate) fn new(scenario: &'a Scenario, policy: Policy, hot: Hot) -> Pooled<'a> {
        let mut pool = Pool::new();
        if policy == Policy::Pack {
            pool.set_fit_strategy(FitStrategy::MostAllocated);
        }
        if policy == Policy::LoadAware {
            let bounds = LoadPolicy { cpu_pct: hot.cpu_pct, memory_pct: hot.memory_pct, ..LoadPolicy::default() };
            pool.set_load_policy(Some(bounds));
        }
        for namespace in scenario.pods.iter().map(|pod| &pod.namespace) {
            pool.set_namespace(namespace, Arc::default());
        }
        let mut player = Pooled {
            scenario,
            pool,
            queue: Queue::new(),
            specs: specs(scenario),
            pods: BTreeMap::new(),
            nodes: vec![NodeId::MAX; scenario.nodes.len()],
            numbers: BTreeMap::new(),
            steps: VecDeque::new(),
            refused: BTreeMap::new(),
        };
        for node in 0..scenario.nodes.len() {
            player.up(node);
        }
        player
    }

    fn facts(&self, pod: u32) -> PodFacts {
        let planned = &self.scenario.pods[pod as usize];
        PodFacts {
            namespace: planned.namespace.clone(),
            name: planned.name.clone(),
            labels: planned.labels.clone(),
            spec: self.specs[pod as usize].clone(),
            node: if planned.pinned { planned.is_at.clone() } else { "".into() },
            ..PodFacts::default()
        }
    }

    fn kind(&self, pod: u32) -> (usize, usize) {
        let labels = Arc::as_ptr(&self.scenario.pods[pod as usize].labels) as usize;
        (Arc::as_ptr(&self.specs[pod as usize]) as usize, labels)
    }

    fn take_off(&mut self, pod: u32) {
        self.refused.clear();
        let planned = &self.scenario.pods[pod as usize];
        if let Some(id) = self.pool.pod_id(&planned.namespace, &planned.name) {
            self.queue.remove(id);
            self.pods.remove(&id);
        }
        if let Some(node) = self.pool.remove_pod(&planned.namespace, &planned.name) {
            self.queue.wake(&self.pool, &Hint::PodLeft(node));
        }
    }

    fn refuse(&mut self, id: PodId, pod: u32, diagnosis: Diagnosis) {
        self.queue.refuse(id, &diagnosis);
        let Ok(preemption) = self.pool.preempt(id, &diagnosis) else {
            self.steps.push_back(Step::Refused(pod));
            if self.pool.pod_nominated(id).is_none() {
                self.refused.insert(self.kind(pod), diagnosis);
            }
            return;
        };
        self.refused.clear();
        for victim in &preemption.victims {
            if let Some(number) = self.pods.get(&victim.pod).copied() {
                self.take_off(number);
                self.steps.push_back(Step::Evicted(number));
            }
        }
        for displaced in preemption.displaced {
            self.pool.set_nominated(displaced, None);
            self.queue.push(displaced, self.pool.pod_priority(displaced));
        }
        self.pool.set_nominated(id, Some(preemption.node));
        self.queue.push(id, self.pool.pod_priority(id));
    }
}

impl Engine for Pooled<'_> {
    fn arrive(&mut self, pod: u32) {
        let facts = self.facts(pod);
        let (id, _) = self.pool.set_pod(&facts);
        self.pods.insert(id, pod);
        if facts.node.is_empty() {
            self.queue.push(id, facts.spec.priority);
        } else if let Some(node) = self.pool.pod_node(id) {
            self.steps.push_back(Step::Placed(pod, self.numbers[&node], None));
        }
    }

    fn next(&mut self) -> Option<Step> {
        loop {
            if let Some(step) = self.steps.pop_front() {
                return Some(step);
            }
            let id = self.queue.pop()?;
            let pod = self.pods[&id];
            if let Some(diagnosis) = self.refused.get(&self.kind(pod)).filter(|_| self.pool.pod_nominated(id).is_none())
            {
                self.queue.refuse(id, diagnosis);
                return Some(Step::Refused(pod));
            }
            match self.pool.decide(id) {
                Decision::Place(placement) => {
                    self.queue.remove(id);
                    self.pool.assume(id, placement.node);
                    self.queue.wake(&self.pool, &Hint::PodCame(id));
                    self.refused.clear();
                    return Some(Step::Placed(pod, self.numbers[&placement.node], None));
                }
                Decision::Refuse(diagnosis) => self.refuse(id, pod, diagnosis),
            }
        }
    }

    fn leave(&mut self, pod: u32, _seat: (usize, u32)) {
        self.take_off(pod);
    }

    fn withdraw(&mut self, pod: u32) {
        self.take_off(pod);
    }

    fn up(&mut self, node: usize) {
        let facts = self.scenario.nodes[node].facts.clone();
        let name = facts.name.clone();
        self.refused.clear();
        self.pool.set_node(facts);
        if let Some(id) = self.pool.node_id(&name) {
            self.nodes[node] = id;
            self.numbers.insert(id, node);
            self.queue.wake(&self.pool, &Hint::Node(id));
        }
    }

    fn down(&mut self, node: usize) {
        self.refused.clear();
        self.pool.remove_node(&self.scenario.nodes[node].facts.name);
        self.numbers.remove(&self.nodes[node]);
        self.queue.wake(&self.pool, &Hint::Labels);
    }

    fn report(&mut self, node: usize, cpu: i64, memory: i64) {
        self.refused.clear();
        self.pool.set_usage(self.nodes[node], Some((cpu, memory)));
        self.queue.wake(&self.pool, &Hint::Node(self.nodes[node]));
    }
}
