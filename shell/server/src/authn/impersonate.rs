//! Acting as somebody else (`kubectl --as`), for those who may.

use crate::access::may;
use crate::core::Core;
use crate::identity::{AUTHENTICATED, Identity, UNAUTHENTICATED};
use authz::rbac::Target;
use http::{HeaderMap, HeaderName};
use kube::Status;
use std::collections::BTreeMap;
use std::sync::Arc;

const EXTRA: &str = "impersonate-extra-";

/// Who the request is to be seen as.
///
/// # Errors
/// 403 for each thing that the sender may not impersonate; 400 for groups without a user.
pub fn impersonated(core: &Core, who: Identity, headers: &HeaderMap) -> Result<Identity, Status> {
    let text =
        |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let user = text(&HeaderName::from_static("impersonate-user"));
    let uid = text(&HeaderName::from_static("impersonate-uid"));
    let groups: Vec<Arc<str>> =
        headers.get_all("impersonate-group").iter().filter_map(|value| value.to_str().ok()).map(Arc::from).collect();
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in headers {
        if let (Some(key), Ok(value)) = (name.as_str().strip_prefix(EXTRA), value.to_str()) {
            extra.entry(crate::request::percent_decode(key)).or_default().push(value.to_owned());
        }
    }
    if user.is_empty() {
        if groups.is_empty() && uid.is_empty() && extra.is_empty() {
            return Ok(who);
        }
        return Err(Status::bad_request(
            "requested impersonation of groups, a uid or extra values without impersonating a user",
        ));
    }
    let account = service_account(&user);
    match account {
        Some((namespace, name)) => check(core, &who, ("", "serviceaccounts", ""), namespace, name)?,
        None => check(core, &who, ("", "users", ""), "", &user)?,
    }
    for group in &groups {
        check(core, &who, ("", "groups", ""), "", group)?;
    }
    if !uid.is_empty() {
        check(core, &who, ("authentication.k8s.io", "uids", ""), "", &uid)?;
    }
    for (key, values) in &extra {
        for value in values {
            check(core, &who, ("authentication.k8s.io", "userextras", key), "", value)?;
        }
    }
    let mut seen = groups;
    if let (Some((namespace, _)), true) = (account, seen.is_empty()) {
        seen = vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}").into()];
    }
    let known = |list: &[Arc<str>]| list.iter().any(|group| matches!(&**group, AUTHENTICATED | UNAUTHENTICATED));
    if !known(&seen) {
        seen.push(if user == "system:anonymous" { UNAUTHENTICATED } else { AUTHENTICATED }.into());
    }
    Ok(Identity { name: user.into(), uid, groups: seen, extra })
}

fn service_account(user: &str) -> Option<(&str, &str)> {
    user.strip_prefix("system:serviceaccount:")?.split_once(':')
}

fn check(
    core: &Core,
    who: &Identity,
    (group, resource, subresource): (&str, &str, &str),
    namespace: &str,
    name: &str,
) -> Result<(), Status> {
    let target = Target::Resource { group, resource, subresource, namespace, name };
    if may(core, who, "impersonate", target).allowed {
        return Ok(());
    }
    let place = if namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace {namespace:?}")
    };
    let detail =
        format!("User {:?} cannot impersonate resource {resource:?} in API group {group:?} {place}", &*who.name);
    Err(Status::forbidden(group, resource, name, &detail))
}
