//! What a RuntimeClass does to the pods that name it (KEP-585, KEP-688), as functions: the server looks the class up.

use crate::json::{Members, list, members, text};
use model::Quantity;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Why a pod and its class do not go together, in kube-apiserver's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// The pod's overhead is not the class's.
    #[error("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead")]
    Overhead,
    /// A pod says by itself what its runtime costs.
    #[error("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead")]
    OverheadWithoutClass,
    /// Pod and class want different values of a node label.
    #[error("conflict: runtimeClass.scheduling.nodeSelector[{key}] = {class}; pod.spec.nodeSelector[{key}] = {pod}")]
    Selector {
        /// The label's key.
        key: String,
        /// The class's value.
        class: String,
        /// The pod's.
        pod: String,
    },
}

/// Gives a new pod its class's overhead, node selector and tolerations. `class` is the RuntimeClass that the pod names.
///
/// # Errors
/// The pod says otherwise.
pub fn apply(spec: &mut Members, class: Option<&Value>) -> Result<(), Conflict> {
    let overhead = class.map(|class| &class["overhead"]).filter(|overhead| !overhead.is_null());
    let own = spec.get("overhead").filter(|own| !own.is_null());
    match overhead {
        None if own.is_some() => return Err(Conflict::OverheadWithoutClass),
        None => {}
        Some(overhead) => {
            let fixed = &overhead["podFixed"];
            if own.is_some_and(|own| !members(own).is_empty() && amounts(own) != amounts(fixed)) {
                return Err(Conflict::Overhead);
            }
            spec.remove("overhead");
            if !members(fixed).is_empty() {
                spec.insert("overhead".into(), fixed.clone());
            }
        }
    }
    match class.map(|class| &class["scheduling"]).filter(|scheduling| !scheduling.is_null()) {
        Some(scheduling) => schedule(spec, scheduling),
        None => Ok(()),
    }
}

fn schedule(spec: &mut Members, scheduling: &Value) -> Result<(), Conflict> {
    let wanted = members(&scheduling["nodeSelector"]);
    let mut selector: Map<String, Value> = spec.get("nodeSelector").map(members).cloned().unwrap_or_default();
    for (key, class) in wanted {
        if let Some(pod) = selector.get(key).filter(|pod| *pod != class) {
            let (class, pod) = (text(class).to_owned(), text(pod).to_owned());
            return Err(Conflict::Selector { key: key.clone(), class, pod });
        }
        selector.insert(key.clone(), class.clone());
    }
    if !selector.is_empty() {
        spec.insert("nodeSelector".into(), Value::Object(selector));
    }
    let own = spec.get("tolerations").map_or(&[][..], list);
    let merged = merge(own, list(&scheduling["tolerations"]));
    spec.insert("tolerations".into(), Value::Array(merged));
    Ok(())
}

/// Amounts by name, so that `1` and `1000m` are the same.
fn amounts(of: &Value) -> BTreeMap<&str, Option<Quantity>> {
    members(of).iter().map(|(name, amount)| (name.as_str(), Quantity::parse(text(amount)).ok())).collect()
}

/// Both lists without those that another one covers; of equal ones the first stays.
fn merge(first: &[Value], second: &[Value]) -> Vec<Value> {
    let all: Vec<&Value> = first.iter().chain(second).collect();
    let mut merged: Vec<Value> = Vec::new();
    for (at, toleration) in all.iter().enumerate() {
        let covered = merged.iter().any(|kept| covers(kept, toleration))
            || all[at + 1..].iter().any(|later| !equal(later, toleration) && covers(later, toleration));
        if !covered {
            merged.push((*toleration).clone());
        }
    }
    merged
}

fn fields(of: &Value) -> [&str; 4] {
    ["key", "operator", "value", "effect"].map(|field| text(&of[field]))
}

fn equal(a: &Value, b: &Value) -> bool {
    fields(a) == fields(b) && a["tolerationSeconds"] == b["tolerationSeconds"]
}

/// Whether whatever `small` tolerates, `large` does for at least as long. As kube-apiserver compares them: an operator that is not
/// written is not taken for `Equal` in `small`.
fn covers(large: &Value, small: &Value) -> bool {
    if equal(large, small) {
        return true;
    }
    let ([key, operator, value, effect], [its_key, its_operator, its_value, its_effect]) =
        (fields(large), fields(small));
    if key != its_key && !(key.is_empty() && operator == "Exists") || effect != its_effect && !effect.is_empty() {
        return false;
    }
    if effect == "NoExecute"
        && let Some(most) = large["tolerationSeconds"].as_i64()
        && small["tolerationSeconds"].as_i64().is_none_or(|seconds| seconds > most)
    {
        return false;
    }
    match operator {
        "" | "Equal" => its_operator == "Equal" && value == its_value,
        "Exists" => true,
        _ => false,
    }
}

/// Tolerations of a class are a set: the second of two equal ones, by index.
pub(crate) fn repeated(tolerations: &[Value]) -> impl Iterator<Item = usize> + '_ {
    let twin = |at: &usize| tolerations[..*at].iter().any(|other| fields(other) == fields(&tolerations[*at]));
    (0..tolerations.len()).filter(twin)
}

/// The overhead in the form in which resources are checked.
pub(crate) fn as_limits(overhead: &Value) -> Value {
    json!({"limits": overhead})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(mut spec: Value, class: Value) -> Result<Value, String> {
        let class = Some(class).filter(|class| !class.is_null());
        apply(spec.as_object_mut().unwrap(), class.as_ref()).map_err(|conflict| conflict.to_string())?;
        Ok(spec)
    }

    #[test]
    fn overhead() {
        let class = json!({"overhead": {"podFixed": {"cpu": "250m", "memory": "64Mi"}}});
        let got = json!({"overhead": {"cpu": "250m", "memory": "64Mi"}});
        let differs = Err("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead".to_owned());
        let alone =
            Err("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead".to_owned());
        let table = [
            (json!({}), class.clone(), Ok(got.clone())),
            (json!({"overhead": {}}), class.clone(), Ok(got.clone())),
            (json!({"overhead": {"cpu": "0.25", "memory": "65536Ki"}}), class.clone(), Ok(got)),
            (json!({"overhead": {"cpu": "250m"}}), class, differs.clone()),
            (json!({"overhead": {"cpu": "1"}}), json!({"overhead": {}}), differs),
            (json!({}), json!({"overhead": {}}), Ok(json!({}))),
            (json!({"overhead": {"cpu": "1"}}), json!({"handler": "h"}), alone.clone()),
            (json!({"overhead": {}}), Value::Null, alone),
            (json!({}), Value::Null, Ok(json!({}))),
        ];
        for (spec, class, expect) in table {
            assert_eq!(applied(spec.clone(), class.clone()), expect, "{spec} {class}");
        }
    }

    #[test]
    fn node_selector() {
        let class = json!({"scheduling": {"nodeSelector": {"kata": "yes", "arch": "amd64"}}});
        let with = |selector: Value| applied(json!({"nodeSelector": selector}), class.clone());
        let both = json!({"kata": "yes", "arch": "amd64", "disk": "ssd"});
        assert_eq!(applied(json!({}), class.clone()).unwrap()["nodeSelector"], class["scheduling"]["nodeSelector"]);
        assert_eq!(with(json!({"disk": "ssd", "kata": "yes"})).unwrap()["nodeSelector"], both);
        let conflict = "conflict: runtimeClass.scheduling.nodeSelector[kata] = yes; pod.spec.nodeSelector[kata] = no";
        assert_eq!(with(json!({"kata": "no"})), Err(conflict.to_owned()));
    }

    #[test]
    fn tolerations_without_covered_ones() {
        let t = |key: &str, operator: &str, value: &str, effect: &str| json!({"key": key, "operator": operator, "value": value, "effect": effect});
        let (all, any) = (json!({"operator": "Exists"}), t("a", "Exists", "", ""));
        let exact = t("a", "Equal", "1", "NoSchedule");
        let unsaid = t("a", "", "1", "NoSchedule");
        let short = json!({"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5});
        let long = json!({"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 50});
        let table: [(&[&Value], &[&Value], &[&Value]); 9] = [
            (&[], &[], &[]),
            (&[&exact], &[&exact], &[&exact]),
            (&[&exact], &[&any], &[&any]),
            (&[&any], &[&exact], &[&any]),
            (&[&exact, &short], &[&all], &[&all]),
            (&[&short], &[&long], &[&long]),
            (&[&long], &[&short], &[&long]),
            // Not written, it is not known for `Equal`.
            (&[&unsaid], &[&exact], &[&unsaid]),
            (&[&t("b", "Exists", "", "")], &[&any], &[&t("b", "Exists", "", ""), &any]),
        ];
        for (first, second, expect) in table {
            let owned = |of: &[&Value]| of.iter().map(|v| (*v).clone()).collect::<Vec<_>>();
            assert_eq!(merge(&owned(first), &owned(second)), owned(expect), "{first:?} + {second:?}");
        }
    }
}
