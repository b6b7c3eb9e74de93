//! The same control and scheduler that run live, over a thousand nodes and fifty thousand pods in virtual time, with faults.

use diolkos_sim::workloads::{self, Mix};
use diolkos_sim::{Cluster, Faults, Stats, check};

const MINUTE: i64 = 60_000;

/// A story: everything is created, then some is rolled, scaled and deleted, nodes die; some come back, some are taken out.
fn story(seed: u64, mix: Mix) -> (Cluster, Vec<String>) {
    let mut cluster = Cluster::new(seed, Faults::default());
    workloads::pool(&mut cluster, &mix);
    workloads::create(&mut cluster, mix);
    let count = mix.deployments.0;
    for step in 0..count / 10 {
        let at = cluster.random.between(2 * MINUTE, 5 * MINUTE);
        cluster.then(at, move |cluster| workloads::roll(cluster, &mix, step * 10 + 1, 2));
        let at = cluster.random.between(2 * MINUTE, 5 * MINUTE);
        let replicas = cluster.random.between(0, mix.deployments.1) as i32;
        cluster.then(at, move |cluster| workloads::scale(cluster, &mix, step * 10 + 2, replicas));
    }
    for step in 0..count / 50 {
        let at = cluster.random.between(2 * MINUTE, 5 * MINUTE);
        cluster.then(at, move |cluster| workloads::delete(cluster, &mix, step * 50 + 5));
    }
    for step in 0..mix.nodes / 50 {
        let name = format!("node-{:04}", step * 50 + 7);
        let at = cluster.random.between(2 * MINUTE, 4 * MINUTE);
        let gone = name.clone();
        cluster.then(at, move |cluster| cluster.kill_node(&gone));
        match step % 3 {
            // Comes back before anybody misses it, comes back late, or never and is taken out.
            0 => cluster.then(at + 20_000, move |cluster| cluster.revive_node(&name)),
            1 => cluster.then(at + 4 * MINUTE, move |cluster| cluster.revive_node(&name)),
            _ => cluster.then(at + 4 * MINUTE, move |cluster| {
                cluster.delete(model::Kind::Node, &model::Key::new("", name.as_str()))
            }),
        }
    }
    cluster.run(14 * MINUTE);
    let mut complaints = cluster.complaints().to_vec();
    complaints.extend(check::in_the_end(&cluster.api, &cluster.living_nodes()));
    (cluster, complaints)
}

fn small() -> Mix {
    Mix {
        nodes: 60,
        namespaces: 4,
        deployments: (60, 30),
        stateful_sets: (12, 8),
        daemon_sets: 2,
        jobs: (20, 12),
        cron_jobs: 3,
    }
}

#[test]
fn many_seeds_end_in_the_desired_state_and_the_same_seed_gives_the_same_trace() {
    // On another thread: nothing of a run is a thread's own.
    let again = std::thread::spawn(|| story(3, small()).0.stats);
    let told = (1..=8).map(|seed| {
        let (cluster, complaints) = story(seed, small());
        assert!(complaints.is_empty(), "seed {seed}: {complaints:#?} {:?}", cluster.stats);
        assert!(cluster.stats.conflicts > 0, "the faults do something");
        cluster.stats
    });
    let told: Vec<Stats> = told.collect();
    assert_eq!(Some(&told[2]), again.join().ok().as_ref());
    assert_ne!(told[2].trace, told[3].trace);
}

#[test]
fn a_thousand_nodes_and_fifty_thousand_pods() {
    let mix = Mix {
        nodes: 1000,
        namespaces: 20,
        deployments: (1300, 60),
        stateful_sets: (200, 20),
        daemon_sets: 6,
        jobs: (300, 30),
        cron_jobs: 20,
    };
    let (cluster, complaints) = story(1, mix);
    println!("{:?}", cluster.stats);
    assert!(complaints.is_empty(), "{complaints:#?} {:?}", cluster.stats);
    assert!(cluster.stats.pods_max >= 50_000, "{:?}", cluster.stats);
}
