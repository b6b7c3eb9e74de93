//! What the server's own indices owe to a write, before its answer goes out.

use crate::access;
use crate::core::Core;
use crate::ops::Target;

/// Brings indices up to date with a write that has just been committed.
pub fn after_write(core: &Core, target: &Target) {
    if access::is_rbac(target.resource.group()) {
        core.roles.refresh(&core.store);
    }
    if target.key() == "apiextensions.k8s.io/customresourcedefinitions" {
        crate::custom::refresh(core, &target.name);
    }
    if target.key() == "services" {
        core.services.observe(&core.store, &target.namespace, &target.name);
    }
}
