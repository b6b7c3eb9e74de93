//! Nobody grants more than they hold, unless the verbs `escalate` and `bind` say they may.

use super::Request;
use crate::access::{may, parse_rules};
use crate::identity::MASTERS;
use authz::rbac::{Caller, Rule, Target, rules_for, uncovered};
use kube::Status;
use serde_json::Value;

pub(super) fn no_escalation(request: &Request<'_>, kind: &str, object: &Value) -> Result<(), Status> {
    let identity = &request.caller.identity;
    if identity.is_in(MASTERS) {
        return Ok(());
    }
    let unchanged = |key: &str| request.old.is_some_and(|old| old[key] == object[key]);
    let (rules, verb, resource, name) = match kind {
        "Role" | "ClusterRole" => {
            if unchanged("rules") && unchanged("aggregationRule") {
                return Ok(());
            }
            let resource = if kind == "Role" { "roles" } else { "clusterroles" };
            let mut rules = parse_rules(&object["rules"]);
            if !object["aggregationRule"].is_null() {
                let all = || vec!["*".into()];
                rules.push(Rule { verbs: all(), api_groups: all(), resources: all(), ..Rule::default() });
            }
            (rules, "escalate", resource, request.target.name.clone())
        }
        _ => {
            if unchanged("subjects") && unchanged("roleRef") {
                return Ok(());
            }
            let role = object["roleRef"]["name"].as_str().unwrap_or_default();
            let cluster = object["roleRef"]["kind"] == "ClusterRole";
            let rules = role_rules(request, cluster, role)?;
            (rules, "bind", if cluster { "clusterroles" } else { "roles" }, role.to_owned())
        }
    };
    let namespace = request.target.namespace.as_str();
    let asked =
        Target::Resource { group: "rbac.authorization.k8s.io", resource, subresource: "", namespace, name: &name };
    if may(request.core, identity, verb, asked).allowed {
        return Ok(());
    }
    let policy = request.core.roles.policy();
    let held = rules_for(&policy, Caller { name: &identity.name, groups: &identity.groups }, namespace);
    let missing = uncovered(&held, &rules);
    if missing.is_empty() {
        return Ok(());
    }
    let listed: Vec<String> = missing.iter().map(shown).collect();
    let groups: Vec<String> = identity.groups.iter().map(|group| format!("{:?}", &**group)).collect();
    let detail = format!(
        "user {:?} (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{}",
        &*identity.name,
        groups.join(" "),
        listed.join("\n")
    );
    Err(request.target.forbidden(&detail))
}

fn role_rules(request: &Request<'_>, cluster: bool, name: &str) -> Result<Vec<Rule>, Status> {
    if cluster {
        let policy = request.core.roles.policy();
        let rules = policy.cluster_role(name).map(<[Rule]>::to_vec);
        return rules.ok_or_else(|| Status::not_found("rbac.authorization.k8s.io", "clusterroles", name));
    }
    let role = request.core.read("rbac.authorization.k8s.io/roles", &request.target.namespace, name);
    role.map(|role| parse_rules(&role["rules"]))
        .ok_or_else(|| Status::not_found("rbac.authorization.k8s.io", "roles", name))
}

fn shown(rule: &Rule) -> String {
    let mut parts = Vec::new();
    for (key, list) in [
        ("APIGroups", &rule.api_groups),
        ("Resources", &rule.resources),
        ("ResourceNames", &rule.resource_names),
        ("NonResourceURLs", &rule.non_resource_urls),
        ("Verbs", &rule.verbs),
    ] {
        if !list.is_empty() {
            let texts: Vec<String> = list.iter().map(|text| format!("{:?}", &**text)).collect();
            parts.push(format!("{key}:[{}]", texts.join(" ")));
        }
    }
    format!("{{{}}}", parts.join(", "))
}
