//! An Envoy in place of our proxy on joined hosts: all that is decided there beside identity. Tokens, authorizers, what is noted only, limits; and at ports that
//! are not HTTP policies and modes, also on connections that are open.

use super::backends;
use super::peers::{Guest, Guesthood, identity};
use super::{AUTHENTICATION, AUTHENTICATIONS, PATIENCE, POLICIES, Process, TRAFFIC_POLICIES, World, signed_token};
use e2e::{Check, contains, eventually, shell};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

const HTTP_PORT: u16 = 16_501;
const BYTES_PORT: u16 = 16_502;
const ASKER_PORT: u16 = 16_504;

/// Greets first, then says back what it is told.
const ECHO: &str = r#"
import sys, socketserver
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(b"hello\n")
        for line in self.rfile:
            self.wfile.write(b"again " + line)
class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address, daemon_threads = True, True
Server(("0.0.0.0", int(sys.argv[1])), Handler).serve_forever()
"#;

/// Talks on one connection until it ends, or its input does, or it has lasted for long, and says so.
const TALK: &str = r#"
import os, sys, socket, time, threading
stream = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)
stream.settimeout(5)
def ask(line):
    stream.sendall(line)
    return stream.recv(100)
done = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), done.set()), daemon=True).start()
threading.Timer(20, done.set).start()
try:
    greeting = stream.recv(100)
    if greeting and ask(b"one\n"):
        print("talks", greeting.decode().strip(), flush=True)
        while not done.is_set():
            time.sleep(0.05)
            if not ask(b"more\n"): break
except OSError: pass
print("still there" if done.is_set() else "ended", flush=True)
os._exit(0)
"#;

/// The same with requests.
const REQUESTS: &str = r#"
import os, sys, time, threading, http.client
connection = http.client.HTTPConnection(sys.argv[1], int(sys.argv[2]), timeout=5)
connection.connect()
connection.auto_open = 0
done = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), done.set()), daemon=True).start()
threading.Timer(20, done.set).start()
try:
    first = True
    while not done.is_set():
        connection.request("GET", "/open")
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200: break
        if first: print("talks", flush=True)
        first = False
        time.sleep(0.05)
except (OSError, http.client.HTTPException): pass
print("still there" if done.is_set() else "ended", flush=True)
os._exit(0)
"#;

/// A connection that is open.
struct Talk {
    _process: Process,
    input: Option<std::process::ChildStdin>,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Talk {
    fn begin(mut command: Command, script: &str, address: &str, port: u16) -> Check<Talk> {
        command.args(["python3", "-c", script, address, &port.to_string()]);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut child: Child = child.map_err(|error| error.to_string())?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let output = output.ok_or("no pipe")?;
        let mut talk = Talk { _process: Process(child), input, lines: BufReader::new(output).lines() };
        contains(&talk.next()?, &["talks"])?;
        Ok(talk)
    }

    fn next(&mut self) -> Check<String> {
        self.lines.next().ok_or("nothing was said")?.map_err(|error| error.to_string())
    }

    /// The other side ends it.
    fn ends(mut self, why: &str) -> Check {
        contains(&self.next()?, &["ended"]).map_err(|said| format!("{why}: {said}"))
    }

    /// It was there all the time.
    fn lasts(mut self, why: &str) -> Check {
        drop(self.input.take());
        contains(&self.next()?, &["still there"]).map_err(|said| format!("{why}: {said}"))
    }
}

/// A part of the play.
type Step<'a> = fn(&Scene<'a>) -> Check;

/// What takes part.
struct Scene<'a> {
    world: &'a World,
    /// Requests, served by an Envoy.
    held: Guest,
    /// Bytes, served by an Envoy.
    bytes: Guest,
    /// Served by our proxy.
    pal: Guest,
}

impl World {
    pub fn kept(&self, binary: &Path, envoy: &Path, python: &Path) -> Check {
        let join = |number: u8, service: &str, port: u16, (protocol, script): (&str, &str), envoy: Option<&str>| {
            let python = Path::new("python3");
            let of = Guesthood { number, service, port, protocol, script, python, envoy };
            Guest::join(self, binary, &of)
        };
        let _ = self.delete(AUTHENTICATION, "strict");
        let http = ("http", backends::HTTP);
        let scene = Scene {
            world: self,
            held: join(5, "held", HTTP_PORT, http, Some("listen"))?,
            bytes: join(6, "bytes", BYTES_PORT, ("tcp", ECHO), Some("listen"))?,
            pal: join(7, "pal", 16_503, http, None)?,
        };
        let _asker = backends::grpc(python, ASKER_PORT)?;
        self.service("asker", &[ASKER_PORT])?;
        let said = scene.play(envoy);
        said.map_err(|why| {
            let logs =
                [&scene.held, &scene.bytes, &scene.pal].map(|guest| format!("{}\n{}", guest.log(), guest.envoy_log()));
            format!("{why}\n{}", logs.join("\n"))
        })
    }
}

impl Scene<'_> {
    fn play(&self, envoy: &Path) -> Check {
        let _envoys = [self.held.envoy(envoy, false)?, self.bytes.envoy(envoy, false)?];
        eventually(PATIENCE, || contains(&self.get("/in", &[])?, &["held GET /in ", &identity("pal"), "[200]"]))?;
        let steps: [(&str, Step<'_>); 6] = [
            ("tokens", Self::tokens),
            ("authorizers", Self::authorizers),
            ("what is noted", Self::noted),
            ("limits", Self::limits),
            ("bytes", Self::streams),
            ("modes", Self::modes),
        ];
        steps.into_iter().try_for_each(|(name, step)| step(self).map_err(|why| format!("{name}: {why}")))
    }

    /// Through a tunnel, as `pal`: answer, headers and status.
    fn get(&self, path: &str, headers: &[&str]) -> Check<String> {
        let mut curl = self.pal.inside();
        curl.args(["curl", "-sS", "-i", "-m", "3", "-w", " [%{http_code}]"]);
        curl.args(headers.iter().flat_map(|header| ["-H", header]));
        curl.arg(format!("http://held.default.svc.cluster.local:{HTTP_PORT}{path}"));
        shell::run(&mut curl, None).ok()
    }

    /// Straight to the port, in plain text.
    fn plain(&self, path: &str, headers: &[&str]) -> Check<String> {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "-i", "-m", "3", "-w", " [%{http_code}]"]);
        curl.args(headers.iter().flat_map(|header| ["-H", header]));
        curl.arg(format!("http://{}:{HTTP_PORT}{path}", self.held.address()));
        shell::run(&mut curl, None).ok()
    }

    /// The same answer by both ways. Our proxy keeps connections, and those of before know what was told before, for a second.
    fn both(&self, path: &str, headers: &[&str], needles: &[&str]) -> Check {
        eventually(PATIENCE, || {
            contains(&self.get(path, headers)?, needles).map_err(|why| format!("through a tunnel: {why}"))?;
            contains(&self.plain(path, headers)?, needles).map_err(|why| format!("in plain text: {why}"))
        })
    }

    fn policy(&self, app: &str, action: &str, provider: Option<&str>, rules: &Value) -> Check {
        let mut spec = json!({ "selector": { "matchLabels": { "app": app } }, "action": action, "rules": rules });
        if let Some(name) = provider {
            spec["provider"] = json!({ "name": name });
        }
        let name = provider.unwrap_or("kept");
        self.world.put(
            POLICIES,
            &json!({ "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": { "name": name }, "spec": spec }),
        )
    }

    /// Who a token names decides, and what a token says that does not hold is refused.
    fn tokens(&self) -> Check {
        let Some((keys, token)) = signed_token(&self.world.dir)? else { return Ok(()) };
        self.world.put(
            AUTHENTICATIONS,
            &json!({ "apiVersion": "security.istio.io/v1", "kind": "RequestAuthentication", "metadata": { "name": "kept" },
                "spec": { "selector": { "matchLabels": { "app": "held" } }, "jwtRules": [{ "issuer": "tests", "jwks": keys,
                    "outputClaimToHeaders": [{ "header": "x-extra", "claim": "sub" }] }] } }),
        )?;
        let bearer = format!("authorization: Bearer {token}");
        self.both("/token", &["authorization: Bearer a.b.c"], &["[401]", "Jwt"])?;
        self.both("/token", &[&bearer], &["[200]", "extra=somebody"])?;
        self.both("/token", &[], &["[200]"])?;
        let from = |who: &str| json!([{ "from": [{ "source": { "requestPrincipals": [who] } }] }]);
        self.policy("held", "ALLOW", None, &from("tests/somebody"))?;
        self.both("/token", &[], &["[403]"])?;
        self.both("/token", &[&bearer], &["[200]"])?;
        self.policy("held", "ALLOW", None, &from("tests/nobody"))?;
        self.both("/token", &[&bearer], &["[403]"])?;
        self.world.delete(POLICIES, "kept")?;
        self.world.delete(AUTHENTICATIONS, "kept")
    }

    /// By HTTP and by gRPC; an authorizer that is not known lets nobody in.
    fn authorizers(&self) -> Check {
        let at = |path: &str| json!([{ "to": [{ "operation": { "paths": [path] } }] }]);
        for (provider, path) in [("web", "/http/*"), ("asker", "/grpc/*"), ("unheard-of", "/unknown/*")] {
            self.policy("held", "CUSTOM", Some(provider), &at(path))?;
        }
        self.both("/grpc/a", &[], &["[401]", "x-why: unknown", "who are you"])?;
        let yes = ["x-pass: yes"];
        self.both("/grpc/a", &yes, &["[200]", "GET /grpc/a ", "user=known"])?;
        self.both("/http/a", &["x-unsent: no"], &["[403]", "x-why: None added /check/http/a"])?;
        self.both("/http/a", &yes, &["[200]", "user=None added /check/http/a"])?;
        self.both("/unknown/a", &yes, &["[403]"])?;
        self.both("/free", &[], &["[200]", "user=None"])?;
        ["web", "asker", "unheard-of"].into_iter().try_for_each(|name| self.world.delete(POLICIES, name))
    }

    /// AUDIT lets it through and leaves a line; so does what is refused, with the policy's name, which the caller is not told.
    fn noted(&self) -> Check {
        let at = |path: &str| json!([{ "to": [{ "operation": { "paths": [path] } }] }]);
        self.policy("held", "AUDIT", None, &at("/noted"))?;
        let line = |path: &str, needles: &[&str]| {
            let said = self.held.envoy_output();
            let about =
                |line: &&str| line.contains(&format!("\"{path}\"")) && needles.iter().all(|it| line.contains(it));
            said.lines().find(about).map(drop).ok_or_else(|| format!("no line about {path}: {said}"))
        };
        eventually(PATIENCE, || {
            contains(&self.get("/noted", &[])?, &["[200]"])?;
            line("/noted", &["\"audited\":true", "/ns/default/sa/pal"])
        })?;
        self.policy("held", "DENY", None, &at("/refused"))?;
        eventually(PATIENCE, || {
            let answer = self.get("/refused", &[])?;
            contains(&answer, &["[403]"])?;
            if answer.contains("kept") {
                return Err(format!("the caller is told which policy: {answer}"));
            }
            line("/refused", &["default/kept", "/ns/default/sa/pal"])
        })?;
        if self.held.envoy_output().contains("/in\"") {
            return Err("a request that no policy minds left a line".into());
        }
        self.world.delete(POLICIES, "kept")
    }

    fn limit(&self, limit: &Value) -> Check {
        let target = json!([{ "group": "", "kind": "Service", "name": "held" }]);
        self.world.put(
            TRAFFIC_POLICIES,
            &json!({ "apiVersion": "mesh.diolkos.io/v1", "kind": "TrafficPolicy", "metadata": { "name": "kept" },
                "spec": { "targetRefs": target, "rateLimit": limit } }),
        )
    }

    /// Those that it keeps itself, and those of a rate limit service; counted on connections of their own.
    fn limits(&self) -> Check {
        let user = json!({ "type": "Header", "name": "x-user" });
        self.limit(&json!({ "local": [{ "requests": 1, "unit": "Hour", "per": [user] }] }))?;
        eventually(PATIENCE, || contains(&self.get("/limit", &["x-user: probe"])?, &["[429]", "retry-after:"]))?;
        for expect in ["[200]", "[429]"] {
            contains(&self.plain("/limit", &["x-user: a"])?, &[expect])?;
        }
        let service = json!({ "name": "asker", "port": 80 });
        self.limit(&json!({ "global": { "backendRef": service, "domain": "held", "timeout": "1s", "failOpen": false,
            "descriptors": [{ "entries": [user] }] } }))?;
        eventually(PATIENCE, || contains(&self.get("/limit", &["x-user: other"])?, &["x-asked: held|x-user=other"]))?;
        for expect in ["[200]", "[200]", "[429]"] {
            contains(&self.plain("/limit", &["x-user: b"])?, &[expect])?;
        }
        self.both("/limit", &["x-user: b"], &["[429]", "x-asked: held|x-user=b"])?;
        self.world.delete(TRAFFIC_POLICIES, "kept")?;
        self.both("/limit", &["x-user: b"], &["[200]"])
    }

    fn tunnelled(&self) -> Check<Talk> {
        Talk::begin(self.pal.inside(), TALK, "bytes.default.svc.cluster.local", BYTES_PORT)
    }

    fn opened(&self) -> Check<Talk> {
        Talk::begin(Command::new("env"), TALK, &self.bytes.address(), BYTES_PORT)
    }

    /// Policies decide about connections, also about those that are open; those that go on being allowed last.
    fn streams(&self) -> Check {
        let tunnelled = eventually(PATIENCE, || self.tunnelled())?;
        let plain = eventually(PATIENCE, || self.opened())?;
        let pal = ["cluster.local/ns/default/sa/pal"];
        self.policy("bytes", "ALLOW", None, &json!([{ "from": [{ "source": { "principals": pal } }] }]))?;
        plain.ends("who is nobody, and only pal may")?;
        drop(tunnelled);
        let open = eventually(PATIENCE, || self.tunnelled())?;
        refused(&|| self.opened())?;
        let ports = [BYTES_PORT.to_string()];
        self.policy("bytes", "DENY", None, &json!([{ "to": [{ "operation": { "ports": ports } }] }]))?;
        open.ends("its port is denied")?;
        refused(&|| self.tunnelled())?;
        self.world.delete(POLICIES, "kept")?;
        eventually(PATIENCE, || self.tunnelled()).map(drop)
    }

    /// STRICT ends what is in plain text and nothing else; DISABLE takes plain text only.
    fn modes(&self) -> Check {
        let mode = |mode: &str| {
            self.world.put(
                AUTHENTICATION,
                &json!({ "apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication", "metadata": { "name": "kept" },
                    "spec": { "mtls": { "mode": mode } } }),
            )
        };
        let tunnelled = eventually(PATIENCE, || self.tunnelled())?;
        let plain = eventually(PATIENCE, || self.opened())?;
        let requests = Talk::begin(Command::new("env"), REQUESTS, &self.held.address(), HTTP_PORT)?;
        mode("STRICT")?;
        plain.ends("plain text under STRICT")?;
        requests.ends("plain requests under STRICT")?;
        refused(&|| self.opened())?;
        tunnelled.lasts("a tunnel under STRICT")?;
        mode("DISABLE")?;
        eventually(PATIENCE, || contains(&self.plain("/disabled", &[])?, &["held GET /disabled ", "who=None"]))?;
        drop(eventually(PATIENCE, || self.opened())?);
        self.world.delete(AUTHENTICATION, "kept")?;
        self.both("/permissive", &[], &["held GET /permissive ", "[200]"])
    }
}

fn refused(talk: &dyn Fn() -> Check<Talk>) -> Check {
    match talk() {
        Ok(_) => Err("a connection was taken".into()),
        Err(_) => Ok(()),
    }
}
