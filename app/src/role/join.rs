//! `diolkos join`: a process on a machine that is no node becomes a workload of the mesh. Joining is done here, once; the proxy that serves the
//! process is one of its own ([`super::host`]), which this one looks after.

mod callers;
mod envoy;
mod kept;

pub use kept::Kept;

use super::failed;
use crate::cli::{CommandError, JoinArgs};
use crate::config::Config;
use crate::supervisor;
use proxy::plane::{JoinRequest, Joined};
use proxy::{Callers, ControlPlane};
use std::fs::{File, TryLockError};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A name that the control plane's certificate always has, however its machine is called from here.
const SERVER_NAME: &str = "localhost";
/// Longest host name that a WorkloadEntry's name takes.
const HOST_MAX: usize = 40;

/// Joins, has the process served, and leaves the machine as it was when told to stop.
pub fn run(config: Config, args: JoinArgs) -> Result<(), CommandError> {
    // Fails only when one is installed already, which is then the same one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    // Said before anything is asked for: a name that nobody has is a mistake in the command.
    let callers = callers::resolve(&args.workload_api_users, &args.workload_api_groups)?;
    for dir in [config.data_dir.join("join"), run_dir(&config)] {
        std::fs::create_dir_all(&dir).map_err(|error| failed(format!("{}: {error}", dir.display())))?;
    }
    let _only = lock(&config)?;
    predecessor_gone(&config);
    let mut kept = joined(&config, &args)?;
    let socket = workload_api(&config);
    let sentence = callers::sentence(&callers, &socket);
    let Callers::Users { users, groups } = callers else { unreachable!("a host's callers are users") };
    (kept.users, kept.groups) = (users, groups);
    kept.write(&config)?;
    println!("joined as {} ({})", kept.workload, kept.identity);
    if let Some(how) = args.envoy {
        return envoy::run(&config, &kept, how);
    }
    println!("{sentence}");
    supervisor::host(&config, &kept)
}

/// Where a joined host has its sockets; not where a node has, which may be the same machine.
pub fn run_dir(config: &Config) -> PathBuf {
    config.run_dir.join("join")
}

/// The Workload API's socket, in a directory of its own: containers may have that mounted, and see a successor's.
pub fn workload_api(config: &Config) -> PathBuf {
    run_dir(config).join("workload-api").join(super::proxy::WORKLOAD_API_SOCKET)
}

/// Where a successor of its proxy asks.
pub fn handover(config: &Config) -> PathBuf {
    run_dir(config).join("handover.sock")
}

/// How a joined host reaches mesh control.
pub fn plane(config: &Config, control: &str) -> ControlPlane {
    let dir = config.data_dir.join("join");
    ControlPlane {
        address: control.to_owned(),
        server_name: SERVER_NAME.into(),
        ca: dir.join("ca.crt"),
        certificate: dir.join("host.crt"),
        key: dir.join("host.key"),
    }
}

/// Whether a `diolkos join` runs with this run directory.
pub fn is_running(config: &Config) -> bool {
    let file = File::open(run_dir(config).join("lock"));
    file.is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
}

/// There is one for each run directory.
fn lock(config: &Config) -> Result<File, CommandError> {
    let path = run_dir(config).join("lock");
    let file = File::create(&path).map_err(|error| failed(format!("{}: {error}", path.display())))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(CommandError::Usage(format!(
            "`diolkos join` runs already with --run-dir {}; `diolkos proxy upgrade` puts another binary in its place, a second process of this \
             machine needs directories and an address of its own",
            config.run_dir.display()
        ))),
        Err(TryLockError::Error(error)) => Err(failed(format!("{}: {error}", path.display()))),
    }
}

/// A `diolkos join` that was killed leaves a proxy, which ends by itself and lets go of the machine's connections: not after we have taken them.
fn predecessor_gone(config: &Config) {
    let door = handover(config);
    let begun = Instant::now();
    // Who listens there is found although it speaks another kind of socket.
    let is_there = || UnixStream::connect(&door).is_err_and(|error| error.raw_os_error() == Some(libc::EPROTOTYPE));
    while is_there() && begun.elapsed() < proxy::shared::STOP_PATIENCE + Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Joins with the token. A host that has joined before goes on with what it has, as long as that is valid, when there is no token or when joining
/// anew does not succeed: the token of a service that is started again may have ended, and the control plane may be away.
fn joined(config: &Config, args: &JoinArgs) -> Result<Kept, CommandError> {
    let address = args.address.unwrap_or(config.node_ip);
    let host = host_label(&config.node_name);
    let plane = plane(config, &args.control);
    let before = Kept::read(config)
        .ok()
        .filter(|kept| kept.is_of(&args.service, &args.namespace, &host, address, args.port))
        .filter(|_| proxy::plane::valid_for(&plane).is_some());
    let request = JoinRequest {
        token: args.token.clone().unwrap_or_default(),
        service: args.service.clone(),
        namespace: args.namespace.clone(),
        port: args.port.into(),
        host,
        address: address.to_string(),
        csr: String::new(),
        app_protocol: args.protocol.clone(),
    };
    let asked = match args.token {
        Some(_) => super::runtime(1)?.block_on(ask(args, request)).and_then(|joined| keep(&plane, &joined).map(|()| joined.response)),
        None => Err(CommandError::Usage(
            "a token is needed: this host has not joined as that before, or its certificate has ended. `diolkos token create` on the platform makes one".into(),
        )),
    };
    match (asked, before) {
        (Ok(response), _) => Ok(Kept {
            control: args.control.clone(),
            service: args.service.clone(),
            namespace: args.namespace.clone(),
            port: args.port,
            address,
            workload: response.workload,
            identity: response.identity,
            cluster_domain: response.cluster_domain,
            service_cidrs: response.service_cidrs,
            users: Vec::new(),
            groups: Vec::new(),
        }),
        (Err(error), Some(before)) => {
            if args.token.is_some() {
                tracing::warn!(%error, "not joined anew; going on with the certificate of before");
            }
            Ok(Kept { control: args.control.clone(), ..before })
        }
        (Err(error), None) => Err(error),
    }
}

async fn ask(args: &JoinArgs, request: JoinRequest) -> Result<Joined, CommandError> {
    let ca = args.ca.as_deref().map(std::fs::read).transpose().map_err(failed)?;
    if ca.is_none() {
        tracing::warn!(
            "the control plane is not verified while joining; give its ca.crt with --ca where the network is not trusted"
        );
    }
    let join = || proxy::plane::join(&args.control, SERVER_NAME, ca.as_deref(), request.clone());
    let mut asked = join().await;
    if asked.as_ref().is_err_and(|error| error.may_be_done()) {
        // If it was, the certificate of before is worth nothing any more: what was not heard is asked for again.
        asked = join().await;
    }
    asked.map_err(|error| failed(format!("not joined: mesh control: {error}")))
}

/// Writes the certificate, its key, and whom to trust from now on.
fn keep(plane: &ControlPlane, joined: &Joined) -> Result<(), CommandError> {
    let ca = joined.response.cluster_ca.concat();
    std::fs::write(&plane.ca, ca).map_err(|error| failed(format!("{}: {error}", plane.ca.display())))?;
    proxy::plane::write_pair(plane, &joined.response.cert_chain.concat(), &joined.key_pem).map_err(failed)
}

/// A machine's name as one DNS label.
fn host_label(name: &str) -> String {
    let label: String = name.chars().map(|c| if c == '.' { '-' } else { c }).take(HOST_MAX).collect();
    label.trim_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(host_label("db-1.example.com"), "db-1-example-com");
    }

    #[test]
    fn a_host_goes_on_only_as_what_it_was() {
        let address = "192.0.2.7".parse().unwrap();
        let kept = Kept {
            control: "plane:15012".into(),
            service: "db".into(),
            namespace: "shop".into(),
            port: 5432,
            address,
            workload: "host/shop/db-old1".into(),
            identity: "spiffe://cluster.local/ns/shop/sa/db".into(),
            cluster_domain: "cluster.local".into(),
            service_cidrs: vec!["10.96.0.0/16".into()],
            users: vec![0],
            groups: vec![],
        };
        let text = serde_json::to_string(&kept).unwrap();
        assert_eq!(serde_json::from_str::<Kept>(&text).unwrap(), kept);
        assert!(kept.is_of("db", "shop", "old1", address, 5432));
        for (service, namespace, host, port) in [
            ("web", "shop", "old1", 5432),
            ("db", "other", "old1", 5432),
            ("db", "shop", "old2", 5432),
            ("db", "shop", "old1", 1),
        ] {
            assert!(!kept.is_of(service, namespace, host, address, port), "{service} {namespace} {host} {port}");
        }
        assert!(!kept.is_of("db", "shop", "old1", "192.0.2.8".parse().unwrap(), 5432));
    }
}
