//! Endpoints and EndpointSlices: what stands behind a Service.

use crate::behaviour::{Facts, Generation, Kind};
use crate::cause::{Causes, Path};
use crate::json::{each_object, fill, fill_text, list, text};
use crate::table::{self, Column, Row};
use model::Timestamp;
use serde_json::Value;

/// The behaviour of Endpoints.
pub(crate) struct Endpoints;

impl Kind for Endpoints {
    fn facts(&self) -> Facts {
        Facts::plain("", "Endpoints")
    }
    fn defaults(&self, object: &mut Value) {
        let Some(map) = object.as_object_mut() else { return };
        for subset in each_object(map, "subsets") {
            for port in each_object(subset, "ports") {
                fill_text(port, "protocol", "TCP");
            }
        }
    }
    fn check(&self, object: &Value, causes: &mut Causes) {
        let subsets = Path::root("subsets");
        for (index, subset) in list(&object["subsets"]).iter().enumerate() {
            let at = subsets.index(index);
            if list(&subset["addresses"]).is_empty() && list(&subset["notReadyAddresses"]).is_empty() {
                causes.required(&at, "must specify `addresses` or `notReadyAddresses`");
            }
            let ports = list(&subset["ports"]);
            for (number, port) in ports.iter().enumerate() {
                if ports.len() > 1 && text(&port["name"]).is_empty() {
                    causes.required(&at.child("ports").index(number).child("name"), "");
                }
            }
            for (number, address) in list(&subset["addresses"]).iter().enumerate() {
                let addresses = at.child("addresses");
                check_endpoint_address(text(&address["ip"]), &addresses.index(number).child("ip"), causes);
            }
        }
    }
    fn columns(&self) -> &'static [Column] {
        table::ENDPOINTS
    }
    fn row(&self, object: &Value, now: Timestamp) -> Row {
        table::endpoints_row(object, now)
    }
}

/// An address that a backend can have: no loopback, no link-local.
fn check_endpoint_address(ip: &str, path: &Path<'_>, causes: &mut Causes) {
    let Ok(address) = ip.parse::<std::net::IpAddr>() else {
        causes.invalid(path, ip, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)");
        return;
    };
    let link_local = match address {
        std::net::IpAddr::V4(v4) => v4.is_link_local(),
        std::net::IpAddr::V6(v6) => v6.segments()[0] & 0xffc0 == 0xfe80,
    };
    if address.is_unspecified() {
        causes.invalid(path, ip, format!("may not be unspecified ({ip})"));
    } else if address.is_loopback() {
        causes.invalid(path, ip, "may not be in the loopback range (127.0.0.0/8, ::1/128)");
    } else if link_local {
        causes.invalid(path, ip, "may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    } else if address.is_multicast() {
        causes.invalid(path, ip, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}

/// The behaviour of EndpointSlices.
pub(crate) struct EndpointSlice;

impl Kind for EndpointSlice {
    fn facts(&self) -> Facts {
        Facts::plain("discovery.k8s.io", "EndpointSlice").counting(Generation::Content)
    }
    fn defaults(&self, object: &mut Value) {
        let Some(map) = object.as_object_mut() else { return };
        for port in each_object(map, "ports") {
            fill(port, "name", "");
            fill_text(port, "protocol", "TCP");
        }
    }
    fn check(&self, object: &Value, causes: &mut Causes) {
        let kind = text(&object["addressType"]);
        if kind.is_empty() {
            causes.required(&Path::root("addressType"), "");
        } else {
            causes.one_of(&Path::root("addressType"), kind, &["FQDN", "IPv4", "IPv6"]);
        }
        let endpoints = list(&object["endpoints"]);
        let path = Path::root("endpoints");
        if endpoints.len() > 1000 {
            causes.invalid(&path, endpoints.len(), "must have at most 1000 items");
        }
        for (index, endpoint) in endpoints.iter().enumerate() {
            let at = path.index(index);
            let addresses = list(&endpoint["addresses"]);
            if addresses.is_empty() {
                causes.required(&at.child("addresses"), "must contain at least 1 address");
            }
            if kind == "IPv4" {
                for (number, address) in addresses.iter().enumerate() {
                    check_endpoint_address(text(address), &at.child("addresses").index(number), causes);
                }
            }
        }
    }
    fn check_change(&self, new: &Value, old: &Value, causes: &mut Causes) {
        causes.immutable(&Path::root("addressType"), &new["addressType"], &old["addressType"]);
    }
    fn columns(&self) -> &'static [Column] {
        table::ENDPOINT_SLICE
    }
    fn row(&self, object: &Value, now: Timestamp) -> Row {
        table::endpoint_slice_row(object, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn addresses_can_be_reached_from_elsewhere() {
        let check = |ip: &str| {
            let object = json!({"metadata": {"name": "e"}, "subsets": [{"addresses": [{"ip": ip}]}]});
            Endpoints.validate_create(&object).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(check("10.0.0.1"), [""; 0]);
        assert_eq!(
            check("127.0.0.1"),
            [
                "subsets[0].addresses[0].ip: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)"
            ]
        );
        assert_eq!(check("169.254.1.1").len(), 1);
        assert_eq!(check("x").len(), 1);
    }

    #[test]
    fn several_ports_have_names() {
        let object = json!({"metadata": {"name": "e"}, "subsets": [{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 1}, {"port": 2, "name": "b"}]}]});
        let found: Vec<String> = Endpoints.validate_create(&object).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["subsets[0].ports[0].name: Required value"]);
    }
}
