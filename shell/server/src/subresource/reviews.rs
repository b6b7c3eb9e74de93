//! Questions about access, asked as objects that are never stored.

use crate::access::may;
use crate::authn::{by_token, user_info};
use crate::core::Core;
use crate::identity::{Identity, MASTERS};
use crate::ops::{Caller, Target};
use authz::rbac::{self, Rule};
use kube::Status;
use serde_json::{Value, json};
use std::sync::Arc;

/// Answers a review; the body is the question.
///
/// # Errors
/// 400 for a question without a subject.
pub fn review(core: &Core, caller: &Caller, target: &Target, mut body: Value) -> Result<Value, Status> {
    body["status"] = match target.resource.kind() {
        "SelfSubjectReview" => json!({"userInfo": user_info(&caller.identity)}),
        "TokenReview" => token(core, &body["spec"]),
        "SelfSubjectAccessReview" => access(core, &caller.identity, &body["spec"])?,
        "SelfSubjectRulesReview" => rules(core, &caller.identity, &body["spec"]),
        "SubjectAccessReview" => access(core, &subject(&body["spec"])?, &body["spec"])?,
        "LocalSubjectAccessReview" => {
            let namespace = &body["spec"]["resourceAttributes"]["namespace"];
            if namespace != target.namespace.as_str() {
                return Err(Status::bad_request("spec.resourceAttributes.namespace must match metadata.namespace"));
            }
            access(core, &subject(&body["spec"])?, &body["spec"])?
        }
        _ => return Err(Status::no_such_path()),
    };
    if !body["metadata"].is_object() {
        body["metadata"] = json!({});
    }
    body["metadata"]["creationTimestamp"] = kinds::time::seconds(core.now()).into();
    Ok(body)
}

fn token(core: &Core, spec: &Value) -> Value {
    let asked: Vec<String> =
        spec["audiences"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    let audiences = if asked.is_empty() { vec![core.config.issuer.clone()] } else { asked };
    match by_token(core, spec["token"].as_str().unwrap_or_default(), &audiences) {
        Ok(who) => json!({"authenticated": true, "user": user_info(&who), "audiences": audiences}),
        Err(error) => json!({"authenticated": false, "error": error.to_string()}),
    }
}

fn subject(spec: &Value) -> Result<Identity, Status> {
    let user = spec["user"].as_str().unwrap_or_default();
    let groups: Vec<Arc<str>> =
        spec["groups"].as_array().into_iter().flatten().filter_map(Value::as_str).map(Arc::from).collect();
    if user.is_empty() && groups.is_empty() {
        return Err(Status::bad_request("spec.user: Required value: at least one of user or group must be specified"));
    }
    // Exactly the groups that were asked about: whether the user is authenticated is the asker's to say.
    Ok(Identity { name: user.into(), uid: String::new(), groups, extra: Default::default() })
}

fn access(core: &Core, who: &Identity, spec: &Value) -> Result<Value, Status> {
    let resource = &spec["resourceAttributes"];
    let path = &spec["nonResourceAttributes"];
    let text = |value: &'_ Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let decision = match (resource.is_object(), path.is_object()) {
        (true, false) => {
            let (group, plural, sub) =
                (text(resource, "group"), text(resource, "resource"), text(resource, "subresource"));
            let (namespace, name) = (text(resource, "namespace"), text(resource, "name"));
            let target = rbac::Target::Resource {
                group: &group,
                resource: &plural,
                subresource: &sub,
                namespace: &namespace,
                name: &name,
            };
            may(core, who, &text(resource, "verb"), target)
        }
        (false, true) => may(core, who, &text(path, "verb"), rbac::Target::Path(&text(path, "path"))),
        _ => {
            return Err(Status::bad_request(
                "exactly one of nonResourceAttributes or resourceAttributes must be specified",
            ));
        }
    };
    let mut status = json!({"allowed": decision.allowed});
    if !decision.reason.is_empty() {
        status["reason"] = decision.reason.into();
    }
    Ok(status)
}

fn rules(core: &Core, who: &Identity, spec: &Value) -> Value {
    let namespace = spec["namespace"].as_str().unwrap_or_default();
    let policy = core.roles.policy();
    let mut rules: Vec<Rule> = Vec::new();
    if who.is_in(MASTERS) {
        let all = || vec![Arc::from("*")];
        rules.push(Rule { verbs: all(), api_groups: all(), resources: all(), ..Rule::default() });
        rules.push(Rule { verbs: all(), non_resource_urls: all(), ..Rule::default() });
    }
    let caller = rbac::Caller { name: &who.name, groups: &who.groups };
    rules.extend(rbac::rules_for(&policy, caller, namespace).into_iter().cloned());
    let (paths, resources): (Vec<&Rule>, Vec<&Rule>) =
        rules.iter().partition(|rule| !rule.non_resource_urls.is_empty());
    let resources: Vec<Value> = resources
        .into_iter()
        .map(|rule| {
            let mut out = json!({"verbs": rule.verbs.iter().map(|v| &**v).collect::<Vec<_>>()});
            out["apiGroups"] = json!(rule.api_groups.iter().map(|v| &**v).collect::<Vec<_>>());
            out["resources"] = json!(rule.resources.iter().map(|v| &**v).collect::<Vec<_>>());
            if !rule.resource_names.is_empty() {
                out["resourceNames"] = json!(rule.resource_names.iter().map(|v| &**v).collect::<Vec<_>>());
            }
            out
        })
        .collect();
    let paths: Vec<Value> = paths
        .into_iter()
        .map(|rule| {
            json!({
                "verbs": rule.verbs.iter().map(|v| &**v).collect::<Vec<_>>(),
                "nonResourceURLs": rule.non_resource_urls.iter().map(|v| &**v).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false})
}
