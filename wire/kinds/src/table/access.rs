//! Roles and bindings, certificate requests, custom resource definitions.

use super::{AGE, Column, NAME, Row, age, name, or};
use crate::json::{list, text};
use model::Timestamp;
use serde_json::Value;

/// The row of kinds with `NAME_AND_CREATED_AT`.
pub fn created_at_row(object: &Value, _now: Timestamp) -> Row {
    Row::plain(vec![name(object), object["metadata"]["creationTimestamp"].clone()])
}

/// RoleBindings.
pub const ROLE_BINDING: &[Column] = &[
    NAME,
    Column::text("Role", "The role that is granted."),
    AGE,
    Column::text("Users", "Users in the roleBinding").wide(),
    Column::text("Groups", "Groups in the roleBinding").wide(),
    Column::text("ServiceAccounts", "ServiceAccounts in the roleBinding").wide(),
];

/// A binding's row.
pub fn role_binding_row(object: &Value, now: Timestamp) -> Row {
    let role = &object["roleRef"];
    let subjects = |kind: &str| {
        let names: Vec<String> = list(&object["subjects"])
            .iter()
            .filter(|subject| subject["kind"] == kind)
            .map(|subject| match kind {
                "ServiceAccount" => format!("{}/{}", text(&subject["namespace"]), text(&subject["name"])),
                _ => text(&subject["name"]).to_owned(),
            })
            .collect();
        Value::from(names.join(", "))
    };
    Row::plain(vec![
        name(object),
        Value::from(format!("{}/{}", text(&role["kind"]), text(&role["name"]))),
        age(object, now),
        subjects("User"),
        subjects("Group"),
        subjects("ServiceAccount"),
    ])
}

/// CertificateSigningRequests.
pub const SIGNING_REQUEST: &[Column] = &[
    NAME,
    AGE,
    Column::text("SignerName", "Who is to sign."),
    Column::text("Requestor", "Who asked."),
    Column::text("RequestedDuration", "For how long."),
    Column::text("Condition", "Whether it is approved and issued."),
];

/// A CertificateSigningRequest's row.
pub fn signing_request_row(object: &Value, now: Timestamp) -> Row {
    let (spec, status) = (&object["spec"], &object["status"]);
    let has = |kind: &str| list(&status["conditions"]).iter().any(|c| c["type"] == kind);
    let mut condition = if has("Denied") {
        "Denied"
    } else if has("Approved") {
        "Approved"
    } else {
        "Pending"
    }
    .to_owned();
    if has("Failed") {
        condition.push_str(",Failed");
    }
    if !text(&status["certificate"]).is_empty() {
        condition.push_str(",Issued");
    }
    let duration = spec["expirationSeconds"].as_i64().map_or("<none>".to_owned(), |s| super::human_duration(s * 1000));
    Row::plain(vec![
        name(object),
        age(object, now),
        Value::from(or(text(&spec["signerName"]), "<none>")),
        Value::from(text(&spec["username"])),
        Value::from(duration),
        Value::from(condition),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn bindings() {
        let object = json!({"metadata": {"name": "b"}, "roleRef": {"kind": "ClusterRole", "name": "admin"}, "subjects": [
            {"kind": "User", "name": "u"}, {"kind": "Group", "name": "g"}, {"kind": "User", "name": "v"},
            {"kind": "ServiceAccount", "namespace": "n", "name": "s"}]});
        let cells = role_binding_row(&object, Timestamp::from_secs(0)).cells;
        assert_eq!(
            cells,
            [json!("b"), json!("ClusterRole/admin"), json!("<unknown>"), json!("u, v"), json!("g"), json!("n/s")]
        );
    }
}
