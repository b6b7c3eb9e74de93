//! `FieldsV1`: a set as JSON, `{"f:spec":{"f:replicas":{},"f:template":{".":{}}}}`.

use super::{Element, Set};
use serde_json::{Map, Value};

/// Deeper sets are refused.
const MAX_DEPTH: usize = 100;

/// Why JSON is no field set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldsError {
    /// A value is no object.
    #[error("a field set consists of objects")]
    NotAnObject,
    /// A key has no `f:`, `k:`, `v:` or `i:` in front, or not what belongs behind it.
    #[error("parsing key as path element: {0:?}")]
    Key(String),
    /// Nested too deeply.
    #[error("a field set is nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
}

impl Set {
    /// Reads `FieldsV1`. Keys of kinds that are not known yet are skipped.
    ///
    /// # Errors
    /// The JSON is malformed.
    pub fn from_json(json: &Value) -> Result<Set, FieldsError> {
        read(json, 0).map(|(set, _)| set)
    }

    /// Writes `FieldsV1`.
    pub fn to_json(&self) -> Value {
        let mut map = Map::new();
        for element in &self.members {
            map.insert(key(element), Value::Object(Map::new()));
        }
        for (element, child) in &self.children {
            let mut inner = child.to_json();
            if self.members.contains(element)
                && let Some(inner) = inner.as_object_mut()
            {
                inner.insert(".".into(), Value::Object(Map::new()));
            }
            map.insert(key(element), inner);
        }
        Value::Object(map)
    }
}

/// The set below a key, and whether the key itself is a member: with `.`, or when nothing is below it.
fn read(json: &Value, depth: usize) -> Result<(Set, bool), FieldsError> {
    if depth > MAX_DEPTH {
        return Err(FieldsError::TooDeep);
    }
    let map = json.as_object().ok_or(FieldsError::NotAnObject)?;
    let (mut set, mut member) = (Set::default(), false);
    for (text, value) in map {
        if text == "." {
            member = true;
            continue;
        }
        let Some(element) = parse(text)? else { continue };
        let (child, is_member) = read(value, depth + 1)?;
        if !child.is_empty() {
            set.children.insert(element.clone(), child);
        }
        if is_member {
            set.members.insert(element);
        }
    }
    let member = member || set.is_empty();
    Ok((set, member))
}

fn key(element: &Element) -> String {
    match element {
        Element::Field(name) => format!("f:{name}"),
        Element::Key(keys) => format!("k:{}", Value::Object(keys.iter().cloned().collect())),
        Element::Value(value) => format!("v:{value}"),
        Element::Index(index) => format!("i:{index}"),
    }
}

fn parse(text: &str) -> Result<Option<Element>, FieldsError> {
    let wrong = || FieldsError::Key(text.to_owned());
    let (kind, rest) = text.split_once(':').ok_or_else(wrong)?;
    Ok(Some(match kind {
        "f" => Element::field(rest),
        "v" => Element::Value(serde_json::from_str(rest).map_err(|_| wrong())?),
        "i" => Element::Index(rest.parse().map_err(|_| wrong())?),
        "k" => {
            let keys: Map<String, Value> = serde_json::from_str(rest).map_err(|_| wrong())?;
            Element::Key(keys.into_iter().collect())
        }
        _ => return Ok(None),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn round_trips() {
        let fields = json!({
            "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
            "f:spec": {
                "f:replicas": {},
                "f:template": {"f:spec": {"f:containers": {
                    "k:{\"name\":\"web\"}": {".": {}, "f:image": {}, "f:ports": {
                        "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}}}}},
                "f:finalizers": {".": {}, "v:\"a\"": {}},
                "f:list": {"i:0": {}}
            }
        });
        let set = Set::from_json(&fields).unwrap();
        assert_eq!(set.to_json(), fields);
        assert!(set.has(&[Element::field("spec"), Element::field("replicas")]));
        assert!(!set.has(&[Element::field("spec")]));
        assert!(set.has(&[Element::field("metadata"), Element::field("labels")]));
    }

    #[test]
    fn refusals() {
        assert_eq!(Set::from_json(&json!([])), Err(FieldsError::NotAnObject));
        assert_eq!(Set::from_json(&json!({"spec": {}})), Err(FieldsError::Key("spec".into())));
        assert_eq!(Set::from_json(&json!({"k:x": {}})), Err(FieldsError::Key("k:x".into())));
        assert_eq!(Set::from_json(&json!({"z:x": {}})), Ok(Set::default()), "of a later version");
        let mut deep = json!({});
        for _ in 0..200 {
            deep = json!({"f:a": deep});
        }
        assert_eq!(Set::from_json(&deep), Err(FieldsError::TooDeep));
    }
}
