//! Taking back what was lent: pods of quotas that use more than they may now have to go when a quota that asks for it has less than it
//! is sure of. Victims are data; evicting them, under their budgets, is elsewhere.

use super::{Amounts, QuotaTree, Sums, add, at};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// A placed pod of a quota, that may be evicted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Borrower<T> {
    /// The pod.
    pub pod: T,
    /// Its quota, which has no parts.
    pub quota: Arc<str>,
    /// What it asks for.
    pub amounts: Amounts,
    /// Its priority.
    pub priority: i32,
    /// When it started, in microseconds.
    pub started: i64,
}

/// A pod that has to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reclaimed<T> {
    /// The pod.
    pub pod: T,
    /// The quota that borrowed.
    pub from: Arc<str>,
    /// The quota that has less than it is sure of.
    pub to: Arc<str>,
}

impl<T> fmt::Display for Reclaimed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "quota {} takes back what quota {} borrowed", self.to, self.from)
    }
}

impl QuotaTree {
    /// Quotas without parts that ask for more than they have, and have less than they are sure of: how much of that is missing.
    pub fn unmet(&self) -> Vec<(Arc<str>, Amounts)> {
        let leaves = self.entries.values().filter(|entry| self.parts(Some(&entry.quota.name)).next().is_none());
        let missing = |(resource, min): (&Arc<str>, &i64), demand: &Sums, used: &Sums| {
            let missing = (*min).min(at(demand, resource)) - at(used, resource);
            (missing > 0).then(|| (resource.clone(), missing))
        };
        leaves
            .map(|entry| {
                let missing = entry.min.iter().filter_map(|min| missing(min, &entry.demand, &entry.used)).collect();
                (entry.quota.name.clone(), missing)
            })
            .filter(|(_, missing): &(_, Amounts)| !missing.is_empty())
            .collect()
    }

    /// Which pods have to go so that every quota gets what it is sure of. What nobody uses counts first. Then pods of quotas that use
    /// more than they may ([`QuotaTree::owed`]): from the same parent before from further away, the least important first, of
    /// these the one that started last (ties by `T`). Those that turn out not to be needed are spared, the most important first.
    /// A quota gives only while it has too much, though its last pod may take it below that.
    pub fn reclaim<T: Ord + Clone>(&self, borrowers: &[Borrower<T>]) -> Vec<Reclaimed<T>> {
        let unmet = self.unmet();
        if unmet.is_empty() {
            return Vec::new();
        }
        let mut over: BTreeMap<Arc<str>, Sums> =
            self.owed().into_iter().map(|(name, over)| (name, over.into_iter().collect())).collect();
        let mut free = self.capacity.clone();
        for entry in self.parts(None) {
            let used: Amounts = entry.used.clone().into_iter().collect();
            add(&mut free, &used, -1);
        }
        let mut order: Vec<usize> = (0..borrowers.len()).collect();
        order.sort_by_key(|at| {
            let borrower = &borrowers[*at];
            (borrower.priority, Reverse(borrower.started), borrower.pod.clone())
        });
        let (mut gone, mut reclaimed) = (BTreeSet::new(), Vec::new());
        for (quota, missing) in unmet {
            let need = missing_after(missing, &mut free);
            let (victims, got) = self.victims_for(&quota, &need, borrowers, &order, &gone, &mut over);
            // What is more than needed is there for the next.
            for (resource, amount) in got {
                let beyond = (amount - at(&need, &resource)).max(0);
                *free.entry(resource).or_insert(0) += beyond;
            }
            for victim in victims {
                gone.insert(victim);
                let borrower = &borrowers[victim];
                reclaimed.push(Reclaimed {
                    pod: borrower.pod.clone(),
                    from: borrower.quota.clone(),
                    to: quota.clone(),
                });
            }
        }
        reclaimed
    }

    fn victims_for<T>(
        &self,
        quota: &Arc<str>,
        need: &Sums,
        borrowers: &[Borrower<T>],
        order: &[usize],
        gone: &BTreeSet<usize>,
        over: &mut BTreeMap<Arc<str>, Sums>,
    ) -> (Vec<usize>, Sums) {
        let short = |got: &Sums| need.iter().any(|(resource, need)| at(got, resource) < *need);
        let helps = |amounts: &Amounts, got: &Sums, over: &Sums| {
            let wanted = |resource: &Arc<str>| at(got, resource) < at(need, resource) && at(over, resource) > 0;
            amounts.iter().any(|(resource, amount)| *amount > 0 && wanted(resource))
        };
        let (mut got, mut victims) = (Sums::new(), Vec::new());
        let path = self.path(quota);
        let above = path.iter().skip(1).cloned().map(Some).chain([None]);
        for ancestor in above {
            for index in order {
                let borrower = &borrowers[*index];
                let inside = ancestor.as_ref().is_none_or(|name| self.path(&borrower.quota).contains(name));
                let Some(too_much) = over.get_mut(&borrower.quota).filter(|_| inside) else { continue };
                let known = gone.contains(index) || victims.contains(index);
                if short(&got) && !known && helps(&borrower.amounts, &got, too_much) {
                    add(&mut got, &borrower.amounts, 1);
                    add(too_much, &borrower.amounts, -1);
                    victims.push(*index);
                }
            }
        }
        let rank = |index: &usize| order.iter().position(|at| at == index);
        let mut spare = victims.clone();
        spare.sort_by_key(|index| Reverse(rank(index)));
        for index in spare {
            let borrower = &borrowers[index];
            let needed = borrower.amounts.iter().any(|(resource, amount)| {
                *amount > 0 && at(need, resource) > 0 && at(&got, resource) - amount < at(need, resource)
            });
            if !needed {
                add(&mut got, &borrower.amounts, -1);
                if let Some(too_much) = over.get_mut(&borrower.quota) {
                    add(too_much, &borrower.amounts, 1);
                }
                victims.retain(|victim| *victim != index);
            }
        }
        (victims, got)
    }
}

/// What is missing beyond what nobody uses, which is used up by it.
fn missing_after(missing: Amounts, free: &mut Sums) -> Sums {
    let mut need = Sums::new();
    for (resource, amount) in missing {
        let unused = at(free, &resource).max(0).min(amount);
        *free.entry(resource.clone()).or_insert(0) -= unused;
        if amount > unused {
            need.insert(resource, amount - unused);
        }
    }
    need
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quota::Quota;

    fn cpu(amount: i64) -> Amounts {
        vec![("cpu".into(), amount)]
    }

    fn tree(capacity: i64, quotas: &[(&str, Option<&str>, i64)]) -> QuotaTree {
        let mut tree = QuotaTree::new(cpu(capacity));
        for (name, parent, min) in quotas {
            let parent = parent.map(Arc::from);
            tree.set(Quota { name: (*name).into(), parent, min: cpu(*min), max: Vec::new(), weight: 1 }).unwrap();
        }
        tree
    }

    fn place(tree: &mut QuotaTree, quota: &str, pod: u32, amount: i64, priority: i32) -> Borrower<u32> {
        tree.demand(quota, &cpu(amount), 1);
        tree.place(quota, &cpu(amount), 1);
        let started = i64::from(pod);
        Borrower { pod, quota: quota.into(), amounts: cpu(amount), priority, started }
    }

    #[test]
    fn what_was_lent_comes_back_from_the_least_important() {
        let mut tree = tree(100, &[("a", None, 40), ("b", None, 60)]);
        let placed: Vec<Borrower<u32>> = [(1, 20, 5), (2, 20, 0), (3, 20, 0), (4, 40, 9)]
            .map(|(pod, amount, priority)| place(&mut tree, "a", pod, amount, priority))
            .into();
        assert_eq!(tree.reclaim(&placed), vec![], "nobody asks for it");
        tree.demand("b", &cpu(30), 1);
        let victims = tree.reclaim(&placed);
        let told: Vec<(u32, String)> = victims.iter().map(|victim| (victim.pod, victim.to_string())).collect();
        let text = "quota b takes back what quota a borrowed".to_owned();
        assert_eq!(told, [(3, text.clone()), (2, text)], "the one that started last first");
        // More than it is sure of is nobody's to take.
        tree.demand("b", &cpu(70), 1);
        assert_eq!(tree.reclaim(&placed).iter().map(|victim| victim.pod).collect::<Vec<_>>(), [3, 2, 1]);
    }

    #[test]
    fn the_family_gives_before_strangers_and_the_unneeded_are_spared() {
        let quotas = [("org", None, 60), ("x", Some("org"), 30), ("y", Some("org"), 30), ("z", None, 40)];
        let mut tree = tree(100, &quotas);
        let mut placed = vec![place(&mut tree, "z", 1, 40, 0), place(&mut tree, "z", 2, 10, 0)];
        placed.push(place(&mut tree, "y", 3, 10, 0));
        placed.push(place(&mut tree, "y", 4, 40, 1));
        tree.demand("x", &cpu(30), 1);
        // Of y, 3 and 4: 3 is less important, but with 4 gone it is not needed. z owes 10 and may keep it.
        assert_eq!(tree.owed(), [("y".into(), cpu(20)), ("z".into(), cpu(10))]);
        assert_eq!(tree.reclaim(&placed).iter().map(|victim| victim.pod).collect::<Vec<_>>(), [4]);
    }

    #[test]
    fn takes_no_more_than_is_missing_and_only_from_those_who_owe() {
        for seed in 0..3000u64 {
            let mut state = seed * 31 + 7;
            let mut roll = |below: u64| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                ((state >> 33) % below) as i64
            };
            let names = ["a", "b", "c"];
            let mut tree = tree(60, &[("a", None, roll(20)), ("b", None, roll(20)), ("c", None, roll(20))]);
            let (mut placed, mut used) = (Vec::new(), 0);
            for pod in 0..8 {
                let amount = 1 + roll(12);
                if used + amount <= 60 {
                    used += amount;
                    placed.push(place(&mut tree, names[roll(3) as usize], pod, amount, roll(3) as i32));
                }
            }
            tree.demand(names[roll(3) as usize], &cpu(roll(30)), 1);
            let missing: i64 = tree.unmet().iter().map(|(_, missing)| missing[0].1).sum();
            let need = (missing - (60 - used)).max(0);
            let owed: BTreeMap<Arc<str>, i64> = tree.owed().into_iter().map(|(name, over)| (name, over[0].1)).collect();
            let victims = tree.reclaim(&placed);
            let amount = |pod: u32| placed.iter().find(|b| b.pod == pod).map_or(0, |b| b.amounts[0].1);
            let got: i64 = victims.iter().map(|victim| amount(victim.pod)).sum();
            assert!(victims.iter().all(|v| owed.contains_key(&v.from) && v.from != v.to), "seed {seed}");
            assert!(got >= need.min(owed.values().sum()), "seed {seed}: {got} of {need}");
            for victim in victims.iter().filter(|_| tree.unmet().len() == 1) {
                assert!(got - amount(victim.pod) < need, "seed {seed}: {} could stay", victim.pod);
            }
        }
    }
}
