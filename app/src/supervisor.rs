//! `diolkos up`: one process tree. The supervisor starts the roles as processes of its own, says when each is ready, starts a dead one again
//! without touching the others, and stops them in order.

mod child;
mod host;
mod steps;
mod tree;

pub use host::host;

use crate::cli::{CommandError, UpArgs};
use crate::config::Config;
use crate::role;
use crate::role::proxy::Supervisor;
use child::{Child, Role};
use std::time::Instant;
use steps::Steps;
use tree::Tree;

/// Starts everything and stays until it is told to stop.
pub fn up(config: Config, args: UpArgs) -> Result<(), CommandError> {
    let missing = role::node::missing(&config);
    if !missing.is_empty() {
        return Err(CommandError::Role(missing.join("\n")));
    }
    for dir in [&config.data_dir, &config.run_dir, &config.data_dir.join("logs")] {
        std::fs::create_dir_all(dir).map_err(|error| CommandError::Role(format!("{}: {error}", dir.display())))?;
    }
    Tree { own: Supervisor::up(&config), leave_pods: args.leave_pods }
        .run(async |children: &mut Vec<Child>| start(&config, children).await, |steps| summary(&config, &steps))
}

/// Server and containerd start side by side; what needs them follows.
async fn start(config: &Config, children: &mut Vec<Child>) -> Result<Steps, CommandError> {
    let mut steps = Steps::new();
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
    Ok(steps)
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
