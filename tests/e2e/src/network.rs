//! A machine of its own, as far as the network goes: a namespace with an address, and this machine at the other end.

use crate::shell::{Check, run};
use std::process::Command;

/// A network namespace; it goes with the value.
#[derive(Debug)]
pub struct Network {
    name: String,
    net: u8,
}

impl Network {
    /// Makes `name` with the address 172.31.`net`.2; this machine is 172.31.`net`.1, at the link `name0`.
    pub fn new(name: &str, net: u8) -> Check<Network> {
        let script = format!(
            "ip netns del {name} 2>/dev/null; ip link del {name}0 2>/dev/null; set -e
            ip netns add {name}; ip link add {name}0 type veth peer name eth0 netns {name}
            ip addr add 172.31.{net}.1/24 dev {name}0; ip link set {name}0 up; ip -n {name} link set lo up
            ip -n {name} addr add 172.31.{net}.2/24 dev eth0; ip -n {name} link set eth0 up
            ip -n {name} route add default via 172.31.{net}.1"
        );
        run(Command::new("sh").args(["-c", &script]), None).ok()?;
        Ok(Network { name: name.to_owned(), net })
    }

    /// Its address.
    pub fn address(&self) -> String {
        format!("172.31.{}.2", self.net)
    }

    /// This machine's, as seen from there.
    pub fn outside(&self) -> String {
        format!("172.31.{}.1", self.net)
    }

    /// A command that runs there; what runs is the next argument.
    pub fn inside(&self) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]);
        command
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}
