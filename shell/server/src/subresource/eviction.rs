//! Evictions: deletions that a PodDisruptionBudget may refuse.

use crate::core::Core;
use crate::in_process::system_caller;
use crate::ops::{Caller, DeleteOptions, Made, Part, Target, WriteOptions, change, delete, load};
use kube::{Cause, Status};
use model::Labels;
use serde_json::{Value, json};

const BUDGETS: &str = "policy/poddisruptionbudgets";
/// A budget that remembers more pods than this is one whose controller is not running.
const MAX_DISRUPTED: usize = 2000;

pub(super) async fn evict(
    core: &Core,
    caller: &Caller,
    target: &Target,
    body: &Value,
    options: WriteOptions,
) -> Result<(u16, Value), Status> {
    let mut deletion = DeleteOptions::from_value(&body["deleteOptions"])?;
    deletion.dry_run |= options.dry_run;
    // One at a time: two evictions must not both spend a budget's last disruption.
    let _turn = core.eviction.lock().await;
    let (_, pod) = load(core, target)?;
    if needs_no_budget(&pod) {
        delete(core, caller, target, &deletion).await?;
        return Ok(done());
    }
    let budgets = budgets_of(core, target, &pod);
    match budgets.as_slice() {
        [] => {}
        [budget] => {
            if let Some(uid) = spend(core, target, budget, &pod, deletion.dry_run).await? {
                deletion.uid.get_or_insert(uid);
            }
        }
        _ => {
            return Err(Status::internal(
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
            ));
        }
    }
    delete(core, caller, target, &deletion).await?;
    Ok(done())
}

fn done() -> (u16, Value) {
    (201, json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}))
}

/// Pods that serve nobody can go at any time.
fn needs_no_budget(pod: &Value) -> bool {
    let phase = pod["status"]["phase"].as_str().unwrap_or("Pending");
    matches!(phase, "Succeeded" | "Failed" | "Pending") || !pod["metadata"]["deletionTimestamp"].is_null()
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|one| one["type"] == "Ready" && one["status"] == "True")
}

fn budgets_of(core: &Core, target: &Target, pod: &Value) -> Vec<Value> {
    let labels: Labels = pod["metadata"]["labels"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.as_str().into(), value.as_str()?.into())))
        .collect();
    let all = core.store.list(BUDGETS, Some(&target.namespace), None, None).items;
    let budgets = all.iter().filter_map(|entry| serde_json::from_slice::<Value>(&entry.record.bytes).ok());
    budgets
        .filter(|budget| {
            let selector = &budget["spec"]["selector"];
            !selector.is_null() && kinds::selector::from_object(selector).matches(&labels)
        })
        .collect()
}

/// Takes one disruption from the budget. Gives the pod's uid when the deletion must be of exactly this pod.
async fn spend(
    core: &Core,
    target: &Target,
    budget: &Value,
    pod: &Value,
    dry_run: bool,
) -> Result<Option<String>, Status> {
    let name = budget["metadata"]["name"].as_str().unwrap_or_default();
    let status = &budget["status"];
    let uid = pod["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
    if !is_ready(pod) {
        let always = budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow";
        let enough = status["currentHealthy"].as_i64() >= status["desiredHealthy"].as_i64()
            && status["desiredHealthy"].as_i64().unwrap_or(0) > 0;
        if always || enough {
            return Ok(Some(uid));
        }
    }
    let refused = |detail: String| {
        let message = "Cannot evict pod as it would violate the pod's disruption budget.";
        Status::too_many_requests(message, 0).with_cause(Cause {
            reason: "DisruptionBudget",
            field: String::new(),
            message: detail,
        })
    };
    let stale = budget["metadata"]["generation"].as_i64() > status["observedGeneration"].as_i64().or(Some(0));
    if stale {
        let mut status = refused(format!("The disruption budget {name} is still being processed by the server."));
        status.details.retry_after_s = 10;
        return Err(status);
    }
    if status["disruptionsAllowed"].as_i64().unwrap_or(0) <= 0 {
        return Err(refused(format!(
            "The disruption budget {name} needs {} healthy pods and has {} currently",
            status["desiredHealthy"].as_i64().unwrap_or(0),
            status["currentHealthy"].as_i64().unwrap_or(0),
        )));
    }
    if status["disruptedPods"].as_object().is_some_and(|pods| pods.len() > MAX_DISRUPTED) {
        return Err(Status::forbidden(
            "policy",
            "poddisruptionbudgets",
            name,
            "DisruptedPods map too big - too many evictions not confirmed by PDB controller",
        ));
    }
    let resource = core.resource("policy", "v1", "poddisruptionbudgets")?;
    let of = Target { resource, namespace: target.namespace.clone(), name: name.to_owned() };
    let now = kinds::time::seconds(core.now());
    let caller = system_caller("eviction");
    let options = WriteOptions { dry_run, force: false };
    change(core, &caller, &of, Part::Status, options, |old| {
        let allowed = old["status"]["disruptionsAllowed"].as_i64().unwrap_or(0);
        if allowed <= 0 {
            return Err(refused(format!("The disruption budget {name} allows no disruption at the moment")));
        }
        let mut new = old.clone();
        new["status"]["disruptionsAllowed"] = (allowed - 1).into();
        new["status"]["disruptedPods"][&target.name] = now.clone().into();
        Ok(Made::Object(new))
    })
    .await?;
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_needs_no_budget() {
        assert!(needs_no_budget(&json!({"status": {"phase": "Succeeded"}})));
        assert!(!needs_no_budget(&json!({"status": {"phase": "Running"}})));
        assert!(needs_no_budget(&json!({"status": {"phase": "Running"}, "metadata": {"deletionTimestamp": "x"}})));
    }
}
