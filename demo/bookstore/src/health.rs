//! `grpc.health.v1.Health/Check`, as far as a probe asks: the server as a whole, and its one service by name.

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use std::convert::Infallible;

/// The method's path.
pub const PATH: &str = "/grpc.health.v1.Health/Check";
/// `HealthCheckResponse{status: SERVING}` behind its gRPC prefix.
const SERVING: &[u8] = &[0, 0, 0, 0, 2, 0x08, 1];
/// A longer request names no service of ours.
const REQUEST_MAX: usize = 256;
const OK: &str = "0";
const NOT_FOUND: &str = "5";

/// Answers a check: SERVING for the whole and for `service`, NOT_FOUND for every other name.
pub async fn check(service: &str, body: Incoming) -> Response<BoxBody<Bytes, Infallible>> {
    let request = Limited::new(body, REQUEST_MAX).collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let known = request == asked_for("") || request == asked_for(service);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(if known { OK } else { NOT_FOUND }));
    let message = Bytes::from_static(if known { SERVING } else { b"" });
    let body = Full::new(message).with_trailers(async move { Some(Ok(trailers)) }).boxed();
    let mut response = Response::new(body);
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    response
}

/// `HealthCheckRequest{service}` behind its gRPC prefix; an empty name is not on the wire.
fn asked_for(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        message.put_u8(service.len() as u8);
        message.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::with_capacity(5 + message.len());
    framed.put_u8(0);
    framed.put_u32(message.len() as u32);
    framed.put_slice(&message);
    framed.freeze()
}
