//! What the server's own indices owe to a write, before its answer goes out.

use crate::access;
use crate::core::Core;
use crate::ops::Target;

const DEFINITIONS: &str = "apiextensions.k8s.io/customresourcedefinitions";

/// Whether a write of this object changes an index.
pub fn is_owed(target: &Target) -> bool {
    access::is_rbac(target.resource.group()) || matches!(target.key(), DEFINITIONS | "services")
}

/// Brings indices up to date with a write that has just been committed.
pub fn after_write(core: &Core, target: &Target) {
    if access::is_rbac(target.resource.group()) {
        core.roles.refresh(&core.store);
    }
    if target.key() == DEFINITIONS {
        crate::custom::refresh(core, &target.name);
    }
    if target.key() == "services" {
        core.services.observe(&core.store, &target.namespace, &target.name);
    }
}
