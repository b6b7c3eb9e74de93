use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

/// A stored version of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The revision that wrote it.
    pub revision: u64,
    /// The object.
    pub bytes: Bytes,
}

/// A record with its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Empty for cluster-scoped kinds.
    pub namespace: Arc<str>,
    /// `metadata.name`.
    pub name: Arc<str>,
    /// The version.
    pub record: Record,
}

/// Part of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// All items are as of this revision.
    pub revision: u64,
    /// In order of namespace, then name.
    pub items: Vec<Entry>,
    /// Whether more items follow the last one.
    pub more: bool,
    /// How many follow, when that is cheap to know.
    pub remaining: Option<usize>,
}

type Names = BTreeMap<Arc<str>, Record>;
type Namespaces = BTreeMap<Arc<str>, Names>;

/// All objects: resource -> namespace -> name -> record. Namespace and resource texts are stored once.
#[derive(Debug, Default)]
pub struct Index {
    resources: BTreeMap<Arc<str>, Namespaces>,
    revision: u64,
    count: usize,
    bytes: usize,
}

impl Index {
    /// The newest revision.
    pub fn revision(&self) -> u64 {
        self.revision
    }
    /// Moves the revision on without a change (recovery after a host crash).
    pub fn advance(&mut self, revision: u64) {
        self.revision = self.revision.max(revision);
    }
    /// Objects in it.
    pub fn len(&self) -> usize {
        self.count
    }
    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
    /// Sum of the objects' sizes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
    /// Number of objects of a resource.
    pub fn count(&self, resource: &str) -> usize {
        self.resources.get(resource).map_or(0, |namespaces| namespaces.values().map(BTreeMap::len).sum())
    }
    /// The resources that have objects, sorted.
    pub fn resources(&self) -> impl Iterator<Item = &Arc<str>> {
        self.resources.iter().filter(|(_, namespaces)| !namespaces.is_empty()).map(|(resource, _)| resource)
    }

    /// An object.
    pub fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<&Record> {
        self.resources.get(resource)?.get(namespace)?.get(name)
    }

    /// Stores a version and returns the one before.
    pub fn put(&mut self, resource: &str, namespace: &str, name: &str, record: Record) -> Option<Record> {
        self.revision = self.revision.max(record.revision);
        self.bytes += record.bytes.len();
        let names = child(child(&mut self.resources, resource), namespace);
        let previous = match names.get_mut(name) {
            Some(slot) => Some(std::mem::replace(slot, record)),
            None => names.insert(name.into(), record),
        };
        match &previous {
            Some(old) => self.bytes -= old.bytes.len(),
            None => self.count += 1,
        }
        previous
    }

    /// Removes an object at `revision` and returns its last version.
    pub fn remove(&mut self, resource: &str, namespace: &str, name: &str, revision: u64) -> Option<Record> {
        self.revision = self.revision.max(revision);
        let namespaces = self.resources.get_mut(resource)?;
        let names = namespaces.get_mut(namespace)?;
        let old = names.remove(name)?;
        if names.is_empty() {
            namespaces.remove(namespace);
        }
        self.count -= 1;
        self.bytes -= old.bytes.len();
        Some(old)
    }

    /// Up to `limit` objects behind `after` (namespace, name), in order.
    pub fn list(
        &self,
        resource: &str,
        namespace: Option<&str>,
        after: Option<(&str, &str)>,
        limit: Option<usize>,
    ) -> Page {
        let limit = limit.unwrap_or(usize::MAX);
        let mut page = Page { revision: self.revision, ..Page::default() };
        let Some(namespaces) = self.resources.get(resource) else { return page };
        let from = match (namespace, after) {
            (Some(only), _) => Bound::Included(only),
            (None, Some((start, _))) => Bound::Included(start),
            (None, None) => Bound::Unbounded,
        };
        for (space, names) in namespaces.range::<str, _>((from, Bound::Unbounded)) {
            if namespace.is_some_and(|only| only != &**space) {
                break;
            }
            let skip = match after {
                Some((start, name)) if start == &**space => Bound::Excluded(name),
                _ => Bound::Unbounded,
            };
            for (name, record) in names.range::<str, _>((skip, Bound::Unbounded)) {
                if page.items.len() == limit {
                    page.more = true;
                    page.remaining = self.remaining(resource, namespace, &page);
                    return page;
                }
                page.items.push(Entry { namespace: space.clone(), name: name.clone(), record: record.clone() });
            }
        }
        page
    }

    /// How many objects follow the page's last item: known at once when the list is of one namespace's beginning or of all.
    fn remaining(&self, resource: &str, namespace: Option<&str>, page: &Page) -> Option<usize> {
        let last = page.items.last()?;
        let namespaces = self.resources.get(resource)?;
        let here = namespaces.get(&last.namespace)?;
        let behind = here.range::<str, _>((Bound::Excluded(&*last.name), Bound::Unbounded)).count();
        if namespace.is_some() {
            return Some(behind);
        }
        let others = namespaces.range::<str, _>((Bound::Excluded(&*last.namespace), Bound::Unbounded));
        Some(behind + others.map(|(_, names)| names.len()).sum::<usize>())
    }
}

fn child<'a, V: Default>(map: &'a mut BTreeMap<Arc<str>, V>, key: &str) -> &'a mut V {
    if !map.contains_key(key) {
        map.insert(key.into(), V::default());
    }
    map.get_mut(key).expect("inserted above")
}
