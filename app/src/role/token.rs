//! `diolkos token`.

use super::{failed, runtime};
use crate::cli::{CommandError, TokenCommand};
use crate::config::Config;
use bytes::Bytes;
use client::{HttpsApi, ObjectApi, Resource};
use std::time::{Duration, SystemTime};

const SECRETS: Resource = Resource { group: "", version: "v1", plural: "secrets" };

pub fn run(config: &Config, command: TokenCommand) -> Result<(), CommandError> {
    match command {
        TokenCommand::Dashboard => {
            let path = config.data_dir.join("pki/dashboard.token");
            let token = std::fs::read_to_string(&path)
                .map_err(|error| super::unread(&path, format!("{}: {error}", path.display())))?;
            println!("{}", token.trim());
            Ok(())
        }
        TokenCommand::Create { hours, namespace, service } => {
            let api = super::admin(config)?;
            runtime(1)?.block_on(create(&api, hours, namespace, service))
        }
    }
}

/// A bootstrap token, as kubeadm makes them: a Secret whose name has the id.
async fn create(
    api: &HttpsApi,
    hours: u32,
    namespace: Option<String>,
    service: Option<String>,
) -> Result<(), CommandError> {
    if !(1..=24 * 365).contains(&hours) {
        return Err(CommandError::Usage("--hours is from 1 to a year".into()));
    }
    let (id, secret) = (random_text(6)?, random_text(16)?);
    let ends = SystemTime::now() + Duration::from_secs(u64::from(hours) * 3600);
    let ends = jiff::Timestamp::try_from(ends).map_err(failed)?;
    let mut body = serde_json::json!({
        "apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token",
        "metadata": {"name": format!("bootstrap-token-{id}"), "namespace": "kube-system"},
        "stringData": {
            "token-id": id, "token-secret": secret, "expiration": format!("{ends:.0}"),
            "usage-bootstrap-authentication": "true", "usage-bootstrap-signing": "true",
            "auth-extra-groups": "system:bootstrappers:diolkos:join",
            "description": "made by `diolkos token create`, to join workloads",
        },
    });
    for (name, value) in [("join-namespace", namespace), ("join-service", service)] {
        if let Some(value) = value {
            body["stringData"][name] = value.into();
        }
    }
    api.create(SECRETS, "kube-system", None, Bytes::from(body.to_string())).await.map_err(failed)?;
    println!("{id}.{secret}");
    Ok(())
}

/// Lower-case letters and digits from the kernel's random source.
fn random_text(len: usize) -> Result<String, CommandError> {
    use std::io::Read;
    const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut bytes = vec![0u8; len];
    std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)).map_err(failed)?;
    Ok(bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect())
}
