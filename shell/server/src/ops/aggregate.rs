use super::change::{Made, Part, change};
use super::{Caller, Target, WriteOptions};
use crate::access;
use crate::core::Core;
use crate::in_process;
use authz::rbac::Rule;
use serde_json::{Value, json};

/// Writes the resolved rules of aggregated ClusterRoles into them.
pub async fn aggregate_roles(core: &Core) {
    let builder = access::builder(&core.store);
    let Ok(resource) = core.resource("rbac.authorization.k8s.io", "v1", "clusterroles") else { return };
    let caller =
        Caller { identity: in_process::system_identity(), manager: "clusterrole-aggregation-controller".to_owned() };
    for (name, role) in &builder.cluster_roles {
        if role.aggregation.is_none() {
            continue;
        }
        let rules = builder.resolve(name);
        if rules == role.rules {
            continue;
        }
        let rules: Vec<Value> = rules.iter().map(encode).collect();
        let target = Target { resource: resource.clone(), namespace: String::new(), name: name.to_string() };
        let written = change(core, &caller, &target, Part::Main, WriteOptions::default(), |old| {
            let mut new = old.clone();
            new["rules"] = json!(rules);
            Ok(Made::Object(new))
        });
        if let Err(error) = written.await {
            tracing::warn!(%error, role = &**name, "cannot write the rules of an aggregated ClusterRole");
        }
    }
}

fn encode(rule: &Rule) -> Value {
    let mut out = json!({"verbs": texts(&rule.verbs)});
    for (key, list) in [
        ("apiGroups", &rule.api_groups),
        ("resources", &rule.resources),
        ("resourceNames", &rule.resource_names),
        ("nonResourceURLs", &rule.non_resource_urls),
    ] {
        if !list.is_empty() {
            out[key] = json!(texts(list));
        }
    }
    out
}

fn texts(list: &[std::sync::Arc<str>]) -> Vec<&str> {
    list.iter().map(|text| &**text).collect()
}
