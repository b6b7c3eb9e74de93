use super::PkiError;
use super::files::{self, Pair};
use crate::Config;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

const DAY_S: u64 = 24 * 3600;
const LEAF_DAYS: u64 = 365;
const CA_DAYS: u64 = 3650;

/// What a certificate is for.
#[derive(Clone, Debug)]
pub struct Role {
    /// Subject's CN: the user name.
    pub common_name: String,
    /// Subject's O: the groups.
    pub groups: Vec<String>,
    /// Names and addresses.
    pub alt_names: Vec<String>,
    /// Serves TLS.
    pub serves: bool,
    /// Is a TLS client.
    pub connects: bool,
}

impl Role {
    /// A client.
    pub fn client(name: &str, groups: &[&str]) -> Role {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        Role { common_name: name.to_owned(), groups, alt_names: Vec::new(), serves: false, connects: true }
    }
    /// The API server, under all names that clients call it by.
    pub fn server(config: &Config) -> Role {
        let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
        let service = ["kubernetes", "kubernetes.default", "kubernetes.default.svc"].map(str::to_owned);
        names.extend(service);
        names.push("kubernetes.default.svc.cluster.local".to_owned());
        names.push(config.service_cidr.at(1).to_string());
        names.push(config.node_name.clone());
        names.push(config.advertised().to_string());
        names.extend(config.node_addresses.iter().map(ToString::to_string));
        names.extend(config.alt_names.iter().cloned());
        let names = dedup(names);
        Role {
            common_name: "kube-apiserver".to_owned(),
            groups: vec![],
            alt_names: names,
            serves: true,
            connects: false,
        }
    }
    /// A node: its agent is a client of the API server and serves logs and exec.
    pub fn node(name: &str, addresses: &[IpAddr]) -> Role {
        let mut names = vec![name.to_owned(), "127.0.0.1".to_owned()];
        names.extend(addresses.iter().map(ToString::to_string));
        Role {
            common_name: format!("system:node:{name}"),
            groups: vec!["system:nodes".to_owned()],
            alt_names: dedup(names),
            serves: true,
            connects: true,
        }
    }

    fn params(&self, now_s: u64) -> Result<CertificateParams, PkiError> {
        let mut params = CertificateParams::default();
        let mut name = DistinguishedName::new();
        name.push(DnType::CommonName, self.common_name.as_str());
        // One O each: rcgen keeps one value for a type, and every role here has at most one group.
        if let Some(group) = self.groups.first() {
            name.push(DnType::OrganizationName, group.as_str());
        }
        params.distinguished_name = name;
        for alt in &self.alt_names {
            params.subject_alt_names.push(match alt.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(
                    alt.as_str()
                        .try_into()
                        .map_err(|error| self.refusal(format!("{alt:?} is no DNS name: {error}")))?,
                ),
            });
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        if self.serves {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        if self.connects {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
        }
        params.use_authority_key_identifier_extension = true;
        validity(&mut params, now_s, LEAF_DAYS);
        Ok(params)
    }

    pub(super) fn refusal(&self, what: impl ToString) -> PkiError {
        PkiError::Issue { name: self.common_name.clone(), what: what.to_string() }
    }
}

fn dedup(names: Vec<String>) -> Vec<String> {
    let mut seen: Vec<String> = Vec::new();
    for name in names.into_iter().filter(|name| !name.is_empty()) {
        if !seen.contains(&name) {
            seen.push(name);
        }
    }
    seen
}

fn validity(params: &mut CertificateParams, now_s: u64, days: u64) {
    let epoch = date_time_ymd(1970, 1, 1);
    // An hour's slack for machines whose clocks differ.
    params.not_before = epoch + Duration::from_secs(now_s.saturating_sub(3600));
    params.not_after = epoch + Duration::from_secs(now_s + days * DAY_S);
}

/// The certificate authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: Pair,
}

impl Authority {
    /// Reads `ca.crt` and `ca.key`, or makes them.
    ///
    /// # Errors
    /// See [`PkiError`].
    pub fn open(dir: &Path, now_s: u64) -> Result<Authority, PkiError> {
        let certificate = match files::read_pair(dir, "ca")? {
            Some(pair) => pair,
            None => {
                let pair = Self::make(now_s)?;
                files::write_pair(dir, "ca", &pair)?;
                pair
            }
        };
        let broken = |what: String| PkiError::Malformed { path: dir.join("ca.key"), what };
        let key = KeyPair::from_pem(&certificate.key_pem).map_err(|error| broken(error.to_string()))?;
        let issuer =
            Issuer::from_ca_cert_pem(&certificate.certificate_pem, key).map_err(|error| broken(error.to_string()))?;
        Ok(Authority { issuer, certificate })
    }

    fn make(now_s: u64) -> Result<Pair, PkiError> {
        let refused = |error: rcgen::Error| PkiError::Issue { name: "diolkos-ca".to_owned(), what: error.to_string() };
        let key = KeyPair::generate().map_err(refused)?;
        let mut params = CertificateParams::default();
        let mut name = DistinguishedName::new();
        // Every installation's CA has a name of its own, so that a stale kubeconfig fails as "unknown authority".
        name.push(DnType::CommonName, format!("diolkos-ca@{now_s}"));
        params.distinguished_name = name;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        validity(&mut params, now_s, CA_DAYS);
        let certificate = params.self_signed(&key).map_err(refused)?;
        Ok(Pair { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }

    /// The CA's certificate.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate.certificate_pem
    }

    /// Makes a key and signs its certificate.
    ///
    /// # Errors
    /// A name that no certificate can hold.
    pub fn issue(&self, role: &Role, now_s: u64) -> Result<Pair, PkiError> {
        let key = KeyPair::generate().map_err(|error| role.refusal(error))?;
        let certificate = role.params(now_s)?.signed_by(&key, &self.issuer).map_err(|error| role.refusal(error))?;
        Ok(Pair { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }
}
