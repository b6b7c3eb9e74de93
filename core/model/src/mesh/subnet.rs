//! Blocks of addresses.

use std::fmt;
use std::net::IpAddr;

/// An address or a block of them (CIDR, RFC 4632), as the high bits of 128. IPv4 is placed where IPv4-mapped IPv6 is, so that both forms of
/// an address are one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subnet {
    bits: u128,
    length: u32,
}

impl Subnet {
    /// Reads `10.0.0.0/8`, or an address alone. Bits beyond the length count for nothing.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length.parse::<u32>().ok()?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let (offset, most) = if address.is_ipv4() { (96, 32) } else { (0, 128) };
        let length = length.unwrap_or(most);
        (length <= most).then(|| Subnet { bits: bits(address) & mask(length + offset), length: length + offset })
    }

    /// Whether an address is in it.
    pub fn contains(self, address: IpAddr) -> bool {
        (self.bits ^ bits(address)) & mask(self.length) == 0
    }

    /// How many of 128 bits are given: more is narrower.
    pub fn length(self) -> u32 {
        self.length
    }
}

fn mask(length: u32) -> u128 {
    u128::MAX.checked_shl(128 - length).unwrap_or(0)
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_ipv6_mapped()),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = std::net::Ipv6Addr::from(self.bits);
        match address.to_ipv4_mapped().filter(|_| self.length >= 96) {
            Some(v4) => write!(f, "{v4}/{}", self.length - 96),
            None => write!(f, "{address}/{}", self.length),
        }
    }
}

impl fmt::Debug for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks() {
        for (block, address, yes) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1", "10.0.0.2", false),
            ("0.0.0.0/0", "8.8.8.8", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("::/0", "8.8.8.8", true),
            ("10.0.0.0/8", "::ffff:10.1.1.1", true),
            ("2001:db8::/32", "2001:db8:1::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
        ] {
            assert_eq!(Subnet::parse(block).unwrap().contains(address.parse().unwrap()), yes, "{block} {address}");
        }
        for bad in ["", "10.0.0.0/33", "10.0.0.0/x", "ten", "::/129"] {
            assert_eq!(Subnet::parse(bad), None, "{bad}");
        }
        for (text, shown) in [
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("10.0.0.1", "10.0.0.1/32"),
            ("::/0", "::/0"),
            ("2001:db8::1/32", "2001:db8::/32"),
        ] {
            let read = Subnet::parse(text).unwrap();
            assert_eq!((read.to_string().as_str(), Subnet::parse(&read.to_string())), (shown, Some(read)));
        }
    }
}
