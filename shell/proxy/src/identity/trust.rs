//! The roots that are trusted, and what rests on them.
//!
//! An open connection is worth what the roots are that its two certificates chain to: when one of them is no longer trusted, the connection is
//! closed. So each remembers the roots, and nothing has to be verified again.
use client::PROVIDER;
use rustls::RootCertStore;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::ParsedCertificate;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// SHA-256 of a root certificate.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RootId([u8; 32]);

impl RootId {
    /// The root's name.
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate);
        let mut id = [0; 32];
        id.copy_from_slice(digest.as_ref());
        Self(id)
    }
}

impl fmt::Display for RootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for RootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The roots that are trusted at one moment. The first is the one that signs.
#[derive(Debug)]
pub struct Trust {
    /// All of them.
    pub store: Arc<RootCertStore>,
    each: Vec<(RootId, RootCertStore)>,
}

impl Default for Trust {
    fn default() -> Self {
        Self { store: Arc::new(RootCertStore::empty()), each: Vec::new() }
    }
}

impl Trust {
    /// From PEM texts; what is no certificate is left out, and said.
    pub fn of_pem<'a>(pem: impl Iterator<Item = &'a str>) -> Self {
        let (mut store, mut each) = (RootCertStore::empty(), Vec::new());
        for certificate in pem.flat_map(|text| CertificateDer::pem_slice_iter(text.as_bytes())).flatten() {
            let mut alone = RootCertStore::empty();
            match store.add(certificate.clone()).and_then(|()| alone.add(certificate.clone())) {
                Ok(()) => each.push((RootId::of(&certificate), alone)),
                Err(error) => tracing::warn!(%error, "a root certificate is not usable and left out"),
            }
        }
        Self { store: Arc::new(store), each }
    }

    /// Nothing is trusted yet.
    pub fn is_empty(&self) -> bool {
        self.each.is_empty()
    }

    /// The root that signs now.
    pub fn first(&self) -> Option<RootId> {
        self.each.first().map(|(id, _)| *id)
    }

    /// All roots.
    pub fn ids(&self) -> BTreeSet<RootId> {
        self.each.iter().map(|(id, _)| *id).collect()
    }

    /// Whether a root is trusted.
    pub fn has(&self, id: RootId) -> bool {
        self.each.iter().any(|(known, _)| *known == id)
    }

    /// The root that a chain, which was verified against all of them, chains to. None: it is not to be told.
    fn anchor(&self, chain: &[CertificateDer<'_>]) -> Option<RootId> {
        if let [(only, _)] = self.each.as_slice() {
            return Some(*only);
        }
        let (leaf, intermediates) = chain.split_first()?;
        let leaf = ParsedCertificate::try_from(leaf).ok()?;
        let algorithms = PROVIDER.signature_verification_algorithms.all;
        let found = self.each.iter().find(|(_, alone)| {
            verify_server_cert_signed_by_trust_anchor(&leaf, alone, intermediates, UnixTime::now(), algorithms).is_ok()
        });
        found.map(|(id, _)| *id)
    }
}

/// The current roots, and how many connections rest on each.
#[derive(Debug)]
pub struct Anchors {
    trust: watch::Sender<Arc<Trust>>,
    resting: Mutex<BTreeMap<RootId, usize>>,
}

impl Default for Anchors {
    fn default() -> Self {
        Self { trust: watch::Sender::new(Arc::default()), resting: Mutex::default() }
    }
}

impl Anchors {
    /// What is trusted now.
    pub fn trust(&self) -> Arc<Trust> {
        self.trust.borrow().clone()
    }

    /// Follows what is trusted.
    pub fn changes(&self) -> watch::Receiver<Arc<Trust>> {
        self.trust.subscribe()
    }

    /// Other roots from now on.
    pub fn set(&self, trust: Trust) {
        self.trust.send_replace(Arc::new(trust));
    }

    /// Roots that open connections rest on.
    pub fn resting(&self) -> BTreeSet<RootId> {
        self.lock().keys().copied().collect()
    }

    /// Ends of open connections that rest on another root.
    pub fn resting_besides(&self, root: RootId) -> usize {
        self.lock().iter().filter(|(id, _)| **id != root).map(|(_, ends)| ends).sum()
    }

    /// Notes a connection between a certificate of ours and a verified chain.
    pub fn rest(self: &Arc<Self>, own: RootId, peer: &[CertificateDer<'_>]) -> Resting {
        let peer = self.trust().anchor(peer);
        let mut resting = self.lock();
        for id in [Some(own), peer].into_iter().flatten() {
            *resting.entry(id).or_insert(0) += 1;
        }
        drop(resting);
        Resting { anchors: self.clone(), own, peer }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<RootId, usize>> {
        self.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The roots that an open connection rests on.
#[derive(Debug)]
pub struct Resting {
    anchors: Arc<Anchors>,
    own: RootId,
    peer: Option<RootId>,
}

impl Resting {
    /// Waits until one of them is no longer trusted. Where the peer's could not be told, any change of trust ends it.
    pub async fn withdrawn(&self) {
        let mut changes = self.anchors.changes();
        let untold = self.peer.is_none();
        changes.mark_unchanged();
        loop {
            let trust = changes.borrow_and_update().clone();
            if !trust.has(self.own) || self.peer.is_some_and(|peer| !trust.has(peer)) {
                return;
            }
            // The sender lives as long as self.
            if changes.changed().await.is_err() || untold {
                return;
            }
        }
    }
}

impl Drop for Resting {
    fn drop(&mut self) {
        let mut resting = self.anchors.lock();
        for id in [Some(self.own), self.peer].into_iter().flatten() {
            if let Some(count) = resting.get_mut(&id) {
                *count -= 1;
                if *count == 0 {
                    resting.remove(&id);
                }
            }
        }
    }
}

/// Follows which root signs.
#[derive(Debug)]
pub struct Signer {
    changes: watch::Receiver<Arc<Trust>>,
    seen: Option<RootId>,
}

impl Signer {
    /// From now on. Ask before a certificate is asked for, so that a change in between is not lost.
    pub fn follow(anchors: &Anchors) -> Self {
        let mut changes = anchors.changes();
        let seen = changes.borrow_and_update().first();
        Self { changes, seen }
    }

    /// Waits until a root signs that is not this one, and did not sign before. (A certificate may be ahead of the bundle that tells of its
    /// root.)
    pub async fn moved_from(mut self, own: RootId) {
        loop {
            let first = self.changes.borrow_and_update().first();
            if first != self.seen {
                self.seen = first;
                if first.is_some_and(|first| first != own) {
                    return;
                }
            }
            if self.changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}
