//! One decision function with its reason: RBAC and mesh policy.

pub mod mesh;
pub mod rbac;
