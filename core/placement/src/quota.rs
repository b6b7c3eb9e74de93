//! Elastic quotas: a tree of shares of the pool. Each quota is sure of its `min`, may use up to its `max`, and borrows what others of
//! its parent do not ask for, in proportion to its weight. What is borrowed is given back when those who lent it ask for it.
//!
//! What a quota may use now (Koordinator calls it the runtime quota) follows from the whole tree's demand: every quota first gets
//! what it asks for up to its min; what is left of its parent's share goes out unit by unit to the one that has got least of it for
//! its weight (ties by name) until everyone has what it asks for or its max.

mod reclaim;

use model::scheduling::Amounts;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fmt;
use std::sync::Arc;

pub use reclaim::{Borrower, Reclaimed};

/// A quota as its owner writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// Name.
    pub name: Arc<str>,
    /// The quota that it is a part of; None: of the whole pool.
    pub parent: Option<Arc<str>>,
    /// What it is sure of.
    pub min: Amounts,
    /// What it may use at most. A resource that is named neither here nor in `min` is not bounded.
    pub max: Amounts,
    /// Its part of what is lent, 1 to 1000.
    pub weight: u32,
}

/// Why a quota cannot be as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QuotaError {
    /// Its parent is not there.
    NoParent(Arc<str>),
    /// It would be a part of itself.
    Circle(Arc<str>),
    /// What the parts are sure of is more of this resource than the whole is sure of.
    TooMuchPromised(Arc<str>, Arc<str>),
    /// It has parts.
    HasParts(Arc<str>),
}

impl fmt::Display for QuotaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            QuotaError::NoParent(name) => write!(f, "there is no quota {name} to be a part of"),
            QuotaError::Circle(name) => write!(f, "quota {name} would be a part of itself"),
            QuotaError::TooMuchPromised(name, resource) => {
                write!(f, "the parts of quota {name} are sure of more {resource} than it is itself")
            }
            QuotaError::HasParts(name) => write!(f, "quota {name} still has parts"),
        }
    }
}

/// What a refused request exceeds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exceeded {
    /// The quota: the one asked for, or one that it is a part of.
    pub quota: Arc<str>,
    /// Resource, what may be used now, what is used, what is asked for.
    pub lacking: Vec<(Arc<str>, i64, i64, i64)>,
}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Insufficient quotas, quotaName: {}", self.quota)?;
        for (resource, runtime, used, asked) in &self.lacking {
            write!(f, ", {resource}: runtime {runtime}, used {used}, requested {asked}")?;
        }
        Ok(())
    }
}

type Sums = BTreeMap<Arc<str>, i64>;

struct Entry {
    quota: Quota,
    min: Sums,
    max: Sums,
    /// What its pods ask for, placed or not, with that of its parts.
    demand: Sums,
    /// What its placed pods use, with that of its parts.
    used: Sums,
}

impl Entry {
    /// Whether it says anything of a resource.
    fn bounds(&self, resource: &str) -> bool {
        self.min.contains_key(resource) || self.max.contains_key(resource)
    }
}

/// A tree of quotas over a pool of some capacity.
#[derive(Default)]
pub struct QuotaTree {
    capacity: Sums,
    entries: BTreeMap<Arc<str>, Entry>,
}

/// One of several that share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claimant {
    /// What it is sure of.
    pub min: i64,
    /// What it could use: its demand, at most its max.
    pub wanted: i64,
    /// Its part of the rest.
    pub weight: u32,
}

/// Shares `total` out. First everyone gets what it wants up to its min (in the order given, should that be more than there is), then
/// the rest goes to the one that has got the least of it for its weight, unit by unit, the first of several.
pub fn share(total: i64, claimants: &[Claimant]) -> Vec<i64> {
    let mut left = total.max(0);
    let mut shares: Vec<i64> = Vec::with_capacity(claimants.len());
    for claimant in claimants {
        let sure = claimant.min.min(claimant.wanted).clamp(0, left);
        left -= sure;
        shares.push(sure);
    }
    let room: Vec<i64> = claimants.iter().zip(&shares).map(|(c, sure)| (c.wanted - sure).max(0)).collect();
    let level = |level: i64| -> Vec<i64> {
        let up_to = |(c, room): (&Claimant, &i64)| level.saturating_mul(i64::from(c.weight.max(1))).min(*room);
        claimants.iter().zip(&room).map(up_to).collect()
    };
    let cost = |extras: &[i64]| extras.iter().fold(0i64, |sum, extra| sum.saturating_add(*extra));
    // The highest level of units for each weight that there is enough for.
    let (mut low, mut high) = (0i64, left + 1);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if cost(&level(middle)) <= left { low = middle } else { high = middle }
    }
    let mut extras = level(low);
    let mut rest = left - cost(&extras);
    // Less than one level is left: unit by unit. Keys are what one has got for its weight, as fractions over a common denominator.
    let mut order: BinaryHeap<Reverse<(Fraction, usize)>> = BinaryHeap::new();
    for (at, claimant) in claimants.iter().enumerate() {
        if extras[at] < room[at] {
            order.push(Reverse((Fraction(extras[at], claimant.weight.max(1)), at)));
        }
    }
    while rest > 0
        && let Some(Reverse((_, at))) = order.pop()
    {
        extras[at] += 1;
        rest -= 1;
        if extras[at] < room[at] {
            order.push(Reverse((Fraction(extras[at], claimants[at].weight.max(1)), at)));
        }
    }
    shares.iter().zip(extras).map(|(sure, extra)| sure + extra).collect()
}

/// A number over a weight.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Fraction(i64, u32);

impl Ord for Fraction {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (i128::from(self.0) * i128::from(other.1)).cmp(&(i128::from(other.0) * i128::from(self.1)))
    }
}

impl PartialOrd for Fraction {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

fn at(sums: &Sums, resource: &str) -> i64 {
    sums.get(resource).copied().unwrap_or(0)
}

fn add(sums: &mut Sums, amounts: &Amounts, sign: i64) {
    for (resource, amount) in amounts {
        *sums.entry(resource.clone()).or_insert(0) += sign * amount;
    }
}

impl QuotaTree {
    /// No quotas over a pool that has so much.
    pub fn new(capacity: Amounts) -> Self {
        QuotaTree { capacity: capacity.into_iter().collect(), entries: BTreeMap::new() }
    }

    /// The pool has so much now.
    pub fn set_capacity(&mut self, capacity: Amounts) {
        self.capacity = capacity.into_iter().collect();
    }

    /// A quota is now as given. Where it was before, its use and demand go with it.
    ///
    /// # Errors
    /// When the tree would not be one, or more would be promised than there is. Nothing is changed then.
    pub fn set(&mut self, quota: Quota) -> Result<(), QuotaError> {
        let mut above = quota.parent.clone();
        while let Some(name) = above {
            if name == quota.name {
                return Err(QuotaError::Circle(name));
            }
            let entry = self.entries.get(&name).ok_or_else(|| QuotaError::NoParent(name.clone()))?;
            above = entry.quota.parent.clone();
        }
        let min: Sums = quota.min.iter().cloned().collect();
        if let Some(parent) = &quota.parent {
            let others = self.parts(Some(parent)).filter(|entry| entry.quota.name != quota.name);
            self.promises(parent, &self.entries[parent].min, others.map(|entry| &entry.min).chain([&min]))?;
        }
        self.promises(&quota.name, &min, self.parts(Some(&quota.name)).map(|entry| &entry.min))?;
        let (demand, used) =
            self.entries.get(&quota.name).map_or_else(Default::default, |e| (e.demand.clone(), e.used.clone()));
        self.lift(&quota.name, -1);
        let max = quota.max.iter().cloned().collect();
        self.entries.insert(quota.name.clone(), Entry { min, max, demand, used, quota: quota.clone() });
        self.lift(&quota.name, 1);
        Ok(())
    }

    fn promises<'a>(
        &self,
        name: &Arc<str>,
        min: &Sums,
        parts: impl Iterator<Item = &'a Sums>,
    ) -> Result<(), QuotaError> {
        let mut sum = Sums::new();
        for part in parts {
            for (resource, amount) in part {
                *sum.entry(resource.clone()).or_insert(0) += amount;
            }
        }
        match sum.into_iter().find(|(resource, amount)| *amount > at(min, resource)) {
            Some((resource, _)) => Err(QuotaError::TooMuchPromised(name.clone(), resource)),
            None => Ok(()),
        }
    }

    /// Adds what a quota has to those above it, or takes it away.
    fn lift(&mut self, name: &Arc<str>, sign: i64) {
        let Some(entry) = self.entries.get(name) else { return };
        let (demand, used): (Amounts, Amounts) =
            (entry.demand.clone().into_iter().collect(), entry.used.clone().into_iter().collect());
        let mut above = entry.quota.parent.clone();
        while let Some(entry) = above.and_then(|name| self.entries.get_mut(&name)) {
            add(&mut entry.demand, &demand, sign);
            add(&mut entry.used, &used, sign);
            above = entry.quota.parent.clone();
        }
    }

    /// A quota is gone.
    ///
    /// # Errors
    /// While it has parts.
    pub fn remove(&mut self, name: &Arc<str>) -> Result<(), QuotaError> {
        if self.parts(Some(name)).next().is_some() {
            return Err(QuotaError::HasParts(name.clone()));
        }
        self.lift(name, -1);
        self.entries.remove(name);
        Ok(())
    }

    fn parts(&self, parent: Option<&Arc<str>>) -> impl Iterator<Item = &Entry> {
        self.entries.values().filter(move |entry| entry.quota.parent.as_ref() == parent)
    }

    fn path(&self, name: &str) -> Vec<Arc<str>> {
        let mut path = Vec::new();
        let mut next = self.entries.get(name);
        while let Some(entry) = next {
            path.push(entry.quota.name.clone());
            next = entry.quota.parent.as_ref().and_then(|parent| self.entries.get(parent));
        }
        path
    }

    /// A pod of a quota came (`sign` 1) or went (-1), placed or not.
    pub fn demand(&mut self, name: &str, amounts: &Amounts, sign: i64) {
        for name in self.path(name) {
            if let Some(entry) = self.entries.get_mut(&name) {
                add(&mut entry.demand, amounts, sign);
            }
        }
    }

    /// A pod of a quota was placed (`sign` 1) or left its node (-1).
    pub fn place(&mut self, name: &str, amounts: &Amounts, sign: i64) {
        for name in self.path(name) {
            if let Some(entry) = self.entries.get_mut(&name) {
                add(&mut entry.used, amounts, sign);
            }
        }
    }

    /// What a quota may use of a resource now. One that is not there may use nothing.
    pub fn runtime(&self, name: &str, resource: &str) -> i64 {
        let Some(entry) = self.entries.get(name) else { return 0 };
        let total = match &entry.quota.parent {
            Some(parent) => self.runtime(parent, resource),
            None => at(&self.capacity, resource),
        };
        let siblings: Vec<&Entry> = self.parts(entry.quota.parent.as_ref()).collect();
        let claimant = |entry: &&Entry| Claimant {
            min: at(&entry.min, resource),
            wanted: at(&entry.demand, resource).min(entry.max.get(resource).copied().unwrap_or(i64::MAX)),
            weight: entry.quota.weight,
        };
        let shares = share(total, &siblings.iter().map(claimant).collect::<Vec<_>>());
        siblings.iter().position(|sibling| sibling.quota.name == entry.quota.name).map_or(0, |at| shares[at])
    }

    /// Whether a pod of a quota may be placed now. Its demand is to be counted already.
    ///
    /// # Errors
    /// The quota nearest to the pod that has too little left.
    pub fn admits(&self, name: &str, amounts: &Amounts) -> Result<(), Exceeded> {
        for quota in self.path(name) {
            let entry = &self.entries[&quota];
            let lacking: Vec<(Arc<str>, i64, i64, i64)> = amounts
                .iter()
                .map(|(resource, asked)| {
                    (resource.clone(), self.runtime(&quota, resource), at(&entry.used, resource), *asked)
                })
                .filter(|(resource, runtime, used, asked)| entry.bounds(resource) && used + asked > *runtime)
                .collect();
            if !lacking.is_empty() {
                return Err(Exceeded { quota, lacking });
            }
        }
        Ok(())
    }

    /// Quotas without parts that use more than they may now, because others ask for what they lent: how much each is to give
    /// back.
    pub fn owed(&self) -> Vec<(Arc<str>, Amounts)> {
        let leaves = self.entries.values().filter(|entry| self.parts(Some(&entry.quota.name)).next().is_none());
        let over = |entry: &Entry| -> Amounts {
            let over = |(resource, used): (&Arc<str>, &i64)| {
                let more = used - self.runtime(&entry.quota.name, resource);
                (more > 0 && entry.bounds(resource)).then(|| (resource.clone(), more))
            };
            entry.used.iter().filter_map(over).collect()
        };
        leaves.map(|entry| (entry.quota.name.clone(), over(entry))).filter(|(_, over)| !over.is_empty()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(name: &str, parent: Option<&str>, min: i64, max: i64, weight: u32) -> Quota {
        Quota {
            name: name.into(),
            parent: parent.map(Arc::from),
            min: vec![("cpu".into(), min)],
            max: vec![("cpu".into(), max)],
            weight,
        }
    }

    fn cpu(amount: i64) -> Amounts {
        vec![("cpu".into(), amount)]
    }

    /// The rule word for word: unit by unit.
    fn share_slowly(total: i64, claimants: &[Claimant]) -> Vec<i64> {
        let mut left = total;
        let mut sure = Vec::new();
        for c in claimants {
            sure.push(c.min.min(c.wanted).clamp(0, left));
            left -= sure[sure.len() - 1];
        }
        let mut extra = vec![0i64; claimants.len()];
        for _ in 0..left {
            let open = (0..claimants.len()).filter(|at| sure[*at] + extra[*at] < claimants[*at].wanted);
            let got = |at: &usize| (extra[*at] as f64 / f64::from(claimants[*at].weight), *at);
            let Some(next) = open.min_by(|a, b| got(a).partial_cmp(&got(b)).unwrap()) else { break };
            extra[next] += 1;
        }
        sure.iter().zip(extra).map(|(sure, extra)| sure + extra).collect()
    }

    #[test]
    fn shares_as_unit_by_unit() {
        let mut state = 1u64;
        let mut roll = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            ((state >> 33) % below) as i64
        };
        for case in 0..3000 {
            let claimants: Vec<Claimant> =
                (0..1 + roll(5)).map(|_| Claimant { min: roll(20), wanted: roll(60), weight: 1 << roll(5) }).collect();
            let total = roll(120);
            let shares = share(total, &claimants);
            assert_eq!(shares, share_slowly(total, &claimants), "case {case}: {total} {claimants:?}");
            let wanted: i64 = claimants.iter().map(|c| c.wanted).sum();
            assert_eq!(shares.iter().sum::<i64>(), total.min(wanted), "nothing is left while somebody wants it");
        }
    }

    #[test]
    fn lends_and_takes_back() {
        let mut tree = QuotaTree::new(cpu(100));
        tree.set(quota("a", None, 40, 100, 1)).unwrap();
        tree.set(quota("b", None, 60, 80, 1)).unwrap();
        for _ in 0..10 {
            tree.demand("a", &cpu(10), 1);
            assert_eq!(tree.admits("a", &cpu(10)), Ok(()), "b asks for nothing: a borrows it all");
            tree.place("a", &cpu(10), 1);
        }
        assert_eq!(tree.owed(), vec![]);
        tree.demand("b", &cpu(70), 1);
        assert_eq!(tree.runtime("b", "cpu"), 60);
        assert_eq!(tree.runtime("a", "cpu"), 40);
        assert_eq!(tree.owed(), vec![("a".into(), cpu(60))]);
        assert_eq!(tree.admits("b", &cpu(60)), Ok(()));
        let exceeded = tree.admits("b", &cpu(70)).unwrap_err();
        assert_eq!(exceeded.to_string(), "Insufficient quotas, quotaName: b, cpu: runtime 60, used 0, requested 70");
    }

    #[test]
    fn parts_share_what_the_whole_may_use() {
        let mut tree = QuotaTree::new(cpu(100));
        tree.set(quota("org", None, 50, 60, 1)).unwrap();
        tree.set(quota("x", Some("org"), 20, 60, 3)).unwrap();
        tree.set(quota("y", Some("org"), 20, 60, 1)).unwrap();
        assert_eq!(
            tree.set(quota("z", Some("org"), 20, 60, 1)),
            Err(QuotaError::TooMuchPromised("org".into(), "cpu".into()))
        );
        assert_eq!(tree.set(quota("org", Some("x"), 50, 60, 1)), Err(QuotaError::Circle("org".into())));
        tree.demand("x", &cpu(100), 1);
        tree.demand("y", &cpu(100), 1);
        assert_eq!((tree.runtime("x", "cpu"), tree.runtime("y", "cpu")), (35, 25));
        assert_eq!(tree.remove(&"org".into()), Err(QuotaError::HasParts("org".into())));
        tree.remove(&"y".into()).unwrap();
        assert_eq!(tree.runtime("x", "cpu"), 60);
    }
}
