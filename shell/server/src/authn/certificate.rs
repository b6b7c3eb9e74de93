use crate::identity::Identity;
use std::sync::Arc;
use x509_parser::prelude::{FromDer, X509Certificate};

/// CN is the user, every O a group. The chain has been verified by TLS.
pub fn identity(der: &[u8]) -> Option<Identity> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok().filter(|name| !name.is_empty())?;
    let groups = subject.iter_organization().filter_map(|group| group.as_str().ok()).map(Arc::from);
    Some(Identity::user(name, groups))
}
