//! What one look of a reconciler at one object yields.

use model::effect::{Body, Change, MetaPatch, NewMeta, Propagation, Record, Status, Target};
use model::{Effect, Kind, Meta, Timestamp};
use std::sync::Arc;

/// An effect, and what to tell people when it has succeeded.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// The order.
    pub effect: Effect,
    /// Recorded as an Event object once the order was carried out.
    pub note: Option<Record>,
}

/// Orders, and when to look again.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// In order.
    pub effects: Vec<Planned>,
    /// Look again then, even if nothing happens.
    pub again: Option<Timestamp>,
    /// How many objects were looked through. A look through many is followed by a pause, so that a thousand events about a thousand pods
    /// do not cost a million.
    pub cost: usize,
}

impl Plan {
    /// Adds an order.
    pub fn push(&mut self, effect: Effect) -> &mut Self {
        self.effects.push(Planned { effect, note: None });
        self
    }
    /// Adds the making of an object.
    pub fn create(&mut self, meta: NewMeta, body: Body) -> &mut Self {
        self.push(Effect::Create(meta, body))
    }
    /// Adds a change of this very version of an object. A second change of the same replica set joins the first: as an order of
    /// its own it would be refused as stale.
    pub fn update(&mut self, kind: Kind, meta: &Meta, change: Change) -> &mut Self {
        let target = Target::exactly(kind, meta);
        let Change::ReplicaSet { replicas, min_ready_s, annotations } = change else {
            return self.push(Effect::Update(target, change));
        };
        let same = self
            .effects
            .iter()
            .position(|planned| matches!(&planned.effect, Effect::Update(other, _) if *other == target));
        let Some(index) = same else {
            return self.push(Effect::Update(target, Change::ReplicaSet { replicas, min_ready_s, annotations }));
        };
        let mut planned = self.effects.remove(index);
        if let Effect::Update(_, Change::ReplicaSet { replicas: r, min_ready_s: m, annotations: a }) =
            &mut planned.effect
        {
            *r = replicas.or(*r);
            *m = min_ready_s.or(*m);
            a.extend(annotations);
        }
        // Last again, so that a note goes to it.
        self.effects.push(planned);
        self
    }
    /// Adds a new status of this very version of an object.
    pub fn status(&mut self, kind: Kind, meta: &Meta, status: Status) -> &mut Self {
        self.push(Effect::PatchStatus(Target::exactly(kind, meta), status))
    }
    /// Adds a change of metadata of this very version of an object.
    pub fn patch_meta(&mut self, kind: Kind, meta: &Meta, patch: MetaPatch) -> &mut Self {
        self.push(Effect::PatchMeta(Target::exactly(kind, meta), patch))
    }
    /// Adds a deletion, whatever version the object has by then (but the same uid).
    pub fn delete(&mut self, kind: Kind, meta: &Meta, propagation: Propagation) -> &mut Self {
        self.push(Effect::Delete { target: Target::any_version(kind, meta), grace_s: None, propagation })
    }
    /// Tells people when the last order has succeeded.
    pub fn note(&mut self, record: Record) -> &mut Self {
        if let Some(last) = self.effects.last_mut() {
            last.note = Some(record);
        }
        self
    }
    /// Tells people at once.
    pub fn record(&mut self, record: Record) -> &mut Self {
        self.push(Effect::Record(record))
    }
    /// Looks again at the earliest of the times asked for.
    pub fn look_again(&mut self, at: Timestamp) -> &mut Self {
        self.again = Some(self.again.map_or(at, |earlier| earlier.min(at)));
        self
    }
    /// Whether nothing is to be done.
    pub fn is_empty(&self) -> bool {
        self.effects.is_empty()
    }
}

/// Makes records about one object from one source.
pub struct Reporter {
    /// Component name.
    pub source: &'static str,
    /// The object.
    pub about: Target,
    /// Now.
    pub now: Timestamp,
}

impl Reporter {
    /// Reports about `meta`.
    pub fn new(source: &'static str, kind: Kind, meta: &Meta, now: Timestamp) -> Self {
        Reporter { source, about: Target::exactly(kind, meta), now }
    }
    /// A `Normal` event.
    pub fn normal(&self, reason: &str, message: impl Into<Arc<str>>) -> Record {
        self.record(false, reason, message.into())
    }
    /// A `Warning` event.
    pub fn warning(&self, reason: &str, message: impl Into<Arc<str>>) -> Record {
        self.record(true, reason, message.into())
    }
    fn record(&self, warning: bool, reason: &str, message: Arc<str>) -> Record {
        Record { about: self.about.clone(), warning, reason: reason.into(), message, source: self.source, at: self.now }
    }
}
