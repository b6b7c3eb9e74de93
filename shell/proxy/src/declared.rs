//! What services say is spoken at the ports of this node's pods.
use crate::mesh::Mesh;
use model::map::HashMap;
use model::mesh::AppProtocol;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

/// What was found is not looked up again for so long: it is looked for among all services of a namespace.
const KEEP_MS: u64 = 1_000;

/// What comes to a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoken {
    /// Requests and nothing else.
    Requests,
    /// Bytes of which nothing is known; a service that says so may carry requests all the same.
    Bytes,
    /// It is not said.
    Unknown,
}

/// A worker's memory of it.
#[derive(Debug, Default)]
pub struct Declared(Mutex<HashMap<SocketAddr, Found>>);

#[derive(Debug)]
struct Found {
    at_version: u64,
    at_ms: u64,
    spoken: Spoken,
}

impl Declared {
    /// What comes to an address of a pod of the namespace, as its services have it now or had it a moment ago.
    pub fn at(&self, mesh: &Mesh, namespace: &str, to: SocketAddr, now_ms: u64) -> Spoken {
        let version = mesh.version();
        let mut found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(have) = found.get(&to)
            && (have.at_version == version || have.at_ms + KEEP_MS > now_ms)
        {
            return have.spoken;
        }
        // Of pods that are gone nothing stays.
        found.retain(|_, have| have.at_version == version || have.at_ms + KEEP_MS > now_ms);
        let spoken = of_services(mesh.known().directory.spoken_at(namespace, to));
        found.insert(to, Found { at_version: version, at_ms: now_ms, spoken });
        spoken
    }
}

/// Of several services none may say that it is no HTTP.
fn of_services(said: impl Iterator<Item = AppProtocol>) -> Spoken {
    let mut spoken = Spoken::Unknown;
    for protocol in said {
        match protocol {
            AppProtocol::Tcp | AppProtocol::Tls => return Spoken::Bytes,
            AppProtocol::Unspecified => {}
            AppProtocol::Http | AppProtocol::Http2 | AppProtocol::Grpc => spoken = Spoken::Requests,
        }
    }
    spoken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_say_what_is_spoken() {
        use AppProtocol::{Grpc, Http, Tcp, Unspecified};
        for (said, spoken) in [
            (&[][..], Spoken::Unknown),
            (&[Unspecified], Spoken::Unknown),
            (&[Http], Spoken::Requests),
            (&[Unspecified, Grpc], Spoken::Requests),
            (&[Http, Tcp], Spoken::Bytes),
            (&[Tcp, Http], Spoken::Bytes),
        ] {
            assert_eq!(of_services(said.iter().copied()), spoken, "{said:?}");
        }
    }
}
