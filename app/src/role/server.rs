//! The API server, and in its process the controllers, the scheduler and mesh control.

use super::{failed, runtime, stop_signal};
use crate::cli::CommandError;
use crate::config::Config;
use crate::notify;
use crate::role::dashboard::Dashboard;
use crate::role::insight::{BUNDLE, Insight, status};
use bytes::Bytes;
use client::ObjectApi;
use manager::mesh::Mesh;
use manager::telemetry::{self, Telemetry};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The server's part of the settings.
fn server_config(config: &Config) -> server::Config {
    server::Config {
        listen: config.api_listen,
        dashboard: Some(config.dashboard_listen),
        alt_names: vec![config.node_ip.to_string(), config.node_name.clone()],
        node_name: config.node_name.clone(),
        node_addresses: vec![config.node_ip, IpAddr::from([127, 0, 0, 1])],
        service_cidr: server::Cidr { base: config.service_cidr.base, bits: config.service_cidr.prefix },
        issuer: format!("https://kubernetes.default.svc.{}", config.cluster_domain),
        ..server::Config::new(&config.data_dir)
    }
}

fn mesh_config(config: &Config) -> Result<manager::mesh::Config, CommandError> {
    let providers = config.mesh_providers.as_deref().map(manager::mesh::providers::read).transpose().map_err(failed)?;
    let federated =
        config.mesh_federation.as_deref().map(manager::mesh::federation::read).transpose().map_err(failed)?;
    Ok(manager::mesh::Config {
        federated: federated.unwrap_or_default(),
        providers: providers.unwrap_or_default(),
        listen: config.mesh_listen,
        cluster_domain: config.cluster_domain.clone(),
        trust_domain: config.cluster_domain.clone(),
        certificate_ttl: Duration::from_secs(config.workload_cert_ttl_s),
        root_age: (config.mesh_root_days > 0).then(|| Duration::from_secs(config.mesh_root_days * 24 * 3600)),
        service_cidrs: vec![config.service_cidr.to_string()],
        gateway_addresses: config
            .gateway_cidr
            .map(|range| manager::mesh::AddressPool { base: range.base, prefix: range.prefix }),
        ..manager::mesh::Config::new(config.data_dir.join("pki"))
    })
}

fn control_config(config: &Config, root_ca: &str) -> control::Config {
    control::Config {
        root_ca: Some(root_ca.into()),
        volume_dir: config.data_dir.join("volumes").to_string_lossy().into(),
        // Checked when the settings were read.
        off: control::switched_off(&config.controllers).unwrap_or_default(),
        ..control::Config::default()
    }
}

/// Runs them until the process is told to stop.
pub fn run(config: Config) -> Result<(), CommandError> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    runtime(cores.max(2))?.block_on(serve(config))
}

async fn serve(config: Config) -> Result<(), CommandError> {
    let stop = stop_signal()?;
    let insight = Insight::default();
    let extensions: Vec<Arc<dyn server::Extension>> = vec![Arc::new(Dashboard), Arc::new(insight.clone())];
    let server = server::Server::start(server_config(&config), extensions).await.map_err(failed)?;
    let mesh = Mesh::bind(server.in_process_as("diolkos-mesh"), mesh_config(&config)?).await.map_err(failed)?;
    let (mesh_handle, mesh_orders, mesh_ear) = (mesh.handle(), mesh.handle(), mesh.ear());
    let (told, stopped) = watch::channel(false);
    let mut tasks = JoinSet::new();
    tasks.spawn(mesh.run(until(stopped.clone())));
    let root_ca = server.pki().authority.certificate_pem();
    let measured = telemetry::Config {
        agent_tls: Arc::new(agent_tls(server.pki())?),
        period: Duration::from_secs(config.scrape_s),
    };
    let api = server.in_process_as("diolkos-controller-manager");
    let telemetry = manage(api, control_config(&config, root_ca), measured, mesh_ear, stopped.clone(), &mut tasks);
    if let Some(listen) = config.skywalking_listen {
        let settings = telemetry::skywalking::Config { listen, token: config.skywalking_token.clone() };
        let port = telemetry::skywalking::Port::bind(settings, telemetry.clone()).await;
        tasks.spawn(port.map_err(|error| failed(format!("skywalking-listen {listen}: {error}")))?.run(stopped));
    }
    insight.told_by(vec![
        Arc::new(move |path: &str, _: Option<&str>| {
            if let Some(rest) = path.strip_prefix("/diolkos/v1/services") {
                return mesh_handle.services(rest).map(|told| (200, Bytes::from(told.to_string())));
            }
            if path == BUNDLE {
                return Some((200, Bytes::from(mesh_handle.bundle().to_string())));
            }
            (path == "/diolkos/v1/mesh").then(|| (200, Bytes::from(mesh_handle.report().to_string())))
        }),
        Arc::new(move |path: &str, selector: Option<&str>| telemetry.handle(path, selector)),
    ]);
    insight.done_by(vec![Arc::new(move |path: &str| rotate(&mesh_orders, path))]);
    notify::ready();
    server
        .serve(async {
            stop.await;
            // Whoever decides stops before what it speaks to.
            let _ = told.send(true);
        })
        .await;
    let _ = tokio::time::timeout(Duration::from_secs(5), async { while tasks.join_next().await.is_some() {} }).await;
    Ok(())
}

/// `POST /diolkos/v1/mesh/rotate-root` and `rotate-intermediate`.
fn rotate(mesh: &manager::mesh::Handle, path: &str) -> Option<(u16, Bytes)> {
    let done = match path {
        "/diolkos/v1/mesh/rotate-root" => mesh.rotate_root(),
        "/diolkos/v1/mesh/rotate-intermediate" => mesh.rotate_intermediate(),
        _ => return None,
    };
    Some(match done {
        Ok(()) => (200, Bytes::from(mesh.report()["trust"].to_string())),
        Err(error @ manager::mesh::CaError::UnderWay(_)) => (409, status(409, "Conflict", &error.to_string())),
        Err(error) => (500, status(500, "InternalError", &error.to_string())),
    })
}

/// How telemetry shows itself to node agents: as the API server does.
fn agent_tls(pki: &server::pki::Pki) -> Result<rustls::ClientConfig, CommandError> {
    let identity = (pki.node_client.certificate_pem.as_bytes(), pki.node_client.key_pem.as_bytes());
    client::client_tls(Some(pki.authority.certificate_pem().as_bytes()), Some(identity), &[b"http/1.1"]).map_err(failed)
}

/// Controllers, scheduler, telemetry and the mesh's ear, on the same informers.
fn manage(
    api: Arc<dyn ObjectApi>,
    control: control::Config,
    measured: telemetry::Config,
    mesh: Arc<dyn manager::subscriber::Subscriber>,
    stopped: watch::Receiver<bool>,
    tasks: &mut JoinSet<()>,
) -> Arc<Telemetry> {
    let mut manager = manager::Manager::new(api, manager::Config { control, ..manager::Config::default() });
    let (ear, scheduler) = manager::scheduler::new(manager.executor());
    manager.subscribe(Arc::new(ear));
    manager.subscribe(mesh);
    let telemetry = Telemetry::new(manager.control(), measured);
    manager.subscribe(telemetry.clone());
    tasks.spawn(telemetry.clone().run(stopped.clone()));
    tasks.spawn(scheduler.run());
    tasks.spawn(manager.run(stopped));
    telemetry
}

async fn until(mut stopped: watch::Receiver<bool>) {
    while !*stopped.borrow() {
        if stopped.changed().await.is_err() {
            return;
        }
    }
}
