//! A bounded window of measured usage: what `kubectl top`, the autoscaler and the dashboard ask for.

use model::map::HashMap;
use model::{Key, Timestamp};
use std::collections::VecDeque;
use std::sync::Arc;

/// How many samples of each pod and node are kept: at one in 15 s, a quarter of an hour.
const SAMPLES_MAX: usize = 60;

/// Usage of something at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// When it was measured.
    pub at: Timestamp,
    /// CPU in billionths of a core, mean since the measurement before.
    pub cpu_nano: u64,
    /// Working set in bytes.
    pub memory_bytes: u64,
}

/// Usage of one container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerUsage {
    /// Name.
    pub name: Arc<str>,
    /// What it used.
    pub sample: Sample,
}

/// Usage of one pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodUsage {
    /// Latest, by container.
    pub containers: Vec<ContainerUsage>,
    /// Sums over the containers, oldest first.
    pub history: VecDeque<Sample>,
}

/// Usage of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeUsage {
    /// Oldest first.
    pub history: VecDeque<Sample>,
}

/// The window.
#[derive(Debug, Default)]
pub struct Window {
    pods: HashMap<Key, PodUsage>,
    nodes: HashMap<Arc<str>, NodeUsage>,
}

fn push(history: &mut VecDeque<Sample>, sample: Sample) {
    if history.back().is_some_and(|last| last.at >= sample.at) {
        return;
    }
    if history.len() == SAMPLES_MAX {
        history.pop_front();
    }
    history.push_back(sample);
}

impl PodUsage {
    /// The latest sum.
    pub fn latest(&self) -> Option<Sample> {
        self.history.back().copied()
    }
}

impl Window {
    /// Takes in what one pod uses.
    pub fn observe_pod(&mut self, key: Key, at: Timestamp, containers: Vec<ContainerUsage>) {
        let usage = self.pods.entry(key).or_default();
        let sum = containers.iter().fold(Sample { at, ..Sample::default() }, |sum, container| Sample {
            at,
            cpu_nano: sum.cpu_nano.saturating_add(container.sample.cpu_nano),
            memory_bytes: sum.memory_bytes.saturating_add(container.sample.memory_bytes),
        });
        push(&mut usage.history, sum);
        usage.containers = containers;
    }
    /// Takes in what one node uses.
    pub fn observe_node(&mut self, node: Arc<str>, sample: Sample) {
        push(&mut self.nodes.entry(node).or_default().history, sample);
    }
    /// Forgets what was last measured before `before`: it is gone, or its agent does not answer.
    pub fn forget(&mut self, before: Timestamp) {
        let fresh = |history: &VecDeque<Sample>| history.back().is_some_and(|last| last.at >= before);
        self.pods.retain(|_, usage| fresh(&usage.history));
        self.nodes.retain(|_, usage| fresh(&usage.history));
    }
    /// One pod.
    pub fn pod(&self, key: &Key) -> Option<&PodUsage> {
        self.pods.get(key)
    }
    /// One node.
    pub fn node(&self, node: &str) -> Option<&NodeUsage> {
        self.nodes.get(node)
    }
    /// All pods, by name.
    pub fn pods(&self) -> Vec<(&Key, &PodUsage)> {
        let mut all: Vec<_> = self.pods.iter().collect();
        all.sort_by_key(|(key, _)| *key);
        all
    }
    /// All nodes, by name.
    pub fn nodes(&self) -> Vec<(&Arc<str>, &NodeUsage)> {
        let mut all: Vec<_> = self.nodes.iter().collect();
        all.sort_by_key(|(name, _)| *name);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_is_bounded_and_forgets() {
        let mut window = Window::default();
        for second in 0..100 {
            let at = Timestamp::from_secs(second);
            window.observe_node("n".into(), Sample { at, cpu_nano: second as u64, memory_bytes: 1 });
        }
        let history = &window.node("n").unwrap().history;
        assert_eq!((history.len(), history[0].cpu_nano), (SAMPLES_MAX, 40));
        window.forget(Timestamp::from_secs(100));
        assert!(window.node("n").is_none());
    }

    #[test]
    fn a_sample_that_is_not_newer_is_dropped() {
        let mut window = Window::default();
        let at = Timestamp::from_secs(5);
        for _ in 0..2 {
            window.observe_pod(Key::new("a", "b"), at, vec![]);
        }
        assert_eq!(window.pod(&Key::new("a", "b")).unwrap().history.len(), 1);
    }
}
