//! One root follows another, and a root that is withdrawn takes what rests on it along.
mod support;

use diolkos_proxy::identity::trust::RootId;
use diolkos_proxy::identity::{Issuer, LocalIssuer, Signing};
use diolkos_proxy::{Config, Proxy};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use support::town::{self, say, talk};
use support::{Net, Node, curl, eventually, inside, under_load};

/// Two authorities, of which one signs.
struct Authorities {
    old: Arc<LocalIssuer>,
    new: LocalIssuer,
    switched: AtomicBool,
}

impl Issuer for Authorities {
    fn sign<'a>(&'a self, identity: &'a str, request_pem: String) -> Signing<'a> {
        if self.switched.load(Ordering::Relaxed) { &self.new } else { &*self.old }.sign(identity, request_pem)
    }
}

impl Authorities {
    fn generate() -> Arc<Authorities> {
        let issuer = || LocalIssuer::generate(3_600).unwrap();
        Arc::new(Authorities { old: Arc::new(issuer()), new: issuer(), switched: AtomicBool::new(false) })
    }

    fn start(self: &Arc<Self>) -> Node {
        let net = Net::new();
        let signer = self.clone();
        let started = inside(&net.node(), move || {
            let config = Config { node_name: "node".into(), workers: 2, ..Config::default() };
            let proxy = Proxy::start(config, signer.clone()).unwrap();
            proxy.shared.identities.set_roots([signer.old.root_pem()].into_iter());
            proxy
        });
        Node { proxy: Some(started.join().unwrap()), net, issuer: self.old.clone() }
    }
}

fn id(issuer: &LocalIssuer) -> RootId {
    RootId::of(&CertificateDer::from_pem_slice(issuer.root_pem().as_bytes()).unwrap())
}

#[test]
fn one_root_follows_another_without_a_failed_request() {
    need_root!("one_root_follows_another_without_a_failed_request");
    let authorities = Authorities::generate();
    let mut node = authorities.start();
    let client = town::settle(&mut node);
    let (old, new) = (authorities.old.root_pem(), authorities.new.root_pem());
    let stop = Arc::new(AtomicBool::new(false));
    let load = under_load(&client, &stop);
    let mut long = talk(&client);
    assert!(say(&mut long));
    let identities = node.proxy().shared.identities.clone();
    identities.set_roots([old, new].into_iter());
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(identities.rests_on(), [id(&authorities.old)].into(), "a root that is announced signs nothing");
    authorities.switched.store(true, Ordering::Relaxed);
    identities.set_roots([new, old].into_iter());
    eventually("all certificates are the new root's", || {
        identities.live().iter().all(|identity| identity.root() == Some(id(&authorities.new)))
    });
    std::thread::sleep(Duration::from_millis(500));
    assert!(identities.rests_on().contains(&id(&authorities.old)), "a connection is open that was opened before");
    let why = identities.rests_on_others(4);
    assert!(matches!(why.as_slice(), [one] if one.ends_with("ends of connections")), "{why:?}");
    assert!(say(&mut long), "and it goes on");
    drop(long);
    eventually("nothing rests on the old root", || identities.rests_on() == [id(&authorities.new)].into());
    assert!(identities.rests_on_others(4).is_empty());
    identities.set_roots([new].into_iter());
    std::thread::sleep(Duration::from_millis(300));
    stop.store(true, Ordering::Relaxed);
    let (answers, failures) = load.join().unwrap();
    assert!(failures.is_empty() && answers > 0, "{answers} answers, failures: {failures:?}");
}

#[test]
fn a_root_that_is_withdrawn_takes_along_what_rests_on_it() {
    need_root!("a_root_that_is_withdrawn_takes_along_what_rests_on_it");
    let authorities = Authorities::generate();
    let mut node = authorities.start();
    let client = town::settle(&mut node);
    let mut long = talk(&client);
    assert!(say(&mut long));
    assert!(curl(&client, &["http://10.96.0.50/a"]).starts_with("web GET /a"));
    // From one moment to the next, and nobody has certificates of the other root.
    let identities = node.proxy().shared.identities.clone();
    identities.set_roots([authorities.new.root_pem()].into_iter());
    assert!(!say(&mut long), "an open connection ends");
    let refused = curl(&client, &["-o", "/dev/null", "-w", "%{http_code}", "http://10.96.0.50/a"]);
    assert_eq!(refused, "503", "and no new one begins");
    eventually("nothing rests on the old root but certificates", || identities.anchors().resting().is_empty());
    authorities.switched.store(true, Ordering::Relaxed);
    eventually("with certificates of the new root all is well again", || {
        curl(&client, &["http://10.96.0.50/a"]).starts_with("web GET /a")
    });
}
