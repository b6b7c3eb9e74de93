//! Istio's kinds, read as they are: written with kubectl, obeyed by the proxies between the bookstore's services.

use super::mesh::{GATEWAY, curl, example, k};
use e2e::shell::Check;
use e2e::{Platform, Runner, contains, eventually};
use std::collections::BTreeMap;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

pub fn checks(runner: &mut Runner, p: &Platform) {
    runner.check("mesh::istio: the older family routes a service and both objects say so", || conflict(p));
    runner.check("mesh::istio: VirtualService splits by subset, header and order", || subsets(p));
    runner.check("mesh::istio: faults are made", || faults(p));
    runner.check("mesh::istio: consistent hash keeps a caller on its endpoint", || hashing(p));
    runner.check("mesh::istio: an endpoint that fails is ejected", || ejection(p));
    runner.check("mesh::istio: ServiceEntry is a service", || entry(p));
    let _ = k(p, &["delete", "virtualservices,destinationrules,serviceentries", "--all"]);
    let _ = k(p, &["apply", "-f", &example("30-reviews-route.yaml")]);
}

fn apply(p: &Platform, kind: &str, name: &str, spec: &str) -> Check {
    let text = format!(
        r#"{{"apiVersion":"networking.istio.io/v1","kind":"{kind}","metadata":{{"name":"{name}"}},"spec":{spec}}}"#
    );
    p.kubectl_in(&["-n", "bookstore", "apply", "-f", "-"], &text).ok().map(drop)
}

fn rule(p: &Platform) -> Check {
    apply(
        p,
        "DestinationRule",
        "reviews",
        r#"{"host":"reviews","subsets":[{"name":"v1","labels":{"version":"v1"}},{"name":"v2","labels":{"version":"v2"}}]}"#,
    )
}

fn all_to(p: &Platform, subset: &str) -> Check {
    let spec = format!(
        r#"{{"hosts":["reviews"],"http":[{{"route":[{{"destination":{{"host":"reviews","subset":"{subset}"}}}}]}}]}}"#
    );
    apply(p, "VirtualService", "reviews", &spec)
}

/// Versions of reviews that answered, through the gateway and the frontend.
fn versions(count: usize) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for _ in 0..count {
        let value: serde_json::Value = serde_json::from_str(&curl(&[GATEWAY])).unwrap_or_default();
        for hop in value["hops"].as_array().into_iter().flatten().filter(|hop| hop["service"] == "reviews") {
            *found.entry(hop["version"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
        }
    }
    found
}

fn only(version: &str, count: usize) -> Check {
    let found = versions(count);
    if found.len() == 1 && found.get(version) == Some(&count) {
        return Ok(());
    }
    Err(format!("not all {count} went to {version}: {found:?}"))
}

fn conflict(p: &Platform) -> Check {
    // All to v1, whatever weights the checks before this one left.
    k(p, &["apply", "-f", &example("30-reviews-route.yaml")]).ok()?;
    rule(p)?;
    all_to(p, "v2")?;
    let yaml = |object: &str| k(p, &["get", object, "-o", "yaml"]).ok();
    eventually(SOON, || {
        contains(&yaml("virtualservice/reviews")?, &["reason: Conflict", "HTTPRoute bookstore/reviews"])
    })?;
    eventually(SOON, || {
        contains(&yaml("httproute/reviews")?, &["type: Conflicted", "VirtualService bookstore/reviews"])
    })?;
    eventually(SOON, || only("v1", 5))?;
    k(p, &["delete", "httproute/reviews"]).ok()?;
    eventually(SOON, || only("v2", 10))?;
    eventually(SOON, || contains(&yaml("virtualservice/reviews")?, &["reason: Accepted"]))
}

fn subsets(p: &Platform) -> Check {
    all_to(p, "v1")?;
    eventually(SOON, || only("v1", 10))?;
    let split = r#"{"hosts":["reviews"],"http":[{"route":[
        {"destination":{"host":"reviews","subset":"v1"},"weight":50},
        {"destination":{"host":"reviews","subset":"v2"},"weight":50}]}]}"#;
    apply(p, "VirtualService", "reviews", split)?;
    std::thread::sleep(Duration::from_millis(500));
    let found = versions(60);
    let of = |version: &str| found.get(version).copied().unwrap_or(0);
    if of("v1") < 12 || of("v2") < 12 {
        return Err(format!("50/50 gave {found:?}"));
    }
    // A subset that nobody defines is told, and answered with an error.
    all_to(p, "v9")?;
    eventually(SOON, || contains(&k(p, &["get", "virtualservice/reviews", "-o", "yaml"]).ok()?, &["SubsetNotFound"]))?;
    all_to(p, "v1")?;
    eventually(SOON, || only("v1", 5))
}

/// What a pod gets from a service: status lines and bodies.
fn call(p: &Platform, url: &str) -> Check<String> {
    let load = ["exec", "deploy/snoop", "--", "/bookstore", "load", "--url", url, "--rate", "20", "--seconds", "1"];
    k(p, &[&load[..], &["--output", "/dev/stdout"]].concat()).ok()
}

fn faults(p: &Platform) -> Check {
    let abort = r#"{"hosts":["ratings"],"http":[{"fault":{"abort":{"httpStatus":418,"percentage":{"value":100}}},
        "route":[{"destination":{"host":"ratings"}}]}]}"#;
    apply(p, "VirtualService", "ratings", abort)?;
    eventually(SOON, || contains(&call(p, "http://ratings/stars")?, &["418"]))?;
    let direct = r#"{"hosts":["ratings"],"http":[{"match":[{"uri":{"prefix":"/st"}}],"directResponse":{"status":200,"body":{"string":"made-here"}}},
        {"route":[{"destination":{"host":"ratings"}}]}]}"#;
    apply(p, "VirtualService", "ratings", direct)?;
    eventually(SOON, || match call(p, "http://ratings/stars")? {
        answer if answer.contains("418") => Err("the fault is still made".into()),
        // The loader expects JSON.
        answer => contains(&answer, &["expected value"]),
    })?;
    k(p, &["delete", "virtualservice/ratings"]).ok().map(drop)
}

/// Versions of reviews that one pod meets when it calls the service by itself.
fn met(p: &Platform) -> Check<BTreeMap<&'static str, usize>> {
    let answer = call(p, "http://reviews/reviews")?;
    let mut found = BTreeMap::new();
    for line in answer.lines().filter(|line| line.contains("\"hops\"")) {
        let value: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
        *found.entry(if value["hops"][0]["version"] == "v2" { "v2" } else { "v1" }).or_default() += 1;
    }
    Ok(found)
}

fn hashing(p: &Platform) -> Check {
    k(p, &["delete", "virtualservice/reviews"]).ok()?;
    eventually(SOON, || match met(p)? {
        found if found.len() == 2 => Ok(()),
        found => Err(format!("without a policy both versions answer: {found:?}")),
    })?;
    let spec =
        r#"{"host":"reviews","trafficPolicy":{"loadBalancer":{"consistentHash":{"useSourceIp":true,"maglev":{}}}}}"#;
    apply(p, "DestinationRule", "reviews", spec)?;
    eventually(SOON, || match met(p)? {
        found if found.len() == 1 && found.values().sum::<usize>() >= 10 => Ok(()),
        found => Err(format!("one caller met several: {found:?}")),
    })?;
    k(p, &["delete", "destinationrule/reviews"]).ok().map(drop)
}

fn ejection(p: &Platform) -> Check {
    let spec = r#"{"host":"catalog","trafficPolicy":{"outlierDetection":{"consecutive5xxErrors":3,"interval":"1s","baseEjectionTime":"60s","maxEjectionPercent":50}}}"#;
    apply(p, "DestinationRule", "catalog", spec)?;
    // Ready, and deaf: nothing listens on its port.
    let pod = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"deaf","labels":{"app":"catalog"}},"spec":{"terminationGracePeriodSeconds":1,
        "containers":[{"name":"t","image":"toolbox:v1","command":["/busybox","sleep","10000"],"ports":[{"name":"http","containerPort":8080}]}]}}"#;
    p.kubectl_in(&["-n", "bookstore", "apply", "-f", "-"], pod).ok()?;
    k(p, &["wait", "--for=condition=Ready", "pod/deaf", "--timeout=30s"]).ok()?;
    let ip = k(p, &["get", "pod/deaf", "-o", "jsonpath={.status.podIP}"]).ok()?;
    let seen = eventually(Duration::from_secs(20), || {
        let answer = call(p, "http://catalog/titles")?;
        if answer.contains("\"error\"") {
            return Err(format!("a request failed: {answer}"));
        }
        let log = std::fs::read_to_string(p.dir.join("logs/proxy.log")).map_err(|error| error.to_string())?;
        contains(&log, &["an endpoint is ejected", ip.trim()])
    });
    k(p, &["delete", "pod/deaf", "destinationrule/catalog"]).ok()?;
    seen
}

fn entry(p: &Platform) -> Check {
    let ip = k(p, &["get", "pods", "-l", "app=catalog", "-o", "jsonpath={.items[0].status.podIP}"]).ok()?;
    let spec = format!(
        r#"{{"hosts":["books.example"],"ports":[{{"number":80,"name":"http","protocol":"HTTP","targetPort":8080}}],"resolution":"STATIC","endpoints":[{{"address":"{}"}}]}}"#,
        ip.trim()
    );
    apply(p, "ServiceEntry", "books", &spec)?;
    eventually(SOON, || contains(&call(p, "http://books.example/titles")?, &["\"catalog\""]))?;
    k(p, &["delete", "serviceentry/books"]).ok().map(drop)
}
