//! The children of a command as one process tree: started, looked after until the command is told to stop, and stopped in order.

use super::child::{Child, Role};
use crate::cli::CommandError;
use crate::role::failed;
use crate::role::proxy::Supervisor;
use std::time::{Duration, Instant};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// A command's children, and what is particular to the command.
pub struct Tree {
    pub own: Supervisor,
    /// At its end the pods of the node go on without it.
    pub leave_pods: bool,
}

impl Tree {
    /// Starts the children with `start`, says with `announce` what came of it, and stays until a signal ends it: SIGINT and SIGTERM stop the
    /// children in order, SIGHUP has another proxy take over. A child that dies is started again.
    ///
    /// To be called on the main thread: the children ask to be told when the thread that started them ends (PR_SET_PDEATHSIG).
    ///
    /// # Errors
    /// A child cannot be started at all.
    pub fn run<T>(
        self,
        start: impl AsyncFnOnce(&mut Vec<Child>) -> Result<T, CommandError>,
        announce: impl FnOnce(T),
    ) -> Result<(), CommandError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        runtime.block_on(async {
            let mut orders = Orders::listen()?;
            let mut children = Vec::new();
            let started = tokio::select! {
                started = start(&mut children) => started.map(Some),
                () = orders.stop() => Ok(None),
            };
            let result = match started {
                Ok(Some(started)) => self.look_after(&mut children, orders, || announce(started)).await,
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            };
            self.stop(children).await;
            result
        })
    }

    async fn look_after(
        &self,
        children: &mut [Child],
        mut orders: Orders,
        announce: impl FnOnce(),
    ) -> Result<(), CommandError> {
        let pid_file = &self.own.pid_file;
        std::fs::write(pid_file, std::process::id().to_string()).map_err(failed)?;
        announce();
        let result = loop {
            tokio::select! {
                error = keep_alive(children) => break Err(error),
                stops = orders.next() => if stops { break Ok(()) },
            }
            // The others are not looked after meanwhile; what dies is started again a moment later.
            replace_proxy(&self.own, children).await;
        };
        let _ = std::fs::remove_file(pid_file);
        result
    }

    /// Node agent first (it stops the pods, while proxy and server still serve them), then the proxy, containerd, and the server last.
    async fn stop(&self, mut children: Vec<Child>) {
        println!("\nStopping.");
        for role in [Role::Node, Role::Proxy, Role::Host, Role::Containerd, Role::Server] {
            let Some(child) = children.iter_mut().find(|child| child.role == role) else { continue };
            let begun = Instant::now();
            let patience = match role {
                Role::Node => Duration::from_secs(45),
                // It ends by itself what does not end.
                Role::Proxy | Role::Host => proxy::shared::STOP_PATIENCE + Duration::from_secs(5),
                Role::Containerd | Role::Server => Duration::from_secs(15),
            };
            let gracious = child.stop(role == Role::Node && !self.leave_pods, patience).await;
            let how = if gracious { "stopped" } else { "killed: it did not stop in time" };
            println!("  {:<28} {how} {:.1} s", role.title(), begun.elapsed().as_secs_f64());
        }
    }
}

/// The signals that say what to do.
struct Orders {
    interrupt: Signal,
    terminate: Signal,
    upgrade: Signal,
}

impl Orders {
    fn listen() -> Result<Self, CommandError> {
        let on = |kind| signal(kind).map_err(|error| CommandError::Role(format!("signals: {error}")));
        let (interrupt, terminate) = (on(SignalKind::interrupt())?, on(SignalKind::terminate())?);
        Ok(Orders { interrupt, terminate, upgrade: on(SignalKind::hangup())? })
    }

    /// Whether the next one is to stop; else it is to have another proxy take over.
    async fn next(&mut self) -> bool {
        tokio::select! {
            _ = self.interrupt.recv() => true,
            _ = self.terminate.recv() => true,
            _ = self.upgrade.recv() => false,
        }
    }

    /// Until one is to stop.
    async fn stop(&mut self) {
        while !self.next().await {}
    }
}

/// Starts dead children again, each with its own back-off, for ever. Returns only when a child cannot even be started.
async fn keep_alive(children: &mut [Child]) -> CommandError {
    loop {
        for child in children.iter_mut() {
            if let Some(ended) = child.poll_exit() {
                child.restart_later();
                println!("{}: {ended}; it is started again", child.role.title());
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        for child in children.iter_mut() {
            if let Err(error) = child.restart_if_due() {
                return error;
            }
        }
    }
}

/// Has another proxy take over, and writes down how that went.
async fn replace_proxy(own: &Supervisor, children: &mut [Child]) {
    let Some(proxy) = children.iter_mut().find(|child| matches!(child.role, Role::Proxy | Role::Host)) else { return };
    let outcome = match proxy.replace().await {
        Ok(()) => "ok".to_owned(),
        Err(error) => error.to_string(),
    };
    println!("proxy: upgrade: {outcome}");
    let file = &own.outcome_file;
    let written = std::fs::write(file.with_extension("new"), &outcome);
    if let Err(error) = written.and_then(|()| std::fs::rename(file.with_extension("new"), file)) {
        println!("proxy: upgrade: {}: {error}", file.display());
    }
}
