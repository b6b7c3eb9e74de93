//! What is neither node nor pod and bears on both: namespaces' labels, disruption budgets, and owners by which pods spread by default.

use super::Pool;
use crate::class::{ClassId, ClassKey};
use model::scheduling::{BudgetFacts, SpreadOwner};
use model::{Key, LabelSelector, Labels};
use std::sync::Arc;

impl Pool {
    /// A namespace's labels.
    pub fn set_namespace(&mut self, name: &Arc<str>, labels: Arc<Labels>) {
        if self.namespaces.get(name).is_some_and(|old| **old == *labels) {
            return;
        }
        self.namespaces.insert(name.clone(), labels);
        self.reindex();
    }
    /// A namespace is gone.
    pub fn remove_namespace(&mut self, name: &str) {
        if self.namespaces.remove(name).is_some() {
            self.reindex();
        }
    }
    pub(crate) fn namespace_labels(&self, name: &str) -> Arc<Labels> {
        self.namespaces.get(name).cloned().unwrap_or_default()
    }

    /// A disruption budget is now as given.
    pub fn set_budget(&mut self, budget: BudgetFacts) {
        let key = Key { namespace: budget.namespace.clone(), name: budget.name.clone() };
        if self.budgets.get(&key) != Some(&budget) {
            self.budgets.insert(key, budget);
            self.indexes.budgets_changed();
        }
    }
    /// A disruption budget is gone.
    pub fn remove_budget(&mut self, namespace: &str, name: &str) {
        self.budgets.remove(&Key::new(namespace, name));
        self.indexes.budgets_changed();
    }

    /// A Service, ReplicaSet, StatefulSet or ReplicationController is now as given.
    pub fn set_spread_owner(&mut self, owner: SpreadOwner) {
        let key = (owner.namespace.clone(), owner.kind, owner.name);
        if self.owners.get(&key) != Some(&owner.selector) {
            self.owners.insert(key, owner.selector);
            self.respread(&owner.namespace);
        }
    }
    /// Such an owner is gone.
    pub fn remove_spread_owner(&mut self, namespace: &str, kind: &'static str, name: &str) {
        if self.owners.remove(&(namespace.into(), kind, name.into())).is_some() {
            self.respread(namespace);
        }
    }

    fn respread(&mut self, namespace: &str) {
        for id in 0..self.classes.len() {
            let Some(class) = self.classes[id].as_ref().filter(|class| &*class.key.namespace == namespace) else {
                continue;
            };
            let selector = self.default_selector(&class.key);
            let changed = class.default_spread != selector;
            if let Some(class) = self.classes[id].as_mut().filter(|_| changed) {
                class.default_spread = selector;
                self.indexes.drop_class(id as ClassId);
                self.index_class(id as ClassId);
            }
        }
    }

    /// What default spreading counts: pods that every Service that selects this pod selects, and its controller too.
    pub(super) fn default_selector(&self, key: &ClassKey) -> Option<LabelSelector> {
        if !key.spec.spread.is_empty() {
            return None;
        }
        let from = (key.namespace.clone(), "", "".into());
        let here = self.owners.range(from..).take_while(|((namespace, ..), _)| *namespace == key.namespace);
        let mut requirements = Vec::new();
        for ((_, kind, name), selector) in here {
            let is_owner = key.owner.as_ref().is_some_and(|(k, n)| **k == **kind && n == name);
            if is_owner || (*kind == "Service" && selector.matches(&key.labels)) {
                requirements.extend(selector.requirements.iter().cloned());
            }
        }
        requirements.sort();
        requirements.dedup();
        (!requirements.is_empty()).then_some(LabelSelector { requirements })
    }
}
