//! The mesh's own TLS, spoken by Envoys and by gRPC: to a joined host that takes nothing in plain text, as who their certificate says.

use super::{
    AUTHENTICATION, DESTINATION_RULES, Envoy, GATEWAY_PORT, MESH_PORT, PATIENCE, PODS, POLICIES, Process, ROUTES,
    World, ask, backends, status,
};
use client::{DeleteOptions, ObjectApi, Resource};
use e2e::network::Network;
use e2e::{Check, contains, eventually, shell};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A network namespace with a joined process in it; both go with the value.
pub struct Guest {
    processes: Vec<Process>,
    network: Network,
    dir: PathBuf,
}

/// What a guest is.
pub struct Guesthood<'a> {
    /// Its number, part of its address.
    pub number: u8,
    /// The service as which it joins.
    pub service: &'a str,
    /// Where its process listens.
    pub port: u16,
    /// `http` or `grpc`.
    pub protocol: &'a str,
    /// Python that is its process.
    pub script: &'a str,
    /// That runs it.
    pub python: &'a Path,
    /// How an Envoy serves it, in place of our proxy; the process is on loopback then.
    pub envoy: Option<&'a str>,
}

impl Guest {
    /// A command that runs there.
    pub fn inside(&self) -> Command {
        self.network.inside()
    }

    /// Its address.
    pub fn address(&self) -> String {
        self.network.address()
    }

    /// Makes one, and has its process join.
    pub fn join(world: &World, binary: &Path, of: &Guesthood<'_>) -> Check<Guest> {
        let network = Network::new(&format!("dk-x{}", of.number), 240 + of.number)?;
        let dir = world.dir.join(of.service);
        std::fs::create_dir_all(&dir).map_err(|error| error.to_string())?;
        let mut guest = Guest { processes: Vec::new(), network, dir };
        let log = std::fs::File::create(guest.dir.join("log")).map_err(|error| error.to_string())?;
        let mut process = guest.inside();
        let script = if of.envoy.is_some() { of.script.replace("0.0.0.0", "127.0.0.1") } else { of.script.to_owned() };
        process.arg(of.python).args(["-c", &script, &of.port.to_string(), of.service]);
        guest.processes.push(Process::start(&mut process)?);
        let token = shell::run(
            Command::new(binary).args(["token", "create", &format!("--data-dir={}", world.dir.display())]),
            None,
        )
        .ok()?;
        let mut join = guest.inside();
        join.arg(binary).args(["join", &format!("--service={}", of.service), &format!("--port={}", of.port)]);
        join.args([format!("--protocol={}", of.protocol), format!("--address={}", guest.network.address())]);
        join.arg(format!("--control={}:{MESH_PORT}", guest.network.outside()));
        join.arg(format!("--ca={}", world.dir.join("pki/ca.crt").display()));
        join.arg(format!("--data-dir={}", guest.dir.display()))
            .arg(format!("--run-dir={}", guest.dir.join("run").display()));
        join.args(of.envoy.map(|how| format!("--envoy={how}")));
        join.arg(format!("--node-name=guest{}", of.number)).env("DIOLKOS_JOIN_TOKEN", token.trim()).stderr(log);
        guest.processes.push(Process::start(&mut join)?);
        Ok(guest)
    }

    /// Starts the Envoy with what joining wrote.
    pub fn envoy(&self, envoy: &Path, capture: bool) -> Check<Process> {
        let path = self.dir.join("join/envoy.json");
        let text = eventually(PATIENCE, || std::fs::read_to_string(&path).map_err(|error| error.to_string()))?;
        let mut bootstrap: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        if capture {
            bootstrap["node"]["metadata"]["inbound"] = json!("capture");
        }
        let own = self.dir.join("envoy.json");
        std::fs::write(&own, bootstrap.to_string()).map_err(|error| error.to_string())?;
        let file = |name: &str| std::fs::File::create(self.dir.join(name)).map_err(|error| error.to_string());
        let mut command = self.inside();
        e2e::envoy::arguments(command.arg(envoy), &own);
        // As `diolkos join` says.
        command.args(["--drain-time-s", "1", "--drain-strategy", "immediate"]);
        Process::heard(command.stderr(file("envoy.log")?).stdout(file("envoy.out")?))
    }

    /// The end of what its Envoy said.
    pub fn envoy_log(&self) -> String {
        self.end_of("envoy.log")
    }

    /// What its Envoy wrote about requests.
    pub fn envoy_output(&self) -> String {
        std::fs::read_to_string(self.dir.join("envoy.out")).unwrap_or_default()
    }

    /// The end of what it said.
    pub fn log(&self) -> String {
        self.end_of("log")
    }

    fn end_of(&self, name: &str) -> String {
        let text = std::fs::read_to_string(self.dir.join(name)).unwrap_or_default();
        text[text.len().saturating_sub(1_500)..].to_owned()
    }
}

pub fn identity(account: &str) -> String {
    format!("URI=spiffe://cluster.local/ns/default/sa/{account}")
}

impl World {
    pub fn delete(&self, resource: Resource, name: &str) -> Check {
        let gone = self.api.delete(resource, "default", name, DeleteOptions::default());
        self.runtime.block_on(gone).map(drop).map_err(|error| error.to_string())
    }

    pub fn strict(&self) -> Check {
        self.put(
            AUTHENTICATION,
            &json!({ "apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication", "metadata": { "name": "strict" },
                "spec": { "mtls": { "mode": "STRICT" } } }),
        )
    }

    /// Only this account may call a joined service.
    pub fn only(&self, service: &str, account: &str) -> Check {
        let principal = format!("cluster.local/ns/default/sa/{account}");
        self.put(
            POLICIES,
            &json!({ "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": { "name": "only" },
                "spec": { "selector": { "matchLabels": { "app": service } },
                    "rules": [{ "from": [{ "source": { "principals": [principal] } }] }] } }),
        )
    }

    /// Envoys as gateway, beside a workload of the node, and on the joined host itself.
    pub fn peers(&self, binary: &Path, envoy: &Path) -> Check {
        let guest = Guest::join(
            self,
            binary,
            &Guesthood {
                number: 1,
                service: "legacy",
                port: 16_491,
                protocol: "http",
                script: backends::HTTP,
                python: Path::new("python3"),
                envoy: None,
            },
        )?;
        self.edge()?;
        self.put(
            ROUTES,
            &json!({ "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": { "name": "peers" },
                "spec": { "parentRefs": [{ "name": "edge" }], "hostnames": ["peers.example"], "rules": [
                    { "matches": [{ "path": { "type": "PathPrefix", "value": "/plain" } }], "backendRefs": [{ "name": "one", "port": 80 }] },
                    { "backendRefs": [{ "name": "legacy", "port": 16_491 }] }] } }),
        )?;
        let told = |what: Check, log: &str| what.map_err(|why| format!("{why}\n{}\n{}", self.log(log), guest.log()));
        self.strict()?;
        for kind in ["DELTA_GRPC", "GRPC"] {
            let _envoy = self.envoy(envoy, kind, &json!({ "gateway": "default/edge" }))?;
            let get = || {
                contains(
                    &ask(GATEWAY_PORT, "peers.example", "/a", &[])?,
                    &["legacy GET /a ", &identity("edge-diolkos")],
                )
            };
            told(eventually(PATIENCE, get), kind)?;
            // What is not of the mesh is called in plain text by the same Envoy.
            eventually(PATIENCE, || {
                contains(&ask(GATEWAY_PORT, "peers.example", "/plain", &[])?, &["backend-16481 GET"])
            })?;
            let code = || status(GATEWAY_PORT, "peers.example", "/a");
            self.only("legacy", "somebody")?;
            told(eventually(PATIENCE, || contains(&code()?, &["403"])), kind)?;
            self.only("legacy", "edge-diolkos")?;
            told(eventually(PATIENCE, || contains(&code()?, &["200"])), kind)?;
            self.delete(POLICIES, "only")?;
        }
        self.sidecars(&guest, envoy)?;
        told(self.rotation(binary, envoy), "DELTA_GRPC")
    }

    /// Beside a workload of this node: as that; on the joined host: as the host's service.
    fn sidecars(&self, guest: &Guest, envoy: &Path) -> Check {
        self.put(
            PODS,
            &json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "beside" }, "spec": { "nodeName": "alone",
                "serviceAccountName": "default", "containers": [{ "name": "c", "image": "none" }] } }),
        )?;
        self.only("legacy", "default")?;
        {
            let whose = json!({ "namespace": "default", "serviceAccount": "default" });
            let _envoy = self.envoy(envoy, "DELTA_GRPC", &whose)?;
            eventually(PATIENCE, || {
                contains(&ask(15_080, "legacy.default", "/s", &[])?, &["legacy GET /s ", &identity("default")])
            })
            .map_err(|why| format!("{why}\n{}", self.log("DELTA_GRPC")))?;
        }
        {
            // An account of which no workload is there: no certificate, and so no answer.
            let _envoy =
                self.envoy(envoy, "DELTA_GRPC", &json!({ "namespace": "default", "serviceAccount": "king" }))?;
            eventually(PATIENCE, || {
                contains(&ask(15_080, "legacy.default", "/s", &[])?, &["remote connection failure"])
            })?;
        }
        self.only("legacy", "legacy")?;
        // The host's certificate and key are renewed every few seconds, one after the other: an Envoy that read them in between ends.
        eventually(PATIENCE, || self.on_host(guest, envoy))?;
        self.delete(POLICIES, "only")
    }

    /// An Envoy on the joined host, with the host's certificate.
    fn on_host(&self, guest: &Guest, envoy: &Path) -> Check {
        let join = guest.dir.join("join");
        let own = self.envoy_of(&Envoy {
            kind: "DELTA_GRPC",
            metadata: &json!({}),
            control: "172.31.241.1",
            certificate: &join.join("host.crt"),
            key: &join.join("host.key"),
        })?;
        let mut command = guest.inside();
        e2e::envoy::arguments(command.arg(envoy), &own);
        let log = std::fs::File::create(self.dir.join("DELTA_GRPC.log")).map_err(|error| error.to_string())?;
        let _envoy = Process::start(command.stderr(log))?;
        let get = || {
            let mut curl = guest.inside();
            curl.args(["curl", "-sS", "-m", "3", "-H", "Host: legacy.default", "http://127.0.0.1:15080/own"]);
            contains(&shell::run(&mut curl, None).ok()?, &["legacy GET /own ", &identity("legacy")])
        };
        eventually(Duration::from_secs(5), get).map_err(|why| format!("{why}\n{}", self.log("DELTA_GRPC")))
    }

    /// Certificates are renewed several times, and the root is replaced, while each request opens a connection: none fails.
    fn rotation(&self, binary: &Path, envoy: &Path) -> Check {
        self.put(
            DESTINATION_RULES,
            &json!({ "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": { "name": "legacy" },
                "spec": { "host": "legacy", "trafficPolicy": { "connectionPool": { "http": { "maxRequestsPerConnection": 1 } } } } }),
        )?;
        let _envoy = self.envoy(envoy, "DELTA_GRPC", &json!({ "gateway": "default/edge" }))?;
        let get = || {
            contains(&ask(GATEWAY_PORT, "peers.example", "/r", &[])?, &["legacy GET /r ", &identity("edge-diolkos")])
        };
        eventually(PATIENCE, get)?;
        let data = format!("--data-dir={}", self.dir.display());
        let mut rotate = Command::new(binary);
        rotate.args(["mesh", "rotate-root", &data]);
        shell::run(&mut rotate, None).ok()?;
        // Nodes without a proxy are waited for as long as certificates live, at each step.
        let (begun, mut asked) = (Instant::now(), 0);
        let lives = Duration::from_secs(u64::from(super::CERTIFICATE_S) * 2);
        while begun.elapsed() < lives || self.mesh()?["trust"]["phase"] != "steady" {
            for _ in 0..25 {
                get().map_err(|why| format!("after {asked} requests: {why}"))?;
                asked += 1;
                std::thread::sleep(Duration::from_millis(20));
            }
            if begun.elapsed() > 6 * lives {
                return Err(format!("the old root is still there: {}", self.mesh()?["trust"]));
            }
        }
        self.delete(DESTINATION_RULES, "legacy")
    }

    fn mesh(&self) -> Check<Value> {
        let call = self.api.call(http::Method::GET, "/diolkos/v1/mesh", "", bytes::Bytes::new());
        let answer = self.runtime.block_on(call).map_err(|error| error.to_string())?;
        serde_json::from_slice(&answer.body).map_err(|error| error.to_string())
    }

    /// A gRPC client whose bootstrap names a certificate provider.
    pub fn grpc_peers(&self, binary: &Path, python: &Path) -> Check {
        let guest = Guest::join(
            self,
            binary,
            &Guesthood {
                number: 2,
                service: "secret-calls",
                port: 16_492,
                protocol: "grpc",
                script: backends::GRPC,
                python,
                envoy: None,
            },
        )?;
        self.strict()?;
        self.put(
            PODS,
            &json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "beside-grpc" }, "spec": { "nodeName": "alone",
                "serviceAccountName": "default", "containers": [{ "name": "c", "image": "none" }] } }),
        )?;
        let (pki, own) = (self.dir.join("pki"), self.dir.join("grpc"));
        std::fs::create_dir_all(&own).map_err(|error| error.to_string())?;
        let file = |name: &str| json!(own.join(name));
        let bootstrap = json!({
            "xds_servers": [{ "server_uri": format!("127.0.0.1:{MESH_PORT}"), "server_features": ["xds_v3"],
                "channel_creds": [{ "type": "tls", "config": {
                    "ca_certificate_file": pki.join("ca.crt"), "certificate_file": pki.join("node.crt"),
                    "private_key_file": pki.join("node.key") } }] }],
            "certificate_providers": { "default": { "plugin_name": "file_watcher", "config": {
                "certificate_file": file("own.crt"), "private_key_file": file("own.key"),
                "ca_certificate_file": file("roots.crt"), "refresh_interval": "2s" } } },
            "node": { "id": "test-grpc-secured", "metadata": { "certificateProvider": "default" } } });
        let call = || {
            // They live shorter than this test.
            self.issue(python, "spiffe://cluster.local/ns/default/sa/default", &own)?;
            let path = self.dir.join("grpc-secured.json");
            std::fs::write(&path, bootstrap.to_string()).map_err(|error| error.to_string())?;
            let mut command = Command::new(python);
            command.args(["-c", SECURED_CLIENT, "xds:///secret-calls.default:16492"]).env("GRPC_XDS_BOOTSTRAP", &path);
            shell::run(command.stdin(Stdio::null()), None).ok()
        };
        let log = |why: String| format!("{why}\n{}", guest.log());
        eventually(PATIENCE, || contains(&call()?, &["16492 hello"])).map_err(log)?;
        self.only("secret-calls", "somebody")?;
        eventually(PATIENCE, || contains(&call()?, &["PERMISSION_DENIED"])).map_err(log)?;
        self.only("secret-calls", "default")?;
        eventually(PATIENCE, || contains(&call()?, &["16492 hello"])).map_err(log)?;
        self.delete(POLICIES, "only")
    }
}

const ENTRIES: Resource = Resource { group: "networking.istio.io", version: "v1", plural: "serviceentries" };
const PARTNER_PORT: u16 = 16_496;

impl World {
    /// ISTIO_MUTUAL with a host outside of the mesh, which has a certificate of the same root.
    pub fn outside(&self, envoy: &Path, python: &Path) -> Check {
        self.edge()?;
        self.put(
            PODS,
            &json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "partner" }, "spec": { "nodeName": "alone",
                "serviceAccountName": "default", "containers": [{ "name": "c", "image": "none" }] } }),
        )?;
        self.put(
            ENTRIES,
            &json!({ "apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry", "metadata": { "name": "partner" },
                "spec": { "hosts": ["partner.example"], "location": "MESH_EXTERNAL", "resolution": "STATIC",
                    "ports": [{ "number": 443, "name": "http", "protocol": "HTTP" }],
                    "endpoints": [{ "address": self.address, "ports": { "http": PARTNER_PORT } }] } }),
        )?;
        self.put(
            super::VIRTUAL_SERVICES,
            &json!({ "apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": { "name": "partner" },
                "spec": { "hosts": ["outside.example"], "gateways": ["edge"], "http": [
                    { "route": [{ "destination": { "host": "partner.example", "port": { "number": 443 } } }] }] } }),
        )?;
        let own = "spiffe://cluster.local/ns/default/sa/default";
        let rule = |names: &[&str]| {
            self.put(
                DESTINATION_RULES,
                &json!({ "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": { "name": "partner" },
                    "spec": { "host": "partner.example", "trafficPolicy": { "tls": { "mode": "ISTIO_MUTUAL", "subjectAltNames": names } } } }),
            )
        };
        let dir = self.dir.join("partner");
        std::fs::create_dir_all(&dir).map_err(|error| error.to_string())?;
        let _envoy = self.envoy(envoy, "DELTA_GRPC", &json!({ "gateway": "default/edge" }))?;
        let sees = |needles: &[&str]| {
            // Certificates live shorter than this test.
            self.issue(python, own, &dir)?;
            for (from, to) in [("own.crt", "server.crt"), ("own.key", "server.key"), ("roots.crt", "authority.crt")] {
                std::fs::copy(dir.join(from), dir.join(to)).map_err(|error| error.to_string())?;
            }
            let _server = backends::https(PARTNER_PORT, "partner", &dir)?;
            eventually(Duration::from_secs(4), || {
                contains(&ask(GATEWAY_PORT, "outside.example", "/o", &["x-any: 1"])?, needles)
            })
        };
        let told = |what: Check| what.map_err(|why| format!("{why}\n{}", self.log("DELTA_GRPC")));
        let caller = "'spiffe://cluster.local/ns/default/sa/edge-diolkos'";
        for names in [&[][..], &[own]] {
            rule(names)?;
            told(eventually(PATIENCE, || sees(&["partner GET /o ", caller])))?;
        }
        rule(&["spiffe://cluster.local/ns/default/sa/another"])?;
        told(eventually(PATIENCE, || sees(&["upstream connect error"])))?;
        self.delete(DESTINATION_RULES, "partner")
    }

    /// A certificate for a workload of this node: `own.crt`, `own.key` and `roots.crt`.
    fn issue(&self, python: &Path, identity: &str, into: &Path) -> Check {
        let mut issue = Command::new(python);
        issue.args(["-c", ISSUE, &format!("127.0.0.1:{MESH_PORT}"), identity]);
        shell::run(issue.arg(self.dir.join("pki")).arg(into), None).ok().map(drop)
    }
}

/// A certificate for a workload of this node, as its proxy asks for one (`istio.v1.auth.IstioCertificateService`).
const ISSUE: &str = r#"
import sys, grpc, subprocess
control, identity, pki, own = sys.argv[1:]
run = lambda *args: subprocess.run(args, check=True, capture_output=True, cwd=own).stdout
run("openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/O=x", "-keyout", "own.key", "-out", "own.csr")
def varint(n):
    out = b""
    while n > 127:
        out += bytes([n & 127 | 128]); n >>= 7
    return out + bytes([n])
def field(tag, data):
    return varint(tag << 3 | 2) + varint(len(data)) + data
text = lambda tag, s: field(tag, s.encode())
request = text(1, open(own + "/own.csr").read())
request += field(4, field(1, text(1, "ImpersonatedIdentity") + field(2, text(3, identity))))
read = lambda name: open(pki + "/" + name, "rb").read()
channel = grpc.secure_channel(control, grpc.ssl_channel_credentials(read("ca.crt"), read("node.key"), read("node.crt")),
    options=[("grpc.ssl_target_name_override", "localhost")])
answer = channel.unary_unary("/istio.v1.auth.IstioCertificateService/CreateCertificate")(request, timeout=10)
chain = []
while answer:
    assert answer[0] == 10
    length, shift, at = 0, 0, 1
    while True:
        byte = answer[at]; at += 1
        length |= (byte & 127) << shift; shift += 7
        if byte < 128: break
    chain.append(answer[at:at + length]); answer = answer[at + length:]
open(own + "/own.crt", "wb").write(b"".join(chain[:-1]))
open(own + "/roots.crt", "wb").write(chain[-1])
"#;

const SECURED_CLIENT: &str = r#"
import sys, grpc, grpc.experimental
credentials = grpc.xds_channel_credentials(grpc.experimental.insecure_channel_credentials())
channel = grpc.secure_channel(sys.argv[1], credentials)
try:
    print(channel.unary_unary("/a.B/C")(b"hello", timeout=5).decode())
except grpc.RpcError as error:
    print(error.code(), error.details().replace("\n", " "))
"#;
