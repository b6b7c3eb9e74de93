//! A synthetic scenario as TOML: groups of nodes, workloads that come by a rule, failures.

use super::input::{self, InputError, Place, line_of};
use super::openb::File;
use super::scenario::{Arrivals, GPU, GPU_MODEL, GpuAsk, Outage, PlannedNode, PlannedPod, Scenario, WHOLE};
use super::usage::Usage;
use crate::Random;
use model::scheduling::{HOSTNAME, NodeFacts, NodeScheduling, PodTerm, SchedulingSpec, SpreadConstraint, ZONE};
use model::selector::LabelSelector;
use model::taint::{Taint, TaintEffect, Toleration};
use model::{Labels, map::stable_hash};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::sync::Arc;
use toml::Spanned;

/// Nodes of one scenario at most.
const NODES_MOST: usize = 200_000;
/// Pods of one scenario at most.
const PODS_MOST: usize = 5_000_000;

macro_rules! read_as {
    ($name:ident, $with:path) => {
        #[derive(Clone, Copy, Debug, Default)]
        struct $name(i64);
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                $with(&String::deserialize(from)?).map($name).map_err(serde::de::Error::custom)
            }
        }
    };
}
read_as!(Cpu, input::cpu);
read_as!(Memory, input::memory);
read_as!(Seconds, input::span);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {
    /// What it is called.
    name: Option<String>,
    seed: Option<u64>,
    duration: Seconds,
    nodes: Spanned<Vec<NodeGroup>>,
    workloads: Spanned<Vec<Workload>>,
    failures: Option<Failures>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeGroup {
    name: String,
    count: Spanned<usize>,
    cpu: Cpu,
    memory: Memory,
    #[serde(default = "hundred_and_ten")]
    pods: u32,
    #[serde(default = "none")]
    gpus: Spanned<usize>,
    #[serde(default)]
    gpu_model: String,
    /// Spread evenly over so many zones.
    #[serde(default = "one")]
    zones: Spanned<usize>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    /// `key=value:NoSchedule`
    #[serde(default)]
    taints: Vec<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Workload {
    name: String,
    /// Pods that are there from the beginning to the end.
    #[serde(default = "none")]
    replicas: Spanned<usize>,
    /// Pods that come by and by.
    #[serde(default)]
    per_hour: f64,
    /// How long those run on average (exponentially distributed).
    lasts: Option<Seconds>,
    #[serde(default)]
    cpu: Cpu,
    #[serde(default)]
    memory: Memory,
    #[serde(default)]
    gpus: u32,
    /// Thousandths of one GPU, in place of `gpus`.
    #[serde(default = "none")]
    gpu_milli: Spanned<u32>,
    #[serde(default)]
    gpu_models: Vec<String>,
    #[serde(default)]
    priority: i32,
    #[serde(default)]
    node_selector: BTreeMap<String, String>,
    /// Keys of taints that are tolerated.
    #[serde(default)]
    tolerates: Vec<String>,
    /// Over `zone` or `node`, with a difference of one at most.
    spread: Option<Spanned<String>>,
    /// No two of its pods on one node.
    #[serde(default)]
    apart: bool,
    usage: Option<UsageSpec>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct UsageSpec {
    cpu_pct: i64,
    memory_pct: i64,
    swing_pct: i64,
    peak: Seconds,
    noise_pct: i64,
}

impl Default for UsageSpec {
    fn default() -> Self {
        UsageSpec { cpu_pct: 50, memory_pct: 80, swing_pct: 30, peak: Seconds(14 * 3600), noise_pct: 10 }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Failures {
    /// A node fails once in such a time on average.
    every: Seconds,
    /// It is away for so long.
    away: Seconds,
}

fn hundred_and_ten() -> u32 {
    110
}

fn none<T: Default>() -> Spanned<T> {
    Spanned::new(0..0, T::default())
}

fn one() -> Spanned<usize> {
    Spanned::new(0..0, 1)
}

/// The text being read, for errors.
struct Source<'a>(File<'a>);

impl Source<'_> {
    fn at<T>(&self, spanned: &Spanned<T>, what: impl Into<String>, mend: impl Into<String>) -> InputError {
        Place { file: self.0.name, line: line_of(self.0.text, spanned.span().start) }.error(what, mend)
    }
}

/// Reads a specification. `seed` overrides the one it names.
///
/// # Errors
/// What is wrong with it, and where.
pub fn read(file: File<'_>, seed: Option<u64>) -> Result<Scenario, InputError> {
    let source = Source(file);
    let spec: Spec = toml::from_str(file.text).map_err(|error| {
        let line = error.span().map_or(0, |span| line_of(file.text, span.start));
        let mend = "correct that line; docs/simulate.md names every setting";
        Place { file: file.name, line }.error(error.message().replace('\n', "; "), mend)
    })?;
    let seed = seed.or(spec.seed).unwrap_or(1);
    if spec.duration.0 == 0 {
        let mend = "give how long it runs, such as duration = \"24h\"";
        return Err(Place { file: file.name, line: 0 }.error("the duration is nothing", mend));
    }
    let nodes = nodes(&spec, &source)?;
    let pods = pods(&spec, &source, seed)?;
    let outages =
        spec.failures.as_ref().map_or_else(Vec::new, |failures| outages(failures, nodes.len(), spec.duration.0, seed));
    Ok(Scenario {
        name: spec.name.unwrap_or_else(|| file.name.to_owned()),
        nodes,
        pods,
        arrivals: Arrivals::InTime,
        end_s: spec.duration.0,
        outages,
        notes: vec![format!("seed {seed}")],
    })
}

fn labels(from: &BTreeMap<String, String>) -> Labels {
    from.iter().map(|(key, value)| (Arc::from(key.as_str()), Arc::from(value.as_str()))).collect()
}

fn taint(text: &Spanned<String>, source: &Source<'_>) -> Result<Taint, InputError> {
    let wrong = || source.at(text, format!("{:?} is no taint", text.get_ref()), "write key=value:NoSchedule");
    let (rest, effect) = text.get_ref().rsplit_once(':').ok_or_else(wrong)?;
    let (key, value) = rest.split_once('=').unwrap_or((rest, ""));
    let effect = TaintEffect::parse(effect).ok_or_else(wrong)?;
    Ok(Taint { key: key.into(), value: value.into(), effect, added: None })
}

fn nodes(spec: &Spec, source: &Source<'_>) -> Result<Vec<PlannedNode>, InputError> {
    let mut nodes = Vec::new();
    for group in spec.nodes.get_ref() {
        let (count, zones) = (*group.count.get_ref(), *group.zones.get_ref());
        if count == 0 || nodes.len() + count > NODES_MOST {
            let what = format!("{count} nodes of {:?}", group.name);
            return Err(source.at(&group.count, what, format!("between 1 and {NODES_MOST} nodes in all")));
        }
        if !(1..=1000).contains(&zones) {
            return Err(source.at(&group.zones, format!("{zones} zones"), "between 1 and 1000"));
        }
        if *group.gpus.get_ref() > super::ledger::GPUS_MOST {
            let what = format!("{} GPUs in one node", group.gpus.get_ref());
            return Err(source.at(&group.gpus, what, format!("{} at most", super::ledger::GPUS_MOST)));
        }
        let taints = group.taints.iter().map(|text| taint(text, source)).collect::<Result<Vec<Taint>, _>>()?;
        let mut allocatable: Vec<(Arc<str>, i64)> = vec![
            ("cpu".into(), group.cpu.0),
            ("memory".into(), group.memory.0),
            (GPU.into(), *group.gpus.get_ref() as i64),
            ("pods".into(), i64::from(group.pods)),
        ];
        allocatable.retain(|(_, amount)| *amount > 0);
        let scheduling = Arc::new(NodeScheduling { allocatable, images: Vec::new() });
        for number in 0..count {
            let name: Arc<str> = format!("{}-{number}", group.name).into();
            let mut own = labels(&group.labels);
            own.insert(HOSTNAME.into(), name.clone());
            own.insert(ZONE.into(), format!("zone-{}", number % zones).into());
            if !group.gpu_model.is_empty() {
                own.insert(GPU_MODEL.into(), group.gpu_model.as_str().into());
            }
            let (taints, scheduling) = (taints.clone(), scheduling.clone());
            let facts = Arc::new(NodeFacts { name, labels: own, taints, unschedulable: false, scheduling });
            let gpu_model = group.gpu_model.as_str().into();
            nodes.push(PlannedNode { facts, gpus: *group.gpus.get_ref(), gpu_model });
        }
    }
    if nodes.is_empty() {
        return Err(source.at(&spec.nodes, "there are no nodes", "add a [[nodes]] table"));
    }
    Ok(nodes)
}

fn scheduling(workload: &Workload, source: &Source<'_>) -> Result<SchedulingSpec, InputError> {
    let app = LabelSelector::from_labels([(&Arc::from("app"), &Arc::from(workload.name.as_str()))]);
    let spread = match &workload.spread {
        None => Vec::new(),
        Some(over) => {
            let topology_key = match over.get_ref().as_str() {
                "zone" => ZONE,
                "node" => HOSTNAME,
                other => return Err(source.at(over, format!("spread over {other:?}"), "write \"zone\" or \"node\"")),
            };
            vec![SpreadConstraint {
                topology_key: topology_key.into(),
                selector: Some(app.clone()),
                max_skew: 1,
                min_domains: 1,
                hard: true,
                honor_affinity: true,
                honor_taints: true,
            }]
        }
    };
    let apart = PodTerm {
        topology_key: HOSTNAME.into(),
        selector: Some(app),
        namespaces: vec!["default".into()],
        namespace_selector: None,
    };
    let mut requests: Vec<(Arc<str>, i64)> = vec![("cpu".into(), workload.cpu.0), ("memory".into(), workload.memory.0)];
    requests.retain(|(_, amount)| *amount > 0);
    let tolerated = workload.tolerates.iter().map(|key| Toleration {
        key: key.as_str().into(),
        exists: true,
        ..Toleration::default()
    });
    Ok(SchedulingSpec {
        requests,
        nominal: (workload.cpu.0.max(100), workload.memory.0.max(200 << 20)),
        node_selector: labels(&workload.node_selector).into_iter().collect(),
        tolerations: tolerated.collect(),
        spread,
        anti_affinity: if workload.apart { vec![apart] } else { Vec::new() },
        priority: workload.priority,
        ..SchedulingSpec::default()
    })
}

fn gpu(workload: &Workload, source: &Source<'_>) -> Result<GpuAsk, InputError> {
    let milli = *workload.gpu_milli.get_ref();
    if milli > WHOLE || (milli > 0 && workload.gpus > 0) {
        let what = format!("gpu_milli is {milli} and gpus is {}", workload.gpus);
        return Err(source.at(
            &workload.gpu_milli,
            what,
            "give whole GPUs as gpus, or a share of one as gpu_milli from 1 to 1000",
        ));
    }
    let (count, milli) = if milli > 0 { (1, milli) } else { (workload.gpus, WHOLE) };
    if count == 0 {
        return Ok(GpuAsk::default());
    }
    Ok(GpuAsk { count, milli, models: workload.gpu_models.iter().map(|model| Arc::from(model.as_str())).collect() })
}

/// A time drawn from an exponential distribution, by inversion.
fn exponential(random: &mut Random, mean: f64) -> f64 {
    let unit = (random.number() >> 11) as f64 / (1u64 << 53) as f64;
    -(1.0 - unit).ln() * mean
}

fn pods(spec: &Spec, source: &Source<'_>, seed: u64) -> Result<Vec<PlannedPod>, InputError> {
    let mut pods = Vec::new();
    for (at, workload) in spec.workloads.get_ref().iter().enumerate() {
        let scheduling = Arc::new(scheduling(workload, source)?);
        let gpu = gpu(workload, source)?;
        let own: Arc<Labels> = Arc::new(labels(&BTreeMap::from([("app".to_owned(), workload.name.clone())])));
        let mut random = Random::new(seed ^ stable_hash(workload.name.as_bytes()) ^ at as u64);
        let mut add = |arrives_s: i64, lasts_s: Option<i64>, number: usize| {
            let name: Arc<str> = format!("{}-{number}", workload.name).into();
            let usage = workload.usage.as_ref().map_or_else(
                || Usage::assumed(&workload.name, &name, seed),
                |usage| Usage {
                    cpu_pct: usage.cpu_pct.clamp(0, 10_000),
                    memory_pct: usage.memory_pct.clamp(0, 10_000),
                    swing_pct: usage.swing_pct.clamp(0, 100),
                    peak_s: usage.peak.0,
                    noise_pct: usage.noise_pct.clamp(0, 100),
                    seed: stable_hash(name.as_bytes()) ^ seed,
                },
            );
            pods.push(PlannedPod {
                namespace: "default".into(),
                name,
                labels: own.clone(),
                spec: scheduling.clone(),
                gpu: gpu.clone(),
                arrives_s,
                lasts_s,
                usage,
                is_at: "".into(),
                pinned: false,
            });
            pods.len()
        };
        let too_many = |count: usize| {
            let what = format!("{:?} brings it to {count} pods", workload.name);
            source.at(
                &workload.replicas,
                what,
                format!("{PODS_MOST} in all at most: fewer replicas, or a lower per_hour"),
            )
        };
        let replicas = *workload.replicas.get_ref();
        if replicas > PODS_MOST {
            return Err(too_many(replicas));
        }
        (0..replicas).for_each(|number| {
            add(0, None, number);
        });
        if workload.per_hour > 0.0 {
            let mean = workload.lasts.map_or(3600.0, |lasts| lasts.0 as f64);
            let (mut now, mut number) = (exponential(&mut random, 3600.0 / workload.per_hour), replicas);
            while now < spec.duration.0 as f64 {
                let lasts = exponential(&mut random, mean).max(1.0) as i64;
                let all = add(now as i64, Some(lasts), number);
                if all > PODS_MOST {
                    return Err(too_many(all));
                }
                number += 1;
                now += exponential(&mut random, 3600.0 / workload.per_hour);
            }
        }
    }
    if pods.is_empty() {
        return Err(source.at(
            &spec.workloads,
            "there are no pods",
            "add a [[workloads]] table with replicas or per_hour",
        ));
    }
    pods.sort_by_key(|pod| pod.arrives_s);
    Ok(pods)
}

fn outages(failures: &Failures, nodes: usize, duration: i64, seed: u64) -> Vec<Outage> {
    let mut outages = Vec::new();
    for node in 0..nodes {
        let mut random = Random::new(seed ^ stable_hash(&(node as u64).to_le_bytes()));
        let mut now = exponential(&mut random, failures.every.0.max(60) as f64) as i64;
        while now < duration {
            let to_s = now + failures.away.0.max(1);
            outages.push(Outage { node, from_s: now, to_s });
            now = to_s + 1 + exponential(&mut random, failures.every.0.max(60) as f64) as i64;
        }
    }
    outages
}
