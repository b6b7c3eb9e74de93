//! Who may hold a connection to the port. A certificate has shown who somebody is; whoever has none can only join, which is soon done: there is room
//! for few of them, from one address for fewer, and not for long.

use model::map::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Connections at once of those who showed a certificate.
const KNOWN: usize = 8_192;
/// Connections in their handshake: in all, and from one address, behind which there may be many nodes.
const GREETING: (usize, usize) = (4_096, 1_024);
/// Connections of those who showed none: in all, and from one address.
const ANONYMOUS: (usize, usize) = (256, 32);

/// Counts connections.
#[derive(Debug, Default)]
pub struct Doorkeeper(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    known: usize,
    greeting: Unknown,
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
}

impl Doorkeeper {
    /// Room for a connection that begins. None: there is none.
    pub fn greet(self: &Arc<Self>, address: IpAddr) -> Option<Room> {
        let address = network(address);
        let fits = self.lock().greeting.enter(address, GREETING);
        fits.then(|| Room { keeper: self.clone(), address, standing: Standing::Greeting })
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Room {
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
            counts.leave(self.standing, self.address);
            self.standing = standing;
        }
        fits
    }
}

impl Counts {
    fn leave(&mut self, standing: Standing, address: IpAddr) {
        match standing {
            Standing::Greeting => self.greeting.leave(address),
            Standing::Anonymous => self.anonymous.leave(address),
            Standing::Known => self.known -= 1,
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.keeper.lock().leave(self.standing, self.address);
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
}
