//! Who may hold a connection to the port. A certificate has shown who somebody is; whoever has none can only join, which is soon done: there is room
//! for few of them, from one address for fewer, and not for long.

use model::map::HashMap;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Connections at once of those who showed a certificate.
const KNOWN: usize = 8_192;
/// Connections in their handshake: in all, and from one address, behind which there may be many nodes. Where there are that many in all, the next
/// takes the place of another.
const GREETING: (usize, usize) = (4_096, 1_024);
/// Connections of those who showed none: in all, and from one address.
const ANONYMOUS: (usize, usize) = (256, 32);

/// Counts connections.
#[derive(Debug, Default)]
pub struct Doorkeeper(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    known: usize,
    greeting: Greeting,
    anonymous: Unknown,
}

/// Those of whom only the address is known.
#[derive(Debug, Default)]
struct Unknown {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

impl Unknown {
    fn enter(&mut self, address: IpAddr, (most, most_of_one): (usize, usize)) -> bool {
        let of_one = self.by_address.get(&address).copied().unwrap_or_default();
        let fits = self.total < most && of_one < most_of_one;
        if fits {
            self.total += 1;
            self.by_address.insert(address, of_one + 1);
        }
        fits
    }

    fn leave(&mut self, address: IpAddr) {
        self.total -= 1;
        if let Some(of_one) = self.by_address.get_mut(&address) {
            *of_one -= 1;
            if *of_one == 0 {
                self.by_address.remove(&address);
            }
        }
    }
}

/// Those in their handshake. Who means to say who he is does so in a moment; who holds many places and is slow with the first of them makes way.
#[derive(Debug, Default)]
struct Greeting {
    total: usize,
    /// By their numbers, which are given out in order: the least is of the oldest.
    by_address: HashMap<IpAddr, BTreeMap<u64, Arc<Notify>>>,
    next: u64,
}

impl Greeting {
    fn enter(&mut self, address: IpAddr) -> Option<Place> {
        if self.by_address.get(&address).is_some_and(|held| held.len() >= GREETING.1) {
            return None;
        }
        if self.total >= GREETING.0 {
            self.make_room();
        }
        let place = Place { number: self.next, taken: Arc::default() };
        self.next += 1;
        self.total += 1;
        self.by_address.entry(address).or_default().insert(place.number, place.taken.clone());
        Some(place)
    }

    /// Of the address that holds most the oldest goes.
    fn make_room(&mut self) {
        let oldest = |(address, held): (&IpAddr, &BTreeMap<u64, _>)| {
            held.first_key_value().map(|(number, _)| (held.len(), Reverse(*number), *address))
        };
        if let Some((_, Reverse(number), address)) = self.by_address.iter().filter_map(oldest).max()
            && let Some(taken) = self.leave(address, number)
        {
            taken.notify_one();
        }
    }

    /// Nothing, if its place was taken before.
    fn leave(&mut self, address: IpAddr, number: u64) -> Option<Arc<Notify>> {
        let held = self.by_address.get_mut(&address)?;
        let left = held.remove(&number)?;
        if held.is_empty() {
            self.by_address.remove(&address);
        }
        self.total -= 1;
        Some(left)
    }
}

/// Of one connection in its handshake.
#[derive(Debug)]
struct Place {
    number: u64,
    /// Told when another has it.
    taken: Arc<Notify>,
}

/// What a connection is counted as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has not shown yet who it is.
    Greeting,
    /// It showed no certificate.
    Anonymous,
    /// It did.
    Known,
}

/// Room for one connection; free again with the value.
#[derive(Debug)]
pub struct Room {
    keeper: Arc<Doorkeeper>,
    address: IpAddr,
    standing: Standing,
    place: Place,
}

impl Doorkeeper {
    /// Room for a connection that begins. None: there is none.
    pub fn greet(self: &Arc<Self>, address: IpAddr) -> Option<Room> {
        let address = network(address);
        let place = self.lock().greeting.enter(address)?;
        Some(Room { keeper: self.clone(), address, standing: Standing::Greeting, place })
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Room {
    /// Returns when the connection has to go, for it took too long to say who it is. To be asked as long as that is not known.
    pub async fn taken(&self) {
        self.place.taken.notified().await;
    }

    /// It is known now who it is. False: there is no room for such.
    #[must_use]
    pub fn becomes(&mut self, standing: Standing) -> bool {
        let mut counts = self.keeper.lock();
        let fits = match standing {
            Standing::Greeting => return standing == self.standing,
            Standing::Anonymous => counts.anonymous.enter(self.address, ANONYMOUS),
            Standing::Known if counts.known < KNOWN => {
                counts.known += 1;
                true
            }
            Standing::Known => false,
        };
        if fits {
            counts.leave(self);
            drop(counts);
            self.standing = standing;
        }
        fits
    }
}

impl Counts {
    fn leave(&mut self, room: &Room) {
        match room.standing {
            Standing::Greeting => drop(self.greeting.leave(room.address, room.place.number)),
            Standing::Anonymous => self.anonymous.leave(room.address),
            Standing::Known => self.known -= 1,
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.keeper.lock().leave(self);
    }
}

/// Whom an address stands for: who has one of IPv6 has a whole /64 of them.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from(u128::from(v6) & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn enter(keeper: &Arc<Doorkeeper>, address: &str, standing: Standing) -> Option<Room> {
        let mut room = keeper.greet(address.parse().expect("an address"))?;
        room.becomes(standing).then_some(room)
    }

    #[test]
    fn strangers_leave_room_for_each_other_and_for_all_who_are_known() {
        let keeper = Arc::new(Doorkeeper::default());
        let fill = |address: &str| -> Vec<Room> {
            std::iter::from_fn(|| enter(&keeper, address, Standing::Anonymous)).collect()
        };
        let one = fill("203.0.113.1");
        assert_eq!(one.len(), ANONYMOUS.1);
        // One /64 is one, however many addresses it uses.
        let mut many: Vec<Room> = fill("2001:db8::1");
        assert!(enter(&keeper, "2001:db8::2", Standing::Anonymous).is_none());
        for last in 2..=255 {
            many.extend(fill(&format!("203.0.113.{last}")));
        }
        assert_eq!(one.len() + many.len(), ANONYMOUS.0);
        assert!(enter(&keeper, "198.51.100.1", Standing::Anonymous).is_none());
        let known: Vec<Room> = (0..KNOWN).map_while(|_| enter(&keeper, "203.0.113.1", Standing::Known)).collect();
        assert_eq!(known.len(), KNOWN, "also from an address of strangers");
        drop((one, many, known));
        let counts = keeper.lock();
        assert_eq!((counts.known, counts.greeting.total, counts.anonymous.total), (0, 0, 0));
        assert!(counts.greeting.by_address.is_empty() && counts.anonymous.by_address.is_empty());
    }

    #[test]
    fn who_says_nothing_holds_what_one_address_may() {
        let keeper = Arc::new(Doorkeeper::default());
        let address = "203.0.113.1".parse().expect("an address");
        let held: Vec<Room> = std::iter::from_fn(|| keeper.greet(address)).collect();
        assert_eq!(held.len(), GREETING.1);
        assert!(enter(&keeper, "203.0.113.2", Standing::Known).is_some());
    }

    /// Four addresses that open connections and say nothing closed the port to everybody.
    #[test]
    fn who_hold_all_places_and_say_nothing_make_way() {
        let keeper = Arc::new(Doorkeeper::default());
        let greet = |address: &str| keeper.greet(address.parse().expect("an address"));
        let slow = greet("198.51.100.1").expect("a slow node");
        let fill = |last: usize| -> Vec<Room> { std::iter::from_fn(|| greet(&format!("203.0.113.{last}"))).collect() };
        let silent: Vec<Vec<Room>> = (1..=GREETING.0 / GREETING.1).map(fill).collect();
        assert_eq!(keeper.lock().greeting.total, GREETING.0);

        let mut nodes: Vec<Room> = (1..=7).filter_map(|last| greet(&format!("192.0.2.{last}"))).collect();
        assert_eq!(nodes.len(), 7, "there is room for who has none");
        let is_taken = |room: &Room| room.taken().now_or_never().is_some();
        assert!(!is_taken(&slow), "whoever holds few keeps them");
        for held in &silent {
            let taken: Vec<bool> = held.iter().map(is_taken).collect();
            assert!(taken[..2].iter().all(|taken| *taken) && !taken[2..].contains(&true), "the oldest of each in turn");
        }
        assert_eq!(keeper.lock().greeting.total, GREETING.0);

        // One that is told to go may have got so far in that moment.
        let mut late = silent.into_iter().flatten().next().expect("a connection");
        assert!(late.becomes(Standing::Known) && nodes[0].becomes(Standing::Known));
        drop((slow, late, nodes));
        let counts = keeper.lock();
        assert_eq!((counts.known, counts.greeting.total), (0, 0));
        assert!(counts.greeting.by_address.is_empty());
    }
}
