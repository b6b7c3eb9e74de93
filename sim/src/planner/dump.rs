//! A Kubernetes dump: `kubectl get nodes,pods --all-namespaces -o json`.

use super::input::{InputError, Place, line_of};
use super::openb::File;
use super::scenario::{Arrivals, GPU, GPU_MODEL, GpuAsk, PlannedNode, PlannedPod, Scenario, WHOLE};
use super::usage::Usage;
use model::Quantity;
use model::scheduling::{PodFacts, SchedulingSpec};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Says how to make such a file.
const MAKE: &str = "make it with: kubectl get nodes,pods --all-namespaces -o json";

#[derive(Deserialize)]
struct List<'a> {
    kind: Option<String>,
    #[serde(borrow)]
    items: Option<Vec<&'a RawValue>>,
}

/// What could not be taken over, counted.
#[derive(Default)]
struct LeftOut {
    ended: usize,
    gated: usize,
    claims: usize,
    others: usize,
}

/// Reads nodes and pods. Pods come in the order of their creation; those of DaemonSets and static ones stay on their node.
///
/// # Errors
/// What is wrong with the file, and where.
pub fn read(file: File<'_>, seed: u64) -> Result<Scenario, InputError> {
    let place = |line| Place { file: file.name, line };
    let list: List<'_> = serde_json::from_str(file.text)
        .map_err(|error| place(error.line()).error(format!("this is no list of objects in JSON: {error}"), MAKE))?;
    let items = list.items.ok_or_else(|| {
        let kind = list.kind.unwrap_or_else(|| "something else".into());
        place(1).error(format!("this is {kind}, and a List with items is wanted"), MAKE)
    })?;
    let mut left_out = LeftOut::default();
    let (mut nodes, mut pods): (Vec<PlannedNode>, Vec<(PodFacts, PlannedPod)>) = (Vec::new(), Vec::new());
    for item in items {
        let text = item.get();
        // Both are parts of one text: the difference of their addresses is where the item begins.
        let at = (text.as_ptr() as usize).saturating_sub(file.text.as_ptr() as usize);
        let here = place(line_of(file.text, at));
        let object: Value = serde_json::from_str(text)
            .map_err(|error| place(line_of(file.text, at) + error.line() - 1).error(error.to_string(), MAKE))?;
        match object["kind"].as_str() {
            Some("Node") => nodes.push(node(&object, here)?),
            Some("Pod") => pods.extend(pod(&object, here, seed, &mut left_out)?),
            _ => left_out.others += 1,
        }
    }
    if nodes.is_empty() {
        return Err(place(0).error("there are no nodes in it", MAKE));
    }
    let names: BTreeSet<&str> = nodes.iter().map(|node| &*node.facts.name).collect();
    for (_, pod) in &mut pods {
        pod.pinned &= names.contains(&*pod.is_at);
    }
    // What belongs to its node is there first; the others in the order of their creation, those that wait last.
    pods.sort_by(|(a, one), (b, other)| {
        let order = |facts: &PodFacts, pod: &PlannedPod| (!pod.pinned, facts.node.is_empty(), facts.created);
        order(a, one).cmp(&order(b, other)).then_with(|| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)))
    });
    Ok(Scenario {
        name: file.name.to_owned(),
        nodes,
        pods: pods.into_iter().map(|(_, pod)| pod).collect(),
        arrivals: Arrivals::Fill,
        end_s: 0,
        outages: Vec::new(),
        notes: left_out.notes(),
    })
}

impl LeftOut {
    fn notes(&self) -> Vec<String> {
        let mut notes = vec![
            "pods are placed anew, one after the other, in the order of their creation".to_owned(),
            "what pods really use is assumed, by a load model for each owner: the dump does not say".to_owned(),
        ];
        for (count, text) in [
            (self.ended, "pods have ended and are left out"),
            (self.gated, "pods are held back by scheduling gates and are left out"),
            (self.claims, "pods have PersistentVolumeClaims, whose volumes are not heeded"),
            (self.others, "objects are neither nodes nor pods and are left out"),
        ] {
            if count > 0 {
                notes.push(format!("{count} {text}"));
            }
        }
        notes
    }
}

fn check_quantities(amounts: &Value, whose: &str, here: Place<'_>) -> Result<(), InputError> {
    for (name, value) in amounts.as_object().into_iter().flatten() {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        if Quantity::parse(&text).is_err() {
            let what = format!("{whose}: {name} is {text:?}, which is no quantity");
            return Err(here.error(what, "give a Kubernetes quantity (such as 500m or 16Gi)"));
        }
    }
    Ok(())
}

fn node(object: &Value, here: Place<'_>) -> Result<PlannedNode, InputError> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    if name.is_empty() {
        return Err(here.error("a node has no metadata.name", MAKE));
    }
    check_quantities(&object["status"]["allocatable"], &format!("node {name}: status.allocatable"), here)?;
    let mut facts = project::scheduling::node(object);
    let has =
        |resource: &str| facts.scheduling.allocatable.iter().find(|(name, _)| &**name == resource).map(|(_, n)| *n);
    if has("cpu").is_none() || has("pods").is_none() {
        return Err(here.error(format!("node {name} has no status.allocatable for cpu and pods"), MAKE));
    }
    let gpus = has(GPU).unwrap_or(0).clamp(0, super::ledger::GPUS_MOST as i64) as usize;
    // A lost agent's taints say how the node is now, not what it is.
    facts.taints.retain(|taint| !taint.key.starts_with("node.kubernetes.io/"));
    let gpu_model = facts.labels.get(GPU_MODEL).cloned().unwrap_or_default();
    Ok(PlannedNode { facts: Arc::new(facts), gpus, gpu_model })
}

fn pod(
    object: &Value,
    here: Place<'_>,
    seed: u64,
    left_out: &mut LeftOut,
) -> Result<Option<(PodFacts, PlannedPod)>, InputError> {
    let facts = project::scheduling::pod(object);
    let name = format!("{}/{}", facts.namespace, facts.name);
    if facts.name.is_empty() || facts.namespace.is_empty() {
        return Err(here.error("a pod has no metadata.name or namespace", MAKE));
    }
    for container in object["spec"]["containers"].as_array().into_iter().flatten() {
        check_quantities(&container["resources"]["requests"], &format!("pod {name}: requests"), here)?;
    }
    if matches!(object["status"]["phase"].as_str(), Some("Succeeded" | "Failed")) {
        left_out.ended += 1;
        return Ok(None);
    }
    if !facts.spec.gates.is_empty() {
        left_out.gated += 1;
        return Ok(None);
    }
    left_out.claims += usize::from(!facts.spec.claims.is_empty());
    let mut spec = SchedulingSpec { claims: Vec::new(), ..(*facts.spec).clone() };
    let gpus = spec.requests.iter().find(|(name, _)| &**name == GPU).map_or(0, |(_, count)| *count);
    spec.requests.retain(|(name, _)| &**name != GPU);
    let count = gpus.clamp(0, i64::from(u32::MAX)) as u32;
    let owner = facts.owner.as_ref();
    let of = owner.map_or_else(|| name.clone(), |(kind, owner)| format!("{}/{kind}/{owner}", facts.namespace));
    let pinned = owner.is_some_and(|(kind, _)| matches!(&**kind, "DaemonSet" | "Node"));
    let planned = PlannedPod {
        namespace: facts.namespace.clone(),
        name: facts.name.clone(),
        labels: facts.labels.clone(),
        spec: Arc::new(spec),
        gpu: if count == 0 { GpuAsk::default() } else { GpuAsk { count, milli: WHOLE, models: Vec::new() } },
        arrives_s: 0,
        lasts_s: None,
        usage: Usage::assumed(&of, &name, seed),
        is_at: facts.node.clone(),
        pinned: pinned && !facts.node.is_empty(),
    };
    Ok(Some((facts, planned)))
}
