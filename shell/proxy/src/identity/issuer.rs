//! Who signs.
use super::IdentityError;
use std::future::Future;
use std::pin::Pin;

/// Signs certificates for the identities of this node.
pub trait Issuer: Send + Sync {
    /// Takes a PEM PKCS #10 request for `identity` and gives PEM certificates, leaf first, root last.
    fn sign<'a>(&'a self, identity: &'a str, request_pem: String) -> Signing<'a>;

    /// Gives a JWT-SVID of `identity` for these.
    fn sign_jwt<'a>(&'a self, _identity: &'a str, _audience: Vec<String>) -> Token<'a> {
        Box::pin(async { Err(IdentityError::Issuer("it signs no tokens".into())) })
    }
}

/// A token, or why not.
pub type Token<'a> = Pin<Box<dyn Future<Output = Result<String, IdentityError>> + Send + 'a>>;

/// The answer of an [`Issuer`].
pub type Signing<'a> = Pin<Box<dyn Future<Output = Result<Vec<String>, IdentityError>> + Send + 'a>>;

/// A certificate authority inside the process, for tests and `--local-config`.
pub struct LocalIssuer {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    root_pem: String,
    lifetime_s: i64,
}

impl LocalIssuer {
    /// Makes a new root whose leaves live `lifetime_s` seconds.
    pub fn generate(lifetime_s: i64) -> Result<Self, IdentityError> {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
        params.distinguished_name.push(rcgen::DnType::CommonName, "local mesh root");
        let root_pem = params.self_signed(&key)?.pem();
        Ok(Self { issuer: rcgen::Issuer::new(params, key), root_pem, lifetime_s })
    }

    /// The root.
    pub fn root_pem(&self) -> &str {
        &self.root_pem
    }

    fn sign_now(&self, identity: &str, request_pem: &str) -> Result<Vec<String>, IdentityError> {
        let mut request = rcgen::CertificateSigningRequestParams::from_pem(request_pem)?;
        let params = &mut request.params;
        params.subject_alt_names = vec![rcgen::SanType::URI(identity.to_owned().try_into()?)];
        params.is_ca = rcgen::IsCa::ExplicitNoCa;
        params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth, rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        let now = std::time::SystemTime::now();
        params.not_before = (now - std::time::Duration::from_secs(5)).into();
        params.not_after = (now + std::time::Duration::from_secs(self.lifetime_s.unsigned_abs())).into();
        let leaf = request.signed_by(&self.issuer)?;
        Ok(vec![leaf.pem(), self.root_pem.clone()])
    }
}

impl Issuer for LocalIssuer {
    fn sign<'a>(&'a self, identity: &'a str, request_pem: String) -> Signing<'a> {
        Box::pin(async move { self.sign_now(identity, &request_pem) })
    }
}
