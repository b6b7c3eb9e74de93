//! `metav1.Status`: the answer that every refusal of a Kubernetes API has, worded as kube-apiserver words it.

use serde_json::{Value, json};
use std::fmt;

/// A Status answer with reason, message and causes.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// HTTP status.
    pub code: u16,
    /// `NotFound`, `Conflict`, ...; empty on success.
    pub reason: &'static str,
    /// For a person.
    pub message: String,
    /// What it is about.
    pub details: Details,
}

/// `Status.details`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Details {
    /// Object's name.
    pub name: String,
    /// API group of `kind`.
    pub group: String,
    /// Resource's plural, or its kind for `Invalid`, as kube-apiserver has it.
    pub kind: String,
    /// Object's uid.
    pub uid: String,
    /// One entry for each field at fault.
    pub causes: Vec<Cause>,
    /// `Retry-After` in seconds, 0 for none.
    pub retry_after_s: u32,
}

/// One fault of a field (`StatusCause`, `field.Error`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cause {
    /// `FieldValueRequired`, `FieldValueInvalid`, ...
    pub reason: &'static str,
    /// `spec.containers[0].name`.
    pub field: String,
    /// Without the field's name: `Required value`, `Invalid value: 0: must be greater than 0`.
    pub message: String,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() { f.write_str(&self.message) } else { write!(f, "{}: {}", self.field, self.message) }
    }
}

fn with_detail(head: String, detail: &str) -> String {
    if detail.is_empty() { head } else { format!("{head}: {detail}") }
}

/// A value as `field.Error` prints it: text quoted, objects as JSON.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::String(text) => format!("{text:?}"),
        other => other.to_string(),
    }
}

impl Cause {
    /// The field must have a value.
    pub fn required(field: impl Into<String>, detail: impl AsRef<str>) -> Self {
        let message = with_detail("Required value".to_owned(), detail.as_ref());
        Cause { reason: "FieldValueRequired", field: field.into(), message }
    }
    /// The value is malformed or out of range.
    pub fn invalid(field: impl Into<String>, value: &Value, detail: impl AsRef<str>) -> Self {
        let message = with_detail(format!("Invalid value: {}", shown(value)), detail.as_ref());
        Cause { reason: "FieldValueInvalid", field: field.into(), message }
    }
    /// The value has a wrong type.
    pub fn type_invalid(field: impl Into<String>, value: &Value, detail: impl AsRef<str>) -> Self {
        Cause { reason: "FieldValueTypeInvalid", ..Cause::invalid(field, value, detail) }
    }
    /// The value is none of those that are known.
    pub fn not_supported<'a>(
        field: impl Into<String>,
        value: &Value,
        known: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let known: Vec<String> = known.into_iter().map(|value| format!("{value:?}")).collect();
        let detail = if known.is_empty() { String::new() } else { format!("supported values: {}", known.join(", ")) };
        let message = with_detail(format!("Unsupported value: {}", shown(value)), &detail);
        Cause { reason: "FieldValueNotSupported", field: field.into(), message }
    }
    /// Another item of the list has the value.
    pub fn duplicate(field: impl Into<String>, value: &Value) -> Self {
        Cause {
            reason: "FieldValueDuplicate",
            field: field.into(),
            message: format!("Duplicate value: {}", shown(value)),
        }
    }
    /// The field may not be set or changed here.
    pub fn forbidden(field: impl Into<String>, detail: impl AsRef<str>) -> Self {
        let message = with_detail("Forbidden".to_owned(), detail.as_ref());
        Cause { reason: "FieldValueForbidden", field: field.into(), message }
    }
    /// What the field refers to does not exist.
    pub fn not_found(field: impl Into<String>, value: &Value) -> Self {
        Cause { reason: "FieldValueNotFound", field: field.into(), message: format!("Not found: {}", shown(value)) }
    }
    /// Text longer than allowed. The value itself is not echoed, as kube-apiserver does not.
    pub fn too_long(field: impl Into<String>, max: usize) -> Self {
        let bytes = if max == 1 { "byte" } else { "bytes" };
        let message = format!("Too long: may not be more than {max} {bytes}");
        Cause { reason: "FieldValueTooLong", field: field.into(), message }
    }
    /// A list or map with more items than allowed.
    pub fn too_many(field: impl Into<String>, actual: usize, max: usize) -> Self {
        let items = if max == 1 { "item" } else { "items" };
        let message = format!("Too many: {actual}: must have at most {max} {items}");
        Cause { reason: "FieldValueTooMany", field: field.into(), message }
    }
}

/// `pods`, `deployments.apps`: how messages name a resource.
pub fn group_resource(group: &str, resource: &str) -> String {
    if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") }
}

/// `Pod`, `Deployment.apps`: how messages name a kind.
pub fn group_kind(group: &str, kind: &str) -> String {
    group_resource(group, kind)
}

impl Status {
    fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Status { code, reason, message: message.into(), details: Details::default() }
    }

    fn about(mut self, group: &str, kind: &str, name: &str) -> Self {
        self.details.group = group.to_owned();
        self.details.kind = kind.to_owned();
        self.details.name = name.to_owned();
        self
    }

    /// 200: what DELETE answers when the object is gone at once.
    pub fn deleted(group: &str, resource: &str, name: &str, uid: &str) -> Self {
        let mut status = Status::new(200, "", "").about(group, resource, name);
        status.details.uid = uid.to_owned();
        status
    }

    /// 404 for an object.
    pub fn not_found(group: &str, resource: &str, name: &str) -> Self {
        let message = format!("{} {name:?} not found", group_resource(group, resource));
        Status::new(404, "NotFound", message).about(group, resource, name)
    }

    /// 404 for a path that no resource has.
    pub fn no_such_path() -> Self {
        let mut status = Status::new(404, "NotFound", "the server could not find the requested resource");
        status.details.causes.push(Cause {
            reason: "UnexpectedServerResponse",
            field: String::new(),
            message: "404 page not found".into(),
        });
        status
    }

    /// 409: the name is taken.
    pub fn already_exists(group: &str, resource: &str, name: &str) -> Self {
        let message = format!("{} {name:?} already exists", group_resource(group, resource));
        Status::new(409, "AlreadyExists", message).about(group, resource, name)
    }

    /// 409: the object changed since it was read.
    pub fn modified(group: &str, resource: &str, name: &str) -> Self {
        let detail = "the object has been modified; please apply your changes to the latest version and try again";
        Status::conflict(group, resource, name, detail)
    }

    /// 409 for another reason (a precondition).
    pub fn conflict(group: &str, resource: &str, name: &str, detail: &str) -> Self {
        let message =
            format!("Operation cannot be fulfilled on {} {name:?}: {detail}", group_resource(group, resource));
        Status::new(409, "Conflict", message).about(group, resource, name)
    }

    /// 409 of server-side apply: other managers own the fields in `causes` (reason `FieldManagerConflict`).
    pub fn apply_conflict(message: impl Into<String>, causes: Vec<Cause>) -> Self {
        let mut status = Status::new(409, "Conflict", message);
        status.details.causes = causes;
        status
    }

    /// 422: fields at fault.
    pub fn invalid(group: &str, kind: &str, name: &str, causes: Vec<Cause>) -> Self {
        let list: Vec<String> = causes.iter().map(ToString::to_string).collect();
        let detail = match &list[..] {
            [] => String::new(),
            [one] => format!(": {one}"),
            many => format!(": [{}]", many.join(", ")),
        };
        let message = format!("{} {name:?} is invalid{detail}", group_kind(group, kind));
        let mut status = Status::new(422, "Invalid", message).about(group, kind, name);
        status.details.causes = causes;
        status
    }

    /// 403. `detail` is what comes after the colon: `User "x" cannot get resource ...`.
    pub fn forbidden(group: &str, resource: &str, name: &str, detail: &str) -> Self {
        let subject = group_resource(group, resource);
        let message = match (subject.is_empty(), name.is_empty()) {
            (true, _) => format!("forbidden: {detail}"),
            (false, true) => format!("{subject} is forbidden: {detail}"),
            (false, false) => format!("{subject} {name:?} is forbidden: {detail}"),
        };
        Status::new(403, "Forbidden", message).about(group, resource, name)
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Status::new(400, "BadRequest", message)
    }

    /// 401.
    pub fn unauthorized() -> Self {
        Status::new(401, "Unauthorized", "Unauthorized")
    }

    /// 410: the revision asked for is older than the watch window.
    pub fn expired(message: impl Into<String>) -> Self {
        Status::new(410, "Expired", message)
    }

    /// 410 of a watch, worded for the client that must list again.
    pub fn too_old(asked: u64, oldest: u64) -> Self {
        Status::expired(format!("too old resource version: {asked} ({oldest})"))
    }

    /// 413.
    pub fn too_large(limit: usize) -> Self {
        Status::new(413, "RequestEntityTooLarge", format!("Request entity too large: limit is {limit}"))
    }

    /// 415.
    pub fn unsupported_media_type(accepted: &[&str]) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            accepted.join(", ")
        );
        Status::new(415, "UnsupportedMediaType", message)
    }

    /// 406.
    pub fn not_acceptable(accepted: &[&str]) -> Self {
        let message = format!("only the following media types are accepted: {}", accepted.join(", "));
        Status::new(406, "NotAcceptable", message)
    }

    /// 405.
    pub fn method_not_allowed(group: &str, resource: &str, verb: &str) -> Self {
        let name = group_resource(group, resource);
        let message = format!("{verb} is not supported on resources of kind {name:?}");
        Status::new(405, "MethodNotAllowed", message).about(group, resource, "")
    }

    /// 429 with `Retry-After`.
    pub fn too_many_requests(message: impl Into<String>, retry_after_s: u32) -> Self {
        let mut status = Status::new(429, "TooManyRequests", message);
        status.details.retry_after_s = retry_after_s;
        status
    }

    /// 500.
    pub fn internal(message: impl fmt::Display) -> Self {
        let mut status = Status::new(500, "InternalError", format!("Internal error occurred: {message}"));
        status.details.causes.push(Cause { reason: "", field: String::new(), message: message.to_string() });
        status
    }

    /// 503.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Status::new(503, "ServiceUnavailable", message)
    }

    /// 504: the server gave up; the write may or may not have happened.
    pub fn timeout(message: impl Into<String>) -> Self {
        Status::new(504, "Timeout", message)
    }

    /// Adds a cause.
    #[must_use]
    pub fn with_cause(mut self, cause: Cause) -> Self {
        self.details.causes.push(cause);
        self
    }

    /// Whether it tells of a success.
    pub fn is_success(&self) -> bool {
        self.code < 400
    }

    /// The object that goes over the wire.
    pub fn to_value(&self) -> Value {
        let mut out = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}});
        out["status"] = if self.is_success() { "Success" } else { "Failure" }.into();
        let details = self.details.to_value();
        if !self.message.is_empty() {
            out["message"] = self.message.clone().into();
        }
        if !self.reason.is_empty() {
            out["reason"] = self.reason.into();
        }
        if details.as_object().is_some_and(|map| !map.is_empty()) {
            out["details"] = details;
        }
        if !self.is_success() {
            out["code"] = self.code.into();
        }
        out
    }

    /// The bytes that go over the wire.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.to_value().to_string().into_bytes()
    }
}

impl Details {
    fn to_value(&self) -> Value {
        let mut out = serde_json::Map::new();
        for (key, text) in [("name", &self.name), ("group", &self.group), ("kind", &self.kind), ("uid", &self.uid)] {
            if !text.is_empty() {
                out.insert(key.to_owned(), text.clone().into());
            }
        }
        if !self.causes.is_empty() {
            out.insert("causes".to_owned(), self.causes.iter().map(Cause::to_value).collect());
        }
        if self.retry_after_s > 0 {
            out.insert("retryAfterSeconds".to_owned(), self.retry_after_s.into());
        }
        Value::Object(out)
    }
}

impl Cause {
    fn to_value(&self) -> Value {
        let mut out = serde_json::Map::new();
        for (key, text) in [("reason", self.reason), ("message", &self.message), ("field", &self.field)] {
            if !text.is_empty() {
                out.insert(key.to_owned(), text.into());
            }
        }
        Value::Object(out)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} {})", self.message, self.code, self.reason)
    }
}

impl std::error::Error for Status {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_those_that_users_know() {
        for (status, code, message) in [
            (Status::not_found("", "pods", "a"), 404, r#"pods "a" not found"#),
            (Status::already_exists("apps", "deployments", "d"), 409, r#"deployments.apps "d" already exists"#),
            (
                Status::modified("", "configmaps", "c"),
                409,
                r#"Operation cannot be fulfilled on configmaps "c": the object has been modified; please apply your changes to the latest version and try again"#,
            ),
            (
                Status::invalid("apps", "Deployment", "d", vec![Cause::required("spec.selector", "")]),
                422,
                r#"Deployment.apps "d" is invalid: spec.selector: Required value"#,
            ),
            (
                Status::invalid(
                    "",
                    "Pod",
                    "p",
                    vec![
                        Cause::invalid("metadata.name", &"A".into(), "must be lower case"),
                        Cause::not_supported("spec.restartPolicy", &"No".into(), ["Always", "Never"]),
                    ],
                ),
                422,
                r#"Pod "p" is invalid: [metadata.name: Invalid value: "A": must be lower case, spec.restartPolicy: Unsupported value: "No": supported values: "Always", "Never"]"#,
            ),
            (
                Status::forbidden(
                    "",
                    "secrets",
                    "",
                    r#"User "u" cannot list resource "secrets" in API group "" in the namespace "n""#,
                ),
                403,
                r#"secrets is forbidden: User "u" cannot list resource "secrets" in API group "" in the namespace "n""#,
            ),
        ] {
            assert_eq!((status.code, status.message.as_str()), (code, message));
        }
    }

    #[test]
    fn the_wire_form_has_reason_details_and_causes() {
        let status = Status::invalid("apps", "Deployment", "d", vec![Cause::required("spec.selector", "")]);
        assert_eq!(
            status.to_value(),
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 422, "reason": "Invalid",
                "message": r#"Deployment.apps "d" is invalid: spec.selector: Required value"#,
                "details": {"name": "d", "group": "apps", "kind": "Deployment",
                    "causes": [{"reason": "FieldValueRequired", "message": "Required value", "field": "spec.selector"}]}})
        );
        let gone = Status::deleted("", "pods", "p", "u-1").to_value();
        assert_eq!(gone["status"], "Success");
        assert_eq!(gone["details"], json!({"name": "p", "kind": "pods", "uid": "u-1"}));
    }
}
