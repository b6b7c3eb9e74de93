//! The mesh's certificate authority.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// A certificate is valid from a little before it is made: clocks of nodes differ.
const BACKDATE: Duration = Duration::from_secs(300);
/// A root's lifetime.
const ROOT_TTL: Duration = Duration::from_secs(3650 * 24 * 3600);
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
}

/// Signs workload certificates. Its key is its own, apart from the cluster CA's: who may name a workload may not name an administrator.
pub struct MeshCa {
    issuer: Issuer<'static, KeyPair>,
    root_pem: String,
    /// Other roots to trust, from `mesh-ca-extra.crt`: an old or a coming one while roots are rotated.
    extra_roots: Vec<String>,
    trust_domain: String,
}

/// For whom a certificate is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A workload, by its SPIFFE identity.
    Workload(String),
    /// A joined host as a client of mesh control, by its common name.
    Host(String),
}

impl MeshCa {
    /// Reads `mesh-ca.crt` and `.key`, or makes them.
    ///
    /// # Errors
    /// The files cannot be read, written or understood.
    pub fn open(dir: &Path, trust_domain: &str) -> Result<Self, CaError> {
        let (certificate, key) = (dir.join("mesh-ca.crt"), dir.join("mesh-ca.key"));
        let (root_pem, key_pem) = match (read(&certificate)?, read(&key)?) {
            (Some(root), Some(key)) => (root, key),
            (None, None) => {
                let (root_pem, key_pem) = make_root(trust_domain)?;
                // The key first: a certificate without its key would look like an operator's mistake at the next start.
                write_private(&key, &key_pem)?;
                std::fs::write(&certificate, &root_pem)
                    .map_err(|source| CaError::File { path: certificate.clone(), source })?;
                (root_pem, key_pem)
            }
            (None, Some(_)) => {
                let what = "mesh-ca.key is there without it; restore it, or remove both to begin anew".to_owned();
                return Err(CaError::Malformed { path: certificate, what });
            }
            (Some(_), None) => {
                let what = "mesh-ca.crt is there without it; restore it, or remove both to begin anew".to_owned();
                return Err(CaError::Malformed { path: key, what });
            }
        };
        let malformed =
            |path: &Path, error: rcgen::Error| CaError::Malformed { path: path.to_owned(), what: error.to_string() };
        let pair = KeyPair::from_pem(&key_pem).map_err(|error| malformed(&key, error))?;
        let issuer = Issuer::from_ca_cert_pem(&root_pem, pair).map_err(|error| malformed(&certificate, error))?;
        let extra = read(&dir.join("mesh-ca-extra.crt"))?.unwrap_or_default();
        Ok(MeshCa { issuer, root_pem, extra_roots: split_pem(&extra), trust_domain: trust_domain.to_owned() })
    }

    /// Every root that workloads should trust, PEM; the one that signs first.
    pub fn roots(&self) -> Vec<String> {
        std::iter::once(self.root_pem.clone()).chain(self.extra_roots.iter().cloned()).collect()
    }

    /// The trust domain.
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
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
        let sign = |error: rcgen::Error| CaError::Sign(error.to_string());
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        match subject {
            Subject::Workload(identity) => {
                let uri = identity.as_str().try_into().map_err(|error| CaError::Request(format!("{error}")))?;
                params.subject_alt_names = vec![SanType::URI(uri)];
            }
            Subject::Host(name) => params.distinguished_name.push(DnType::CommonName, name.as_str()),
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let now = SystemTime::now();
        params.not_before = (now - BACKDATE).into();
        params.not_after = (now + ttl).into();
        params.serial_number = Some(serial()?);
        let leaf = params.signed_by(&csr.public_key, &self.issuer).map_err(sign)?;
        Ok(vec![leaf.pem(), self.root_pem.clone()])
    }
}

fn make_root(trust_domain: &str) -> Result<(String, String), CaError> {
    let sign = |error: rcgen::Error| CaError::Sign(error.to_string());
    let key = KeyPair::generate().map_err(sign)?;
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, format!("diolkos-mesh-ca {trust_domain}"));
    params.distinguished_name = name;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let uri = format!("spiffe://{trust_domain}");
    params.subject_alt_names =
        vec![SanType::URI(uri.as_str().try_into().map_err(|error| CaError::Sign(format!("{error}")))?)];
    let now = SystemTime::now();
    params.not_before = (now - BACKDATE).into();
    params.not_after = (now + ROOT_TTL).into();
    let root = params.self_signed(&key).map_err(sign)?;
    Ok((root.pem(), key.serialize_pem()))
}

/// 127 random bits: a serial number must be positive and not be foreseen.
fn serial() -> Result<SerialNumber, CaError> {
    let mut bytes = [0u8; 16];
    rustls::crypto::aws_lc_rs::default_provider()
        .secure_random
        .fill(&mut bytes)
        .map_err(|_| CaError::Sign("no random numbers".into()))?;
    bytes[0] &= 0x7f;
    Ok(SerialNumber::from_slice(&bytes))
}

fn read(path: &Path) -> Result<Option<String>, CaError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(CaError::File { path: path.to_owned(), source }),
    }
}

fn write_private(path: &Path, text: &str) -> Result<(), CaError> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    })
    .map_err(|source| CaError::File { path: path.to_owned(), source })
}

/// The certificates of a PEM text, one text each.
pub(super) fn split_pem(text: &str) -> Vec<String> {
    const END: &str = "-----END CERTIFICATE-----";
    text.split_inclusive(END)
        .filter_map(|part| part.find("-----BEGIN CERTIFICATE-----").map(|at| format!("{}\n", part[at..].trim_end())))
        .filter(|part| part.trim_end().ends_with(END))
        .collect()
}
