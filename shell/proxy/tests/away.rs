//! The control plane is away for a part of certificates' lives: the hour of the issue, on certificates of seconds.
mod support;

use diolkos_proxy::identity::{IdentityError, Issuer, LocalIssuer, Signing};
use diolkos_proxy::{Config, Proxy};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use support::town::{self, say, talk};
use support::{Net, Node, curl, eventually, inside, under_load};

/// How long certificates live.
const LIFE_S: i64 = 12;

/// An authority that can be away.
struct Authority {
    local: Arc<LocalIssuer>,
    away: AtomicBool,
    refused: AtomicUsize,
    signed: AtomicUsize,
}

impl Issuer for Authority {
    fn sign<'a>(&'a self, identity: &'a str, request_pem: String) -> Signing<'a> {
        if self.away.load(Ordering::SeqCst) {
            self.refused.fetch_add(1, Ordering::SeqCst);
            return Box::pin(async { Err(IdentityError::Issuer("it is away".into())) });
        }
        self.signed.fetch_add(1, Ordering::SeqCst);
        self.local.sign(identity, request_pem)
    }
}

fn start() -> (Arc<Authority>, Node) {
    let local = Arc::new(LocalIssuer::generate(LIFE_S).unwrap());
    let (away, refused, signed) = Default::default();
    let authority = Arc::new(Authority { local: local.clone(), away, refused, signed });
    let (net, signer) = (Net::new(), authority.clone());
    let started = inside(&net.node(), move || {
        let config = Config { node_name: "node".into(), workers: 2, ..Config::default() };
        let proxy = Proxy::start(config, signer.clone()).unwrap();
        proxy.shared.identities.set_roots([signer.local.root_pem()].into_iter());
        proxy
    });
    let node = Node { proxy: Some(started.join().unwrap()), net, issuer: local };
    (authority, node)
}

/// Seconds until the first certificate ends.
fn left_s(node: &Node) -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
    node.proxy()
        .shared
        .identities
        .list()
        .iter()
        .filter_map(|(_, validity)| validity.map(|it| it.1 - now))
        .min()
        .unwrap()
}

#[test]
fn an_hour_without_control_plane() {
    need_root!("an_hour_without_control_plane");
    let (authority, mut node) = start();
    let client = town::settle(&mut node);
    let mut long = talk(&client);
    assert!(say(&mut long));
    let stop = Arc::new(AtomicBool::new(false));
    let load = under_load(&client, &stop);
    // Renewals were due and failed, and most of the rest of the certificates' lives is over, too.
    authority.away.store(true, Ordering::SeqCst);
    eventually("renewals are refused, and certificates near their ends", || {
        authority.refused.load(Ordering::SeqCst) > 2 && left_s(&node) <= LIFE_S / 4
    });
    let signed = authority.signed.load(Ordering::SeqCst);
    authority.away.store(false, Ordering::SeqCst);
    eventually("all are renewed", || left_s(&node) > LIFE_S / 2);
    assert!(authority.signed.load(Ordering::SeqCst) >= signed + 3);
    stop.store(true, Ordering::SeqCst);
    let (answers, failures) = load.join().unwrap();
    assert!(failures.is_empty() && answers > 0, "{answers} answers, failures: {failures:?}");
    assert!(say(&mut long), "a connection of before goes on");

    // It does not come back in time: what is open goes on, and nothing new begins.
    authority.away.store(true, Ordering::SeqCst);
    eventually("certificates are at their ends", || left_s(&node) < -1);
    assert!(say(&mut long), "what is open goes on");
    // It comes back: so does everything.
    authority.away.store(false, Ordering::SeqCst);
    eventually("requests are answered", || curl(&client, &["http://10.96.0.50/a"]).starts_with("web GET /a"));
    assert!(say(&mut long));
}
