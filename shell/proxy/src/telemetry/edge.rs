//! Who called whom.
use super::cells::{Cells, EdgeCells};
use crate::copy::Copied;
use crate::identity::spiffe;
use crate::origin::Origin;
use crate::pods::Pod;
use crate::policy::Caller;
use crate::worker::Worker;
use model::mesh::Workload;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use traffic::Directory;

/// Which side counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reporter {
    /// The caller's proxy.
    Source,
    /// The called one's.
    Destination,
}

impl Reporter {
    /// As Istio labels it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
        }
    }
}

/// What goes over an edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Carries {
    /// HTTP requests and gRPC calls.
    Requests,
    /// Opaque bytes.
    Bytes,
}

/// One end of an edge.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Side {
    pub namespace: Arc<str>,
    pub workload: Arc<str>,
    pub app: Arc<str>,
    pub version: Arc<str>,
    pub principal: Arc<str>,
}

impl Side {
    /// A workload that is known.
    pub fn of(workload: &Workload, trust_domain: &str) -> Self {
        Self {
            namespace: workload.key.namespace.clone(),
            workload: workload.canonical_name.clone(),
            app: workload.app.clone(),
            version: workload.revision.clone(),
            principal: workload.identity(trust_domain).into(),
        }
    }

    /// All labels alike.
    fn all(label: &str) -> Self {
        let label: Arc<str> = label.into();
        let version = label.clone();
        Self { namespace: label.clone(), workload: label.clone(), app: label.clone(), version, principal: label }
    }

    /// Something that is not in the mesh.
    pub fn unknown() -> Self {
        Self::all("unknown")
    }

    /// Whether it is a workload that we know.
    pub fn is_known(&self) -> bool {
        !matches!(&*self.workload, "unknown" | "other")
    }

    fn of_identity(identity: &str) -> Self {
        let mut side = Self::unknown();
        if let Some((namespace, account)) = spiffe::parts(identity) {
            side.namespace = namespace.into();
            side.workload = account.into();
        }
        side.principal = identity.into();
        side
    }
}

/// The labels of a series.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Edge {
    pub reporter: Reporter,
    pub source: Side,
    pub destination: Side,
    pub service: Arc<str>,
    pub service_namespace: Arc<str>,
    /// The service's full name, `reviews.default.svc.cluster.local`.
    pub host: Arc<str>,
    pub carries: Carries,
    pub mtls: bool,
}

impl Edge {
    /// What is over the bound on series.
    pub fn other(carries: Carries) -> Self {
        Self {
            reporter: Reporter::Source,
            source: Side::all("other"),
            destination: Side::all("other"),
            service: "other".into(),
            service_namespace: "other".into(),
            host: "other".into(),
            carries,
            mtls: false,
        }
    }
}

/// Makes edges.
pub struct Peers;

impl Peers {
    /// From a local workload to another.
    pub fn outbound(
        worker: &Worker,
        origin: &Origin,
        peer: Option<&Arc<Workload>>,
        service: Option<&model::Key>,
        carries: Carries,
        mtls: bool,
    ) -> Edge {
        let trust_domain = worker.shared.identities.trust_domain();
        let own = origin.addresses.first().and_then(|ip| worker.shared.mesh.workload_at(*ip));
        let source = own.map_or_else(|| Side::of_identity(&origin.identity.name), |own| Side::of(&own, trust_domain));
        Edge {
            reporter: Reporter::Source,
            source,
            destination: peer.map_or_else(Side::unknown, |peer| Side::of(peer, trust_domain)),
            service: service.map_or_else(|| "unknown".into(), |key| key.name.clone()),
            service_namespace: service.map_or_else(|| "unknown".into(), |key| key.namespace.clone()),
            host: service.and_then(|key| host_of(worker, key)).unwrap_or_else(|| "unknown".into()),
            carries,
            mtls,
        }
    }

    /// From another to a local pod. `asked`: the host that the request names, by which the service is known.
    pub fn inbound(worker: &Worker, pod: &Pod, caller: &Caller, carries: Carries, asked: Option<&str>) -> Edge {
        let trust_domain = worker.shared.identities.trust_domain();
        let mesh = &worker.shared.mesh;
        let source = match (mesh.workload_at(caller.address.ip()), &caller.identity) {
            (Some(workload), Some(_)) => Side::of(&workload, trust_domain),
            (None, Some(identity)) => Side::of_identity(&identity.to_string()),
            // An address proves nothing; who comes in plain text is not known.
            (_, None) => Side::unknown(),
        };
        let own = pod.origin.addresses.first().and_then(|ip| mesh.workload_at(*ip));
        let identity = &pod.origin.identity.name;
        let service = asked.and_then(|host| {
            let known = mesh.known();
            let entry =
                asked_service(&known.directory, host, &pod.origin.namespace, &worker.shared.config.cluster_domain)?;
            let key = entry.service.known_as();
            Some((key.name.clone(), key.namespace.clone(), entry.service.hostnames.first()?.clone()))
        });
        let (service, service_namespace, host) =
            service.unwrap_or_else(|| ("unknown".into(), pod.origin.namespace.clone(), "unknown".into()));
        Edge {
            reporter: Reporter::Destination,
            source,
            destination: own.map_or_else(|| Side::of_identity(identity), |own| Side::of(&own, trust_domain)),
            service,
            service_namespace,
            host,
            carries,
            mtls: caller.identity.is_some(),
        }
    }
}

/// The service that a Host header means, as the name server would complete it for a caller of the namespace.
fn asked_service<'d>(
    directory: &'d Directory,
    host: &str,
    namespace: &str,
    domain: &str,
) -> Option<&'d Arc<traffic::ServiceEntry>> {
    let host = traffic::request::host_without_port(host);
    if let Ok(address) = host.parse() {
        return directory.service_at(address);
    }
    let whole = match host.matches('.').count() {
        0 => format!("{host}.{namespace}.svc.{domain}"),
        1 => format!("{host}.svc.{domain}"),
        2 if host.ends_with(".svc") => format!("{host}.{domain}"),
        _ => return directory.service_named(host, namespace),
    };
    directory.service_named(&whole, namespace).or_else(|| directory.service_named(host, namespace))
}

fn host_of(worker: &Worker, service: &model::Key) -> Option<Arc<str>> {
    let known = worker.shared.mesh.known();
    known.directory.service(service)?.service.hostnames.first().cloned()
}

/// The connections of opaque bytes that a worker has open, so that those that last are told of before they end.
#[derive(Debug, Default)]
pub struct Opaque(Mutex<Vec<Weak<Counted>>>);

/// A connection of opaque bytes that is counted.
#[derive(Debug)]
pub struct Connection(Arc<Counted>);

#[derive(Debug)]
struct Counted {
    cells: Arc<EdgeCells>,
    copied: Copied,
    told: [AtomicU64; 2],
}

impl Counted {
    /// Tells what went since it was last told.
    fn tell(&self) {
        let (there, back) = self.copied.so_far();
        let since = |told: &AtomicU64, now: u64| now.saturating_sub(told.swap(now, Ordering::Relaxed));
        self.cells.bytes(since(&self.told[0], there), since(&self.told[1], back));
    }
}

impl Opaque {
    /// Counts one more.
    pub fn open(&self, cells: &Cells, edge: &Edge) -> Connection {
        let cells = cells.edge(edge);
        cells.open();
        let counted = Arc::new(Counted { cells, copied: Copied::default(), told: Default::default() });
        self.lock().push(Arc::downgrade(&counted));
        Connection(counted)
    }

    /// Tells of all that are open, and forgets the others. Called now and then by the worker.
    pub fn tell(&self) {
        self.lock().retain(|it| it.upgrade().inspect(|it| it.tell()).is_some());
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Counted>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    /// Where it says what went.
    pub fn copied(&self) -> &Copied {
        &self.0.copied
    }

    /// It ended.
    pub fn close(self, result: &io::Result<()>) {
        self.0.tell();
        self.0.cells.close(result.is_err());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::copy::{bidirectional, tests::pair};
    use crate::stream::Stream;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn a_connection_that_lasts_is_told_of_before_it_ends() {
        tokio::spawn(crate::outbox::run());
        let ((mut client, first), (second, mut server)) = (pair().await, pair().await);
        let (opaque, cells, edge) = (Arc::new(Opaque::default()), Cells::default(), Edge::other(Carries::Bytes));
        let connection = opaque.open(&cells, &edge);
        let passing = tokio::spawn(async move {
            let (mut first, mut second) = (Stream::from(first), Stream::from(second));
            let result = bidirectional(&mut first, &mut second, connection.copied()).await;
            connection.close(&result);
        });
        let told = || {
            opaque.tell();
            let mut totals = crate::telemetry::cells::Totals::default();
            totals.add(&cells.edge(&edge));
            (totals.sent, totals.received, totals.closed)
        };
        for round in 1..=3 {
            client.write_all(b"12345").await.unwrap();
            server.read_exact(&mut [0; 5]).await.unwrap();
            server.write_all(b"ab").await.unwrap();
            client.read_exact(&mut [0; 2]).await.unwrap();
            assert_eq!(told(), (5 * round, 2 * round, 0));
            assert_eq!(told(), (5 * round, 2 * round, 0), "nothing is told twice");
        }
        drop((client, server));
        passing.await.unwrap();
        assert_eq!(told(), (15, 6, 1));
    }
}
