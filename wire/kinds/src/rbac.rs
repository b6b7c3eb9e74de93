//! Roles and bindings.

use crate::behaviour::{Facts, Kind};
use crate::cause::{Causes, Path};
use crate::json::{Members, each_object, existing, fill_text, list, same, text};
use crate::names::NameRule;
use crate::table::{self, Column, Row};
use model::Timestamp;
use serde_json::Value;

const GROUP: &str = "rbac.authorization.k8s.io";

pub fn find(kind: &str) -> Option<&'static dyn Kind> {
    Some(match kind {
        "Role" => &Role { kind: "Role" },
        "ClusterRole" => &Role { kind: "ClusterRole" },
        "RoleBinding" => &Binding { kind: "RoleBinding" },
        "ClusterRoleBinding" => &Binding { kind: "ClusterRoleBinding" },
        _ => return None,
    })
}

struct Role {
    kind: &'static str,
}

impl Kind for Role {
    fn facts(&self) -> Facts {
        Facts::plain(GROUP, self.kind).named(NameRule::PathSegment)
    }
    fn check(&self, object: &Value, causes: &mut Causes) {
        let rules = Path::root("rules");
        for (index, rule) in list(&object["rules"]).iter().enumerate() {
            check_rule(rule, self.kind == "Role", &rules.index(index), causes);
        }
    }
    fn columns(&self) -> &'static [Column] {
        if self.kind == "Role" || self.kind == "ClusterRole" { table::NAME_AND_CREATED_AT } else { table::NAME_AND_AGE }
    }
    fn row(&self, object: &Value, now: Timestamp) -> Row {
        table::created_at_row(object, now)
    }
}

fn check_rule(rule: &Value, namespaced: bool, path: &Path<'_>, causes: &mut Causes) {
    let has = |key: &str| !list(&rule[key]).is_empty();
    if !has("verbs") {
        causes.required(&path.child("verbs"), "verbs must contain at least one value");
    }
    if has("nonResourceURLs") {
        let urls = path.child("nonResourceURLs");
        if namespaced {
            causes.invalid(
                &urls,
                rule["nonResourceURLs"].clone(),
                "namespaced rules cannot apply to non-resource URLs",
            );
        }
        if has("apiGroups") || has("resources") || has("resourceNames") {
            let detail = "rules cannot apply to both regular resources and non-resource URLs";
            causes.invalid(&urls, rule["nonResourceURLs"].clone(), detail);
        }
        return;
    }
    if !has("apiGroups") {
        causes.required(&path.child("apiGroups"), "resource rules must supply at least one api group");
    }
    if !has("resources") {
        causes.required(&path.child("resources"), "resource rules must supply at least one resource");
    }
}

struct Binding {
    kind: &'static str,
}

impl Kind for Binding {
    fn facts(&self) -> Facts {
        Facts::plain(GROUP, self.kind).named(NameRule::PathSegment)
    }

    fn defaults(&self, object: &mut Value) {
        let Some(map) = object.as_object_mut() else { return };
        if let Some(role) = existing(map, "roleRef") {
            fill_text(role, "apiGroup", GROUP);
        }
        for subject in each_object(map, "subjects") {
            default_subject(subject);
        }
    }

    fn check(&self, object: &Value, causes: &mut Causes) {
        let (role, path) = (&object["roleRef"], Path::root("roleRef"));
        causes.one_of(&path.child("apiGroup"), text(&role["apiGroup"]), &[GROUP]);
        let kinds: &[&str] = if self.kind == "RoleBinding" { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
        causes.one_of(&path.child("kind"), text(&role["kind"]), kinds);
        let name = text(&role["name"]);
        if name.is_empty() {
            causes.required(&path.child("name"), "");
        } else {
            causes.invalid_each(&path.child("name"), name, crate::names::path_segment(name));
        }
        let subjects = Path::root("subjects");
        for (index, subject) in list(&object["subjects"]).iter().enumerate() {
            check_subject(subject, self.kind == "ClusterRoleBinding", &subjects.index(index), causes);
        }
    }

    fn check_change(&self, new: &Value, old: &Value, causes: &mut Causes) {
        if !same(&new["roleRef"], &old["roleRef"]) {
            causes.invalid(&Path::root("roleRef"), new["roleRef"].clone(), "cannot change roleRef");
        }
    }

    fn columns(&self) -> &'static [Column] {
        table::ROLE_BINDING
    }
    fn row(&self, object: &Value, now: Timestamp) -> Row {
        table::role_binding_row(object, now)
    }
}

fn default_subject(subject: &mut Members) {
    match subject.get("kind").map_or("", text) {
        "User" | "Group" => fill_text(subject, "apiGroup", GROUP),
        _ => {}
    }
}

fn check_subject(subject: &Value, cluster: bool, path: &Path<'_>, causes: &mut Causes) {
    let (name, group) = (text(&subject["name"]), text(&subject["apiGroup"]));
    if name.is_empty() {
        causes.required(&path.child("name"), "");
    }
    match text(&subject["kind"]) {
        "ServiceAccount" => {
            if !name.is_empty() {
                causes.invalid_each(&path.child("name"), name, crate::names::subdomain(name));
            }
            if !group.is_empty() {
                causes.not_supported(&path.child("apiGroup"), group, &[""]);
            }
            if cluster && text(&subject["namespace"]).is_empty() {
                causes.required(&path.child("namespace"), "");
            }
        }
        "User" | "Group" => causes.one_of(&path.child("apiGroup"), group, &[GROUP]),
        other => causes.not_supported(&path.child("kind"), other, &["ServiceAccount", "User", "Group"]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn texts(causes: Vec<kube::Cause>) -> Vec<String> {
        causes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn rules() {
        let role = Role { kind: "Role" };
        let check =
            |rule: Value| texts(role.validate_create(&json!({"metadata": {"name": "system:a"}, "rules": [rule]})));
        assert_eq!(check(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]})), [""; 0]);
        assert_eq!(
            check(json!({"apiGroups": [""]})),
            [
                "rules[0].verbs: Required value: verbs must contain at least one value",
                "rules[0].resources: Required value: resource rules must supply at least one resource"
            ]
        );
        assert_eq!(
            check(json!({"verbs": ["get"], "nonResourceURLs": ["/x"]})),
            ["rules[0].nonResourceURLs: Invalid value: [\"/x\"]: namespaced rules cannot apply to non-resource URLs"]
        );
    }

    #[test]
    fn bindings() {
        let binding = Binding { kind: "RoleBinding" };
        let mut object = json!({"metadata": {"name": "b", "uid": "u"}, "roleRef": {"kind": "Role", "name": "r"},
            "subjects": [{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "s", "namespace": "n"}]});
        binding.defaults(&mut object);
        assert_eq!(object["subjects"][0]["apiGroup"], GROUP);
        assert!(object["subjects"][1]["apiGroup"].is_null());
        assert_eq!(texts(binding.validate_create(&object)), [""; 0]);
        let mut new = object.clone();
        new["roleRef"]["name"] = json!("other");
        assert!(texts(binding.validate_update(&new, &object))[0].ends_with("cannot change roleRef"));
    }
}
