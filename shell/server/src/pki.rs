//! The platform's own certificate authority and what it has signed.
//!
//! Made at first start, reused afterwards; a certificate that ends within 30 days or lacks a wanted name is issued anew with its old key's
//! place. The CA's key never leaves `pki/ca.key` (mode 0600).

mod files;
mod issue;
mod kubeconfig;

pub use issue::{Authority, Role};

use crate::Config;
use files::{Pair, write_private};
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why certificates could not be made or read.
#[derive(Debug, Error)]
pub enum PkiError {
    /// A file under `pki/` cannot be read or written. Mend the disk or its permissions.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file under `pki/` is not what its name says. Removing the pair makes a new one at the next start.
    #[error("{} is not a usable key or certificate: {what}", path.display())]
    Malformed {
        /// Which.
        path: PathBuf,
        /// Why.
        what: String,
    },
    /// Signing failed.
    #[error("cannot issue a certificate for {name}: {what}")]
    Issue {
        /// For whom.
        name: String,
        /// Why.
        what: String,
    },
}

/// All key material of a server.
pub struct Pki {
    /// Directory of the files.
    pub dir: PathBuf,
    /// Signs; its certificate is what clients trust.
    pub authority: Authority,
    /// The API server's serving pair.
    pub server: Pair,
    /// The API server as a client of node agents.
    pub node_client: Pair,
    /// The administrator's client pair.
    pub admin: Pair,
    /// This machine's node: client of the API server and server on 10250.
    pub node: Pair,
    /// ES256 key of ServiceAccount tokens, PKCS#8 DER.
    pub sa_key: Vec<u8>,
}

impl Pki {
    /// Reads what is there, makes what is missing, renews what ends soon. `now_s` is seconds since the epoch.
    ///
    /// # Errors
    /// See [`PkiError`].
    pub fn open(config: &Config, now_s: u64) -> Result<Pki, PkiError> {
        let dir = config.data_dir.join("pki");
        files::create_dir(&config.data_dir)?;
        files::create_dir(&dir)?;
        let authority = Authority::open(&dir, now_s)?;
        let issue = |stem: &str, role: &Role| files::open_or_issue(&dir, stem, role, &authority, now_s);
        let server = issue("server", &Role::server(config))?;
        let node_client = issue("node-client", &Role::client("system:kube-apiserver", &["system:masters"]))?;
        let admin = issue("admin", &Role::client("kubernetes-admin", &["system:masters"]))?;
        let node = issue("node", &Role::node(&config.node_name, &config.node_addresses))?;
        let sa_key = files::open_or_make_key(&dir.join("sa.key"))?;
        Ok(Pki { dir, authority, server, node_client, admin, node, sa_key })
    }

    /// The dashboard's token: the one in `pki/dashboard.token`, or `fresh`, which is written there.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn dashboard_token(&self, fresh: String) -> Result<String, PkiError> {
        let path = self.dir.join("dashboard.token");
        if let Some(token) = files::read(&path)?.map(|text| text.trim().to_owned()).filter(|token| token.len() >= 32) {
            return Ok(token);
        }
        write_private(&path, fresh.as_bytes())?;
        Ok(fresh)
    }

    /// Writes `admin.kubeconfig` and `node.kubeconfig` (mode 0600) for the given API server URL.
    ///
    /// # Errors
    /// The files cannot be written.
    pub fn write_kubeconfigs(&self, data_dir: &Path, url: &str, dashboard_token: &str) -> Result<(), PkiError> {
        let ca = self.authority.certificate_pem();
        let admin = kubeconfig::render(url, ca, "kubernetes-admin", &self.admin, Some(("dashboard", dashboard_token)));
        write_private(&data_dir.join("admin.kubeconfig"), admin.as_bytes())?;
        let node = kubeconfig::render(url, ca, "node", &self.node, None);
        write_private(&data_dir.join("node.kubeconfig"), node.as_bytes())
    }
}

#[cfg(test)]
mod tests;
