//! One decision function with its reason: RBAC and mesh policy.

pub mod rbac;
