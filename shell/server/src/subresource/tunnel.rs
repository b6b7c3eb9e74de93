//! Logs, exec, attach and port-forward: requests handed to the node agent that runs the pod. The bytes of a tunnel are not looked at,
//! so WebSocket and SPDY both pass.

use crate::body::Body;
use crate::core::Core;
use crate::core::stopped;
use crate::handler::Running;
use crate::ops::{Target, load};
use crate::request::{Query, RequestInfo};
use crate::respond;
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderName, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use kube::Status;
use rustls::pki_types::ServerName;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// A node agent's refusal is a short text.
const MAX_REFUSAL: usize = 64 << 10;

/// Answers `pods/NAME/log` with the node agent's stream.
///
/// # Errors
/// The pod or container is not there, or its node does not answer.
pub async fn logs(
    core: &Arc<Core>,
    target: &Target,
    query: &Query,
    running: Running,
) -> Result<Response<Body>, Status> {
    let (_, pod) = load(core, target)?;
    let container = container(&pod, target, query.get("container"), true)?;
    let mut parameters = Parameters::default();
    for key in ["follow", "previous", "timestamps"] {
        if query.get(key).is_some() && query.flag(key) {
            parameters.add(key, "true");
        }
    }
    for key in ["tailLines", "limitBytes", "sinceSeconds"] {
        if let Some(number) = query.number(key).map_err(Status::bad_request)? {
            parameters.add(key, &number.to_string());
        }
    }
    for key in ["sinceTime", "stream"] {
        if let Some(text) = query.get(key) {
            parameters.add(key, text);
        }
    }
    let Some(node) = Node::of(core, &pod)? else {
        // Not scheduled yet: there are no logs, and that is no error.
        return Ok(respond::text(200, ""));
    };
    let path = format!("/containerLogs/{}/{}/{container}{}", target.namespace, target.name, parameters.text());
    let mut agent = node.connect(core).await?;
    let request = Request::get(path).header(HOST, &node.name).body(Empty::new()).map_err(Status::internal)?;
    let answer = agent.send_request(request).await.map_err(|error| node.failed(error))?;
    if !answer.status().is_success() {
        return Err(refusal(answer).await);
    }
    let media = answer.headers().get(CONTENT_TYPE).cloned().unwrap_or(HeaderValue::from_static("text/plain"));
    // The connection lives as long as its sender, the count as long as the stream.
    let stream =
        futures_util::stream::unfold((answer.into_body(), agent, running), |(mut body, agent, running)| async move {
            loop {
                let frame = body.frame().await?.ok()?;
                if let Ok(data) = frame.into_data() {
                    return Some((data, (body, agent, running)));
                }
            }
        });
    let mut response = respond::body(200, "text/plain", Body::stream(stream));
    response.headers_mut().insert(CONTENT_TYPE, media);
    Ok(response)
}

/// Hands an upgraded connection on to the node agent.
///
/// # Errors
/// The pod or container is not there, or its node refuses.
#[expect(clippy::too_many_arguments, reason = "the parts of an upgrade request")]
pub async fn tunnel(
    core: &Arc<Core>,
    target: &Target,
    info: &RequestInfo,
    query: &Query,
    headers: &HeaderMap,
    method: Method,
    client: OnUpgrade,
    running: Running,
) -> Result<Response<Body>, Status> {
    let (_, pod) = load(core, target)?;
    if !headers.contains_key(UPGRADE) {
        return Err(Status::bad_request("Upgrade request required"));
    }
    let path = node_path(&pod, target, info, query)?;
    let node = Node::of(core, &pod)?
        .ok_or_else(|| Status::bad_request(format!("pod {} does not have a host assigned", target.name)))?;
    let mut agent = node.connect(core).await?;
    let mut request = Request::builder().method(method).uri(path).header(HOST, &node.name);
    for (name, value) in headers.iter().filter(|(name, _)| passes(name)) {
        request = request.header(name, value);
    }
    let request = request.body(Empty::new()).map_err(Status::internal)?;
    let mut answer = agent.send_request(request).await.map_err(|error| node.failed(error))?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(refusal(answer).await);
    }
    let upstream = hyper::upgrade::on(&mut answer);
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    for (name, value) in answer.headers().iter().filter(|(name, _)| passes(name)) {
        response.headers_mut().append(name, value.clone());
    }
    let mut shutdown = core.shutdown.clone();
    tokio::spawn(async move {
        let _running = running;
        let (Ok(client), Ok(upstream)) = tokio::join!(client, upstream) else { return };
        let (mut client, mut upstream) = (TokioIo::new(client), TokioIo::new(upstream));
        tokio::select! {
            ended = tokio::io::copy_bidirectional_with_sizes(&mut client, &mut upstream, 64 << 10, 64 << 10) => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a tunnel to a pod ended");
                }
            }
            () = stopped(&mut shutdown) => {}
        }
    });
    Ok(response)
}

/// Headers that belong to the tunnel rather than to one of its ends. Credentials stop here: the agent knows the server, not the user.
fn passes(name: &HeaderName) -> bool {
    let name = name.as_str();
    *name == *CONNECTION.as_str()
        || *name == *UPGRADE.as_str()
        || name.starts_with("sec-websocket-")
        || name.starts_with("x-stream-protocol-version")
        || name == "x-accept-stream-protocol-version"
}

fn node_path(pod: &Value, target: &Target, info: &RequestInfo, query: &Query) -> Result<String, Status> {
    let place = format!("{}/{}", target.namespace, target.name);
    let mut parameters = Parameters::default();
    if info.subresource == "portforward" {
        for port in query.all("ports") {
            parameters.add("port", port);
        }
        return Ok(format!("/portForward/{place}{}", parameters.text()));
    }
    let container = container(pod, target, query.get("container"), false)?;
    for (ours, theirs) in [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")] {
        if query.get(ours).is_some() && query.flag(ours) {
            parameters.add(theirs, "1");
        }
    }
    if info.subresource == "exec" {
        let mut any = false;
        for word in query.all("command") {
            parameters.add("command", word);
            any = true;
        }
        if !any {
            return Err(Status::bad_request("you must specify at least 1 command for the container"));
        }
    }
    Ok(format!("/{}/{place}/{container}{}", info.subresource, parameters.text()))
}

/// The container that is meant: named, annotated as the default, or the only one.
fn container(pod: &Value, target: &Target, asked: Option<&str>, logs: bool) -> Result<String, Status> {
    let names = |key: &str| -> Vec<String> {
        let list = pod["spec"][key].as_array().into_iter().flatten();
        list.filter_map(|one| one["name"].as_str()).map(str::to_owned).collect()
    };
    let (main, init, other) = (names("containers"), names("initContainers"), names("ephemeralContainers"));
    match (asked, main.as_slice()) {
        (Some(name), _) => {
            let known = [&main, &init, &other].into_iter().flatten().any(|have| have == name);
            if known {
                Ok(name.to_owned())
            } else {
                Err(Status::bad_request(format!("container {name} is not valid for pod {}", target.name)))
            }
        }
        (None, [only]) => Ok(only.clone()),
        (None, _) => {
            let default = pod["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"].as_str();
            if let Some(name) = default.filter(|name| !logs && main.iter().any(|have| have == name)) {
                return Ok(name.to_owned());
            }
            let mut message = format!(
                "a container name must be specified for pod {}, choose one of: [{}]",
                target.name,
                main.join(" ")
            );
            if !init.is_empty() {
                message.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
            }
            Err(Status::bad_request(message))
        }
    }
}

/// Query parameters, encoded.
#[derive(Default)]
struct Parameters(String);

impl Parameters {
    fn add(&mut self, key: &str, value: &str) {
        self.0.push(if self.0.is_empty() { '?' } else { '&' });
        self.0.push_str(key);
        self.0.push('=');
        for byte in value.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => self.0.push(char::from(byte)),
                _ => self.0.push_str(&format!("%{byte:02X}")),
            }
        }
    }
    fn text(&self) -> &str {
        &self.0
    }
}

/// Where a pod's node agent listens.
struct Node {
    name: String,
    address: String,
    port: u16,
}

impl Node {
    fn of(core: &Core, pod: &Value) -> Result<Option<Node>, Status> {
        let name = pod["spec"]["nodeName"].as_str().unwrap_or_default();
        if name.is_empty() {
            return Ok(None);
        }
        let node = core.read("nodes", "", name).ok_or_else(|| Status::not_found("", "nodes", name))?;
        let addresses = node["status"]["addresses"].as_array().into_iter().flatten();
        let address =
            addresses.filter(|one| one["type"] == "InternalIP").find_map(|one| one["address"].as_str()).ok_or_else(
                || Status::internal(format!("no preferred addresses found for node {name:?}; known addresses: []")),
            )?;
        let port = node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64().unwrap_or(10_250);
        let port = u16::try_from(port).map_err(Status::internal)?;
        Ok(Some(Node { name: name.to_owned(), address: address.to_owned(), port }))
    }

    async fn connect(&self, core: &Core) -> Result<SendRequest<Empty<Bytes>>, Status> {
        let dial = async {
            let socket =
                TcpStream::connect((self.address.as_str(), self.port)).await.map_err(|error| self.failed(error))?;
            let _ = socket.set_nodelay(true);
            // The certificate is the node's own, whatever address it has today.
            let name = ServerName::try_from(self.name.clone()).map_err(Status::internal)?;
            let stream = TlsConnector::from(core.node_tls.clone())
                .connect(name, socket)
                .await
                .map_err(|error| self.failed(error))?;
            let (sender, connection) =
                http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.failed(error))?;
            tokio::spawn(async move {
                if let Err(error) = connection.with_upgrades().await {
                    tracing::debug!(%error, "connection to a node agent ended");
                }
            });
            Ok(sender)
        };
        match tokio::time::timeout(DIAL_TIMEOUT, dial).await {
            Ok(result) => result,
            Err(_) => Err(self.failed("timed out")),
        }
    }

    fn failed(&self, error: impl std::fmt::Display) -> Status {
        Status::internal(format!("error dialing backend: dial tcp {}:{}: {error}", self.address, self.port))
    }
}

/// The agent's refusal, with its own code where that is a client's fault.
async fn refusal(answer: Response<Incoming>) -> Status {
    let code = answer.status().as_u16();
    let body =
        Limited::new(answer.into_body(), MAX_REFUSAL).collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let text = String::from_utf8_lossy(&body).trim().to_owned();
    let message = match serde_json::from_slice::<Value>(&body) {
        Ok(status) if status["kind"] == "Status" => status["message"].as_str().unwrap_or_default().to_owned(),
        _ => text,
    };
    let mut status = match code {
        400..=499 => Status::bad_request(message),
        _ => Status::internal(message),
    };
    if code == 404 {
        status.reason = "NotFound";
        status.code = 404;
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::Registry;
    use serde_json::json;

    fn target() -> Target {
        let resource = Registry::builtin().resource("", "v1", "pods").unwrap().clone();
        Target { resource, namespace: "ns".into(), name: "p".into() }
    }

    #[test]
    fn paths_for_the_agent() {
        let pod = json!({"spec": {"containers": [{"name": "c"}]}});
        let info = |subresource: &str| RequestInfo { subresource: subresource.into(), ..RequestInfo::default() };
        let query = Query::parse("command=sh&command=-c&command=echo+a%26b&stdin=true&stdout=1&stderr=false&tty=true");
        assert_eq!(
            node_path(&pod, &target(), &info("exec"), &query).unwrap(),
            "/exec/ns/p/c?input=1&output=1&tty=1&command=sh&command=-c&command=echo%20a%26b"
        );
        assert!(node_path(&pod, &target(), &info("exec"), &Query::default()).is_err());
        assert_eq!(
            node_path(&pod, &target(), &info("portforward"), &Query::parse("ports=80")).unwrap(),
            "/portForward/ns/p?port=80"
        );
    }

    #[test]
    fn which_container() {
        let pod = json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]}});
        let message = container(&pod, &target(), None, true).unwrap_err().message;
        assert_eq!(
            message,
            "a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [i]"
        );
        assert_eq!(container(&pod, &target(), Some("i"), true).unwrap(), "i");
        assert_eq!(
            container(&pod, &target(), Some("x"), true).unwrap_err().message,
            "container x is not valid for pod p"
        );
    }
}
