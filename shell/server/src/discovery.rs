//! What is there: `/api`, `/apis` and below.

use crate::body::Body;
use crate::core::Core;
use crate::handler::Call;
use crate::negotiate::accept;
use crate::respond;
use http::Response;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue, VARY};
use kube::Status;
use kube::discovery;

/// Answers a discovery path.
///
/// # Errors
/// 404 for what is not registered.
pub fn answer(core: &Core, call: &Call, parts: &[&str]) -> Result<Response<Body>, Status> {
    let registry = core.registry.load();
    let wanted = call.headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let aggregated = wanted.into_iter().any(discovery::wants_aggregated);
    let value = match parts {
        ["api"] | ["apis"] if aggregated => {
            let document = discovery::aggregated(&registry, parts == ["api"]).to_string();
            let mut response = respond::json(200, document);
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(discovery::AGGREGATED));
            response.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
            return Ok(response);
        }
        ["api"] => {
            let address = format!("{}:{}", core.config.advertised(), core.port());
            Some(discovery::api_versions(&registry, &address))
        }
        ["apis"] => Some(discovery::api_groups(&registry)),
        ["api", version] => discovery::resources(&registry, "", version),
        ["apis", group] => discovery::api_group(&registry, group),
        ["apis", group, version] => discovery::resources(&registry, group, version),
        _ => None,
    };
    let value = value.ok_or_else(Status::no_such_path)?;
    Ok(respond::value(200, accept(&call.headers)?.encoding, &value))
}
