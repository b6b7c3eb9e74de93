//! The mesh: identity, routes, policy, names, a workload from outside, and no request lost while pods come and go.

use e2e::envoy::Bootstrap;
use e2e::network::Network;
use e2e::shell::{Check, run as run_program};
use e2e::{Platform, Runner, contains, eventually, platform};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

pub fn run(runner: &mut Runner, p: &Platform) {
    if !runner.wants("mesh") && !runner.wants("operations") {
        return;
    }
    let mut guests = None;
    let up = runner.always("mesh::the bookstore comes up", || deploy(p, guests.insert(Guests::new()?)));
    if let Some(guests) = guests.as_mut().filter(|_| up) {
        runner.check("mesh::every hop proves its identity", || identities(p));
        runner.check("mesh::names", || names(p));
        runner.check("mesh::routes by weight, header and path", || routes(p));
        runner.check("mesh::policy denies one caller", || policy(p));
        runner.check("mesh::STRICT refuses plain text", || strict(p));
        runner.check("mesh::rolling update loses no request", || rolling(p));
        runner.check("mesh::telemetry", || telemetry(p));
        runner.check("mesh::conditions of bad routes", || conditions(p));
        super::istio::checks(runner, p);
        super::traffic_policy::checks(runner, p);
        super::operations::checks(runner, p);
        match platform::binary("ENVOY") {
            Some(envoy) => _ = runner.check(AN_ENVOY, || an_envoy(p, guests, &envoy)),
            None => runner.skip(AN_ENVOY, "ENVOY names no Envoy"),
        }
    }
}

const NS: &str = "bookstore";
const AN_ENVOY: &str = "mesh::an Envoy in place of our gateway calls pods as who it is";
pub const GATEWAY: &str = "http://127.0.0.1:8088/";

/// The machine that is no node, and its processes.
struct Guests {
    processes: Vec<Child>,
    network: Network,
}

impl Guests {
    fn new() -> Check<Self> {
        Ok(Self { processes: Vec::new(), network: Network::new("dk-e2e", 251)? })
    }
}

impl Drop for Guests {
    fn drop(&mut self) {
        for child in &mut self.processes {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub fn example(name: &str) -> String {
    format!("{}/../../examples/bookstore/{name}", env!("CARGO_MANIFEST_DIR"))
}

pub fn k(p: &Platform, arguments: &[&str]) -> e2e::shell::Ran {
    p.kubectl(&[&["-n", NS], arguments].concat())
}

pub fn curl(arguments: &[&str]) -> String {
    run_program(Command::new("curl").args(["-sS", "-m", "10"]).args(arguments), None).stdout
}

fn deploy(p: &Platform, guests: &mut Guests) -> Check {
    for file in ["00-namespace.yaml", "10-services.yaml", "20-gateway.yaml", "30-reviews-route.yaml"] {
        k(p, &["apply", "-f", &example(file)]).ok()?;
    }
    join(p, guests)?;
    let deployments = k(p, &["get", "deployments", "-o", "name"]).ok()?;
    for deployment in deployments.lines() {
        k(p, &["rollout", "status", deployment, "--timeout=90s"]).ok()?;
    }
    k(p, &["wait", "--for=condition=Programmed", "gateway/bookstore", "--timeout=30s"]).ok()?;
    eventually(Duration::from_secs(30), || {
        contains(&curl(&[GATEWAY]), &["titles", "stars", "copies"])
            .or_else(|_| contains(&curl(&[GATEWAY]), &["titles"]))
    })
}

fn join(p: &Platform, guests: &mut Guests) -> Check {
    let token = p.diolkos(&["token", "create"]).ok()?;
    let bookstore = platform::binary("BOOKSTORE_BIN").ok_or("no bookstore")?;
    let diolkos = platform::binary("DIOLKOS_BIN").ok_or("no diolkos")?;
    let log = std::fs::File::create(p.dir.join("logs/join.log")).map_err(|error| error.to_string())?;
    let mut inventory = guests.network.inside();
    inventory.arg(bookstore).arg("inventory").env("PORT", "9090").env("BIND", "127.0.0.1");
    let mut join = guests.network.inside();
    join.arg(diolkos).args(["join", "--service=inventory", "--namespace=bookstore"]);
    join.arg(format!("--address={}", guests.network.address()))
        .args(["--port=9090", "--run-dir=/run/diolkos-e2e-legacy"]);
    join.arg(format!("--control={}:{}", guests.network.outside(), platform::MESH));
    join.arg("--data-dir=/var/lib/diolkos-e2e/legacy");
    join.env("DIOLKOS_JOIN_TOKEN", token.trim());
    for mut command in [inventory, join] {
        let (out, err) = (log.try_clone(), log.try_clone());
        let (out, err) = (out.map_err(|e| e.to_string())?, err.map_err(|e| e.to_string())?);
        let child = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn();
        guests.processes.push(child.map_err(|error| error.to_string())?);
    }
    Ok(())
}

fn identities(p: &Platform) -> Check {
    let answer = eventually(Duration::from_secs(20), || {
        let answer = curl(&[GATEWAY]);
        contains(&answer, &["inventory"]).map(|()| answer)
    })?;
    let sa = |name: &str| format!("spiffe://cluster.local/ns/bookstore/sa/{name}");
    let value: serde_json::Value = serde_json::from_str(&answer).map_err(|error| format!("{error}: {answer}"))?;
    let hops = value["hops"].as_array().ok_or("no hops")?;
    for (service, caller) in
        [("catalog", "frontend"), ("reviews", "frontend"), ("ratings", "reviews"), ("inventory", "frontend")]
    {
        let hop = hops.iter().find(|hop| hop["service"] == service).ok_or(format!("no hop {service}: {answer}"))?;
        if hop["caller"] != sa(caller) {
            return Err(format!("{service} was called by {} and not by {}", hop["caller"], sa(caller)));
        }
    }
    let forged = curl(&["-H", "x-forwarded-client-cert: URI=spiffe://cluster.local/ns/bookstore/sa/king", GATEWAY]);
    if forged.contains("king") {
        return Err(format!("a forged identity came through: {forged}"));
    }
    k(p, &["get", "endpointslices"]).ok().map(drop)
}

fn names(p: &Platform) -> Check {
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: tools}\nspec: {terminationGracePeriodSeconds: 1, containers: [{name: t, image: toolbox:v1, command: [/busybox, sleep, '10000']}]}";
    p.kubectl_in(&["-n", NS, "apply", "-f", "-"], pod).ok()?;
    k(p, &["wait", "--for=condition=Ready", "pod/tools", "--timeout=30s"]).ok()?;
    let look = |name: &str| k(p, &["exec", "tools", "--", "/busybox", "nslookup", name]);
    contains(&look("catalog.bookstore.svc.cluster.local").ok()?, &["10.96."])?;
    contains(&look("kubernetes.default.svc.cluster.local").ok()?, &["10.96.0.1"])?;
    look("nobody.bookstore.svc.cluster.local").refused()?;
    let get = |url: &str| {
        let load =
            ["exec", "deploy/frontend", "--", "/bookstore", "load", "--url", url, "--rate", "1", "--seconds", "1"];
        k(p, &[&load[..], &["--output", "/dev/stdout"]].concat())
    };
    contains(&get("http://catalog/titles").ok()?, &["\"catalog\"", "sa/frontend"])?;
    contains(&get("http://catalog.bookstore/titles").ok()?, &["\"catalog\""])
}

fn versions(count: usize) -> (usize, usize) {
    let (mut v1, mut v2) = (0, 0);
    for _ in 0..count {
        let value: serde_json::Value = serde_json::from_str(&curl(&[GATEWAY])).unwrap_or_default();
        for hop in value["hops"].as_array().into_iter().flatten().filter(|hop| hop["service"] == "reviews") {
            if hop["version"] == "v2" { v2 += 1 } else { v1 += 1 }
        }
    }
    (v1, v2)
}

fn routes(p: &Platform) -> Check {
    if versions(20) != (20, 0) {
        return Err("with weights 100 and 0, not all went to v1".into());
    }
    let weight = |v1: u32, v2: u32| {
        let patch = format!(
            r#"[{{"op":"replace","path":"/spec/rules/0/backendRefs/0/weight","value":{v1}}},{{"op":"replace","path":"/spec/rules/0/backendRefs/1/weight","value":{v2}}}]"#
        );
        k(p, &["patch", "httproute/reviews", "--type=json", "-p", &patch]).ok()
    };
    weight(0, 100)?;
    eventually(Duration::from_secs(5), || {
        if versions(10) == (0, 10) { Ok(()) } else { Err("not all went to v2".into()) }
    })?;
    weight(50, 50)?;
    std::thread::sleep(Duration::from_millis(300));
    let (v1, v2) = versions(60);
    if v1 < 15 || v2 < 15 {
        return Err(format!("weights 50/50 gave {v1}/{v2}"));
    }
    let route = r#"{"apiVersion":"gateway.networking.k8s.io/v1","kind":"HTTPRoute","metadata":{"name":"more"},"spec":{"parentRefs":[{"name":"bookstore"}],"rules":[
      {"matches":[{"path":{"type":"PathPrefix","value":"/old"}}],"filters":[{"type":"RequestRedirect","requestRedirect":{"path":{"type":"ReplacePrefixMatch","replacePrefixMatch":"/new"},"statusCode":301}}]},
      {"matches":[{"path":{"type":"PathPrefix","value":"/stars"},"headers":[{"name":"x-who","value":"me"}]}],"filters":[{"type":"ResponseHeaderModifier","responseHeaderModifier":{"set":[{"name":"x-seen","value":"yes"}]}}],"backendRefs":[{"name":"ratings","port":80}]}]}}"#;
    p.kubectl_in(&["-n", NS, "apply", "-f", "-"], route).ok()?;
    eventually(Duration::from_secs(5), || contains(&curl(&["-i", &format!("{GATEWAY}old/x")]), &["301", "/new/x"]))?;
    contains(
        &curl(&["-i", "-H", "x-who: me", &format!("{GATEWAY}stars")]),
        &["x-seen: yes", "\"service\":\"ratings\""],
    )?;
    k(p, &["delete", "httproute/more"]).ok().map(drop)
}

fn policy(p: &Platform) -> Check {
    let call = |from: &str| {
        k(
            p,
            &[
                "exec",
                from,
                "--",
                "/bookstore",
                "load",
                "--url",
                "http://catalog/titles",
                "--rate",
                "2",
                "--seconds",
                "1",
                "--output",
                "/dev/stdout",
            ],
        )
        .ok()
    };
    contains(&call("deploy/snoop")?, &["hops"])?;
    k(p, &["apply", "-f", &example("50-deny-snoop.yaml")]).ok()?;
    eventually(Duration::from_secs(5), || contains(&call("deploy/snoop")?, &["403"]))?;
    contains(&call("deploy/frontend")?, &["hops"])?;
    let log = std::fs::read_to_string(p.dir.join("logs/proxy.log")).map_err(|error| error.to_string())?;
    contains(&log, &["deny-snoop"])?;
    k(p, &["delete", "-f", &example("50-deny-snoop.yaml")]).ok().map(drop)
}

fn strict(p: &Platform) -> Check {
    let ip = k(p, &["get", "pods", "-l", "app=ratings", "-o", "jsonpath={.items[0].status.podIP}"]).ok()?;
    let direct = format!("http://{ip}:8080/stars");
    k(p, &["apply", "-f", &example("40-strict.yaml")]).ok()?;
    eventually(Duration::from_secs(5), || {
        let ran = run_program(Command::new("curl").args(["-sS", "-m", "3", "--interface", "dk-e2e0", &direct]), None);
        if ran.ok && ran.stdout.contains("stars") { Err("plain text reached a STRICT workload".into()) } else { Ok(()) }
    })?;
    contains(&curl(&[GATEWAY]), &["titles"])
}

fn rolling(p: &Platform) -> Check {
    let bookstore = platform::binary("BOOKSTORE_BIN").ok_or("no bookstore")?;
    let output = p.dir.join("load.jsonl");
    let mut load = Command::new(bookstore);
    load.args(["load", "--url", GATEWAY, "--rate", "50", "--seconds", "30", "--output"]).arg(&output);
    let mut load = load.spawn().map_err(|error| error.to_string())?;
    std::thread::sleep(Duration::from_secs(1));
    for deployment in ["frontend", "catalog", "ratings"] {
        k(p, &["rollout", "restart", &format!("deployment/{deployment}")]).ok()?;
    }
    for deployment in ["frontend", "catalog", "ratings"] {
        k(p, &["rollout", "status", &format!("deployment/{deployment}"), "--timeout=60s"]).ok()?;
    }
    load.wait().map_err(|error| error.to_string())?;
    let text = std::fs::read_to_string(&output).map_err(|error| error.to_string())?;
    let failed: Vec<&str> = text.lines().filter(|line| line.contains("\"error\"")).collect();
    match failed.first() {
        Some(first) => Err(format!("{} of {} requests failed, such as {first}", failed.len(), text.lines().count())),
        None if text.lines().count() < 1000 => Err("the load did not run".into()),
        None => Ok(()),
    }
}

fn telemetry(p: &Platform) -> Check {
    let metrics = curl(&[&format!("http://127.0.0.1:{}/metrics", platform::PROXY_ADMIN)]);
    contains(
        &metrics,
        &["istio_requests_total", "destination_workload=\"catalog\"", "istio_request_duration_milliseconds_bucket"],
    )?;
    eventually(Duration::from_secs(20), || {
        contains(
            &p.kubectl(&["get", "--raw", "/diolkos/v1/graph"]).ok()?,
            &["\"edges\"", "\"catalog\"", "\"mtls\":true"],
        )
    })?;
    contains(&p.diolkos(&["mesh", "status"]).ok()?, &["e2e"])
}

fn conditions(p: &Platform) -> Check {
    let route = r#"{"apiVersion":"gateway.networking.k8s.io/v1","kind":"HTTPRoute","metadata":{"name":"lost"},"spec":{"parentRefs":[{"name":"bookstore"}],"rules":[
      {"matches":[{"path":{"type":"PathPrefix","value":"/lost"}}],"backendRefs":[{"name":"nobody","port":80}]}]}}"#;
    p.kubectl_in(&["-n", NS, "apply", "-f", "-"], route).ok()?;
    eventually(Duration::from_secs(5), || {
        contains(
            &k(p, &["get", "httproute/lost", "-o", "yaml"]).ok()?,
            &["BackendNotFound", "type: ResolvedRefs", "controllerName: diolkos.io/gateway-controller"],
        )
    })?;
    contains(&curl(&["-o", "/dev/null", "-w", "%{http_code}", &format!("{GATEWAY}lost")]), &["500"])?;
    k(p, &["delete", "httproute/lost"]).ok().map(drop)
}

/// On the machine that is no node; pods take nothing in plain text.
fn an_envoy(p: &Platform, guests: &mut Guests, envoy: &Path) -> Check {
    let objects = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: envoy}
spec: {gatewayClassName: diolkos, listeners: [{name: http, protocol: HTTP, port: 8098}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: envoy}
spec: {parentRefs: [{name: envoy}], rules: [{backendRefs: [{name: catalog, port: 80}]}]}";
    p.kubectl_in(&["-n", NS, "apply", "-f", "-"], objects).ok()?;
    k(p, &["apply", "-f", &example("40-strict.yaml")]).ok()?;
    let pki = |name: &str| p.dir.join("pki").join(name);
    let bootstrap = Bootstrap {
        id: "elsewhere",
        kind: "DELTA_GRPC",
        metadata: &serde_json::json!({ "gateway": "bookstore/envoy" }),
        control: (&guests.network.outside(), platform::MESH),
        admin: 8097,
        certificate: (&pki("node.crt"), &pki("node.key")),
        ca: &pki("ca.crt"),
    };
    let file = p.dir.join("envoy.json");
    std::fs::write(&file, bootstrap.text()).map_err(|error| error.to_string())?;
    let log = std::fs::File::create(p.dir.join("logs/envoy.log")).map_err(|error| error.to_string())?;
    let mut command = guests.network.inside();
    e2e::envoy::arguments(command.arg(envoy), &file);
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
    guests.processes.push(child.map_err(|error| error.to_string())?);
    let ask = || {
        run_program(
            guests.network.inside().args(["curl", "-sS", "-i", "-m", "3", "http://127.0.0.1:8098/titles"]),
            None,
        )
        .ok()
    };
    let answered = || contains(&ask()?, &["200 OK", "\"catalog\"", "sa/envoy-diolkos"]);
    eventually(Duration::from_secs(20), answered)?;
    let deny = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: not-envoy}
spec:
  selector: {matchLabels: {app: catalog}}
  action: DENY
  rules: [{from: [{source: {principals: [cluster.local/ns/bookstore/sa/envoy-diolkos]}}]}]";
    p.kubectl_in(&["-n", NS, "apply", "-f", "-"], deny).ok()?;
    eventually(Duration::from_secs(5), || contains(&ask()?, &["403"]))?;
    k(p, &["delete", "authorizationpolicy/not-envoy"]).ok()?;
    eventually(Duration::from_secs(5), answered)?;
    // Other pods, at other addresses: it follows them.
    let before = k(p, &["get", "pods", "-l", "app=catalog", "-o", "name"]).ok()?;
    k(p, &["rollout", "restart", "deployment/catalog"]).ok()?;
    k(p, &["rollout", "status", "deployment/catalog", "--timeout=60s"]).ok()?;
    for pod in before.lines() {
        k(p, &["wait", "--for=delete", pod, "--timeout=60s"]).ok()?;
    }
    eventually(Duration::from_secs(5), || (0..10).try_for_each(|_| answered()))?;
    k(p, &["delete", "gateway/envoy", "httproute/envoy"]).ok().map(drop)
}
