//! `diolkos join`: the joined host's proxy as a process of its own. It is started again when it dies, and another one can take over from it.

use super::child::{Child, Role};
use super::tree::Tree;
use crate::cli::CommandError;
use crate::config::Config;
use crate::notify;
use crate::role::join::Kept;
use crate::role::proxy::Supervisor;

/// Has what was kept of joining served, and stays until it is told to stop. To be called on the main thread: the proxy ends with it.
pub fn host(config: &Config, kept: &Kept) -> Result<(), CommandError> {
    Tree { own: Supervisor::join(config), leave_pods: false }.run(
        async |children: &mut Vec<Child>| {
            children.push(Child::spawn(config, Role::Host)?);
            children[0].ready(config).await
        },
        |()| {
            let (service, namespace, port) = (&kept.service, &kept.namespace, kept.port);
            println!("Ready: calls of {service}.{namespace} come to 127.0.0.1:{port}. Ctrl-C leaves the mesh.");
            notify::ready();
        },
    )
}
