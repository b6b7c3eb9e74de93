//! What the server has to tell: every resource encoded once, and the order in which they last changed.

use crate::discovery::{Any, Resource};
use bytes::Bytes;
use prost::Message;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Resources by type and name, each with the sequence number of its last change. Numbers are given once for all types, from 1 up, so
/// one number says how much a client was told.
#[derive(Debug, Default)]
pub struct Catalog {
    sequence: u64,
    types: BTreeMap<&'static str, TypeCatalog>,
}

#[derive(Debug, Default)]
struct TypeCatalog {
    by_name: BTreeMap<Arc<str>, Entry>,
    /// Last change of each name, removed ones included: what follows a position is what a client at that position lacks.
    by_sequence: BTreeMap<u64, Arc<str>>,
    /// Removals up to here are forgotten; who stands before it cannot be told what is gone.
    forgotten: u64,
}

#[derive(Clone, Debug)]
struct Entry {
    sequence: u64,
    /// Encoded [`Resource`]; none: removed.
    encoded: Option<Bytes>,
}

/// A resource's last change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Name.
    pub name: Arc<str>,
    /// When, in the catalog's count; its decimal text is the resource's version.
    pub sequence: u64,
    /// Encoded [`Resource`]; none: it is gone.
    pub encoded: Option<Bytes>,
}

impl Catalog {
    /// An empty catalog whose count starts at `first`. A restarted server starts above what it may have said before (a clock will do), so
    /// that a version never means two things.
    pub fn starting_at(first: u64) -> Self {
        Catalog { sequence: first, types: BTreeMap::new() }
    }

    /// Declares a type, so that clients may subscribe to it while it has no resources.
    pub fn declare(&mut self, type_url: &'static str) {
        self.types.entry(type_url).or_default();
    }

    /// The type URLs that there are.
    pub fn type_urls(&self) -> impl Iterator<Item = &'static str> {
        self.types.keys().copied()
    }

    /// The static text of a type URL, if it is served.
    pub fn known_type(&self, type_url: &str) -> Option<&'static str> {
        self.types.get_key_value(type_url).map(|(key, _)| *key)
    }

    /// Number of the last change.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Number of the last change of a type, 0 for none.
    pub fn type_sequence(&self, type_url: &str) -> u64 {
        self.types.get(type_url).and_then(|of| of.by_sequence.last_key_value()).map_or(0, |(sequence, _)| *sequence)
    }

    /// How many resources of a type there are.
    pub fn count(&self, type_url: &str) -> usize {
        self.types.get(type_url).map_or(0, |of| of.by_name.values().filter(|entry| entry.encoded.is_some()).count())
    }

    /// Sets or removes a resource. `value` is the encoded inner message. The same bytes again change nothing.
    pub fn set(&mut self, type_url: &'static str, name: &str, value: Option<Bytes>) -> bool {
        let next = self.sequence + 1;
        let of = self.types.entry(type_url).or_default();
        let encoded = value.map(|value| {
            // The version is left out for the comparison below and put in after it.
            Resource {
                version: String::new(),
                resource: Some(Any { type_url: type_url.into(), value }),
                name: name.into(),
            }
        });
        let name: Arc<str> = match of.by_name.get_key_value(name) {
            Some((key, entry)) => {
                if same(entry, encoded.as_ref()) {
                    return false;
                }
                of.by_sequence.remove(&entry.sequence);
                key.clone()
            }
            None if encoded.is_none() => return false,
            None => name.into(),
        };
        let encoded = encoded.map(|mut resource| {
            resource.version = next.to_string();
            Bytes::from(resource.encode_to_vec())
        });
        self.sequence = next;
        of.by_sequence.insert(next, name.clone());
        of.by_name.insert(name, Entry { sequence: next, encoded });
        true
    }

    /// A resource counts as changed although it is as it was: who has it waits to be told again.
    pub fn touch(&mut self, type_url: &'static str, name: &str) {
        let entry = self.types.get(type_url).and_then(|of| of.by_name.get(name));
        let encoded = entry.and_then(|entry| entry.encoded.clone());
        let resource = encoded.and_then(|encoded| Resource::decode(encoded).ok()?.resource);
        if let Some(resource) = resource {
            self.set(type_url, name, None);
            self.set(type_url, name, Some(resource.value));
        }
    }

    /// A resource, removed ones included.
    pub fn get(&self, type_url: &str, name: &str) -> Option<Change> {
        let (name, entry) = self.types.get(type_url)?.by_name.get_key_value(name)?;
        Some(Change { name: name.clone(), sequence: entry.sequence, encoded: entry.encoded.clone() })
    }

    /// Last changes of a type after a position, in order.
    pub fn since<'a>(&'a self, type_url: &str, after: u64) -> impl Iterator<Item = Change> + 'a {
        self.types.get(type_url).into_iter().flat_map(move |of| {
            of.by_sequence.range(after + 1..).filter_map(move |(sequence, name)| {
                let entry = of.by_name.get(name)?;
                Some(Change { name: name.clone(), sequence: *sequence, encoded: entry.encoded.clone() })
            })
        })
    }

    /// Whether a client at this position can be told all that it lacks.
    pub fn reaches(&self, type_url: &str, position: u64) -> bool {
        self.types.get(type_url).is_none_or(|of| position >= of.forgotten)
    }

    /// Forgets removals up to `position`: every client has been told of them.
    pub fn forget(&mut self, type_url: &str, position: u64) {
        let Some(of) = self.types.get_mut(type_url) else { return };
        let gone: Vec<(u64, Arc<str>)> = of
            .by_sequence
            .range(..=position)
            .filter(|(_, name)| of.by_name.get(*name).is_some_and(|entry| entry.encoded.is_none()))
            .map(|(sequence, name)| (*sequence, name.clone()))
            .collect();
        for (sequence, name) in gone {
            of.by_sequence.remove(&sequence);
            of.by_name.remove(&name);
            of.forgotten = of.forgotten.max(sequence);
        }
    }
}

fn same(entry: &Entry, new: Option<&Resource>) -> bool {
    match (&entry.encoded, new) {
        (None, None) => true,
        (Some(old), Some(new)) => {
            Resource::decode(old.clone()).is_ok_and(|old| old.resource == new.resource && old.name == new.name)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: &str = "type.diolkos.io/mesh.v1.Service";

    fn names(catalog: &Catalog, after: u64) -> Vec<(String, bool)> {
        catalog.since(T, after).map(|change| (change.name.to_string(), change.encoded.is_some())).collect()
    }

    #[test]
    fn tells_last_changes_in_order() {
        let mut catalog = Catalog::default();
        assert!(catalog.set(T, "a", Some(Bytes::from_static(b"1"))));
        assert!(catalog.set(T, "b", Some(Bytes::from_static(b"1"))));
        assert!(!catalog.set(T, "a", Some(Bytes::from_static(b"1"))), "the same bytes are no change");
        assert!(catalog.set(T, "a", Some(Bytes::from_static(b"2"))));
        assert!(catalog.set(T, "b", None));
        assert!(!catalog.set(T, "b", None));
        assert!(!catalog.set(T, "never", None));
        assert_eq!(names(&catalog, 0), [("a".into(), true), ("b".into(), false)]);
        assert_eq!(names(&catalog, 3), [("b".into(), false)]);
        assert_eq!((catalog.sequence(), catalog.count(T)), (4, 1));
    }

    #[test]
    fn forgets_removals_that_all_know() {
        let mut catalog = Catalog::default();
        catalog.set(T, "a", Some(Bytes::from_static(b"1")));
        catalog.set(T, "a", None);
        catalog.set(T, "b", Some(Bytes::from_static(b"1")));
        catalog.forget(T, 1);
        assert_eq!(names(&catalog, 0).len(), 2);
        catalog.forget(T, 3);
        assert_eq!(names(&catalog, 0), [("b".into(), true)]);
        assert!(!catalog.reaches(T, 1) && catalog.reaches(T, 2));
    }
}
