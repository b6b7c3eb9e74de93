//! Sets of fields: who owns what (structured-merge-diff `fieldpath`).

mod codec;
mod element;
mod set;

pub use codec::FieldsError;
pub(crate) use element::order;
pub use element::{Element, Path, path_text};
pub use set::Set;
