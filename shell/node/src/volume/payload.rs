//! The files of volumes whose content the node writes: ConfigMaps, Secrets, the downward API, tokens, and mixtures of them.

use super::atomic::{File, Payload};
use super::{Source, VolumeError};
use crate::clock;
use crate::pod::env::{ConfigError, field_value, resource_value};
use crate::pod::spec::{ConfigMapSource, DownwardSource, KeyToPath, Pod, TokenSource, Volume};
use crate::refs::{Lookup, RefError, Token};
use std::collections::BTreeMap;
use std::sync::Mutex;

const DEFAULT_MODE: u32 = 0o644;
const DEFAULT_TOKEN_S: i64 = 3600;

/// Tokens of one pod by volume and path, so that a look at the volume does not ask for new ones.
pub type TokenCache = Mutex<BTreeMap<String, Token>>;

/// The files of a volume and whether they are secret; `None` when it is no such volume.
pub(super) async fn of(pod: &Pod, volume: &Volume, source: Source<'_>) -> Result<Option<(Payload, bool)>, VolumeError> {
    let failed = |error| VolumeError::Config { volume: volume.name.clone(), error };
    let mut out = Payload::new();
    if let Some(map) = &volume.config_map {
        keys(pod, "configmap", map, DEFAULT_MODE, source, &mut out).await.map_err(failed)?;
        return Ok(Some((out, false)));
    }
    if let Some(secret) = &volume.secret {
        let as_map = ConfigMapSource {
            name: secret.secret_name.clone(),
            items: secret.items.clone(),
            default_mode: secret.default_mode,
            optional: secret.optional,
        };
        keys(pod, "secret", &as_map, DEFAULT_MODE, source, &mut out).await.map_err(failed)?;
        return Ok(Some((out, true)));
    }
    if let Some(downward) = &volume.downward_api {
        fields(pod, downward, DEFAULT_MODE, source, &mut out).map_err(failed)?;
        return Ok(Some((out, false)));
    }
    let Some(projected) = &volume.projected else { return Ok(None) };
    let mode = projected.default_mode.unwrap_or(DEFAULT_MODE);
    for projection in &projected.sources {
        if let Some(map) = &projection.config_map {
            keys(pod, "configmap", map, mode, source, &mut out).await.map_err(failed)?;
        }
        if let Some(secret) = &projection.secret {
            let (name, items) = (secret.name.clone(), secret.items.clone());
            let as_map = ConfigMapSource { name, items, default_mode: None, optional: secret.optional };
            keys(pod, "secret", &as_map, mode, source, &mut out).await.map_err(failed)?;
        }
        if let Some(downward) = &projection.downward_api {
            fields(pod, downward, mode, source, &mut out).map_err(failed)?;
        }
        if let Some(request) = &projection.service_account_token {
            let token = token(pod, &volume.name, request, source)
                .await
                .map_err(|error| VolumeError::Ref { volume: volume.name.clone(), error })?;
            out.insert(request.path.clone(), File { bytes: token.into_bytes(), mode });
        }
    }
    Ok(Some((out, true)))
}

async fn keys(
    pod: &Pod,
    kind: &'static str,
    from: &ConfigMapSource,
    mode: u32,
    source: Source<'_>,
    out: &mut Payload,
) -> Result<(), ConfigError> {
    let namespace = &pod.metadata.namespace;
    let data = match source.refs.data(kind, namespace, &from.name).await {
        Err(RefError::NotFound { .. }) if from.optional => return Ok(()),
        other => other?,
    };
    let mode = from.default_mode.unwrap_or(mode);
    if from.items.is_empty() {
        out.extend(data.iter().map(|(key, bytes)| (key.clone(), File { bytes: bytes.clone(), mode })));
    }
    for KeyToPath { key, path, mode: own } in &from.items {
        match data.get(key) {
            Some(bytes) => {
                out.insert(path.clone(), File { bytes: bytes.clone(), mode: own.unwrap_or(mode) });
            }
            None if from.optional => {}
            None => return Err(ConfigError::Other(format!("references non-existent {kind} key: {key}"))),
        }
    }
    Ok(())
}

fn fields(
    pod: &Pod,
    from: &DownwardSource,
    mode: u32,
    source: Source<'_>,
    out: &mut Payload,
) -> Result<(), ConfigError> {
    let default = from.default_mode.unwrap_or(mode);
    for item in &from.items {
        let value = match (&item.field_ref, &item.resource_field_ref) {
            (Some(field), _) => field_value(pod, field, source.facts)?,
            (None, Some(resource)) => resource_value(pod, None, resource, source.facts)?,
            (None, None) => continue,
        };
        out.insert(item.path.clone(), File { bytes: value.into_bytes(), mode: item.mode.unwrap_or(default) });
    }
    Ok(())
}

async fn token(pod: &Pod, volume: &str, request: &TokenSource, source: Source<'_>) -> Result<String, RefError> {
    let key = format!("{volume}/{}", request.path);
    let held = source.tokens.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get(&key).cloned();
    let now = clock::now();
    if let Some(token) = held.as_ref().filter(|token| !token.is_old(now)) {
        return Ok(token.token.clone());
    }
    let meta = &pod.metadata;
    let account = match pod.spec.service_account_name.as_str() {
        "" => "default",
        given => given,
    };
    let seconds = request.expiration_seconds.unwrap_or(DEFAULT_TOKEN_S);
    let asked = source.refs.token(&meta.namespace, account, &request.audience, seconds, (&meta.name, &meta.uid)).await;
    match (asked, held) {
        (Ok(token), _) => {
            let text = token.token.clone();
            source.tokens.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(key, token);
            Ok(text)
        }
        // An ageing token serves until it expires.
        (Err(_), Some(token)) if now < token.expires => Ok(token.token),
        (Err(error), _) => Err(error),
    }
}
