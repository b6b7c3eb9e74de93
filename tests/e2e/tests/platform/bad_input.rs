//! What comes in wrong is answered in words that Kubernetes users know, and harms nothing.

use e2e::shell::{Check, run as run_program};
use e2e::{Platform, Runner, contains};
use std::process::Command;

pub fn run(runner: &mut Runner, p: &Platform) {
    runner.check("bad input::manifests", || p.in_namespace("bad", |ns| manifests(p, ns)));
    runner.check("bad input::raw requests", || raw(p));
    runner.check("bad input::configuration", || configuration(p));
    runner.check("bad input::the platform stays up", || {
        contains(&p.kubectl(&["get", "--raw", "/readyz"]).ok()?, &["ok"])
    });
}

fn manifests(p: &Platform, ns: &str) -> Check {
    for (what, manifest, expect) in [
        ("no YAML", "kind: [", "error parsing"),
        ("unknown kind", "apiVersion: v1\nkind: Wagon\nmetadata: {name: a}", "no matches for kind \"Wagon\""),
        ("unknown field", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndatta: {}", "unknown field \"datta\""),
        ("wrong type", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {n: 1}", "cannot unmarshal"),
        (
            "bad name",
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: Not_A_Name}",
            "a lowercase RFC 1123 subdomain must consist of",
        ),
        (
            "no container",
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: []}",
            "spec.containers: Required value",
        ),
        (
            "bad quantity",
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a, image: b, resources: {limits: {cpu: lots}}}]}",
            "quantities must match",
        ),
        (
            "selector does not fit",
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: c}}, spec: {containers: [{name: a, image: b}]}}}",
            "`selector` does not match template `labels`",
        ),
    ] {
        let refused = p
            .kubectl_in(&["-n", ns, "create", "-f", "-"], manifest)
            .refused()
            .map_err(|why| format!("{what}: {why}"))?;
        contains(&refused, &[expect]).map_err(|why| format!("{what}: {why}"))?;
    }
    let nowhere = p.kubectl(&["-n", "nowhere", "create", "configmap", "a"]).refused()?;
    contains(&nowhere, &["namespaces \"nowhere\" not found"])?;
    p.kubectl(&["-n", ns, "create", "configmap", "a"]).ok()?;
    contains(&p.kubectl(&["-n", ns, "create", "configmap", "a"]).refused()?, &["configmaps \"a\" already exists"])?;
    contains(&p.kubectl(&["-n", ns, "get", "configmap", "b"]).refused()?, &["configmaps \"b\" not found"])
}

fn raw(p: &Platform) -> Check {
    let base = format!("https://127.0.0.1:{}", e2e::platform::API);
    let token = p.kubectl(&["-n", "default", "create", "token", "default"]).ok()?;
    let admin = p.diolkos(&["token", "dashboard"]).ok()?;
    let curl = |arguments: &[&str], input: Option<&str>| {
        let fixed = ["-sk", "-o", "-", "-w", "\n%{http_code}"];
        run_program(Command::new("curl").args(fixed).args(arguments), input).stdout
    };
    let maps = format!("{base}/api/v1/namespaces/default/configmaps");
    let bearer = |token: &str| format!("Authorization: Bearer {}", token.trim());
    contains(&curl(&["-H", "Authorization: Bearer nonsense", &maps], None), &["Unauthorized", "401"])?;
    contains(&curl(&[&maps], None), &["system:anonymous", "403"])?;
    contains(&curl(&["-H", &bearer(&token), &maps], None), &["is forbidden", "403"])?;
    let admin = bearer(&admin);
    let post = |kind: &str, body: &str| curl(&["-H", &admin, "-H", kind, "--data-binary", "@-", &maps], Some(body));
    contains(&post("Content-Type: application/json", "{"), &["\"status\":\"Failure\"", "400"])?;
    contains(
        &post("Content-Type: application/vnd.kubernetes.protobuf", "k8s\0\u{1}nonsense"),
        &["\"status\":\"Failure\"", "400"],
    )?;
    contains(&post("Content-Type: text/csv", "a,b"), &["415"])?;
    let deep = format!(
        r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"deep","annotations":{}}}}}"#,
        "[".repeat(100_000)
    );
    contains(&post("Content-Type: application/json", &deep), &["400"])?;
    contains(&curl(&["-H", &admin, "-X", "BREW", &maps], None), &["405"])?;
    contains(&curl(&["-H", &admin, &format!("{base}/apis/no.such/v1/things")], None), &["404"])?;
    contains(&curl(&["-H", &admin, &format!("{maps}?labelSelector=%3D%3D")], None), &["400"])?;
    let huge = format!(
        r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"huge"}},"data":{{"k":"{}"}}}}"#,
        "x".repeat(4 << 20)
    );
    contains(&post("Content-Type: application/json", &huge), &["RequestEntityTooLarge", "413"])
}

fn configuration(p: &Platform) -> Check {
    let file = p.dir.join("bad.toml");
    std::fs::write(&file, "data-dir = '/tmp/x'\napi-lisen = '0.0.0.0:1'\n").map_err(|error| error.to_string())?;
    let flag = format!("--config={}", file.display());
    contains(&p.diolkos(&["server", &flag]).refused()?, &["bad.toml", "line 2", "unknown field `api-lisen`"])?;
    contains(&p.diolkos(&["server", "--log=loud"]).refused()?, &["log:", "mend: one of error"])?;
    let taken = format!("--api-listen=127.0.0.1:{}", e2e::platform::API);
    let dir = p.dir.join("second");
    let refused = p.diolkos(&["server", &taken, &format!("--data-dir={}", dir.display())]);
    contains(&format!("{}{}", refused.stdout, refused.stderr), &[&e2e::platform::API.to_string()])
}
