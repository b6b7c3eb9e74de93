//! Processes die; what they served goes on.

use e2e::shell::Check;
use e2e::{Platform, Runner, contains, eventually};
use std::time::Duration;

pub fn run(runner: &mut Runner, p: &mut Platform) {
    runner.check("resilience::node agent killed, pods keep running", || node_agent(p));
    runner.check("resilience::server killed, nothing lost", || server(p));
    runner.check("resilience::proxy killed, traffic comes back", || proxy(p));
    runner.check("resilience::stop and start again finds everything", || restart(p));
}

fn started_at(p: &Platform) -> Check<String> {
    p.kubectl(&[
        "-n",
        "steady",
        "get",
        "pod",
        "steady",
        "-o",
        "jsonpath={.status.containerStatuses[0].state.running.startedAt}{.metadata.uid}",
    ])
    .ok()
}

fn node_agent(p: &Platform) -> Check {
    p.kubectl(&["create", "namespace", "steady"]).ok()?;
    p.kubectl(&["-n", "steady", "run", "steady", "--image=bookstore:v1", "--port=8080", "--", "ratings"]).ok()?;
    p.kubectl(&["-n", "steady", "wait", "--for=condition=Ready", "pod/steady", "--timeout=40s"]).ok()?;
    let before = started_at(p)?;
    p.kill_role("node")?;
    eventually(Duration::from_secs(20), || {
        contains(&p.kubectl(&["-n", "steady", "logs", "steady"]).ok()?, &["port 8080"])
    })?;
    let after = started_at(p)?;
    if before == after { Ok(()) } else { Err(format!("the container was started again: {before} -> {after}")) }
}

fn server(p: &Platform) -> Check {
    p.kubectl(&["-n", "steady", "create", "configmap", "kept", "--from-literal=a=b"]).ok()?;
    p.kill_role("server")?;
    eventually(Duration::from_secs(20), || {
        contains(&p.kubectl(&["-n", "steady", "get", "configmap", "kept", "-o", "yaml"]).ok()?, &["a: b"])
    })?;
    eventually(Duration::from_secs(20), || {
        p.kubectl(&["-n", "steady", "wait", "--for=condition=Ready", "pod/steady", "--timeout=5s"]).ok().map(drop)
    })
}

fn proxy(p: &Platform) -> Check {
    p.kubectl(&["-n", "steady", "expose", "pod/steady", "--port=80", "--target-port=8080"]).ok()?;
    p.kubectl(&["-n", "steady", "run", "caller", "--image=bookstore:v1", "--", "frontend"]).ok()?;
    p.kubectl(&["-n", "steady", "wait", "--for=condition=Ready", "pod/caller", "--timeout=30s"]).ok()?;
    let get = || {
        let fixed = ["-n", "steady", "exec", "caller", "--", "/bookstore", "load", "--url", "http://steady/stars"];
        let rest = ["--rate", "2", "--seconds", "1", "--output", "/dev/stdout"];
        let answer = p.kubectl(&[&fixed[..], &rest[..]].concat()).ok()?;
        if answer.contains("\"error\"") { Err(answer) } else { contains(&answer, &["hops"]) }
    };
    eventually(Duration::from_secs(10), get)?;
    p.kill_role("proxy")?;
    eventually(Duration::from_secs(20), get)
}

fn restart(p: &mut Platform) -> Check {
    p.stop()?;
    p.up()?;
    contains(&p.kubectl(&["-n", "steady", "get", "configmap", "kept", "-o", "yaml"]).ok()?, &["a: b"])?;
    eventually(Duration::from_secs(60), || {
        p.kubectl(&["-n", "steady", "wait", "--for=condition=Ready", "pod/steady", "--timeout=5s"]).ok().map(drop)
    })?;
    p.kubectl(&["delete", "namespace", "steady", "--timeout=60s"]).ok().map(drop)
}
