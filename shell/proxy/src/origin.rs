//! On whose behalf a connection is opened.
use crate::identity::Identity;
use crate::netns::Netns;
use http::HeaderValue;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A local workload as the source of connections: an attached pod, a gateway, or a joined host.
#[derive(Debug)]
pub struct Origin {
    /// Unique in the process.
    pub serial: u64,
    /// Where its sockets are made.
    pub netns: Netns,
    /// What it shows.
    pub identity: Arc<Identity>,
    /// Its namespace, for short service names and consumer routes.
    pub namespace: Arc<str>,
    /// Its name, for logs and as telemetry's last resort.
    pub name: Arc<str>,
    /// Its own addresses.
    pub addresses: Vec<IpAddr>,
    /// What ztunnel sends along, for the other side's telemetry.
    pub baggage: Option<HeaderValue>,
}

impl Origin {
    /// An origin with a fresh serial number.
    pub fn new(netns: Netns, identity: Arc<Identity>, namespace: &str, name: &str, addresses: Vec<IpAddr>) -> Self {
        static SERIAL: AtomicU64 = AtomicU64::new(1);
        let baggage = format!("k8s.namespace.name={namespace},k8s.pod.name={name}");
        Self {
            serial: SERIAL.fetch_add(1, Ordering::Relaxed),
            netns,
            identity,
            namespace: namespace.into(),
            name: name.into(),
            addresses,
            baggage: HeaderValue::from_str(&baggage).ok(),
        }
    }
}
