//! `/openapi/v2` and `/openapi/v3`: made when somebody asks, since few do.

use crate::body::Body;
use crate::core::Core;
use crate::handler::Call;
use crate::respond;
use http::Response;
use http::header::{ACCEPT, CACHE_CONTROL, HeaderValue};
use kube::{Status, openapi};

const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
/// The same as a media type that parsers of media types accept; what kube-apiserver answers with.
const PROTOBUF_ANSWER: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// The version 2 document in protobuf, without definitions. kubectl asks for it only when version 3 does not know a kind, and takes
/// "not found here either" as "validate on the server"; a refusal instead would end its command.
fn empty_document() -> Vec<u8> {
    let text = |field: u8, text: &str| {
        let mut out = vec![field << 3 | 2, text.len() as u8];
        out.extend_from_slice(text.as_bytes());
        out
    };
    let info = [text(1, "Kubernetes"), text(2, "v1.37.0")].concat();
    let mut document = text(1, "2.0");
    document.extend([2 << 3 | 2, info.len() as u8]);
    document.extend(info);
    document
}

/// Answers a document.
///
/// # Errors
/// 404 for a group version that is not registered; 406 for who reads protobuf only.
pub fn answer(core: &Core, call: &Call, parts: &[&str]) -> Result<Response<Body>, Status> {
    let registry = core.registry.load();
    match parts {
        ["openapi", "v2"] => {
            let wanted = call.headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("*/*");
            if !wanted.contains("json") && !wanted.contains("*/*") {
                return if wanted.contains(PROTOBUF) {
                    Ok(respond::body(200, PROTOBUF_ANSWER, empty_document()))
                } else {
                    Err(Status::not_acceptable(&["application/json", PROTOBUF]))
                };
            }
            Ok(respond::json(200, openapi::v2(&registry).to_string()))
        }
        ["openapi", "v3"] => Ok(respond::json(200, openapi::index(&registry).to_string())),
        ["openapi", "v3", path @ ..] => {
            let path = path.join("/");
            let (group, version) = openapi::parse_path(&path).ok_or_else(Status::no_such_path)?;
            let document = openapi::v3(&registry, group, version).ok_or_else(Status::no_such_path)?;
            let mut response = respond::json(200, document.to_string());
            if call.query.get("hash").is_some_and(|hash| hash == openapi::hash(&registry, group, version)) {
                response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
            }
            Ok(response)
        }
        _ => Err(Status::no_such_path()),
    }
}
