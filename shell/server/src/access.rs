//! Who may do what: the role table over the store, and the question that every request is asked.

mod attributes;
mod node;
mod table;

pub use attributes::{authorize, may};
pub use node::restrict_node;
pub use table::{RoleTable, builder, follow, is_rbac, parse_rules};
