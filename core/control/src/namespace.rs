//! Namespaces: their content goes before they do, and each has a default identity and the bundle of the API's authority.

use crate::control::Cx;
use crate::plan::Plan;
use model::cluster::Namespace;
use model::effect::{Body, Change, NewMeta, Propagation, Status, Target};
use model::map::stable_hash;
use model::{Condition, Effect, Key, Kind, condition};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Name of the bundle's ConfigMap.
pub const ROOT_CA: &str = "kube-root-ca.crt";
/// Finalizer in a namespace's spec that stands for its content.
const CONTENT: &str = "kubernetes";
/// Deletions in one look, so that a huge namespace does not fill the executor's queue.
const BATCH: usize = 500;

/// Looks at one namespace that may be on its way out.
pub fn reconcile(cx: &Cx, key: &Key) -> Plan {
    let mut plan = Plan::default();
    let Some(namespace) = cx.world.namespaces.get(key).filter(|namespace| namespace.meta.is_deleting()) else {
        return plan;
    };
    if !namespace.finalizers.iter().any(|finalizer| &**finalizer == CONTENT) {
        return plan;
    }
    // Every kind that is watched has to be known in full: an object that is overlooked would stay for ever.
    let unknown = cx.world.expected.iter().any(|kind| kind.resource().namespaced && !cx.world.is_synced(*kind));
    if unknown {
        plan.look_again(cx.now.plus_ms(1000));
        return plan;
    }
    let left: Vec<&(Kind, Key)> = cx.world.in_namespace(&key.name).collect();
    if left.is_empty() {
        let finalize = Effect::Update(
            Target::exactly(Kind::Namespace, &namespace.meta),
            Change::FinalizeNamespace(namespace.clone()),
        );
        plan.push(finalize);
        return plan;
    }
    let status = terminating_status(cx, namespace, &left);
    if !namespace.terminating || !same(&status, &namespace.conditions) {
        plan.status(Kind::Namespace, &namespace.meta, Status::Namespace { terminating: true, conditions: status });
    }
    // Pods go first and everything else with them; what has finalizers waits for whoever set them.
    for (kind, key) in
        left.into_iter().filter(|(kind, key)| cx.world.meta(*kind, key).is_some_and(|m| !m.is_deleting())).take(BATCH)
    {
        if let Some(meta) = cx.world.meta(*kind, key) {
            plan.delete(*kind, meta, Propagation::Background);
        }
    }
    plan
}

fn same(new: &[Condition], old: &[Condition]) -> bool {
    new.iter().all(|new| {
        condition::find(old, &new.kind)
            .is_some_and(|old| old.status == new.status && old.reason == new.reason && old.message == new.message)
    })
}

/// The conditions as upstream's namespace controller words them.
fn terminating_status(cx: &Cx, namespace: &Namespace, left: &[&(Kind, Key)]) -> Vec<Condition> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut finalizers: BTreeMap<Arc<str>, usize> = BTreeMap::new();
    for (kind, key) in left {
        let resource = kind.resource();
        let name = if resource.group.is_empty() {
            format!("{}.", resource.plural)
        } else {
            format!("{}.{}", resource.plural, resource.group)
        };
        *counts.entry(name).or_default() += 1;
        for finalizer in cx.world.meta(*kind, key).into_iter().flat_map(|meta| &meta.finalizers) {
            *finalizers.entry(finalizer.clone()).or_default() += 1;
        }
    }
    let list = |parts: Vec<String>| parts.join(", ");
    let remaining = list(counts.iter().map(|(name, count)| format!("{name} has {count} resource instances")).collect());
    let held = list(finalizers.iter().map(|(name, count)| format!("{name} in {count} resource instances")).collect());
    let now = cx.now;
    let held = if held.is_empty() {
        Condition::new(
            "NamespaceFinalizersRemaining",
            false,
            "ContentHasNoFinalizers",
            "All content-preserving finalizers finished",
            now,
        )
    } else {
        let text = format!("Some content in the namespace has finalizers remaining: {held}");
        Condition::new("NamespaceFinalizersRemaining", true, "SomeFinalizersRemain", text, now)
    };
    let mut conditions = namespace.conditions.clone();
    for new in [
        Condition::new(
            "NamespaceDeletionDiscoveryFailure",
            false,
            "ResourcesDiscovered",
            "All resources successfully discovered",
            now,
        ),
        Condition::new(
            "NamespaceDeletionGroupVersionParsingFailure",
            false,
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed",
            now,
        ),
        Condition::new(
            "NamespaceDeletionContentFailure",
            false,
            "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization",
            now,
        ),
        Condition::new(
            "NamespaceContentRemaining",
            true,
            "SomeResourcesRemain",
            format!("Some resources are remaining: {remaining}"),
            now,
        ),
        held,
    ] {
        condition::set(&mut conditions, new);
    }
    conditions
}

/// Looks after the default identity of one namespace.
pub fn reconcile_account(cx: &Cx, key: &Key) -> Plan {
    let mut plan = Plan::default();
    let wanted = Key::new(key.name.clone(), "default");
    let alive =
        cx.world.namespaces.get(key).is_some_and(|namespace| !namespace.meta.is_deleting() && !namespace.terminating);
    if alive && cx.world.is_synced(Kind::ServiceAccount) && !cx.world.service_accounts.contains_key(&wanted) {
        plan.create(NewMeta { key: wanted, ..NewMeta::default() }, Body::ServiceAccount);
    }
    plan
}

/// Looks after the bundle in one namespace.
pub fn reconcile_root_ca(cx: &Cx, key: &Key) -> Plan {
    let mut plan = Plan::default();
    let Some(pem) = &cx.config.root_ca else { return plan };
    let wanted = Key::new(key.name.clone(), ROOT_CA);
    let alive =
        cx.world.namespaces.get(key).is_some_and(|namespace| !namespace.meta.is_deleting() && !namespace.terminating);
    if !alive || !cx.world.is_synced(Kind::ConfigMap) {
        return plan;
    }
    match cx.world.config_maps.get(&wanted) {
        None => {
            let note = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the \
                        internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.";
            let annotations = [("kubernetes.io/description".into(), note.into())].into();
            plan.create(NewMeta { key: wanted, annotations, ..NewMeta::default() }, Body::RootCa { pem: pem.clone() });
        }
        Some(map) if map.root_ca != Some(stable_hash(pem.as_bytes())) => {
            plan.update(Kind::ConfigMap, &map.meta, Change::RootCa(pem.clone()));
        }
        Some(_) => {}
    }
    plan
}
