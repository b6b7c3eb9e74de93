//! Why a field is refused, in the words of apimachinery's `field.Error`.

use kube::Cause;
use serde_json::Value;
use std::fmt;

#[derive(Clone, Copy)]
enum Step<'a> {
    Name(&'a str),
    Index(usize),
    Key(&'a str),
}

/// Where we are in an object. Lives on the stack: a valid object costs no allocation for paths.
#[derive(Clone, Copy)]
pub struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: Step<'a>,
}

impl<'a> Path<'a> {
    /// A first step.
    pub const fn root(name: &'a str) -> Path<'a> {
        Path { parent: None, step: Step::Name(name) }
    }
    /// `self.name`.
    pub fn child<'b>(&'b self, name: &'b str) -> Path<'b> {
        Path { parent: Some(self), step: Step::Name(name) }
    }
    /// `self[index]`.
    pub fn index<'b>(&'b self, index: usize) -> Path<'b> {
        Path { parent: Some(self), step: Step::Index(index) }
    }
    /// `self[key]`.
    pub fn key<'b>(&'b self, key: &'b str) -> Path<'b> {
        Path { parent: Some(self), step: Step::Key(key) }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.step {
            Step::Name(name) if self.parent.is_some() => write!(f, ".{name}"),
            Step::Name(name) => f.write_str(name),
            Step::Index(index) => write!(f, "[{index}]"),
            Step::Key(key) => write!(f, "[{key}]"),
        }
    }
}

/// Collects causes.
#[derive(Debug, Default)]
pub struct Causes {
    found: Vec<Cause>,
}

impl Causes {
    /// What was found, in order.
    pub fn into_vec(self) -> Vec<Cause> {
        self.found
    }
    /// How many were found so far.
    pub fn len(&self) -> usize {
        self.found.len()
    }
    fn push(&mut self, path: &Path<'_>, reason: &'static str, message: String) {
        self.found.push(Cause { field: path.to_string(), reason, message });
    }
    /// The value is malformed.
    pub fn invalid(&mut self, path: &Path<'_>, value: impl Into<Value>, detail: impl fmt::Display) {
        self.push(path, "FieldValueInvalid", format!("Invalid value: {}: {detail}", shown(&value.into())));
    }
    /// The value is missing.
    pub fn required(&mut self, path: &Path<'_>, detail: impl fmt::Display) {
        let detail = detail.to_string();
        let message = if detail.is_empty() { "Required value".to_owned() } else { format!("Required value: {detail}") };
        self.push(path, "FieldValueRequired", message);
    }
    /// The value is not allowed here.
    pub fn forbidden(&mut self, path: &Path<'_>, detail: impl fmt::Display) {
        self.push(path, "FieldValueForbidden", format!("Forbidden: {detail}"));
    }
    /// The value is not among the known ones.
    pub fn not_supported(&mut self, path: &Path<'_>, value: impl Into<Value>, known: &[&str]) {
        let known: Vec<String> = known.iter().map(|name| format!("{name:?}")).collect();
        let message = format!("Unsupported value: {}: supported values: {}", shown(&value.into()), known.join(", "));
        self.push(path, "FieldValueNotSupported", message);
    }
    /// The value occurs twice.
    pub fn duplicate(&mut self, path: &Path<'_>, value: impl Into<Value>) {
        self.push(path, "FieldValueDuplicate", format!("Duplicate value: {}", shown(&value.into())));
    }
    /// The value names something that is not there.
    pub fn not_found(&mut self, path: &Path<'_>, value: impl Into<Value>) {
        self.push(path, "FieldValueNotFound", format!("Not found: {}", shown(&value.into())));
    }
    /// The value is longer than `max` bytes.
    pub fn too_long(&mut self, path: &Path<'_>, max: usize) {
        self.push(path, "FieldValueTooLong", format!("Too long: may not be more than {max} bytes"));
    }
    /// `invalid` for each message.
    pub fn invalid_each(&mut self, path: &Path<'_>, value: &str, details: Vec<String>) {
        for detail in details {
            self.invalid(path, value, detail);
        }
    }
    /// `known` unless the value is one of them.
    pub fn one_of(&mut self, path: &Path<'_>, value: &str, known: &[&str]) {
        if !known.contains(&value) {
            self.not_supported(path, value, known);
        }
    }
    /// A number that must be 0 or more.
    pub fn non_negative(&mut self, path: &Path<'_>, value: &Value) {
        if let Some(number) = value.as_i64().filter(|n| *n < 0) {
            self.invalid(path, number, "must be greater than or equal to 0");
        }
    }
    /// The field must not change.
    pub fn immutable(&mut self, path: &Path<'_>, new: &Value, old: &Value) {
        if !crate::json::same(new, old) {
            self.invalid(path, new.clone(), "field is immutable");
        }
    }
}

/// A value as `field.Error` prints it: texts quoted, numbers bare, the rest as JSON.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{text:?}"),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_read_as_written() {
        let spec = Path::root("spec");
        let containers = spec.child("containers");
        let first = containers.index(0);
        assert_eq!(first.child("name").to_string(), "spec.containers[0].name");
        assert_eq!(spec.child("limits").key("cpu").to_string(), "spec.limits[cpu]");
    }

    #[test]
    fn causes_read_as_field_errors() {
        let mut causes = Causes::default();
        causes.required(&Path::root("spec").child("containers"), "");
        causes.not_supported(&Path::root("type"), "x", &["a", "b"]);
        causes.invalid(&Path::root("n"), 1, "no");
        let found: Vec<String> = causes.into_vec().iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "spec.containers: Required value",
                "type: Unsupported value: \"x\": supported values: \"a\", \"b\"",
                "n: Invalid value: 1: no"
            ]
        );
    }
}
