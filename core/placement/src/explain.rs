//! Why a pod is not placed, in kube-scheduler's words.

use crate::class::{CPU, EXTENDED};
use crate::evaluate::Evaluation;
use crate::filter::{Code, Verdict, resource_bit};
use crate::pool::{NodeId, Pool};
use std::collections::BTreeMap;
use std::sync::Arc;

/// One reason and how many nodes give it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reason {
    /// Nodes.
    pub nodes: usize,
    /// `Insufficient cpu`, `node(s) had untolerated taint(s)`, ...
    pub text: Arc<str>,
}

/// Why no node can have a pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Diagnosis {
    /// Nodes in the pool.
    pub nodes: usize,
    /// Why no node was asked at all (its storage is not ready).
    pub blocked: Option<String>,
    /// Reasons by nodes, in the order in which they are told.
    pub reasons: Vec<Reason>,
    /// Which filters refused, as bits by their number.
    pub(crate) refused_by: u32,
    /// Verdicts with their number of nodes.
    pub(crate) counts: BTreeMap<Verdict, usize>,
    /// Every node's verdict, when every node was asked.
    pub(crate) verdicts: Vec<(NodeId, Verdict)>,
}

impl Diagnosis {
    pub(crate) fn new(pool: &Pool, evaluation: Evaluation) -> Self {
        let mut counts: BTreeMap<Verdict, usize> = BTreeMap::new();
        for (_, verdict) in &evaluation.verdicts {
            *counts.entry(*verdict).or_default() += 1;
        }
        let mut diagnosis = Diagnosis::counted(pool, &counts);
        diagnosis.blocked = evaluation.blocked;
        diagnosis.verdicts = evaluation.verdicts;
        if diagnosis.blocked.is_some() {
            diagnosis.refused_by |= 1 << Code::VolumeBinding as u32;
        }
        diagnosis
    }

    /// From numbers of nodes alone.
    pub(crate) fn counted(pool: &Pool, counts: &BTreeMap<Verdict, usize>) -> Self {
        Diagnosis {
            nodes: pool.node_ids.len(),
            blocked: None,
            reasons: reasons(pool, counts),
            refused_by: counts.keys().fold(0, |bits, verdict| bits | 1 << verdict.code as u32),
            counts: counts.clone(),
            verdicts: Vec::new(),
        }
    }

    /// `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint(s).`
    pub fn message(&self) -> String {
        if self.nodes == 0 {
            return "no nodes available to schedule pods".to_owned();
        }
        let because = match &self.blocked {
            Some(blocked) => blocked.clone(),
            None => histogram(&self.reasons),
        };
        format!("0/{} nodes are available: {because}.", self.nodes)
    }
}

/// `1 Insufficient cpu, 2 node(s) had untolerated taint(s)`.
pub(crate) fn histogram(reasons: &[Reason]) -> String {
    let parts: Vec<String> = reasons.iter().map(|reason| format!("{} {}", reason.nodes, reason.text)).collect();
    parts.join(", ")
}

/// Verdicts as reasons, sorted as kube-scheduler sorts them: by their text with the number in front.
pub(crate) fn reasons(pool: &Pool, counts: &BTreeMap<Verdict, usize>) -> Vec<Reason> {
    let mut by_text: BTreeMap<Arc<str>, usize> = BTreeMap::new();
    for (verdict, nodes) in counts {
        for text in texts(pool, *verdict) {
            *by_text.entry(text).or_default() += nodes;
        }
    }
    let mut reasons: Vec<Reason> = by_text.into_iter().map(|(text, nodes)| Reason { nodes, text }).collect();
    reasons.sort_by_cached_key(|reason| format!("{} {}", reason.nodes, reason.text));
    reasons
}

fn texts(pool: &Pool, verdict: Verdict) -> Vec<Arc<str>> {
    let one = |text: &str| vec![Arc::from(text)];
    match verdict.code {
        Code::Ok => Vec::new(),
        Code::Cordoned => one("node(s) were unschedulable"),
        Code::OtherName => one("node(s) didn't satisfy plugin(s) [NodeAffinity]"),
        Code::Taint => one("node(s) had untolerated taint(s)"),
        Code::NodeAffinity => one("node(s) didn't match Pod's node affinity/selector"),
        Code::Ports => one("node(s) didn't have free ports for the requested pod ports"),
        Code::Resources => insufficient(pool, verdict.detail),
        Code::Numa => one("node(s) NUMA Topology affinity error"),
        Code::Gpus => one("Insufficient gpu devices"),
        Code::Load => one("node(s) were too busy"),
        Code::Disk => one("node(s) had no available disk"),
        Code::ExclusiveClaim => one(
            "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod",
        ),
        Code::VolumeLimit => one("node(s) exceed max volume count"),
        Code::VolumeMissing => one("node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"),
        Code::VolumeBinding => {
            let mut texts = Vec::new();
            if verdict.detail & Verdict::VOLUME_CONFLICT != 0 {
                texts.extend(one("node(s) didn't match PersistentVolume's node affinity"));
            }
            if verdict.detail & Verdict::NO_VOLUME != 0 {
                texts.extend(one("node(s) didn't find available persistent volumes to bind"));
            }
            texts
        }
        Code::VolumeZone => one("node(s) had no available volume zone"),
        Code::SpreadLabel => one("node(s) didn't match pod topology spread constraints (missing required label)"),
        Code::Spread => one("node(s) didn't match pod topology spread constraints"),
        Code::Affinity => one("node(s) didn't match pod affinity rules"),
        Code::AntiAffinity => one("node(s) didn't match pod anti-affinity rules"),
        Code::ExistingAntiAffinity => one("node(s) didn't satisfy existing pods anti-affinity rules"),
    }
}

fn insufficient(pool: &Pool, detail: u32) -> Vec<Arc<str>> {
    let mut texts = Vec::new();
    if detail & Verdict::PODS != 0 {
        texts.push("Too many pods".into());
    }
    for (resource, name) in pool.resources.iter().enumerate().skip(CPU) {
        if detail & resource_bit(resource) != 0 && (resource < EXTENDED || resource + 1 < 30) {
            texts.push(format!("Insufficient {name}").into());
        }
    }
    texts
}
