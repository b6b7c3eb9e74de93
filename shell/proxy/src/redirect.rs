//! The nftables rules inside a pod's network namespace.
use crate::netns::{MARK, Netns};
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::process::{Command, Stdio};

/// Ports of the proxy inside every pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CapturePorts {
    /// What the pod sends comes here.
    pub outbound: u16,
    /// What others send in plain text comes here.
    pub inbound: u16,
    /// Tunnels from other proxies.
    pub hbone: u16,
    /// Questions to the cluster's name server.
    pub dns: u16,
}

impl Default for CapturePorts {
    fn default() -> Self {
        Self { outbound: 15001, inbound: 15006, hbone: 15008, dns: 15053 }
    }
}

impl CapturePorts {
    /// Whether a connection *to* this port of a pod is one to the proxy itself.
    pub fn contains(self, port: u16) -> bool {
        [self.outbound, self.inbound, self.hbone, self.dns].contains(&port)
    }
}

/// What is captured in one namespace.
#[derive(Clone, Debug)]
pub struct Rules<'a> {
    pub ports: CapturePorts,
    /// Virtual addresses of the cluster's name server.
    pub dns: &'a [IpAddr],
    /// Questions to any name server come here, not only those to the cluster's.
    pub all_dns: bool,
    /// Where probes come from, and to which ports they go unseen.
    pub probes: Option<(IpAddr, &'a [u16])>,
    /// Capture only what goes to these networks (a joined host); none: everything (a pod).
    pub only_to: &'a [String],
    /// Capture what comes in, except tunnels (a pod; a joined host's other ports are its own affair).
    pub inbound: bool,
}

/// The rules could not be installed. The operator's to mend: nft is missing, or the kernel has no nat.
#[derive(Debug, thiserror::Error)]
pub enum RedirectError {
    #[error("cannot run nft ({0}); install the package nftables")]
    Missing(io::Error),
    #[error("nft refused the rules: {0}")]
    Refused(String),
}

const TABLE: &str = "diolkos";

impl Rules<'_> {
    /// The rule set as text for `nft -f`. Loading it twice is the same as once.
    pub fn text(&self) -> String {
        let mut text = format!("table inet {TABLE}\ndelete table inet {TABLE}\ntable inet {TABLE} {{\n");
        self.output(&mut text);
        if self.inbound {
            self.prerouting(&mut text);
        }
        text.push_str("}\n");
        text
    }

    fn output(&self, text: &mut String) {
        let ports = self.ports;
        let _ = writeln!(text, " chain output {{\n  type nat hook output priority -100; policy accept;");
        let _ = writeln!(text, "  meta mark & 0xfff == {MARK:#x} return");
        for vip in self.dns {
            for transport in ["udp", "tcp"] {
                let _ = writeln!(text, "  {} {transport} dport 53 redirect to :{}", daddr(vip), ports.dns);
            }
        }
        for transport in ["udp", "tcp"].iter().filter(|_| self.all_dns) {
            let _ = writeln!(text, "  meta nfproto ipv4 {transport} dport 53 redirect to :{}", ports.dns);
        }
        // The pod's own addresses are reached over lo, too: a pod that calls itself is not anybody's traffic.
        let _ = writeln!(text, "  oifname \"lo\" return");
        if self.only_to.is_empty() {
            let _ = writeln!(text, "  meta l4proto tcp redirect to :{}", ports.outbound);
        }
        for network in self.only_to {
            let family = if network.contains(':') { "ip6" } else { "ip" };
            let _ = writeln!(text, "  {family} daddr {network} meta l4proto tcp redirect to :{}", ports.outbound);
        }
        text.push_str(" }\n");
    }

    fn prerouting(&self, text: &mut String) {
        let ports = self.ports;
        let _ = writeln!(text, " chain prerouting {{\n  type nat hook prerouting priority -100; policy accept;");
        let _ = writeln!(text, "  iifname \"lo\" return");
        if let Some((from, to)) = self.probes.filter(|(_, to)| !to.is_empty()) {
            let to: Vec<_> = to.iter().map(u16::to_string).collect();
            let family = if from.is_ipv6() { "ip6" } else { "ip" };
            let _ = writeln!(text, "  {family} saddr {from} tcp dport {{ {} }} return", to.join(", "));
        }
        let _ = writeln!(text, "  tcp dport != {} redirect to :{}", ports.hbone, ports.inbound);
        text.push_str(" }\n");
    }

    /// Installs the rules in `netns`.
    pub fn install(&self, netns: &Netns) -> Result<(), RedirectError> {
        nft(netns, &self.text())
    }
}

/// Takes the rules away again; there being none is fine.
pub fn remove(netns: &Netns) -> Result<(), RedirectError> {
    nft(netns, &format!("table inet {TABLE}\ndelete table inet {TABLE}\n"))
}

fn daddr(address: &IpAddr) -> String {
    format!("{} daddr {address}", if address.is_ipv6() { "ip6" } else { "ip" })
}

/// Gives rules to nft, in `netns`: a child process starts in the namespace of the thread that starts it.
pub fn nft(netns: &Netns, text: &str) -> Result<(), RedirectError> {
    let spawn = || {
        Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()
    };
    let mut child = netns.run(spawn).map_err(RedirectError::Missing)?;
    if let Some(mut input) = child.stdin.take() {
        // If it does not read to the end it says why itself.
        let _ = input.write_all(text.as_bytes());
    }
    let output = child.wait_with_output().map_err(RedirectError::Missing)?;
    if output.status.success() {
        Ok(())
    } else {
        Err(RedirectError::Refused(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pods_rules() {
        let dns = ["10.96.0.10".parse().unwrap()];
        let rules = Rules {
            ports: CapturePorts::default(),
            dns: &dns,
            all_dns: false,
            probes: Some(("10.244.0.1".parse().unwrap(), &[8080, 9090])),
            only_to: &[],
            inbound: true,
        };
        assert_eq!(
            rules.text(),
            r#"table inet diolkos
delete table inet diolkos
table inet diolkos {
 chain output {
  type nat hook output priority -100; policy accept;
  meta mark & 0xfff == 0x539 return
  ip daddr 10.96.0.10 udp dport 53 redirect to :15053
  ip daddr 10.96.0.10 tcp dport 53 redirect to :15053
  oifname "lo" return
  meta l4proto tcp redirect to :15001
 }
 chain prerouting {
  type nat hook prerouting priority -100; policy accept;
  iifname "lo" return
  ip saddr 10.244.0.1 tcp dport { 8080, 9090 } return
  tcp dport != 15008 redirect to :15006
 }
}
"#
        );
    }
}
