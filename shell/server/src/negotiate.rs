//! What the client can read, and what it wrote.

use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE};
use kube::Status;

/// How an answer is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// `application/json`.
    Json,
    /// `application/yaml`.
    Yaml,
}

/// What an answer shows of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// All of it.
    Whole,
    /// `metav1.Table`.
    Table,
    /// `metav1.PartialObjectMetadata`.
    Metadata,
}

/// What the Accept header settled on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Encoding.
    pub encoding: Encoding,
    /// View.
    pub view: View,
}

const SERVED: &[&str] = &["application/json", "application/yaml"];

/// The first entry of Accept that we can serve, in the client's order of preference. (Clients of Kubernetes list what they want most
/// first and give no weights; a weight of 0 excludes.)
///
/// # Errors
/// 406 when there is none.
pub fn accept(headers: &HeaderMap) -> Result<Accepted, Status> {
    let whole = Accepted { encoding: Encoding::Json, view: View::Whole };
    let mut asked = false;
    for header in headers.get_all(ACCEPT) {
        let Ok(text) = header.to_str() else { continue };
        for entry in text.split(',').filter(|entry| !entry.trim().is_empty()) {
            asked = true;
            if let Some(accepted) = entry_of(entry) {
                return Ok(accepted);
            }
        }
    }
    if asked { Err(Status::not_acceptable(SERVED)) } else { Ok(whole) }
}

fn entry_of(entry: &str) -> Option<Accepted> {
    let mut parts = entry.split(';').map(str::trim);
    let encoding = match parts.next()?.to_ascii_lowercase().as_str() {
        "application/json" | "*/*" | "application/*" => Encoding::Json,
        "application/yaml" | "application/x-yaml" | "text/yaml" => Encoding::Yaml,
        _ => return None,
    };
    let mut view = View::Whole;
    for part in parts {
        match part.split_once('=') {
            Some(("as", "Table")) => view = View::Table,
            Some(("as", "PartialObjectMetadata" | "PartialObjectMetadataList")) => view = View::Metadata,
            Some(("as", _)) => return None,
            // The beta form of tables is long gone; a client that asks for it has a fallback in its list.
            Some(("v", version)) if version != "v1" => return None,
            Some(("q", weight)) if weight.parse::<f32>().is_ok_and(|weight| weight == 0.0) => return None,
            _ => {}
        }
    }
    Some(Accepted { encoding, view })
}

/// The body's media type without parameters; an absent one means JSON.
pub fn content_type(headers: &HeaderMap) -> String {
    let text = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if media.is_empty() { "application/json".to_owned() } else { media }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(accept_header: &str, expect: Result<(Encoding, View), u16>) {
        let mut headers = HeaderMap::new();
        if !accept_header.is_empty() {
            headers.insert(ACCEPT, accept_header.parse().unwrap());
        }
        let got = accept(&headers).map(|accepted| (accepted.encoding, accepted.view)).map_err(|status| status.code);
        assert_eq!(got, expect);
    }

    #[test]
    fn negotiation() {
        use Encoding::{Json, Yaml};
        use View::{Metadata, Table, Whole};
        check("", Ok((Json, Whole)));
        check("*/*", Ok((Json, Whole)));
        check("application/vnd.kubernetes.protobuf,application/json", Ok((Json, Whole)));
        check(
            "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
            Ok((Json, Table)),
        );
        check("application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json", Ok((Json, Whole)));
        check(
            "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json",
            Ok((Json, Metadata)),
        );
        check("application/yaml", Ok((Yaml, Whole)));
        check("text/html", Err(406));
        check("application/vnd.kubernetes.protobuf", Err(406));
    }
}
