//! Which resource types exist: the built-in ones, and those that CustomResourceDefinitions add while we run.

use model::{CustomResourceDefinition, Kind, ResourceType};
use std::collections::HashMap;

/// No more custom types than this are followed: each is interned for good.
const CUSTOM_MAX: usize = 10_000;

/// Interns resource types, so that they can be told apart by value and carried for nothing.
#[derive(Default)]
pub struct Types {
    custom: HashMap<(String, String, String, String, bool), &'static ResourceType>,
}

/// Every built-in type that can be listed and watched, each once (types that share a place in the store are one).
pub fn builtin() -> Vec<&'static ResourceType> {
    let registry = kube::registry::Registry::builtin();
    let mut types = Vec::new();
    let mut interner = Types::default();
    for resource in registry.stored().filter(|resource| resource.allows("list") && resource.allows("watch")) {
        let typed = Kind::TYPED
            .iter()
            .find(|kind| kind.resource().group == resource.group() && kind.resource().plural == resource.plural());
        match typed {
            Some(kind) => types.push(kind.resource()),
            None => types.extend(interner.intern(
                resource.group(),
                resource.version(),
                resource.plural(),
                resource.kind(),
                resource.namespaced(),
            )),
        }
    }
    types
}

impl Types {
    /// The type that a definition serves, once it is established.
    pub fn served_by(&mut self, definition: &CustomResourceDefinition) -> Option<&'static ResourceType> {
        if !definition.established || definition.version.is_empty() {
            return None;
        }
        self.intern(&definition.group, &definition.version, &definition.plural, &definition.kind, definition.namespaced)
    }

    fn intern(
        &mut self,
        group: &str,
        version: &str,
        plural: &str,
        kind: &str,
        namespaced: bool,
    ) -> Option<&'static ResourceType> {
        let key = (group.to_owned(), version.to_owned(), plural.to_owned(), kind.to_owned(), namespaced);
        if let Some(known) = self.custom.get(&key) {
            return Some(known);
        }
        if self.custom.len() >= CUSTOM_MAX {
            tracing::error!(group, plural, "more than {CUSTOM_MAX} resource types: this one is not followed");
            return None;
        }
        let leak = |text: &str| -> &'static str { Box::leak(text.to_owned().into_boxed_str()) };
        let resource: &'static ResourceType = Box::leak(Box::new(ResourceType {
            group: leak(group),
            version: leak(version),
            plural: leak(plural),
            kind: leak(kind),
            namespaced,
        }));
        self.custom.insert(key, resource);
        Some(resource)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_typed_kind_is_followed_once() {
        let types = builtin();
        for kind in Kind::TYPED {
            assert_eq!(types.iter().filter(|t| **t == kind.resource()).count(), 1, "{kind}");
        }
        assert!(types.iter().any(|t| t.plural == "secrets"));
        assert_eq!(types.iter().filter(|t| t.plural == "events").count(), 1);
    }
}
