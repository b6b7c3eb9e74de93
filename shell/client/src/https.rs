use crate::api::*;
use crate::error::ApiError;
use crate::kubeconfig::{ConfigError, Endpoint};
use crate::lines::Lines;
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::ServerName;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::Mutex;

/// Connections that take longer are given up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Calls other than watches that take longer are given up; an API server's own limit is 60 s.
const CALL_TIMEOUT: Duration = Duration::from_secs(65);
/// Largest answer to anything but a watch.
const MAX_ANSWER: usize = 1 << 30;

type Sender = http2::SendRequest<Full<Bytes>>;

/// An API server over HTTPS: one HTTP/2 connection for everything, made when first needed and again when it breaks.
#[derive(Clone)]
pub struct HttpsApi {
    shared: Arc<Shared>,
}

struct Shared {
    endpoint: Endpoint,
    tls: tokio_rustls::TlsConnector,
    connection: Mutex<Option<Sender>>,
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// Body.
    pub body: Bytes,
}

impl HttpsApi {
    /// The current context of a kubeconfig.
    ///
    /// # Errors
    /// The file cannot be used; see [`ConfigError`].
    pub fn from_kubeconfig(path: &Path) -> Result<Self, ConfigError> {
        Ok(HttpsApi::new(Endpoint::from_kubeconfig(path)?))
    }

    /// A given endpoint.
    pub fn new(endpoint: Endpoint) -> Self {
        let mut tls = (*endpoint.tls).clone();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let tls = tokio_rustls::TlsConnector::from(Arc::new(tls));
        HttpsApi { shared: Arc::new(Shared { endpoint, tls, connection: Mutex::new(None) }) }
    }

    /// Where it is and how to sign in.
    pub fn endpoint(&self) -> &Endpoint {
        &self.shared.endpoint
    }

    /// Any call that is no watch, with its whole answer, whatever its status.
    ///
    /// # Errors
    /// No answer came.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        content_type: &'static str,
        body: Bytes,
    ) -> Result<Answer, ApiError> {
        let work = async {
            let (parts, body) = self.send(method, path, content_type, body).await?.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await;
            let body = body.map_err(|error| ApiError::unreachable(format!("the answer broke off: {error}")))?;
            Ok(Answer { status: parts.status, body: body.to_bytes() })
        };
        tokio::time::timeout(CALL_TIMEOUT, work)
            .await
            .unwrap_or_else(|_| Err(ApiError::unreachable(format!("no answer within {} s", CALL_TIMEOUT.as_secs()))))
    }

    /// A call whose answer's body is read as it comes.
    async fn send(
        &self,
        method: Method,
        path: &str,
        content_type: &'static str,
        body: Bytes,
    ) -> Result<http::Response<Incoming>, ApiError> {
        let endpoint = &self.shared.endpoint;
        let mut request = Request::builder()
            .method(method)
            .uri(format!("https://{}{path}", endpoint.authority))
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, concat!("diolkos/", env!("CARGO_PKG_VERSION")));
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        if let Some(token) = &endpoint.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request
            .body(Full::new(body))
            .map_err(|error| ApiError::new(400, "BadRequest", format!("{path}: {error}")))?;
        let mut sender = self.shared.sender().await?;
        match sender.send_request(request).await {
            Ok(response) => Ok(response),
            Err(error) => {
                if sender.is_closed() {
                    *self.shared.connection.lock().await = None;
                }
                Err(ApiError::unreachable(error.to_string()))
            }
        }
    }

    async fn object(&self, method: Method, path: &str, kind: &'static str, body: Bytes) -> Result<Bytes, ApiError> {
        let answer = self.call(method, path, kind, body).await?;
        if answer.status.is_success() { Ok(answer.body) } else { Err(refusal(answer.status, &answer.body)) }
    }

    /// Opens a connection of its own and upgrades it (exec, port-forward): returns the raw stream.
    ///
    /// # Errors
    /// No answer came, or the server does not switch protocols.
    pub async fn upgrade(
        &self,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<(http::response::Parts, TokioIo<hyper::upgrade::Upgraded>), ApiError> {
        let broken = |error: &dyn std::fmt::Display| ApiError::unreachable(error.to_string());
        let mut tls = (*self.shared.endpoint.tls).clone();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let stream = self.shared.connect(&tokio_rustls::TlsConnector::from(Arc::new(tls))).await?;
        let (mut sender, connection) =
            http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream)).await.map_err(|e| broken(&e))?;
        tokio::spawn(connection.with_upgrades());
        let endpoint = &self.shared.endpoint;
        let mut request = Request::get(path).header(header::HOST, &endpoint.authority);
        if let Some(token) = &endpoint.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::default()).map_err(|e| ApiError::new(400, "BadRequest", e.to_string()))?;
        let response = sender.send_request(request).await.map_err(|e| broken(&e))?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, 1 << 20).collect().await.map(|b| b.to_bytes()).unwrap_or_default();
            return Err(refusal(parts.status, &body));
        }
        let (parts, body) = response.into_parts();
        let response = http::Response::from_parts(parts, body);
        let head = response.headers().clone();
        let upgraded = hyper::upgrade::on(response).await.map_err(|e| broken(&e))?;
        let mut parts = http::Response::new(()).into_parts().0;
        parts.status = StatusCode::SWITCHING_PROTOCOLS;
        parts.headers = head;
        Ok((parts, TokioIo::new(upgraded)))
    }
}

impl Shared {
    async fn sender(&self) -> Result<Sender, ApiError> {
        let mut slot = self.connection.lock().await;
        if let Some(sender) = slot.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(sender.clone());
        }
        let stream = self.connect(&self.tls).await?;
        let handshake = http2::Builder::new(TokioExecutor::new())
            .timer(hyper_util::rt::TokioTimer::new())
            .keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(10))
            .keep_alive_while_idle(true)
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(16 << 20)
            .handshake(TokioIo::new(stream));
        let (sender, connection) = handshake.await.map_err(|error| ApiError::unreachable(error.to_string()))?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection to the API server ended");
            }
        });
        *slot = Some(sender.clone());
        Ok(sender)
    }

    async fn connect(
        &self,
        tls: &tokio_rustls::TlsConnector,
    ) -> Result<tokio_rustls::client::TlsStream<TcpStream>, ApiError> {
        let authority = &self.endpoint.authority;
        let broken = |error: &dyn std::fmt::Display| ApiError::unreachable(format!("{authority}: {error}"));
        let name = ServerName::try_from(self.endpoint.server_name.clone()).map_err(|error| broken(&error))?;
        let work = async {
            let tcp = TcpStream::connect(authority).await.map_err(|error| broken(&error))?;
            tcp.set_nodelay(true).map_err(|error| broken(&error))?;
            tls.connect(name, tcp).await.map_err(|error| broken(&error))
        };
        tokio::time::timeout(CONNECT_TIMEOUT, work).await.unwrap_or_else(|_| Err(broken(&"connecting timed out")))
    }
}

/// The error in a `Status` answer, or one made from the HTTP status when the body is something else.
fn refusal(status: StatusCode, body: &[u8]) -> ApiError {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Status {
        reason: String,
        message: String,
    }
    let parsed: Status = serde_json::from_slice(body).unwrap_or_default();
    let message = if parsed.message.is_empty() {
        String::from_utf8_lossy(&body[..body.len().min(500)]).into_owned()
    } else {
        parsed.message
    };
    ApiError::new(status.as_u16(), parsed.reason, message)
}

fn path_of(of: Resource, namespace: &str, name: Option<&str>, subresource: Option<&str>) -> String {
    let mut path =
        if of.group.is_empty() { format!("/api/{}", of.version) } else { format!("/apis/{}/{}", of.group, of.version) };
    let mut add = |part: &str| {
        path.push('/');
        path.push_str(part);
    };
    if !namespace.is_empty() {
        add("namespaces");
        add(namespace);
    }
    add(of.plural);
    name.into_iter().for_each(&mut add);
    subresource.into_iter().for_each(&mut add);
    path
}

fn query(path: &mut String, pairs: &[(&str, &str)]) {
    let mut separator = '?';
    for (key, value) in pairs {
        path.push(separator);
        separator = '&';
        path.push_str(key);
        path.push('=');
        for byte in value.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => path.push(char::from(byte)),
                _ => path.push_str(&format!("%{byte:02X}")),
            }
        }
    }
}

fn selectors(options: &ListOptions) -> Vec<(&str, &str)> {
    let label = options.label_selector.as_deref().map(|text| ("labelSelector", text));
    let field = options.field_selector.as_deref().map(|text| ("fieldSelector", text));
    label.into_iter().chain(field).collect()
}

#[derive(Deserialize)]
struct RawList<'a> {
    metadata: ListMeta,
    #[serde(borrow)]
    items: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListMeta {
    resource_version: String,
}

#[derive(Deserialize)]
struct RawEvent<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    object: &'a RawValue,
}

fn watch_event(line: &Bytes) -> Result<WatchEvent, ApiError> {
    let malformed = |error: serde_json::Error| ApiError::new(500, "InternalError", format!("a watch event: {error}"));
    let raw: RawEvent<'_> = serde_json::from_slice(line).map_err(malformed)?;
    let kind = match raw.kind {
        "ADDED" => EventKind::Added,
        "MODIFIED" => EventKind::Modified,
        "DELETED" => EventKind::Deleted,
        "BOOKMARK" => EventKind::Bookmark,
        _ => {
            let code = serde_json::from_str::<serde_json::Value>(raw.object.get()).ok();
            let code = code.and_then(|status| status["code"].as_u64()).unwrap_or(500);
            let status = StatusCode::from_u16(code as u16).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            return Err(refusal(status, raw.object.get().as_bytes()));
        }
    };
    Ok(WatchEvent { kind, revision: 0, object: line.slice_ref(raw.object.get().as_bytes()) })
}

fn delete_body(options: &DeleteOptions) -> Bytes {
    let mut body = serde_json::json!({"apiVersion": "v1", "kind": "DeleteOptions"});
    if let Some(grace) = options.grace_s {
        body["gracePeriodSeconds"] = grace.into();
    }
    if let Some(policy) = options.propagation {
        body["propagationPolicy"] = policy.into();
    }
    if let Some(uid) = &options.uid {
        body["preconditions"]["uid"] = uid.as_str().into();
    }
    if let Some(revision) = options.revision {
        body["preconditions"]["resourceVersion"] = revision.to_string().into();
    }
    Bytes::from(body.to_string())
}

const JSON: &str = "application/json";

impl ObjectApi for HttpsApi {
    fn get<'a>(&'a self, of: Resource, namespace: &'a str, name: &'a str) -> BoxFuture<'a, Result<Bytes, ApiError>> {
        Box::pin(async move {
            self.object(Method::GET, &path_of(of, namespace, Some(name), None), JSON, Bytes::new()).await
        })
    }

    fn list<'a>(&'a self, of: Resource, options: ListOptions) -> BoxFuture<'a, Result<ObjectList, ApiError>> {
        Box::pin(async move {
            let mut path = path_of(of, options.namespace.as_deref().unwrap_or_default(), None, None);
            query(&mut path, &selectors(&options));
            let body = self.object(Method::GET, &path, JSON, Bytes::new()).await?;
            let malformed =
                |error: String| ApiError::new(500, "InternalError", format!("list of {}: {error}", of.plural));
            let list: RawList<'_> = serde_json::from_slice(&body).map_err(|error| malformed(error.to_string()))?;
            let revision = list.metadata.resource_version.parse();
            let revision = revision.map_err(|_| malformed("its resourceVersion is no number".into()))?;
            // Copied out, so that one object that is kept does not keep the whole list in memory.
            let items = list.items.iter().map(|item| Bytes::copy_from_slice(item.get().as_bytes())).collect();
            Ok(ObjectList { revision, items })
        })
    }

    fn watch<'a>(
        &'a self,
        of: Resource,
        options: ListOptions,
        revision: u64,
    ) -> BoxFuture<'a, Result<WatchStream, ApiError>> {
        Box::pin(async move {
            let mut path = path_of(of, options.namespace.as_deref().unwrap_or_default(), None, None);
            let revision = revision.to_string();
            let mut pairs = selectors(&options);
            pairs.extend([("watch", "true"), ("allowWatchBookmarks", "true"), ("resourceVersion", &revision)]);
            query(&mut path, &pairs);
            let sending = tokio::time::timeout(CALL_TIMEOUT, self.send(Method::GET, &path, JSON, Bytes::new()));
            let response = sending.await.unwrap_or_else(|_| Err(ApiError::unreachable("no answer to a watch")))?;
            let (parts, body) = response.into_parts();
            if !parts.status.is_success() {
                let body = Limited::new(body, 1 << 20).collect().await.map(|b| b.to_bytes()).unwrap_or_default();
                return Err(refusal(parts.status, &body));
            }
            let stream = futures_util::stream::unfold(Some(Lines::new(body)), |lines| async move {
                let mut lines = lines?;
                let next = match lines.next().await {
                    Ok(None) => return None,
                    Ok(Some(line)) => watch_event(&line),
                    Err(why) => Err(ApiError::unreachable(format!("the watch broke off: {why}"))),
                };
                let rest = next.is_ok().then_some(lines);
                Some((next, rest))
            });
            Ok(Box::pin(stream) as WatchStream)
        })
    }

    fn create<'a>(
        &'a self,
        of: Resource,
        namespace: &'a str,
        at: Option<(&'a str, &'a str)>,
        body: Bytes,
    ) -> BoxFuture<'a, Result<Bytes, ApiError>> {
        Box::pin(async move {
            let (name, subresource) = at.unzip();
            self.object(Method::POST, &path_of(of, namespace, name, subresource), JSON, body).await
        })
    }

    fn update<'a>(
        &'a self,
        of: Resource,
        namespace: &'a str,
        name: &'a str,
        subresource: Option<&'a str>,
        body: Bytes,
    ) -> BoxFuture<'a, Result<Bytes, ApiError>> {
        Box::pin(
            async move { self.object(Method::PUT, &path_of(of, namespace, Some(name), subresource), JSON, body).await },
        )
    }

    fn patch<'a>(
        &'a self,
        of: Resource,
        namespace: &'a str,
        name: &'a str,
        subresource: Option<&'a str>,
        kind: PatchKind,
        body: Bytes,
    ) -> BoxFuture<'a, Result<Bytes, ApiError>> {
        Box::pin(async move {
            let mut path = path_of(of, namespace, Some(name), subresource);
            let content_type = match kind {
                PatchKind::Json => "application/json-patch+json",
                PatchKind::Merge => "application/merge-patch+json",
                PatchKind::Strategic => "application/strategic-merge-patch+json",
                PatchKind::Apply(manager) => {
                    query(&mut path, &[("fieldManager", manager), ("force", "true")]);
                    "application/apply-patch+yaml"
                }
            };
            self.object(Method::PATCH, &path, content_type, body).await
        })
    }

    fn delete<'a>(
        &'a self,
        of: Resource,
        namespace: &'a str,
        name: &'a str,
        options: DeleteOptions,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(async move {
            let path = path_of(of, namespace, Some(name), None);
            self.object(Method::DELETE, &path, JSON, delete_body(&options)).await.map(drop)
        })
    }
}
