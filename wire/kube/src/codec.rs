//! Bytes of a request -> the JSON value that Kubernetes would store, with what strict validation has to say about it.
//!
//! For Kubernetes' own kinds the result is what a Go server prints after decoding into its structs: unknown fields are gone, zero
//! values that `omitempty` drops are gone, quantities and times are in canonical form. JSON, YAML and protobuf bodies of one
//! object give one value. Custom resources are pruned by their schema instead.

pub mod conform;
mod kind;
pub mod parse;
pub mod protobuf;
mod quantity;
pub mod time;

pub use kind::Kind;
pub use quantity::canonical_quantity;
pub(crate) use quantity::quantity_billionths;

use crate::status::Status;
use serde_json::Value;

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `application/json`
    Json,
    /// `application/yaml`
    Yaml,
    /// `application/vnd.kubernetes.protobuf`
    Protobuf,
}

/// Media types of bodies, for the 415 answer.
pub const MEDIA_TYPES: &[&str] = &["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];

impl Format {
    /// Format of a `Content-Type`. None given, or the form type that HTTP libraries put there by themselves, is JSON; unknown: `None`.
    pub fn of_content_type(text: &str) -> Option<Format> {
        let kind = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match kind.as_str() {
            "" | "*/*" | "application/json" | "application/x-www-form-urlencoded" => Some(Format::Json),
            "application/yaml" | "text/yaml" | "application/x-yaml" => Some(Format::Yaml),
            "application/vnd.kubernetes.protobuf" => Some(Format::Protobuf),
            _ => None,
        }
    }
}

/// A decoded object.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// The object, with `apiVersion` and `kind`.
    pub value: Value,
    /// What `fieldValidation=Strict` refuses and `Warn` warns of: `unknown field "spec.foo"`, `duplicate field "spec.bar"`.
    pub problems: Vec<String>,
}

/// Why a body is no object of the kind. All are the sender's fault; sending the same again does not help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// No JSON, YAML or protobuf at all.
    #[error("{0}")]
    Malformed(String),
    /// A value has another type than its field.
    #[error("{0}")]
    Mismatch(String),
    /// The body names another kind or version than the path.
    #[error("{0}")]
    WrongKind(String),
}

impl DecodeError {
    /// The answer to the sender.
    pub fn to_status(&self, kind: &Kind<'_>) -> Status {
        match self {
            DecodeError::Malformed(detail) => Status::bad_request(format!(
                "the object provided is unrecognized (must be of type {}): couldn't get version/kind; json parse error: {detail}",
                kind.kind
            )),
            DecodeError::Mismatch(detail) => Status::bad_request(cannot_be_handled(kind, detail)),
            DecodeError::WrongKind(detail) => Status::bad_request(detail.clone()),
        }
    }
}

fn cannot_be_handled(kind: &Kind<'_>, detail: &str) -> String {
    format!("{0} in version {1:?} cannot be handled as a {0}: {detail}", kind.kind, kind.version)
}

impl Decoded {
    /// The refusal under `fieldValidation=Strict`, if there is anything to refuse.
    pub fn strict_status(&self, kind: &Kind<'_>) -> Option<Status> {
        (!self.problems.is_empty()).then(|| Status::bad_request(cannot_be_handled(kind, &strict_error(&self.problems))))
    }
}

/// `strict decoding error: unknown field "spec.foo", duplicate field "spec.bar"`.
pub fn strict_error(problems: &[String]) -> String {
    format!("strict decoding error: {}", problems.join(", "))
}

/// Decodes an object of a kind.
///
/// # Errors
/// See [`DecodeError`].
pub fn decode(kind: &Kind<'_>, format: Format, bytes: &[u8]) -> Result<Decoded, DecodeError> {
    let (value, duplicates) = match format {
        Format::Json => parse::json(bytes)?,
        Format::Yaml => parse::yaml(bytes)?,
        Format::Protobuf => (protobuf::decode(kind, bytes)?, Vec::new()),
    };
    let mut decoded = if format == Format::Protobuf && kind.custom.is_none() {
        Decoded { value: kind.stamp(value)?, problems: Vec::new() }
    } else {
        conform(kind, value)?
    };
    // Kubernetes reports duplicates as it meets them, unknown fields among them; the order tells nobody anything.
    decoded.problems.extend(duplicates);
    Ok(decoded)
}

/// Brings a value that came from elsewhere (the result of a patch) into the form of its kind.
///
/// # Errors
/// A value has a wrong type, or the object is of another kind.
pub fn conform(kind: &Kind<'_>, value: Value) -> Result<Decoded, DecodeError> {
    if !value.is_object() {
        let found = conform::json_kind(&value);
        return Err(DecodeError::Mismatch(format!(
            "json: cannot unmarshal {found} into Go value of type {}",
            kind.schema.go_type()
        )));
    }
    let value = kind.stamp(value)?;
    match kind.custom {
        Some(custom) => crate::crd::object::conform(custom, value),
        None => conform::conform(kind.schema, value),
    }
}
