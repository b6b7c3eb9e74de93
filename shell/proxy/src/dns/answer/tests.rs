use super::*;
use model::Key;
use model::mesh::{EndpointGroup, Resource, Service, ServicePort};
use std::sync::Arc;

fn endpoint(last: u8, health: Health, hostname: &str) -> Endpoint {
    Endpoint { health, hostname: hostname.into(), ..Endpoint::at([10, 244, 0, last].into()) }
}

fn directory() -> Directory {
    let mut directory = Directory::new();
    let mut add = |name: &str, vip: Option<u8>, external: Option<&str>, endpoints: Vec<Endpoint>| {
        let key = Key::new("shop", name);
        directory.set(Resource::Service(Arc::new(Service {
            key: key.clone(),
            vips: vip.map(|last| IpAddr::from([10, 96, 0, last])).into_iter().collect(),
            hostnames: vec![format!("{name}.shop.svc.cluster.local").into()],
            ports: vec![ServicePort { port: 80, name: "http".into(), ..ServicePort::default() }],
            headless: vip.is_none() && external.is_none(),
            external_name: external.map(Into::into),
            ..Service::default()
        })));
        directory.set(Resource::Endpoints(Arc::new(EndpointGroup {
            key: key.clone(),
            service: key,
            ports: vec![("http".into(), 8080)],
            endpoints,
        })));
    };
    add("web", Some(20), None, vec![endpoint(5, Health::Ready, "")]);
    let pods = vec![endpoint(6, Health::Ready, "db-0"), endpoint(7, Health::NotReady, "db-1")];
    add("db", None, None, pods);
    add("outside", None, Some("example.com"), vec![]);
    add("inside", None, Some("web.shop.svc.cluster.local"), vec![]);
    directory
}

fn ask(name: &str, kind: RecordType) -> String {
    let query = Query::query(Name::from_str(name).unwrap(), kind);
    match (Zone { domain: "cluster.local", namespace: "shop" }).answer(&directory(), &query) {
        Answered::NotOurs => "forward".into(),
        Answered::Alias(_, target) => format!("alias {target}"),
        Answered::Records(records) => {
            records.iter().map(|record| record.data.to_string()).collect::<Vec<_>>().join(", ")
        }
        Answered::Nothing { exists: true, .. } => "nodata".into(),
        Answered::Nothing { exists: false, .. } => "nxdomain".into(),
    }
}

#[test]
fn names() {
    use RecordType::{A, AAAA, CNAME, PTR, SRV};
    for (name, kind, expect) in [
        ("web.shop.svc.cluster.local.", A, "10.96.0.20"),
        ("WEB.Shop.svc.cluster.local.", A, "10.96.0.20"),
        ("web.shop.svc.cluster.local.", AAAA, "nodata"),
        ("none.shop.svc.cluster.local.", A, "nxdomain"),
        ("db.shop.svc.cluster.local.", A, "10.244.0.6"),
        ("db-0.db.shop.svc.cluster.local.", A, "10.244.0.6"),
        ("db-1.db.shop.svc.cluster.local.", A, "nxdomain"),
        ("10-244-0-5.web.shop.svc.cluster.local.", A, "10.244.0.5"),
        ("_http._tcp.web.shop.svc.cluster.local.", SRV, "0 100 80 web.shop.svc.cluster.local."),
        ("_http._tcp.db.shop.svc.cluster.local.", SRV, "0 100 8080 db-0.db.shop.svc.cluster.local."),
        ("_http._udp.web.shop.svc.cluster.local.", SRV, "nxdomain"),
        ("outside.shop.svc.cluster.local.", A, "alias example.com."),
        ("outside.shop.svc.cluster.local.", CNAME, "example.com."),
        ("inside.shop.svc.cluster.local.", A, "web.shop.svc.cluster.local., 10.96.0.20"),
        ("example.com.shop.svc.cluster.local.", A, "nxdomain"),
        ("example.com.cluster.local.", A, "nxdomain"),
        ("shop.svc.cluster.local.", A, "nodata"),
        ("cluster.local.", A, "nodata"),
        ("10-1-2-3.shop.pod.cluster.local.", A, "10.1.2.3"),
        ("notcluster.local.", A, "forward"),
        ("example.com.", A, "forward"),
        ("20.0.96.10.in-addr.arpa.", PTR, "web.shop.svc.cluster.local."),
        ("1.1.1.1.in-addr.arpa.", PTR, "forward"),
    ] {
        assert_eq!(ask(name, kind), expect, "{name} {kind}");
    }
}

proptest::proptest! {
    /// Whatever is asked, there is an answer or a refusal: bytes that are nearly a question, and names that are nearly ours.
    #[test]
    fn any_question(
        bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..80),
        labels in proptest::collection::vec("[a-zA-Z0-9_*-]{1,12}", 0..8),
        ending in 0usize..4,
        kind: u16,
    ) {
        use hickory_proto::op::Message;
        let directory = directory();
        let zone = Zone { domain: "cluster.local", namespace: "shop" };
        if let Ok(message) = Message::from_vec(&bytes) {
            message.queries.iter().for_each(|query| drop(zone.answer(&directory, query)));
        }
        let ending = ["svc.cluster.local.", "web.shop.svc.cluster.local.", "in-addr.arpa.", ""][ending];
        if let Ok(name) = Name::from_str(&format!("{}.{ending}", labels.join("."))) {
            drop(zone.answer(&directory, &Query::query(name, RecordType::from(kind))));
        }
    }
}
