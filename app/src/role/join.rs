//! `diolkos join`: a process on a machine that is no node becomes a workload of the mesh.

mod callers;

use super::failed;
use crate::cli::{CommandError, JoinArgs};
use crate::config::Config;
use proxy::host::HostWorkload;
use proxy::plane::{JoinRequest, Joined, PlaneIssuer};
use proxy::{Control, ControlPlane, Proxy, WorkloadApi};
use std::sync::Arc;

/// A name that the control plane's certificate always has, however its machine is called from here.
const SERVER_NAME: &str = "localhost";
/// In the run directory; not where a node's is, which may be the same machine's.
const WORKLOAD_API_SOCKET: &str = "join/workload-api/api.sock";
/// Longest host name that a WorkloadEntry's name takes.
const HOST_MAX: usize = 40;

/// Joins, serves the process, and leaves the machine as it was when told to stop.
pub fn run(config: Config, args: JoinArgs) -> Result<(), CommandError> {
    // Fails only when one is installed already, which is then the same one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let address = args.address.unwrap_or(config.node_ip);
    // Said before anything is asked for: a name that nobody has is a mistake in the command.
    let callers = callers::resolve(&args.workload_api_users, &args.workload_api_groups)?;
    let api = WorkloadApi { socket: config.run_dir.join(WORKLOAD_API_SOCKET), callers };
    let request = JoinRequest {
        token: args.token.clone(),
        service: args.service.clone(),
        namespace: args.namespace.clone(),
        port: args.port.into(),
        host: host_label(&config.node_name),
        address: address.to_string(),
        csr: String::new(),
        app_protocol: args.protocol.clone(),
    };
    let dir = config.data_dir.join("join");
    std::fs::create_dir_all(&dir).map_err(|error| failed(format!("{}: {error}", dir.display())))?;
    let joined = super::runtime(1)?.block_on(ask(&args, request))?;
    let plane = ControlPlane {
        address: args.control.clone(),
        server_name: SERVER_NAME.into(),
        ca: dir.join("ca.crt"),
        certificate: dir.join("host.crt"),
        key: dir.join("host.key"),
    };
    keep(&plane, &joined)?;
    println!("joined as {} ({})", joined.response.workload, joined.response.identity);
    println!("{}", callers::sentence(&api));
    serve(&config, &args, address, plane, &joined, api)
}

async fn ask(args: &JoinArgs, request: JoinRequest) -> Result<Joined, CommandError> {
    let ca = args.ca.as_deref().map(std::fs::read).transpose().map_err(failed)?;
    if ca.is_none() {
        tracing::warn!(
            "the control plane is not verified while joining; give its ca.crt with --ca where the network is not trusted"
        );
    }
    proxy::plane::join(&args.control, SERVER_NAME, ca.as_deref(), request).await.map_err(failed)
}

/// The certificate, its key, and whom to trust from now on.
fn keep(plane: &ControlPlane, joined: &Joined) -> Result<(), CommandError> {
    let ca = joined.response.cluster_ca.concat();
    std::fs::write(&plane.ca, ca).map_err(|error| failed(format!("{}: {error}", plane.ca.display())))?;
    proxy::plane::write_pair(plane, &joined.response.cert_chain.concat(), &joined.key_pem).map_err(failed)
}

fn serve(
    config: &Config,
    args: &JoinArgs,
    address: std::net::IpAddr,
    plane: ControlPlane,
    joined: &Joined,
    api: WorkloadApi,
) -> Result<(), CommandError> {
    let response = &joined.response;
    let settings = proxy::Config {
        node_name: response.workload.clone(),
        workers: config.proxy_workers,
        attach_socket: None,
        workload_api: Some(api),
        admin: None,
        control: Control::Plane(plane.clone()),
        snapshot: Some(config.data_dir.join("join/proxy.snapshot")),
        trust_domain: trust_domain(&response.identity, &response.cluster_domain),
        cluster_domain: response.cluster_domain.clone(),
        dns_vips: vec![config.cluster_dns().into()],
        access_log: config.access(),
        tracing: config.tracing(),
        gateways: false,
        ..proxy::Config::default()
    };
    let host = HostWorkload {
        workload: response.workload.clone(),
        namespace: args.namespace.clone(),
        service_account: args.service.clone(),
        address,
        port: args.port,
        capture: response.service_cidrs.clone(),
    };
    let proxy = Proxy::start(settings, Arc::new(PlaneIssuer::new(plane.clone()))).map_err(failed)?;
    let stop = {
        let _entered = proxy.runtime().enter();
        super::stop_signal()?
    };
    proxy.runtime().spawn(proxy::plane::follow(proxy.shared.clone(), plane.clone()));
    proxy.runtime().spawn(proxy::plane::renew(plane, common_name(&response.workload), proxy.shared.identities.clone()));
    proxy.attacher.attach_host(&host).map_err(failed)?;
    crate::notify::ready();
    proxy.runtime().block_on(stop);
    let left = proxy.attacher.detach_host(&host).map_err(failed);
    proxy.stop();
    left
}

/// `host/NAMESPACE/NAME` -> `system:host:NAMESPACE:NAME`.
fn common_name(workload: &str) -> String {
    workload.replacen("host/", "system:host:", 1).replacen('/', ":", 1)
}

/// First part of `spiffe://DOMAIN/...`.
fn trust_domain(identity: &str, default: &str) -> String {
    let domain = identity.strip_prefix("spiffe://").and_then(|rest| rest.split('/').next());
    domain.filter(|domain| !domain.is_empty()).unwrap_or(default).to_owned()
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
        assert_eq!(common_name("host/shop/inventory-old1"), "system:host:shop:inventory-old1");
        assert_eq!(trust_domain("spiffe://td.example/ns/a/sa/b", "x"), "td.example");
        assert_eq!(host_label("db-1.example.com"), "db-1-example-com");
    }
}
