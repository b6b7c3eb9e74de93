//! How a process on a machine that is no node becomes a workload.
use super::connection::{Connection, PlaneError};
use crate::config::ControlPlane;
use crate::identity::retry::Retry;
use crate::identity::trust::{RootId, Signer};
use crate::identity::{Identities, spiffe};
use rcgen::{CertificateParams, KeyPair};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use xds::ca::{CREATE_CERTIFICATE_PATH, CertificateRequest, CertificateResponse, JOIN_PATH, JoinResponse};

pub use xds::ca::JoinRequest;

/// What the control plane gave.
#[derive(Clone, Debug)]
pub struct Joined {
    /// Its answer.
    pub response: JoinResponse,
    /// PEM key of the client certificate in it.
    pub key_pem: String,
}

/// Asks `address` to join; `request.csr` is filled in here. The control plane's certificate is checked against `ca` when it is given. Without
/// it the token is sent to whoever answers there, so that is for networks that are trusted.
///
/// # Errors
/// See [`PlaneError`]; a wrong token is `Unauthenticated`.
pub async fn join(
    address: &str,
    server_name: &str,
    ca: Option<&[u8]>,
    mut request: JoinRequest,
) -> Result<Joined, PlaneError> {
    let broken = |error: rcgen::Error| PlaneError::Connect { address: address.to_owned(), why: error.to_string() };
    let key = KeyPair::generate().map_err(broken)?;
    let params = CertificateParams::default();
    request.csr = params.serialize_request(&key).and_then(|csr| csr.pem()).map_err(broken)?;
    let tls = client::client_tls(ca, None, &[b"h2"])?;
    let connection = Connection::connect(address, server_name, tls).await?;
    let response: JoinResponse = connection.unary(JOIN_PATH, request).await?;
    Ok(Joined { response, key_pem: key.serialize_pem() })
}

/// Keeps the files of `plane` fresh: asks for a new certificate of `common_name` when half of the current one's life is over, or when another
/// root signs, for ever. Connections that are open stay; the next one reads the files.
pub async fn renew(plane: ControlPlane, common_name: String, identities: Arc<Identities>) {
    let mut signer = Signer::follow(identities.anchors());
    loop {
        match state(&plane) {
            Some((root, pause)) => {
                identities.set_client_root(root);
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = signer.moved_from(root) => {}
                }
            }
            None => tokio::time::sleep(UNREADABLE_PAUSE).await,
        }
        signer = renew_at_last(&plane, &common_name, || Signer::follow(identities.anchors())).await;
    }
}

/// What cannot be read is renewed, if that can be, but not for ever at once.
const UNREADABLE_PAUSE: Duration = Duration::from_secs(10);

/// The same as [`renew`] where nobody but the files' reader goes by the roots: when half of the life is over.
pub async fn renew_alone(plane: ControlPlane, common_name: String) {
    loop {
        let pause = state(&plane).map_or(UNREADABLE_PAUSE, |(_, pause)| pause);
        tokio::time::sleep(pause).await;
        renew_at_last(&plane, &common_name, || {}).await;
    }
}

/// Renews, however often that has to be tried. The reason for it stands until it is done: half of the life that is left may be long.
/// Gives what `begin` gave before the try that did it.
async fn renew_at_last<T>(plane: &ControlPlane, common_name: &str, mut begin: impl FnMut() -> T) -> T {
    let mut retry = Retry::default();
    loop {
        let begun = begin();
        let Err(error) = renew_once(plane, common_name).await else { return begun };
        tracing::warn!(%error, "the certificate for the control plane was not renewed; trying again");
        tokio::time::sleep(retry.pause(valid_for(plane))).await;
    }
}

/// How long the certificate of `plane` is valid yet; `None`: it is not, or cannot be read.
pub fn valid_for(plane: &ControlPlane) -> Option<Duration> {
    let pem = std::fs::read(&plane.certificate).ok()?;
    let chain = client::load_certs("the host's certificate", &pem).ok()?;
    let (_, ends) = spiffe::validity(chain.first()?)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs() as i64;
    u64::try_from(ends - now).ok().filter(|left| *left > 0).map(Duration::from_secs)
}

/// A certificate is not renewed again before this, unless less than three times as much is left of it.
const LEAST_S: i64 = 40;

/// What the certificate chains to, and the time until half of its life is over; `None` when it cannot be read.
fn state(plane: &ControlPlane) -> Option<(RootId, Duration)> {
    let pem = std::fs::read(&plane.certificate).ok()?;
    let chain = client::load_certs("the host's certificate", &pem).ok()?;
    let (begins, ends) = spiffe::validity(chain.first()?)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs() as i64;
    Some((RootId::of(chain.last()?), until_renewal(begins, ends, now)))
}

/// The time until half of a life is over. Certificates are dated back, so those of minutes are past their half from the first: without a
/// pause of their own they would be renewed without end.
fn until_renewal(begins: i64, ends: i64, now: i64) -> Duration {
    let least = ((ends - now) / 3).min(LEAST_S);
    Duration::from_secs(u64::try_from((begins + (ends - begins) / 2 - now).max(least)).unwrap_or(0))
}

async fn renew_once(plane: &ControlPlane, common_name: &str) -> Result<(), PlaneError> {
    let broken = |error: rcgen::Error| PlaneError::Connect { address: plane.address.clone(), why: error.to_string() };
    let key = KeyPair::generate().map_err(broken)?;
    let csr = CertificateParams::default().serialize_request(&key).and_then(|csr| csr.pem()).map_err(broken)?;
    let request = CertificateRequest::on_behalf_of(csr, common_name, 0);
    let connection = Connection::open(plane).await?;
    let answer: CertificateResponse = connection.unary(CREATE_CERTIFICATE_PATH, request).await?;
    write_pair(plane, &answer.cert_chain.concat(), &key.serialize_pem())
}

/// Writes key and chain so that a reader sees the old pair or the new one; between the two renames a reader may find them
/// unfit for each other, and tries again.
///
/// # Errors
/// The files cannot be written.
pub fn write_pair(plane: &ControlPlane, chain: &str, key: &str) -> Result<(), PlaneError> {
    for (path, text) in [(&plane.key, key), (&plane.certificate, chain)] {
        let fail = |source| PlaneError::File { path: path.clone(), source };
        let temporary = path.with_extension("new");
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary).map_err(fail)?;
        file.write_all(text.as_bytes()).map_err(fail)?;
        std::fs::rename(&temporary, path).map_err(fail)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_certificate_is_never_renewed_at_once() {
        // As mesh control dates them: 300 s back.
        for (ttl_s, expect_s) in
            [(10, 3), (60, 20), (119, 39), (120, 40), (200, 40), (300, 40), (360, 40), (400, 50), (86_400, 43_050)]
        {
            assert_eq!(until_renewal(-300, ttl_s, 0).as_secs(), expect_s, "{ttl_s}");
        }
        assert_eq!(until_renewal(-300, -1, 0), Duration::ZERO, "it has ended");
    }
}
