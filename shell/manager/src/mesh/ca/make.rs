//! Roots, intermediates and leaves.

use super::{CaError, Subject};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::time::{Duration, SystemTime};

/// A certificate is valid from a little before it is made: clocks of nodes differ.
pub const BACKDATE: Duration = Duration::from_secs(300);
/// A root's lifetime.
const ROOT_TTL: Duration = Duration::from_secs(3650 * 24 * 3600);
/// An intermediate's, unless certificates under it live so long that it must be more.
const INTERMEDIATE_TTL: Duration = Duration::from_secs(90 * 24 * 3600);

/// A certificate and its key, PEM.
#[derive(Clone)]
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

/// Something that signs.
pub struct Signer {
    pub pair: Pair,
    pub issuer: Issuer<'static, KeyPair>,
    /// Not-before and not-after, seconds since the epoch.
    pub validity: (u64, u64),
    /// SHA-256 of the certificate, hexadecimal.
    pub id: String,
}

fn sign(error: impl std::fmt::Display) -> CaError {
    CaError::Sign(error.to_string())
}

impl Signer {
    /// From PEM.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn read(pair: Pair) -> Result<Self, String> {
        let der = CertificateDer::from_pem_slice(pair.certificate.as_bytes()).map_err(|error| error.to_string())?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&der).map_err(|error| error.to_string())?;
        let second = |at: i64| u64::try_from(at).unwrap_or(0);
        let validity = parsed.validity();
        let validity = (second(validity.not_before.timestamp()), second(validity.not_after.timestamp()));
        let key = KeyPair::from_pem(&pair.key).map_err(|error| error.to_string())?;
        if key.subject_public_key_info() != parsed.public_key().raw {
            return Err("the key is not the certificate's".into());
        }
        let id = id_of(&der);
        let issuer = Issuer::from_ca_cert_pem(&pair.certificate, key).map_err(|error| error.to_string())?;
        Ok(Signer { pair, issuer, validity, id })
    }

    /// When it was made, seconds since the epoch.
    pub fn made_s(&self) -> u64 {
        self.validity.0 + BACKDATE.as_secs()
    }
}

/// SHA-256 of a certificate, hexadecimal.
fn id_of(der: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A new root.
pub fn root(trust_domain: &str) -> Result<Signer, CaError> {
    let key = KeyPair::generate().map_err(sign)?;
    let mut params = authority(trust_domain, "diolkos-mesh-ca", ROOT_TTL)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let uri = format!("spiffe://{trust_domain}");
    params.subject_alt_names = vec![SanType::URI(uri.as_str().try_into().map_err(sign)?)];
    let certificate = params.self_signed(&key).map_err(sign)?.pem();
    Signer::read(Pair { certificate, key: key.serialize_pem() }).map_err(CaError::Sign)
}

/// A new intermediate under a root, for leaves that live up to `leaf_ttl`.
pub fn intermediate(root: &Signer, trust_domain: &str, leaf_ttl: Duration) -> Result<Signer, CaError> {
    let key = KeyPair::generate().map_err(sign)?;
    let mut params = authority(trust_domain, "diolkos-mesh-intermediate", INTERMEDIATE_TTL.max(leaf_ttl * 4))?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, &root.issuer).map_err(sign)?.pem();
    Signer::read(Pair { certificate, key: key.serialize_pem() }).map_err(CaError::Sign)
}

fn authority(trust_domain: &str, what: &str, ttl: Duration) -> Result<CertificateParams, CaError> {
    let mut params = CertificateParams::default();
    let serial = serial()?;
    // Names of their own: who verifies need not try several keys for one name.
    let number: String = serial.to_bytes().iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("{what} {trust_domain} {number}"));
    params.serial_number = Some(serial);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let now = SystemTime::now();
    params.not_before = (now - BACKDATE).into();
    params.not_after = (now + ttl).into();
    Ok(params)
}

/// A leaf for `subject` and the key of a request.
pub fn leaf(
    key: &impl PublicKeyData,
    subject: &Subject,
    ttl: Duration,
    issuer: &Issuer<'static, KeyPair>,
) -> Result<String, CaError> {
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
    Ok(params.signed_by(key, issuer).map_err(sign)?.pem())
}

/// 127 random bits: a serial number must be positive and not be foreseen.
fn serial() -> Result<SerialNumber, CaError> {
    let mut bytes = [0u8; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| CaError::Sign("no random numbers".into()))?;
    bytes[0] &= 0x7f;
    Ok(SerialNumber::from_slice(&bytes))
}
