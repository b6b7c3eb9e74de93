//! Logs and tunnels, with a stand-in for the node agent that says what it was asked and then echoes.

mod common;

use common::{call, post};
use http::Method;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// Serves with the node's certificate; demands the API server's.
fn acceptor(dir: &Path) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(dir.join("pki/ca.crt")).unwrap()).unwrap();
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(
            vec![CertificateDer::from_pem_file(dir.join("pki/node.crt")).unwrap()],
            PrivateKeyDer::from_pem_file(dir.join("pki/node.key")).unwrap(),
        )
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

/// Accepts for ever: upgrades requests that ask for it and echoes; answers others with their own head.
async fn agent(listener: TcpListener, acceptor: TlsAcceptor) {
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            let mut stream = acceptor.accept(socket).await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let text = String::from_utf8(head).unwrap();
            let line = text.lines().next().unwrap().to_owned();
            if line.contains("/exec/") {
                assert!(text.to_lowercase().contains("sec-websocket-protocol: v5.channel.k8s.io"), "{text}");
                assert!(!text.to_lowercase().contains("authorization"), "credentials stop at the server");
                let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n";
                stream.write_all(answer.as_bytes()).await.unwrap();
                stream.write_all(line.as_bytes()).await.unwrap();
                let (mut reader, mut writer) = tokio::io::split(stream);
                let _ = tokio::io::copy(&mut reader, &mut writer).await;
            } else if line.contains("/containerLogs/") {
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{line}", line.len());
                stream.write_all(answer.as_bytes()).await.unwrap();
                stream.shutdown().await.unwrap();
            } else {
                stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 7\r\n\r\nno port").await.unwrap();
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_reach_the_agent_and_come_back() {
    let server = common::start("tunnel").await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(agent(listener, acceptor(&server.dir)));
    let admin = &server.admin;
    post(admin, "/api/v1/nodes", json!({"metadata": {"name": "n1"}})).await;
    let status = json!({"status": {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
    }});
    assert_eq!(call(admin, Method::PATCH, "/api/v1/nodes/n1/status", status).await.0, 200);
    let pods = "/api/v1/namespaces/default/pods";
    let pod =
        json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}});
    post(admin, pods, pod).await;

    let logs = admin
        .call(Method::GET, &format!("{pods}/p/log?follow=true&tailLines=3"), "", bytes::Bytes::new())
        .await
        .unwrap();
    assert_eq!(logs.body, "GET /containerLogs/default/p/c?follow=true&tailLines=3 HTTP/1.1");

    let headers = [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-protocol", "v5.channel.k8s.io"),
    ];
    let path = format!("{pods}/p/exec?command=sh&stdin=true&stdout=true&tty=true");
    let (head, mut stream) = admin.upgrade(&path, &headers).await.unwrap();
    assert_eq!(head.headers["sec-websocket-protocol"], "v5.channel.k8s.io");
    let expect = "GET /exec/default/p/c?input=1&output=1&tty=1&command=sh HTTP/1.1";
    let mut said = vec![0; expect.len()];
    stream.read_exact(&mut said).await.unwrap();
    assert_eq!(String::from_utf8(said).unwrap(), expect);
    let sent: Vec<u8> = (0..1 << 20).map(|i| (i % 253) as u8).collect();
    let (mut reader, mut writer) = tokio::io::split(stream);
    let copy = sent.clone();
    let sending = tokio::spawn(async move {
        writer.write_all(&copy).await.unwrap();
        writer
    });
    let mut got = vec![0; sent.len()];
    reader.read_exact(&mut got).await.unwrap();
    drop(sending.await.unwrap());
    assert!(got == sent, "a mebibyte comes back as it went");

    let role = json!({"metadata": {"name": "r"}, "rules": [{"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["get"]}]});
    post(admin, "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles", role).await;
    let binding = json!({"metadata": {"name": "r"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": "default"}]});
    post(admin, "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings", binding).await;
    let token = post(admin, "/api/v1/namespaces/default/serviceaccounts/default/token", json!({"spec": {}})).await;
    let reader = server.with_token(token["status"]["token"].as_str().unwrap());
    let refused = reader.upgrade(&path, &headers).await.err().unwrap();
    assert!(refused.message.contains(r#"cannot create resource "pods/exec""#), "{}", refused.message);

    let refused = admin.upgrade(&format!("{pods}/p/portforward?ports=80"), &headers).await.err().unwrap();
    assert_eq!((refused.code, refused.message.as_str()), (404, "no port"));
    let (code, plain) = call(admin, Method::GET, &format!("{pods}/p/exec?command=sh"), Value::Null).await;
    assert_eq!((code, plain["message"].as_str()), (400, Some("Upgrade request required")));
}
