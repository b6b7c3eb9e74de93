//! One root follows another.

use super::peer::{Certificate, Peer, Proxy};
use super::{Running, api, small};
use crate::mesh::MeshCa;
use crate::mesh::ca::Subject;
use control::trust::{Event, Limits, Phase, Standing};
use model::mesh::{Resource, ResourceKind};
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;
use xds::ca::{CREATE_CERTIFICATE_PATH, CertificateRequest, CertificateResponse};
use xds::trust::{REPORT_PATH, TrustReport, TrustReportResponse};
use xds::workload_api::{JwtSvidRequest, JwtSvidResponse, SIGN_JWT_PATH};

const LIMITS: Limits = Limits { root_age_s: None, leaf_ttl_s: 3_600 };

fn roots(proxy: &Proxy) -> Vec<String> {
    match proxy.get(ResourceKind::TrustBundle, "cluster.local") {
        Some(Resource::TrustBundle(bundle)) => bundle.roots.iter().map(ToString::to_string).collect(),
        _ => vec![],
    }
}

fn trust(running: &Running) -> Value {
    running.handle.report()["trust"].clone()
}

fn ids(running: &Running) -> Vec<String> {
    let trust = trust(running);
    let roots = trust["roots"].as_array().expect("roots");
    roots.iter().map(|root| root["sha256"].as_str().expect("an id").to_owned()).collect()
}

async fn report(peer: &Peer, trusted: &[String], rests_on: &[String]) {
    let report = TrustReport {
        process: 1,
        trusted: trusted.to_vec(),
        rests_on: rests_on.to_vec(),
        because: vec!["an end of a connection".into()],
    };
    let _: TrustReportResponse = peer.unary(REPORT_PATH, report).await.expect("is heard");
}

async fn signed_by(peer: &Peer) -> String {
    let identity = "spiffe://cluster.local/ns/default/sa/web";
    let request = CertificateRequest::on_behalf_of(Certificate::request().1, identity, 60);
    let answer: CertificateResponse = peer.unary(CREATE_CERTIFICATE_PATH, request).await.expect("is signed");
    answer.cert_chain.last().expect("a root").clone()
}

#[tokio::test]
async fn the_old_root_goes_when_every_proxy_can_do_without_it() {
    let running = Running::new(small()).await;
    let (one, two) = (running.node("n1").await, running.node("n2").await);
    let mut proxy = Proxy::new("n1");
    proxy.connect(running.node("n1").await).await;
    proxy.until("the first bundle", |proxy| roots(proxy).len() == 1).await;
    let old = roots(&proxy)[0].clone();
    running.handle.rotate_root().expect("begins");
    assert!(running.handle.rotate_root().is_err(), "one at a time");
    proxy.until("both roots", |proxy| roots(proxy).len() == 2).await;
    assert_eq!(
        (&roots(&proxy)[0], signed_by(&one).await),
        (&old, old.clone()),
        "the new one is trusted and does not sign"
    );
    let both = ids(&running);
    report(&one, &both, &both[..1]).await;
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    let now = trust(&running);
    assert_eq!(now["phase"], "announced");
    assert_eq!(now["waitingFor"], serde_json::json!([{ "proxy": "n2", "why": "says nothing of late" }]));
    report(&two, &both, &both[..1]).await;
    proxy.until("the other order", |proxy| roots(proxy).len() == 2 && roots(proxy)[1] == old).await;
    let new = roots(&proxy)[0].clone();
    assert_eq!(signed_by(&one).await, new);
    // One has renewed all, the other has a connection that rests on the old root.
    report(&one, &both, &both[1..]).await;
    report(&two, &both, &both).await;
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    let now = trust(&running);
    assert_eq!(now["phase"], "switched");
    let why = "rests on the old root: an end of a connection";
    assert_eq!(now["waitingFor"], serde_json::json!([{ "proxy": "n2", "why": why }]));
    report(&two, &both, &both[1..]).await;
    proxy.until("the new root alone", |proxy| roots(proxy) == [new.clone()]).await;
    assert_eq!(trust(&running)["phase"], "steady");
}

#[tokio::test]
async fn strangers_are_not_heard() {
    let running = Running::new(small()).await;
    let stranger = Peer::connect(running.address, &running.pki.ca_pem, None).await;
    let heard = stranger.unary::<_, TrustReportResponse>(REPORT_PATH, TrustReport::default()).await;
    assert_eq!(heard.expect_err("no certificate").code(), tonic::Code::Unauthenticated);
}

/// A directory of its own, gone afterwards.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        let dir = std::env::temp_dir().join(format!("diolkos-roots-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).expect("a directory");
        Dir(dir)
    }

    fn open(&self) -> MeshCa {
        MeshCa::open(&self.0, "td", LIMITS).expect("opens")
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_restart_goes_on_where_it_was() {
    let dir = Dir::new("restart");
    let look = |all_agree| Event::Looked(Standing { made_s: 0, all_agree });
    let first = dir.open().roots();
    assert!(dir.open().advance(Event::Asked, 100).expect("begins"));
    let ca = dir.open();
    assert_eq!((ca.phase(), ca.roots().len(), &ca.roots()[0]), (Phase::Announced { since_s: 100 }, 2, &first[0]));
    assert!(!ca.advance(look(false), 110).expect("waits"));
    assert!(ca.advance(look(true), 120).expect("switches"));
    let ca = dir.open();
    assert_eq!((ca.phase(), &ca.roots()[1]), (Phase::Switched { since_s: 120 }, &first[0]));
    let (_, csr) = Certificate::request();
    let chain =
        ca.sign(&csr, &Subject::Workload("spiffe://td/ns/a/sa/b".into()), Duration::from_secs(60)).expect("signs");
    assert_eq!((chain.len(), &chain[2]), (3, &ca.roots()[0]));
    // Nobody is heard of: the old one goes when no certificate under it can be valid.
    assert!(!ca.advance(look(false), 120 + 3_599).expect("waits"));
    assert!(ca.advance(look(false), 120 + 3_600).expect("withdraws"));
    let ca = dir.open();
    assert_eq!((ca.phase(), ca.roots().len()), (Phase::Steady, 1));
    assert_ne!(ca.roots(), first);
    assert_eq!(std::fs::read_to_string(dir.0.join("mesh-ca.crt")).expect("for readers"), ca.roots().concat());
}

#[test]
fn what_is_broken_is_said_and_not_replaced() {
    let dir = Dir::new("broken");
    drop(dir.open());
    let path = dir.0.join("mesh-ca.json");
    for text in
        ["{", r#"{"phase":{"name":"announced","sinceS":1},"roots":[],"intermediate":{"certificate":"","key":""}}"#]
    {
        std::fs::write(&path, text).expect("is written");
        let error = MeshCa::open(&dir.0, "td", LIMITS).err().expect("is refused").to_string();
        assert!(error.contains("mesh-ca.json is not usable"), "{error}");
    }
}

#[test]
fn an_earlier_version_s_root_is_taken_over() {
    let dir = Dir::new("earlier");
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let root = params.self_signed(&key).expect("a root").pem();
    std::fs::write(dir.0.join("mesh-ca.crt"), &root).expect("is written");
    assert!(MeshCa::open(&dir.0, "td", LIMITS).is_err(), "without its key");
    std::fs::write(dir.0.join("mesh-ca.key"), key.serialize_pem()).expect("is written");
    assert_eq!(dir.open().roots().as_slice(), std::slice::from_ref(&root));
    assert!(!dir.0.join("mesh-ca.key").exists(), "the key is in one place");
    assert_eq!(dir.open().roots(), [root]);
}

#[tokio::test]
async fn a_joined_host_is_waited_for_too() {
    let api = small();
    api.put(
        "workloadentries",
        serde_json::json!({
            "metadata": { "namespace": "default", "name": "inventory-box1", "annotations": { "diolkos.io/joined": "true", "diolkos.io/service": "inventory" } },
            "spec": { "address": "172.30.0.2", "ports": { "http": 9000 }, "serviceAccount": "inventory" },
        }),
    );
    let running = Running::new(api).await;
    running.handle.rotate_root().expect("begins");
    api::eventually("all are waited for", || {
        let trust = trust(&running);
        let waiting: Vec<_> = trust["waitingFor"].as_array().into_iter().flatten().map(|it| &it["proxy"]).collect();
        waiting == ["host/default/inventory-box1", "n1", "n2"]
    })
    .await;
}

#[tokio::test]
async fn tokens_are_signed_for_workloads_of_the_asking_node() {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
    use base64::Engine;
    use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
    let running = Running::new(small()).await;
    let peer = running.node("n1").await;
    let ask = |identity: &str, audience: &[&str]| {
        let audience = audience.iter().map(|it| (*it).to_owned()).collect();
        peer.unary::<_, JwtSvidResponse>(SIGN_JWT_PATH, JwtSvidRequest { audience, spiffe_id: identity.into() })
    };
    let own = "spiffe://cluster.local/ns/default/sa/web";
    let token = ask(own, &["me"]).await.expect("its own pod").svids.remove(0).svid;
    let (signed, signature) = token.rsplit_once('.').expect("three parts");
    let document = running.handle.bundle();
    let keys = document["keys"].as_array().expect("keys");
    let key = keys.iter().find(|key| key["use"] == "jwt-svid").expect("a key for tokens");
    let part = |name: &str| BASE64.decode(key[name].as_str().expect("a coordinate")).expect("base64");
    let point = [&[4][..], &part("x"), &part("y")].concat();
    let signature = BASE64.decode(signature).expect("base64");
    let verified = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(signed.as_bytes(), &signature);
    assert!(verified.is_ok(), "the published key verifies it");
    let claims = BASE64.decode(signed.split('.').nth(1).expect("claims")).expect("base64");
    let claims: Value = serde_json::from_slice(&claims).expect("JSON");
    assert_eq!((claims["sub"].as_str(), &claims["aud"]), (Some(own), &serde_json::json!(["me"])));
    let refused = ask("spiffe://cluster.local/ns/default/sa/king", &["me"]).await.expect_err("nobody's");
    assert_eq!(refused.code(), tonic::Code::PermissionDenied);
    assert_eq!(ask(own, &[]).await.expect_err("for nobody").code(), tonic::Code::InvalidArgument);
}
