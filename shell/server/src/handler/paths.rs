//! Paths outside the resource tree.

use super::Call;
use crate::body::Body;
use crate::core::Core;
use crate::{discovery, respond};
use http::{Method, Response};
use kube::Status;
use serde_json::json;

/// What `kubectl version` shows as the server's.
pub const GIT_VERSION: &str = concat!("v1.37.0+diolkos-", env!("CARGO_PKG_VERSION"));

pub(super) fn dispatch(core: &Core, call: &Call) -> Result<Response<Body>, Status> {
    let path = call.info.path.trim_end_matches('/');
    if !matches!(call.method, Method::GET | Method::HEAD) {
        return Err(Status::method_not_allowed("", path, call.info.verb));
    }
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    match parts.as_slice() {
        [] => Ok(respond::json(200, root(core).to_string())),
        ["healthz" | "livez" | "readyz", rest @ ..] => health(core, call, rest),
        ["version"] => Ok(respond::json(200, version().to_string())),
        ["metrics"] => Ok(metrics(core)),
        ["api"] | ["apis"] | ["api", _] | ["apis", ..] => discovery::answer(core, call, &parts),
        ["openapi", ..] => crate::openapi::answer(core, call, &parts),
        [".well-known", "openid-configuration"] => Ok(respond::json(200, openid(core).to_string())),
        ["openid", "v1", "jwks"] => {
            Ok(respond::body(200, "application/jwk-set+json", core.token_key.jwks().to_string()))
        }
        _ => Err(Status::no_such_path()),
    }
}

fn root(core: &Core) -> serde_json::Value {
    let registry = core.registry.load();
    let mut paths: Vec<String> =
        ["/.well-known/openid-configuration", "/api", "/api/v1", "/apis"].map(str::to_owned).to_vec();
    for group in registry.groups().iter().filter(|group| !group.name.is_empty()) {
        paths.push(format!("/apis/{}", group.name));
        paths.extend(group.versions.iter().map(|version| format!("/apis/{}/{}", group.name, version.name)));
    }
    let rest =
        ["/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/openid/v1/jwks", "/readyz", "/version"];
    paths.extend(rest.map(str::to_owned));
    json!({ "paths": paths })
}

fn version() -> serde_json::Value {
    json!({
        "major": "1", "minor": "37", "gitVersion": GIT_VERSION, "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "2026-01-01T00:00:00Z", "goVersion": "rustc", "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }),
    })
}

fn openid(core: &Core) -> serde_json::Value {
    json!({
        "issuer": core.config.issuer,
        "jwks_uri": format!("https://{}:{}/openid/v1/jwks", core.config.advertised(), core.config.listen.port()),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    })
}

fn metrics(core: &Core) -> Response<Body> {
    let (objects, bytes) = core.store.size();
    let by_resource: Vec<(String, usize)> = core
        .store
        .resources()
        .into_iter()
        .map(|resource| (resource.to_string(), core.store.count(&resource)))
        .collect();
    let text = core.metrics.render((objects, bytes, core.store.revision()), &by_resource);
    respond::body(200, "text/plain; version=0.0.4; charset=utf-8", text)
}

/// `/readyz`, `/readyz/ping`, `/readyz?verbose`.
fn health(core: &Core, call: &Call, rest: &[&str]) -> Result<Response<Body>, Status> {
    let stopping = call.info.path.starts_with("/readyz") && *core.shutdown.borrow();
    let checks = [("ping", true), ("store", true), ("shutdown", !stopping)];
    if let [name] = rest {
        let check = checks.iter().find(|(have, _)| have == name).ok_or_else(Status::no_such_path)?;
        return Ok(if check.1 { respond::text(200, "ok") } else { respond::text(500, "not ok") });
    }
    let healthy = checks.iter().all(|(_, well)| *well);
    if healthy && !call.query.flag("verbose") {
        return Ok(respond::text(200, "ok"));
    }
    let name = call.info.path.trim_matches('/');
    let mut text = String::new();
    for (check, well) in checks {
        text.push_str(&format!("[{}]{check} {}\n", if well { '+' } else { '-' }, if well { "ok" } else { "failed" }));
    }
    text.push_str(&format!("{name} check {}\n", if healthy { "passed" } else { "failed" }));
    Ok(respond::text(if healthy { 200 } else { 500 }, text))
}
