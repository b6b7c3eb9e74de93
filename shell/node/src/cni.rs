//! The CNI network of a node's pods: a bridge, addresses from the node's range, and a way out.

use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::path::Path;

/// Why a pod range cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("pod CIDR {0:?} is no IPv4 range such as 10.244.0.0/24")]
pub struct CidrError(pub String);

/// An IPv4 range that pods get addresses from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodCidr {
    network: u32,
    prefix: u8,
}

impl PodCidr {
    /// Reads `a.b.c.d/n`.
    ///
    /// # Errors
    /// Not an IPv4 range, or one too small for a gateway and a pod.
    pub fn parse(text: &str) -> Result<Self, CidrError> {
        let fail = || CidrError(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(fail)?;
        let address: Ipv4Addr = address.parse().map_err(|_| fail())?;
        let prefix: u8 = prefix.parse().map_err(|_| fail())?;
        if !(8..=30).contains(&prefix) {
            return Err(fail());
        }
        Ok(PodCidr { network: u32::from(address) & (u32::MAX << (32 - prefix)), prefix })
    }

    /// The bridge's address: the pods' gateway, and where probes come from.
    pub fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from(self.network + 1)
    }
}

impl std::fmt::Display for PodCidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.network), self.prefix)
    }
}

/// The network configuration list. Addresses given out are remembered under `data_dir`.
/// `port_maps` adds the plugin that serves `hostPort`; it needs iptables.
pub fn conflist(cidr: PodCidr, bridge: &str, data_dir: &Path, port_maps: bool) -> Value {
    let mut plugins = vec![json!({
        "type": "bridge",
        "bridge": bridge,
        "isGateway": true,
        // Masquerading is `masquerade_rules` below: the plugin would want iptables for it.
        "ipMasq": false,
        "hairpinMode": true,
        "ipam": {
            "type": "host-local",
            "dataDir": data_dir.join("cni"),
            "ranges": [[{"subnet": cidr.to_string(), "gateway": cidr.gateway()}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    })];
    if port_maps {
        plugins.push(json!({"type": "portmap", "capabilities": {"portMappings": true}, "snat": true}));
    }
    json!({"cniVersion": "0.4.0", "name": bridge, "plugins": plugins})
}

/// nftables text that gives packets from pods to the outside the node's address. One table a bridge, replaced as a whole, so
/// that applying it twice is applying it once. Forwarding is accepted explicitly: other tables (a firewall's, Docker's) may
/// have a policy of drop, and accepting here does not overrule them, but says what this node needs where a reader looks.
pub fn masquerade_rules(cidr: PodCidr, cluster_cidr: PodCidr, bridge: &str) -> String {
    format!(
        "table ip {bridge}\n\
         delete table ip {bridge}\n\
         table ip {bridge} {{\n\
         \tchain postrouting {{\n\
         \t\ttype nat hook postrouting priority srcnat; policy accept;\n\
         \t\tip saddr {cidr} ip daddr != {cluster_cidr} oifname != \"{bridge}\" masquerade\n\
         \t}}\n\
         }}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_ranges_and_their_gateway() {
        let cidr = PodCidr::parse("10.244.3.77/24").unwrap();
        assert_eq!(cidr.to_string(), "10.244.3.0/24");
        assert_eq!(cidr.gateway(), Ipv4Addr::new(10, 244, 3, 1));
        for bad in ["", "10.244.0.0", "10.244.0.0/31", "10.244.0.0/7", "fd00::/64", "10.244.0/24", "10.244.0.0/x"] {
            assert_eq!(PodCidr::parse(bad), Err(CidrError(bad.to_owned())));
        }
    }

    #[test]
    fn port_maps_are_asked_for_only_when_they_can_be_served() {
        let cidr = PodCidr::parse("10.244.0.0/24").unwrap();
        let without = conflist(cidr, "d0", Path::new("/d"), false);
        assert_eq!(without["plugins"].as_array().unwrap().len(), 1);
        assert_eq!(without["plugins"][0]["ipam"]["ranges"][0][0]["gateway"], "10.244.0.1");
        assert_eq!(conflist(cidr, "d0", Path::new("/d"), true)["plugins"][1]["type"], "portmap");
    }
}
