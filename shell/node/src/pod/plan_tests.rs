use super::*;
use crate::pod::observe::Sandbox;
use serde_json::json;

/// A pod with init containers `init` (a trailing `+` makes a sidecar) and containers `main`.
fn pod(policy: &str, init: &[&str], main: &[&str]) -> Pod {
    let sidecar = |name: &&str| match name.strip_suffix('+') {
        Some(name) => json!({"name": name, "image": "i", "restartPolicy": "Always"}),
        None => json!({"name": name, "image": "i"}),
    };
    let spec = json!({
        "restartPolicy": policy,
        "initContainers": init.iter().map(sidecar).collect::<Vec<_>>(),
        "containers": main.iter().map(sidecar).collect::<Vec<_>>(),
    });
    let metadata = json!({"name": "p", "namespace": "n", "uid": "u"});
    Pod::from_json(json!({"metadata": metadata, "spec": spec}).to_string().as_bytes()).unwrap()
}

/// `a=run`, `a=0` (ended with 0), `a=7`, `a=made`; in sandbox `s0` unless `a@s1=...`. Later ones are newer.
fn observed(sandboxes: &[(&str, bool)], runs: &[&str]) -> Observed {
    let mut out = Observed::default();
    for (at, (id, ready)) in sandboxes.iter().enumerate() {
        out.sandboxes.insert(
            0,
            Sandbox {
                id: (*id).into(),
                attempt: at as u32,
                ready: *ready,
                created_at: Some(Timestamp::from_secs(at as i64)),
            },
        );
    }
    if out.ready_sandbox().is_some() {
        out.ips = vec![[10, 244, 0, 5].into()];
    }
    for (at, text) in runs.iter().enumerate() {
        let (name, state) = text.split_once('=').unwrap();
        let (name, sandbox) = name.split_once('@').unwrap_or((name, "s0"));
        let attempt = out.runs(name).count() as u32;
        let state_of = |text: &str| match text {
            "run" => RunState::Running,
            "made" => RunState::Created,
            _ => RunState::Exited,
        };
        out.runs.insert(
            0,
            Run {
                id: format!("{name}{attempt}"),
                name: name.into(),
                sandbox_id: sandbox.into(),
                attempt,
                state: state_of(state),
                created_at: Some(Timestamp::from_secs(at as i64)),
                started_at: None,
                finished_at: (state_of(state) == RunState::Exited).then_some(Timestamp::from_secs(100)),
                exit_code: state.parse().unwrap_or(0),
                reason: String::new(),
                message: String::new(),
                image: String::new(),
                image_ref: String::new(),
                hash: String::new(),
                log_path: String::new(),
            },
        );
    }
    out
}

/// The plan in one line.
fn show(plan: &Plan) -> String {
    let mut words = Vec::new();
    if plan.stop_pod {
        words.push("stop pod".to_owned());
    }
    words.extend(plan.stop.iter().map(|stop| format!("stop {}", stop.id)));
    words.extend(plan.sandbox.map(|attempt| format!("sandbox {attempt}")));
    words.extend(plan.start.iter().map(|start| format!("start {}#{}", start.name, start.attempt)));
    words.extend(plan.waiting.iter().map(|(name, why)| format!("{name} {}", why.reason)));
    if words.is_empty() { "nothing".to_owned() } else { words.join(", ") }
}

fn check(pod: &Pod, observed: &Observed, started: &[&str], unhealthy: &[&str], expect: &str) {
    let started = started.iter().map(|id| (*id).to_owned()).collect();
    let give_up = |id: &&str| ((*id).to_owned(), Unhealthy { probe: "liveness", grace_s: None });
    let unhealthy = unhealthy.iter().map(give_up).collect();
    let backoff = Backoff::default();
    let now = Timestamp::from_secs(100);
    let plan = plan(Situation { pod, observed, unhealthy: &unhealthy, started: &started, backoff: &backoff, now });
    assert_eq!(show(&plan), expect, "{observed:#?}");
}

#[test]
fn sandboxes_come_first_and_are_replaced_when_broken() {
    let plain = pod("Always", &[], &["a", "b"]);
    check(&plain, &observed(&[], &[]), &[], &[], "sandbox 0, start a#0, start b#0");
    check(&plain, &observed(&[("s0", true)], &[]), &[], &[], "start a#0, start b#0");
    check(
        &plain,
        &observed(&[("s0", false)], &["a=0", "b=run"]),
        &[],
        &[],
        "stop pod, sandbox 1, start a#1, start b#1",
    );
    let never = pod("Never", &[], &["a"]);
    check(&never, &observed(&[("s0", false)], &["a=0"]), &[], &[], "nothing");
    check(&never, &observed(&[("s0", false)], &[]), &[], &[], "sandbox 1, start a#0");
    let on_failure = pod("OnFailure", &[], &["a", "b"]);
    check(&on_failure, &observed(&[("s0", false)], &["a=0", "b=3"]), &[], &[], "sandbox 1, start b#1");
    check(&on_failure, &observed(&[("s0", false)], &["a=0", "b=0"]), &[], &[], "nothing");
    let mut no_address = observed(&[("s0", true)], &["a=run"]);
    no_address.ips.clear();
    check(&plain, &no_address, &[], &[], "stop pod, sandbox 1, start a#1, start b#0");
}

#[test]
fn init_containers_run_one_after_the_other() {
    let p = pod("Always", &["i", "j"], &["a"]);
    check(&p, &observed(&[], &[]), &[], &[], "sandbox 0, start i#0");
    check(&p, &observed(&[("s0", true)], &["i=run"]), &[], &[], "nothing");
    check(&p, &observed(&[("s0", true)], &["i=0"]), &[], &[], "start j#0");
    check(&p, &observed(&[("s0", true)], &["i=0", "j=1"]), &[], &[], "start j#1");
    check(&p, &observed(&[("s0", true)], &["i=0", "j=0"]), &[], &[], "start a#0");
    check(&p, &observed(&[("s0", true)], &["i=0", "j=0", "a=1"]), &[], &[], "start a#1");
    check(&p, &observed(&[("s0", false), ("s1", true)], &["i=0", "j=0", "a=1"]), &[], &[], "start i#1");
    let never = pod("Never", &["i"], &["a"]);
    check(&never, &observed(&[("s0", true)], &["i=1"]), &[], &[], "stop pod");
}

#[test]
fn sidecars_start_before_the_next_and_are_kept() {
    let p = pod("Never", &["s+", "i"], &["a"]);
    check(&p, &observed(&[("s0", true)], &["s=run"]), &[], &[], "nothing");
    check(&p, &observed(&[("s0", true)], &["s=run"]), &["s0"], &[], "start i#0");
    check(&p, &observed(&[("s0", true)], &["s=run", "i=0"]), &["s0"], &[], "start a#0");
    check(&p, &observed(&[("s0", true)], &["s=0", "i=0", "a=run"]), &[], &[], "start s#1");
    check(&p, &observed(&[("s0", true)], &["s=run", "i=0", "a=0"]), &["s0"], &[], "stop pod");
}

#[test]
fn restart_policies_decide_about_ended_containers() {
    for (policy, after_0, after_1) in [
        ("Always", "start a#1", "start a#1"),
        ("OnFailure", "stop pod", "start a#1"),
        ("Never", "stop pod", "stop pod"),
    ] {
        let p = pod(policy, &[], &["a"]);
        check(&p, &observed(&[("s0", true)], &["a=0"]), &[], &[], after_0);
        check(&p, &observed(&[("s0", true)], &["a=1"]), &[], &[], after_1);
    }
    let p = pod("Never", &[], &["a", "b"]);
    check(&p, &observed(&[("s0", true)], &["a=1", "b=run"]), &[], &[], "nothing");
    check(&pod("Never", &[], &["a"]), &observed(&[("s0", true)], &["a=made"]), &[], &[], "start a#1");
}

#[test]
fn an_unhealthy_or_changed_container_is_stopped() {
    let p = pod("Always", &[], &["a", "b"]);
    check(&p, &observed(&[("s0", true)], &["a=run", "b=run"]), &[], &["a0"], "stop a0");
    let mut changed = observed(&[("s0", true)], &["a=run", "b=run"]);
    changed.runs[0].hash = "another".into();
    check(&p, &changed, &[], &[], "stop b0");
}

#[test]
fn failures_wait_longer_each_time_and_say_so() {
    let p = pod("Always", &[], &["a"]);
    let seen = observed(&[("s0", true)], &["a=1", "a=1"]);
    let mut backoff = Backoff::default();
    let failed = Timestamp::from_secs(100);
    for _ in 0..4 {
        backoff.tried_again("u/a", failed, failed);
    }
    let (none, nobody) = (BTreeMap::new(), BTreeSet::new());
    let at = |now| Situation { pod: &p, observed: &seen, unhealthy: &none, started: &nobody, backoff: &backoff, now };
    let waits = plan(at(failed.plus_ms(79_999)));
    assert_eq!(show(&waits), "a CrashLoopBackOff");
    assert_eq!(waits.waiting["a"].message, "back-off 1m20s restarting failed container=a pod=p_n(u)");
    assert_eq!(waits.wake_at, Some(failed.plus_ms(80_000)));
    assert_eq!(show(&plan(at(failed.plus_ms(80_000)))), "start a#2");
}

/// Whatever the runtime shows, a plan never starts what runs, never starts a container before its init containers are done,
/// and never both ends the pod for good and starts something.
#[test]
fn no_state_makes_a_wrong_plan() {
    let states = ["", "made", "run", "0", "1"];
    for policy in ["Always", "OnFailure", "Never"] {
        for init in ["i", "i+"] {
            for sandbox in [&[][..], &[("s0", true)], &[("s0", false)], &[("s0", false), ("s1", true)]] {
                for i in states {
                    for a in states {
                        let p = pod(policy, &[init], &["a"]);
                        let runs: Vec<String> = [("i", i), ("a", a)]
                            .iter()
                            .filter(|(_, s)| !s.is_empty())
                            .map(|(n, s)| format!("{n}={s}"))
                            .collect();
                        let runs: Vec<&str> = runs.iter().map(String::as_str).collect();
                        let seen = observed(sandbox, &runs);
                        let (none, started, backoff) =
                            (BTreeMap::new(), BTreeSet::from(["i0".to_owned()]), Backoff::default());
                        let now = Timestamp::from_secs(100);
                        let at = Situation {
                            pod: &p,
                            observed: &seen,
                            unhealthy: &none,
                            started: &started,
                            backoff: &backoff,
                            now,
                        };
                        let made = plan(at);
                        let context = format!("{policy} {init} {sandbox:?} i={i:?} a={a:?}: {}", show(&made));
                        for start in &made.start {
                            let run = in_sandbox(at, p.all_containers().find(|c| c.name == start.name).unwrap());
                            assert!(
                                made.sandbox.is_some() || run.is_none_or(|r| r.state != RunState::Running),
                                "{context}"
                            );
                            let first_time = start.name == "a" && in_sandbox(at, &p.spec.containers[0]).is_none();
                            let init_done = in_sandbox(at, &p.spec.init_containers[0])
                                .is_some_and(|r| succeeded(r) || init == "i+" && r.state == RunState::Running);
                            assert!(!first_time || init_done, "{context}");
                        }
                        assert!(!made.stop_pod || made.sandbox.is_some() || made.start.is_empty(), "{context}");
                    }
                }
            }
        }
    }
}
