//! TrafficPolicies: written with kubectl, obeyed by the proxies, answered with conditions.

use super::mesh::{GATEWAY, curl, k};
use e2e::shell::Check;
use e2e::{Platform, Runner, contains, eventually};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

pub fn checks(runner: &mut Runner, p: &Platform) {
    runner.check("mesh::policy: a TrafficPolicy limits requests and says so", || limits(p));
    let _ = k(p, &["delete", "trafficpolicies", "--all"]);
}

fn apply(p: &Platform, name: &str, spec: &str) -> Check<String> {
    let text = format!(
        r#"{{"apiVersion":"mesh.diolkos.io/v1","kind":"TrafficPolicy","metadata":{{"name":"{name}"}},"spec":{spec}}}"#
    );
    p.kubectl_in(&["-n", "bookstore", "apply", "-f", "-"], &text).ok()
}

fn limits(p: &Platform) -> Check {
    let gateway = |requests: u32| {
        format!(
            r#"{{"targetRefs":[{{"group":"gateway.networking.k8s.io","kind":"Gateway","name":"bookstore","sectionName":"http"}}],
            "rateLimit":{{"local":[{{"requests":{requests},"unit":"Hour","per":[{{"type":"Header","name":"X-Visitor"}}]}}]}}}}"#
        )
    };
    apply(p, "visitors", &gateway(3))?;
    let state = |name: &str| k(p, &["get", &format!("trafficpolicy/{name}"), "-o", "yaml"]).ok();
    eventually(SOON, || contains(&state("visitors")?, &["reason: Accepted", "status: \"True\""]))?;
    let visit = |who: &str| curl(&["-i", "-H", &format!("x-visitor: {who}"), GATEWAY]);
    eventually(SOON, || contains(&visit("first"), &["x-ratelimit-limit: 3"]))?;
    let codes: Vec<String> = (0..4).map(|_| visit("second").lines().next().unwrap_or_default().to_owned()).collect();
    if codes.iter().filter(|line| line.contains("200")).count() != 3 || !codes[3].contains("429") {
        return Err(format!("three of four pass: {codes:?}"));
    }
    contains(&curl(&["-i", GATEWAY]), &["200"])?;
    // The younger of two with one target gives way, and takes over.
    apply(p, "younger", &gateway(1))?;
    eventually(SOON, || contains(&state("younger")?, &["reason: Conflicted", "visitors is older"]))?;
    k(p, &["delete", "trafficpolicy/visitors"]).ok()?;
    eventually(SOON, || contains(&visit("third"), &["x-ratelimit-limit: 1"]))?;
    match apply(p, "bad", r#"{"targetRefs":[{"kind":"Gateway","name":"bookstore"}]}"#) {
        Err(error) => contains(&error, &["group gateway.networking.k8s.io"]),
        Ok(_) => Err("a target of the wrong group is taken".into()),
    }
}
