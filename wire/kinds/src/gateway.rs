//! Gateway API and Istio's policy kinds. Their rules are in their definitions' schemas; here is what they show.

use crate::behaviour::{Facts, Generation, Kind};
use crate::table::{AGE, Column, NAME, Row, dated, name};
use kube::crd::JsonPath;
use model::Timestamp;
use serde_json::Value;
use std::sync::OnceLock;

pub fn find(kind: &str) -> Option<&'static dyn Kind> {
    ALL.iter().find(|shown| shown.kind == kind).map(|shown| shown as &dyn Kind)
}

/// A kind whose table is columns and the paths of their values.
struct Shown {
    group: &'static str,
    kind: &'static str,
    status: bool,
    columns: &'static [Column],
    paths: &'static [&'static str],
    parsed: OnceLock<Vec<JsonPath>>,
}

const GATEWAY: &str = "gateway.networking.k8s.io";
const ISTIO: &str = "security.istio.io";
const CREATED: &str = ".metadata.creationTimestamp";
const DATE: Column = Column { kind: "date", ..AGE };

static ALL: [Shown; 12] = [
    shown(
        GATEWAY,
        "GatewayClass",
        true,
        &[
            NAME,
            Column::text("Controller", "Who implements gateways of this class."),
            Column::text("Accepted", "Whether the controller has accepted it."),
            DATE,
            Column::text("Description", "What it is for.").wide(),
        ],
        &[".spec.controllerName", ".status.conditions[?(@.type==\"Accepted\")].status", CREATED, ".spec.description"],
    ),
    shown(
        GATEWAY,
        "Gateway",
        true,
        &[
            NAME,
            Column::text("Class", "Its class."),
            Column::text("Address", "Addresses at which it listens."),
            Column::text("Programmed", "Whether its configuration is in effect."),
            DATE,
        ],
        &[
            ".spec.gatewayClassName",
            ".status.addresses[*].value",
            ".status.conditions[?(@.type==\"Programmed\")].status",
            CREATED,
        ],
    ),
    shown(
        GATEWAY,
        "HTTPRoute",
        true,
        &[NAME, Column::text("Hostnames", "Hosts that it is for."), DATE],
        &[".spec.hostnames", CREATED],
    ),
    shown(
        GATEWAY,
        "GRPCRoute",
        true,
        &[NAME, Column::text("Hostnames", "Hosts that it is for."), DATE],
        &[".spec.hostnames", CREATED],
    ),
    shown(GATEWAY, "TLSRoute", true, &[NAME, DATE], &[CREATED]),
    shown(GATEWAY, "TCPRoute", true, &[NAME, DATE], &[CREATED]),
    shown(GATEWAY, "UDPRoute", true, &[NAME, DATE], &[CREATED]),
    shown(GATEWAY, "BackendTLSPolicy", true, &[NAME, DATE], &[CREATED]),
    shown(GATEWAY, "ReferenceGrant", false, &[NAME, DATE], &[CREATED]),
    shown(
        ISTIO,
        "AuthorizationPolicy",
        true,
        &[NAME, Column::text("Action", "What it does with the requests that match."), DATE],
        &[".spec.action", CREATED],
    ),
    shown(
        ISTIO,
        "PeerAuthentication",
        true,
        &[NAME, Column::text("Mode", "Whether mutual TLS is demanded."), DATE],
        &[".spec.mtls.mode", CREATED],
    ),
    shown(ISTIO, "RequestAuthentication", true, &[NAME, DATE], &[CREATED]),
];

const fn shown(
    group: &'static str,
    kind: &'static str,
    status: bool,
    columns: &'static [Column],
    paths: &'static [&'static str],
) -> Shown {
    Shown { group, kind, status, columns, paths, parsed: OnceLock::new() }
}

impl Kind for Shown {
    fn facts(&self) -> Facts {
        let facts = Facts::plain(self.group, self.kind).counting(Generation::Content);
        if self.status { facts.with_status() } else { facts }
    }
    fn columns(&self) -> &'static [Column] {
        self.columns
    }
    fn row(&self, object: &Value, now: Timestamp) -> Row {
        let paths = self.parsed.get_or_init(|| self.paths.iter().map(|path| JsonPath::parse(path)).collect());
        let cells = self.columns[1..].iter().zip(paths).map(|(column, path)| {
            let found: Vec<String> = path.find(object).into_iter().map(shown_text).collect();
            let cell = if found.is_empty() { Value::Null } else { Value::from(found.join(",")) };
            dated(column.kind, cell, now)
        });
        Row::plain(std::iter::once(name(object)).chain(cells).collect())
    }
}

fn shown_text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rows() {
        let now = Timestamp::from_secs(1_700_000_000);
        let gateway = json!({"metadata": {"name": "g", "creationTimestamp": "2023-11-14T22:12:20Z"}, "spec": {"gatewayClassName": "c"},
            "status": {"addresses": [{"value": "1.2.3.4"}], "conditions": [{"type": "Programmed", "status": "True"}]}});
        assert_eq!(
            find("Gateway").unwrap().row(&gateway, now).cells,
            [json!("g"), json!("c"), json!("1.2.3.4"), json!("True"), json!("60s")]
        );
        let route = json!({"metadata": {"name": "r"}, "spec": {"hostnames": ["a", "b"]}});
        assert_eq!(
            find("HTTPRoute").unwrap().row(&route, now).cells,
            [json!("r"), json!("[\"a\",\"b\"]"), Value::Null]
        );
    }
}
