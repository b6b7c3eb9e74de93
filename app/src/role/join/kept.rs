//! What a host keeps of its joining (`DATA_DIR/join/host.json`).

use super::super::failed;
use crate::cli::CommandError;
use crate::config::Config;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::path::PathBuf;

/// What its proxies must know, beside the certificate and the roots, which lie in the same directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Mesh control, `HOST:PORT`.
    pub control: String,
    /// The service, which is also its account.
    pub service: String,
    pub namespace: String,
    /// Of the process, on loopback.
    pub port: u16,
    pub address: IpAddr,
    /// `host/NAMESPACE/NAME`.
    pub workload: String,
    /// `spiffe://...`
    pub identity: String,
    pub cluster_domain: String,
    /// Ranges of services' addresses.
    pub service_cidrs: Vec<String>,
    /// Users and groups whose processes may have the identity, by number.
    pub users: Vec<u32>,
    pub groups: Vec<u32>,
}

impl Kept {
    fn path(config: &Config) -> PathBuf {
        config.data_dir.join("join/host.json")
    }

    /// # Errors
    /// This machine has not joined, or the file is damaged.
    pub fn read(config: &Config) -> Result<Kept, CommandError> {
        let path = Self::path(config);
        let text = std::fs::read(&path).map_err(|error| failed(format!("{}: {error}", path.display())))?;
        serde_json::from_slice(&text).map_err(|error| failed(format!("{}: {error}", path.display())))
    }

    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, config: &Config) -> Result<(), CommandError> {
        let path = Self::path(config);
        let temporary = path.with_extension("new");
        let text = serde_json::to_vec_pretty(self).map_err(failed)?;
        let written = std::fs::write(&temporary, text).and_then(|()| std::fs::rename(&temporary, &path));
        written.map_err(|error| failed(format!("{}: {error}", path.display())))
    }

    /// Whether that is the same process of the same machine, by what was said of both.
    pub fn is_of(&self, service: &str, namespace: &str, host: &str, address: IpAddr, port: u16) -> bool {
        let workload = format!("host/{namespace}/{service}-{host}");
        self.workload == workload && (self.address, self.port) == (address, port)
    }
}
