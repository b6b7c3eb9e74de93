//! Storms: a slice of the seeds, all checkers on; and proof that the checkers can fail.

use diolkos_sim::audit::Checked;
use diolkos_sim::storm::{self, Spoil};
use model::effect::Status;
use model::{Condition, Effect};

/// A number from the environment: how many seeds to play, and from which on.
fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

#[test]
fn promises_are_kept_and_every_seed_can_be_played_again() {
    let (first, seeds) = (setting("DIOLKOS_SEED", 1), setting("DIOLKOS_SEEDS", 200));
    let mut all = Checked::default();
    let mut failures = Vec::new();
    for seed in first..first + seeds {
        match storm::check(seed) {
            Ok(report) => all.add(&report.checked),
            Err(failure) => failures.push(failure.to_string()),
        }
    }
    println!("{all:?}");
    assert!(failures.is_empty(), "{} of {seeds} seeds fail\n{}", failures.len(), failures.join("\n"));
    let least = [
        all.bindings / 20,
        all.spreads,
        all.terms,
        all.priorities,
        all.evictions,
        all.waiting,
        all.quotas,
        all.gangs * 4,
        all.loads,
        all.volumes,
        all.zones,
        all.gpus,
        all.reservations,
        all.victims,
        all.gang_victims * 20,
        all.gangs_waiting * 20,
    ];
    assert!(seeds < 100 || least.iter().all(|count| *count >= seeds / 4), "the storms are no test: {all:?}");
}

/// Plays seeds of what is spoilt until each of these complaints has been heard.
fn caught(spoil: Spoil, complaints: &[&str]) {
    let mut left = complaints.to_vec();
    for seed in 1..=400 {
        let heard = storm::play(seed, spoil).complaints.join("\n");
        left.retain(|complaint| !heard.contains(complaint));
        if left.is_empty() {
            return;
        }
    }
    panic!("nobody complains: {left:?}");
}

fn orders(tamper: fn(&mut Effect)) -> Spoil {
    Spoil { orders: Some(tamper), ..Spoil::default() }
}

#[test]
fn a_scheduler_that_puts_all_on_one_node_is_caught() {
    let spoil = orders(|effect| {
        if let Effect::Bind { node, .. } = effect {
            *node = "node-1".into();
        }
    });
    caught(spoil, &["over-committed", "standing: ", "spread: ", "to be apart", "its port is taken"]);
}

#[test]
fn a_scheduler_that_forgets_the_important_is_caught() {
    // Every second name's pods are never bound, whatever their priority.
    let spoil = orders(|effect| {
        if let Effect::Bind { pod, .. } = effect
            && pod.key.name.contains("-2")
        {
            pod.uid = "nobody".into();
        }
    });
    caught(spoil, &["priority: ", "starved: "]);
}

#[test]
fn a_scheduler_that_scatters_is_caught() {
    // By the pod's name, wherever those are that it wants to be with.
    let spoil = orders(|effect| {
        if let Effect::Bind { pod, node, .. } = effect {
            let last = pod.key.name.bytes().last().unwrap_or_default();
            *node = format!("node-{}", last % 4).into();
        }
    });
    caught(spoil, &["affinity: "]);
}

#[test]
fn a_scheduler_that_binds_halves_of_gangs_is_caught() {
    let spoil = orders(|effect| {
        if let Effect::Bind { pod, .. } = effect
            && pod.key.name.bytes().last().is_some_and(|last| last % 2 == 0)
        {
            pod.uid = "nobody".into();
        }
    });
    caught(spoil, &["gang: "]);
}

/// What a pod is told that has to go for a more important one.
fn preempted(effect: &mut Effect) -> Option<(&str, &mut Vec<Condition>)> {
    match effect {
        Effect::PatchStatus(target, Status::PodConditions { conditions, .. }) => Some((&target.key.name, conditions)),
        _ => None,
    }
}

#[test]
fn a_scheduler_that_takes_in_vain_or_parts_of_gangs_is_caught() {
    let in_vain = orders(|effect| {
        let conditions = preempted(effect).into_iter().flat_map(|(_, conditions)| conditions);
        for condition in conditions.filter(|condition| &*condition.kind == "PodScheduled") {
            (condition.kind, condition.reason) = ("DisruptionTarget".into(), "PreemptionByScheduler".into());
        }
    });
    caught(in_vain, &["had to go, and nobody more important waits"]);
    let parts = orders(|effect| {
        if let Some((name, conditions)) = preempted(effect)
            && name.bytes().last().is_some_and(|last| last % 2 == 0)
        {
            conditions.retain(|condition| &*condition.kind != "DisruptionTarget");
        }
    });
    caught(parts, &["for another gang"]);
}

#[test]
fn a_scheduler_that_knows_no_quotas_and_no_load_is_caught() {
    caught(Spoil { quotas: true, ..Spoil::default() }, &["quota "]);
    caught(Spoil { loads: true, ..Spoil::default() }, &["load: "]);
}

#[test]
fn a_scheduler_that_knows_nothing_of_nodes_parts_is_caught() {
    caught(Spoil { volumes: true, ..Spoil::default() }, &["is elsewhere", "attached: "]);
    caught(Spoil { zones: true, ..Spoil::default() }, &["zones: "]);
    caught(Spoil { reservations: true, ..Spoil::default() }, &["reservation: "]);
}

#[test]
fn a_scheduler_that_gives_everybody_the_first_gpu_is_caught() {
    let spoil = orders(|effect| {
        if let Effect::Bind { annotations, .. } = effect {
            for text in annotations.values_mut() {
                *text = text.replace("\"minor\":1", "\"minor\":0").into();
            }
        }
    });
    caught(spoil, &["given twice"]);
}

#[test]
fn an_api_that_binds_twice_or_heeds_no_budgets_is_caught() {
    caught(Spoil { bindings: true, ..Spoil::default() }, &[" went from "]);
    caught(Spoil { budgets: true, ..Spoil::default() }, &["budget: "]);
}
