//! A process on a host that is no node asks to become a workload.
//!
//! The caller proves with a bootstrap token (a Secret `bootstrap-token-ID` in `kube-system`, as kubeadm makes them) that somebody with
//! rights there wants it. What it gets is small: one WorkloadEntry, the identity of that one service, and a client certificate with which it
//! may receive configuration and certificates for that identity. The Service is made when there is none.

use super::ca::{CaError, Subject};
use super::core::Core;
use super::hosts;
use super::identity::Caller;
use bytes::Bytes;
use client::{ApiError, PatchKind, Resource};
use model::Key;
use serde_json::{Value, json};
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tonic::{Request, Response, Status};
use xds::ca::{JoinRequest, JoinResponse};

/// A wrong token costs the caller this long: guessing 16 characters stays hopeless.
const WRONG_TOKEN: Duration = Duration::from_millis(500);

const SECRETS: Resource = Resource { group: "", version: "v1", plural: "secrets" };
const SERVICES: Resource = Resource { group: "", version: "v1", plural: "services" };
/// Where joined hosts are kept.
pub const ENTRIES: Resource = Resource { group: "networking.istio.io", version: "v1", plural: "workloadentries" };
const GROUPS: Resource = Resource { group: "networking.istio.io", version: "v1", plural: "workloadgroups" };

/// The join service for one connection.
#[derive(Clone)]
pub struct Join {
    pub core: Arc<Core>,
    pub address: String,
}

impl tonic::server::UnaryService<JoinRequest> for Join {
    type Response = JoinResponse;
    type Future = Pin<Box<dyn Future<Output = Result<Response<JoinResponse>, Status>> + Send>>;

    fn call(&mut self, request: Request<JoinRequest>) -> Self::Future {
        let join = self.clone();
        Box::pin(async move { join.join(request.into_inner()).await.map(Response::new) })
    }
}

impl Join {
    async fn join(&self, request: JoinRequest) -> Result<JoinResponse, Status> {
        let wanted = self.check(&request)?;
        let scope = self.check_token(&request.token).await?;
        if !scope.covers(&wanted) {
            tracing::warn!(
                namespace = wanted.namespace,
                service = wanted.service,
                from = self.address,
                "mesh: join refused: the token is for another service"
            );
            return Err(Status::permission_denied("the token is for another service or namespace"));
        }
        let entry = format!("{}-{}", wanted.service, wanted.host);
        // Whoever had the name before, and perhaps its key still, is worth nothing from now on.
        let id = fresh_id()?;
        let common_name = Caller::host_common_name(&wanted.namespace, &entry, &id);
        // Signed before anything is made: a bad request leaves nothing behind.
        let signed = self.core.ca.sign(&request.csr, &Subject::Host(common_name), self.core.config.certificate_ttl);
        let cert_chain = signed.map_err(|error| match error {
            CaError::Request(why) => Status::invalid_argument(why),
            other => Status::internal(other.to_string()),
        })?;
        let core = &self.core;
        let key = Key::new(wanted.namespace.as_str(), entry.as_str());
        let before = self.before(&wanted, &key).await?;
        make_service(core, &wanted).await.map_err(status)?;
        put_entry(core, &wanted, &entry, &id, before.as_ref()).await.map_err(status)?;
        // Whoever was told that it has joined finds its new certificate good and its former one worth nothing: our own view must have it first.
        let caller = Caller::Host { namespace: key.namespace.to_string(), name: key.name.to_string(), id };
        if !core.soon(|| hosts::is_current(core, &caller)).await {
            tracing::warn!(host = %key, "mesh: a host joined, and we do not see its entry yet");
        }
        // Not ready before its stream is up: until then its proxy could not answer. From here on it has the new certificate or none: its slice
        // can wait for the stream.
        if let Err(error) = hosts::put_slice(core, &key, false).await {
            tracing::warn!(host = %key, %error, "mesh: endpoint of a joined host cannot be written yet");
        }
        tracing::info!(host = %key, address = %wanted.address, from = self.address, "mesh: host joined");
        Ok(JoinResponse {
            cert_chain,
            identity: format!("spiffe://{}/ns/{}/sa/{}", core.ca.trust_domain(), wanted.namespace, wanted.service),
            workload: format!("host/{key}"),
            cluster_domain: core.config.cluster_domain.clone(),
            cluster_ca: std::fs::read_to_string(core.config.pki_dir.join("ca.crt"))
                .map(|text| super::ca::split_pem(&text))
                .unwrap_or_default(),
            service_cidrs: core.config.service_cidrs.clone(),
        })
    }

    fn check(&self, request: &JoinRequest) -> Result<Wanted, Status> {
        let label = |what: &str, text: &str| {
            let fine = (1..=40).contains(&text.len())
                && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
                && !text.starts_with('-')
                && !text.ends_with('-');
            if fine {
                return Ok(text.to_owned());
            }
            let rule = "must be 1 to 40 lower case letters, digits and '-', not at an end";
            Err(Status::invalid_argument(format!("{what} {text:?} {rule}")))
        };
        let from = self.address.parse::<std::net::SocketAddr>().map(|address| address.ip().to_string());
        let address = if request.address.is_empty() { from.unwrap_or_default() } else { request.address.clone() };
        let address: IpAddr =
            address.parse().map_err(|_| Status::invalid_argument(format!("{address:?} is no IP address")))?;
        let port = u16::try_from(request.port).ok().filter(|port| *port != 0);
        let namespace = if request.namespace.is_empty() { "default" } else { &request.namespace };
        Ok(Wanted {
            service: label("service", &request.service)?,
            namespace: label("namespace", namespace)?,
            host: label("host", &request.host)?,
            port: port.ok_or_else(|| Status::invalid_argument("port must be 1 to 65535"))?,
            address,
            protocol: match request.app_protocol.as_str() {
                "" => "http".to_owned(),
                known @ ("http" | "http2" | "grpc" | "tcp") => known.to_owned(),
                other => return Err(Status::invalid_argument(format!("protocol {other:?} is not known"))),
            },
        })
    }

    /// The entry of a host that comes again. What others have under its name stays theirs.
    async fn before(&self, wanted: &Wanted, key: &Key) -> Result<Option<Value>, Status> {
        let core = &self.core;
        let before = match core.api.get(ENTRIES, &key.namespace, &key.name).await {
            Ok(bytes) => Some(serde_json::from_slice(&bytes).unwrap_or(Value::Null)),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(status(error)),
        };
        let other = before.as_ref().filter(|before| !is_of(before, wanted));
        let (what, whose) = match other {
            Some(other) => ("WorkloadEntry", joined_as(other).unwrap_or("what somebody else wrote")),
            None if hosts::slice_is_free(core, key).await.map_err(status)? => return Ok(before),
            None => ("EndpointSlice", "what somebody else wrote"),
        };
        let (entry, service) = (&key.name, &wanted.service);
        tracing::warn!(what, %entry, service, whose, from = self.address, "mesh: join refused: its name is another's");
        let why =
            format!("{what} {entry} is there and is not of a host of service {service}: join under another --host");
        Err(Status::already_exists(why))
    }

    async fn check_token(&self, token: &str) -> Result<Scope, Status> {
        let refused = || Status::unauthenticated("the token is not valid; make one with `diolkos token create`");
        let well_formed = |part: &str, length: usize| {
            part.len() == length && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        };
        let parts = token.split_once('.').filter(|(id, secret)| well_formed(id, 6) && well_formed(secret, 16));
        let Some((id, secret)) = parts else { return Err(refused()) };
        let name = format!("bootstrap-token-{id}");
        let found = match self.core.api.get(SECRETS, "kube-system", &name).await {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or(Value::Null),
            Err(error) if error.is_not_found() => Value::Null,
            Err(error) => return Err(status(error)),
        };
        if is_good(&found, id, secret) {
            return Ok(Scope::of(&found));
        }
        tracing::warn!(id, from = self.address, "mesh: join refused: bad token");
        tokio::time::sleep(WRONG_TOKEN).await;
        Err(refused())
    }
}

struct Wanted {
    service: String,
    namespace: String,
    host: String,
    port: u16,
    address: IpAddr,
    protocol: String,
}

/// Whether a Secret is a bootstrap token of this secret that may authenticate and has not expired.
fn is_good(found: &Value, id: &str, secret: &str) -> bool {
    let data = |name: &str| data(found, name);
    let typed = found.get("type").and_then(Value::as_str) == Some("bootstrap.kubernetes.io/token");
    let expired = || {
        let text = data("expiration");
        let expires = String::from_utf8_lossy(&text).parse::<jiff::Timestamp>();
        // An expiration that cannot be read is one that has passed.
        !text.is_empty() && expires.map_or(true, |at| at <= jiff::Timestamp::now())
    };
    typed
        && data("token-id") == id.as_bytes()
        && data("usage-bootstrap-authentication") == b"true"
        && same(&data("token-secret"), secret.as_bytes())
        && !expired()
}

/// What a Secret has under a name; nothing, if it is not there or cannot be read.
fn data(secret: &Value, name: &str) -> Vec<u8> {
    secret.pointer(&format!("/data/{name}")).and_then(Value::as_str).and_then(decode).unwrap_or_default()
}

/// What a token may be used for. None: for any. Empty: for none; whoever wrote that meant one, by a variable that was not set.
#[derive(Debug, PartialEq, Eq)]
struct Scope {
    namespace: Option<Vec<u8>>,
    service: Option<Vec<u8>>,
}

impl Scope {
    /// As the token's Secret says.
    fn of(secret: &Value) -> Self {
        // What is there and cannot be read limits too.
        let said = |name| secret.pointer(&format!("/data/{name}")).map(|_| data(secret, name));
        Scope { namespace: said("join-namespace"), service: said("join-service") }
    }

    fn covers(&self, wanted: &Wanted) -> bool {
        let fits = |said: &Option<Vec<u8>>, wanted: &str| said.as_ref().is_none_or(|said| said == wanted.as_bytes());
        fits(&self.namespace, &wanted.namespace) && fits(&self.service, &wanted.service)
    }
}

/// The service that an entry was made for by joining.
fn joined_as(entry: &Value) -> Option<&str> {
    entry.pointer("/metadata/annotations/diolkos.io~1service").and_then(Value::as_str)
}

/// Whether an entry is of a host that joined as this service. Names do not tell: `a-b` on `c` and `a` on `b-c` come to one.
fn is_of(entry: &Value, wanted: &Wanted) -> bool {
    joined_as(entry) == Some(wanted.service.as_str())
}

fn decode(text: &str) -> Option<Vec<u8>> {
    use base64::Engine;
    base64::prelude::BASE64_STANDARD.decode(text).ok()
}

/// Tells joinings apart, and is no secret. Short, for it is part of a common name, which should have 64 characters at most.
fn fresh_id() -> Result<String, Status> {
    let mut bytes = [0u8; 8];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Status::internal("no random numbers"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// In a time that does not tell how much is right.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differ, (x, y)| differ | (x ^ y)) == 0
}

async fn make_service(core: &Core, wanted: &Wanted) -> Result<(), ApiError> {
    match core.api.get(SERVICES, &wanted.namespace, &wanted.service).await {
        Ok(_) => return Ok(()),
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error),
    }
    // Without a selector: its endpoints are the hosts that joined.
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": wanted.service, "namespace": wanted.namespace },
        "spec": { "ports": [{
            "name": wanted.protocol,
            "port": wanted.port,
            "targetPort": wanted.port,
            "appProtocol": wanted.protocol,
        }] },
    });
    match core.api.create(SERVICES, &wanted.namespace, None, Bytes::from(service.to_string())).await {
        Err(error) if !error.is_conflict() => Err(error),
        _ => Ok(()),
    }
}

/// Makes the entry, or changes the one that was there `before`: that one and no other.
async fn put_entry(core: &Core, wanted: &Wanted, name: &str, id: &str, before: Option<&Value>) -> Result<(), ApiError> {
    let group = match core.api.get(GROUPS, &wanted.namespace, &wanted.service).await {
        Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or(Value::Null),
        Err(error) if error.is_not_found() => Value::Null,
        Err(error) => return Err(error),
    };
    let mut entry = json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "WorkloadEntry",
        "metadata": {
            "name": name,
            "namespace": wanted.namespace,
            "labels": { "app": wanted.service },
            "annotations": { "diolkos.io/joined": "true", "diolkos.io/joined-id": id, "diolkos.io/service": wanted.service },
        },
        "spec": {
            "address": wanted.address.to_string(),
            "ports": { (wanted.protocol.as_str()): wanted.port },
            "labels": { "app": wanted.service },
            "serviceAccount": wanted.service,
        },
    });
    adopt(&mut entry, &group);
    let Some(before) = before else {
        return core.api.create(ENTRIES, &wanted.namespace, None, Bytes::from(entry.to_string())).await.map(|_| ());
    };
    // It comes again, perhaps from another address.
    if let Some(version) = before.pointer("/metadata/resourceVersion") {
        entry["metadata"]["resourceVersion"] = version.clone();
    }
    let body = Bytes::from(entry.to_string());
    core.api.patch(ENTRIES, &wanted.namespace, name, None, PatchKind::Merge, body).await.map(|_| ())
}

/// Takes over what the WorkloadGroup of the service says of its hosts. What we say ourselves (who joined, and as whom) stays.
fn adopt(entry: &mut Value, group: &Value) {
    let maps = [
        ("/spec/metadata/labels", "/metadata/labels"),
        ("/spec/metadata/annotations", "/metadata/annotations"),
        ("/spec/template/labels", "/spec/labels"),
        ("/spec/template/ports", "/spec/ports"),
    ];
    for (from, to) in maps {
        let said = group.pointer(from).and_then(Value::as_object);
        let Some((said, own)) = said.zip(entry.pointer_mut(to).and_then(Value::as_object_mut)) else { continue };
        for (name, value) in said {
            own.entry(name.clone()).or_insert_with(|| value.clone());
        }
    }
    for name in ["locality", "weight"] {
        if let Some(value) = group.pointer(&format!("/spec/template/{name}")) {
            entry["spec"][name] = value.clone();
        }
    }
}

/// An API error as the caller should see it.
fn status(error: ApiError) -> Status {
    match error.code {
        0 | 429 | 503 => Status::unavailable(error.to_string()),
        404 => Status::failed_precondition(error.to_string()),
        409 => Status::aborted(error.to_string()),
        400 | 422 => Status::invalid_argument(error.to_string()),
        _ => Status::internal(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;

    #[test]
    fn a_group_says_what_its_hosts_have_in_common() {
        let mut entry = json!({
            "metadata": { "labels": { "app": "db" }, "annotations": { "diolkos.io/joined": "true" } },
            "spec": { "labels": { "app": "db" }, "ports": { "tcp": 1 }, "serviceAccount": "db" },
        });
        let group = json!({ "spec": {
            "metadata": { "labels": { "team": "red", "app": "other" }, "annotations": { "diolkos.io/joined": "no" } },
            "template": { "labels": { "version": "v2" }, "ports": { "admin": 2 }, "locality": "r/z", "weight": 3, "serviceAccount": "root" },
        } });
        adopt(&mut entry, &group);
        let expect = json!({
            "metadata": { "labels": { "app": "db", "team": "red" }, "annotations": { "diolkos.io/joined": "true" } },
            "spec": { "labels": { "app": "db", "version": "v2" }, "ports": { "tcp": 1, "admin": 2 }, "serviceAccount": "db",
                "locality": "r/z", "weight": 3 },
        });
        assert_eq!(entry, expect, "and nobody becomes somebody else by it");
        adopt(&mut entry, &Value::Null);
        assert_eq!(entry, expect);
    }

    #[test]
    fn a_token_is_worth_what_its_secret_says() {
        let encode = |text: &str| base64::prelude::BASE64_STANDARD.encode(text);
        let wanted = Wanted {
            service: "inventory".into(),
            namespace: "shop".into(),
            host: "box1".into(),
            address: IpAddr::from([172, 30, 0, 2]),
            port: 80,
            protocol: "http".into(),
        };
        for (namespace, service, covered) in [
            (None, None, true),
            (Some("shop"), None, true),
            (Some("shop"), Some("inventory"), true),
            (None, Some("inventory"), true),
            (Some("other"), None, false),
            (Some("shop"), Some("payments"), false),
            (Some("other"), Some("inventory"), false),
            (None, Some("inventory-2"), false),
            (Some(""), None, false),
            (Some("shop"), Some(""), false),
        ] {
            let said = [("join-namespace", namespace), ("join-service", service)];
            let said = said.into_iter().filter_map(|(name, value)| Some((name.to_owned(), encode(value?).into())));
            let data = Value::Object(said.collect());
            assert_eq!(Scope::of(&json!({ "data": data })).covers(&wanted), covered, "{namespace:?} {service:?}");
        }
        let unreadable = json!({ "data": { "join-service": "inventory" } });
        assert!(!Scope::of(&unreadable).covers(&wanted), "what is no base64 is no leave either");
        assert!(Scope::of(&Value::Null).covers(&wanted), "as before there were scopes");
    }

    #[test]
    fn tokens() {
        let secret = |kind: &str, secret: &str, usage: &str, expiration: &str| {
            let encode = |text: &str| base64::prelude::BASE64_STANDARD.encode(text);
            json!({ "type": kind, "data": {
                "token-id": encode("abcdef"), "token-secret": encode(secret),
                "usage-bootstrap-authentication": encode(usage), "expiration": encode(expiration),
            }})
        };
        let kind = "bootstrap.kubernetes.io/token";
        for (found, good) in [
            (secret(kind, "0123456789abcdef", "true", ""), true),
            (secret(kind, "0123456789abcdef", "true", "2999-01-01T00:00:00Z"), true),
            (secret(kind, "0123456789abcdef", "true", "2001-01-01T00:00:00Z"), false),
            (secret(kind, "0123456789abcdef", "true", "soon"), false),
            (secret(kind, "0123456789abcdef", "false", ""), false),
            (secret(kind, "0123456789abcdeX", "true", ""), false),
            (secret("Opaque", "0123456789abcdef", "true", ""), false),
            (Value::Null, false),
        ] {
            assert_eq!(is_good(&found, "abcdef", "0123456789abcdef"), good, "{found}");
        }
    }
}
