//! Who the pods of this node are: keys, certificates, and their renewal.
pub mod issuer;
pub(crate) mod retry;
pub mod spiffe;
pub mod tls;
pub mod trust;

use crate::random;
use arc_swap::ArcSwapOption;
pub use issuer::{Issuer, LocalIssuer, Signing, Token};
use model::map::HashMap;
use retry::Retry;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tls::TlsState;
use tokio::sync::Notify;
use trust::{Anchors, RootId, Signer, Trust};

/// How long a connection waits for an identity that has no certificate yet.
const FIRST_CERTIFICATE_PATIENCE: Duration = Duration::from_secs(10);
/// When another root signs, all proxies ask for all their certificates: over so long.
const RESIGN_SPREAD_MS: u32 = 2_000;

/// Why there is no certificate. Only `Issuer` is worth trying again.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("the certificate authority did not sign: {0}")]
    Issuer(String),
    #[error("the certificate is not usable: {0}")]
    Unusable(&'static str),
    #[error("there are no roots to verify peers with")]
    NoRoots,
    #[error("no certificate for {0} yet")]
    NotYet(Arc<str>),
    #[error("TLS does not take the certificate: {0}")]
    Tls(#[from] rustls::Error),
    #[error("no key can be made: {0}")]
    Key(#[from] rcgen::Error),
}

/// The current certificate of one SPIFFE id, renewed at half of its life. Connections that are open keep what they were
/// opened with; new ones take the current state.
#[derive(Debug)]
pub struct Identity {
    /// `spiffe://...`.
    pub name: Arc<str>,
    state: ArcSwapOption<TlsState>,
    changed: Notify,
    /// Kept to build the state anew when only the roots changed.
    material: Mutex<Option<Material>>,
    anchors: Arc<Anchors>,
}

#[derive(Debug)]
struct Material {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    root: RootId,
}

impl Identity {
    /// The current state; waits a little for the first.
    pub async fn tls(&self) -> Result<Arc<TlsState>, IdentityError> {
        let wait = async {
            loop {
                let changed = self.changed.notified();
                if let Some(state) = self.state.load_full() {
                    return state;
                }
                changed.await;
            }
        };
        let waited = tokio::time::timeout(FIRST_CERTIFICATE_PATIENCE, wait).await;
        waited.map_err(|_| IdentityError::NotYet(self.name.clone()))
    }

    /// The current state, if there is one.
    pub fn current(&self) -> Option<Arc<TlsState>> {
        self.state.load_full()
    }

    /// Its certificate with intermediates, leaf first, and the key.
    pub fn svid(&self) -> Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
        let material = self.material.lock().unwrap_or_else(PoisonError::into_inner);
        material.as_ref().map(|it| (it.chain.clone(), it.key.clone_key()))
    }

    /// Waits until the certificate, or what is trusted, changes from now on.
    pub fn changed(&self) -> impl Future<Output = ()> + '_ {
        self.changed.notified()
    }

    /// The root that its certificate chains to.
    pub fn root(&self) -> Option<RootId> {
        self.state.load().as_ref().map(|state| state.root)
    }

    /// Waits until its certificate chains to another root than this.
    pub async fn moved_from(&self, root: RootId) {
        loop {
            let changed = self.changed.notified();
            if self.root().is_some_and(|now| now != root) {
                return;
            }
            changed.await;
        }
    }

    /// The roots that are trusted, and what rests on them.
    pub fn anchors(&self) -> &Arc<Anchors> {
        &self.anchors
    }
}

/// Not-before and not-after, in seconds since the epoch.
pub type Validity = (i64, i64);

/// All identities that this process speaks for.
pub struct Identities {
    trust_domain: String,
    issuer: Arc<dyn Issuer>,
    anchors: Arc<Anchors>,
    /// Root of the certificate that this process shows to the control plane, where the mesh's own CA signed it.
    client_root: Mutex<Option<RootId>>,
    known: Mutex<HashMap<Arc<str>, Weak<Identity>>>,
    runtime: tokio::runtime::Handle,
}

impl std::fmt::Debug for Identities {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identities").field("trust_domain", &self.trust_domain).finish_non_exhaustive()
    }
}

impl Identities {
    /// Identities signed by `issuer`; renewal runs on `runtime`.
    pub fn new(trust_domain: String, issuer: Arc<dyn Issuer>, runtime: tokio::runtime::Handle) -> Self {
        Self {
            trust_domain,
            issuer,
            anchors: Arc::default(),
            client_root: Mutex::default(),
            known: Mutex::default(),
            runtime,
        }
    }

    /// The identity of a ServiceAccount. Its certificate is asked for when it is first wanted and renewed while anyone
    /// holds it.
    pub fn acquire(self: &Arc<Self>, namespace: &str, service_account: &str) -> Arc<Identity> {
        let name: Arc<str> = format!("spiffe://{}/ns/{namespace}/sa/{service_account}", self.trust_domain).into();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(identity) = known.get(&name).and_then(Weak::upgrade) {
            return identity;
        }
        let identity = Arc::new(Identity {
            name: name.clone(),
            state: ArcSwapOption::empty(),
            changed: Notify::new(),
            material: Mutex::default(),
            anchors: self.anchors.clone(),
        });
        known.retain(|_, identity| identity.strong_count() > 0);
        known.insert(name, Arc::downgrade(&identity));
        self.runtime.spawn(renew(self.clone(), Arc::downgrade(&identity)));
        identity
    }

    /// The SPIFFE trust domain.
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// Other roots, PEM, the one that signs first: every identity verifies new connections with them from now on, and connections that rest on
    /// none of them end.
    pub fn set_roots<'a>(&self, pem: impl Iterator<Item = &'a str>) {
        self.anchors.set(Trust::of_pem(pem));
        for identity in self.live() {
            if let Err(error) = self.publish(&identity) {
                tracing::warn!(identity = %identity.name, %error, "the new roots are not usable");
            }
        }
    }

    /// The roots that are trusted, and what rests on them.
    pub fn anchors(&self) -> &Arc<Anchors> {
        &self.anchors
    }

    /// This process shows a certificate of this root to the control plane.
    pub fn set_client_root(&self, root: RootId) {
        *self.client_root.lock().unwrap_or_else(PoisonError::into_inner) = Some(root);
    }

    /// Roots that this process could not do without: of its certificates, and of both ends of its connections.
    pub fn rests_on(&self) -> BTreeSet<RootId> {
        let mut roots = self.anchors.resting();
        roots.extend(self.live().iter().filter_map(|identity| identity.root()));
        roots.extend(*self.client_root.lock().unwrap_or_else(PoisonError::into_inner));
        roots
    }

    /// What rests on another root than the one that signs, for people: `most` things at most.
    pub fn rests_on_others(&self, most: usize) -> Vec<String> {
        let Some(first) = self.anchors.trust().first() else { return Vec::new() };
        let connections = match self.anchors.resting_besides(first) {
            0 => None,
            1 => Some("an end of a connection".to_owned()),
            ends => Some(format!("{ends} ends of connections")),
        };
        let client = *self.client_root.lock().unwrap_or_else(PoisonError::into_inner);
        let client = client.filter(|root| *root != first).map(|_| "the certificate for the control plane".to_owned());
        let live = self.live();
        let former = live.iter().filter(|identity| identity.root().is_some_and(|root| root != first));
        let certificates = former.map(|identity| format!("the certificate of {}", identity.name));
        connections.into_iter().chain(client).chain(certificates).take(most).collect()
    }

    /// A JWT-SVID of an identity, for these.
    ///
    /// # Errors
    /// The authority did not sign.
    pub async fn sign_jwt(&self, identity: &str, audience: Vec<String>) -> Result<String, IdentityError> {
        self.issuer.sign_jwt(identity, audience).await
    }

    /// Every identity that somebody holds.
    pub fn live(&self) -> Vec<Arc<Identity>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).values().filter_map(Weak::upgrade).collect()
    }

    /// Every identity with the validity of its certificate, for the state page.
    pub fn list(&self) -> Vec<(Arc<str>, Option<Validity>)> {
        let mut list: Vec<_> = self
            .live()
            .into_iter()
            .map(|it| (it.name.clone(), it.current().map(|state| (state.not_before_s, state.not_after_s))))
            .collect();
        list.sort();
        list
    }

    fn publish(&self, identity: &Identity) -> Result<Option<Arc<TlsState>>, IdentityError> {
        let material = identity.material.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(material) = material.as_ref() else { return Ok(None) };
        let roots = self.anchors.trust().store.clone();
        let (chain, key) = (material.chain.clone(), material.key.clone_key());
        let state = Arc::new(tls::state(chain, key, roots, &self.trust_domain, material.root)?);
        identity.state.store(Some(state.clone()));
        identity.changed.notify_waiters();
        Ok(Some(state))
    }

    async fn issue(&self, identity: &Identity) -> Result<Arc<TlsState>, IdentityError> {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let mut wanted = rcgen::CertificateParams::default();
        wanted.distinguished_name = rcgen::DistinguishedName::new();
        wanted.subject_alt_names = vec![rcgen::SanType::URI(identity.name.to_string().try_into()?)];
        let request = wanted.serialize_request(&key)?.pem()?;
        let chain = self.issuer.sign(&identity.name, request).await?;
        let mut certificates = Vec::new();
        for pem in &chain {
            certificates.extend(CertificateDer::pem_slice_iter(pem.as_bytes()).flatten());
        }
        let root = RootId::of(certificates.last().ok_or(IdentityError::Unusable("the chain is empty"))?);
        // The root comes last in istio's answer; peers have it and do not want it in every handshake.
        if certificates.len() > 1 {
            certificates.pop();
        }
        let leaf = certificates.first().ok_or(IdentityError::Unusable("the chain is empty"))?;
        if spiffe::of_certificate(leaf).as_deref() != Some(&*identity.name) {
            return Err(IdentityError::Unusable("it is for another identity"));
        }
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(|_| IdentityError::Unusable("no key"))?;
        if self.anchors.trust().is_empty() {
            // The trust bundle has not come yet; until it does the root that the CA itself named is the best there is.
            self.set_roots(chain.last().map(String::as_str).into_iter());
        }
        *identity.material.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Material { chain: certificates, key, root });
        self.publish(identity)?.ok_or(IdentityError::Unusable("it is gone"))
    }
}

/// Issues and renews until nobody holds the identity.
async fn renew(identities: Arc<Identities>, identity: Weak<Identity>) {
    let mut retry = Retry::default();
    loop {
        let Some(held) = identity.upgrade() else { return };
        let signer = Signer::follow(&identities.anchors);
        let issued = identities.issue(&held).await.and_then(|state| match identities.anchors.trust().has(state.root) {
            true => Ok(state),
            false => Err(IdentityError::Unusable("its root is not trusted")),
        });
        match issued {
            Ok(state) => {
                retry = Retry::default();
                tracing::debug!(identity = %held.name, not_after_s = state.not_after_s, "certificate issued");
                drop(held);
                tokio::select! {
                    () = tokio::time::sleep(until_half_life(&state)) => {}
                    () = signer.moved_from(state.root) => {
                        // One that nobody trusts any more is of no use meanwhile.
                        if identities.anchors.trust().has(state.root) {
                            let spread = Duration::from_millis((random::u32() % RESIGN_SPREAD_MS).into());
                            tokio::time::sleep(spread.min(until_half_life(&state))).await;
                        }
                    }
                }
            }
            Err(error) => {
                tracing::warn!(identity = %held.name, %error, "no certificate; trying again");
                let left = held.current().and_then(|state| left(&state));
                drop(held);
                tokio::time::sleep(retry.pause(left)).await;
            }
        }
    }
}

/// What is left of its life, if anything is.
fn left(state: &TlsState) -> Option<Duration> {
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
    u64::try_from(state.not_after_s - now_s).ok().filter(|left_s| *left_s > 0).map(Duration::from_secs)
}

/// Half of what is left: a CA that is away for the other half harms nobody.
fn until_half_life(state: &TlsState) -> Duration {
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
    Duration::from_secs(u64::try_from((state.not_after_s - now_s) / 2).unwrap_or(0).max(1))
}
