//! Statuses of classes, gateways and routes: written when what they should say differs from what they say.

use super::core::Core;
use bytes::Bytes;
use client::{PatchKind, Resource};
use model::Key;
use model::mesh::api::ObjectKind;
use project::mesh::{ConditionParts, ListenerParts, Stamp};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use traffic::Output;
use traffic::compile::status::{
    ClassStatus, Condition, GatewayStatus, IstioStatus, ListenerStatus, RouteStatus, SetStatus, TlsPolicyStatus,
};

/// After a failed write.
const RETRY: Duration = Duration::from_millis(500);

/// What an object's status should be.
#[derive(Clone, Debug)]
enum Wanted {
    Class(ClassStatus),
    Gateway(GatewayStatus),
    Set(SetStatus),
    TlsPolicy(TlsPolicyStatus),
    Route(RouteStatus),
    Istio(IstioStatus),
}

type Id = (ObjectKind, Key);

/// Objects as they were last seen, and what their status should say.
#[derive(Default)]
pub struct Pending {
    state: Mutex<State>,
    notify: Notify,
}

#[derive(Default)]
struct State {
    seen: BTreeMap<Id, Bytes>,
    wanted: BTreeMap<Id, Wanted>,
    /// To be looked at.
    due: BTreeSet<Id>,
}

impl Pending {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An object came or changed: somebody else may have written its status.
    pub fn observe(&self, kind: ObjectKind, key: &Key, bytes: Bytes) {
        let mut state = self.lock();
        let id = (kind, key.clone());
        if state.wanted.contains_key(&id) {
            state.due.insert(id.clone());
            self.notify.notify_one();
        }
        state.seen.insert(id, bytes);
    }

    /// An object is gone.
    pub fn forget(&self, kind: ObjectKind, key: &Key) {
        let mut state = self.lock();
        let id = (kind, key.clone());
        state.seen.remove(&id);
        state.wanted.remove(&id);
        state.due.remove(&id);
    }

    /// What compiling decided.
    pub fn decide(&self, output: Output) {
        let classes = output.classes.into_iter().map(|(key, it)| ((ObjectKind::GatewayClass, key), Wanted::Class(it)));
        let gateways = output.gateways.into_iter().map(|(key, it)| ((ObjectKind::Gateway, key), Wanted::Gateway(it)));
        let routes =
            output.routes.into_iter().map(|((kind, key), it)| ((ObjectKind::Route(kind), key), Wanted::Route(it)));
        let istio = output.istio.into_iter().map(|(id, it)| (id, Wanted::Istio(it)));
        let sets = output.sets.into_iter().map(|(key, it)| ((ObjectKind::ListenerSet, key), Wanted::Set(it)));
        let policies = output.tls_policies.into_iter();
        let policies = policies.map(|(key, it)| ((ObjectKind::BackendTlsPolicy, key), Wanted::TlsPolicy(it)));
        let mut state = self.lock();
        for (id, wanted) in classes.chain(gateways).chain(sets).chain(policies).chain(routes).chain(istio) {
            state.wanted.insert(id.clone(), wanted);
            state.due.insert(id);
        }
        if !state.due.is_empty() {
            self.notify.notify_one();
        }
    }

    fn next(&self) -> Option<(Id, Wanted, Bytes)> {
        let mut state = self.lock();
        while let Some(id) = state.due.pop_first() {
            if let (Some(wanted), Some(seen)) = (state.wanted.get(&id), state.seen.get(&id)) {
                return Some((id.clone(), wanted.clone(), seen.clone()));
            }
        }
        None
    }

    fn again(&self, id: Id) {
        self.lock().due.insert(id);
    }
}

/// Writes statuses, one after the other. The class of our own is made first.
pub async fn run(core: Arc<Core>) {
    core.ready().await;
    make_class(&core).await;
    super::xmesh::make(&core).await;
    loop {
        core.statuses.notify.notified().await;
        while let Some((id, wanted, seen)) = core.statuses.next() {
            if !write(&core, &id, &wanted, &seen).await {
                core.statuses.again(id);
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// A cluster without a class of ours could not use gateways at all. Somebody who deletes it gets it back at the next start.
async fn make_class(core: &Core) {
    let class = json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "GatewayClass",
        "metadata": { "name": "diolkos" },
        "spec": { "controllerName": &*traffic::Settings::default().controller_name },
    });
    let of = resource(ObjectKind::GatewayClass);
    for _ in 0..20 {
        match core.api.create(of, "", None, Bytes::from(class.to_string())).await {
            Ok(_) => return,
            Err(error) if error.is_conflict() => return,
            Err(error) => {
                tracing::debug!(%error, "mesh: GatewayClass diolkos cannot be made yet");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
    tracing::warn!("mesh: GatewayClass diolkos could not be made; gateways need a class of our controller");
}

/// Whether it is done (or need not be tried again).
async fn write(core: &Core, (kind, key): &Id, wanted: &Wanted, seen: &Bytes) -> bool {
    let Ok(object) = serde_json::from_slice::<Value>(seen) else { return true };
    if let Wanted::Gateway(gateway) = wanted
        && !super::accounts::keep(core, key, &object, &gateway.account).await
    {
        return false;
    }
    let now = jiff::Timestamp::from_second(super::core::now().as_secs() as i64).unwrap_or_default().to_string();
    let Some(status) = render(&object, wanted, &now) else { return true };
    // Only the status is sent: what others change meanwhile in the spec is theirs. Lists are replaced whole, so a stale view of
    // another controller's entries must be refused: the revision is a precondition.
    let revision = object.pointer("/metadata/resourceVersion").cloned().unwrap_or(Value::Null);
    let body = json!({ "metadata": { "resourceVersion": revision }, "status": status });
    let patch = core.api.patch(
        resource(*kind),
        &key.namespace,
        &key.name,
        Some("status"),
        PatchKind::Merge,
        Bytes::from(body.to_string()),
    );
    match patch.await {
        Ok(_) => true,
        // Gone, or changed since: the watch brings the new one, which is looked at again.
        Err(error) if error.is_not_found() || error.is_conflict() => true,
        Err(error) if error.is_transient() => false,
        Err(error) => {
            tracing::warn!(?kind, %key, %error, "mesh: status cannot be written");
            true
        }
    }
}

fn render(object: &Value, wanted: &Wanted, now: &str) -> Option<Value> {
    match wanted {
        Wanted::Class(class) => {
            let stamp = Stamp { generation: class.generation, now };
            project::mesh::class_status(object, stamp, &parts(&class.conditions), class.features)
        }
        Wanted::Gateway(gateway) => {
            let stamp = Stamp { generation: gateway.generation, now };
            let listeners = listener_parts(&gateway.listeners);
            let conditions = parts(&gateway.conditions);
            let sets = gateway.attached_sets;
            project::mesh::gateway_status(object, stamp, &conditions, &gateway.addresses, &listeners, sets)
        }
        Wanted::Set(set) => {
            let stamp = Stamp { generation: set.generation, now };
            let listeners = listener_parts(&set.listeners);
            project::mesh::listener_set_status(object, stamp, &parts(&set.conditions), &listeners)
        }
        Wanted::TlsPolicy(policy) => {
            let stamp = Stamp { generation: policy.generation, now };
            let gateways: Vec<_> = policy.ancestors.iter().map(|it| (&it.gateway, parts(&it.conditions))).collect();
            let controller = traffic::Settings::default().controller_name;
            project::mesh::policy_status(object, stamp, &controller, &gateways)
        }
        Wanted::Route(route) => {
            let stamp = Stamp { generation: route.generation, now };
            let parents: Vec<_> = route.parents.iter().map(|it| (&it.parent, parts(&it.conditions))).collect();
            let controller = traffic::Settings::default().controller_name;
            project::mesh::route_status(object, stamp, &controller, &parents)
        }
        Wanted::Istio(it) => {
            let stamp = Stamp { generation: it.generation, now };
            project::mesh::istio_status(object, stamp, &parts(&it.conditions))
        }
    }
}

fn listener_parts(listeners: &[ListenerStatus]) -> Vec<ListenerParts<'_>> {
    listeners.iter().map(|it| (&*it.name, &it.kinds[..], it.attached, parts(&it.conditions))).collect()
}

fn parts(conditions: &[Condition]) -> Vec<ConditionParts<'_>> {
    conditions.iter().map(|it| (it.kind, it.holds, it.reason, it.message.as_str())).collect()
}

/// The API resource of a kind.
pub fn resource(kind: ObjectKind) -> Resource {
    let (group, version, plural, _) = project::mesh::RESOURCES
        .iter()
        .find(|(.., of)| *of == kind)
        .copied()
        .unwrap_or(("gateway.networking.k8s.io", "v1", "udproutes", kind));
    Resource { group, version, plural }
}
