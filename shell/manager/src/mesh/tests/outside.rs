//! What mesh control asks of the world outside: an issuer's keys over HTTP, names of DNS; and a policy's way through it.

use super::api::{self, MemoryApi};
use super::peer::Proxy;
use super::{Running, small};
use model::mesh::{Resource, ResourceKind};
use serde_json::json;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

async fn proxy_of(running: &Running) -> Proxy {
    let mut proxy = Proxy::new("n1");
    proxy.connect(running.node("n1").await).await;
    proxy.until("everything", |proxy| proxy.session.is_complete()).await;
    proxy
}

#[tokio::test]
async fn keys_of_an_issuer_are_fetched() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let port = listener.local_addr().expect("is bound").port();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 2_048];
            let length = stream.read(&mut head).await.unwrap_or(0);
            assert!(head[..length].starts_with(b"GET /keys HTTP/1.1"), "{}", String::from_utf8_lossy(&head[..length]));
            // It is not well at first.
            let answer = match count.fetch_add(1, Ordering::SeqCst) {
                0 => "HTTP/1.1 500 no\r\ncontent-length: 0\r\n\r\n".to_owned(),
                _ => {
                    let body = r#"{"keys":[{"kty":"EC","kid":"one"}]}"#;
                    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
                }
            };
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    let running = Running::new(small()).await;
    let mut proxy = proxy_of(&running).await;
    let rule = json!({ "issuer": "me", "jwksUri": format!("http://127.0.0.1:{port}/keys") });
    running.api.put(
        "requestauthentications",
        json!({ "metadata": { "namespace": "default", "name": "jwt" }, "spec": { "jwtRules": [rule] } }),
    );
    let keys = |proxy: &Proxy| match proxy.get(ResourceKind::RequestAuthentication, "default/jwt") {
        Some(Resource::RequestAuthentication(it)) => it.rules[0].jwks.to_string(),
        _ => "nothing".to_owned(),
    };
    proxy.until("the rule without keys", |proxy| keys(proxy).is_empty()).await;
    proxy.until("the keys", |proxy| keys(proxy).contains(r#""kid":"one""#)).await;
    assert!(asked.load(Ordering::SeqCst) >= 2, "what failed was tried again");
    api::eventually("the condition", || {
        let object = running.api.get_now("requestauthentications", "default", "jwt").unwrap_or_default();
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|it| it["type"] == "ResolvedRefs" && it["status"] == "True")
    })
    .await;
}

/// A name server that answers every question for an address with the ones it is told.
fn serve_dns(addresses: Arc<Mutex<Vec<Ipv4Addr>>>) {
    let socket = UdpSocket::bind("127.0.0.1:53").expect("the namespace is our own");
    std::thread::spawn(move || {
        let mut question = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut question) {
            let question = &question[..length];
            // RFC 1035: after the header a name, ended by an empty label, then type and class.
            let end = question[12..].iter().position(|byte| *byte == 0).map_or(length, |at| 12 + at + 5);
            let is_a = question[end - 4..end - 2] == [0, 1];
            let found = if is_a { addresses.lock().unwrap().clone() } else { Vec::new() };
            let mut answer = question[..2].to_vec();
            answer.extend([0x81, 0x80, 0, 1, 0, found.len() as u8, 0, 0, 0, 0]);
            answer.extend(&question[12..end]);
            for address in found {
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
                answer.extend(address.octets());
            }
            let _ = socket.send_to(&answer, from);
        }
    });
}

/// Runs this same test again in a network namespace whose resolver is ours. False: this is that run.
fn in_namespace(name: &str) -> bool {
    const INSIDE: &str = "DIOLKOS_TEST_IN_NAMESPACE";
    if std::env::var_os(INSIDE).is_some() {
        return false;
    }
    let ip = |arguments: &[&str]| Command::new("ip").args(arguments).output().is_ok_and(|it| it.status.success());
    let namespace = format!("dkm-{}", std::process::id());
    if !ip(&["netns", "add", &namespace]) {
        eprintln!("SKIPPED {name}: needs root and ip");
        return true;
    }
    let files = format!("/etc/netns/{namespace}");
    std::fs::create_dir_all(&files).expect("root may");
    std::fs::write(format!("{files}/resolv.conf"), "nameserver 127.0.0.1\noptions timeout:1\n").expect("root may");
    assert!(ip(&["-n", &namespace, "link", "set", "lo", "up"]));
    let own = std::env::current_exe().expect("a test has a file");
    let run = Command::new("ip")
        .args(["netns", "exec", &namespace])
        .arg(own)
        .args(["--exact", &format!("mesh::tests::outside::{name}"), "--nocapture"])
        .env(INSIDE, "1")
        .output();
    let _ = std::fs::remove_dir_all(&files);
    ip(&["netns", "del", &namespace]);
    let run = run.expect("it runs");
    let told = format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success() && told.contains("1 passed"), "{told}");
    true
}

#[tokio::test]
async fn names_of_entries_are_resolved() {
    if in_namespace("names_of_entries_are_resolved") {
        return;
    }
    let addresses = Arc::new(Mutex::new(vec![Ipv4Addr::new(192, 0, 2, 7)]));
    serve_dns(addresses.clone());
    let api: Arc<MemoryApi> = small();
    let running = Running::new(api).await;
    let mut proxy = proxy_of(&running).await;
    running.api.put(
        "serviceentries",
        json!({
            "metadata": { "namespace": "default", "name": "api" },
            "spec": { "hosts": ["api.example"], "resolution": "DNS", "ports": [{ "number": 443, "name": "tls", "protocol": "TLS" }] },
        }),
    );
    let endpoints = |proxy: &Proxy| -> Vec<IpAddr> {
        let names = proxy.names(ResourceKind::Endpoints);
        let groups = names.into_iter().filter_map(|name| match proxy.get(ResourceKind::Endpoints, name) {
            Some(Resource::Endpoints(group)) if group.service.name.contains("api") => Some(group.endpoints.clone()),
            _ => None,
        });
        groups.flatten().map(|endpoint| endpoint.address).collect()
    };
    proxy.until("the address", |proxy| endpoints(proxy) == [IpAddr::from([192, 0, 2, 7])]).await;
    // It moves, and the endpoints with it.
    *addresses.lock().unwrap() = vec![Ipv4Addr::new(192, 0, 2, 9), Ipv4Addr::new(192, 0, 2, 8)];
    let both = [IpAddr::from([192, 0, 2, 8]), IpAddr::from([192, 0, 2, 9])];
    proxy.until("the new addresses", |proxy| endpoints(proxy) == both).await;
    // A name that is not known any more keeps its addresses: the endpoints may well be alive.
    addresses.lock().unwrap().clear();
    tokio::time::sleep(Duration::from_secs(6)).await;
    proxy.turn(Duration::from_millis(50)).await;
    assert_eq!(endpoints(&proxy), both);
}

#[tokio::test]
async fn a_traffic_policy_is_told_and_answered() {
    let running = Running::new(small()).await;
    let mut proxy = proxy_of(&running).await;
    let policy = |name: &str, created: &str| {
        json!({
            "metadata": { "namespace": "default", "name": name, "generation": 2, "creationTimestamp": created },
            "spec": {
                "targetRefs": [{ "kind": "Service", "name": "web" }],
                "rateLimit": { "local": [{ "requests": 5, "unit": "Minute" }] },
            },
        })
    };
    running.api.put("trafficpolicies", policy("old", "2026-01-01T00:00:00Z"));
    running.api.put("trafficpolicies", policy("new", "2026-01-02T00:00:00Z"));
    proxy.until("the older one", |proxy| proxy.names(ResourceKind::AttachedPolicy) == ["default/old"]).await;
    let reason = |name: &str| {
        let object = running.api.get_now("trafficpolicies", "default", name).unwrap_or_default();
        object["status"]["conditions"][0]["reason"].as_str().unwrap_or_default().to_owned()
    };
    api::eventually("conditions", || (reason("old"), reason("new")) == ("Accepted".into(), "Conflicted".into())).await;
    running.api.delete("trafficpolicies", "default", "old");
    proxy.until("the other one", |proxy| proxy.names(ResourceKind::AttachedPolicy) == ["default/new"]).await;
    api::eventually("its turn", || reason("new") == "Accepted").await;
}
