//! The dashboard's files, embedded by the build.

use bytes::Bytes;
use http::{Response, StatusCode, header};
use server::{Body, Extension, ExtensionRequest};

include!(concat!(env!("OUT_DIR"), "/assets.rs"));

/// Serves the dashboard's files on the dashboard's listener.
pub struct Dashboard;

impl Extension for Dashboard {
    fn takes(&self, path: &str, dashboard: bool) -> bool {
        dashboard && (path == "/" || path == "/index.html" || path.starts_with("/assets/"))
    }

    fn is_public(&self, _path: &str) -> bool {
        true
    }

    fn call(&self, request: ExtensionRequest) -> client::BoxFuture<'_, Response<Body>> {
        Box::pin(async move { file(&request.info.path) })
    }
}

fn file(path: &str) -> Response<Body> {
    let name = if path == "/" { "index.html" } else { path.trim_start_matches('/') };
    let found = ASSETS.iter().find(|(asset, _)| *asset == name);
    let (status, kind, bytes) = match found {
        Some((_, bytes)) => (StatusCode::OK, media_type(name), Bytes::from_static(bytes)),
        None if ASSETS.is_empty() => {
            let text = "This diolkos was built without its dashboard: run `cargo xtask web` and build it again.\n";
            (StatusCode::NOT_FOUND, "text/plain", Bytes::from_static(text.as_bytes()))
        }
        None => (StatusCode::NOT_FOUND, "text/plain", Bytes::from_static(b"not found\n")),
    };
    // Assets have their content's hash in their names; the page that names them must be asked for again.
    let caching = if name.starts_with("assets/") { "public, max-age=31536000, immutable" } else { "no-cache" };
    let policy = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'";
    Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, kind)
        .header(header::CACHE_CONTROL, caching)
        .header(header::CONTENT_SECURITY_POLICY, policy)
        .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
        .body(Body::from(bytes))
        .expect("status and headers are valid")
}

fn media_type(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("json") => "application/json",
        _ => "application/octet-stream",
    }
}
