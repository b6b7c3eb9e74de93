use super::{Element, Path};
use std::collections::{BTreeMap, BTreeSet};

/// A set of paths as a tree. A path can be in the set without the paths below it, and the other way round.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    pub(super) members: BTreeSet<Element>,
    /// Never holds an empty set.
    pub(super) children: BTreeMap<Element, Set>,
}

impl Set {
    /// A set of paths of member names: `[&["metadata", "labels"]]`.
    pub fn of_fields(paths: &[&[&str]]) -> Set {
        let mut set = Set::default();
        for path in paths {
            set.insert(&path.iter().map(|name| Element::field(name)).collect::<Vec<_>>());
        }
        set
    }

    /// Whether no path is in it.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && self.children.is_empty()
    }

    /// Number of paths.
    pub fn len(&self) -> usize {
        self.members.len() + self.children.values().map(Set::len).sum::<usize>()
    }

    /// Adds a path; the empty one is ignored, nobody owns a whole object.
    pub fn insert(&mut self, path: &[Element]) {
        match path {
            [] => {}
            [last] => {
                self.members.insert(last.clone());
            }
            [first, rest @ ..] => self.children.entry(first.clone()).or_default().insert(rest),
        }
    }

    /// Whether the path itself is in it.
    pub fn has(&self, path: &[Element]) -> bool {
        match path {
            [] => false,
            [last] => self.members.contains(last),
            [first, rest @ ..] => self.children.get(first).is_some_and(|child| child.has(rest)),
        }
    }

    /// Whether this very element is in it.
    pub(crate) fn has_member(&self, element: &Element) -> bool {
        self.members.contains(element)
    }

    /// Elements that something is below, and what.
    pub(crate) fn children(&self) -> impl Iterator<Item = (&Element, &Set)> {
        self.children.iter()
    }

    /// The part below an element.
    pub(crate) fn below(&self, element: &Element) -> Option<&Set> {
        self.children.get(element)
    }

    /// Paths in either.
    #[must_use]
    pub fn union(&self, other: &Set) -> Set {
        let mut result = self.clone();
        result.members.extend(other.members.iter().cloned());
        for (element, child) in &other.children {
            let merged = result.children.get(element).map_or_else(|| child.clone(), |own| own.union(child));
            result.children.insert(element.clone(), merged);
        }
        result
    }

    /// Paths in both.
    #[must_use]
    pub fn intersection(&self, other: &Set) -> Set {
        let both = self.children.iter().filter_map(|(element, child)| {
            let common = child.intersection(other.children.get(element)?);
            (!common.is_empty()).then(|| (element.clone(), common))
        });
        Set { members: self.members.intersection(&other.members).cloned().collect(), children: both.collect() }
    }

    /// Paths in this one and not in the other. A path does not take those below it along.
    #[must_use]
    pub fn difference(&self, other: &Set) -> Set {
        let left = self.children.iter().filter_map(|(element, child)| {
            let rest = other.children.get(element).map_or_else(|| child.clone(), |gone| child.difference(gone));
            (!rest.is_empty()).then(|| (element.clone(), rest))
        });
        Set { members: self.members.difference(&other.members).cloned().collect(), children: left.collect() }
    }

    /// Paths that are neither in the other nor below a path of it.
    #[must_use]
    pub fn recursive_difference(&self, other: &Set) -> Set {
        let left = self.children.iter().filter(|(element, _)| !other.members.contains(*element)).filter_map(
            |(element, child)| {
                let rest =
                    other.children.get(element).map_or_else(|| child.clone(), |gone| child.recursive_difference(gone));
                (!rest.is_empty()).then(|| (element.clone(), rest))
            },
        );
        Set { members: self.members.difference(&other.members).cloned().collect(), children: left.collect() }
    }

    /// All paths, parents before what is below them.
    pub fn paths(&self) -> Vec<Path> {
        let mut found = Vec::new();
        self.collect(&mut Vec::new(), &mut found);
        found
    }

    fn collect(&self, prefix: &mut Path, found: &mut Vec<Path>) {
        let elements: BTreeSet<&Element> = self.members.iter().chain(self.children.keys()).collect();
        for element in elements {
            prefix.push(element.clone());
            if self.members.contains(element) {
                found.push(prefix.clone());
            }
            if let Some(child) = self.children.get(element) {
                child.collect(prefix, found);
            }
            prefix.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(paths: &[&[&str]]) -> Set {
        Set::of_fields(paths)
    }

    #[test]
    fn algebra() {
        let a = set(&[&["x"], &["x", "y"], &["z"]]);
        let b = set(&[&["x"], &["w", "v"]]);
        assert_eq!(a.union(&b), set(&[&["x"], &["x", "y"], &["z"], &["w", "v"]]));
        assert_eq!(a.intersection(&b), set(&[&["x"]]));
        assert_eq!(a.difference(&b), set(&[&["x", "y"], &["z"]]), "a parent does not take its children along");
        assert_eq!(a.recursive_difference(&b), set(&[&["z"]]));
        assert!(a.difference(&a).is_empty());
        assert_eq!(a.len(), 3);
        assert_eq!(a.paths().len(), 3);
    }
}
