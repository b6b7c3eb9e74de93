//! Who is asked about requests: authorizers (CUSTOM policies), by gRPC and by HTTP, and rate limit services, at a gateway and beside a process. Each is tried
//! with an Envoy.

use super::{BACKENDS, GATEWAY_PORT, PATIENCE, POLICIES, ROUTES, TRAFFIC_POLICIES, World, backends, curl};
use e2e::{Check, contains, eventually};
use serde_json::{Value, json};
use std::path::Path;

const HOST: &str = "asked.example";
const ASKER_PORT: u16 = 16_485;
const NOBODY: u16 = 16_498;

/// Authorizers, as the operator's file names them.
pub fn providers() -> Value {
    let grpc = |service: &str, fail_open: bool| {
        json!({ "service": format!("{service}.default.svc.cluster.local"), "port": 80, "timeout": "1s",
            "failOpen": fail_open, "statusOnError": "503" })
    };
    json!([{ "name": "asker", "envoyExtAuthzGrpc": grpc("asker", false) },
        { "name": "absent", "envoyExtAuthzGrpc": grpc("absent", false) },
        { "name": "optional", "envoyExtAuthzGrpc": grpc("absent", true) },
        { "name": "web", "envoyExtAuthzHttp": { "service": "one.default.svc.cluster.local", "port": 80, "pathPrefix": "/check",
            "includeRequestHeadersInCheck": ["x-pass"], "includeAdditionalHeadersInCheck": { "x-added": "added" },
            "headersToUpstreamOnAllow": ["x-user"], "headersToDownstreamOnDeny": ["x-why"] } }])
}

/// The whole answer.
fn get(port: u16, host: &str, path: &str, headers: &[&str]) -> Check<String> {
    let headers = headers.iter().flat_map(|header| ["-H", header]);
    let more: Vec<&str> = ["-i"].into_iter().chain(headers).collect();
    curl(port, host, path, &more)
}

fn ask(path: &str, headers: &[&str]) -> Check<String> {
    get(GATEWAY_PORT, HOST, path, headers)
}

fn misses(text: &str, needle: &str) -> Check {
    if text.contains(needle) { Err(format!("{needle:?} is in {text}")) } else { Ok(()) }
}

impl World {
    pub fn asked(&self, envoy: &Path, python: &Path) -> Check {
        let _asker = backends::grpc(python, ASKER_PORT)?;
        // Its port's name says HTTP: it is spoken to in HTTP/2 all the same.
        self.service("asker", &[ASKER_PORT])?;
        self.service("absent", &[NOBODY])?;
        self.edge()?;
        self.put(
            ROUTES,
            &json!({ "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": { "name": "asked" },
                "spec": { "parentRefs": [{ "name": "edge" }], "hostnames": [HOST], "rules": [
                    { "matches": [{ "path": { "value": "/away" } }], "filters": [
                        { "type": "RequestRedirect", "requestRedirect": { "hostname": "away.example" } }] },
                    { "backendRefs": [{ "name": "two", "port": 80 }] }] } }),
        )?;
        {
            let _envoy = self.envoy(envoy, "DELTA_GRPC", &json!({ "gateway": "default/edge" }))?;
            let told =
                |name: &str, what: Check| what.map_err(|why| format!("{name}: {why}\n{}", self.log("DELTA_GRPC")));
            told("authorizers", self.authorizers())?;
            told("quotas", self.quotas())?;
            self.report("envoy test-DELTA_GRPC")?;
        }
        let _envoy = self.envoy(envoy, "DELTA_GRPC", &json!({}))?;
        self.quotas_beside().map_err(|why| format!("beside a process: {why}\n{}", self.log("DELTA_GRPC")))
    }

    fn custom(&self, name: &str, provider: &str, paths: &str) -> Check {
        let target = json!([{ "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "edge" }]);
        self.put(
            POLICIES,
            &json!({ "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": { "name": name },
                "spec": { "targetRefs": target, "action": "CUSTOM", "provider": { "name": provider },
                    "rules": [{ "to": [{ "operation": { "paths": [paths] } }] }] } }),
        )
    }

    fn authorizers(&self) -> Check {
        self.custom("one", "asker", "/grpc/*")?;
        self.custom("two", "web", "/http/*")?;
        self.custom("three", "absent", "/absent/*")?;
        self.custom("four", "optional", "/optional/*")?;
        self.custom("five", "unheard-of", "/unknown/*")?;
        // What it says of a request is there for whoever decides next.
        let target = json!([{ "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "edge" }]);
        let known = json!([{ "key": "request.headers[x-user]", "values": ["known"] }]);
        self.put(
            POLICIES,
            &json!({ "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": { "name": "six" },
                "spec": { "targetRefs": target, "action": "DENY",
                    "rules": [{ "to": [{ "operation": { "paths": ["/grpc/denied"] } }], "when": known }] } }),
        )?;
        eventually(PATIENCE, || contains(&ask("/grpc/a", &[])?, &["401", "x-why: unknown", "who are you"]))?;
        let yes = ["x-pass: yes", "x-other: mine"];
        eventually(PATIENCE, || {
            contains(&ask("/grpc/a", &yes)?, &["200", "GET /grpc/a ", "user=known", "other=None"])
        })?;
        contains(&ask("/grpc/denied", &yes)?, &["403"])?;
        contains(&ask("/grpc/slow", &yes)?, &["503"]).map_err(|why| format!("too slow: {why}"))?;
        contains(&ask("/free", &[])?, &["200", "user=None"])?;
        let refused = ask("/http/a", &["x-unsent: no"])?;
        contains(&refused, &["403", "x-why: None added /check/http/a", "not you"])?;
        misses(&refused, "x-other")?;
        let passed = ask("/http/a", &["x-pass: yes", "x-unsent: no"])?;
        contains(&passed, &["200", "user=None added /check/http/a", "other=None"])?;
        contains(&ask("/absent/a", &yes)?, &["503"]).map_err(|why| format!("nobody answers: {why}"))?;
        contains(&ask("/optional/a", &[])?, &["200"]).map_err(|why| format!("nobody answers, fail open: {why}"))?;
        contains(&ask("/unknown/a", &yes)?, &["403"]).map_err(|why| format!("no such authorizer: {why}"))?;
        for name in ["one", "two", "three", "four", "five", "six"] {
            self.delete(POLICIES, name)?;
        }
        eventually(PATIENCE, || contains(&ask("/grpc/a", &[])?, &["200"]))
    }

    fn limit(&self, target: (&str, &str), service: &str, fail_open: bool, descriptors: &Value) -> Check {
        let group = "gateway.networking.k8s.io";
        self.put(
            TRAFFIC_POLICIES,
            &json!({ "apiVersion": "mesh.diolkos.io/v1", "kind": "TrafficPolicy", "metadata": { "name": "quota" },
                "spec": { "targetRefs": [{ "group": group, "kind": target.0, "name": target.1 }],
                    "rateLimit": { "global": { "backendRef": { "name": service, "port": 80 }, "domain": "shop",
                        "timeout": "1s", "failOpen": fail_open, "descriptors": descriptors } } } }),
        )
    }

    fn quotas(&self) -> Check {
        let user = json!({ "type": "Header", "name": "x-user" });
        let order = json!({ "type": "Generic", "key": "kind", "value": "order" });
        let descriptors = json!([
            { "entries": [user] },
            { "matches": [{ "path": { "value": "/orders" } }], "entries": [order, { "type": "Path" }] }]);
        self.limit(("Gateway", "edge"), "asker", true, &descriptors)?;
        let said = |text: String, needles: &[&str]| contains(&text, needles);
        eventually(PATIENCE, || {
            said(ask("/x", &["x-user: probe"])?, &["x-asked: shop|x-user=probe", "extra=counted"])
        })?;
        said(ask("/x", &["x-user: a"])?, &["200", "x-ratelimit-limit: 2", "x-ratelimit-remaining: 1"])?;
        said(ask("/x", &["x-user: a"])?, &["200"])?;
        said(ask("/x", &["x-user: a"])?, &["429", "x-envoy-ratelimited: true", "x-asked:"])?;
        said(ask("/x", &["x-user: b"])?, &["200"])?;
        // Both descriptors, and one of them only where it matches; the path is without its query.
        said(ask("/orders/1?q=2", &["x-user: c"])?, &["200", "x-asked: shop|x-user=c|kind=order;path=/orders/1"])?;
        misses(&ask("/x", &[])?, "x-asked")?;
        misses(&ask("/away", &["x-user: a"])?, "429")?;
        self.limit(("HTTPRoute", "asked"), "absent", true, &descriptors)?;
        eventually(PATIENCE, || said(ask("/x", &["x-user: a"])?, &["200"]))
            .map_err(|why| format!("fail open: {why}"))?;
        self.limit(("HTTPRoute", "asked"), "absent", false, &descriptors)?;
        eventually(PATIENCE, || said(ask("/x", &["x-user: a"])?, &["500"])).map_err(|why| format!("closed: {why}"))?;
        self.delete(TRAFFIC_POLICIES, "quota")
    }

    /// Routes of a service have policies too; those that call it keep them.
    fn quotas_beside(&self) -> Check {
        let parent = json!([{ "group": "", "kind": "Service", "name": "two", "port": 80 }]);
        self.put(
            ROUTES,
            &json!({ "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": { "name": "beside" },
                "spec": { "parentRefs": parent, "rules": [{ "backendRefs": [{ "name": "two", "port": 80 }] }] } }),
        )?;
        let user = json!({ "type": "Header", "name": "x-user" });
        self.limit(("HTTPRoute", "beside"), "asker", false, &json!([{ "entries": [user] }]))?;
        let ask = |user: &str| get(15_080, "two.default", "/s", &[&format!("x-user: {user}")]);
        eventually(PATIENCE, || contains(&ask("probe-two")?, &["x-asked: shop|x-user=probe-two"]))?;
        for expect in ["200", "200", "429"] {
            contains(&ask("d")?, &[expect])?;
        }
        let name = format!("backend-{}", BACKENDS[0]);
        contains(&get(15_080, "one.default", "/s", &["x-user: d"])?, &["200", &name])?;
        // A limit that it keeps itself.
        let each = json!([{ "requests": 1, "unit": "Hour", "per": [{ "type": "Header", "name": "x-user" }] }]);
        self.put(
            TRAFFIC_POLICIES,
            &json!({ "apiVersion": "mesh.diolkos.io/v1", "kind": "TrafficPolicy", "metadata": { "name": "quota" },
                "spec": { "targetRefs": [{ "group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "beside" }],
                    "rateLimit": { "local": each } } }),
        )?;
        eventually(PATIENCE, || contains(&ask("probe-three")?, &["429", "retry-after:"]))?;
        contains(&ask("e")?, &["200"])?;
        contains(&ask("e")?, &["429"])?;
        self.delete(TRAFFIC_POLICIES, "quota")?;
        self.delete(ROUTES, "beside")
    }
}
