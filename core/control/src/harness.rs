//! A small world for tables and whole stories: an API in memory that carries orders out, and a clock that jumps.

use model::{Labels, Meta};
use std::sync::Arc;

pub fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| (Arc::from(*key), Arc::from(*value))).collect()
}

pub fn meta(namespace: &str, name: &str, revision: u64) -> Meta {
    Meta {
        key: model::Key::new(namespace, name),
        uid: format!("uid-{namespace}-{name}").into(),
        revision,
        generation: 1,
        ..Meta::default()
    }
}
