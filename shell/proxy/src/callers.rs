//! The address of who calls, kept: a process in a pod sees connections come from its caller, not from the proxy.
//!
//! The proxy's connection to the process is bound to the caller's address (`IP_TRANSPARENT`, ip(7)). What the process answers would leave the pod
//! towards that address. So the kernel notes with the connection that it is one of these (conntrack's mark); packets of its answering
//! direction are marked, and for that mark every address is local: they come back to the proxy's socket. As istio/ztunnel does in pods.

use crate::netns::{self, Netns};
use crate::random;
use crate::redirect::{self, RedirectError};
use socket2::Socket;
use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::process::{Child, Command, Stdio};

/// Packets of the proxy to a process whose caller's address is kept. Its low bits are [`netns::MARK`]: nobody captures them.
const MARK: u32 = 0x1000 | netns::MARK;
/// Packets that answer them.
const ANSWERS: u32 = 0x111;
/// Where such packets find that every address is local.
const ROUTES: u32 = 100;
const TABLE: &str = "diolkos_callers";
/// Ports of kept connections: below those that kernels give to clients, for the caller's own connection may still be there, redirected, under
/// the very same addresses.
const PORTS: std::ops::Range<u16> = 10_000..32_768;
/// Ports that are tried; one is taken while the same caller talks to the same process from it.
pub const TRIES: u32 = 8;

fn rules() -> String {
    format!(
        "table inet {TABLE}\ndelete table inet {TABLE}\ntable inet {TABLE} {{\n \
         chain output {{\n  type route hook output priority mangle; policy accept;\n  \
         meta mark {MARK:#x} ct mark set {MARK:#x}\n  \
         ct direction reply ct mark {MARK:#x} meta mark set {ANSWERS:#x}\n }}\n}}\n"
    )
}

/// Makes the kernel of a pod's namespace bring answers back. What fails leaves the pod as it was: its processes see the proxy.
///
/// # Errors
/// `nft` or `ip` is missing or refuses.
pub fn install(netns: &Netns) -> Result<(), RedirectError> {
    let routes: Vec<(&str, Child)> = ["-4", "-6"]
        .into_iter()
        .map(|family| route(netns, family).map(|child| (family, child)))
        .collect::<io::Result<_>>()
        .map_err(RedirectError::Missing)?;
    redirect::nft(netns, &rules())?;
    for (family, child) in routes {
        let output = child.wait_with_output().map_err(RedirectError::Missing)?;
        // The rule is there from before, which is as good; a kernel without IPv6 has no callers to keep there.
        let said = String::from_utf8_lossy(&output.stderr);
        let bad = said.lines().find(|line| !line.contains("File exists") && !line.starts_with("Command failed"));
        if let Some(bad) = bad.filter(|_| family == "-4") {
            return Err(RedirectError::Refused(bad.to_owned()));
        }
    }
    Ok(())
}

/// A child process starts in the namespace of the thread that starts it.
fn route(netns: &Netns, family: &str) -> io::Result<Child> {
    let mut child = netns.run(|| {
        Command::new("ip")
            .args([family, "-force", "-batch", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
    })?;
    if let Some(mut input) = child.stdin.take() {
        let text = format!(
            "rule add fwmark {ANSWERS:#x}/0xfff priority {ROUTES} lookup {ROUTES}\nroute replace local default dev lo table {ROUTES}\n"
        );
        // If it does not read to the end it says why itself.
        let _ = input.write_all(text.as_bytes());
    }
    Ok(child)
}

/// Binds a socket of a pod's namespace to a caller's address and a port by chance, so that it can connect to a process there.
///
/// # Errors
/// The kernel does not let it, or the port is taken.
pub fn bind(socket: &Socket, caller: IpAddr) -> io::Result<()> {
    socket.set_mark(MARK)?;
    // Also for IPv6 sockets: the kernel keeps one flag for both.
    nix::sys::socket::setsockopt(socket, nix::sys::socket::sockopt::IpTransparent, &true)?;
    // A port may be used for several processes, and again when its connection has ended.
    socket.set_reuse_address(true)?;
    let port = PORTS.start + (random::u32() % u32::from(PORTS.end - PORTS.start)) as u16;
    socket.bind(&SocketAddr::new(caller, port).into())
}

/// Whether a connection was not begun because its port is taken: another may not be.
pub fn is_port_taken(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pods_rules() {
        assert_eq!(
            rules(),
            "table inet diolkos_callers
delete table inet diolkos_callers
table inet diolkos_callers {
 chain output {
  type route hook output priority mangle; policy accept;
  meta mark 0x1539 ct mark set 0x1539
  ct direction reply ct mark 0x1539 meta mark set 0x111
 }
}
"
        );
    }
}
