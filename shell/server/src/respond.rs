//! Answers.

use crate::body::Body;
use crate::negotiate::Encoding;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WARNING};
use http::{Response, StatusCode};
use kube::Status;
use serde_json::Value;

/// A response of a media type.
pub fn body(code: u16, media: &'static str, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// JSON bytes.
pub fn json(code: u16, bytes: impl Into<Body>) -> Response<Body> {
    body(code, "application/json", bytes)
}

/// A value in the encoding that was asked for.
pub fn value(code: u16, encoding: Encoding, value: &Value) -> Response<Body> {
    match encoding {
        Encoding::Json => json(code, value.to_string()),
        Encoding::Yaml => yaml(code, value),
    }
}

/// Encoded JSON in the encoding that was asked for.
pub fn encoded(code: u16, encoding: Encoding, bytes: Bytes) -> Response<Body> {
    match encoding {
        Encoding::Json => json(code, bytes),
        Encoding::Yaml => match serde_json::from_slice(&bytes) {
            Ok(value) => yaml(code, &value),
            Err(error) => status(&Status::internal(error)),
        },
    }
}

fn yaml(code: u16, value: &Value) -> Response<Body> {
    match serde_yaml_ng::to_string(value) {
        Ok(text) => body(code, "application/yaml", text),
        Err(error) => status(&Status::internal(error)),
    }
}

/// Plain text.
pub fn text(code: u16, text: impl Into<String>) -> Response<Body> {
    let mut response = body(code, "text/plain; charset=utf-8", text.into());
    response.headers_mut().insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

/// A Status.
pub fn status(status: &Status) -> Response<Body> {
    let mut response = json(status.code, status.to_bytes());
    if status.details.retry_after_s > 0 {
        response.headers_mut().insert(RETRY_AFTER, status.details.retry_after_s.into());
    }
    if status.code == 401 {
        response.headers_mut().insert("www-authenticate", HeaderValue::from_static("Bearer"));
    }
    response
}

/// Adds `Warning: 299` headers, which kubectl prints. At most 4 KiB of them.
pub fn warn(response: &mut Response<Body>, warnings: &[String]) {
    let mut room = 4096usize;
    for warning in warnings {
        let text: String = warning.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let text = text.replace('\\', "\\\\").replace('"', "\\\"");
        let Some(left) = room.checked_sub(text.len()) else { return };
        room = left;
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{text}\"").as_bytes()) {
            response.headers_mut().append(WARNING, value);
        }
    }
}
