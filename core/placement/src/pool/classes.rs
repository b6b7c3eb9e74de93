//! Classes of identical pods: made when the first pod of one comes, gone with the last.

use super::Pool;
use crate::class::{CPU, Class, ClassId, ClassKey, EPHEMERAL, MEMORY, Requests, TermColumns};
use crate::column::ColumnId;
use model::map::HashMap;
use std::sync::Arc;

impl Pool {
    pub(crate) fn class(&self, id: ClassId) -> &Class {
        match self.classes.get(id as usize) {
            Some(Some(class)) => class,
            _ => unreachable!("a class lives as long as a pod refers to it"),
        }
    }

    pub(crate) fn intern_class(&mut self, key: ClassKey) -> ClassId {
        if let Some(id) = self.class_ids.get(&key).copied() {
            if let Some(Some(class)) = self.classes.get_mut(id as usize) {
                class.refs += 1;
            }
            return id;
        }
        let class = self.compile(key.clone());
        let has_terms = class.has_terms();
        let id = self.free_classes.pop().unwrap_or_else(|| {
            self.classes.push(None);
            self.classes.len() as ClassId - 1
        });
        self.classes[id as usize] = Some(class);
        self.class_ids.insert(key, id);
        if has_terms {
            self.with_terms.insert(id);
        }
        self.index_class(id);
        id
    }

    fn compile(&mut self, key: ClassKey) -> Class {
        let spec = key.spec.clone();
        let nominal = [spec.nominal.0, spec.nominal.1];
        let mut requests = Requests { nominal, guaranteed: spec.guaranteed, ..Requests::default() };
        for (name, amount) in &spec.requests {
            match &**name {
                "cpu" => requests.base[CPU] = *amount,
                "memory" => requests.base[MEMORY] = *amount,
                "ephemeral-storage" => requests.base[EPHEMERAL] = *amount,
                _ => requests.extended.push((self.resource(name), *amount)),
            }
        }
        let affinity = TermColumns {
            affinity: spec.affinity.iter().map(|term| self.column(&term.topology_key)).collect(),
            anti: spec.anti_affinity.iter().map(|term| self.column(&term.topology_key)).collect(),
            preferred: spec.preferred_affinity.iter().map(|(_, term)| self.column(&term.topology_key)).collect(),
            preferred_anti: spec
                .preferred_anti_affinity
                .iter()
                .map(|(_, term)| self.column(&term.topology_key))
                .collect(),
        };
        Class {
            requests,
            refs: 1,
            nodes: HashMap::default(),
            spread_columns: spec.spread.iter().map(|constraint| self.column(&constraint.topology_key)).collect(),
            affinity,
            default_spread: self.default_selector(&key),
            key,
        }
    }

    /// The column of a topology key.
    pub(crate) fn column(&mut self, key: &Arc<str>) -> ColumnId {
        let nodes = self.nodes.iter().zip(&self.hot).map(|(node, hot)| hot.live.then_some(&node.facts.labels));
        self.columns.intern(key, nodes)
    }

    pub(crate) fn release_class(&mut self, id: ClassId) {
        let Some(Some(class)) = self.classes.get_mut(id as usize) else { return };
        class.refs -= 1;
        if class.refs > 0 {
            return;
        }
        self.indexes.drop_class(id);
        self.reservations.forget_class(id);
        if let Some(class) = self.classes[id as usize].take() {
            self.class_ids.remove(&class.key);
            self.with_terms.remove(&id);
            self.free_classes.push(id);
        }
    }
}
