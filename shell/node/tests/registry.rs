//! Pulling from a registry that asks for a password. Needs root; skipped by name without.

mod support;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use diolkos_node::image::ImageBuilder;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::Read;
use std::sync::Arc;
use support::{Node, pod, unfit};

type Files = BTreeMap<String, Vec<u8>>;

/// An image that mounts the machine's programs, as files of an OCI layout.
fn layout(name: &str) -> Files {
    let mut tar = Vec::new();
    let mut image = ImageBuilder::new(name).unwrap().directory("/usr", 0o755).env("PATH", "/usr/bin");
    for link in ["bin", "lib", "lib64"] {
        image = image.link(&format!("/{link}"), &format!("usr/{link}"));
    }
    image.cmd(["echo", "pulled"]).write(&mut tar).unwrap();
    let mut archive = tar::Archive::new(tar.as_slice());
    let mut files = Files::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        files.insert(entry.path().unwrap().display().to_string(), bytes);
    }
    files
}

/// The part of the distribution protocol that a pull needs.
fn serve(request: &Request<Incoming>, files: &Files) -> Response<Full<Bytes>> {
    let answer = |status: StatusCode, kind: &str, body: &[u8]| {
        let builder = Response::builder().status(status).header("content-type", kind);
        let body = if request.method() == http::Method::HEAD {
            builder.header("content-length", body.len()).body(Full::default())
        } else {
            builder.body(Full::from(body.to_vec()))
        };
        body.unwrap()
    };
    let password = format!("Basic {}", STANDARD.encode("robot:s3cret"));
    if request.headers().get("authorization").is_none_or(|value| value != password.as_str()) {
        let mut refusal = answer(StatusCode::UNAUTHORIZED, "application/json", b"{}");
        refusal.headers_mut().insert("www-authenticate", "Basic realm=\"test\"".parse().unwrap());
        return refusal;
    }
    let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
    let manifest = index["manifests"][0]["digest"].as_str().unwrap();
    let path = request.uri().path();
    let digest = if path.ends_with("/manifests/v1") { manifest } else { path.rsplit('/').next().unwrap() };
    let kind =
        if digest == manifest { "application/vnd.oci.image.manifest.v1+json" } else { "application/octet-stream" };
    match files.get(&format!("blobs/{}", digest.replace(':', "/"))) {
        Some(bytes) => {
            let mut found = answer(StatusCode::OK, kind, bytes);
            found.headers_mut().insert("docker-content-digest", digest.parse().unwrap());
            found
        }
        None => answer(StatusCode::NOT_FOUND, "application/json", b"{}"),
    }
}

async fn registry(port: u16, files: Files) {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let files = Arc::new(files);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let files = files.clone();
            let service = service_fn(move |request| {
                let files = files.clone();
                async move { Ok::<_, Infallible>(serve(&request, &files)) }
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn images_come_from_a_registry() {
    if let Some(reason) = unfit() {
        println!("SKIPPED images_come_from_a_registry: {reason}");
        return;
    }
    const PORT: u16 = 24090;
    let name = format!("127.0.0.1:{PORT}/team/app:v1");
    registry(PORT, layout(&name)).await;
    let node = Node::start(7, |_| {}).await;
    let auths = json!({"auths": {format!("127.0.0.1:{PORT}"): {"username": "robot", "password": "s3cret"}}});
    node.api.put(
        "secrets",
        &json!({
            "kind": "Secret", "type": "kubernetes.io/dockerconfigjson",
            "metadata": {"name": "registry", "namespace": "default"},
            "data": {".dockerconfigjson": STANDARD.encode(auths.to_string())},
        }),
    );
    let spec = |image: &str, secrets: Value| json!({"restartPolicy": "Never", "imagePullSecrets": secrets, "containers": [{"name": "c", "image": image}]});
    let waiting = |reason: &'static str| {
        move |pod: &Value| pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == reason
    };

    node.api.put("pods", &pod("stranger", &spec(&name, json!([]))));
    node.api.wait("stranger", "told to wait", waiting("ImagePullBackOff")).await;
    let events = node.api.events("stranger");
    assert!(events.iter().any(|e| e.starts_with("Failed: Failed to pull image") && e.contains("401")), "{events:#?}");
    assert!(events.contains(&format!("BackOff: Back-off pulling image \"{name}\"")), "{events:#?}");

    let absent = name.replace(":v1", ":v2");
    node.api.put("pods", &pod("absent", &spec(&absent, json!([{"name": "registry"}]))));
    let absent = node.api.wait("absent", "told to wait", waiting("ImagePullBackOff")).await;
    let message = absent["status"]["containerStatuses"][0]["state"]["waiting"]["message"].as_str().unwrap();
    assert!(message.starts_with("Back-off pulling image") && message.ends_with(":v2: not found"), "{message}");
    // Every pod waits for itself: this one has the password.
    node.api.put("pods", &pod("friend", &spec(&name, json!([{"name": "registry"}]))));
    node.api.wait_phase("friend", "Succeeded").await;
    assert_eq!(node.get("/containerLogs/default/friend/c").await.1, "pulled\n");
    let events = node.api.events("friend");
    assert!(events.iter().any(|e| e.starts_with("Pulled: Successfully pulled image")), "{events:#?}");
    node.stop().await;
}
