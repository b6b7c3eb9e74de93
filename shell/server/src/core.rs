//! What all requests share.

use crate::Extension;
use crate::access::RoleTable;
use crate::authn::jwt::TokenKey;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::pki::Pki;
use crate::services::ServiceNetwork;
use arc_swap::ArcSwap;
use kube::{Registry, Resource, Status};
use model::Timestamp;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, Weak};
use storage::Store;
use tokio::sync::{Semaphore, watch};

/// The server's state: the store is the truth, the rest are indices over it or its configuration.
pub struct Core {
    /// This very object, for work that outlives a request.
    pub me: Weak<Core>,
    /// Settings.
    pub config: Config,
    /// Objects.
    pub store: Store,
    /// Which resources exist. Replaced whole when a CustomResourceDefinition changes.
    pub registry: ArcSwap<Registry>,
    /// Held while a definition is read and its registry swapped in.
    pub definitions: Mutex<()>,
    /// RBAC.
    pub roles: RoleTable,
    /// Signs and checks ServiceAccount tokens.
    pub token_key: TokenKey,
    /// Token of the `dashboard` user of admin.kubeconfig.
    pub dashboard_token: String,
    /// Certificates.
    pub pki: Pki,
    /// TLS towards node agents.
    pub node_tls: Arc<rustls::ClientConfig>,
    /// Virtual IPs and node ports in use.
    pub services: ServiceNetwork,
    /// Counters.
    pub metrics: Metrics,
    /// In-flight limits.
    pub gates: Gates,
    /// Handlers that the application added.
    pub extensions: Vec<Arc<dyn Extension>>,
    /// Turns true when the server stops.
    pub shutdown: watch::Receiver<bool>,
    /// Splits an encoded object where the store puts the revision; random, so that no client can write it into an object.
    pub marker: String,
    /// Admitted creations on their way into the store.
    pub quota: crate::admission::PendingQuota,
    /// Serialises changes that read one object and write another on the strength of it (evictions against a budget).
    pub eviction: tokio::sync::Mutex<()>,
}

/// Limits on concurrent work.
pub struct Gates {
    /// Reads.
    pub reads: Semaphore,
    /// Changes.
    pub mutations: Semaphore,
    /// Watches and tunnels.
    pub streams: Arc<Semaphore>,
}

impl Core {
    /// The request's time.
    pub fn now(&self) -> Timestamp {
        Timestamp(jiff::Timestamp::now().as_microsecond())
    }

    /// The port of the TLS listener.
    pub fn port(&self) -> u16 {
        self.config.listen.port()
    }

    /// Where clients find this server.
    pub fn url(&self) -> String {
        format!("https://{}", SocketAddr::new(self.config.advertised(), self.port()))
    }

    /// Where pods find this server: a node's address, since 127.0.0.1 is another machine inside a pod.
    pub fn endpoint_address(&self) -> IpAddr {
        let advertised = self.config.advertised();
        let outside = self.config.node_addresses.iter().find(|address| !address.is_loopback());
        if advertised.is_loopback() { outside.copied().unwrap_or(advertised) } else { advertised }
    }

    /// A resource of the current registry.
    ///
    /// # Errors
    /// 404 as kube-apiserver words it.
    pub fn resource(&self, group: &str, version: &str, plural: &str) -> Result<Arc<Resource>, Status> {
        self.registry.load().resource(group, version, plural).cloned().ok_or_else(Status::no_such_path)
    }

    /// The object that a built-in resource holds under a name, decoded.
    pub fn read(&self, key: &str, namespace: &str, name: &str) -> Option<serde_json::Value> {
        let record = self.store.get(key, namespace, name)?;
        serde_json::from_slice(&record.bytes).ok()
    }
}

/// A random (version 4) uuid.
pub fn new_uid() -> String {
    let mut bytes = [0u8; 16];
    fill_random(&mut bytes);
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let hex = |range: std::ops::Range<usize>| bytes[range].iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    format!("{}-{}-{}-{}-{}", hex(0..4), hex(4..6), hex(6..8), hex(8..10), hex(10..16))
}

/// `length` characters for generated names: no vowels and nothing that is mistaken for another, as Kubernetes chose them.
pub fn random_suffix(length: usize) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut bytes = vec![0u8; length];
    fill_random(&mut bytes);
    bytes.into_iter().map(|byte| char::from(LETTERS[usize::from(byte) % LETTERS.len()])).collect()
}

/// `bytes` of randomness as hex.
pub fn random_hex(bytes: usize) -> String {
    let mut buffer = vec![0u8; bytes];
    fill_random(&mut buffer);
    buffer.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn fill_random(bytes: &mut [u8]) {
    aws_lc_rs::rand::fill(bytes).expect("the system's randomness is there as long as the process runs");
}

/// Waits until the server stops.
pub async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    // The sender goes only when the server does.
    let _ = shutdown.wait_for(|stop| *stop).await;
}
