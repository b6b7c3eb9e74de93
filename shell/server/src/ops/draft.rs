use super::{Target, refused};
use crate::admission::QuotaPlace;
use crate::core::Core;
use crate::follow_up;
use crate::services::Holds;
use kube::Status;
use serde_json::Value;
use storage::{Draft, Durability, Edit, Expect, Record, Write};

/// Encodes an object with a gap for the store's revision.
fn draft(core: &Core, object: &mut Value) -> Result<Draft, Status> {
    object["metadata"]["resourceVersion"] = core.marker.clone().into();
    let text = serde_json::to_string(object).map_err(Status::internal)?;
    let (prefix, suffix) =
        text.split_once(core.marker.as_str()).ok_or_else(|| Status::internal("the revision's place was lost"))?;
    Ok(Draft::new(prefix, suffix))
}

/// What is done with the object.
pub enum Fate {
    /// Stored.
    Put,
    /// Taken out; the object is the last state that watchers see.
    Delete,
}

/// Commits an object, or only renders it for a dry run (at the revision that it had).
///
/// # Errors
/// The store's refusal, in the API's words. A stale write is [`Status::modified`].
pub async fn commit(
    core: &Core,
    target: &Target,
    object: &mut Value,
    expect: Expect,
    fate: Fate,
    dry_run: bool,
    held: Held,
) -> Result<Record, Status> {
    if dry_run {
        return render(target, object, expect, core);
    }
    let draft = draft(core, object)?;
    let edit = match fate {
        Fate::Put => Edit::Put(draft),
        Fate::Delete => Edit::Delete(draft),
    };
    // Losing the last seconds of these in a power failure costs nothing: leases are renewed, events are hints.
    let relaxed = matches!(target.key(), "events" | "coordination.k8s.io/leases");
    let write = Write {
        resource: target.key().into(),
        namespace: target.namespace.as_str().into(),
        name: target.name.as_str().into(),
        expect,
        edit,
        durability: if relaxed { Durability::Relaxed } else { Durability::Synced },
    };
    let Some(shared) = core.me.upgrade().filter(|_| held.matters() || follow_up::is_owed(target)) else {
        return core.store.commit(write).await.map_err(|error| refused(error, target));
    };
    // A client that hangs up cancels its request, but not a commit that is on its way. What has to follow the commit therefore runs in
    // a task of its own: a role table or an address that missed a stored write would stay wrong.
    let about = target.clone();
    let task = tokio::spawn(async move {
        let record = shared.store.commit(write).await.map_err(|error| refused(error, &about))?;
        follow_up::after_write(&shared, &about);
        held.keep();
        Ok(record)
    });
    task.await.map_err(Status::internal)?
}

/// What admission took for a write: given back if the write is refused, kept if it is stored.
#[derive(Default)]
pub struct Held {
    /// Addresses and ports.
    pub allocations: Holds,
    /// Room in the namespace's quotas.
    pub quota: Option<QuotaPlace>,
}

impl Held {
    fn matters(&self) -> bool {
        self.quota.is_some() || !self.allocations.is_empty()
    }
    fn keep(self) {
        self.allocations.keep();
    }
}

fn render(target: &Target, object: &mut Value, expect: Expect, core: &Core) -> Result<Record, Status> {
    let revision = match expect {
        Expect::Revision(revision) => revision,
        Expect::Absent if core.store.get(target.key(), &target.namespace, &target.name).is_some() => {
            let (group, plural) = (target.resource.group(), target.resource.plural());
            return Err(Status::already_exists(group, plural, &target.name));
        }
        Expect::Absent | Expect::Any => 0,
    };
    if let Some(meta) = object["metadata"].as_object_mut() {
        match revision {
            0 => drop(meta.remove("resourceVersion")),
            _ => drop(meta.insert("resourceVersion".into(), revision.to_string().into())),
        }
    }
    let bytes = serde_json::to_vec(object).map_err(Status::internal)?;
    Ok(Record { revision, bytes: bytes.into() })
}
