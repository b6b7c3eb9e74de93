//! The capacity planner: what it reads, what it says of bad input, and that its figures are those of what was played.

use diolkos_sim::planner::openb::{self, File};
use diolkos_sim::planner::{Arrivals, Hot, Outcome, Policy, Scenario, dump, run, spec};

const HOT: Hot = Hot { cpu_pct: 65, memory_pct: 95 };
const NODES: &str =
    "sn,cpu_milli,memory_mib,gpu,model\nn0,64000,262144,2,P100\nn1,96000,393216,8,G2\nn2,32000,131072,0,\n";
const PODS: &str = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,creation_time,deletion_time,scheduled_time
p0,4000,8192,1,500,,0,1000,0
p1,4000,8192,1,700,,10,1000,12
p2,8000,8192,2,1000,P100,20,600,20
p3,1000,1024,0,0,,30,40,30
p4,4000,8192,1,300,G2|P100,40,1000,40
";

fn file<'a>(name: &'a str, text: &'a str) -> File<'a> {
    File { name, text }
}

fn play(scenario: &Scenario, policy: Policy) -> Outcome {
    run(scenario, policy, HOT, &mut |_, _| {}).unwrap_or_else(|error| panic!("{policy:?}: {error}"))
}

fn openb(arrivals: Arrivals, seed: u64) -> Scenario {
    openb::read(file("nodes.csv", NODES), file("pods.csv", PODS), arrivals, seed).unwrap()
}

#[test]
fn a_trace_is_drawn_to_130_per_cent_and_no_gpu_is_given_twice() {
    let scenario = openb(Arrivals::Fill, 42);
    let demand: i64 = scenario.pods.iter().map(|pod| pod.gpu.total()).sum();
    assert!((13_000..15_000).contains(&demand), "ten GPUs: {demand}");
    assert_eq!(scenario.policies(), [Policy::Spread, Policy::Pack, Policy::Fragmentation]);
    for policy in scenario.policies() {
        // The ledger refuses what does not fit on a single GPU, so a run that ends has kept the bounds.
        let outcome = play(&scenario, policy);
        assert_eq!(outcome.arrived, scenario.pods.len());
        assert_eq!(outcome.placed + outcome.left_over, outcome.arrived);
        assert!(outcome.last().allocated_pct[2] > 60.0 && outcome.last().allocated_pct[2] <= 100.0, "{outcome:?}");
        assert!(outcome.at_100.is_some());
        assert_eq!(outcome, play(&scenario, policy), "the same again");
    }
    assert_ne!(openb(Arrivals::Fill, 43).pods[0].name, scenario.pods[0].name, "the seed shuffles");
}

#[test]
fn a_trace_in_its_own_time_empties_again() {
    let outcome = play(&openb(Arrivals::InTime, 42), Policy::Fragmentation);
    assert_eq!((outcome.placed, outcome.left_over), (5, 0));
    assert_eq!(outcome.last().empty, 3, "all pods have ended");
    assert!((outcome.most(|s| s.allocated_pct[2]) - 35.0).abs() < 1e-9, "3.5 of 10 GPUs at most");
}

const SPEC: &str = r#"
duration = "24h"
[[nodes]]
name = "node"
count = 6
cpu = "8"
memory = "32Gi"
zones = 3
[[workloads]]
name = "web"
replicas = 9
cpu = "2"
memory = "2Gi"
spread = "zone"
priority = 10
[[workloads]]
name = "job"
per_hour = 6
lasts = "2h"
cpu = "3"
memory = "4Gi"
[failures]
every = "2d"
away = "1h"
"#;

#[test]
fn a_specification_is_played_with_failures_and_preemption() {
    let scenario = spec::read(file("s.toml", SPEC), Some(3)).unwrap();
    assert_eq!(scenario.nodes.len(), 6);
    assert!(!scenario.outages.is_empty());
    for policy in [Policy::Spread, Policy::Pack, Policy::LoadAware] {
        let outcome = play(&scenario, policy);
        assert!(outcome.lost > 0, "{policy:?}");
        assert!(outcome.placed >= outcome.arrived - outcome.left_over, "{policy:?}: {outcome:?}");
        assert_eq!(outcome, play(&scenario, policy));
    }
    let empty = |policy| play(&scenario, policy).mean(|s| s.empty as f64);
    assert!(empty(Policy::Pack) >= empty(Policy::Spread));
    let hot = |policy| play(&scenario, policy).mean(|s| s.hot as f64);
    assert!(hot(Policy::LoadAware) <= hot(Policy::Pack));
}

#[test]
fn fewer_nodes_are_kept_evenly() {
    let mut scenario = spec::read(file("s.toml", SPEC), Some(3)).unwrap();
    let outages = scenario.outages.clone();
    scenario.keep_nodes(50);
    let names: Vec<&str> = scenario.nodes.iter().map(|node| &*node.facts.name).collect();
    assert_eq!(names, ["node-0", "node-2", "node-4"]);
    for outage in &scenario.outages {
        assert!(outages.contains(&diolkos_sim::planner::Outage { node: outage.node * 2, ..*outage }));
    }
    play(&scenario, Policy::Spread);
}

fn dump_of(items: &str) -> String {
    format!("{{\"kind\": \"List\", \"apiVersion\": \"v1\", \"items\": [\n{items}\n]}}")
}

const NODE: &str =
    r#"{"kind":"Node","metadata":{"name":"a"},"status":{"allocatable":{"cpu":"4","memory":"8Gi","pods":"10"}}}"#;

fn pod(name: &str, cpu: &str, node: &str, more: &str) -> String {
    format!(
        r#"{{"kind":"Pod","metadata":{{"name":"{name}","namespace":"d","creationTimestamp":"2026-01-01T00:00:00Z"{more}}},
        "spec":{{"nodeName":"{node}","containers":[{{"name":"c","image":"i","resources":{{"requests":{{"cpu":"{cpu}"}}}}}}]}}}}"#
    )
}

#[test]
fn a_dump_is_placed_anew_and_daemons_stay() {
    let daemon = r#","ownerReferences":[{"kind":"DaemonSet","name":"d","controller":true}]"#;
    let other = NODE.replace("\"a\"", "\"b\"");
    let text = dump_of(
        &[NODE, &other, &pod("w", "3", "a", ""), &pod("x", "3", "", ""), &pod("d", "1", "b", daemon)].join(",\n"),
    );
    let scenario = dump::read(file("dump.json", &text), 1).unwrap();
    assert_eq!(scenario.policies(), [Policy::AsIs, Policy::Spread, Policy::Pack, Policy::LoadAware]);
    let as_is = play(&scenario, Policy::AsIs);
    assert_eq!((as_is.placed, as_is.left_over), (2, 1));
    let pack = play(&scenario, Policy::Pack);
    assert_eq!((pack.placed, pack.left_over), (3, 0));
    assert!((pack.last().allocated_pct[0] - 87.5).abs() < 1e-9);
}

#[test]
fn a_trace_is_the_same_however_it_is_written() {
    let read = |nodes: &str, pods: &str| {
        let nodes = openb::node_rows(file("n.csv", nodes)).unwrap();
        (nodes, openb::pod_rows(file("p.csv", pods)).unwrap().0)
    };
    let wanted = read(NODES, PODS);
    let crlf = |text: &str| format!("\u{feff}{}\r\n", text.replace('\n', "\r\n"));
    assert_eq!(read(&crlf(NODES), &crlf(PODS)), wanted, "as Windows writes it");
    let quoted = |text: &str| -> String {
        let line = |line: &str| line.split(',').map(|field| format!("\"{field}\"")).collect::<Vec<String>>().join(", ");
        text.lines().map(|text| line(text) + "\n\n").collect()
    };
    assert_eq!(read(&quoted(NODES), &quoted(PODS)), wanted, "quoted, with empty lines");
    let turned = |text: &str| -> String {
        let line = |line: &str| line.split(',').rev().map(str::to_owned).collect::<Vec<String>>().join(",");
        text.lines()
            .map(|text| format!("{},{}\n", if text.contains("milli") { "qos" } else { "LS" }, line(text)))
            .collect()
    };
    assert_eq!(read(&turned(NODES), &turned(PODS)), wanted, "columns the other way round, and one more");
    let floats = PODS.replace(",1000,", ",1000.0,").replace(",8192,", ",8192.0,");
    assert_eq!(read(NODES, &floats), wanted, "as pandas writes numbers");
    let spaced = PODS.replace("G2|P100", "\" G2 | P100|\"").replace("P100,20", "P100 ,20");
    assert_eq!(read(NODES, &spaced), wanted, "lists with spaces");
}

#[test]
fn what_a_trace_does_not_say_is_assumed_and_told() {
    let (rows, notes) = openb::pod_rows(file("p.csv", "num_gpu,name,cpu_milli\n2,b,100\n0,a,200\n")).unwrap();
    let told: Vec<_> =
        rows.iter().map(|row| (&*row.name, row.memory_mib, row.gpus, row.gpu_milli, row.times)).collect();
    assert_eq!(told, [("a", 0, 0, 0, [0; 3]), ("b", 0, 2, 1000, [0; 3])]);
    assert!(notes.len() == 2 && notes[0].contains("no memory_mib") && notes[1].contains("no gpu_milli"), "{notes:?}");
    // A pod that was never placed has no time of it; one with nothing after the last comma is no shorter line.
    let pending = PODS.replace("0,1000,0", "0,1000,").replace(",30,40,30", ",30,40");
    assert_eq!(openb::pod_rows(file("p.csv", &pending)).unwrap().0[0].times, [0, 0, 1000]);
}

#[test]
fn bad_input_is_named_with_its_line_and_a_mend() {
    let csv = |nodes: &str, pods: &str| openb::read(file("n.csv", nodes), file("p.csv", pods), Arrivals::Fill, 1);
    let toml = |text: &str| spec::read(file("s.toml", text), None);
    let json = |text: &str| dump::read(file("d.json", text), 1);
    let bad_pod = dump_of(&format!("{NODE},\n{}", pod("w", "lots", "a", "")));
    let no_room = dump_of(r#"{"kind":"Node","metadata":{"name":"a"}}"#);
    for (result, wanted) in [
        (csv("", PODS), "n.csv: the file is empty"),
        (csv("sn,cpu_milli\n", PODS), "n.csv:1: there is no column \"memory_mib\""),
        (csv(&NODES.replace("96000", "many"), PODS), "n.csv:3: cpu_milli is \"many\""),
        (csv(NODES, &PODS.replace("p2,8000", "p2,8000,9")), "p.csv:4: 10 fields under 9 columns"),
        (csv(NODES, &PODS.replace("p3,", "p2,")), "p.csv:5: name is \"p2\" a second time"),
        (csv(NODES, &PODS.replace("p3,", ",")), "p.csv:5: name is empty"),
        (csv(&NODES.replace("n1,", "n0,"), PODS), "n.csv:3: sn is \"n0\" a second time"),
        (csv(NODES, &PODS.replace("p1,", "\"p1,")), "p.csv:3: a quote is not closed on its line"),
        (csv(NODES, &PODS.replace(",1,700,", ",1,0,")), "p.csv:3: gpu_milli is 0 and num_gpu is 1"),
        (csv(NODES, &PODS.replace(",1,700,", ",1,7.5,")), "p.csv:3: gpu_milli is \"7.5\""),
        (csv(NODES, &PODS.replace("gpu_milli", "num_gpu")), "p.csv:1: the column \"num_gpu\" is there twice"),
        (csv(NODES, &PODS.replace("cpu_milli", "cpu")), "p.csv:1: there is no column \"cpu_milli\""),
        (csv(NODES, &PODS.replace(",1000,0\n", ",-1,0\n")), "p.csv:2: deletion_time is \"-1\""),
        (csv(NODES, &PODS.replace(",500,", ",5000,")), "p.csv:2: gpu_milli is \"5000\""),
        (toml(&SPEC.replace("\"8\"", "\"8 cores\"")), "s.toml:6: \"8 cores\" is no quantity"),
        (toml(&SPEC.replace("count", "number")), "s.toml:5: unknown field `number`"),
        (toml(&SPEC.replace("\"zone\"", "\"rack\"")), "s.toml:14: spread over \"rack\""),
        (toml(&SPEC.replace("\"24h\"", "\"long\"")), "s.toml:2: \"long\" is no span of time"),
        (toml(&SPEC.replace("count = 6", "count = 0")), "s.toml:5: 0 nodes of \"node\""),
        (toml("duration ="), "s.toml:1: "),
        (json("[1"), "d.json:1: this is no list"),
        (json("{\"kind\":\"Node\"}"), "d.json:1: this is Node"),
        (json(&dump_of("")), "d.json: there are no nodes"),
        (json(&bad_pod), "d.json:3: pod d/w: requests: cpu is \"lots\""),
        (json(&no_room), "d.json:2: node a has no status.allocatable"),
    ] {
        let error = result.map(|scenario| scenario.name).expect_err(wanted).to_string();
        assert!(error.starts_with(wanted) && error.contains("\n  mend: "), "{error}\n   instead of {wanted}");
    }
}
