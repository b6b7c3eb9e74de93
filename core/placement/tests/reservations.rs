//! Reservations: who gets what is held, and that nothing is given away twice.

use diolkos_placement::{Cause, Decision, Move, NodeId, PodId, Pool, ReservationState};
use model::scheduling::{Amounts, NodeFacts, NodeScheduling, PodFacts, Reservation, ReservationOwner, SchedulingSpec};
use model::{LabelSelector, Labels, Timestamp};
use std::sync::Arc;

fn cpu(milli: i64) -> Amounts {
    vec![("cpu".into(), milli)]
}

fn spec(milli: i64, priority: i32) -> Arc<SchedulingSpec> {
    Arc::new(SchedulingSpec { requests: cpu(milli), nominal: (milli, 0), priority, ..SchedulingSpec::default() })
}

fn labels(app: &str) -> Labels {
    Labels::from([("app".into(), app.into())])
}

fn pool(nodes: &[i64]) -> Pool {
    let mut pool = Pool::new();
    for (n, milli) in nodes.iter().enumerate() {
        let allocatable = vec![("cpu".into(), *milli), ("pods".into(), 110)];
        let scheduling = Arc::new(NodeScheduling { allocatable, ..NodeScheduling::default() });
        let name: Arc<str> = format!("n{n}").into();
        let own = Labels::from([("kubernetes.io/hostname".into(), name.clone())]);
        pool.set_node(Arc::new(NodeFacts { name, labels: own, scheduling, ..NodeFacts::default() }));
    }
    pool
}

fn pod(pool: &mut Pool, app: &str, name: &str, milli: i64) -> PodId {
    let facts = PodFacts {
        namespace: "default".into(),
        name: name.into(),
        uid: name.into(),
        labels: Arc::new(labels(app)),
        spec: spec(milli, 0),
        ..PodFacts::default()
    };
    pool.set_pod(&facts).0
}

fn reservation(name: &str, milli: i64, app: &str, allocate_once: bool) -> Reservation {
    let selector = LabelSelector::from_labels(labels(app).iter());
    Reservation {
        name: name.into(),
        namespace: "default".into(),
        template: spec(milli, 0),
        owners: vec![ReservationOwner { labels: Some(selector), ..ReservationOwner::default() }],
        allocate_once,
        ..Reservation::default()
    }
}

/// Sets a reservation and places it as a pod would be.
fn hold(pool: &mut Pool, reservation: Reservation) -> PodId {
    let id = pool.set_reservation(reservation);
    let node = pool.decide(id).node().expect("there is room");
    pool.assume(id, node);
    id
}

fn place(pool: &mut Pool, pod: PodId) -> (Option<NodeId>, Option<Arc<str>>) {
    match pool.decide(pod) {
        Decision::Place(placement) => {
            pool.assume(pod, placement.node);
            (Some(placement.node), placement.reservation)
        }
        Decision::Refuse(_) => (None, None),
    }
}

#[test]
fn what_is_held_is_its_owners() {
    let mut pool = pool(&[1000]);
    hold(&mut pool, reservation("r", 800, "web", true));
    let other = pod(&mut pool, "batch", "b", 500);
    let refused = pool.decide(other);
    let Decision::Refuse(diagnosis) = &refused else { panic!("the room is held: {refused:?}") };
    assert_eq!(diagnosis.message(), "0/1 nodes are available: 1 Insufficient cpu.");
    let help: Vec<String> = pool.what_would_help(other).iter().map(ToString::to_string).collect();
    assert_eq!(help, ["300m more cpu on node n0", "releasing reservation r on node n0"]);
    // Nobody takes it by force.
    let urgent = PodFacts {
        namespace: "default".into(),
        name: "u".into(),
        uid: "u".into(),
        spec: spec(500, 1000),
        ..PodFacts::default()
    };
    let urgent = pool.set_pod(&urgent).0;
    let Decision::Refuse(diagnosis) = pool.decide(urgent) else { panic!("the room is held") };
    let why = pool.preempt(urgent, &diagnosis).expect_err("nobody is to go");
    assert_eq!(why, "0/1 nodes are available: 1 No preemption victims found for incoming pod.");
    // Its owner has it, and more than was held.
    let owner = pod(&mut pool, "web", "w", 900);
    assert_eq!(place(&mut pool, owner), (Some(0), Some("r".into())));
    assert_eq!(pool.reservation("r"), Some((ReservationState::Taken, vec![owner])));
    assert_eq!(pool.drawn_on(owner).map(|name| &**name), Some("r"));
    // Its binding failed: it holds again. Then it comes and ends: what may be taken once is gone.
    pool.forget(owner);
    assert_eq!(pool.reservation("r"), Some((ReservationState::Available(0, cpu(800)), vec![])));
    assert_eq!(place(&mut pool, owner).0, Some(0));
    pool.remove_pod("default", "w");
    assert_eq!(pool.reservation("r"), Some((ReservationState::Taken, vec![])));
    assert_eq!(place(&mut pool, other).0, Some(0));
}

#[test]
fn what_is_left_goes_on_being_held() {
    let mut pool = pool(&[1000, 4000]);
    let id = pool.set_reservation(reservation("r", 900, "web", false));
    assert_eq!(pool.reservation("r"), Some((ReservationState::Pending, vec![])));
    pool.assume(id, 0);
    // The other node is emptier, but room is held here.
    let (a, b, c) = (pod(&mut pool, "web", "a", 400), pod(&mut pool, "web", "b", 400), pod(&mut pool, "web", "c", 400));
    assert_eq!(place(&mut pool, a), (Some(0), Some("r".into())));
    assert_eq!(place(&mut pool, b), (Some(0), Some("r".into())));
    assert_eq!(pool.reservation("r"), Some((ReservationState::Available(0, cpu(100)), vec![a, b])));
    assert_eq!(place(&mut pool, c), (Some(1), None));
    pool.remove_pod("default", "a");
    assert_eq!(pool.reservation("r"), Some((ReservationState::Available(0, cpu(500)), vec![b])));
    // Its node goes and comes again; so does what it holds.
    let node = NodeFacts {
        name: "n0".into(),
        scheduling: Arc::new(NodeScheduling {
            allocatable: vec![("cpu".into(), 1000), ("pods".into(), 110)],
            ..NodeScheduling::default()
        }),
        ..NodeFacts::default()
    };
    pool.remove_node("n0");
    assert_eq!(pool.reservation("r"), Some((ReservationState::Taken, vec![b])));
    pool.set_node(Arc::new(node));
    assert_eq!(pool.reservation("r"), Some((ReservationState::Available(0, cpu(500)), vec![b])));
}

#[test]
fn the_one_that_is_used_most_comes_first_and_time_ends_it() {
    let mut pool = pool(&[1000, 1000, 1000]);
    for (name, milli, node) in [("large", 900, 0), ("small", 450, 1), ("tiny", 100, 2)] {
        let id = pool.set_reservation(Reservation {
            expires: Some(Timestamp::from_secs(60)),
            ..reservation(name, milli, "web", true)
        });
        pool.assume(id, node);
    }
    let web = pod(&mut pool, "web", "w", 450);
    // Tiny is used to the full too, and n2 has the rest; it joined later.
    assert_eq!(place(&mut pool, web), (Some(1), Some("small".into())));
    assert_eq!(pool.next_expiry(), Some(Timestamp::from_secs(60)));
    assert_eq!(pool.expire_reservations(Timestamp::from_secs(59)), vec![]);
    let ended = pool.expire_reservations(Timestamp::from_secs(60));
    assert_eq!(ended, [("large".into(), Some(0)), ("small".into(), None), ("tiny".into(), Some(2))]);
    let other = pod(&mut pool, "batch", "b", 1000);
    assert_eq!(place(&mut pool, other).0, Some(0));
}

#[test]
fn a_move_reserves_first() {
    let mut pool = pool(&[1000, 1000]);
    let old = pod(&mut pool, "web", "old", 600);
    pool.assume(old, 0);
    let moved = Move { pod: old, from: 0, to: 1, cause: Cause::Empty };
    let facts = pool.reservation_for(&moved, "move-old".into(), Timestamp::from_secs(300));
    let id = pool.set_reservation(facts);
    pool.assume(id, moved.to);
    // Somebody comes meanwhile: not there.
    let other = pod(&mut pool, "batch", "b", 500);
    assert_eq!(place(&mut pool, other).0, None);
    pool.remove_pod("default", "old");
    let new = pod(&mut pool, "web", "new", 600);
    assert_eq!(place(&mut pool, new), (Some(1), Some("move-old".into())));
}

#[test]
fn nothing_is_given_away_twice() {
    for seed in 0..400u64 {
        let mut state = seed * 77 + 5;
        let mut roll = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % below
        };
        let sizes: Vec<i64> = (0..1 + roll(4)).map(|_| 100 * (2 + roll(10)) as i64).collect();
        let mut pool = pool(&sizes);
        for step in 0..60 {
            let name = format!("r{}", roll(3));
            let app = ["web", "batch"][roll(2) as usize];
            match roll(8) {
                0 => {
                    let facts = reservation(&name, 100 * (1 + roll(6)) as i64, app, roll(2) == 0);
                    let id = pool.set_reservation(facts);
                    if pool.pod_node(id).is_none()
                        && matches!(pool.reservation(&name), Some((ReservationState::Pending, _)))
                    {
                        place(&mut pool, id);
                    }
                }
                1 => {
                    pool.remove_reservation(&name);
                }
                2 => {
                    pool.remove_pod("default", &format!("p{}", roll(step + 1)));
                }
                3 => {
                    if let Some(id) = pool.pod_id("default", &format!("p{}", roll(step + 1))) {
                        pool.forget(id);
                    }
                }
                _ => {
                    let id = pod(&mut pool, app, &format!("p{step}"), 100 * (1 + roll(5)) as i64);
                    place(&mut pool, id);
                }
            }
            let mut used = vec![0; sizes.len()];
            for n in 0..=step {
                if let Some(id) = pool.pod_id("default", &format!("p{n}"))
                    && let Some(node) = pool.pod_node(id)
                {
                    used[node as usize] += pool.pod_requests(id)[0].1;
                }
            }
            for n in 0..3 {
                if let Some((ReservationState::Available(node, left), _)) = pool.reservation(&format!("r{n}")) {
                    used[node as usize] += left[0].1;
                }
            }
            assert!(used.iter().zip(&sizes).all(|(used, size)| used <= size), "seed {seed}: {used:?} of {sizes:?}");
        }
    }
}
