//! `diolkos up`: one process tree. The supervisor starts the roles as processes of its own, says when each is ready, starts a dead one again
//! without touching the others, and stops them in order.

mod child;
mod host;
mod steps;

pub use host::host;

use crate::cli::{CommandError, UpArgs};
use crate::config::Config;
use crate::role;
use crate::role::proxy::Supervisor;
use child::{Child, Role};
use std::time::{Duration, Instant};
use steps::Steps;
use tokio::signal::unix::{SignalKind, signal};

/// Starts everything and stays until it is told to stop.
pub fn up(config: Config, args: UpArgs) -> Result<(), CommandError> {
    let missing = role::node::missing(&config);
    if !missing.is_empty() {
        return Err(CommandError::Role(missing.join("\n")));
    }
    for dir in [&config.data_dir, &config.run_dir, &config.data_dir.join("logs")] {
        std::fs::create_dir_all(dir).map_err(|error| CommandError::Role(format!("{}: {error}", dir.display())))?;
    }
    // The children ask to be told when the thread that started them ends (PR_SET_PDEATHSIG), so that thread must be the main one.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CommandError::Role(error.to_string()))?;
    runtime.block_on(run(config, args))
}

async fn run(config: Config, args: UpArgs) -> Result<(), CommandError> {
    let failed = |what: &str, error: String| CommandError::Role(format!("{what}: {error}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| failed("signals", error.to_string()))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| failed("signals", error.to_string()))?;
    let mut upgrade = signal(SignalKind::hangup()).map_err(|error| failed("signals", error.to_string()))?;
    let mut children: Vec<Child> = Vec::new();
    let mut steps = Steps::new();
    let outcome = tokio::select! {
        started = start(&config, &mut children, &mut steps) => started.map(|()| true),
        _ = interrupt.recv() => Ok(false),
        _ = terminate.recv() => Ok(false),
    };
    let mut result = outcome.as_ref().map(|_| ()).map_err(|error| CommandError::Role(error.to_string()));
    if let Ok(true) = outcome {
        let own = Supervisor::up(&config);
        let _ = std::fs::write(&own.pid_file, std::process::id().to_string());
        summary(&config, &steps);
        loop {
            tokio::select! {
                error = keep_alive(&mut children) => {
                    result = Err(error);
                    break;
                }
                _ = interrupt.recv() => break,
                _ = terminate.recv() => break,
                _ = upgrade.recv() => replace(&own, &mut children, Role::Proxy).await,
            }
        }
        let _ = std::fs::remove_file(&own.pid_file);
    }
    stop(&config, &args, children).await;
    result
}

/// Server and containerd start side by side; what needs them follows.
async fn start(config: &Config, children: &mut Vec<Child>, steps: &mut Steps) -> Result<(), CommandError> {
    let begun = Instant::now();
    for role in [Role::Server, Role::Containerd] {
        children.push(Child::spawn(config, role)?);
    }
    for role in [Role::Server, Role::Containerd] {
        let child = children.iter_mut().find(|child| child.role == role).expect("pushed above");
        child.ready(config).await?;
        steps.done(role.title(), begun.elapsed());
    }
    let begun = Instant::now();
    for role in [Role::Proxy, Role::Node] {
        children.push(Child::spawn(config, role)?);
        let child = children.last_mut().expect("pushed above");
        child.ready(config).await?;
        steps.done(role.title(), begun.elapsed());
    }
    Ok(())
}

fn summary(config: &Config, steps: &Steps) {
    let kubeconfig = config.admin_kubeconfig();
    println!();
    println!("Ready after {:.1} s. Ctrl-C stops everything in order.", steps.total().as_secs_f64());
    println!("  kubectl    export KUBECONFIG={}", kubeconfig.display());
    println!(
        "  dashboard  http://{}/  sign in with the token that `diolkos token dashboard` prints",
        config.dashboard_listen
    );
    println!("  logs       {}/logs/", config.data_dir.display());
}

/// Starts dead children again, each with its own back-off, for ever. Returns only when a child cannot even be started.
async fn keep_alive(children: &mut [Child]) -> CommandError {
    loop {
        let mut now = Vec::new();
        for child in children.iter_mut() {
            if let Some(ended) = child.poll_exit() {
                now.push((child.role, ended));
                if let Err(error) = child.restart_later() {
                    return error;
                }
            }
        }
        for (role, ended) in now {
            println!("{}: {ended}; it is started again", role.title());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        for child in children.iter_mut() {
            if let Err(error) = child.restart_if_due() {
                return error;
            }
        }
    }
}

/// SIGHUP: another proxy takes over. The others are not looked after meanwhile; what dies is started again a moment later.
async fn replace(own: &Supervisor, children: &mut [Child], role: Role) {
    let Some(proxy) = children.iter_mut().find(|child| child.role == role) else { return };
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

/// Node agent first (it stops the pods, while proxy and server still serve them), then the proxy, containerd, and the server last.
async fn stop(config: &Config, args: &UpArgs, mut children: Vec<Child>) {
    println!("\nStopping.");
    for role in [Role::Node, Role::Proxy, Role::Containerd, Role::Server] {
        let Some(child) = children.iter_mut().find(|child| child.role == role) else { continue };
        let begun = Instant::now();
        let patience = match role {
            Role::Node => Duration::from_secs(45),
            // It ends by itself what does not end.
            Role::Proxy | Role::Host => proxy::shared::STOP_PATIENCE + Duration::from_secs(5),
            Role::Containerd | Role::Server => Duration::from_secs(15),
        };
        let gracious = child.stop(config, role == Role::Node && !args.leave_pods, patience).await;
        let how = if gracious { "stopped" } else { "killed: it did not stop in time" };
        println!("  {:<28} {how} {:.1} s", role.title(), begun.elapsed().as_secs_f64());
    }
}
