//! Other trust domains: their bundles are fetched where they publish them, ours is published for them (spiffe.io, "SPIFFE Federation" and "SPIFFE
//! Trust Domain and Bundle"; profiles `https_web` and `https_spiffe`).

mod endpoint;

use super::core::Core;
use super::jwks;
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use model::mesh::TrustBundle;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How often others should ask us, and how often we ask others who do not say.
const REFRESH_S: u64 = 300;
/// After a failure.
const RETRY: Duration = Duration::from_secs(30);
/// A bundle's certificates, and its keys.
const MOST_KEYS: usize = 64;

/// Another trust domain.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Federated {
    /// Its name.
    pub trust_domain: String,
    /// Where it publishes its bundle: `https://...`.
    pub bundle_endpoint: String,
    /// Profile `https_spiffe`: the endpoint proves to be this, by the bundle that was fetched last. None: profile `https_web`, by its host's name.
    #[serde(default)]
    pub endpoint_spiffe_id: Option<String>,
    /// Certificates, PEM, to verify the endpoint with: in `https_web` in place of what this machine trusts, in `https_spiffe` (which needs it) until
    /// the first bundle came.
    #[serde(default)]
    pub roots: Option<PathBuf>,
}

/// A file that cannot be used. The operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum FederationError {
    /// It cannot be read.
    #[error("{0}: {1}")]
    File(PathBuf, std::io::Error),
    /// It says something else than it should.
    #[error("{0}: {1}")]
    Content(PathBuf, String),
}

/// Reads a JSON list of [`Federated`].
///
/// # Errors
/// The file is not there, or is not such a list.
pub fn read(path: &Path) -> Result<Vec<Federated>, FederationError> {
    let text = std::fs::read(path).map_err(|error| FederationError::File(path.to_owned(), error))?;
    let wrong = |what: String| FederationError::Content(path.to_owned(), what);
    let list: Vec<Federated> = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
    for it in &list {
        if !it.bundle_endpoint.starts_with("https://") || it.trust_domain.is_empty() {
            return Err(wrong(format!("{} needs a trust domain and an https:// address", it.trust_domain)));
        }
        let within = |id: &String| id.strip_prefix("spiffe://").is_some_and(|rest| rest.contains('/'));
        if it.endpoint_spiffe_id.as_ref().is_some_and(|id| !within(id) || it.roots.is_none()) {
            return Err(wrong(format!(
                "{}: endpointSpiffeId is spiffe://DOMAIN/PATH, and needs roots",
                it.trust_domain
            )));
        }
    }
    Ok(list)
}

/// Follows all of them, for ever.
pub async fn run(core: Arc<Core>) {
    core.ready().await;
    let mut tasks = tokio::task::JoinSet::new();
    for of in core.config.federated.clone() {
        if of.trust_domain == core.ca.trust_domain() {
            tracing::warn!(trust_domain = of.trust_domain, "mesh: a bundle for our own trust domain is not asked for");
            continue;
        }
        tasks.spawn(follow(core.clone(), of));
    }
    while tasks.join_next().await.is_some() {}
}

async fn follow(core: Arc<Core>, of: Federated) {
    let mut known: Option<TrustBundle> = None;
    loop {
        let pause = match fetch(&core, &of, known.as_ref()).await {
            Ok((bundle, refresh_s)) => {
                known = Some(bundle.clone());
                core.publish_bundle(bundle);
                Duration::from_secs(refresh_s)
            }
            // What we have stays in force.
            Err(why) => {
                tracing::warn!(
                    trust_domain = of.trust_domain,
                    why,
                    "mesh: another trust domain's bundle cannot be had"
                );
                RETRY
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// A bundle as it is now. `known`: the last one.
async fn fetch(core: &Core, of: &Federated, known: Option<&TrustBundle>) -> Result<(TrustBundle, u64), String> {
    let own = || {
        of.roots
            .as_ref()
            .map(|path| std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display())))
    };
    let how = match (&of.endpoint_spiffe_id, known) {
        (Some(id), Some(known)) => Some(endpoint::by_identity(known.roots.iter().map(|pem| &**pem), id)?),
        (Some(id), None) => Some(endpoint::by_identity(own().transpose()?.as_deref().into_iter(), id)?),
        (None, _) => own().transpose()?.map(|pem| endpoint::by_name(&pem)).transpose()?,
    };
    let text = jwks::fetch_trusting(core, &of.bundle_endpoint, how).await?;
    parse(&of.trust_domain, &text)
}

/// A bundle, and after how many seconds to ask again.
fn parse(trust_domain: &str, text: &str) -> Result<(TrustBundle, u64), String> {
    let document: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let keys = document["keys"].as_array().ok_or("it has no keys")?;
    let (mut roots, mut tokens) = (Vec::new(), Vec::new());
    for key in keys.iter().take(MOST_KEYS) {
        match key["use"].as_str() {
            Some("x509-svid") => {
                let der = key["x5c"][0].as_str().and_then(|text| BASE64_STANDARD.decode(text).ok());
                let der = der.filter(|der| x509_parser::parse_x509_certificate(der).is_ok());
                roots.push(pem(&der.ok_or("an X.509 key without its certificate")?).into());
            }
            Some("jwt-svid") => {
                let mut key = key.clone();
                key.as_object_mut().map(|key| key.remove("use"));
                tokens.push(key);
            }
            // The specification: what is not known is to be ignored.
            _ => {}
        }
    }
    let refresh_s = document["spiffe_refresh_hint"].as_u64().unwrap_or(REFRESH_S).clamp(30, 24 * 3600);
    let jwks = if tokens.is_empty() { String::new() } else { json!({ "keys": tokens }).to_string() };
    Ok((TrustBundle { trust_domain: trust_domain.into(), roots, jwks: jwks.into() }, refresh_s))
}

fn pem(der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

/// Our own bundle, as others read it.
pub fn document(bundle: &TrustBundle) -> Value {
    let roots = bundle.roots.iter().filter_map(|root| CertificateDer::from_pem_slice(root.as_bytes()).ok());
    let mut keys: Vec<Value> = roots.filter_map(|der| x509_key(&der)).collect();
    let tokens: Value = serde_json::from_str(&bundle.jwks).unwrap_or_default();
    for key in tokens["keys"].as_array().into_iter().flatten() {
        let mut key = key.clone();
        key["use"] = "jwt-svid".into();
        keys.push(key);
    }
    json!({ "keys": keys, "spiffe_refresh_hint": REFRESH_S })
}

/// Of a P-256 root, as ours are; one of another kind (`mesh-ca-extra.crt`) is for this trust domain alone.
fn x509_key(der: &CertificateDer<'_>) -> Option<Value> {
    let (_, parsed) = x509_parser::parse_x509_certificate(der).ok()?;
    let point = parsed.public_key().subject_public_key.data.as_ref();
    let [4, rest @ ..] = point else { return None };
    let (x, y) = (rest.len() == 64).then(|| rest.split_at(32))?;
    Some(json!({
        "use": "x509-svid",
        "kty": "EC",
        "crv": "P-256",
        "x": BASE64_URL_SAFE_NO_PAD.encode(x),
        "y": BASE64_URL_SAFE_NO_PAD.encode(y),
        "x5c": [BASE64_STANDARD.encode(der)],
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_we_publish_can_be_read() {
        let made = rcgen::KeyPair::generate().unwrap();
        let root = rcgen::CertificateParams::default().self_signed(&made).unwrap().pem();
        let jwks = json!({ "keys": [{ "kty": "EC", "kid": "a", "crv": "P-256", "x": "AA", "y": "AA" }] }).to_string();
        let ours =
            TrustBundle { trust_domain: "td".into(), roots: vec![root.as_str().into()], jwks: jwks.as_str().into() };
        let text = document(&ours).to_string();
        let (read, refresh_s) = parse("td", &text).unwrap();
        assert_eq!(refresh_s, 300);
        assert_eq!(read.jwks.parse::<Value>().unwrap(), jwks.parse::<Value>().unwrap());
        let der = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec();
        assert_eq!(der(&read.roots[0]), der(&root));
    }

    #[test]
    fn what_others_publish_is_read_with_care() {
        for (text, expect) in [
            (r#"{"keys": []}"#, Ok(0)),
            (r#"{"keys": [{"use": "something", "kty": "EC"}], "spiffe_sequence": 3}"#, Ok(0)),
            (
                r#"{"keys": [{"use": "x509-svid", "kty": "EC", "x5c": ["bm8="]}]}"#,
                Err("an X.509 key without its certificate"),
            ),
            (r#"{"keys": 1}"#, Err("it has no keys")),
        ] {
            let read = parse("other", text).map(|(bundle, _)| bundle.roots.len());
            assert_eq!(read, expect.map_err(str::to_owned), "{text}");
        }
    }
}
