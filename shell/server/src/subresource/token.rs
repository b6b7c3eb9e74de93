use crate::authn::{Binding, TokenRequest, issue_token};
use crate::core::Core;
use crate::ops::{Caller, Target, load};
use kube::{Cause, Status};
use serde_json::{Value, json};

const MIN_S: i64 = 600;
const MAX_S: i64 = 1 << 32;
/// Longer tokens are cut to a day: whoever needs one for longer asks again.
const CAP_S: i64 = 24 * 3600;

/// TokenRequest: a bound token of a ServiceAccount.
pub(super) fn request(core: &Core, caller: &Caller, target: &Target, mut body: Value) -> Result<(u16, Value), Status> {
    let (_, account) = load(core, target)?;
    let asked = body["spec"]["expirationSeconds"].as_i64().unwrap_or(3600);
    if !(MIN_S..=MAX_S).contains(&asked) {
        let detail = if asked < MIN_S {
            "may not specify a duration less than 10 minutes"
        } else {
            "may not specify a duration larger than 2^32 seconds"
        };
        let cause = Cause::invalid("spec.expirationSeconds", &asked.into(), detail);
        return Err(Status::invalid("authentication.k8s.io", "TokenRequest", &target.name, vec![cause]));
    }
    let audiences = body["spec"]["audiences"].as_array().into_iter().flatten();
    let audiences: Vec<String> = audiences.filter_map(Value::as_str).map(str::to_owned).collect();
    let (binding, node) = bound(core, caller, target, &body["spec"]["boundObjectRef"])?;
    let request = TokenRequest {
        namespace: &target.namespace,
        name: &target.name,
        uid: account["metadata"]["uid"].as_str().unwrap_or_default(),
        audiences: audiences.clone(),
        expires_in_s: asked.min(CAP_S),
        binding,
        node,
    };
    let now_s = core.now().secs();
    let (token, ends) = issue_token(core, &request, now_s);
    let until = jiff::Timestamp::from_second(ends).unwrap_or_default().to_string();
    body["apiVersion"] = "authentication.k8s.io/v1".into();
    body["kind"] = "TokenRequest".into();
    body["metadata"] = json!({"name": target.name, "namespace": target.namespace, "creationTimestamp": kinds::time::seconds(core.now())});
    body["spec"]["expirationSeconds"] = asked.min(CAP_S).into();
    body["spec"]["audiences"] = if audiences.is_empty() { json!([core.config.issuer]) } else { json!(audiences) };
    body["status"] = json!({"token": token, "expirationTimestamp": until});
    Ok((201, body))
}

type Bound = (Option<Binding>, Option<(String, String)>);

fn bound(core: &Core, caller: &Caller, target: &Target, reference: &Value) -> Result<Bound, Status> {
    let node_caller = caller.identity.node();
    let refuse = |detail: String| Status::forbidden("", "serviceaccounts", &target.name, &detail);
    if reference.is_null() {
        return match node_caller {
            Some(node) => {
                Err(refuse(format!("node {node:?} may only request tokens that are bound to one of its pods")))
            }
            None => Ok((None, None)),
        };
    }
    let text = |key: &str| reference[key].as_str().unwrap_or_default();
    let (kind, key, namespace) = match text("kind") {
        "Pod" => ("pod", "pods", target.namespace.as_str()),
        "Secret" => ("secret", "secrets", target.namespace.as_str()),
        "Node" => ("node", "nodes", ""),
        other => {
            let cause = Cause::not_supported("spec.boundObjectRef.kind", &other.into(), ["Node", "Pod", "Secret"]);
            return Err(Status::invalid("authentication.k8s.io", "TokenRequest", &target.name, vec![cause]));
        }
    };
    let object = core.read(key, namespace, text("name")).ok_or_else(|| Status::not_found("", key, text("name")))?;
    let uid = object["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
    if !text("uid").is_empty() && text("uid") != uid {
        let detail = format!(
            "the UID in the bound object reference ({}) does not match the UID in record. The object might have been deleted and then recreated",
            text("uid")
        );
        return Err(Status::conflict("", key, text("name"), &detail));
    }
    let mut node = None;
    if kind == "pod" {
        if object["spec"]["serviceAccountName"] != target.name.as_str() {
            return Err(Status::bad_request(format!(
                "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
                target.name
            )));
        }
        let name = object["spec"]["nodeName"].as_str().unwrap_or_default();
        if node_caller.is_some_and(|caller| caller != name) {
            return Err(refuse(format!("the pod {:?} does not run on the node that asks", text("name"))));
        }
        node = core
            .read("nodes", "", name)
            .and_then(|node| Some((name.to_owned(), node["metadata"]["uid"].as_str()?.to_owned())));
    } else if let Some(node) = node_caller {
        return Err(refuse(format!("node {node:?} may only request tokens that are bound to one of its pods")));
    }
    Ok((Some(Binding { kind, name: text("name").to_owned(), uid }), node))
}
