//! `/openapi/v2` and `/openapi/v3`: made when somebody asks, since few do.

use crate::body::Body;
use crate::core::Core;
use crate::handler::Call;
use crate::respond;
use http::Response;
use http::header::{ACCEPT, CACHE_CONTROL, HeaderValue};
use kube::{Status, openapi};

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
                return Err(Status::not_acceptable(&["application/json"]));
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
