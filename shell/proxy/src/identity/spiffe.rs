//! SPIFFE identities in certificates.
use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;

/// The one URI name of a certificate, if it is a SPIFFE id. The X.509-SVID standard allows exactly one URI, so that two
/// readers cannot pick different ones.
pub fn of_certificate(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let names = parsed.subject_alternative_name().ok()??;
    let mut uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let uri = uris.next()?;
    (uris.next().is_none() && uri.starts_with("spiffe://")).then(|| uri.to_owned())
}

/// Whether the identity is in this trust domain.
pub fn in_trust_domain(identity: &str, trust_domain: &str) -> bool {
    let rest = identity.strip_prefix("spiffe://").and_then(|rest| rest.strip_prefix(trust_domain));
    rest.is_some_and(|rest| rest.starts_with('/'))
}

/// Namespace and ServiceAccount of `spiffe://DOMAIN/ns/NAMESPACE/sa/NAME`.
pub fn parts(identity: &str) -> Option<(&str, &str)> {
    let mut parts = identity.strip_prefix("spiffe://")?.split('/').skip(1);
    match (parts.next()?, parts.next()?, parts.next()?, parts.next()?, parts.next()) {
        ("ns", namespace, "sa", account, None) => Some((namespace, account)),
        _ => None,
    }
}

/// When the certificate begins and ends, in seconds since the epoch.
pub fn validity(certificate: &CertificateDer<'_>) -> Option<(i64, i64)> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some((parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trust_domains_are_whole_names() {
        assert!(in_trust_domain("spiffe://cluster.local/ns/a/sa/b", "cluster.local"));
        assert!(!in_trust_domain("spiffe://cluster.local.evil/ns/a/sa/b", "cluster.local"));
        assert!(!in_trust_domain("spiffe://cluster.local", "cluster.local"));
        assert_eq!(parts("spiffe://cluster.local/ns/a/sa/b"), Some(("a", "b")));
        assert_eq!(parts("spiffe://cluster.local/ns/a/sa/b/c"), None);
    }
}
