//! What policies ask of a verified token.

use std::collections::BTreeMap;
use std::sync::Arc;

/// A JSON Web Token whose signature, times and audience were verified, as policies see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Jwt {
    /// `iss`.
    pub issuer: Arc<str>,
    /// `sub`, or empty.
    pub subject: Arc<str>,
    /// `aud`.
    pub audiences: Vec<Arc<str>>,
    /// `azp`, or empty.
    pub presenter: Arc<str>,
    /// Claims that are texts or lists of texts. A claim within a claim has the name `outer][inner`, as a condition writes it.
    pub claims: BTreeMap<Arc<str>, Vec<Arc<str>>>,
}

impl Jwt {
    /// `ISSUER/SUBJECT`; none unless both are there.
    pub fn principal(&self) -> Option<String> {
        (!self.issuer.is_empty() && !self.subject.is_empty()).then(|| format!("{}/{}", self.issuer, self.subject))
    }
}
