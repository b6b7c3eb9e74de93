//! LimitRanger: a namespace's defaults and bounds for containers, pods and claims.

use super::Request;
use kube::Status;
use model::Quantity;
use serde_json::{Map, Value};

fn ranges(request: &Request<'_>) -> Vec<Value> {
    let ranges = request.core.store.list("limitranges", Some(&request.target.namespace), None, None).items;
    ranges.iter().filter_map(|entry| serde_json::from_slice(&entry.record.bytes).ok()).collect()
}

fn items<'a>(ranges: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    let all = ranges.iter().flat_map(|range| range["spec"]["limits"].as_array().into_iter().flatten());
    all.filter(move |item| item["type"] == kind)
}

/// Fills in what containers do not ask for.
pub(super) fn fill(request: &Request<'_>, pod: &mut Value) {
    let ranges = ranges(request);
    for item in items(&ranges, "Container") {
        for list in ["initContainers", "containers"] {
            let containers = pod["spec"][list].as_array_mut().into_iter().flatten();
            for container in containers {
                for (field, default) in [("limits", "default"), ("requests", "defaultRequest")] {
                    let Some(defaults) = item[default].as_object() else { continue };
                    if !container["resources"][field].is_object() {
                        container["resources"][field] = Value::Object(Map::new());
                    }
                    for (name, amount) in defaults {
                        if container["resources"][field][name].is_null() {
                            container["resources"][field][name] = amount.clone();
                        }
                    }
                }
            }
        }
    }
}

/// Refuses what is out of bounds.
///
/// # Errors
/// 403 with all that is.
pub(super) fn check(request: &Request<'_>, object: &Value) -> Result<(), Status> {
    let ranges = ranges(request);
    let mut wrong = Vec::new();
    if request.target.resource.kind() == "Pod" {
        let containers = |list: &str| object["spec"][list].as_array().into_iter().flatten().collect::<Vec<_>>();
        let (main, init) = (containers("containers"), containers("initContainers"));
        for item in items(&ranges, "Container") {
            for container in init.iter().chain(&main) {
                let amount = |field: &str, name: &str| quantity(&container["resources"][field][name]);
                bounds(item, "Container", amount, &mut wrong);
            }
        }
        for item in items(&ranges, "Pod") {
            let amount = |field: &str, name: &str| -> Option<i64> {
                let of = |container: &&Value| quantity(&container["resources"][field][name]);
                let sum: Option<i64> =
                    main.iter().map(of).try_fold(0i64, |sum, milli| Some(sum.saturating_add(milli?)));
                // Init containers run before the others, so the largest of them counts.
                init.iter().filter_map(of).chain(sum).max()
            };
            bounds(item, "Pod", amount, &mut wrong);
        }
    } else {
        for item in items(&ranges, "PersistentVolumeClaim") {
            let amount = |_: &str, name: &str| quantity(&object["spec"]["resources"]["requests"][name]);
            bounds(item, "PersistentVolumeClaim", amount, &mut wrong);
        }
    }
    match wrong.as_slice() {
        [] => Ok(()),
        [only] => Err(request.target.forbidden(only)),
        many => Err(request.target.forbidden(&format!("[{}]", many.join(", ")))),
    }
}

fn quantity(value: &Value) -> Option<i64> {
    Quantity::parse(value.as_str()?).ok().map(Quantity::milli)
}

/// `amount(field, resource)` in thousandths, `field` being `requests` or `limits`.
fn bounds(item: &Value, kind: &str, amount: impl Fn(&str, &str) -> Option<i64>, wrong: &mut Vec<String>) {
    let each = |field: &str| item[field].as_object().into_iter().flatten().collect::<Vec<_>>();
    let upper = if kind == "PersistentVolumeClaim" { ("requests", "request") } else { ("limits", "limit") };
    for (name, bound) in each("min") {
        let (Some(least), shown) = (quantity(bound), bound.as_str().unwrap_or_default()) else { continue };
        match amount("requests", name) {
            None => wrong.push(format!("minimum {name} usage per {kind} is {shown}. No request is specified")),
            Some(asked) if asked < least => {
                wrong.push(format!(
                    "minimum {name} usage per {kind} is {shown}, but request is {}",
                    super::quota::shown(name, asked)
                ));
            }
            Some(_) => {}
        }
    }
    for (name, bound) in each("max") {
        let (Some(most), shown) = (quantity(bound), bound.as_str().unwrap_or_default()) else { continue };
        match amount(upper.0, name) {
            None => wrong.push(format!("maximum {name} usage per {kind} is {shown}. No {} is specified", upper.1)),
            Some(asked) if asked > most => {
                let asked = super::quota::shown(name, asked);
                wrong.push(format!("maximum {name} usage per {kind} is {shown}, but {} is {asked}", upper.1));
            }
            Some(_) => {}
        }
    }
    for (name, bound) in each("maxLimitRequestRatio") {
        let Some(most) = quantity(bound) else { continue };
        if let (Some(limit), Some(asked)) = (amount("limits", name), amount("requests", name))
            && asked > 0
            && limit.saturating_mul(1000) / asked > most
        {
            let (ratio, shown) = (limit as f64 / asked as f64, bound.as_str().unwrap_or_default());
            wrong.push(format!(
                "{name} max limit to request ratio per {kind} is {shown}, but provided ratio is {ratio:.6}"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check_bounds(item: Value, resources: Value, expect: &[&str]) {
        let mut wrong = Vec::new();
        bounds(&item, "Container", |field, name| quantity(&resources[field][name]), &mut wrong);
        assert_eq!(wrong, expect);
    }

    #[test]
    fn words_are_kubernetes_own() {
        let item = json!({"min": {"cpu": "100m"}, "max": {"memory": "1Gi"}, "maxLimitRequestRatio": {"cpu": "2"}});
        let fits = json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "2", "memory": "1Gi"}});
        check_bounds(item.clone(), fits, &[]);
        check_bounds(
            item,
            json!({"requests": {"cpu": "50m"}, "limits": {"cpu": "1", "memory": "2Gi"}}),
            &[
                "minimum cpu usage per Container is 100m, but request is 50m",
                "maximum memory usage per Container is 1Gi, but limit is 2Gi",
                "cpu max limit to request ratio per Container is 2, but provided ratio is 20.000000",
            ],
        );
    }
}
