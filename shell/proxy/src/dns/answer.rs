//! Names of the cluster, by Kubernetes' DNS specification.
use hickory_proto::op::Query;
use hickory_proto::rr::rdata::{A, AAAA, CNAME, PTR, SOA, SRV};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use model::mesh::{Endpoint, Health, Transport};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use traffic::{Directory, ServiceEntry};

/// Names are asked for again after this: endpoints of headless services come and go.
const TTL_S: u32 = 5;

/// The cluster's own domain.
#[derive(Clone, Copy, Debug)]
pub struct Zone<'a> {
    /// `cluster.local`.
    pub domain: &'a str,
    /// The namespace of who asks.
    pub namespace: &'a str,
}

/// What is known of a name.
#[derive(Debug)]
pub enum Answered {
    /// Others know.
    NotOurs,
    /// Here it is.
    Records(Vec<Record>),
    /// It stands for a name outside.
    Alias(Record, Name),
    /// There is no such record; perhaps there are others of the name.
    Nothing { exists: bool, soa: Record },
}

impl Zone<'_> {
    /// Answers a question.
    pub fn answer(&self, directory: &Directory, query: &Query) -> Answered {
        let text = query.name.to_ascii().to_ascii_lowercase();
        let name = text.strip_suffix('.').unwrap_or(&text);
        if let Some(address) = reverse(name) {
            return self.pointer(directory, query, address);
        }
        // A name that a service claims, be it short, counts wherever it ends.
        // One that only lets connections through has no address of its own to tell.
        let nowhere =
            |entry: &ServiceEntry| entry.service.vips.is_empty() && entry.ports.iter().any(|port| port.port.through);
        let named = directory.service_named(name, self.namespace);
        if let Some(service) = named.filter(|service| !nowhere(service)) {
            return self.service(directory, query, service, &[]);
        }
        let Some(rest) = name.strip_suffix(self.domain) else { return Answered::NotOurs };
        let labels: Vec<&str> = match rest.strip_suffix('.') {
            Some(rest) => rest.split('.').collect(),
            None if rest.is_empty() => return self.nothing(true),
            None => return Answered::NotOurs,
        };
        match labels.as_slice() {
            ["svc" | "pod"] | [_, "svc" | "pod"] => self.nothing(true),
            [pod, _, "pod"] => self.pod(query, pod),
            [before @ .., service, namespace, "svc"] if !before.is_empty() => {
                let host = format!("{service}.{namespace}.svc.{}", self.domain);
                match directory.service_named(&host, self.namespace) {
                    Some(entry) => self.service(directory, query, entry, before),
                    None => self.nothing(false),
                }
            }
            _ => self.nothing(false),
        }
    }

    /// A service, or what stands before its name: an endpoint's hostname, or `_port._protocol`.
    fn service(&self, directory: &Directory, query: &Query, entry: &ServiceEntry, before: &[&str]) -> Answered {
        if let Some(external) = &entry.service.external_name {
            return self.external(directory, query, external, before);
        }
        match before {
            [] => {
                let addresses: Vec<IpAddr> = match entry.service.headless {
                    true => named(entry).map(|endpoint| endpoint.address).collect(),
                    false => entry.service.vips.clone(),
                };
                if query.query_type == RecordType::SRV {
                    return self.srv(query, entry, |_| true);
                }
                self.addresses(query, addresses, true)
            }
            [host] if !host.starts_with('_') => {
                let found: Vec<IpAddr> = named(entry)
                    .filter(|endpoint| endpoint_name(endpoint) == *host)
                    .map(|endpoint| endpoint.address)
                    .collect();
                let exists = !found.is_empty();
                self.addresses(query, found, exists)
            }
            [port, protocol] if port.starts_with('_') && protocol.starts_with('_') => {
                let transport = match *protocol {
                    "_tcp" => Transport::Tcp,
                    "_udp" => Transport::Udp,
                    _ => return self.nothing(false),
                };
                self.srv(query, entry, |it| it.transport == transport && *it.name == port[1..])
            }
            _ => self.nothing(false),
        }
    }

    fn external(&self, directory: &Directory, query: &Query, external: &str, before: &[&str]) -> Answered {
        let Ok(target) = Name::from_str(&format!("{}.", external.trim_end_matches('.'))) else {
            return self.nothing(true);
        };
        if !before.is_empty() {
            return self.nothing(false);
        }
        let alias = Record::from_rdata(query.name.clone(), TTL_S, RData::CNAME(CNAME(target.clone())));
        if query.query_type == RecordType::CNAME {
            return Answered::Records(vec![alias]);
        }
        // One step only: a ring of external names ends here.
        let inside = directory.service_named(&external.trim_end_matches('.').to_ascii_lowercase(), self.namespace);
        match inside.filter(|entry| entry.service.external_name.is_none()) {
            Some(entry) => {
                let again = Query::query(target, query.query_type);
                match self.service(directory, &again, entry, &[]) {
                    Answered::Records(mut records) => {
                        records.insert(0, alias);
                        Answered::Records(records)
                    }
                    _ => Answered::Records(vec![alias]),
                }
            }
            None => Answered::Alias(alias, target),
        }
    }

    fn srv(&self, query: &Query, entry: &ServiceEntry, wanted: impl Fn(&model::mesh::ServicePort) -> bool) -> Answered {
        let ports: Vec<_> = entry.ports.iter().filter(|port| wanted(&port.port)).collect();
        if ports.is_empty() {
            return self.nothing(false);
        }
        let host = &entry.service.hostnames.first().map_or("", |host| host);
        let mut records = Vec::new();
        let mut add = |port: u16, target: &str| {
            if let Ok(target) = Name::from_str(&format!("{target}.")) {
                let data = RData::SRV(SRV::new(0, 100, port, target));
                records.push(Record::from_rdata(query.name.clone(), TTL_S, data));
            }
        };
        for port in ports {
            if entry.service.headless {
                for endpoint in port.pool.endpoints() {
                    add(endpoint.port, &format!("{}.{host}", endpoint_name(endpoint)));
                }
            } else {
                add(port.port.port, host);
            }
        }
        if query.query_type == RecordType::SRV && !records.is_empty() {
            return Answered::Records(records);
        }
        self.nothing(true)
    }

    fn addresses(&self, query: &Query, addresses: Vec<IpAddr>, exists: bool) -> Answered {
        let records: Vec<Record> = addresses
            .into_iter()
            .filter_map(|address| match (query.query_type, address) {
                (RecordType::A | RecordType::ANY, IpAddr::V4(v4)) => Some(RData::A(A(v4))),
                (RecordType::AAAA | RecordType::ANY, IpAddr::V6(v6)) => Some(RData::AAAA(AAAA(v6))),
                _ => None,
            })
            .map(|data| Record::from_rdata(query.name.clone(), TTL_S, data))
            .collect();
        if records.is_empty() { self.nothing(exists) } else { Answered::Records(records) }
    }

    /// `10-244-0-5.namespace.pod`: the name says the address, whether there is such a pod or not (as CoreDNS by default).
    fn pod(&self, query: &Query, label: &str) -> Answered {
        let v4 = label.replace('-', ".").parse::<Ipv4Addr>().map(IpAddr::V4);
        let address = v4.or_else(|_| label.replace('-', ":").parse::<Ipv6Addr>().map(IpAddr::V6));
        address.map_or_else(|_| self.nothing(false), |address| self.addresses(query, vec![address], true))
    }

    fn pointer(&self, directory: &Directory, query: &Query, address: IpAddr) -> Answered {
        let Some(entry) = directory.service_at(address) else { return Answered::NotOurs };
        let host = entry.service.hostnames.first().and_then(|host| Name::from_str(&format!("{host}.")).ok());
        match host {
            Some(host) if query.query_type == RecordType::PTR => {
                Answered::Records(vec![Record::from_rdata(query.name.clone(), TTL_S, RData::PTR(PTR(host)))])
            }
            _ => self.nothing(true),
        }
    }

    fn nothing(&self, exists: bool) -> Answered {
        let name = |text: String| Name::from_str(&text).unwrap_or_else(|_| Name::root());
        let zone = name(format!("{}.", self.domain));
        let (server, contact) =
            (name(format!("ns.dns.{}.", self.domain)), name(format!("hostmaster.{}.", self.domain)));
        let soa = SOA::new(server, contact, 1, 7200, 1800, 86400, TTL_S);
        Answered::Nothing { exists, soa: Record::from_rdata(zone, TTL_S, RData::SOA(soa)) }
    }
}

/// Endpoints whose names are given out: the ready ones, or all if the service says so.
fn named(entry: &ServiceEntry) -> impl Iterator<Item = &Endpoint> {
    let all = entry.service.publish_not_ready;
    entry.endpoints.iter().filter(move |endpoint| all || endpoint.health == Health::Ready)
}

/// The endpoint's hostname, or its address with dashes.
fn endpoint_name(endpoint: &Endpoint) -> String {
    if endpoint.hostname.is_empty() {
        endpoint.address.to_string().replace(['.', ':'], "-")
    } else {
        endpoint.hostname.to_string()
    }
}

/// The address that an `in-addr.arpa` name asks about.
fn reverse(name: &str) -> Option<IpAddr> {
    let digits = name.strip_suffix(".in-addr.arpa")?;
    let mut octets: Vec<&str> = digits.split('.').collect();
    octets.reverse();
    octets.join(".").parse().ok().map(IpAddr::V4)
}

#[cfg(test)]
mod tests;
