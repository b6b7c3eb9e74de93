//! Key material on disk.

use super::{Authority, PkiError, Role};
use rcgen::KeyPair;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

const RENEW_WITHIN_S: i64 = 30 * 24 * 3600;

/// A certificate and its key, PEM.
#[derive(Clone)]
pub struct Pair {
    /// Certificate.
    pub certificate_pem: String,
    /// PKCS#8 key.
    pub key_pem: String,
}

impl Pair {
    /// As rustls takes them.
    ///
    /// # Errors
    /// The PEM holds something else.
    pub fn der(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), String> {
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(self.certificate_pem.as_bytes()).collect();
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).map_err(|error| error.to_string())?;
        Ok((certificates.map_err(|error| error.to_string())?, key))
    }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> PkiError {
    let path = path.to_path_buf();
    move |source| PkiError::File { path, source }
}

/// A directory that only its owner reads.
pub(super) fn create_dir(path: &Path) -> Result<(), PkiError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed(path))
}

/// Writes a file of mode 0600 so that a reader sees the old or the new content, never half.
pub(super) fn write_private(path: &Path, content: &[u8]) -> Result<(), PkiError> {
    write(path, content, 0o600)
}

fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), PkiError> {
    if holds(path, content, mode) {
        // A start on a full disk must not fail for a file that is there already.
        return Ok(());
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let run = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&beside)?;
        // An older file keeps its mode through open(); ours must not be wider than asked.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    run().map_err(failed(path))
}

fn holds(path: &Path, content: &[u8], mode: u32) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o777 == mode)
        && fs::read(path).is_ok_and(|there| there == content)
}

pub(super) fn read(path: &Path) -> Result<Option<String>, PkiError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(path)(error)),
    }
}

/// Both files of a pair; `None` unless both are there.
pub(super) fn read_pair(dir: &Path, stem: &str) -> Result<Option<Pair>, PkiError> {
    let certificate = read(&dir.join(format!("{stem}.crt")))?;
    let key = read(&dir.join(format!("{stem}.key")))?;
    Ok(certificate.zip(key).map(|(certificate_pem, key_pem)| Pair { certificate_pem, key_pem }))
}

/// Key first: a certificate without its key would be taken for a pair.
pub(super) fn write_pair(dir: &Path, stem: &str, pair: &Pair) -> Result<(), PkiError> {
    write_private(&dir.join(format!("{stem}.key")), pair.key_pem.as_bytes())?;
    write(&dir.join(format!("{stem}.crt")), pair.certificate_pem.as_bytes(), 0o644)
}

/// The pair on disk when it still serves, else a new one.
pub(super) fn open_or_issue(
    dir: &Path,
    stem: &str,
    role: &Role,
    authority: &Authority,
    now_s: u64,
) -> Result<Pair, PkiError> {
    if let Some(pair) = read_pair(dir, stem)?
        && still_serves(&pair, role, authority, now_s)
    {
        return Ok(pair);
    }
    let pair = authority.issue(role, now_s)?;
    write_pair(dir, stem, &pair)?;
    Ok(pair)
}

/// Signed by our CA, not near its end, for the same subject and with all names wanted.
fn still_serves(pair: &Pair, role: &Role, authority: &Authority, now_s: u64) -> bool {
    let der = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).ok();
    let (Some(ours), Some(ca)) = (der(&pair.certificate_pem), der(authority.certificate_pem())) else { return false };
    let (Ok((_, ours)), Ok((_, ca))) = (X509Certificate::from_der(&ours), X509Certificate::from_der(&ca)) else {
        return false;
    };
    let ends = ours.validity().not_after.timestamp();
    let names = alt_names(&ours);
    let common_name = ours.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    ours.issuer() == ca.subject()
        && ends - RENEW_WITHIN_S > i64::try_from(now_s).unwrap_or(i64::MAX)
        && common_name == Some(role.common_name.as_str())
        && role.alt_names.iter().all(|wanted| names.contains(wanted))
        && KeyPair::from_pem(&pair.key_pem).is_ok()
}

fn alt_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Vec::new() };
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|b| IpAddr::from(b).to_string()),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|b| IpAddr::from(b).to_string()),
        },
        _ => None,
    };
    extension.value.general_names.iter().filter_map(text).collect()
}

/// A P-256 key, PKCS#8 DER.
pub(super) fn open_or_make_key(path: &Path) -> Result<Vec<u8>, PkiError> {
    let malformed = |what: String| PkiError::Malformed { path: path.to_path_buf(), what };
    let key = match read(path)? {
        Some(pem) => KeyPair::from_pem(&pem).map_err(|error| malformed(error.to_string()))?,
        None => {
            let key =
                KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(|error| malformed(error.to_string()))?;
            write_private(path, key.serialize_pem().as_bytes())?;
            key
        }
    };
    Ok(key.serialize_der())
}
