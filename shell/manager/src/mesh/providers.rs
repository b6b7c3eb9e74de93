//! External authorizers as the operator's file names them: Istio's `extensionProviders`, in JSON.

use model::mesh::policy::{ExtensionProvider, ProviderKind};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Without a time-out of its own.
const TIMEOUT_MS: u64 = 10_000;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    name: String,
    envoy_ext_authz_grpc: Option<Grpc>,
    envoy_ext_authz_http: Option<Http>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Grpc {
    service: String,
    port: u16,
    #[serde(default)]
    fail_open: bool,
    status_on_error: Option<String>,
    timeout: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Http {
    service: String,
    port: u16,
    #[serde(default)]
    fail_open: bool,
    status_on_error: Option<String>,
    timeout: Option<String>,
    #[serde(default)]
    path_prefix: String,
    #[serde(default)]
    include_request_headers_in_check: Vec<String>,
    #[serde(default)]
    include_additional_headers_in_check: BTreeMap<String, String>,
    #[serde(default)]
    headers_to_upstream_on_allow: Vec<String>,
    #[serde(default)]
    headers_to_downstream_on_deny: Vec<String>,
}

/// Reads the file: a list, each with a `name` and `envoyExtAuthzGrpc` or `envoyExtAuthzHttp`.
///
/// # Errors
/// It cannot be read or is not that, with the place.
pub fn read(path: &Path) -> Result<Vec<ExtensionProvider>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    parse(&text).map_err(|why| format!("{}: {why}", path.display()))
}

fn parse(text: &str) -> Result<Vec<ExtensionProvider>, String> {
    let written: Vec<Written> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    written.into_iter().map(provider).collect()
}

fn provider(written: Written) -> Result<ExtensionProvider, String> {
    let name = written.name;
    let bad = |what: &str, value: &str| format!("{name}: {what} {value:?} is not valid");
    let lower = |list: Vec<String>| -> Vec<Arc<str>> { list.iter().map(|it| it.to_ascii_lowercase().into()).collect() };
    let (service, port, fail_open, status, timeout, kind) =
        match (written.envoy_ext_authz_grpc, written.envoy_ext_authz_http) {
            (Some(it), None) => (it.service, it.port, it.fail_open, it.status_on_error, it.timeout, ProviderKind::Grpc),
            (None, Some(it)) => {
                let add = it.include_additional_headers_in_check.into_iter();
                let kind = ProviderKind::Http {
                    prefix: it.path_prefix.into(),
                    send: lower(it.include_request_headers_in_check),
                    add: add.map(|(name, value)| (name.to_ascii_lowercase().into(), value.into())).collect(),
                    upstream: lower(it.headers_to_upstream_on_allow),
                    downstream: lower(it.headers_to_downstream_on_deny),
                };
                (it.service, it.port, it.fail_open, it.status_on_error, it.timeout, kind)
            }
            _ => return Err(format!("{name}: one of envoyExtAuthzGrpc and envoyExtAuthzHttp must be there")),
        };
    let status_on_error = match status {
        None => 403,
        Some(text) => {
            text.parse().ok().filter(|it| (200..600).contains(it)).ok_or_else(|| bad("statusOnError", &text))?
        }
    };
    let timeout_ms = match timeout {
        None => TIMEOUT_MS,
        Some(text) => project::mesh::duration_ms(&text).filter(|ms| *ms > 0).ok_or_else(|| bad("timeout", &text))?,
    };
    // Istio writes `[NAMESPACE/]HOST`.
    let (namespace, host) = service.split_once('/').unwrap_or(("", &service));
    let (namespace, service) = (namespace.into(), host.to_ascii_lowercase().into());
    Ok(ExtensionProvider {
        name: name.as_str().into(),
        service,
        namespace,
        port,
        kind,
        fail_open,
        status_on_error,
        timeout_ms,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files() {
        let good = r#"[
            {"name": "g", "envoyExtAuthzGrpc": {"service": "ns/Asker.ns.svc.cluster.local", "port": 9000, "timeout": "0.5s"}},
            {"name": "h", "envoyExtAuthzHttp": {"service": "a.b", "port": 80, "failOpen": true, "statusOnError": "503",
             "includeRequestHeadersInCheck": ["X-Who"], "headersToUpstreamOnAllow": ["x-user"]}}]"#;
        let found = parse(good).unwrap();
        assert_eq!(
            (&*found[0].service, &*found[0].namespace, found[0].timeout_ms, found[0].status_on_error),
            ("asker.ns.svc.cluster.local", "ns", 500, 403)
        );
        assert!(found[1].fail_open && found[1].status_on_error == 503);
        assert!(matches!(&found[1].kind, ProviderKind::Http { send, .. } if *send == ["x-who".into()]));
        for bad in [
            "{}",
            r#"[{"name": "x"}]"#,
            r#"[{"name": "x", "envoyExtAuthzGrpc": {"service": "a", "port": 70000}}]"#,
            r#"[{"name": "x", "envoyExtAuthzGrpc": {"service": "a", "port": 1, "timeout": "soon"}}]"#,
            r#"[{"name": "x", "envoyExtAuthzGrpc": {"service": "a", "port": 1, "statusOnError": "OK"}}]"#,
            r#"[{"name": "x", "envoyExtAuthzGrpc": {"service": "a", "port": 1, "surprise": 1}}]"#,
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
