//! An Envoy beside the process of a joined host, where no proxy of ours runs: what comes in.

use super::peers::{Guest, Guesthood, identity};
use super::{
    AUTHENTICATION, BACKENDS, CERTIFICATE_S, DESTINATION_RULES, PATIENCE, PODS, POLICIES, Process, VIRTUAL_SERVICES,
    World, ask, backends, status,
};
use client::Resource;
use e2e::{Check, contains, eventually, shell};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::{Duration, Instant};

const PORT: u16 = 16_497;
const ACCOUNTS: Resource = Resource { group: "", version: "v1", plural: "serviceaccounts" };

/// Asks on one connection until it is told a status, and says so; a connection that ends is a mistake.
const KEPT: &str = r#"
import sys, time, http.client
url, wanted, first = sys.argv[1], int(sys.argv[2]), True
host, path = url.split("/", 1)
connection = http.client.HTTPConnection(host, timeout=3)
connection.connect()
connection.auto_open = 0
until = time.time() + 15
while time.time() < until:
    connection.request("GET", "/" + path)
    answer = connection.getresponse()
    answer.read()
    if first:
        print("first", answer.status, flush=True)
        first = False
    if answer.status == wanted:
        print("then", answer.status, flush=True)
        break
    time.sleep(0.05)
"#;

/// What takes part.
struct Play<'a> {
    world: &'a World,
    envoy: &'a Path,
    /// Served by an Envoy.
    old: Guest,
    /// Served by our proxy.
    friend: Guest,
}

impl World {
    pub fn beside(&self, binary: &Path, envoy: &Path) -> Check {
        let join = |number: u8, service: &str, port: u16, envoy: Option<&str>| {
            let python = Path::new("python3");
            let of = Guesthood { number, service, port, protocol: "http", script: backends::HTTP, python, envoy };
            Guest::join(self, binary, &of)
        };
        // Others left it.
        let _ = self.delete(AUTHENTICATION, "strict");
        let play = Play {
            world: self,
            envoy,
            old: join(3, "old", PORT, Some("listen"))?,
            friend: join(4, "friend", 16_498, None)?,
        };
        let said = play.listen().and_then(|()| play.capture());
        said.map_err(|why| format!("{why}\n{}\n{}\n{}", play.old.log(), play.friend.log(), play.old.envoy_log()))
    }
}

impl Play<'_> {
    /// Through a tunnel, as `friend`.
    fn tunnelled(&self, path: &str, more: &[&str]) -> Check<String> {
        let mut curl = self.friend.inside();
        curl.args(["curl", "-sS", "-m", "3", "-w", " [%{http_code}]"]).args(more);
        curl.arg(format!("http://old.default.svc.cluster.local:{PORT}{path}"));
        shell::run(&mut curl, None).ok()
    }

    /// Straight to the port, in plain text.
    fn plain(&self) -> Check<String> {
        let mut curl = std::process::Command::new("curl");
        curl.args(["-sS", "-m", "3", &format!("http://{}:{PORT}/plain", self.old.address())]);
        shell::run(&mut curl, None).ok()
    }

    fn refuses_plain(&self) -> Check {
        match self.plain() {
            Ok(answer) => Err(format!("plain text was taken: {answer}")),
            Err(_) => Ok(()),
        }
    }

    /// With the port on its own address.
    fn listen(&self) -> Check {
        let world = self.world;
        let _envoy = self.old.envoy(self.envoy, false)?;
        eventually(PATIENCE, || {
            contains(&self.tunnelled("/in", &[])?, &["old GET /in ", &identity("friend"), "[200]"])
        })?;
        eventually(PATIENCE, || contains(&self.plain()?, &["old GET /plain ", "who=None"]))?;
        // What a caller says of itself counts for nothing.
        let lie = ["-H", "x-forwarded-client-cert: URI=spiffe://cluster.local/ns/default/sa/king"];
        let answer = self.tunnelled("/lie", &lie)?;
        if answer.contains("king") {
            return Err(format!("a lie was passed on: {answer}"));
        }
        world.report("envoy host/default/old-guest3")?;
        world.strict()?;
        eventually(PATIENCE, || self.refuses_plain())?;
        contains(&self.tunnelled("/strict", &[])?, &["old GET /strict ", &identity("friend")])?;
        self.peers()?;
        self.policies()?;
        self.rotation()
    }

    /// Another Envoy calls: TLS without a tunnel.
    fn peers(&self) -> Check {
        let world = self.world;
        for team in ["a", "b"] {
            self.caller_pod(team)?;
        }
        let caller = self.caller("a")?;
        let get =
            || contains(&ask(15_080, "old.default", "/direct", &[])?, &["old GET /direct ", &identity("teller-a")]);
        eventually(PATIENCE, get).map_err(|why| format!("{why}\n{}", world.log("DELTA_GRPC")))?;
        let code =
            |expect: &str| eventually(PATIENCE, || contains(&status(15_080, "old.default", "/direct")?, &[expect]));
        world.only("old", "friend")?;
        code("403")?;
        eventually(PATIENCE, || contains(&self.tunnelled("/only", &[])?, &["[200]"]))?;
        world.only("old", "teller-a")?;
        code("200")?;
        eventually(PATIENCE, || contains(&self.tunnelled("/only", &[])?, &["[403]"]))?;
        world.delete(POLICIES, "only")?;
        drop(caller);
        self.labels()
    }

    fn caller(&self, team: &str) -> Check<Process> {
        let account = format!("teller-{team}");
        self.world.envoy(self.envoy, "DELTA_GRPC", &json!({ "namespace": "default", "serviceAccount": account }))
    }

    /// A rule for callers with labels: the pod's, beside which the Envoy is.
    fn labels(&self) -> Check {
        let world = self.world;
        world.put(
            VIRTUAL_SERVICES,
            &json!({ "apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": { "name": "labels" },
                "spec": { "hosts": ["one"], "http": [
                    { "match": [{ "sourceLabels": { "team": "a" }, "sourceNamespace": "default" }], "route": [{ "destination": { "host": "two" } }] },
                    { "route": [{ "destination": { "host": "one" } }] }] } }),
        )?;
        for (team, backend) in [("a", BACKENDS[1]), ("b", BACKENDS[0])] {
            let _envoy = self.caller(team)?;
            eventually(PATIENCE, || {
                contains(&ask(15_080, "one.default", "/l", &[])?, &[&format!("backend-{backend} ")])
            })
            .map_err(|why| format!("{team}: {why}"))?;
        }
        world.delete(VIRTUAL_SERVICES, "labels")
    }

    fn caller_pod(&self, team: &str) -> Check {
        let account = format!("teller-{team}");
        self.world
            .put(ACCOUNTS, &json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": account } }))?;
        let metadata = json!({ "name": account, "labels": { "team": team } });
        self.world.put(
            PODS,
            &json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": { "nodeName": "alone",
                "serviceAccountName": account, "containers": [{ "name": "c", "image": "none" }] } }),
        )
    }

    /// What policies say holds, also on connections that are open, and what is tried only is counted.
    fn policies(&self) -> Check {
        let world = self.world;
        let deny = |name: &str, annotations: &Value, rules: &Value| {
            world.put(
                POLICIES,
                &json!({ "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
                    "metadata": { "name": name, "annotations": annotations },
                    "spec": { "selector": { "matchLabels": { "app": "old" } }, "action": "DENY", "rules": rules } }),
            )
        };
        eventually(PATIENCE, || contains(&self.tunnelled("/kept", &[])?, &["[200]"]))?;
        let mut kept = self.friend.inside();
        kept.args(["python3", "-c", KEPT, &format!("old.default.svc.cluster.local:{PORT}/kept"), "403"]);
        let mut kept = kept.stdout(std::process::Stdio::piped()).spawn().map_err(|error| error.to_string())?;
        let output = kept.stdout.take().ok_or("no pipe")?;
        let _kept = Process(kept);
        let mut lines = BufReader::new(output).lines();
        let mut line = || lines.next().ok_or("it ended")?.map_err(|error| error.to_string());
        contains(&line()?, &["first 200"])?;
        let ports = [PORT.to_string()];
        deny("kept", &json!({}), &json!([{ "to": [{ "operation": { "paths": ["/kept"], "ports": ports } }] }]))?;
        contains(&line()?, &["then 403"])?;
        contains(&self.tunnelled("/other", &[])?, &["[200]"])?;
        // By the caller's address, which the tunnel told.
        let blocks = [self.friend.address()];
        deny("kept", &json!({}), &json!([{ "from": [{ "source": { "ipBlocks": blocks } }] }]))?;
        eventually(PATIENCE, || contains(&self.tunnelled("/address", &[])?, &["[403]"]))?;
        deny(
            "kept",
            &json!({ "istio.io/dry-run": "true" }),
            &json!([{ "to": [{ "operation": { "paths": ["/tried"] } }] }]),
        )?;
        eventually(PATIENCE, || {
            contains(&self.tunnelled("/tried", &[])?, &["[200]"])?;
            let mut stats = self.old.inside();
            stats.args(["curl", "-sS", "-m", "3", "http://127.0.0.1:15000/stats?filter=tried_.*shadow_denied"]);
            let stats = shell::run(&mut stats, None).ok()?;
            if stats.lines().all(|line| line.ends_with(": 0")) {
                return Err(format!("nothing was counted: {stats}"));
            }
            contains(&self.old.envoy_output(), &["\"path\":\"/tried\"", "\"tried\":\"default/kept/0/0\""])
        })?;
        world.delete(POLICIES, "kept")
    }

    /// Certificates of both sides are renewed several times while each request of an Envoy opens a connection, and a tunnel is used: none fails.
    fn rotation(&self) -> Check {
        let world = self.world;
        world.put(
            DESTINATION_RULES,
            &json!({ "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": { "name": "old" },
                "spec": { "host": "old", "trafficPolicy": { "connectionPool": { "http": { "maxRequestsPerConnection": 1 } } } } }),
        )?;
        let _envoy = self.caller("a")?;
        let direct = || contains(&ask(15_080, "old.default", "/r", &[])?, &["old GET /r ", &identity("teller-a")]);
        eventually(PATIENCE, direct)?;
        let (begun, mut asked) = (Instant::now(), 0);
        while begun.elapsed() < Duration::from_secs(u64::from(CERTIFICATE_S) * 2) {
            direct().map_err(|why| format!("after {asked} requests: {why}"))?;
            let tunnelled = contains(&self.tunnelled("/r", &[])?, &["old GET /r ", &identity("friend")]);
            tunnelled.map_err(|why| format!("through a tunnel, after {asked} requests: {why}"))?;
            asked += 1;
            std::thread::sleep(Duration::from_millis(50));
        }
        world.delete(DESTINATION_RULES, "old")
    }

    /// With connections that are sent to it.
    fn capture(&self) -> Check {
        let world = self.world;
        let mut rules = self.old.inside();
        rules.args(["nft", &format!("add table ip envoy; add chain ip envoy inbound {{ type nat hook prerouting priority dstnat; }}; add rule ip envoy inbound tcp dport {PORT} redirect to :15006")]);
        shell::run(&mut rules, None).ok()?;
        let _envoy = self.old.envoy(self.envoy, true)?;
        eventually(PATIENCE, || contains(&self.tunnelled("/in", &[])?, &["old GET /in ", &identity("friend")]))?;
        self.refuses_plain()?;
        world.delete(AUTHENTICATION, "strict")?;
        eventually(PATIENCE, || contains(&self.plain()?, &["old GET /plain ", "who=None"]))
    }
}
