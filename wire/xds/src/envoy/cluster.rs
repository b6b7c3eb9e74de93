//! Clusters and their endpoints.
use super::message::{Message, address, ads};
use bytes::Bytes;
use std::net::SocketAddr;

const HTTP_OPTIONS: &str = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// `envoy.config.cluster.v3.Cluster` whose endpoints come on the same stream. `http2`: what is spoken to them.
pub fn cluster(name: &str, http2: bool) -> Bytes {
    // explicit_http_config { http2_protocol_options | http_protocol_options }
    let options = Message::new().child(3, Message::new().child(if http2 { 2 } else { 1 }, Message::new()));
    let options =
        Message::new().text(1, "envoy.extensions.upstreams.http.v3.HttpProtocolOptions").any(2, HTTP_OPTIONS, options);
    Message::new()
        .text(1, name)
        // type EDS, eds_cluster_config, connect_timeout, lb_policy ROUND_ROBIN: the one that gRPC knows, too
        .number(2, 3)
        .child(3, Message::new().child(1, ads()))
        .duration_ms(4, 4_000)
        .number(6, 0)
        .child(36, options)
        .finish()
}

/// A cluster whose endpoint is wherever a captured connection was going.
pub fn passthrough(name: &str) -> Bytes {
    // type ORIGINAL_DST, lb_policy CLUSTER_PROVIDED
    Message::new().text(1, name).number(2, 4).duration_ms(4, 4_000).number(6, 6).finish()
}

/// `envoy.config.endpoint.v3.ClusterLoadAssignment`. Endpoints with zone and weight, sorted by zone.
pub fn assignment<'a>(cluster: &str, endpoints: impl IntoIterator<Item = (&'a str, SocketAddr, u32)>) -> Bytes {
    let mut zones: Vec<(&str, Vec<Message>)> = Vec::new();
    for (zone, at, weight) in endpoints {
        let endpoint = Message::new().child(1, address(&at.ip().to_string(), at.port()));
        // endpoint, health_status HEALTHY, load_balancing_weight
        let endpoint = Message::new().child(1, endpoint).number(2, 1).wrapped(4, u64::from(weight.max(1)));
        match zones.last_mut() {
            Some((last, endpoints)) if *last == zone => endpoints.push(endpoint),
            _ => zones.push((zone, vec![endpoint])),
        }
    }
    let localities = zones.into_iter().map(|(zone, endpoints)| {
        let weight = endpoints.len() as u64;
        // locality { zone }, lb_endpoints, load_balancing_weight
        Message::new().child(1, Message::new().text(2, zone)).children(2, endpoints).wrapped(3, weight)
    });
    Message::new().text(1, cluster).children(2, localities).finish()
}
