//! Which addresses a gateway has.
//!
//! Out of a pool each gateway gets an address of its own, so that several can have the same port; on the nodes' own addresses the older
//! gateway has a port that two want. A gateway may ask for addresses: of the pool (that no other has), or of nodes.

use super::status::Condition;
use model::Key;
use model::map::stable_hash;
use model::mesh::api;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

/// A range of addresses that gateways are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressPool {
    /// First address of the range.
    pub base: Ipv4Addr,
    /// Bits that all addresses of it share, at most 30.
    pub prefix: u8,
}

impl AddressPool {
    /// Whether an address is in the range.
    pub fn contains(&self, address: IpAddr) -> bool {
        let IpAddr::V4(v4) = address else { return false };
        let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
        v4.to_bits() & mask == self.base.to_bits() & mask
    }

    /// Addresses that can be given: all but the first and the last.
    fn size(&self) -> u32 {
        (1u32 << (32 - u32::from(self.prefix.clamp(8, 30)))) - 2
    }

    fn at(&self, index: u32) -> IpAddr {
        let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
        Ipv4Addr::from_bits((self.base.to_bits() & mask) + 1 + index).into()
    }

    /// The first free address, beginning at a place that the gateway's name decides: one that is deleted and made again has the same.
    fn free(&self, key: &Key, taken: &BTreeSet<IpAddr>) -> Option<IpAddr> {
        let size = self.size();
        let begin = (stable_hash(key.to_string().as_bytes()) % u64::from(size)) as u32;
        (0..size).map(|step| self.at((begin + step) % size)).find(|address| !taken.contains(address))
    }
}

/// What a gateway was given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Given {
    /// Addresses of its own.
    pub(super) own: Vec<IpAddr>,
    /// Addresses of nodes that it asked for.
    pub(super) nodes: Vec<IpAddr>,
    /// It asked for addresses, so it has no others.
    pub(super) asked: bool,
    /// Why it has none.
    pub(super) flaw: Option<Condition>,
}

impl Given {
    /// Whether it listens on the nodes' addresses.
    pub(super) fn on_nodes(&self) -> bool {
        self.flaw.is_none() && (!self.asked || !self.nodes.is_empty())
    }
}

/// Gives addresses to gateways in their order of precedence. `before`: what each had. Who has an address keeps it.
pub(super) fn assign(
    gateways: &[&api::Gateway],
    pool: Option<AddressPool>,
    nodes: &[IpAddr],
    before: &BTreeMap<Key, Given>,
) -> BTreeMap<Key, Given> {
    let mut taken: BTreeMap<IpAddr, Key> = BTreeMap::new();
    let mut out: BTreeMap<Key, Given> = BTreeMap::new();
    let in_pool = |address: &IpAddr| pool.is_some_and(|pool| pool.contains(*address));
    for gateway in gateways {
        let mut given = asked_for(gateway, &in_pool, nodes);
        for address in std::mem::take(&mut given.own) {
            if let Some(other) = taken.get(&address) {
                let message = format!("{address} is the older Gateway {other}'s");
                given.flaw = Some(Condition::bad("Programmed", "AddressNotUsable", message));
            } else {
                taken.insert(address, gateway.meta.key.clone());
                given.own.push(address);
            }
        }
        out.insert(gateway.meta.key.clone(), given);
    }
    // Those that asked for nothing: first who had an address (or whose status says so, after a restart) keeps it.
    let asks_nothing =
        |key: &Key, out: &BTreeMap<Key, Given>| out.get(key).is_some_and(|it| !it.asked && it.flaw.is_none());
    for gateway in gateways {
        let key = &gateway.meta.key;
        if !asks_nothing(key, &out) {
            continue;
        }
        let had = before.get(key).filter(|it| !it.asked).map(|it| &it.own[..]).filter(|own| !own.is_empty());
        let had = had.unwrap_or(&gateway.given);
        if let Some(address) = had.iter().find(|address| in_pool(address) && !taken.contains_key(*address)) {
            taken.insert(*address, key.clone());
            out.entry(key.clone()).or_default().own = vec![*address];
        }
    }
    let mut taken: BTreeSet<IpAddr> = taken.into_keys().collect();
    for gateway in gateways {
        let key = &gateway.meta.key;
        if asks_nothing(key, &out)
            && out.get(key).is_some_and(|it| it.own.is_empty())
            && let Some(address) = pool.and_then(|pool| pool.free(key, &taken))
        {
            taken.insert(address);
            out.entry(key.clone()).or_default().own = vec![address];
        }
    }
    out
}

fn asked_for(gateway: &api::Gateway, in_pool: &dyn Fn(&IpAddr) -> bool, nodes: &[IpAddr]) -> Given {
    let mut given = Given::default();
    for (kind, value) in &gateway.addresses {
        if &**kind == "IPAddress" && value.is_empty() {
            continue;
        }
        let address = value.parse::<IpAddr>().ok().filter(|_| &**kind == "IPAddress");
        given.asked = true;
        match address {
            None => {
                let message = format!("address {value:?} of type {kind} is not supported");
                let flaw = Condition::bad("Accepted", "UnsupportedAddress", message);
                return Given { asked: true, flaw: Some(flaw), ..Given::default() };
            }
            Some(address) if in_pool(&address) => given.own.push(address),
            Some(address) if nodes.contains(&address) => given.nodes.push(address),
            Some(address) => {
                let message = format!("{address} is neither in the gateways' range nor a node's address");
                given.flaw.get_or_insert(Condition::bad("Programmed", "AddressNotUsable", message));
            }
        }
    }
    given
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gateway(name: &str, addresses: &[(&str, &str)], given: &[&str]) -> api::Gateway {
        let mut gateway = api::Gateway::default();
        gateway.meta.key = Key::new("ns", name);
        gateway.addresses = addresses.iter().map(|(kind, value)| ((*kind).into(), (*value).into())).collect();
        gateway.given = given.iter().map(|text| text.parse().unwrap()).collect();
        gateway
    }

    fn pool() -> AddressPool {
        AddressPool { base: Ipv4Addr::new(10, 98, 0, 0), prefix: 29 }
    }

    #[test]
    fn each_has_its_own_and_keeps_it() {
        let gateways: Vec<api::Gateway> = (0..6).map(|at| gateway(&format!("g{at}"), &[], &[])).collect();
        let all: Vec<&api::Gateway> = gateways.iter().collect();
        let first = assign(&all, Some(pool()), &[], &BTreeMap::new());
        let own: BTreeSet<IpAddr> = first.values().flat_map(|it| it.own.clone()).collect();
        assert_eq!(own.len(), 6, "a /29 has six addresses to give");
        assert!(own.iter().all(|address| pool().contains(*address)));
        let fewer: Vec<&api::Gateway> = gateways[3..].iter().collect();
        let second = assign(&fewer, Some(pool()), &[], &first);
        assert!(fewer.iter().all(|it| first[&it.meta.key] == second[&it.meta.key]));
    }

    #[test]
    fn a_full_pool_gives_none() {
        let gateways: Vec<api::Gateway> = (0..7).map(|at| gateway(&format!("g{at}"), &[], &[])).collect();
        let all: Vec<&api::Gateway> = gateways.iter().collect();
        let given = assign(&all, Some(pool()), &[], &BTreeMap::new());
        assert_eq!(given.values().filter(|it| it.own.is_empty()).count(), 1);
    }

    #[test]
    fn what_is_asked_for_goes_before_what_is_given() {
        let node: IpAddr = "192.0.2.1".parse().unwrap();
        let kept = gateway("kept", &[], &["10.98.0.3"]);
        let wants = gateway("wants", &[("IPAddress", "10.98.0.3")], &[]);
        let other = gateway("other", &[("IPAddress", "192.0.2.1")], &[]);
        let far = gateway("far", &[("IPAddress", "192.0.2.9")], &[]);
        let odd = gateway("odd", &[("x/y", "z"), ("IPAddress", "10.98.0.4")], &[]);
        let given = assign(&[&kept, &wants, &other, &far, &odd], Some(pool()), &[node], &BTreeMap::new());
        let of = |name: &str| &given[&Key::new("ns", name)];
        assert_eq!(of("wants").own, ["10.98.0.3".parse::<IpAddr>().unwrap()]);
        assert_ne!(of("kept").own, of("wants").own);
        assert_eq!((of("other").nodes.clone(), of("other").own.len()), (vec![node], 0));
        assert_eq!(of("far").flaw.as_ref().map(|it| it.reason), Some("AddressNotUsable"));
        assert_eq!(of("odd").flaw.as_ref().map(|it| it.reason), Some("UnsupportedAddress"));
    }
}
