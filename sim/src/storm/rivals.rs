//! Gangs that want the same room: nothing but their size and priority says who gets it.

use super::{FAULTS_MS, STAY_S, labelled, meta, selector};
use crate::cluster::Cluster;
use crate::random::Random;
use model::batch::Job;
use model::pod::RestartPolicy;
use model::scheduling::SchedulingSpec;
use model::taint::{TaintEffect, Toleration};

/// In one of three storms some gangs come that ask for much; out of a seed of their own, so that all else stays as it was.
pub(super) fn rivals(cluster: &mut Cluster, seed: u64) {
    let mut random = Random::new(seed ^ 0x6A46);
    if random.between(1, 3) != 1 {
        return;
    }
    for index in 0..random.between(3, 6) {
        let app = format!("rival-{index}");
        let size = random.between(2, 6);
        let least = random.between(2, size);
        let cpu = random.between(1, 3) * 750;
        let tolerations = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"]
            .map(|key| Toleration { seconds: Some(STAY_S), ..Toleration::exists(key, TaintEffect::NoExecute) });
        let spec = SchedulingSpec {
            requests: vec![("cpu".into(), cpu), ("memory".into(), 64 << 20)],
            nominal: (cpu, 64 << 20),
            tolerations: tolerations.into(),
            priority: [0, 100, 500, 2000][random.between(0, 3) as usize],
            ..SchedulingSpec::default()
        };
        let more = vec![
            ("pod-group.scheduling.sigs.k8s.io/name", app.clone()),
            ("pod-group.scheduling.sigs.k8s.io/min-available", least.to_string()),
        ];
        let template = labelled(cluster, &app, 1, spec, RestartPolicy::Never, &more);
        let job = Job {
            meta: meta(&app),
            parallelism: size as i32,
            completions: Some(size as i32),
            backoff_limit: 50,
            selector: selector(&app),
            template,
            ..Job::default()
        };
        let at = random.between(0, FAULTS_MS);
        cluster.then(at, move |cluster| cluster.put(job));
    }
}
