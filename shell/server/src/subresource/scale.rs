//! `autoscaling/v1` Scale: the number of replicas of anything that has one.

use crate::core::Core;
use crate::form::{self, FieldValidation};
use crate::ops::{self, Caller, Made, Part, PatchKind, Target, WriteOptions, Written, change, load};
use kube::codec::{Format, Kind};
use kube::{Cause, Status};
use serde_json::{Value, json};

/// Where the numbers are.
struct Places {
    spec: Vec<String>,
    status: Vec<String>,
    selector: Option<Vec<String>>,
}

fn places(target: &Target) -> Places {
    let keys = |path: &str| path.split('.').map(str::to_owned).collect();
    match target.resource.custom().and_then(|custom| custom.scale()) {
        Some(paths) => Places {
            spec: paths.spec_replicas.clone(),
            status: paths.status_replicas.clone(),
            selector: paths.label_selector.clone(),
        },
        None => Places { spec: keys("spec.replicas"), status: keys("status.replicas"), selector: None },
    }
}

fn at<'a>(object: &'a Value, path: &[String]) -> &'a Value {
    path.iter().fold(object, |value, key| &value[key])
}

fn put(object: &mut Value, path: &[String], value: Value) {
    let Some((last, parents)) = path.split_last() else { return };
    let mut cursor = object;
    for key in parents {
        if !cursor[key].is_object() {
            cursor[key] = json!({});
        }
        cursor = &mut cursor[key];
    }
    cursor[last] = value;
}

/// The Scale of an object.
pub fn scale_of(target: &Target, object: &Value) -> Value {
    let places = places(target);
    let meta = &object["metadata"];
    let mut scale = json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {
            "name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"],
            "resourceVersion": meta["resourceVersion"], "creationTimestamp": meta["creationTimestamp"],
        },
        "spec": {},
        "status": {"replicas": at(object, &places.status).as_i64().unwrap_or(0)},
    });
    // Go's zero is left out, and read back as zero.
    if let Some(replicas) = at(object, &places.spec).as_i64() {
        scale["spec"]["replicas"] = replicas.into();
    }
    let selector = match &places.selector {
        Some(path) => at(object, path).as_str().unwrap_or_default().to_owned(),
        // The oldest kind's selector is a map of labels.
        None if target.resource.plural() == "replicationcontrollers" => {
            selector_text(&json!({"matchLabels": object["spec"]["selector"]}))
        }
        None if target.resource.is_kubernetes_own() => selector_text(&object["spec"]["selector"]),
        None => String::new(),
    };
    if !selector.is_empty() {
        scale["status"]["selector"] = selector.into();
    }
    scale
}

/// A LabelSelector as text.
fn selector_text(selector: &Value) -> String {
    let mut terms: Vec<String> = Vec::new();
    let labels = selector["matchLabels"].as_object().into_iter().flatten();
    terms.extend(labels.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())));
    for one in selector["matchExpressions"].as_array().into_iter().flatten() {
        let key = one["key"].as_str().unwrap_or_default();
        let values: Vec<&str> = one["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        terms.push(match one["operator"].as_str().unwrap_or_default() {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        });
    }
    terms.sort();
    terms.join(",")
}

fn kind() -> Result<Kind<'static>, Status> {
    Kind::builtin("autoscaling", "v1", "Scale").ok_or_else(|| Status::internal("the Scale kind has no schema"))
}

pub(super) async fn update(
    core: &Core,
    caller: &Caller,
    target: &Target,
    format: Format,
    body: &[u8],
    options: WriteOptions,
) -> Result<Written, Status> {
    let (scale, _) = form::decode(&kind()?, format, body, FieldValidation::Ignore)?;
    let name = scale["metadata"]["name"].as_str().unwrap_or_default();
    if name != target.name {
        return Err(Status::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            target.name
        )));
    }
    set(core, caller, target, options, |_| Ok(scale.clone())).await
}

pub(super) async fn patch(
    core: &Core,
    caller: &Caller,
    target: &Target,
    patch_kind: PatchKind,
    body: &[u8],
    options: WriteOptions,
) -> Result<Written, Status> {
    let kind = kind()?;
    set(core, caller, target, options, |old| {
        let scale = ops::apply_patch(&kind, patch_kind, scale_of(target, old), body)?;
        let (mut scale, _) = form::conform(&kind, scale, FieldValidation::Ignore)?;
        ops::unpin(&mut scale, old);
        Ok(scale)
    })
    .await
}

async fn set<F>(
    core: &Core,
    caller: &Caller,
    target: &Target,
    options: WriteOptions,
    make: F,
) -> Result<Written, Status>
where
    F: Fn(&Value) -> Result<Value, Status>,
{
    let places = places(target);
    let mut written = change(core, caller, target, Part::Through("scale"), options, |old| {
        let scale = make(old)?;
        let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
        if replicas < 0 {
            let cause = Cause::invalid("spec.replicas", &replicas.into(), "must be greater than or equal to 0");
            return Err(Status::invalid("autoscaling", "Scale", &target.name, vec![cause]));
        }
        let mut new = old.clone();
        put(&mut new, &places.spec, replicas.into());
        new["metadata"]["resourceVersion"] = scale["metadata"]["resourceVersion"].clone();
        Ok(Made::Object(new))
    })
    .await?;
    let object: Value = serde_json::from_slice(&written.object).map_err(Status::internal)?;
    written.object = serde_json::to_vec(&scale_of(target, &object)).map_err(Status::internal)?.into();
    Ok(written)
}

/// The Scale of a stored object.
///
/// # Errors
/// 404.
pub fn get(core: &Core, target: &Target) -> Result<Value, Status> {
    let (_, object) = load(core, target)?;
    Ok(scale_of(target, &object))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_as_text() {
        let selector = json!({"matchLabels": {"b": "2", "a": "1"}, "matchExpressions": [{"key": "c", "operator": "In", "values": ["x", "y"]}]});
        assert_eq!(selector_text(&selector), "a=1,b=2,c in (x,y)");
    }

    #[test]
    fn paths() {
        let mut object = json!({});
        let path = ["spec".to_owned(), "size".to_owned()];
        put(&mut object, &path, 3.into());
        assert_eq!((at(&object, &path).as_i64(), &object), (Some(3), &json!({"spec": {"size": 3}})));
    }
}
