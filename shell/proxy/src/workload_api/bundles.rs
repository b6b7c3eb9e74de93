//! What is trusted, in the API's forms.
use crate::shared::Shared;
use model::mesh::TrustBundle;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::collections::BTreeMap;

fn id(bundle: &TrustBundle) -> String {
    format!("spiffe://{}", bundle.trust_domain)
}

fn der(bundle: &TrustBundle) -> Vec<u8> {
    let roots = bundle.roots.iter().flat_map(|pem| CertificateDer::pem_slice_iter(pem.as_bytes())).flatten();
    roots.flat_map(|root| root.to_vec()).collect()
}

/// DER roots of all trust domains.
pub fn x509(shared: &Shared) -> BTreeMap<String, Vec<u8>> {
    shared.mesh.known().trust_bundles.values().map(|bundle| (id(bundle), der(bundle))).collect()
}

/// JSON Web Key Sets of all trust domains that have one.
pub fn jwt(shared: &Shared) -> BTreeMap<String, Vec<u8>> {
    let known = shared.mesh.known();
    let with_keys = known.trust_bundles.values().filter(|bundle| !bundle.jwks.is_empty());
    with_keys.map(|bundle| (id(bundle), bundle.jwks.as_bytes().to_vec())).collect()
}
