//! What may change in a pod once it exists.

use crate::behaviour::SPEC;
use crate::cause::Causes;
use crate::json::{is_empty, list, same, text};
use serde_json::Value;

const FORBIDDEN: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,\
                         `spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),\
                         `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// Checks an update of a pod through its main resource.
pub fn check(new: &Value, old: &Value, causes: &mut Causes) {
    let (new_spec, old_spec) = (&new["spec"], &old["spec"]);
    for key in ["containers", "initContainers"] {
        let path = SPEC.child(key);
        let (after, before) = (list(&new_spec[key]), list(&old_spec[key]));
        if after.len() != before.len() {
            causes.forbidden(&path, "pod updates may not add or remove containers");
            return;
        }
        for (index, container) in after.iter().enumerate() {
            if text(&container["image"]).is_empty() {
                causes.required(&path.index(index).child("image"), "");
            }
        }
    }
    check_deadline(&new_spec["activeDeadlineSeconds"], &old_spec["activeDeadlineSeconds"], causes);
    check_tolerations(&new_spec["tolerations"], &old_spec["tolerations"], causes);
    let gates_path = SPEC.child("schedulingGates");
    let before = list(&old_spec["schedulingGates"]);
    if list(&new_spec["schedulingGates"]).iter().any(|gate| !before.contains(gate)) {
        causes.forbidden(&gates_path, "only deletion is allowed, but found new scheduling gate");
    }
    if !same(
        &allowed_part_removed(new_spec, old_spec, !before.is_empty()),
        &allowed_part_removed(old_spec, old_spec, !before.is_empty()),
    ) {
        causes.forbidden(&SPEC, FORBIDDEN);
    }
}

/// The spec without what may change. A gated pod may still be given node selectors and affinity.
fn allowed_part_removed(spec: &Value, old: &Value, gated: bool) -> Value {
    let mut rest = spec.clone();
    let Some(map) = rest.as_object_mut() else { return rest };
    for key in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        map.remove(key);
    }
    if gated {
        map.remove("nodeSelector");
        map.remove("affinity");
    }
    let was_negative = old["terminationGracePeriodSeconds"].as_i64().is_some_and(|s| s < 0);
    if was_negative && spec["terminationGracePeriodSeconds"].as_i64().is_some_and(|s| s == 1 || s < 0) {
        map.remove("terminationGracePeriodSeconds");
    }
    for key in ["containers", "initContainers"] {
        for container in crate::json::each_object(map, key) {
            container.remove("image");
        }
    }
    rest
}

fn check_deadline(new: &Value, old: &Value, causes: &mut Causes) {
    let path = SPEC.child("activeDeadlineSeconds");
    match (new.as_i64(), old.as_i64()) {
        (Some(new), _) if !(0..=i64::from(i32::MAX)).contains(&new) => {
            causes.invalid(&path, new, "must be between 0 and 2147483647, inclusive");
        }
        (Some(new), Some(old)) if new > old => {
            causes.invalid(&path, new, "must be less than or equal to previous value")
        }
        (None, Some(_)) => causes.invalid(&path, Value::Null, "must not update from a positive integer to nil value"),
        _ => {}
    }
}

fn check_tolerations(new: &Value, old: &Value, causes: &mut Causes) {
    let after = list(new);
    // The time of a toleration may change; nothing else of an old one may.
    let alike = |a: &Value, b: &Value| {
        ["key", "operator", "value", "effect"]
            .iter()
            .all(|key| a[*key] == b[*key] || is_empty(&a[*key]) && is_empty(&b[*key]))
    };
    if list(old).iter().any(|toleration| !after.iter().any(|kept| alike(kept, toleration))) {
        causes.forbidden(
            &SPEC.child("tolerations"),
            "existing toleration can not be modified except its tolerationSeconds",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn found(change: impl Fn(&mut Value)) -> Vec<String> {
        let old = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "a:1", "resources": {}}],
            "tolerations": [{"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}],
            "activeDeadlineSeconds": 100, "nodeName": "n"}});
        let mut new = old.clone();
        change(&mut new);
        let mut causes = Causes::default();
        check(&new, &old, &mut causes);
        causes.into_vec().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn allowed() {
        assert_eq!(found(|_| {}), [""; 0]);
        assert_eq!(found(|pod| pod["spec"]["containers"][0]["image"] = json!("a:2")), [""; 0]);
        assert_eq!(found(|pod| pod["spec"]["activeDeadlineSeconds"] = json!(50)), [""; 0]);
        assert_eq!(
            found(|pod| pod["spec"]["tolerations"].as_array_mut().unwrap().push(json!({"operator": "Exists"}))),
            [""; 0]
        );
        assert_eq!(found(|pod| pod["spec"]["tolerations"][0]["tolerationSeconds"] = json!(10)), [""; 0]);
    }

    #[test]
    fn refused() {
        let forbidden = format!("spec: Forbidden: {FORBIDDEN}");
        assert_eq!(found(|pod| pod["spec"]["nodeName"] = json!("m")), std::slice::from_ref(&forbidden));
        assert_eq!(found(|pod| pod["spec"]["containers"][0]["args"] = json!(["x"])), [forbidden]);
        assert_eq!(
            found(|pod| pod["spec"]["containers"].as_array_mut().unwrap().push(json!({}))),
            ["spec.containers: Forbidden: pod updates may not add or remove containers"]
        );
        assert_eq!(
            found(|pod| pod["spec"]["activeDeadlineSeconds"] = json!(200)),
            ["spec.activeDeadlineSeconds: Invalid value: 200: must be less than or equal to previous value"]
        );
        assert_eq!(
            found(|pod| pod["spec"]["tolerations"] = json!([])),
            ["spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds"]
        );
    }
}
