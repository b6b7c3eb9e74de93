//! DNS names that ServiceEntries ask for: resolved here, once for all proxies, and told as endpoints.

use super::core::Core;
use super::ear::Fact;
use model::Key;
use model::mesh::api::{ObjectKind, ResolvedName};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// A name is asked for again after this; when it failed, sooner.
const AGAIN: Duration = Duration::from_secs(5);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Names at most: a ServiceEntry can name as many hosts as it likes.
const MOST_NAMES: usize = 1_000;
/// Addresses of one name at most.
const MOST_ADDRESSES: usize = 64;

/// Follows what is wanted, for ever.
pub async fn run(core: Arc<Core>, facts: mpsc::UnboundedSender<Fact>) {
    let mut known: BTreeMap<Arc<str>, Vec<IpAddr>> = BTreeMap::new();
    let mut observations = core.observations();
    loop {
        let wanted: Vec<Arc<str>> =
            core.objects(|compiler| compiler.wanted_names().take(MOST_NAMES).cloned().collect());
        let gone: Vec<Arc<str>> = known.keys().filter(|name| !wanted.contains(name)).cloned().collect();
        for name in gone {
            known.remove(&name);
            let fact = Fact::Gone(ObjectKind::ResolvedName, Key { namespace: "".into(), name });
            if facts.send(fact).is_err() {
                return;
            }
        }
        let asked = wanted.len();
        let mut asking = JoinSet::new();
        for name in wanted {
            asking.spawn(async move {
                let addresses = resolve(&name).await;
                (name, addresses)
            });
        }
        while let Some(Ok((name, addresses))) = asking.join_next().await {
            // A name that cannot be resolved now keeps the addresses that it had: the endpoints may well be alive.
            let Some(addresses) = addresses else { continue };
            if known.get(&name) == Some(&addresses) {
                continue;
            }
            known.insert(name.clone(), addresses.clone());
            let key = Key { namespace: "".into(), name };
            let fact = Fact::Found(ResolvedName { key, addresses });
            if facts.send(fact).is_err() {
                return;
            }
        }
        wait(&core, &mut observations, asked).await;
    }
}

/// Until it is time to ask again, or another set of names is wanted.
async fn wait(core: &Core, observations: &mut tokio::sync::watch::Receiver<u64>, asked: usize) {
    let until = Instant::now() + AGAIN;
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(until) => return,
            changed = observations.changed() => {
                let moved = core.objects(|compiler| compiler.wanted_names().take(MOST_NAMES).count()) != asked;
                if changed.is_err() || moved {
                    // Names that never resolve must not make this spin.
                    return tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

async fn resolve(name: &str) -> Option<Vec<IpAddr>> {
    let found = timeout(PATIENCE, tokio::net::lookup_host((name, 0))).await;
    match found {
        Ok(Ok(found)) => {
            let mut addresses: Vec<IpAddr> = found.map(|address| address.ip()).collect();
            addresses.sort();
            addresses.dedup();
            addresses.truncate(MOST_ADDRESSES);
            Some(addresses)
        }
        Ok(Err(error)) => {
            tracing::debug!(name, %error, "mesh: a ServiceEntry's name is not resolved");
            None
        }
        Err(_) => None,
    }
}
