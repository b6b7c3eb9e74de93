//! The SPIFFE Workload API, asked by a process in a pod's control group and by one that is in none. One test: it moves this process.
mod support;

use diolkos_proxy::identity::spiffe;
use diolkos_proxy::{Callers, WorkloadApi};
use rustls::pki_types::CertificateDer;
use std::path::{Path, PathBuf};
use std::time::Duration;
use support::frames::Outcome;
use support::spiffe::{Peer, bundle as spiffe_bundle};
use support::{Node, frames};
use tonic::{Code, Request};
use xds::workload_api::*;

/// A control group as the node agent names a pod's; this process is in it as long as the value lives.
struct Group(PathBuf, PathBuf);

impl Group {
    fn enter(uid: &str) -> Option<Group> {
        let root = [Path::new("/sys/fs/cgroup"), Path::new("/sys/fs/cgroup/cpu")];
        let root = root.into_iter().find(|path| path.join("cgroup.procs").exists())?.to_owned();
        let group = root.join(format!("diolkos-test-{}/pod{uid}", std::process::id()));
        std::fs::create_dir_all(&group).ok()?;
        std::fs::write(group.join("cgroup.procs"), std::process::id().to_string()).ok()?;
        Some(Group(root, group))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = std::fs::write(self.0.join("cgroup.procs"), std::process::id().to_string());
        let _ = std::fs::remove_dir(&self.1);
        let _ = self.1.parent().map(std::fs::remove_dir);
    }
}

/// What becomes of a call that names the socket as gRPC's C core does. Blocks for an answer that comes from another thread.
fn from_c_core(socket: &Path) -> Outcome {
    let stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut peer = frames::Peer::open(stream);
    let fields = [
        (":path", FETCH_X509_SVID),
        (":authority", "run%2Fspiffe%2Fworkload%2Fapi.sock"),
        (":method", "POST"),
        (":scheme", "http"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        (SECURITY_HEADER, "true"),
    ];
    peer.send(&frames::frame(frames::HEADERS, frames::END_HEADERS, 1, &frames::block(&fields)));
    peer.send(&frames::frame(frames::DATA, frames::END_STREAM, 1, &[0; 5]));
    peer.outcome()
}

#[test]
fn a_pods_process_gets_its_pods_identity_and_nobody_else_any() {
    need_root!("a_pods_process_gets_its_pods_identity_and_nobody_else_any");
    let socket = std::env::temp_dir().join(format!("diolkos-workload-{}/api.sock", std::process::id()));
    let at = socket.clone();
    // Certificates live six seconds: one is renewed while the test looks.
    let mut node = Node::start_with(6, move |config| {
        config.workload_api = Some(WorkloadApi { socket: at, callers: Callers::Pods })
    });
    node.pod(5, "client");
    let root = node.issuer.root_pem().to_owned();
    node.proxy().apply([spiffe_bundle("cluster.local", &root), spiffe_bundle("partner", &root)]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stranger = Peer::connect(&socket).await;
        let refused = stranger.stream::<_, X509SvidResponse>(FETCH_X509_SVID, Peer::request(X509SvidRequest {})).await;
        assert_eq!(refused.err().map(|status| status.code()), Some(Code::PermissionDenied), "a process of no pod");
        assert_eq!(from_c_core(&socket), Outcome::Answered(1, 200), "a socket's path as the authority");
        let Some(group) = Group::enter("uid-5") else {
            return eprintln!("SKIPPED the rest of a_pods_process_gets_its_pods_identity: no control groups here");
        };
        let peer = Peer::connect(&socket).await;
        let bare = peer.stream::<_, X509SvidResponse>(FETCH_X509_SVID, Request::new(X509SvidRequest {})).await;
        assert_eq!(bare.err().map(|status| status.code()), Some(Code::InvalidArgument), "without the header");
        // Who asks was found when the connection was accepted, and it was before the answer.
        drop(group);
        let svids = peer.stream::<_, X509SvidResponse>(FETCH_X509_SVID, Peer::request(X509SvidRequest {})).await;
        let mut svids = svids.unwrap();
        let first = svids.message().await.unwrap().unwrap();
        let svid = &first.svids[0];
        assert_eq!(svid.spiffe_id, "spiffe://cluster.local/ns/default/sa/client");
        let leaf = CertificateDer::from(svid.x509_svid.clone());
        assert_eq!(spiffe::of_certificate(&leaf).as_deref(), Some(&*svid.spiffe_id));
        assert!(rcgen::KeyPair::try_from(svid.x509_svid_key.as_slice()).is_ok(), "the key is PKCS #8");
        assert_eq!(first.federated_bundles.keys().collect::<Vec<_>>(), ["spiffe://partner"]);
        let next = tokio::time::timeout(Duration::from_secs(20), svids.message()).await.unwrap().unwrap().unwrap();
        assert_ne!(next.svids[0].x509_svid, svid.x509_svid, "the renewed certificate is told");
        let bundles =
            peer.stream::<_, X509BundlesResponse>(FETCH_X509_BUNDLES, Peer::request(X509BundlesRequest {})).await;
        let bundles = bundles.unwrap().message().await.unwrap().unwrap().bundles;
        assert_eq!(bundles["spiffe://cluster.local"], svid.bundle);
        let keys = peer.stream::<_, JwtBundlesResponse>(FETCH_JWT_BUNDLES, Peer::request(JwtBundlesRequest {})).await;
        assert_eq!(keys.unwrap().message().await.unwrap().unwrap().bundles.len(), 2);
        let other = JwtSvidRequest {
            audience: vec!["a".into()],
            spiffe_id: "spiffe://cluster.local/ns/default/sa/king".into(),
        };
        let refused = peer.unary::<_, JwtSvidResponse>(FETCH_JWT_SVID, other).await;
        assert_eq!(refused.err().map(|status| status.code()), Some(Code::PermissionDenied), "another's identity");
        let nobody = JwtSvidRequest::default();
        let refused = peer.unary::<_, JwtSvidResponse>(FETCH_JWT_SVID, nobody).await;
        assert_eq!(refused.err().map(|status| status.code()), Some(Code::InvalidArgument), "no audience");
        let forged = ValidateJwtSvidRequest { audience: "a".into(), svid: "a.b.c".into() };
        let refused = peer.unary::<_, ValidateJwtSvidResponse>(VALIDATE_JWT_SVID, forged).await;
        assert_eq!(refused.err().map(|status| status.code()), Some(Code::InvalidArgument));
    });
}
