//! Addresses of gateways, made local to this host: a route of type `local` for each, so that no interface has to carry it.
use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::process::{Command, Stdio};

/// Marks our routes (`ip route show table local proto 97`): who cleans up after a proxy that was killed finds them by it.
pub const ROUTE_PROTOCOL: &str = "97";

/// The addresses that were made local.
#[derive(Debug, Default)]
pub struct Addresses(BTreeSet<IpAddr>);

impl Addresses {
    /// Makes an address local. Blocks for as long as `ip` takes.
    pub fn add(&mut self, address: IpAddr) -> io::Result<()> {
        route("replace", address)?;
        self.0.insert(address);
        Ok(())
    }

    /// Takes back what no gateway has any more.
    pub fn keep_only(&mut self, wanted: &BTreeSet<IpAddr>) {
        self.0.retain(|address| {
            let stays = wanted.contains(address);
            if !stays && let Err(error) = route("delete", *address) {
                tracing::warn!(%address, %error, "a gateway's address cannot be taken back");
            }
            stays
        });
    }
}

fn route(verb: &str, address: IpAddr) -> io::Result<()> {
    let (family, bits) = if address.is_ipv6() { ("-6", 128) } else { ("-4", 32) };
    let output = Command::new("ip")
        .args([family, "route", verb, "local", &format!("{address}/{bits}"), "dev", "lo", "proto", ROUTE_PROTOCOL])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}
