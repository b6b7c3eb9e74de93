//! The node's proxy.

use super::failed;
use crate::cli::CommandError;
use crate::config::Config;
use crate::notify;
use proxy::plane::PlaneIssuer;
use proxy::{Control, ControlPlane, Proxy};
use std::sync::Arc;

/// Runs the proxy until it is told to stop.
pub fn run(config: Config) -> Result<(), CommandError> {
    let pki = config.data_dir.join("pki");
    let plane = ControlPlane {
        address: Config::dial(config.mesh_listen).to_string(),
        server_name: "localhost".into(),
        ca: pki.join("ca.crt"),
        certificate: pki.join("node.crt"),
        key: pki.join("node.key"),
    };
    let settings = proxy::Config {
        node_name: config.node_name.clone(),
        workers: config.proxy_workers,
        attach_socket: Some(config.run_dir.join("proxy.sock")),
        admin: Some(config.proxy_admin),
        control: Control::Plane(plane.clone()),
        snapshot: Some(config.data_dir.join("proxy.snapshot")),
        trust_domain: config.cluster_domain.clone(),
        cluster_domain: config.cluster_domain.clone(),
        dns_vips: vec![config.cluster_dns().into()],
        access_log: config.access(),
        tracing: config.tracing(),
        ..proxy::Config::default()
    };
    serve(settings, plane)
}

/// Starts the proxy, lets it follow the control plane, and stops it in order on a signal.
pub fn serve(settings: proxy::Config, plane: ControlPlane) -> Result<(), CommandError> {
    // Fails only when one is installed already, which is then the same one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let proxy = Proxy::start(settings, Arc::new(PlaneIssuer::new(plane.clone()))).map_err(failed)?;
    let stop = {
        let _entered = proxy.runtime().enter();
        super::stop_signal()?
    };
    proxy.runtime().spawn(proxy::plane::follow(proxy.shared.clone(), plane));
    notify::ready();
    proxy.runtime().block_on(stop);
    proxy.stop();
    Ok(())
}
