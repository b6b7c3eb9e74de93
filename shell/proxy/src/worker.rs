//! Worker threads: one runtime each, with listeners, tunnels and connections of its own. Nothing that a request touches is
//! shared between workers but what is known of the mesh.
//!
//! Futures are `Send` although they never move: `tokio::spawn` on a current_thread runtime has no queue of its own as a
//! `LocalSet` has, and an uncontended atomic is cheaper than that queue.
use crate::declared::Declared;
use crate::hbone::pool::Pool;
use crate::mesh::AtEndpoints;
use crate::pacing;
use crate::pods::{Phase, Pod, PodSockets};
use crate::policy::GatewayPolicies;
use crate::requests::pool::HttpPool;
use crate::shared::Shared;
use crate::telemetry::{Cells, Opaque};
use crate::upstream::Ports;
use crate::{dns, gateway, hbone, inbound, outbound, outbox, polling, tls_out};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// How often idle connections are looked for, and bytes of connections that last are told (Istio's 15 s).
pub const SWEEP: Duration = Duration::from_secs(15);
/// A pause after accept failed, e.g. without file descriptors: the listener stays ready and would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a worker is told.
#[derive(Debug)]
pub enum Command {
    /// Serve a pod's sockets until it is detached.
    Serve(Arc<Pod>, PodSockets),
    /// Serve a place where gateways listen until told otherwise.
    Gateway(Arc<gateway::Door>, gateway::Sockets),
    /// An origin is gone: close its tunnels.
    Forget(u64),
    /// Say how many requests wait for a pod's processes.
    Count(Arc<Pod>, std::sync::mpsc::Sender<u32>),
}

/// One worker.
#[derive(Debug)]
pub struct Worker {
    /// What all workers share.
    pub shared: Arc<Shared>,
    /// Tunnels that this worker opened.
    pub tunnels: Pool,
    /// Services that this worker sends to.
    pub ports: Ports,
    /// What holds at gateways.
    pub gateway_policies: GatewayPolicies,
    /// What holds at endpoints.
    pub at_endpoints: AtEndpoints,
    /// What comes to endpoints, as services say.
    pub declared: Declared,
    /// HTTP connections that this worker keeps.
    pub http: HttpPool,
    /// How services are called under TLS.
    pub backend_tls: tls_out::Configs,
    /// Connections of opaque bytes.
    pub opaque: Opaque,
    /// What it counted.
    pub cells: Arc<Cells>,
}

impl Worker {
    /// Milliseconds since the process began.
    pub fn now_ms(&self) -> u64 {
        self.shared.now_ms()
    }
}

/// Starts a worker's thread.
pub fn start(
    shared: Arc<Shared>,
    index: usize,
) -> io::Result<(mpsc::UnboundedSender<Command>, std::thread::JoinHandle<()>)> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .on_thread_park(|| {
            outbox::before_waiting();
            polling::before_waiting();
        })
        .on_thread_unpark(polling::after_waiting)
        .enable_all()
        .build()?;
    let cells = shared.telemetry.cells();
    let worker = Arc::new(Worker {
        shared,
        tunnels: Pool::default(),
        ports: Ports::default(),
        gateway_policies: GatewayPolicies::default(),
        at_endpoints: AtEndpoints::default(),
        declared: Declared::default(),
        http: HttpPool::default(),
        backend_tls: tls_out::Configs::default(),
        opaque: Opaque::default(),
        cells,
    });
    let body = move || runtime.block_on(run(worker, receiver));
    let thread = std::thread::Builder::new().name(format!("worker-{index}")).spawn(body)?;
    Ok((sender, thread))
}

async fn run(worker: Arc<Worker>, mut commands: mpsc::UnboundedReceiver<Command>) {
    tokio::spawn(outbox::run());
    tokio::spawn(polling::run(worker.shared.config.polling, worker.shared.polled.clone()));
    let mut sweep = tokio::time::interval(SWEEP);
    loop {
        tokio::select! {
            command = commands.recv() => match command {
                Some(command) => obey(&worker, command),
                None => break,
            },
            _ = sweep.tick() => {
                worker.tunnels.sweep();
                worker.http.sweep();
                worker.backend_tls.sweep();
                worker.ports.sweep(&worker.shared.mesh);
                worker.shared.states.sweep();
                worker.opaque.tell();
            }
        }
    }
    // The process is told to stop: connections have until the deadline to finish.
    worker.shared.finished().await;
}

fn obey(worker: &Arc<Worker>, command: Command) {
    let result = match command {
        Command::Serve(pod, sockets) => serve_pod(worker, &pod, sockets),
        Command::Gateway(door, sockets) => gateway::serve(worker, &door, sockets),
        Command::Forget(origin) => {
            worker.tunnels.forget(origin);
            worker.http.forget(origin);
            Ok(())
        }
        Command::Count(pod, answer) => {
            let _ = answer.send(worker.ports.in_flight_at(&pod.origin.addresses));
            Ok(())
        }
    };
    if let Err(error) = result {
        tracing::error!(%error, "a socket cannot be served");
    }
}

fn serve_pod(worker: &Arc<Worker>, pod: &Arc<Pod>, sockets: PodSockets) -> io::Result<()> {
    for listener in sockets.outbound {
        accept(worker, pod, listener, outbound::serve)?;
    }
    for listener in sockets.inbound {
        accept(worker, pod, listener, inbound::serve)?;
    }
    for listener in sockets.hbone {
        accept(worker, pod, listener, hbone::server::serve)?;
    }
    for listener in sockets.dns_tcp {
        accept(worker, pod, listener, dns::serve_tcp)?;
    }
    for socket in sockets.dns_udp {
        let socket = tokio::net::UdpSocket::from_std(socket)?;
        let (worker, pod) = (worker.clone(), pod.clone());
        let stopping = worker.clone();
        tokio::spawn(async move {
            let ended = pod.clone();
            tokio::select! {
                () = ended.reached(Phase::Detached) => {}
                () = stopping.shared.stopped() => {}
                () = dns::serve_udp(worker, pod, socket) => {}
            }
        });
    }
    Ok(())
}

/// Accepts until the pod is detached; a connection ends with its pod.
fn accept<F, S>(worker: &Arc<Worker>, pod: &Arc<Pod>, listener: std::net::TcpListener, serve: S) -> io::Result<()>
where
    F: Future<Output = ()> + Send + 'static,
    S: Fn(Arc<Worker>, Arc<Pod>, TcpStream, SocketAddr) -> F + Send + 'static,
{
    let listener = TcpListener::from_std(listener)?;
    let (worker, pod) = (worker.clone(), pod.clone());
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                () = pod.reached(Phase::Detached) => return,
                () = worker.shared.stopped() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, from)) => {
                    pacing::settle(&stream, from);
                    let connection = Box::pin(serve(worker.clone(), pod.clone(), stream, from));
                    let pod = pod.clone();
                    tokio::spawn(async move {
                        // Goes after the connection.
                        let _open = pod.connection();
                        tokio::select! {
                            () = pod.reached(Phase::Detached) => {}
                            () = connection => {}
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, pod = %pod.attachment.name, "accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    });
    Ok(())
}
