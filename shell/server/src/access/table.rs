//! RBAC objects of the store as one indexed policy, rebuilt when any of them changes.

use crate::core::Core;
use crate::core::stopped;
use arc_swap::ArcSwap;
use authz::rbac::{Binding, ClusterRole, Policy, PolicyBuilder, RoleRef, Rule, Subject};
use model::{Key, Labels};
use serde_json::Value;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use storage::Store;

const GROUP: &str = "rbac.authorization.k8s.io";

/// The current policy.
#[derive(Default)]
pub struct RoleTable {
    policy: ArcSwap<Policy>,
    refreshing: Mutex<()>,
}

impl RoleTable {
    /// From everything that is in the store.
    pub fn load(store: &Store) -> RoleTable {
        RoleTable { policy: ArcSwap::from_pointee(read(store)), refreshing: Mutex::default() }
    }
    /// A snapshot for one request.
    pub fn policy(&self) -> Arc<Policy> {
        self.policy.load_full()
    }
    /// Rebuilds it. Called at once after a write of an RBAC object through this server, so that a client that grants
    /// and then acts is never refused.
    pub fn refresh(&self, store: &Store) {
        // One at a time: of two writes, the one that stores last must not have read first.
        let _turn = self.refreshing.lock().expect("reading roles does not panic");
        self.policy.store(Arc::new(read(store)));
    }
}

/// Whether a change of this resource changes the policy.
pub fn is_rbac(group: &str) -> bool {
    group == GROUP
}

/// Writes the rules of aggregated ClusterRoles back into them, as Kubernetes' aggregation controller does, for people who read them.
/// Decisions do not wait for it. Runs until shutdown.
pub async fn follow(core: Arc<Core>) {
    let mut shutdown = core.shutdown.clone();
    loop {
        let from = core.store.revision();
        crate::ops::aggregate_roles(&core).await;
        let Ok(mut watch) = core.store.watch(&format!("{GROUP}/clusterroles"), None, from) else { continue };
        tokio::select! {
            changed = watch.next() => if changed.is_none() { return },
            () = stopped(&mut shutdown) => return,
        }
        // Helm and kubectl apply write many roles in a row.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn read(store: &Store) -> Policy {
    builder(store).build()
}

/// Everything that a policy is made from.
pub fn builder(store: &Store) -> PolicyBuilder {
    let mut builder = PolicyBuilder::default();
    each(store, "clusterroles", |object| {
        let name = Arc::from(text(&object["metadata"]["name"]));
        let aggregation = object["aggregationRule"]["clusterRoleSelectors"]
            .as_array()
            .map(|selectors| selectors.iter().map(kinds::selector::from_object).collect());
        let labels = parse_labels(&object["metadata"]["labels"]);
        builder.cluster_roles.insert(name, ClusterRole { labels, rules: parse_rules(&object["rules"]), aggregation });
    });
    each(store, "roles", |object| drop(builder.roles.insert(key(object), parse_rules(&object["rules"]))));
    for plural in ["clusterrolebindings", "rolebindings"] {
        each(store, plural, |object| {
            let subjects = list(&object["subjects"]).iter().filter_map(parse_subject).collect();
            let role = RoleRef {
                cluster: object["roleRef"]["kind"] == "ClusterRole",
                name: text(&object["roleRef"]["name"]).into(),
            };
            builder.bindings.push(Binding { key: key(object), subjects, role });
        });
    }
    builder
}

fn each(store: &Store, plural: &str, mut take: impl FnMut(&Value)) {
    for entry in store.list(&format!("{GROUP}/{plural}"), None, None, None).items {
        match serde_json::from_slice(&entry.record.bytes) {
            Ok(object) => take(&object),
            Err(error) => tracing::error!(%error, plural, name = &*entry.name, "a stored object is not JSON"),
        }
    }
}

fn key(object: &Value) -> Key {
    let meta = &object["metadata"];
    Key::new(text(&meta["namespace"]), text(&meta["name"]))
}

/// A `rules` list. What is malformed grants nothing.
pub fn parse_rules(rules: &Value) -> Vec<Rule> {
    let texts = |value: &Value| list(value).iter().filter_map(Value::as_str).map(Arc::from).collect();
    let rule = |rule: &Value| Rule {
        verbs: texts(&rule["verbs"]),
        api_groups: texts(&rule["apiGroups"]),
        resources: texts(&rule["resources"]),
        resource_names: texts(&rule["resourceNames"]),
        non_resource_urls: texts(&rule["nonResourceURLs"]),
    };
    list(rules).iter().map(rule).collect()
}

fn parse_subject(subject: &Value) -> Option<Subject> {
    let name = subject["name"].as_str()?.into();
    match text(&subject["kind"]) {
        "User" => Some(Subject::User(name)),
        "Group" => Some(Subject::Group(name)),
        "ServiceAccount" => Some(Subject::ServiceAccount { namespace: text(&subject["namespace"]).into(), name }),
        _ => None,
    }
}

fn parse_labels(labels: &Value) -> Labels {
    let pairs = labels.as_object().into_iter().flatten();
    pairs.filter_map(|(key, value)| Some((key.as_str().into(), value.as_str()?.into()))).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
