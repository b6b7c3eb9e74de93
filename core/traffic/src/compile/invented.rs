//! Addresses for services that have none: out of 240.240.0.0/16, as Istio's, which never leave a node.
//!
//! A name decides where an address is looked for, so that it is the same after a restart. Where two names meet the older object has the
//! place and the younger one takes the next that is free, as if all had come in the order of their age: what an object gets does not
//! depend on the order in which objects came to be known, and one that comes or goes moves younger ones next to it at most. An address that
//! somebody asked for by itself is nobody else's, however old.

use model::map::stable_hash;
use model::{Key, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

/// Last bytes that an address may have: neither 0 nor 255.
const IN_A_BLOCK: u32 = 254;
const PLACES: u32 = 256 * IN_A_BLOCK;

/// Age, then name.
type Rank = (Timestamp, Key);

/// Who has which address: a table with linear probing, in which whoever is older goes first.
#[derive(Debug)]
pub(super) struct Invented {
    places: u32,
    by_place: BTreeMap<u32, Rank>,
    by_key: BTreeMap<Key, u32>,
    /// Places whose addresses were asked for, and by how many.
    reserved: BTreeMap<u32, u32>,
    /// Those for whom there is none.
    waiting: BTreeSet<Rank>,
}

impl Default for Invented {
    fn default() -> Self {
        Self {
            places: PLACES,
            by_place: BTreeMap::new(),
            by_key: BTreeMap::new(),
            reserved: BTreeMap::new(),
            waiting: BTreeSet::new(),
        }
    }
}

impl Invented {
    /// The address of a service. None: all are taken.
    pub(super) fn address(&self, key: &Key) -> Option<IpAddr> {
        let place = self.by_key.get(key)?;
        Some(Ipv4Addr::from([240, 240, (place / IN_A_BLOCK) as u8, (place % IN_A_BLOCK) as u8 + 1]).into())
    }

    /// Somebody needs an address. Gives those that have another one now, beside it.
    pub(super) fn insert(&mut self, created: Timestamp, key: &Key) -> BTreeSet<Key> {
        let mut carried = (created, key.clone());
        if self.by_key.get(key).is_some_and(|place| self.by_place.get(place) == Some(&carried)) {
            return BTreeSet::new();
        }
        let mut moved = self.remove(key);
        if (self.by_place.len() + self.reserved.len()) as u32 == self.places {
            // The youngest goes without.
            let youngest = self.by_place.values().max().cloned();
            match youngest.filter(|youngest| *youngest > carried) {
                None => {
                    self.waiting.insert(carried);
                    return moved;
                }
                Some(youngest) => {
                    moved.extend(self.take_out(&youngest.1));
                    moved.insert(youngest.1.clone());
                    self.waiting.insert(youngest);
                }
            }
        }
        let mut place = self.home(&carried.1);
        loop {
            if self.reserved.contains_key(&place) {
                place = self.after(place);
                continue;
            }
            let there = self.by_place.get_mut(&place);
            self.by_key.insert(carried.1.clone(), place);
            match there {
                None => {
                    self.by_place.insert(place, carried);
                    break;
                }
                Some(there) if *there > carried => {
                    std::mem::swap(there, &mut carried);
                    moved.insert(carried.1.clone());
                }
                Some(_) => {}
            }
            place = self.after(place);
        }
        moved.remove(key);
        moved
    }

    /// Somebody needs none any more. Gives those that have another one now.
    pub(super) fn remove(&mut self, key: &Key) -> BTreeSet<Key> {
        self.waiting.retain(|(_, waits)| waits != key);
        if !self.by_key.contains_key(key) {
            return BTreeSet::new();
        }
        let mut moved = self.take_out(key);
        if let Some((created, next)) = self.waiting.pop_first() {
            moved.extend(self.insert(created, &next));
            moved.insert(next);
        }
        moved
    }

    /// Somebody asks for addresses, whichever they are, or (`taken` false) does not any more what it asked for before. Gives those that have
    /// another one now.
    pub(super) fn reserve(&mut self, addresses: &[IpAddr], taken: bool) -> BTreeSet<Key> {
        let mut changed = false;
        let places: Vec<u32> = addresses.iter().filter_map(|address| self.place_of(*address)).collect();
        for place in places {
            let count = self.reserved.get(&place).copied().unwrap_or(0);
            let now = if taken { count + 1 } else { count.saturating_sub(1) };
            changed |= (count == 0) != (now == 0);
            if now == 0 {
                self.reserved.remove(&place);
            } else {
                self.reserved.insert(place, now);
            }
        }
        if changed { self.settle_all() } else { BTreeSet::new() }
    }

    fn place_of(&self, address: IpAddr) -> Option<u32> {
        let IpAddr::V4(address) = address else { return None };
        let [240, 240, block, last] = address.octets() else { return None };
        let place = u32::from(block) * IN_A_BLOCK + u32::from(last).checked_sub(1)?;
        (u32::from(last) <= IN_A_BLOCK && place < self.places).then_some(place)
    }

    /// Puts all anew, in the order of their age: rare, and whole.
    fn settle_all(&mut self) -> BTreeSet<Key> {
        let before = std::mem::take(&mut self.by_key);
        let mut all = std::mem::take(&mut self.waiting);
        all.extend(std::mem::take(&mut self.by_place).into_values());
        for (created, key) in all {
            self.insert(created, &key);
        }
        let keys = before.keys().chain(self.by_key.keys());
        keys.filter(|key| before.get(*key) != self.by_key.get(*key)).cloned().collect()
    }

    /// Takes one out, and puts those anew that may have been moved on by it: all up to the next free place.
    fn take_out(&mut self, key: &Key) -> BTreeSet<Key> {
        let Some(begin) = self.by_key.remove(key) else { return BTreeSet::new() };
        self.by_place.remove(&begin);
        let mut run: BTreeMap<Rank, u32> = BTreeMap::new();
        let mut place = self.after(begin);
        // A reserved place is passed by as one that is taken is; `begin` is free, so there is an end.
        loop {
            match self.by_place.remove(&place) {
                Some(rank) => drop(run.insert(rank, place)),
                None if self.reserved.contains_key(&place) => {}
                None => break,
            }
            place = self.after(place);
        }
        let mut moved = BTreeSet::new();
        for (rank, before) in run {
            let mut place = self.home(&rank.1);
            while self.by_place.contains_key(&place) || self.reserved.contains_key(&place) {
                place = self.after(place);
            }
            if place != before {
                self.by_key.insert(rank.1.clone(), place);
                moved.insert(rank.1.clone());
            }
            self.by_place.insert(place, rank);
        }
        moved
    }

    fn home(&self, key: &Key) -> u32 {
        (stable_hash(key.to_string().as_bytes()) % u64::from(self.places)) as u32
    }

    fn after(&self, place: u32) -> u32 {
        (place + 1) % self.places
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u32) -> Key {
        Key::new("apps", format!("entry-{number}"))
    }

    /// Everybody in the order of age, each at the first free place.
    fn slowly(places: u32, reserved: &BTreeSet<u32>, all: &BTreeSet<Rank>) -> BTreeMap<Key, u32> {
        let table = Invented { places, ..Invented::default() };
        let mut taken = BTreeMap::new();
        for (_, key) in all.iter().take(places as usize - reserved.len()) {
            let free = (0..places).map(|step| (table.home(key) + step) % places);
            let free = free.into_iter().find(|place| !taken.contains_key(place) && !reserved.contains(place)).unwrap();
            taken.insert(free, key.clone());
        }
        taken.into_iter().map(|(place, key)| (key, place)).collect()
    }

    fn address(place: u32) -> IpAddr {
        Ipv4Addr::from([240, 240, (place / IN_A_BLOCK) as u8, (place % IN_A_BLOCK) as u8 + 1]).into()
    }

    #[test]
    fn the_same_whatever_the_order() {
        for places in [1, 2, 7, 16, 61] {
            let mut table = Invented { places, ..Invented::default() };
            let mut all: BTreeSet<Rank> = BTreeSet::new();
            let mut reserved: BTreeSet<u32> = BTreeSet::new();
            let mut state = u64::from(places);
            for step in 0..2_000 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let (number, age) = ((state >> 33) as u32 % 40, (state >> 45) as i64 % 5);
                let before = table.by_key.clone();
                let moved = if state >> 60 < 2 {
                    let place = number % places;
                    let taken = reserved.insert(place) || !reserved.remove(&place);
                    table.reserve(&[address(place)], taken)
                } else {
                    all.retain(|(_, has)| *has != key(number));
                    let mut moved = if state >> 60 < 7 {
                        table.remove(&key(number))
                    } else {
                        all.insert((Timestamp(age), key(number)));
                        table.insert(Timestamp(age), &key(number))
                    };
                    moved.insert(key(number));
                    moved
                };
                assert_eq!(table.by_key, slowly(places, &reserved, &all), "{places} places, step {step}");
                for other in (0..40).map(key).filter(|other| !moved.contains(other)) {
                    assert_eq!(table.by_key.get(&other), before.get(&other), "{other} was moved, and nobody was told");
                }
            }
        }
    }

    #[test]
    fn what_is_asked_for_is_counted_and_only_what_can_be_given() {
        let mut table = Invented::default();
        table.insert(Timestamp(1), &key(1));
        let own = table.address(&key(1)).unwrap();
        let outside =
            ["240.240.7.0", "240.240.7.255", "240.241.0.1", "10.0.0.1", "fd00::1"].map(|it| it.parse().unwrap());
        assert!(table.reserve(&outside, true).is_empty() && table.reserved.is_empty());
        assert_eq!(table.reserve(&[own, own], true), BTreeSet::from([key(1)]));
        assert_ne!(table.address(&key(1)), Some(own));
        assert!(table.reserve(&[own], false).is_empty(), "another still asks for it");
        assert_eq!(table.reserve(&[own], false), BTreeSet::from([key(1)]));
        assert_eq!(table.address(&key(1)), Some(own));
    }

    #[test]
    fn addresses_are_of_the_block_and_each_is_given_once() {
        let mut table = Invented::default();
        let mut given = BTreeSet::new();
        for number in 0..5_000 {
            table.insert(Timestamp(i64::from(number)), &key(number));
        }
        for number in 0..5_000 {
            let Some(IpAddr::V4(address)) = table.address(&key(number)) else { panic!() };
            assert!(address.octets()[..2] == [240, 240] && !matches!(address.octets()[3], 0 | 255), "{address}");
            assert!(given.insert(address), "{address} twice");
        }
    }
}
