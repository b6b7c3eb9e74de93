//! ServiceAccount, Priority, DefaultTolerationSeconds, RuntimeClass, LimitRanger's defaults.

use super::Request;
use crate::core::random_suffix;
use kinds::pod::admission as pods;
use kube::Status;
use serde_json::{Map, Value};

pub(super) fn complete(request: &Request<'_>, object: &mut Value) -> Result<(), Status> {
    let mirror = pods::is_mirror(object);
    let Some(spec) = object["spec"].as_object_mut() else { return Ok(()) };
    pods::tolerate_node_trouble(spec);
    priority(request, spec)?;
    if !mirror {
        service_account(request, spec)?;
    }
    runtime_class(request, spec)
}

fn priority(request: &Request<'_>, spec: &mut Map<String, Value>) -> Result<(), Status> {
    let core = request.core;
    let named = spec.get("priorityClassName").and_then(Value::as_str).unwrap_or_default().to_owned();
    let class = if named.is_empty() {
        let all = core.store.list("scheduling.k8s.io/priorityclasses", None, None, None).items;
        // Every pod comes by here and hardly any class is a default: the text says which ones are worth decoding.
        let marked = all
            .iter()
            .map(|entry| &entry.record.bytes)
            .filter(|bytes| std::str::from_utf8(bytes).is_ok_and(|text| text.contains("\"globalDefault\":true")));
        let classes = marked.filter_map(|bytes| serde_json::from_slice::<Value>(bytes).ok());
        // Of several global defaults the lowest value counts, as in Kubernetes.
        classes.filter(|class| class["globalDefault"] == true).min_by_key(|class| class["value"].as_i64())
    } else {
        let class = core.read("scheduling.k8s.io/priorityclasses", "", &named);
        let missing = || request.target.forbidden(&format!("no PriorityClass with name {named} was found"));
        Some(class.ok_or_else(missing)?)
    };
    let asked = spec.get("priority").and_then(Value::as_i64);
    let computed = class.as_ref().map_or(0, |class| class["value"].as_i64().unwrap_or(0));
    if asked.is_some_and(|asked| asked != computed) {
        return Err(request.target.forbidden(
            "the integer value of priority must not be provided in pod spec; priority admission controller computes the value from the \
             given PriorityClass name",
        ));
    }
    pods::set_priority(spec, class.as_ref());
    Ok(())
}

fn runtime_class(request: &Request<'_>, spec: &mut Map<String, Value>) -> Result<(), Status> {
    let refuse = |why: &str| request.target.forbidden(why);
    let class = match spec.get("runtimeClassName").and_then(Value::as_str) {
        None => None,
        Some(name) => {
            let class = request.core.read("node.k8s.io/runtimeclasses", "", name);
            Some(class.ok_or_else(|| refuse(&format!("pod rejected: RuntimeClass {name:?} not found")))?)
        }
    };
    kinds::pod::runtime_class::apply(spec, class.as_ref()).map_err(|conflict| refuse(&conflict.to_string()))
}

fn service_account(request: &Request<'_>, spec: &mut Map<String, Value>) -> Result<(), Status> {
    let text = |key: &str| spec.get(key).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned);
    let name = text("serviceAccountName").or_else(|| text("serviceAccount")).unwrap_or_else(|| "default".to_owned());
    let namespace = &request.target.namespace;
    let Some(account) = request.core.read("serviceaccounts", namespace, &name) else {
        let detail = format!("error looking up service account {namespace}/{name}: serviceaccount {name:?} not found");
        return Err(request.target.forbidden(&detail));
    };
    pods::use_service_account(spec, &account, &random_suffix(5));
    Ok(())
}
