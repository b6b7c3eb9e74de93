use crate::harness::{Cluster, meta};
use crate::{Config, Control};
use model::effect::{Made, Receipt, Refusal};
use model::{Effect, Event, Kind, Object, Timestamp};
use std::sync::Arc;

/// A control that knows one replica set of three, and nothing of its pods.
fn control() -> (Control, Vec<crate::Order>, Timestamp) {
    let mut cluster = Cluster::new(1);
    let template = cluster.template("web", "1");
    let set = model::ReplicaSet {
        meta: meta("default", "web", 1),
        replicas: 3,
        selector: model::LabelSelector::from_labels(&template.labels),
        template,
        ..model::ReplicaSet::default()
    };
    let mut control = Control::new(Config::default());
    let now = Timestamp::from_secs(10);
    let mut events: Vec<Event> = Kind::TYPED.iter().map(|kind| Event::Synced(*kind)).collect();
    events.push(Event::Applied(Object::ReplicaSet(Arc::new(set))));
    let orders = control.step(&events, now);
    (control, orders, now)
}

fn creations(orders: &[crate::Order]) -> usize {
    orders.iter().filter(|order| matches!(&order.effect, Effect::Create(_, body) if body.kind() == Kind::Pod)).count()
}

fn receipt(order: u64, outcome: Result<Made, Refusal>) -> Event {
    Event::Done(Receipt { order, outcome })
}

fn refusal(code: u16) -> Refusal {
    Refusal { code, reason: "Forbidden".into(), message: "exceeded quota".into() }
}

#[test]
fn nothing_is_ordered_twice_while_the_outcome_is_not_seen() {
    let (mut control, orders, now) = control();
    assert_eq!(creations(&orders), 1, "slow start");
    for order in orders.iter().filter(|order| order.id != 0) {
        let again = control.step(&[receipt(order.id, Ok(Made { revision: 50 }))], now);
        assert_eq!(creations(&again), 0, "made, but not seen yet");
    }
    assert_eq!(creations(&control.step(&[], now.plus_ms(20_000))), 0);
    // The watch never shows it: after its time the control looks again and makes the next.
    let later: usize = (31..40).map(|s| creations(&control.step(&[], now.plus_ms(s * 1000)))).sum();
    assert_eq!(later, 1);
}

#[test]
fn a_refusal_is_backed_off_from_and_told() {
    let (mut control, orders, now) = control();
    let refused: Vec<Event> =
        orders.iter().filter(|order| order.id != 0).map(|order| receipt(order.id, Err(refusal(403)))).collect();
    assert!(control.step(&refused, now).is_empty());
    let mut at = now;
    let mut gaps = Vec::new();
    for _ in 0..6 {
        let wake = control.next_wakeup().expect("a retry is due");
        gaps.push(wake.since_ms(at));
        at = wake;
        let orders = control.step(&[], at);
        assert_eq!(creations(&orders), 1);
        let told = orders
            .iter()
            .any(|order| matches!(&order.effect, Effect::Record(record) if &*record.reason == "FailedCreate"));
        let failing = orders.iter().any(|order| matches!(&order.effect, Effect::PatchStatus(_, model::effect::Status::ReplicaSet(status)) if status.conditions.iter().any(|c| &*c.reason == "FailedCreate")));
        assert!(told && failing);
        let refused: Vec<Event> =
            orders.iter().filter(|order| order.id != 0).map(|order| receipt(order.id, Err(refusal(403)))).collect();
        control.step(&refused, at);
    }
    assert_eq!(gaps, [20, 40, 80, 160, 320, 640]);
}

#[test]
fn a_stale_fact_changes_nothing() {
    let mut world = crate::world::World::default();
    let node = |revision: u64| {
        Event::Applied(Object::Node(Arc::new(model::Node { meta: meta("", "n", revision), ..model::Node::default() })))
    };
    assert!(world.apply(&node(5)).is_ok());
    assert!(world.apply(&node(4)).is_err());
    assert!(world.apply(&node(6)).is_ok());
    let gone = Event::Deleted { kind: Kind::Node, key: model::Key::new("", "n"), uid: "uid--n".into(), revision: 9 };
    assert!(world.apply(&gone).is_ok_and(|old| old.is_some()));
    assert!(world.apply(&node(8)).is_err(), "it was deleted after that");
    assert!(world.apply(&node(10)).is_ok(), "a namesake");
}

#[test]
fn the_same_facts_give_the_same_orders() {
    let run = || {
        let mut cluster = Cluster::new(3);
        for name in ["a", "b", "c"] {
            let deployment = cluster.new_deployment(name, 5);
            cluster.put(deployment);
        }
        cluster.run(10);
        cluster.orders
    };
    assert_eq!(run(), run());
}
