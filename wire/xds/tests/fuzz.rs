//! Messages of others: any bytes are refused or read, without harm. Longer: `PROPTEST_CASES=1000000 cargo test -p diolkos-xds --test fuzz --release`.
use bytes::Bytes;
use diolkos_xds as xds;
use model::mesh::ResourceKind;
use proptest::prelude::*;
use prost::Message;
use xds::catalog::Catalog;
use xds::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest};
use xds::session::{Client, Server, WholeServer};

const TYPE: &str = "type.diolkos.io/mesh.v1.Service";

/// Bytes that protobuf reads: fields of small numbers with texts, numbers and messages in them; and such that it does not.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let field = (
        1u8..16,
        prop_oneof![
            any::<u64>().prop_map(|number| (0u8, varint(number))),
            proptest::collection::vec(any::<u8>(), 0..24).prop_map(|bytes| (2, with_length(&bytes))),
            "[a-z./*-]{0,24}".prop_map(|text| (2, with_length(text.as_bytes()))),
            any::<u32>().prop_map(|number| (5, number.to_le_bytes().to_vec())),
        ],
    )
        .prop_map(|(number, (kind, bytes))| [vec![number << 3 | kind], bytes].concat());
    let flat = proptest::collection::vec(field, 0..8).prop_map(|fields| fields.concat());
    let nested = (flat.clone(), 1u8..16, flat.clone())
        .prop_map(|(inner, number, rest)| [vec![number << 3 | 2], with_length(&inner), rest].concat());
    prop_oneof![flat, nested, proptest::collection::vec(any::<u8>(), 0..64)]
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
    out
}

fn with_length(bytes: &[u8]) -> Vec<u8> {
    [varint(bytes.len() as u64), bytes.to_vec()].concat()
}

fn catalog() -> Catalog {
    let mut catalog = Catalog::default();
    catalog.declare(TYPE);
    for name in ["a/a", "a/b"] {
        catalog.set(TYPE, name, Some(Bytes::from_static(b"")));
    }
    catalog
}

proptest! {
    #[test]
    fn resources(bytes in message()) {
        for kind in ResourceKind::ALL {
            if let Ok(resource) = xds::convert::decode(kind, bytes.clone().into()) {
                // What was taken can be said again, and means the same.
                let again = xds::convert::decode(kind, xds::convert::encode(&resource));
                prop_assert_eq!(again.ok(), Some(resource));
            }
        }
    }

    #[test]
    fn requests_to_the_server(messages in proptest::collection::vec(message(), 1..5), known: bool) {
        let catalog = catalog();
        let (mut delta, mut whole) = (Server::new("x"), WholeServer::new("x"));
        for bytes in messages {
            if let Ok(mut request) = DeltaDiscoveryRequest::decode(&*bytes) {
                if known {
                    request.type_url = TYPE.into();
                }
                let _ = delta.receive(&catalog, request);
            }
            if let Ok(mut request) = DiscoveryRequest::decode(&*bytes) {
                if known {
                    request.type_url = TYPE.into();
                }
                let _ = whole.receive(&catalog, request);
            }
        }
    }

    #[test]
    fn responses_to_a_client(bytes in message()) {
        if let Ok(response) = DeltaDiscoveryResponse::decode(&*bytes) {
            let mut client = Client::new(Default::default());
            client.subscribe_all(TYPE);
            let _ = client.connected();
            if let Ok(received) = client.receive(response) {
                let _ = client.finish(&received, &[]);
            }
        }
    }

    #[test]
    fn answers_of_authorizers_and_limiters(bytes in message()) {
        let _ = xds::ext_authz::CheckResponse::decode(&*bytes);
        let _ = xds::rate_limit::RateLimitResponse::decode(&*bytes);
    }
}
