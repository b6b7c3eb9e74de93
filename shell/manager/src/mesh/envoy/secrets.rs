//! What one client is told by SDS: a certificate and key of its own, the roots, and the gateways' secrets that it asks for by name. Only it sees them, so
//! they are kept with its stream.
use super::audience::Claim;
use crate::mesh::ca::Subject;
use crate::mesh::certificates::Certificates;
use crate::mesh::core::now;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::Instant;
use xds::catalog::Catalog;
use xds::envoy::{self, OWN_SECRET, ROOTS_SECRET, types};
use xds::session::NAMES_LIMIT;

/// A client whose workload or gateway is not there (yet) is looked at again after this.
const RETRY: Duration = Duration::from_secs(5);

/// See the [module](self).
#[derive(Debug)]
pub struct Secrets {
    catalog: Catalog,
    wanted: BTreeSet<String>,
    claim: Claim,
    /// When the certificate is to be made (anew), and the root that it was signed under.
    due: Option<Instant>,
    root: Option<String>,
}

impl Secrets {
    /// Of a client that asked for nothing yet.
    pub fn new() -> Self {
        let mut catalog = Catalog::starting_at(now().as_micros() as u64);
        catalog.declare(types::SECRET);
        Secrets { catalog, wanted: BTreeSet::new(), claim: Claim::None, due: None, root: None }
    }

    /// The client has said who it is.
    pub fn claim(&mut self, claim: Claim) {
        self.claim = claim;
    }

    /// Who it said that it is.
    pub fn claimed(&self) -> &Claim {
        &self.claim
    }

    /// What it is told.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// It asks for these names too. What is over the limit is refused where the request is read.
    pub fn want<'a>(&mut self, names: impl IntoIterator<Item = &'a String>) {
        self.wanted.extend(names.into_iter().take(NAMES_LIMIT).cloned());
    }

    /// It asks for these names, and no others.
    pub fn want_only(&mut self, names: &[String]) {
        let others: Vec<String> = self.wanted.iter().filter(|name| !names.contains(name)).cloned().collect();
        self.leave(&others);
        self.want(names);
    }

    /// It asks for them no more.
    pub fn leave<'a>(&mut self, names: impl IntoIterator<Item = &'a String>) {
        for name in names {
            self.wanted.remove(name);
            self.catalog.set(types::SECRET, name, None);
        }
    }

    /// When to look again though nothing changed.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Brings everything up to date. `shared` gives the encoded value of a secret that is not the client's own.
    pub fn refresh(&mut self, certificates: &Certificates, shared: impl Fn(&str) -> Option<bytes::Bytes>) {
        let names: Vec<String> = self.wanted.iter().cloned().collect();
        for name in names {
            match name.as_str() {
                OWN_SECRET if self.claim != Claim::None => self.refresh_own(certificates),
                ROOTS_SECRET => {
                    let roots = certificates.core.ca.roots().concat();
                    let value = envoy::roots_secret(ROOTS_SECRET, roots.as_bytes());
                    self.catalog.set(types::SECRET, ROOTS_SECRET, Some(value));
                }
                other => {
                    self.catalog.set(types::SECRET, other, shared(other));
                }
            }
        }
    }

    /// A certificate is made when there is none, at half of its life, and when another root signs.
    fn refresh_own(&mut self, certificates: &Certificates) {
        let signs = certificates.core.ca.root_infos().into_iter().next().map(|root| root.id);
        if self.root == signs && self.due.is_some_and(|due| due > Instant::now()) {
            return;
        }
        let ttl = certificates.core.config.certificate_ttl;
        match self.make(certificates, ttl) {
            Ok(value) => {
                self.catalog.set(types::SECRET, OWN_SECRET, Some(value));
                self.root = signs;
                self.due = Some(Instant::now() + ttl / 2);
            }
            Err(why) => {
                // What it has stays until its end.
                tracing::warn!(client = certificates.caller.proxy(), claim = ?self.claim, why, "mesh: no certificate for an Envoy");
                self.due = Some(Instant::now() + RETRY);
                self.root = signs;
            }
        }
    }

    fn make(&self, certificates: &Certificates, ttl: Duration) -> Result<bytes::Bytes, String> {
        let identity = certificates.identity_of_claim(&self.claim).ok_or("there is no such gateway or host")?;
        let subject = Subject::Workload(identity);
        if !certificates.is_theirs(&subject) {
            return Err("no such workload is there".into());
        }
        let failed = |error: &dyn std::fmt::Display| error.to_string();
        let key = rcgen::KeyPair::generate().map_err(|error| failed(&error))?;
        let request = rcgen::CertificateParams::default().serialize_request(&key).map_err(|error| failed(&error))?;
        let request = request.pem().map_err(|error| failed(&error))?;
        let mut chain = certificates.core.ca.sign(&request, &subject, ttl).map_err(|error| failed(&error))?;
        // Peers have the root.
        chain.pop();
        Ok(envoy::tls_secret(OWN_SECRET, chain.concat().as_bytes(), key.serialize_pem().as_bytes()))
    }
}
