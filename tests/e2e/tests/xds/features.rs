//! What an Envoy that serves a Gateway is told beside routes: nearness, sessions, TLS to services, limits, tokens in policies. Each is tried.

use super::{
    AUTHENTICATIONS, BACKENDS, DESTINATION_RULES, GATEWAY_PORT, PATIENCE, PODS, POLICIES, ROUTES, SLICES,
    TRAFFIC_POLICIES, World, ask, backends, curl, signed_token,
};
use client::{ObjectApi, Resource};
use e2e::{Check, contains, eventually, shell};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

const HOST: &str = "features.example";
const TLS_PORT: u16 = 16_495;
const NOBODY: u16 = 16_499;
pub const CONFIG_MAPS: Resource = Resource { group: "", version: "v1", plural: "configmaps" };
pub const SECRETS: Resource = Resource { group: "", version: "v1", plural: "secrets" };
const NODES: Resource = Resource { group: "", version: "v1", plural: "nodes" };
const BACKEND_TLS: Resource =
    Resource { group: "gateway.networking.k8s.io", version: "v1", plural: "backendtlspolicies" };

/// An authority, a server's certificate for `secure.example`, and a client's.
pub const CERTIFICATES: &str = r#"
set -e
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=authority -days 2 -keyout authority.key -out authority.crt 2>/dev/null
for name in server client; do
  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=$name -keyout $name.key -out $name.csr 2>/dev/null
  echo "subjectAltName=DNS:secure.example" > extensions
  openssl x509 -req -in $name.csr -CA authority.crt -CAkey authority.key -CAcreateserial -days 2 -extfile extensions -out $name.crt 2>/dev/null
done
"#;

fn get(path: &str, headers: &[&str]) -> Check<String> {
    ask(GATEWAY_PORT, HOST, path, headers)
}

fn code(path: &str, headers: &[&str]) -> Check<String> {
    let headers = headers.iter().flat_map(|header| ["-H", header]);
    let more: Vec<&str> = ["-o", "/dev/null", "-w", "%{http_code}"].into_iter().chain(headers).collect();
    curl(GATEWAY_PORT, HOST, path, &more)
}

/// Which backend answers each of so many requests: how many times the second did.
fn far(path: &str, count: usize) -> Check<usize> {
    let mut far = 0;
    for _ in 0..count {
        let answer = get(path, &[])?;
        contains(&answer, &["backend-1648"])?;
        far += usize::from(answer.contains(&format!("backend-{}", BACKENDS[1])));
    }
    Ok(far)
}

impl World {
    fn put_cluster_wide(&self, resource: Resource, object: &Value) -> Check {
        let body = bytes::Bytes::from(object.to_string());
        self.runtime.block_on(self.api.create(resource, "", None, body)).map(drop).map_err(|error| error.to_string())
    }

    pub fn features(&self, envoy: &Path) -> Check {
        for (name, region, zone) in [("alone", "here", "here-a"), ("far", "there", "there-b")] {
            let labels = json!({ "topology.kubernetes.io/region": region, "topology.kubernetes.io/zone": zone });
            self.put_cluster_wide(
                NODES,
                &json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name, "labels": labels } }),
            )?;
        }
        // An endpoint's region is that of its pod's node.
        for (name, node) in [("near", "alone"), ("far", "far")] {
            let metadata = json!({ "name": name, "annotations": { "diolkos.io/mesh": "disabled" } });
            self.put(
                PODS,
                &json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": { "nodeName": node,
                    "containers": [{ "name": "c", "image": "none" }] } }),
            )?;
        }
        self.edge()?;
        for name in ["spread", "secure", "mutual", "sticky"] {
            self.service(name, &BACKENDS)?;
        }
        self.service("secure", &[TLS_PORT])?;
        self.service("mutual", &[TLS_PORT])?;
        for name in ["secure-1", "mutual-1"] {
            self.delete(SLICES, name)?;
        }
        let to = |path: &str, service: &str| {
            json!({ "matches": [{ "path": { "type": "PathPrefix", "value": path } }],
                "backendRefs": [{ "name": service, "port": 80 }] })
        };
        let mut sticky = to("/sticky", "sticky");
        sticky["sessionPersistence"] = json!({ "sessionName": "stay", "type": "Cookie" });
        self.put(
            ROUTES,
            &json!({ "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": { "name": "features" },
                "spec": { "parentRefs": [{ "name": "edge" }], "hostnames": [HOST], "rules": [
                    to("/secure", "secure"), to("/mutual", "mutual"), to("/limited", "one"), sticky, to("/", "spread")] } }),
        )?;
        let _envoy = self.envoy(envoy, "DELTA_GRPC", &json!({ "gateway": "default/edge" }))?;
        let told = |name: &str, what: Check| what.map_err(|why| format!("{name}: {why}\n{}", self.log("DELTA_GRPC")));
        told("nearness", self.nearness())?;
        told("sessions", self.sessions())?;
        told("limits", self.limits())?;
        told("tls", self.tls())?;
        told("claims", self.claims())?;
        self.report("envoy test-DELTA_GRPC")
    }

    fn spread(&self, near: u16) -> Check {
        for (name, pod, zone, port) in
            [("spread-0", "near", "here-a", near), ("spread-1", "far", "there-b", BACKENDS[1])]
        {
            self.put(
                SLICES,
                &json!({ "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                    "metadata": { "name": name, "labels": { "kubernetes.io/service-name": "spread" } },
                    "ports": [{ "name": "http", "port": port }],
                    "endpoints": [{ "addresses": [self.address], "zone": zone, "conditions": { "ready": true },
                        "targetRef": { "kind": "Pod", "name": pod, "namespace": "default" } }] }),
            )?;
        }
        Ok(())
    }

    pub fn rule(&self, host: &str, policy: Value) -> Check {
        self.put(
            DESTINATION_RULES,
            &json!({ "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": { "name": host },
                "spec": { "host": host, "trafficPolicy": policy } }),
        )
    }

    /// The near endpoint has all, until it fails; then the far one. By shares, each has its own.
    fn nearness(&self) -> Check {
        let outlier = json!({ "consecutive5xxErrors": 1, "interval": "1s", "baseEjectionTime": "60s", "maxEjectionPercent": 100 });
        let pool = json!({ "tcp": { "connectTimeout": "1s" }, "http": { "idleTimeout": "9s" } });
        let warm = json!({ "simple": "LEAST_REQUEST", "warmup": { "duration": "5s", "minimumPercent": 20, "aggression": 1.5 } });
        self.rule(
            "spread",
            json!({ "loadBalancer": warm, "connectionPool": pool, "outlierDetection": outlier,
                "retryBudget": { "percent": 30, "minRetryConcurrency": 4 } }),
        )?;
        self.spread(BACKENDS[0])?;
        let all_near = || match far("/n", 20)? {
            0 => Ok(()),
            some => Err(format!("{some} of 20 went far")),
        };
        eventually(PATIENCE, all_near)?;
        self.spread(NOBODY)?;
        eventually(PATIENCE, || match far("/n", 20)? {
            20 => Ok(()),
            some => Err(format!("{some} of 20 went far, and nobody is near")),
        })?;
        let distribute = json!([{ "from": "here/here-a/*", "to": { "here/here-a/*": 25, "there/there-b/*": 75 } }]);
        self.rule(
            "spread",
            json!({ "loadBalancer": { "simple": "ROUND_ROBIN", "localityLbSetting": { "distribute": distribute } } }),
        )?;
        self.spread(BACKENDS[0])?;
        eventually(PATIENCE, || match far("/n", 100)? {
            60..=90 => Ok(()),
            other => Err(format!("{other} of 100 went far, where 75 should")),
        })
    }

    /// A client with a cookie stays; those without are everywhere.
    fn sessions(&self) -> Check {
        let jar = self.dir.join("jar");
        let jar = jar.to_string_lossy();
        let first = eventually(PATIENCE, || {
            let first = curl(GATEWAY_PORT, HOST, "/sticky", &["-c", &jar])?;
            let kept = std::fs::read_to_string(&*jar).unwrap_or_default();
            contains(&first, &["backend-"]).and_then(|()| contains(&kept, &["stay"])).map(|()| first)
        })?;
        for _ in 0..20 {
            contains(&curl(GATEWAY_PORT, HOST, "/sticky", &["-b", &jar])?, &[&first])?;
        }
        match far("/sticky", 20)? {
            1..=19 => Ok(()),
            other => Err(format!("without a cookie {other} of 20 went to one")),
        }
    }

    /// Two requests an hour for each user, of all routes together.
    fn limits(&self) -> Check {
        let per_user = json!({ "requests": 2, "unit": "Hour", "matches": [{ "path": { "value": "/limited" } }],
            "per": [{ "type": "Header", "name": "x-user" }] });
        self.put(
            TRAFFIC_POLICIES,
            &json!({ "apiVersion": "mesh.diolkos.io/v1", "kind": "TrafficPolicy", "metadata": { "name": "limits" },
                "spec": { "targetRefs": [{ "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "edge" }],
                    "rateLimit": { "local": [per_user] } } }),
        )?;
        eventually(PATIENCE, || contains(&code("/limited/a", &["x-user: probe"])?, &["429"]))?;
        for (user, expect) in [("a", "200"), ("a", "200"), ("a", "429"), ("b", "200")] {
            contains(&code("/limited/a", &[&format!("x-user: {user}")])?, &[expect])
                .map_err(|why| format!("{user}: {why}"))?;
        }
        contains(&code("/free", &["x-user: a"])?, &["200"])?;
        contains(&code("/limited", &[])?, &["200"])?;
        let refused = curl(GATEWAY_PORT, HOST, "/limited/a", &["-i", "-H", "x-user: a"])?;
        contains(&refused.to_ascii_lowercase(), &["x-envoy-ratelimited: true", "retry-after:", "x-ratelimit-limit"])?;
        // What counts in no limit is told of none.
        let free = curl(GATEWAY_PORT, HOST, "/free", &["-i"])?;
        if free.contains("x-ratelimit") {
            return Err(format!("a request that does not count: {free}"));
        }
        self.delete(TRAFFIC_POLICIES, "limits")
    }

    /// A BackendTLSPolicy, and a DestinationRule with the client's certificate.
    fn tls(&self) -> Check {
        let dir = self.dir.join("tls");
        std::fs::create_dir_all(&dir).map_err(|error| error.to_string())?;
        shell::run(Command::new("sh").args(["-c", CERTIFICATES]).current_dir(&dir), None).ok()?;
        let read = |name: &str| std::fs::read_to_string(dir.join(name)).map_err(|error| format!("{name}: {error}"));
        let _server = backends::https(TLS_PORT, "ended", &dir)?;
        self.put(
            CONFIG_MAPS,
            &json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "authority" }, "data": { "ca.crt": read("authority.crt")? } }),
        )?;
        self.put(
            SECRETS,
            &json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "client" }, "type": "Opaque", "stringData": {
                "tls.crt": read("client.crt")?, "tls.key": read("client.key")?, "ca.crt": read("authority.crt")? } }),
        )?;
        let policy = |hostname: &str| {
            self.put(
                BACKEND_TLS,
                &json!({ "apiVersion": "gateway.networking.k8s.io/v1", "kind": "BackendTLSPolicy", "metadata": { "name": "secure" },
                    "spec": { "targetRefs": [{ "group": "", "kind": "Service", "name": "secure" }],
                        "validation": { "hostname": hostname, "caCertificateRefs": [{ "group": "", "kind": "ConfigMap", "name": "authority" }] } } }),
            )
        };
        policy("secure.example")?;
        eventually(PATIENCE, || contains(&get("/secure", &[])?, &["ended GET /secure ", "client=None"]))?;
        // What the Gateway itself shows.
        self.put(
            SECRETS,
            &json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "shown" }, "type": "kubernetes.io/tls",
                "stringData": { "tls.crt": read("client.crt")?, "tls.key": read("client.key")? } }),
        )?;
        self.edge_with(&json!({ "backend": { "clientCertificateRef": { "name": "shown" } } }))?;
        eventually(PATIENCE, || contains(&get("/secure", &[])?, &["ended GET /secure ", "'client'"]))?;
        self.edge()?;
        eventually(PATIENCE, || contains(&get("/secure", &[])?, &["ended GET /secure ", "client=None"]))?;
        policy("another.example")?;
        eventually(PATIENCE, || contains(&code("/secure", &[])?, &["503"]))?;
        let tls = |mode: &str| json!({ "tls": { "mode": mode, "credentialName": "client", "sni": "secure.example" } });
        self.rule("mutual", tls("SIMPLE"))?;
        eventually(PATIENCE, || contains(&get("/mutual", &[])?, &["ended GET /mutual ", "client=None"]))?;
        self.rule("mutual", tls("MUTUAL"))?;
        eventually(PATIENCE, || contains(&get("/mutual", &[])?, &["ended GET /mutual ", "'client'"]))
    }

    /// Policies that ask who a token names.
    fn claims(&self) -> Check {
        let Some((keys, token)) = signed_token(&self.dir)? else { return Ok(()) };
        let target = json!([{ "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "edge" }]);
        self.put(
            AUTHENTICATIONS,
            &json!({ "apiVersion": "security.istio.io/v1", "kind": "RequestAuthentication", "metadata": { "name": "edge" },
                "spec": { "targetRefs": target, "jwtRules": [{ "issuer": "tests", "jwks": keys, "forwardOriginalToken": true }] } }),
        )?;
        let policy = |action: &str, rule: Value| {
            self.put(
                POLICIES,
                &json!({ "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": { "name": "edge" },
                    "spec": { "targetRefs": target, "action": action, "rules": [rule] } }),
            )
        };
        let bearer = format!("authorization: Bearer {token}");
        let sees = |with: &str, without: &str| {
            eventually(PATIENCE, || contains(&code("/free", &[])?, &[without]))
                .map_err(|why| format!("without: {why}"))?;
            eventually(PATIENCE, || contains(&code("/free", &[&bearer])?, &[with]))
                .map_err(|why| format!("with: {why}"))
        };
        let from = |who: &str| json!({ "from": [{ "source": { "requestPrincipals": [who] } }] });
        let claim = |value: &str| json!({ "when": [{ "key": "request.auth.claims[sub]", "values": [value] }] });
        for (action, rule, with, without) in [
            ("ALLOW", from("tests/somebody"), "200", "403"),
            ("ALLOW", from("tests/nobody"), "403", "403"),
            ("ALLOW", from("*"), "200", "403"),
            ("DENY", claim("some*"), "403", "200"),
            ("ALLOW", claim("somebody"), "200", "403"),
            ("DENY", json!({ "from": [{ "source": { "notRequestPrincipals": ["*"] } }] }), "200", "403"),
        ] {
            policy(action, rule.clone())?;
            sees(with, without).map_err(|why| format!("{action} {rule}: {why}"))?;
        }
        self.delete(POLICIES, "edge")?;
        self.delete(AUTHENTICATIONS, "edge")
    }
}
