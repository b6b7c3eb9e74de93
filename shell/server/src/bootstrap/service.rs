//! The `kubernetes` Service: how pods find this server.

use super::{ensure, target_of};
use crate::core::Core;
use crate::core::stopped;
use crate::in_process::system_caller;
use crate::ops::{Made, Part, WriteOptions, change};
use kube::Status;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

fn service(core: &Core) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": {"component": "apiserver", "provider": "kubernetes"},
        },
        "spec": {
            "clusterIP": core.config.service_cidr.at(1).to_string(),
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": core.port()}],
            "type": "ClusterIP",
        },
    })
}

fn endpoints(core: &Core) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
        },
        "subsets": [{
            "addresses": [{"ip": core.endpoint_address().to_string()}],
            "ports": [{"name": "https", "port": core.port(), "protocol": "TCP"}],
        }],
    })
}

fn slice(core: &Core) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": "kubernetes"},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [core.endpoint_address().to_string()], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": core.port(), "protocol": "TCP"}],
    })
}

/// Makes the Service and its endpoints, and corrects the endpoints when the server has moved.
///
/// # Errors
/// The store's refusal.
pub async fn ensure_service(core: &Core) -> Result<(), Status> {
    ensure(core, service(core)).await?;
    // Without an address that reaches beyond this machine there is nothing to point pods at.
    if core.endpoint_address().is_loopback() {
        return Ok(());
    }
    for (object, field) in [(endpoints(core), "subsets"), (slice(core), "endpoints")] {
        if ensure(core, object.clone()).await? {
            continue;
        }
        let target = target_of(core, &object)?;
        let options = WriteOptions::default();
        change(core, &system_caller("kube-apiserver"), &target, Part::Main, options, |old| {
            let mut new = old.clone();
            new[field] = object[field].clone();
            if field == "endpoints" {
                new["ports"] = object["ports"].clone();
            }
            Ok(Made::Object(new))
        })
        .await?;
    }
    Ok(())
}

/// Puts them back when somebody deletes them. Runs until shutdown.
pub async fn follow(core: Arc<Core>) {
    let mut shutdown = core.shutdown.clone();
    loop {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(10)) => {}
            () = stopped(&mut shutdown) => return,
        }
        if let Err(error) = ensure_service(&core).await {
            tracing::warn!(%error, "cannot keep the kubernetes Service");
        }
    }
}
