//! The mesh's certificate authority: a root, an intermediate under it that signs, and the succession of both.

mod jwt;
mod kept;
mod make;

use control::trust::{Event, Limits, Order, Phase, Standing, UnderWay, step};
use jwt::JwtKey;
use kept::Keys;
use model::mesh::TrustBundle;
use rcgen::CertificateSigningRequestParams;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

/// A request is one public key: longer ones are no mistake.
const CSR_LIMIT: usize = 16 * 1024;

/// Why key material cannot be had, or a request not be signed.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A file cannot be read or written. The operator's to mend.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is not what its name says. The operator's to mend.
    #[error("{path} is not usable: {what}", path = path.display())]
    Malformed {
        /// Which.
        path: PathBuf,
        /// Why.
        what: String,
    },
    /// The request is not one. The caller's fault; the same request fails again.
    #[error("not a valid certificate request: {0}")]
    Request(String),
    /// Signing failed. Ours.
    #[error("cannot sign: {0}")]
    Sign(String),
    /// A root is being replaced already. Later it can be asked for again.
    #[error(transparent)]
    UnderWay(#[from] UnderWay),
}

/// Signs workload certificates. Its keys are its own, apart from the cluster CA's: who may name a workload may not name an administrator.
pub struct MeshCa {
    dir: PathBuf,
    keys: RwLock<Keys>,
    /// Other roots to trust, from `mesh-ca-extra.crt`.
    extra_roots: Vec<String>,
    trust_domain: String,
    limits: Limits,
}

/// For whom a certificate is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A workload, by its SPIFFE identity.
    Workload(String),
    /// A joined host as a client of mesh control, by its common name.
    Host(String),
}

/// A root, for reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootInfo {
    /// SHA-256 of the certificate, hexadecimal.
    pub id: String,
    /// When it was made, seconds since the epoch.
    pub made_s: u64,
    /// When it ends, seconds since the epoch.
    pub not_after_s: u64,
}

impl MeshCa {
    /// Reads the authority's file (`mesh-ca.json`), or makes it.
    ///
    /// # Errors
    /// The files cannot be read, written or understood.
    pub fn open(dir: &Path, trust_domain: &str, limits: Limits) -> Result<Self, CaError> {
        let keys = kept::open(dir, trust_domain, Duration::from_secs(limits.leaf_ttl_s))?;
        let extra = kept::read(&dir.join("mesh-ca-extra.crt"))?.unwrap_or_default();
        Ok(MeshCa {
            dir: dir.to_owned(),
            keys: RwLock::new(keys),
            extra_roots: split_pem(&extra),
            trust_domain: trust_domain.to_owned(),
            limits,
        })
    }

    fn look<T>(&self, look: impl FnOnce(&Keys) -> T) -> T {
        look(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Every root that workloads should trust, PEM; the one that signs first.
    pub fn roots(&self) -> Vec<String> {
        let own: Vec<String> = self.look(|keys| keys.roots.iter().map(|root| root.pair.certificate.clone()).collect());
        own.into_iter().chain(self.extra_roots.iter().cloned()).collect()
    }

    /// What proxies are told of this trust domain.
    pub fn bundle(&self) -> TrustBundle {
        let keys: Vec<_> = self.look(|keys| keys.jwt.iter().map(JwtKey::jwk).collect());
        TrustBundle {
            trust_domain: self.trust_domain.as_str().into(),
            roots: self.roots().into_iter().map(Into::into).collect(),
            jwks: serde_json::json!({ "keys": keys }).to_string().into(),
        }
    }

    /// Signs a JWT-SVID.
    ///
    /// # Errors
    /// Signing fails.
    pub fn sign_jwt(&self, identity: &str, audience: &[String], now_s: u64, ttl_s: u64) -> Result<String, CaError> {
        self.look(|keys| keys.jwt[0].sign(identity, audience, now_s, ttl_s))
    }

    /// The trust domain.
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// Where the succession of roots stands.
    pub fn phase(&self) -> Phase {
        self.look(|keys| keys.phase)
    }

    /// The roots; the one that signs first, then the next or the old one.
    pub fn root_infos(&self) -> Vec<RootInfo> {
        let info =
            |root: &make::Signer| RootInfo { id: root.id.clone(), made_s: root.made_s(), not_after_s: root.validity.1 };
        self.look(|keys| keys.roots.iter().map(info).collect())
    }

    /// The old and the next root, while one follows the other.
    pub fn old_and_next(&self) -> Option<(String, String)> {
        self.look(|keys| {
            let (first, second) = (keys.roots.first()?.id.clone(), keys.roots.get(1)?.id.clone());
            match keys.phase {
                Phase::Steady => None,
                Phase::Announced { .. } => Some((first, second)),
                Phase::Switched { .. } => Some((second, first)),
            }
        })
    }

    /// Goes on with the succession as an event says; what is done is on disk when this returns. True: the roots have changed, and whoever trusts
    /// them must be told.
    ///
    /// # Errors
    /// A root is asked for while one is being replaced; or a key cannot be made or kept, and all stays as it was.
    pub fn advance(&self, event: Event, now_s: u64) -> Result<bool, CaError> {
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        let (phase, order) = step(keys.phase, event, &self.limits, now_s)?;
        let Some(order) = order else { return Ok(false) };
        let again = |signer: &make::Signer| make::Signer::read(signer.pair.clone()).map_err(CaError::Sign);
        let roots = match (order, keys.roots.as_slice()) {
            (Order::Announce, [old, ..]) => vec![again(old)?, make::root(&self.trust_domain)?],
            (Order::Switch, [old, next, ..]) => vec![again(next)?, again(old)?],
            (Order::Withdraw, [next, ..]) => vec![again(next)?],
            _ => return Err(CaError::Sign("a root is missing".into())),
        };
        let token = |key: &JwtKey| JwtKey::read(&key.kept).map_err(CaError::Sign);
        let jwt = match (order, keys.jwt.as_slice()) {
            (Order::Announce, [old, ..]) => vec![token(old)?, JwtKey::make()?],
            (Order::Switch, [old, next, ..]) => vec![token(next)?, token(old)?],
            (Order::Withdraw, [next, ..]) => vec![token(next)?],
            _ => return Err(CaError::Sign("a key for tokens is missing".into())),
        };
        let intermediate = match order {
            Order::Switch => self.new_intermediate(&roots[0])?,
            Order::Announce | Order::Withdraw => again(&keys.intermediate)?,
        };
        let next = Keys { phase, roots, intermediate, jwt };
        kept::write(&self.dir, &next)?;
        *keys = next;
        tracing::info!(?order, root = keys.root().id, "mesh: succession of roots");
        Ok(true)
    }

    /// How the root that signs stands.
    pub fn standing(&self, all_agree: bool) -> Standing {
        self.look(|keys| Standing { made_s: keys.root().made_s(), all_agree })
    }

    fn new_intermediate(&self, root: &make::Signer) -> Result<make::Signer, CaError> {
        make::intermediate(root, &self.trust_domain, Duration::from_secs(self.limits.leaf_ttl_s))
    }

    /// Makes a new intermediate: asked to, or when half of the old one's life is over. It goes with each certificate, so nobody has to be told.
    ///
    /// # Errors
    /// It cannot be made or kept, and the old one stays.
    pub fn renew_intermediate(&self, asked: bool, now_s: u64) -> Result<bool, CaError> {
        let (from, to) = self.look(|keys| keys.intermediate.validity);
        if !asked && now_s < from + (to - from) / 2 {
            return Ok(false);
        }
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        let made = self.new_intermediate(keys.root())?;
        let old = std::mem::replace(&mut keys.intermediate, made);
        if let Err(error) = kept::write(&self.dir, &keys) {
            keys.intermediate = old;
            return Err(error);
        }
        tracing::info!(intermediate = keys.intermediate.id, "mesh: another intermediate signs");
        Ok(true)
    }

    /// Signs a request's key for `subject` (names in the request count for nothing) and returns the chain, leaf first, root last.
    ///
    /// # Errors
    /// The request is not a valid one, or signing fails.
    pub fn sign(&self, csr_pem: &str, subject: &Subject, ttl: Duration) -> Result<Vec<String>, CaError> {
        if csr_pem.len() > CSR_LIMIT {
            return Err(CaError::Request(format!("longer than {CSR_LIMIT} bytes")));
        }
        // Reading it checks that the asker has the key: its signature is verified.
        let csr =
            CertificateSigningRequestParams::from_pem(csr_pem).map_err(|error| CaError::Request(error.to_string()))?;
        self.look(|keys| {
            let leaf = make::leaf(&csr.public_key, subject, ttl, &keys.intermediate.issuer)?;
            Ok(vec![leaf, keys.intermediate.pair.certificate.clone(), keys.root().pair.certificate.clone()])
        })
    }
}

/// The certificates of a PEM text, one text each.
pub(super) fn split_pem(text: &str) -> Vec<String> {
    const END: &str = "-----END CERTIFICATE-----";
    text.split_inclusive(END)
        .filter_map(|part| part.find("-----BEGIN CERTIFICATE-----").map(|at| format!("{}\n", part[at..].trim_end())))
        .filter(|part| part.trim_end().ends_with(END))
        .collect()
}
