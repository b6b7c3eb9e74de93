//! Field selectors: `status.phase=Running,spec.nodeName!=n1`.

use crate::behaviour::Kind;
use serde_json::Value;

/// Why a field selector's text is refused (400).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldSelectorError {
    /// A term is neither `a=b`, `a==b` nor `a!=b`.
    #[error("invalid selector: '{0}'; can't understand '{1}'")]
    Malformed(String, String),
    /// A backslash before something that needs none.
    #[error("invalid field selector: invalid escape sequence: {0}")]
    Escape(String),
    /// The kind has no such field to select by.
    #[error("field label not supported: {0}")]
    Unsupported(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Term {
    path: String,
    equal: bool,
    value: String,
}

/// A conjunction of comparisons; without any it selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    terms: Vec<Term>,
}

impl FieldSelector {
    /// Reads a selector and checks that the kind has the fields. `more` are paths that a custom resource declares
    /// (`selectableFields`, without the leading dot).
    ///
    /// # Errors
    /// The text is malformed, or names a field that cannot be selected by.
    pub fn parse(selector: &str, kind: &dyn Kind, more: &[String]) -> Result<FieldSelector, FieldSelectorError> {
        let mut terms = Vec::new();
        for part in split_terms(selector) {
            if part.is_empty() {
                continue;
            }
            let Some((path, equal, value)) = split_term(part) else {
                return Err(FieldSelectorError::Malformed(selector.to_owned(), part.to_owned()));
            };
            let known = kind.field(&Value::Null, path).is_some()
                || more.iter().any(|field| field.trim_start_matches('.') == path);
            if !known {
                return Err(FieldSelectorError::Unsupported(path.to_owned()));
            }
            terms.push(Term { path: path.to_owned(), equal, value: unescape(value)? });
        }
        Ok(FieldSelector { terms })
    }

    /// Whether it has no comparison, and so selects everything.
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// The value that the field must have, when the selector says so. Lets a list be narrowed to one name or namespace
    /// before objects are read.
    pub fn required(&self, path: &str) -> Option<&str> {
        self.terms.iter().find(|term| term.equal && term.path == path).map(|term| term.value.as_str())
    }

    /// Whether the object satisfies all comparisons.
    pub fn matches(&self, kind: &dyn Kind, object: &Value) -> bool {
        self.terms.iter().all(|term| {
            let equal = match kind.field(object, &term.path) {
                Some(text) => text == term.value.as_str(),
                None => custom_field(object, &term.path) == term.value,
            };
            equal == term.equal
        })
    }
}

fn custom_field(object: &Value, path: &str) -> String {
    match path.split('.').fold(object, |value, key| &value[key]) {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// Splits at commas that no backslash protects.
fn split_terms(selector: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (at, c) in selector.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                parts.push(&selector[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&selector[start..]);
    parts
}

fn split_term(term: &str) -> Option<(&str, bool, &str)> {
    let at = term.find(['=', '!'])?;
    let (path, rest) = term.split_at(at);
    if let Some(value) = rest.strip_prefix("!=") {
        return Some((path, false, value));
    }
    let value = rest.strip_prefix("==").or_else(|| rest.strip_prefix('='))?;
    Some((path, true, value))
}

fn unescape(value: &str) -> Result<String, FieldSelectorError> {
    let mut text = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(escaped @ ('\\' | ',' | '=')) => text.push(escaped),
                Some(other) => return Err(FieldSelectorError::Escape(format!("\\{other}"))),
                None => return Err(FieldSelectorError::Escape("\\".into())),
            },
            ',' | '=' => return Err(FieldSelectorError::Escape(c.to_string())),
            _ => text.push(c),
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::behaviour;
    use serde_json::json;

    fn pods(selector: &str) -> Result<FieldSelector, FieldSelectorError> {
        FieldSelector::parse(selector, behaviour("", "Pod"), &[])
    }

    #[test]
    fn pods_by_field() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n1"}, "status": {"phase": "Running"}});
        let kind = behaviour("", "Pod");
        for (selector, matches) in [
            ("", true),
            ("status.phase=Running", true),
            ("status.phase==Running,spec.nodeName!=n2", true),
            ("spec.nodeName!=n1", false),
            ("metadata.name=p", true),
            ("spec.nodeName=", false),
        ] {
            assert_eq!(pods(selector).unwrap().matches(kind, &pod), matches, "{selector}");
        }
        assert_eq!(pods("metadata.name=p").unwrap().required("metadata.name"), Some("p"));
    }

    #[test]
    fn refusals() {
        assert_eq!(pods("spec.foo=1").unwrap_err().to_string(), "field label not supported: spec.foo");
        assert_eq!(
            pods("status.phase").unwrap_err().to_string(),
            "invalid selector: 'status.phase'; can't understand 'status.phase'"
        );
        assert!(pods("status.phase=a\\x").is_err());
        assert_eq!(pods("status.phase=a\\,b").unwrap().required("status.phase"), Some("a,b"));
    }

    #[test]
    fn custom_resources_declare_their_fields() {
        let kind = crate::custom(false);
        let more = [".spec.color".to_owned()];
        let selector = FieldSelector::parse("spec.color=red", kind, &more).unwrap();
        assert!(selector.matches(kind, &json!({"spec": {"color": "red"}})));
        assert!(!selector.matches(kind, &json!({"spec": {}})));
    }
}
