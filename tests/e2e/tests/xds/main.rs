//! Envoy and gRPC as clients of mesh control, the real ones, against a control plane alone: no node, no containers. Joined hosts need root, for network
//! namespaces.

mod asked;
mod backends;
mod beside;
mod edge;
mod features;
mod kept;
mod peers;
mod tuned;

use bytes::Bytes;
use client::{DeleteOptions, HttpsApi, ObjectApi, Resource};
use e2e::envoy::{self, Bootstrap};
use e2e::{Check, Runner, Server, contains, eventually, platform, shell};
use serde_json::{Value, json};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

const PORT: u16 = 16_470;
const MESH_PORT: u16 = PORT + 2;
const GATEWAY_PORT: u16 = 16_480;
/// Where an Envoy shows what it has.
const ADMIN_PORT: u16 = 16_489;
const BACKENDS: [u16; 2] = [16_481, 16_482];
/// How long certificates live here.
const CERTIFICATE_S: u32 = 10;
const PATIENCE: Duration = Duration::from_secs(20);

const SERVICES: Resource = Resource { group: "", version: "v1", plural: "services" };
const PODS: Resource = Resource { group: "", version: "v1", plural: "pods" };
const SLICES: Resource = Resource { group: "discovery.k8s.io", version: "v1", plural: "endpointslices" };
const GATEWAYS: Resource = Resource { group: "gateway.networking.k8s.io", version: "v1", plural: "gateways" };
const ROUTES: Resource = Resource { group: "gateway.networking.k8s.io", version: "v1", plural: "httproutes" };
const VIRTUAL_SERVICES: Resource = Resource { group: "networking.istio.io", version: "v1", plural: "virtualservices" };
const DESTINATION_RULES: Resource =
    Resource { group: "networking.istio.io", version: "v1", plural: "destinationrules" };
const AUTHENTICATIONS: Resource =
    Resource { group: "security.istio.io", version: "v1", plural: "requestauthentications" };
const AUTHENTICATION: Resource = Resource { group: "security.istio.io", version: "v1", plural: "peerauthentications" };
const POLICIES: Resource = Resource { group: "security.istio.io", version: "v1", plural: "authorizationpolicies" };
const TRAFFIC_POLICIES: Resource = Resource { group: "mesh.diolkos.io", version: "v1", plural: "trafficpolicies" };

/// A check, what it cannot do without, and how it goes.
struct Trial {
    name: &'static str,
    needs: &'static [Need],
    run: fn(&World, &Tools) -> Check,
}

/// What a machine may lack.
#[derive(Clone, Copy)]
enum Need {
    Envoy,
    Grpc,
    Root,
}

/// What this machine has; an empty path: it has none.
struct Tools {
    binary: PathBuf,
    envoy: PathBuf,
    python: PathBuf,
}

impl Tools {
    fn lacks(&self, need: Need) -> Option<&'static str> {
        let (is_there, why) = match need {
            Need::Envoy => (!self.envoy.as_os_str().is_empty(), "ENVOY names no Envoy"),
            Need::Grpc => (!self.python.as_os_str().is_empty(), "PYTHON names no Python with grpcio"),
            Need::Root => (platform::is_root(), "needs root, for network namespaces"),
        };
        (!is_there).then_some(why)
    }
}

const TRIALS: [Trial; 12] = {
    use Need::{Envoy, Grpc, Root};
    [
        Trial {
            name: "xds::an Envoy serves a Gateway, by delta and by state of the world, with its routes, endpoints and policies",
            needs: &[Envoy],
            run: |world, tools| {
                world.gateway(&tools.envoy, "DELTA_GRPC")?;
                world.gateway(&tools.envoy, "GRPC")
            },
        },
        Trial {
            name: "xds::an Envoy is told nearness, sessions, TLS to services, limits and tokens",
            needs: &[Envoy],
            run: |world, tools| world.features(&tools.envoy),
        },
        Trial {
            name: "xds::an Envoy's doors: clients' certificates, TLS by server name, PROXY headers, WebSocket over HTTP/2",
            needs: &[Envoy],
            run: |world, tools| world.doors(&tools.envoy),
        },
        Trial {
            name: "xds::an Envoy shows balancing and times as they were told",
            needs: &[Envoy],
            run: |world, tools| world.tuned(&tools.envoy),
        },
        Trial {
            name: "xds::an Envoy asks authorizers and rate limit services",
            needs: &[Envoy, Grpc],
            run: |world, tools| world.asked(&tools.envoy, &tools.python),
        },
        Trial {
            name: "xds::an Envoy speaks the mesh's TLS with hosts outside of it",
            needs: &[Envoy, Grpc],
            run: |world, tools| world.outside(&tools.envoy, &tools.python),
        },
        Trial {
            name: "xds::an Envoy beside a process reaches services by name",
            needs: &[Envoy],
            run: |world, tools| world.sidecar(&tools.envoy),
        },
        Trial {
            name: "xds::Envoys speak the mesh's TLS, as who they are, and are sent new certificates",
            needs: &[Envoy, Root],
            run: |world, tools| world.peers(&tools.binary, &tools.envoy),
        },
        Trial {
            name: "xds::an Envoy serves a joined host: who calls is known, policies hold, certificates are renewed",
            needs: &[Envoy, Root],
            run: |world, tools| world.beside(&tools.binary, &tools.envoy),
        },
        Trial {
            name: "xds::an Envoy on a joined host decides by tokens, authorizers, limits, on TCP ports, and on open connections",
            needs: &[Envoy, Grpc, Root],
            run: |world, tools| world.kept(&tools.binary, &tools.envoy, &tools.python),
        },
        Trial {
            name: "xds::a gRPC client without a proxy finds its endpoints and follows them",
            needs: &[Grpc],
            run: |world, tools| world.grpc(&tools.python),
        },
        Trial {
            name: "xds::a gRPC client with a certificate provider speaks the mesh's TLS",
            needs: &[Grpc, Root],
            run: |world, tools| world.grpc_peers(&tools.binary, &tools.python),
        },
    ]
};

fn main() -> ExitCode {
    let mut runner = Runner::from_arguments();
    let Some(binary) = platform::binary("DIOLKOS_BIN") else {
        let why = "DIOLKOS_BIN does not name the binary; run it with `cargo xtask test --only e2e`";
        TRIALS.iter().for_each(|trial| runner.skip(trial.name, why));
        return runner.finish();
    };
    let world = match World::start(&binary) {
        Ok(world) => world,
        Err(why) => {
            _ = runner.check("xds::a control plane to ask", || Err::<(), _>(why));
            return runner.finish();
        }
    };
    let python = platform::binary("PYTHON").filter(|python| has_grpc(python)).unwrap_or_default();
    let tools = Tools { binary, envoy: platform::binary("ENVOY").unwrap_or_default(), python };
    for trial in TRIALS {
        match trial.needs.iter().find_map(|need| tools.lacks(*need)) {
            Some(why) => runner.skip(trial.name, why),
            None => _ = runner.check(trial.name, || (trial.run)(&world, &tools)),
        }
    }
    runner.finish()
}

fn has_grpc(python: &Path) -> bool {
    shell::run(Command::new(python).args(["-c", "import grpc"]), None).ok
}

/// A control plane and what it knows.
struct World {
    dir: PathBuf,
    address: String,
    api: HttpsApi,
    runtime: tokio::runtime::Runtime,
    _backends: Vec<Process>,
    _server: Server,
}

struct Process(Child);

/// An Envoy: which protocol it speaks with mesh control, what it says of itself, where that is, and what it shows there.
struct Envoy<'a> {
    kind: &'a str,
    metadata: &'a Value,
    control: &'a str,
    certificate: &'a Path,
    key: &'a Path,
}

impl Process {
    /// What it says is nobody's.
    fn start(command: &mut Command) -> Check<Process> {
        Process::heard(command.stdout(Stdio::null()))
    }

    fn heard(command: &mut Command) -> Check<Process> {
        let child = command.stdin(Stdio::null()).spawn();
        child.map(Process).map_err(|error| format!("{:?}: {error}", command.get_program()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The address that others see: an endpoint's must not be a loopback address.
fn own_address() -> Check<String> {
    let socket = UdpSocket::bind("0.0.0.0:0").map_err(|error| error.to_string())?;
    // Nothing is sent.
    socket.connect("192.0.2.1:9").map_err(|error| error.to_string())?;
    Ok(socket.local_addr().map_err(|error| error.to_string())?.ip().to_string())
}

impl World {
    fn start(binary: &Path) -> Check<World> {
        let dir = std::env::temp_dir().join(format!("diolkos-xds-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).map_err(|error| error.to_string())?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let providers = dir.join("providers.json");
        std::fs::write(&providers, asked::providers().to_string()).map_err(|error| error.to_string())?;
        let more =
            [format!("--workload-cert-ttl-s={CERTIFICATE_S}"), format!("--mesh-providers={}", providers.display())];
        let mut server = Server::start_with(binary, &dir, PORT, &more)?;
        let api = runtime.block_on(server.ready())?;
        let backends = BACKENDS.iter().map(|port| backends::http(*port, &format!("backend-{port}")));
        let backends = backends.collect::<Check<Vec<_>>>()?;
        let world = World { dir, address: own_address()?, api, runtime, _backends: backends, _server: server };
        world.service("one", &[BACKENDS[0]])?;
        world.service("two", &[BACKENDS[1]])?;
        Ok(world)
    }

    fn put(&self, resource: Resource, object: &Value) -> Check {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let body = Bytes::from(object.to_string());
        self.runtime
            .block_on(async {
                let _ = self.api.delete(resource, "default", name, DeleteOptions::default()).await;
                self.api.create(resource, "default", None, body).await
            })
            .map(drop)
            .map_err(|error| format!("{name}: {error}"))
    }

    /// A service at port 80 over one endpoint at these ports.
    fn service(&self, name: &str, ports: &[u16]) -> Check {
        self.put(
            SERVICES,
            &json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": name },
                "spec": { "ports": [{ "name": "http", "port": 80 }] } }),
        )?;
        self.endpoints(name, ports)
    }

    fn endpoints(&self, name: &str, ports: &[u16]) -> Check {
        for (index, port) in ports.iter().enumerate() {
            self.put(
                SLICES,
                &json!({ "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                    "metadata": { "name": format!("{name}-{index}"), "labels": { "kubernetes.io/service-name": name } },
                    "ports": [{ "name": "http", "port": port }],
                    "endpoints": [{ "addresses": [self.address], "conditions": { "ready": true } }] }),
            )?;
        }
        Ok(())
    }

    /// The Gateway that Envoys serve.
    fn edge(&self) -> Check {
        self.edge_with(&json!({}))
    }

    /// The same, with something in `spec.tls`.
    fn edge_with(&self, tls: &Value) -> Check {
        let listener = json!({ "name": "http", "port": GATEWAY_PORT, "protocol": "HTTP" });
        self.put(
            GATEWAYS,
            &json!({ "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": { "name": "edge" },
                "spec": { "gatewayClassName": "diolkos", "listeners": [listener], "tls": tls } }),
        )
    }

    fn route(&self, backends: &Value) -> Check {
        self.put(
            ROUTES,
            &json!({ "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": { "name": "edge" },
                "spec": { "parentRefs": [{ "name": "edge" }], "hostnames": ["shop.example"], "rules": [
                    { "matches": [{ "path": { "type": "PathPrefix", "value": "/two" } }],
                      "filters": [
                        { "type": "URLRewrite", "urlRewrite": { "path": { "type": "ReplacePrefixMatch", "replacePrefixMatch": "/x" } } },
                        { "type": "RequestHeaderModifier", "requestHeaderModifier": { "set": [{ "name": "X-Extra", "value": "yes" }] } }],
                      "backendRefs": [{ "name": "two", "port": 80 }] },
                    { "matches": [{ "path": { "type": "PathPrefix", "value": "/cors" } }],
                      "filters": [{ "type": "CORS", "cors": { "allowOrigins": ["https://*.example"], "allowMethods": ["PUT"], "maxAge": 7 } }],
                      "backendRefs": [{ "name": "two", "port": 80 }] },
                    { "matches": [{ "headers": [{ "name": "x-which", "value": "two" }] }], "backendRefs": [{ "name": "two", "port": 80 }] },
                    { "backendRefs": backends }] } }),
        )
    }

    /// What only a VirtualService can say: matches without regard to case and on what is not there, faults, expressions in paths.
    fn virtual_service(&self) -> Check {
        let to_two = json!([{ "destination": { "host": "two" } }]);
        let abort = json!({ "abort": { "httpStatus": 418, "percentage": { "value": 100.0 } } });
        let swap = json!({ "uriRegexRewrite": { "match": "^/swap/([a-z]+)/([a-z]+)$", "rewrite": "/\\2/\\1" } });
        self.put(
            VIRTUAL_SERVICES,
            &json!({ "apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": { "name": "vs" },
                "spec": { "hosts": ["vs.example"], "gateways": ["edge"], "http": [
                    { "match": [{ "uri": { "prefix": "/fault" }, "ignoreUriCase": true }], "fault": abort, "route": to_two },
                    { "match": [{ "uri": { "prefix": "/swap" } }], "rewrite": swap, "route": to_two },
                    { "match": [{ "uri": { "prefix": "/bots" }, "withoutHeaders": { "x-bot": {} } }], "directResponse": { "status": 404 } },
                    { "match": [{ "method": { "exact": "GET" }, "authority": { "prefix": "vs." } }], "route": to_two }] } }),
        )
    }

    /// The bootstrap of an Envoy that knows nothing but where to ask: its file.
    fn envoy_of(&self, of: &Envoy<'_>) -> Check<PathBuf> {
        let bootstrap = Bootstrap {
            id: &format!("test-{}", of.kind),
            kind: of.kind,
            metadata: of.metadata,
            control: (of.control, MESH_PORT),
            admin: ADMIN_PORT,
            certificate: (of.certificate, of.key),
            ca: &self.dir.join("pki/ca.crt"),
        };
        let path = self.dir.join(format!("{}.json", of.kind));
        std::fs::write(&path, bootstrap.text()).map_err(|error| error.to_string())?;
        Ok(path)
    }

    /// Starts one with the node's certificate.
    fn envoy(&self, binary: &Path, kind: &str, metadata: &Value) -> Check<Process> {
        let (certificate, key) = (self.dir.join("pki/node.crt"), self.dir.join("pki/node.key"));
        let of = Envoy { kind, metadata, control: "127.0.0.1", certificate: &certificate, key: &key };
        let path = self.envoy_of(&of)?;
        let file = |what: &str| {
            std::fs::File::create(self.dir.join(format!("{kind}.{what}"))).map_err(|error| error.to_string())
        };
        let mut command = Command::new(binary);
        envoy::arguments(&mut command, &path);
        Process::heard(command.stderr(file("log")?).stdout(file("out")?))
    }

    fn log(&self, kind: &str) -> String {
        let text = std::fs::read_to_string(self.dir.join(format!("{kind}.log"))).unwrap_or_default();
        text[text.len().saturating_sub(1500)..].to_owned()
    }

    fn gateway(&self, envoy: &Path, kind: &str) -> Check {
        self.edge()?;
        self.route(&json!([{ "name": "one", "port": 80 }]))?;
        let _envoy = self.envoy(envoy, kind, &json!({ "gateway": "default/edge" }))?;
        let ask = |path: &str, headers: &[&str]| ask(GATEWAY_PORT, "shop.example", path, headers);
        let said = |what: Check<String>, needles: &[&str]| {
            what.and_then(|text| contains(&text, needles)).map_err(|why| format!("{why}\n{}", self.log(kind)))
        };
        eventually(PATIENCE, || said(ask("/a", &[]), &["backend-16481 GET /a "]))?;
        // Clusters warm up one by one.
        eventually(PATIENCE, || said(ask("/two/b", &[]), &["backend-16482 GET /x/b ", "extra=yes"]))?;
        said(ask("/c", &["x-which: two"]), &["backend-16482 GET /c "])?;
        // What is not the gateway's is not answered, and what changes is followed.
        said(status(GATEWAY_PORT, "other.example", "/a"), &["404"])?;
        self.route(&json!([{ "name": "one", "port": 80, "weight": 0 }, { "name": "two", "port": 80, "weight": 1 }]))?;
        eventually(PATIENCE, || said(ask("/a", &[]), &["backend-16482 GET /a "]))?;
        self.endpoints("two", &[BACKENDS[0]])?;
        eventually(PATIENCE, || said(ask("/a", &[]), &["backend-16481 GET /a "]))?;
        self.endpoints("two", &[BACKENDS[1]])?;
        self.put(
            POLICIES,
            &json!({ "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": { "name": "edge" },
                "spec": { "targetRefs": [{ "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "edge" }],
                    "action": "DENY", "rules": [
                        { "to": [{ "operation": { "paths": ["/private/*"] } }] },
                        { "to": [{ "operation": { "paths": ["/read/*"], "notMethods": ["GET"], "notPaths": ["/read/free"] } }] },
                        { "to": [{ "operation": { "paths": ["/when"] } }],
                          "when": [{ "key": "request.headers[x-bad]", "values": ["yes*"], "notValues": ["yes-but"] }] }] } }),
        )?;
        eventually(PATIENCE, || said(status(GATEWAY_PORT, "shop.example", "/private/x"), &["403"]))?;
        said(status(GATEWAY_PORT, "shop.example", "/public"), &["200"])?;
        eventually(PATIENCE, || {
            let lines = std::fs::read_to_string(self.dir.join(format!("{kind}.out"))).unwrap_or_default();
            contains(&lines, &["\"path\":\"/private/x\"", "\"policy\":\"default/edge/0/0\""])
        })?;
        let code = |path: &str, more: &[&str]| {
            let more = [&["-o", "/dev/null", "-w", "%{http_code}"], more].concat();
            curl(GATEWAY_PORT, "shop.example", path, &more)
        };
        for (path, more, expect) in [
            ("/read/a", &[][..], "200"),
            ("/read/a", &["-X", "DELETE"], "403"),
            // The backend knows no DELETE, but it is asked.
            ("/read/free", &["-X", "DELETE"], "501"),
            ("/when", &[], "200"),
            ("/when", &["-H", "x-bad: yes-sir"], "403"),
            ("/when", &["-H", "x-bad: yes-but"], "200"),
        ] {
            said(code(path, more), &[expect]).map_err(|why| format!("{path} {more:?}: {why}"))?;
        }
        let origin = |origin: &str| {
            let header = format!("origin: {origin}");
            let asks = ["-i", "-X", "OPTIONS", "-H", &header, "-H", "access-control-request-method: PUT"];
            curl(GATEWAY_PORT, "shop.example", "/cors/x", &asks)
        };
        let allowed = "access-control-allow-origin: https://a.example";
        said(
            origin("https://a.example"),
            &[allowed, "access-control-allow-methods: PUT", "access-control-max-age: 7"],
        )?;
        if origin("https://a.elsewhere")?.contains("access-control-allow-origin") {
            return Err("an origin that may not is let in".into());
        }
        self.virtual_service()?;
        let faulty = |path: &str, more: &[&str]| curl(GATEWAY_PORT, "vs.example", path, more);
        eventually(PATIENCE, || said(faulty("/FAULT/x", &["-i"]), &["418"]))?;
        said(faulty("/swap/one/two", &[]), &[" GET /two/one "])?;
        said(faulty("/bots", &["-i", "-H", "x-bot: 1"]), &["200"])?;
        said(faulty("/bots", &["-i"]), &["404"])?;
        self.destination_rule()?;
        self.tokens(&said)?;
        self.report(&format!("envoy test-{kind}"))
    }

    /// A DestinationRule's balancing, limits and outlier detection: one user's requests stay on one endpoint, on a ring and by Maglev's table.
    fn destination_rule(&self) -> Check {
        self.endpoints("two", &BACKENDS)?;
        for table in [json!({ "ringHash": { "minimumRingSize": 2048 } }), json!({ "maglev": { "tableSize": 503 } })] {
            let mut hash = table.clone();
            hash["httpHeaderName"] = json!("x-user");
            self.put(
                DESTINATION_RULES,
                &json!({ "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": { "name": "two" },
                    "spec": { "host": "two", "trafficPolicy": {
                        "loadBalancer": { "consistentHash": hash },
                        "connectionPool": { "tcp": { "maxConnections": 100, "connectTimeout": "2s" },
                            "http": { "http1MaxPendingRequests": 100, "http2MaxRequests": 100, "maxRequestsPerConnection": 50 } },
                        "outlierDetection": { "consecutive5xxErrors": 7, "interval": "1s", "baseEjectionTime": "2s" } } } }),
            )?;
            eventually(PATIENCE, || self.stays()).map_err(|why| format!("{table}: {why}"))?;
        }
        self.delete(SLICES, "two-1")?;
        self.delete(DESTINATION_RULES, "two")?;
        self.endpoints("two", &BACKENDS[1..])
    }

    /// Each user's requests are all at one endpoint, and users are at both.
    fn stays(&self) -> Check {
        let mut met = std::collections::BTreeSet::new();
        for user in 0..12 {
            let mut at = std::collections::BTreeSet::new();
            for _ in 0..4 {
                let answer = ask(GATEWAY_PORT, "shop.example", "/two/u", &[&format!("x-user: {user}")])?;
                at.insert(answer.split_whitespace().next().unwrap_or_default().to_owned());
            }
            if at.len() != 1 {
                return Err(format!("user {user} is at {at:?}"));
            }
            met.extend(at);
        }
        if met.len() == 2 { Ok(()) } else { Err(format!("all users are at {met:?}")) }
    }

    /// A RequestAuthentication on the gateway.
    fn tokens(&self, said: &dyn Fn(Check<String>, &[&str]) -> Check) -> Check {
        let Some((keys, token)) = signed_token(&self.dir)? else { return Ok(()) };
        self.put(
            AUTHENTICATIONS,
            &json!({ "apiVersion": "security.istio.io/v1", "kind": "RequestAuthentication", "metadata": { "name": "edge" },
                "spec": { "targetRefs": [{ "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "edge" }],
                    "jwtRules": [{ "issuer": "tests", "jwks": keys,
                        "outputClaimToHeaders": [{ "header": "x-extra", "claim": "sub" }] }] } }),
        )?;
        let bearer =
            |token: &str| ask(GATEWAY_PORT, "shop.example", "/public", &[&format!("authorization: Bearer {token}")]);
        eventually(PATIENCE, || said(bearer("a.b.c"), &["Jwt"]))?;
        said(bearer(&token), &["GET /public", "extra=somebody"])?;
        said(ask(GATEWAY_PORT, "shop.example", "/public", &[]), &["GET /public"])
    }

    /// `mesh status` knows the client, and that it runs the newest of everything.
    fn report(&self, client: &str) -> Check {
        eventually(PATIENCE, || {
            let call = self.api.call(http::Method::GET, "/diolkos/v1/mesh", "", Bytes::new());
            let answer = self.runtime.block_on(call).map_err(|error| error.to_string())?;
            let report: Value = serde_json::from_slice(&answer.body).map_err(|error| error.to_string())?;
            let proxies = report["proxies"].as_array().cloned().unwrap_or_default();
            let named = |it: &&Value| it["proxy"].as_str().is_some_and(|name| name.starts_with(client));
            match proxies.iter().find(named) {
                Some(proxy) if proxy["state"] == "synced" => Ok(()),
                Some(proxy) => Err(proxy.to_string()),
                None => Err(format!("no {client} in {report}")),
            }
        })
    }

    fn sidecar(&self, envoy: &Path) -> Check {
        let _envoy = self.envoy(envoy, "DELTA_GRPC", &json!({}))?;
        eventually(PATIENCE, || {
            let answer = ask(15_080, "one.default.svc.cluster.local", "/s", &[])?;
            contains(&answer, &["backend-16481 GET /s "])
        })
        .map_err(|why| format!("{why}\n{}", self.log("DELTA_GRPC")))?;
        eventually(PATIENCE, || contains(&ask(15_080, "two.default", "/s", &[])?, &["backend-16482 GET /s "]))
    }

    fn grpc(&self, python: &Path) -> Check {
        let servers: Vec<u16> = vec![16_483, 16_484];
        let _servers = servers.iter().map(|port| backends::grpc(python, *port)).collect::<Check<Vec<_>>>()?;
        self.service("calls", &servers[..1])?;
        let pki = self.dir.join("pki");
        let bootstrap = json!({
            "xds_servers": [{ "server_uri": format!("127.0.0.1:{MESH_PORT}"), "server_features": ["xds_v3"],
                "channel_creds": [{ "type": "tls", "config": {
                    "ca_certificate_file": pki.join("ca.crt"), "certificate_file": pki.join("node.crt"),
                    "private_key_file": pki.join("node.key") } }] }],
            "node": { "id": "test-grpc" } });
        let path = self.dir.join("grpc.json");
        std::fs::write(&path, bootstrap.to_string()).map_err(|error| error.to_string())?;
        let mut command = Command::new(python);
        command.args(["-c", GRPC_CLIENT]).env("GRPC_XDS_BOOTSTRAP", &path).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|error| error.to_string())?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let _client = Process(child);
        let (Some(mut input), Some(output)) = (input, output) else { return Err("no pipes".into()) };
        let mut lines = std::io::BufRead::lines(std::io::BufReader::new(output));
        let mut call = || {
            std::io::Write::write_all(&mut input, b"\n").map_err(|error| error.to_string())?;
            lines.next().ok_or("the client ended")?.map_err(|error| error.to_string())
        };
        eventually(PATIENCE, || contains(&call()?, &["16483 hello"]))?;
        self.report("gRPC")?;
        self.endpoints("calls", &servers[1..])?;
        eventually(PATIENCE, || contains(&call()?, &["16484 hello"]))
    }
}

/// A key set with one RSA key, and a token signed with it. None: there is no openssl here.
fn signed_token(dir: &Path) -> Check<Option<(String, String)>> {
    let script = r#"
set -e
openssl version >/dev/null 2>&1 || exit 0
b64() { openssl base64 -A | tr '+/' '-_' | tr -d '='; }
openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out key.pem 2>/dev/null
modulus=$(openssl rsa -in key.pem -noout -modulus 2>/dev/null | cut -d= -f2 | xxd -r -p | b64)
head=$(printf '{"alg":"RS256","kid":"one","typ":"JWT"}' | b64)
body=$(printf '{"iss":"tests","sub":"somebody","exp":4102444800}' | b64)
signature=$(printf '%s.%s' "$head" "$body" | openssl dgst -sha256 -sign key.pem | b64)
printf '{"keys":[{"kty":"RSA","kid":"one","alg":"RS256","use":"sig","e":"AQAB","n":"%s"}]}\n%s.%s.%s\n' "$modulus" "$head" "$body" "$signature"
"#;
    let text = shell::run(Command::new("sh").args(["-c", script]).current_dir(dir), None).ok()?;
    let mut lines = text.lines().map(str::to_owned);
    match (lines.next(), lines.next()) {
        (Some(keys), Some(token)) => Ok(Some((keys, token))),
        _ => {
            println!("SKIPPED xds::tokens: needs openssl and xxd");
            Ok(None)
        }
    }
}

const GRPC_CLIENT: &str = r#"
import sys, grpc
channel = grpc.insecure_channel("xds:///calls.default.svc.cluster.local:80")
call = channel.unary_unary("/a.B/C")
for line in sys.stdin:
    try:
        print(call(b"hello", timeout=5, wait_for_ready=True).decode(), flush=True)
    except grpc.RpcError as error:
        print(error.code(), error.details().replace("\n", " "), flush=True)
"#;

fn curl(port: u16, host: &str, path: &str, more: &[&str]) -> Check<String> {
    let mut command = Command::new("curl");
    command.args(["-sS", "-m", "3", "-H", &format!("Host: {host}")]).args(more);
    shell::run(command.arg(format!("http://127.0.0.1:{port}{path}")), None).ok()
}

fn ask(port: u16, host: &str, path: &str, headers: &[&str]) -> Check<String> {
    let headers: Vec<&str> = headers.iter().flat_map(|header| ["-H", header]).collect();
    curl(port, host, path, &headers)
}

fn status(port: u16, host: &str, path: &str) -> Check<String> {
    curl(port, host, path, &["-o", "/dev/null", "-w", "%{http_code}"])
}
