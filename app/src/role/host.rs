//! The proxy of a joined host. It needs nothing but what joining left in the data directory, so another one can take over from it.

use super::join::{self, Kept};
use super::proxy::{Host, serve};
use crate::cli::CommandError;
use crate::config::Config;
use proxy::host::HostWorkload;
use proxy::{Callers, Control, WorkloadApi};
use std::time::Duration;

/// Serves the process until it is told to stop, or until a successor serves.
pub fn run(config: Config) -> Result<(), CommandError> {
    let kept = Kept::read(&config)?;
    let plane = join::plane(&config, &kept.control);
    let callers = Callers::Users { users: kept.users.clone(), groups: kept.groups.clone() };
    let settings = proxy::Config {
        node_name: kept.workload.clone(),
        workers: config.proxy_workers,
        attach_socket: None,
        handover_socket: Some(join::handover(&config)),
        workload_api: Some(WorkloadApi { socket: join::workload_api(&config), callers }),
        admin: None,
        control: Control::Plane(plane.clone()),
        snapshot: Some(config.data_dir.join("join/proxy.snapshot")),
        trust_domain: trust_domain(&kept.identity, &kept.cluster_domain),
        cluster_domain: kept.cluster_domain.clone(),
        dns_vips: vec![config.cluster_dns().into()],
        access_log: config.access(),
        tracing: config.tracing(),
        polling: Duration::from_micros(config.proxy_poll_us),
        gateways: false,
        ..proxy::Config::default()
    };
    let host = Host {
        common_name: common_name(&kept.workload),
        workload: HostWorkload {
            workload: kept.workload,
            namespace: kept.namespace,
            service_account: kept.service,
            address: kept.address,
            port: kept.port,
            capture: kept.service_cidrs,
        },
    };
    serve(settings, plane, Duration::from_secs(config.proxy_drain_s), Some(host))
}

/// `host/NAMESPACE/NAME` -> `system:host:NAMESPACE:NAME`, by which a host asks for its certificate anew.
pub fn common_name(workload: &str) -> String {
    workload.replacen("host/", "system:host:", 1).replacen('/', ":", 1)
}

/// First part of `spiffe://DOMAIN/...`.
fn trust_domain(identity: &str, default: &str) -> String {
    let domain = identity.strip_prefix("spiffe://").and_then(|rest| rest.split('/').next());
    domain.filter(|domain| !domain.is_empty()).unwrap_or(default).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(common_name("host/shop/inventory-old1"), "system:host:shop:inventory-old1");
        assert_eq!(trust_domain("spiffe://td.example/ns/a/sa/b", "x"), "td.example");
    }
}
