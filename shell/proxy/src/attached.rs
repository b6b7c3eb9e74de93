//! Policies that hang on gateways, routes and services, with what their limits remember. All workers share them.
use model::Key;
use model::Timestamp;
use model::map::HashMap;
use model::mesh::attached::{AttachedPolicy, Descriptor, PolicyTarget, RateLimit};
use model::mesh::{Match, Route, RouteKind, Rule};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use traffic::limit::{Buckets, MOST_KEYS, Verdict};
use traffic::{RequestView, RouteTable};

/// All of them.
#[derive(Debug, Default)]
pub struct Attached {
    policies: BTreeMap<Key, Arc<Held>>,
    by_target: HashMap<PolicyTarget, Vec<Arc<Held>>>,
}

/// A policy.
#[derive(Debug)]
pub struct Held {
    /// As it was told.
    pub policy: Arc<AttachedPolicy>,
    /// Its own limits, in order.
    pub limits: Vec<Limit>,
    /// In the order of the global limit's descriptors.
    pub descriptors: Vec<Matcher>,
}

/// A limit.
#[derive(Clone, Debug)]
pub struct Limit {
    pub limit: RateLimit,
    matcher: Matcher,
    /// Made at the first request.
    buckets: Arc<Mutex<Option<Buckets>>>,
}

/// Which requests count.
#[derive(Clone, Debug)]
pub struct Matcher(Option<Arc<RouteTable>>);

impl Matcher {
    fn new(matches: &[Match]) -> Self {
        if matches.is_empty() {
            return Self(None);
        }
        let rules = vec![Rule { matches: matches.to_vec(), ..Rule::default() }];
        let route = Route {
            name: "".into(),
            key: Key::default(),
            kind: RouteKind::Http,
            created: Timestamp(0),
            parents: Vec::new(),
            rules,
            ordered: true,
        };
        let route = Arc::new(route);
        Self(Some(Arc::new(RouteTable::build([(&route, &[][..])]))))
    }

    /// Whether a request is one of them.
    pub fn takes(&self, request: &RequestView<'_>) -> bool {
        self.0.as_ref().is_none_or(|table| table.find(request).is_some())
    }
}

impl Limit {
    fn new(limit: &RateLimit) -> Self {
        Self { limit: limit.clone(), matcher: Matcher::new(&limit.matches), buckets: Arc::default() }
    }

    /// Whether a request counts.
    pub fn takes(&self, request: &RequestView<'_>) -> bool {
        self.matcher.takes(request)
    }

    /// Counts a request of `key`.
    pub fn count(&self, key: &str, now_us: u64) -> Verdict {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.get_or_insert_with(|| Buckets::new(&self.limit, MOST_KEYS, now_us)).take(key, now_us)
    }
}

impl Attached {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    /// A policy came or changed. Limits that are the same as before go on with what they remember.
    pub fn set(&mut self, policy: Arc<AttachedPolicy>) {
        let old = self.policies.get(&policy.key).cloned();
        let before = |limit: &RateLimit| old.iter().flat_map(|old| &old.limits).find(|it| it.limit == *limit).cloned();
        let matchers = |it: &Descriptor| Matcher::new(&it.matches);
        let descriptors = policy.global.iter().flat_map(|global| &global.descriptors).map(matchers);
        let held = Held {
            limits: policy.limits.iter().map(|limit| before(limit).unwrap_or_else(|| Limit::new(limit))).collect(),
            descriptors: descriptors.collect(),
            policy: policy.clone(),
        };
        self.policies.insert(policy.key.clone(), Arc::new(held));
        self.index();
    }

    /// A policy is gone.
    pub fn remove(&mut self, key: &Key) {
        self.policies.remove(key);
        self.index();
    }

    fn index(&mut self) {
        self.by_target.clear();
        for held in self.policies.values() {
            for target in &held.policy.targets {
                let of = self.by_target.entry(target.split().0).or_default();
                // A policy may name several parts of one object.
                if !of.iter().any(|have| Arc::ptr_eq(have, held)) {
                    of.push(held.clone());
                }
            }
        }
    }

    /// The policies of a target (all of an object), by key. `section`: the part of it that a request came to.
    pub fn of<'a>(&'a self, object: &'a PolicyTarget, section: &'a str) -> impl Iterator<Item = &'a Arc<Held>> {
        let holds = move |held: &&Arc<Held>| {
            held.policy.targets.iter().any(|target| {
                let (of, part) = target.split();
                of == *object && (part.is_empty() || **part == *section)
            })
        };
        self.by_target.get(object).into_iter().flatten().filter(holds)
    }

    /// Services that policies are about.
    pub fn services(&self) -> impl Iterator<Item = &Key> {
        self.by_target.keys().filter_map(|target| match target {
            PolicyTarget::Service { service, .. } => Some(service),
            _ => None,
        })
    }
}
