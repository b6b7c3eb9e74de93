//! Virtual IPs and node ports: an index over the Services in the store, with room for allocations that are not stored yet.

use crate::config::Cidr;
use kube::{Cause, Status};
use serde_json::Value;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use storage::Store;

type Owner = (String, String);

/// What is in use, and by which Service (namespace, name).
#[derive(Debug, Default)]
struct InUse {
    addresses: BTreeMap<u32, Owner>,
    ports: BTreeMap<u16, Owner>,
    next_address: u32,
    next_port: u16,
}

/// The allocators.
pub struct ServiceNetwork {
    cidr: Cidr,
    ports: (u16, u16),
    in_use: Arc<Mutex<InUse>>,
}

/// Allocations of a write that is not stored yet. Dropped unkept, they are free again.
#[derive(Default)]
pub struct Holds {
    taken: Vec<Taken>,
    from: Option<Arc<Mutex<InUse>>>,
}

enum Taken {
    Address(u32),
    Port(u16),
}

impl Holds {
    /// Whether nothing was taken.
    pub fn is_empty(&self) -> bool {
        self.taken.is_empty()
    }
    /// The write is stored: its allocations are used now.
    pub fn keep(mut self) {
        self.taken.clear();
    }
}

impl Drop for Holds {
    fn drop(&mut self) {
        let Some(from) = &self.from else { return };
        let mut in_use = from.lock().expect("nothing panics while it allocates");
        for taken in self.taken.drain(..) {
            match taken {
                Taken::Address(offset) => drop(in_use.addresses.remove(&offset)),
                Taken::Port(port) => drop(in_use.ports.remove(&port)),
            }
        }
    }
}

impl ServiceNetwork {
    /// From the Services in the store.
    pub fn load(store: &Store, cidr: Cidr, ports: (u16, u16)) -> ServiceNetwork {
        let network = ServiceNetwork { cidr, ports, in_use: Arc::default() };
        for entry in store.list("services", None, None, None).items {
            if let Ok(service) = serde_json::from_slice::<Value>(&entry.record.bytes) {
                let owner = (entry.namespace.to_string(), entry.name.to_string());
                network.adopt(&mut network.lock(), &service, &owner);
            }
        }
        network
    }

    /// Follows a Service that was written or deleted: what it no longer names is free again.
    pub fn observe(&self, store: &Store, namespace: &str, name: &str) {
        let owner = (namespace.to_owned(), name.to_owned());
        // Read under the lock: of two writes, the one that looks last must not have read first.
        let mut in_use = self.lock();
        in_use.addresses.retain(|_, by| *by != owner);
        in_use.ports.retain(|_, by| *by != owner);
        if let Some(record) = store.get("services", namespace, name)
            && let Ok(service) = serde_json::from_slice::<Value>(&record.bytes)
        {
            self.adopt(&mut in_use, &service, &owner);
        }
    }

    fn adopt(&self, in_use: &mut InUse, service: &Value, owner: &Owner) {
        for offset in addresses(service).filter_map(|address| self.cidr.offset(address)) {
            in_use.addresses.insert(offset, owner.clone());
        }
        for port in node_ports(service) {
            in_use.ports.insert(port, owner.clone());
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, InUse> {
        self.in_use.lock().expect("nothing panics while it allocates")
    }

    /// Gives a Service what it needs and has not; refuses what another has.
    ///
    /// # Errors
    /// 422 with the field at fault; 500 when everything is in use.
    pub fn allocate(&self, service: &mut Value, owner: Owner) -> Result<Holds, Status> {
        let mut holds = Holds { taken: Vec::new(), from: Some(self.in_use.clone()) };
        let kind = service["spec"]["type"].as_str().unwrap_or("ClusterIP").to_owned();
        if kind == "ExternalName" {
            return Ok(holds);
        }
        self.allocate_address(service, &owner, &mut holds)?;
        let wants_ports = kind == "NodePort"
            || (kind == "LoadBalancer" && service["spec"]["allocateLoadBalancerNodePorts"].as_bool().unwrap_or(true));
        let count = service["spec"]["ports"].as_array().map_or(0, Vec::len);
        for index in 0..count {
            self.allocate_port(service, index, wants_ports, &owner, &mut holds)?;
        }
        if kind == "LoadBalancer" || kind == "NodePort" {
            self.health_check_port(service, &kind, &owner, &mut holds)?;
        }
        Ok(holds)
    }

    fn allocate_address(&self, service: &mut Value, owner: &Owner, holds: &mut Holds) -> Result<(), Status> {
        let asked = service["spec"]["clusterIP"].as_str().unwrap_or_default().to_owned();
        if asked == "None" {
            service["spec"]["clusterIPs"] = serde_json::json!(["None"]);
            return Ok(());
        }
        let address = if asked.is_empty() {
            self.free_address(owner, holds)?
        } else {
            let invalid = |detail: &str| {
                let detail = format!("failed to allocate IP {asked}: {detail}");
                let value = service["spec"]["clusterIPs"].clone();
                let value = if value.is_null() { serde_json::json!([asked]) } else { value };
                Status::invalid("", "Service", &owner.1, vec![Cause::invalid("spec.clusterIPs", &value, detail)])
            };
            let range = format!("the provided IP is not in the valid range. The range of valid IPs is {}", self.cidr);
            let address: Ipv4Addr = asked.parse().map_err(|_| invalid("it is no IPv4 address"))?;
            let offset =
                self.cidr.offset(address).filter(|offset| self.usable(*offset)).ok_or_else(|| invalid(&range))?;
            let mut in_use = self.lock();
            match in_use.addresses.get(&offset) {
                Some(by) if by == owner => {}
                Some(_) => return Err(invalid("provided IP is already allocated")),
                None => {
                    in_use.addresses.insert(offset, owner.clone());
                    holds.taken.push(Taken::Address(offset));
                }
            }
            address
        };
        let spec = &mut service["spec"];
        spec["clusterIP"] = address.to_string().into();
        spec["clusterIPs"] = serde_json::json!([address.to_string()]);
        Ok(())
    }

    /// Neither the network's own address nor the last one.
    fn usable(&self, offset: u32) -> bool {
        offset > 0 && offset + 1 < self.cidr.size()
    }

    fn free_address(&self, owner: &Owner, holds: &mut Holds) -> Result<Ipv4Addr, Status> {
        let mut in_use = self.lock();
        // The first 256 are left to those who ask for a fixed one, as DNS and the API server do.
        let reserved = 256.min(self.cidr.size() / 2);
        let span = self.cidr.size() - reserved;
        for _ in 0..span {
            let offset = reserved + in_use.next_address % span;
            in_use.next_address = in_use.next_address.wrapping_add(1);
            if self.usable(offset) && !in_use.addresses.contains_key(&offset) {
                in_use.addresses.insert(offset, owner.clone());
                holds.taken.push(Taken::Address(offset));
                return Ok(self.cidr.at(offset));
            }
        }
        Err(Status::internal("failed to allocate a serviceIP: range is full"))
    }

    fn allocate_port(
        &self,
        service: &mut Value,
        index: usize,
        wanted: bool,
        owner: &Owner,
        holds: &mut Holds,
    ) -> Result<(), Status> {
        let field = format!("spec.ports[{index}].nodePort");
        let asked = service["spec"]["ports"][index]["nodePort"].as_u64().unwrap_or(0);
        if asked == 0 {
            if !wanted {
                return Ok(());
            }
            let port = self.free_port(owner, holds)?;
            service["spec"]["ports"][index]["nodePort"] = port.into();
            return Ok(());
        }
        let invalid = |detail: String| {
            let value = Value::from(asked);
            Status::invalid("", "Service", &owner.1, vec![Cause::invalid(field.clone(), &value, detail)])
        };
        let (first, last) = self.ports;
        let port = u16::try_from(asked).ok().filter(|port| (first..=last).contains(port)).ok_or_else(|| {
            invalid(format!("provided port is not in the valid range. The range of valid ports is {first}-{last}"))
        })?;
        let mut in_use = self.lock();
        match in_use.ports.get(&port) {
            Some(by) if by == owner => {}
            Some(_) => return Err(invalid("provided port is already allocated".to_owned())),
            None => {
                in_use.ports.insert(port, owner.clone());
                holds.taken.push(Taken::Port(port));
            }
        }
        Ok(())
    }

    fn health_check_port(
        &self,
        service: &mut Value,
        kind: &str,
        owner: &Owner,
        holds: &mut Holds,
    ) -> Result<(), Status> {
        let local = kind == "LoadBalancer" && service["spec"]["externalTrafficPolicy"] == "Local";
        if local && service["spec"]["healthCheckNodePort"].as_u64().unwrap_or(0) == 0 {
            service["spec"]["healthCheckNodePort"] = self.free_port(owner, holds)?.into();
        }
        Ok(())
    }

    fn free_port(&self, owner: &Owner, holds: &mut Holds) -> Result<u16, Status> {
        let (first, last) = self.ports;
        let mut in_use = self.lock();
        for _ in first..=last {
            let port = first + in_use.next_port % (last - first + 1);
            in_use.next_port = in_use.next_port.wrapping_add(1);
            if let Entry::Vacant(free) = in_use.ports.entry(port) {
                free.insert(owner.clone());
                holds.taken.push(Taken::Port(port));
                return Ok(port);
            }
        }
        Err(Status::internal("failed to allocate a nodePort: range is full"))
    }
}

fn addresses(service: &Value) -> impl Iterator<Item = Ipv4Addr> + '_ {
    let many = service["spec"]["clusterIPs"].as_array().into_iter().flatten();
    std::iter::once(&service["spec"]["clusterIP"]).chain(many).filter_map(|ip| ip.as_str()?.parse().ok())
}

fn node_ports(service: &Value) -> impl Iterator<Item = u16> + '_ {
    let ports = service["spec"]["ports"].as_array().into_iter().flatten().map(|port| &port["nodePort"]);
    let check = std::iter::once(&service["spec"]["healthCheckNodePort"]);
    ports.chain(check).filter_map(|port| u16::try_from(port.as_u64()?).ok()).filter(|port| *port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn network() -> ServiceNetwork {
        let cidr = Cidr { base: Ipv4Addr::new(10, 96, 0, 0), bits: 16 };
        ServiceNetwork { cidr, ports: (30_000, 30_001), in_use: Arc::default() }
    }

    fn owner(name: &str) -> Owner {
        ("ns".to_owned(), name.to_owned())
    }

    #[test]
    fn addresses_and_ports_are_given_once() {
        let network = network();
        let mut a = json!({"spec": {"type": "NodePort", "ports": [{"port": 1}, {"port": 2}]}});
        network.allocate(&mut a, owner("a")).unwrap().keep();
        assert_eq!(a["spec"]["clusterIP"], "10.96.1.0");
        let ports = [a["spec"]["ports"][0]["nodePort"].as_u64(), a["spec"]["ports"][1]["nodePort"].as_u64()];
        assert_eq!(ports, [Some(30_000), Some(30_001)]);
        let mut b = json!({"spec": {"clusterIP": "10.96.1.0"}});
        let error = network.allocate(&mut b, owner("b")).err().unwrap();
        assert!(error.message.contains("provided IP is already allocated"), "{}", error.message);
        let mut full = json!({"spec": {"type": "NodePort", "ports": [{"port": 1}]}});
        assert_eq!(network.allocate(&mut full, owner("c")).err().unwrap().code, 500);
    }

    #[test]
    fn what_is_not_kept_is_free_again() {
        let network = network();
        let mut first = json!({"spec": {"clusterIP": "10.96.0.10"}});
        drop(network.allocate(&mut first, owner("a")).unwrap());
        let mut second = json!({"spec": {"clusterIP": "10.96.0.10"}});
        network.allocate(&mut second, owner("b")).unwrap().keep();
        let mut outside = json!({"spec": {"clusterIP": "10.97.0.10"}});
        assert!(network.allocate(&mut outside, owner("c")).err().unwrap().message.contains("not in the valid range"));
        let mut none = json!({"spec": {"clusterIP": "None"}});
        network.allocate(&mut none, owner("d")).unwrap();
        assert_eq!(none["spec"]["clusterIPs"], json!(["None"]));
    }
}
