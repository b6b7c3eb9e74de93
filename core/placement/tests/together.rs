//! Making room for gangs and within quotas, against trying every set of victims.

use diolkos_placement::quota::{Quota, QuotaTree};
use diolkos_placement::{Band, Clearance, PodId, Pool};
use model::scheduling::{BudgetFacts, NodeFacts, NodeScheduling, PodFacts, SchedulingSpec};
use model::{LabelSelector, Labels, Timestamp};
use std::collections::BTreeSet;
use std::sync::Arc;

struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % below) as usize
    }
}

/// A pod that is there already.
#[derive(Clone, Debug)]
struct Low {
    id: PodId,
    node: usize,
    cpu: i64,
    priority: i32,
    guarded: bool,
    band: Option<usize>,
    leaving: bool,
}

struct Case {
    pool: Pool,
    rooms: Vec<i64>,
    lows: Vec<Low>,
    least: Vec<usize>,
    gang: Vec<PodId>,
    cpu: i64,
    min: usize,
}

const GANG: i32 = 3;

fn pod(pool: &mut Pool, name: &str, cpu: i64, priority: i32, node: &str, guarded: bool, leaving: bool) -> PodId {
    let spec = SchedulingSpec {
        requests: vec![("cpu".into(), cpu)],
        nominal: (cpu, 0),
        priority,
        ..SchedulingSpec::default()
    };
    let labels = if guarded { Labels::from([("app".into(), "guarded".into())]) } else { Labels::default() };
    let facts = PodFacts {
        namespace: "default".into(),
        uid: name.into(),
        name: name.into(),
        labels: Arc::new(labels),
        spec: Arc::new(spec),
        node: node.into(),
        terminating: leaving,
        started: (!node.is_empty()).then(|| Timestamp::from_secs(name.len() as i64)),
        ..PodFacts::default()
    };
    pool.set_pod(&facts).0
}

fn case(seed: u64) -> Case {
    let mut dice = Dice(seed * 7 + 3);
    let mut pool = Pool::new();
    let rooms: Vec<i64> = (0..1 + dice.roll(4)).map(|_| 2 + dice.roll(6) as i64).collect();
    for (n, cpu) in rooms.iter().enumerate() {
        let allocatable = vec![("cpu".into(), *cpu), ("pods".into(), 110)];
        let scheduling = Arc::new(NodeScheduling { allocatable, images: Vec::new() });
        pool.set_node(Arc::new(NodeFacts { name: format!("n{n}").into(), scheduling, ..NodeFacts::default() }));
    }
    pool.set_budget(BudgetFacts {
        namespace: "default".into(),
        name: "guard".into(),
        selector: Some(LabelSelector::from_labels(
            [("app".into(), "guarded".into())].iter().map(|(k, v): &(Arc<str>, Arc<str>)| (k, v)),
        )),
        allowed: 0,
        disrupted: Vec::new().into_iter().collect(),
    });
    let bands = dice.roll(3);
    let (mut free, mut lows) = (rooms.clone(), Vec::new());
    for at in 0..4 + dice.roll(6) {
        let (node, cpu) = (dice.roll(rooms.len() as u64), 1 + dice.roll(3) as i64);
        if free[node] < cpu {
            continue;
        }
        free[node] -= cpu;
        let (priority, guarded) = (dice.roll(5) as i32, dice.roll(4) == 0);
        let band = (bands > 0 && dice.roll(2) == 0).then(|| dice.roll(bands as u64));
        let leaving = band.is_none() && dice.roll(8) == 0;
        let id = pod(&mut pool, &format!("low{at}"), cpu, priority, &format!("n{node}"), guarded, leaving);
        lows.push(Low { id, node, cpu, priority, guarded, band, leaving });
    }
    let least = (0..bands)
        .map(|band| lows.iter().filter(|low| low.band == Some(band)).count().saturating_sub(dice.roll(2)))
        .collect();
    let (count, cpu) = (1 + dice.roll(4), 1 + dice.roll(4) as i64);
    let gang = (0..count).map(|n| pod(&mut pool, &format!("gang{n}"), cpu, GANG, "", false, false)).collect();
    Case { pool, rooms, lows, least, gang, cpu, min: 1 + dice.roll(count as u64) }
}

impl Case {
    /// How many of the gang there is room for without these.
    fn room(&self, gone: &BTreeSet<PodId>) -> usize {
        let stays = |low: &&Low| !(gone.contains(&low.id) || (low.leaving && low.priority < GANG));
        let room = |(node, cpu): (usize, &i64)| {
            let used: i64 = self.lows.iter().filter(stays).filter(|low| low.node == node).map(|low| low.cpu).sum();
            ((cpu - used) / self.cpu).max(0) as usize
        };
        self.rooms.iter().enumerate().map(room).sum()
    }

    /// Every set of pods of lower priority that breaks no gang below its minimum.
    fn sets(&self) -> Vec<BTreeSet<PodId>> {
        let may: Vec<&Low> = self.lows.iter().filter(|low| low.priority < GANG && !low.leaving).collect();
        let all = (0u32..1 << may.len()).map(|bits| {
            let taken = |(at, low): (usize, &&Low)| (bits & 1 << at != 0).then_some(low.id);
            may.iter().enumerate().filter_map(taken).collect::<BTreeSet<PodId>>()
        });
        // The most important ones are what a gang is without those beyond its minimum: all or none of them.
        let sound = |set: &BTreeSet<PodId>| {
            self.least.iter().enumerate().all(|(band, least)| {
                let mut of: Vec<&Low> = self.lows.iter().filter(|low| low.band == Some(band)).collect();
                of.sort_by_key(|low| (low.priority < GANG, !low.guarded, -low.priority, low.id));
                let goes = |low: &&&Low| set.contains(&low.id);
                let core = of[..*least].iter().filter(goes).count();
                core == 0 || of.iter().all(|low| goes(&low))
            })
        };
        all.filter(sound).collect()
    }

    fn guarded(&self, set: &BTreeSet<PodId>) -> bool {
        self.lows.iter().any(|low| low.guarded && set.contains(&low.id))
    }
    fn highest(&self, set: &BTreeSet<PodId>) -> Option<i32> {
        self.lows.iter().filter(|low| set.contains(&low.id)).map(|low| low.priority).max()
    }

    fn make_room(&mut self) -> Option<Clearance> {
        let may_go: Vec<PodId> = self.lows.iter().filter(|low| low.priority < GANG).map(|low| low.id).collect();
        let of = |band: usize| self.lows.iter().filter(move |low| low.band == Some(band)).map(|low| low.id);
        let bands: Vec<Band> = (self.least.iter().enumerate())
            .map(|(band, least)| Band { placed: of(band).collect(), least: *least })
            .collect();
        let (gang, min) = (self.gang.clone(), self.min);
        self.pool.make_room(&gang, &may_go, &bands, &mut |pool| pool.decide_gang(&gang, min))
    }
}

#[test]
fn a_gang_takes_the_least_that_lets_all_of_it_in_or_nothing() {
    let (mut found, mut free, mut none, mut fewest, mut unguarded, mut spared_guard) = (0, 0, 0, 0, 0, 0);
    for seed in 0..6000 {
        let mut case = case(seed);
        let enough = |set: &BTreeSet<PodId>| case.room(set) >= case.min;
        let sets: Vec<BTreeSet<PodId>> = case.sets().into_iter().filter(enough).collect();
        let before: Vec<_> = case.lows.iter().map(|low| case.pool.pod_node(low.id)).collect();
        let gang = case.gang.clone();
        if let Some(placed) = case.pool.decide_gang(&gang, case.min) {
            // There is room as it is: nobody asks.
            placed.iter().for_each(|(pod, _)| case.pool.forget(*pod));
            continue;
        }
        let Some(clearance) = case.make_room() else {
            assert!(sets.is_empty(), "seed {seed}: {sets:?} would do");
            none += 1;
            continue;
        };
        let after: Vec<_> = case.lows.iter().map(|low| case.pool.pod_node(low.id)).collect();
        assert_eq!(before, after, "seed {seed}: nothing is changed");
        assert!(case.gang.iter().all(|pod| case.pool.pod_node(*pod).is_none()), "seed {seed}");
        let victims: BTreeSet<PodId> = clearance.victims.iter().map(|victim| victim.pod).collect();
        assert!(clearance.placed.len() >= case.min, "seed {seed}");
        assert!(sets.contains(&victims), "seed {seed}: {victims:?} is not one of {sets:?}, {:?}", case.lows);
        // Where budgets can be kept, they are; of these sets the one whose most important pod is the least so.
        let kept: Vec<&BTreeSet<PodId>> = sets.iter().filter(|set| !case.guarded(set)).collect();
        assert_eq!(case.guarded(&victims), kept.is_empty(), "seed {seed}");
        assert_eq!(clearance.violations > 0, kept.is_empty(), "seed {seed}");
        if !kept.is_empty() {
            unguarded += 1;
            spared_guard += usize::from(kept.len() < sets.len());
            let lowest = kept.iter().map(|set| case.highest(set)).min().flatten();
            assert_eq!(case.highest(&victims), lowest, "seed {seed}");
            let among = kept.iter().filter(|set| case.highest(set) == lowest);
            fewest += usize::from(among.map(|set| set.len()).min() == Some(victims.len()));
        }
        // Nobody goes in vain.
        let less = sets.iter().find(|set| set.is_subset(&victims) && set.len() < victims.len());
        assert_eq!(less, None, "seed {seed}: {victims:?}");
        if victims.is_empty() { free += 1 } else { found += 1 }
    }
    println!("{found} {free} {none}, fewest {fewest} of {unguarded}, budgets mattered {spared_guard}");
    assert!(fewest * 100 >= unguarded * 95, "{fewest} of {unguarded}");
    assert!(found > 800 && free > 100 && none > 800 && spared_guard > 100, "{found} {free} {none} {spared_guard}");
}

#[test]
fn a_large_gang_takes_what_it_needs_without_trying_everyone() {
    let mut pool = Pool::new();
    let mut lows = Vec::new();
    for n in 0..400 {
        let allocatable = vec![("cpu".into(), 4), ("pods".into(), 110)];
        let scheduling = Arc::new(NodeScheduling { allocatable, images: Vec::new() });
        pool.set_node(Arc::new(NodeFacts { name: format!("n{n}").into(), scheduling, ..NodeFacts::default() }));
        for at in 0..2 {
            lows.push(pod(&mut pool, &format!("low{n}-{at}"), 2, n % 3, &format!("n{n}"), false, false));
        }
    }
    let gang: Vec<PodId> = (0..300).map(|n| pod(&mut pool, &format!("gang{n}"), 2, GANG, "", false, false)).collect();
    let clearance = pool.make_room(&gang, &lows, &[], &mut |pool| pool.decide_gang(&gang, 300));
    let clearance = clearance.unwrap_or_else(|| panic!("there is room"));
    assert_eq!(clearance.victims.len(), 300);
    let gone: BTreeSet<PodId> = clearance.victims.iter().map(|victim| victim.pod).collect();
    assert!(lows.iter().all(|low| pool.pod_node(*low).is_some()));
    for low in &gone {
        pool.forget(*low);
    }
    for (member, node) in &clearance.placed {
        pool.assume(*member, *node);
    }
    for node in 0..400 {
        assert!(pool.pods_on(node).count() <= 2, "{node}");
    }
}

/// Pods of two quotas; one that its quota refuses.
struct Shared {
    pool: Pool,
    tree: QuotaTree,
    lows: Vec<(Low, &'static str)>,
    rooms: Vec<i64>,
    asks: (PodId, &'static str, i64),
}

fn cpu(amount: i64) -> Vec<(Arc<str>, i64)> {
    vec![("cpu".into(), amount)]
}

fn shared(seed: u64) -> Shared {
    let mut dice = Dice(seed * 13 + 5);
    let mut pool = Pool::new();
    let rooms: Vec<i64> = (0..1 + dice.roll(3)).map(|_| 3 + dice.roll(6) as i64).collect();
    for (n, cpu) in rooms.iter().enumerate() {
        let allocatable = vec![("cpu".into(), *cpu), ("pods".into(), 110)];
        let scheduling = Arc::new(NodeScheduling { allocatable, images: Vec::new() });
        pool.set_node(Arc::new(NodeFacts { name: format!("n{n}").into(), scheduling, ..NodeFacts::default() }));
    }
    let total = rooms.iter().sum();
    let mut tree = QuotaTree::new(cpu(total));
    for name in ["red", "blue"] {
        let max = 2 + dice.roll(total as u64) as i64;
        let min = dice.roll(1 + max.min(total / 2) as u64) as i64;
        let quota = Quota { name: name.into(), parent: None, min: cpu(min), max: cpu(max), weight: 1 };
        tree.set(quota).unwrap_or_else(|error| panic!("{error}"));
    }
    let (mut free, mut lows) = (rooms.clone(), Vec::new());
    for at in 0..3 + dice.roll(6) {
        let (node, amount) = (dice.roll(rooms.len() as u64), 1 + dice.roll(3) as i64);
        let (quota, priority) = (["red", "blue"][dice.roll(2)], dice.roll(5) as i32);
        if free[node] < amount {
            continue;
        }
        free[node] -= amount;
        tree.demand(quota, &cpu(amount), 1);
        tree.place(quota, &cpu(amount), 1);
        let id = pod(&mut pool, &format!("low{at}"), amount, priority, &format!("n{node}"), false, false);
        let low = Low { id, node, cpu: amount, priority, guarded: false, band: None, leaving: false };
        lows.push((low, quota));
    }
    let (quota, amount) = (["red", "blue"][dice.roll(2)], 1 + dice.roll(4) as i64);
    tree.demand(quota, &cpu(amount), 1);
    let id = pod(&mut pool, "asks", amount, GANG, "", false, false);
    Shared { pool, tree, lows, rooms, asks: (id, quota, amount) }
}

#[test]
fn within_a_quota_the_least_that_is_enough_goes_and_nobody_of_another() {
    let (mut found, mut none, mut fewest) = (0, 0, 0);
    for seed in 0..8000 {
        let Shared { mut pool, mut tree, lows, rooms, asks: (id, quota, amount) } = shared(seed);
        if tree.admits(quota, &cpu(amount)).is_ok() {
            continue;
        }
        let may: Vec<&Low> =
            lows.iter().filter(|(low, of)| *of == quota && low.priority < GANG).map(|(low, _)| low).collect();
        let enough: Vec<BTreeSet<PodId>> = (0u32..1 << may.len())
            .map(|bits| (0..may.len()).filter(|at| bits & 1 << at != 0).map(|at| may[at].id).collect())
            .filter(|gone: &BTreeSet<PodId>| {
                let back: i64 = may.iter().filter(|low| gone.contains(&low.id)).map(|low| low.cpu).sum();
                tree.place(quota, &cpu(back), -1);
                let admitted = tree.admits(quota, &cpu(amount)).is_ok();
                tree.place(quota, &cpu(back), 1);
                let left = |node: usize| -> i64 {
                    let stays = lows.iter().filter(|(low, _)| low.node == node && !gone.contains(&low.id));
                    rooms[node] - stays.map(|(low, _)| low.cpu).sum::<i64>()
                };
                admitted && (0..rooms.len()).any(|node| left(node) >= amount)
            })
            .collect();
        let candidates: Vec<PodId> = may.iter().map(|low| low.id).collect();
        let clearance = pool.make_room(&[id], &candidates, &[], &mut |pool| {
            let gone = may.iter().filter(|low| pool.pod_node(low.id).is_none()).map(|low| low.cpu).sum();
            tree.place(quota, &cpu(gone), -1);
            let admitted = tree.admits(quota, &cpu(amount)).is_ok();
            tree.place(quota, &cpu(gone), 1);
            if admitted { pool.decide_gang(&[id], 1) } else { None }
        });
        let Some(clearance) = clearance else {
            assert!(enough.is_empty(), "seed {seed}: {enough:?} would do");
            none += 1;
            continue;
        };
        let victims: BTreeSet<PodId> = clearance.victims.iter().map(|victim| victim.pod).collect();
        assert!(enough.contains(&victims), "seed {seed}: {victims:?} is none of {enough:?}");
        assert!(!enough.iter().any(|set| set.is_subset(&victims) && set.len() < victims.len()), "seed {seed}: in vain");
        let highest = |set: &BTreeSet<PodId>| may.iter().filter(|l| set.contains(&l.id)).map(|l| l.priority).max();
        let lowest = enough.iter().map(highest).min().flatten();
        assert_eq!(highest(&victims), lowest, "seed {seed}");
        let among = enough.iter().filter(|set| highest(set) == lowest);
        fewest += usize::from(among.map(BTreeSet::len).min() == Some(victims.len()));
        found += 1;
    }
    println!("{found} {none}, fewest {fewest}");
    assert!(found > 500 && none > 500 && fewest * 100 >= found * 90, "{found} {none} {fewest}");
}
