//! JSON and YAML text -> value, remembering fields that are there twice.

use super::DecodeError;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::fmt::{self, Write};

/// More duplicates than this are not told one by one.
const MAX_PROBLEMS: usize = 100;

/// Parses JSON. Gives the value (the last of equal fields wins) and `duplicate field "..."` for each repeated one.
///
/// # Errors
/// The bytes are no JSON, or are nested deeper than 128 levels.
pub fn json(bytes: &[u8]) -> Result<(Value, Vec<String>), DecodeError> {
    let mut walk = Walk::default();
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = Seed(&mut walk).deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
    value.map(|value| (value, walk.duplicates)).map_err(|error| DecodeError::Malformed(error.to_string()))
}

/// Parses YAML (of which JSON is a part), with keys that are numbers or booleans as text.
///
/// # Errors
/// The bytes are no YAML, hold several documents, expand aliases without bound, or are nested deeper than 128 levels.
pub fn yaml(bytes: &[u8]) -> Result<(Value, Vec<String>), DecodeError> {
    let mut walk = Walk::default();
    let value = Seed(&mut walk).deserialize(serde_yaml_ng::Deserializer::from_slice(bytes));
    let value =
        value.map_err(|error| DecodeError::Malformed(format!("error converting YAML to JSON: yaml: {error}")))?;
    Ok((value, walk.duplicates))
}

#[derive(Default)]
struct Walk {
    path: Vec<Part>,
    duplicates: Vec<String>,
}

enum Part {
    Key(String),
    Index(usize),
}

impl Walk {
    fn duplicate(&mut self, key: &str) {
        if self.duplicates.len() >= MAX_PROBLEMS {
            return;
        }
        let mut text = String::new();
        for part in &self.path {
            let _ = match part {
                Part::Key(key) if text.is_empty() => write!(text, "{key}"),
                Part::Key(key) => write!(text, ".{key}"),
                Part::Index(at) => write!(text, "[{at}]"),
            };
        }
        let dot = if text.is_empty() { "" } else { "." };
        self.duplicates.push(format!("duplicate field \"{text}{dot}{key}\""));
    }
}

struct Seed<'w>(&'w mut Walk);

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number that JSON cannot say"))
    }
    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }
    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_some<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let walk = self.0;
        let mut items = Vec::new();
        loop {
            walk.path.push(Part::Index(items.len()));
            let item = seq.next_element_seed(Seed(walk))?;
            walk.path.pop();
            match item {
                Some(item) => items.push(item),
                None => return Ok(Value::Array(items)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let walk = self.0;
        let mut map = Map::new();
        while let Some(key) = entries.next_key_seed(Key)? {
            if map.contains_key(&key) {
                walk.duplicate(&key);
            }
            walk.path.push(Part::Key(key));
            let value = entries.next_value_seed(Seed(walk))?;
            if let Some(Part::Key(key)) = walk.path.pop() {
                map.insert(key, value);
            }
        }
        Ok(Value::Object(map))
    }
}

/// A key of a map: text in JSON, any scalar in YAML.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = String;
    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<String, D::Error> {
        reader.deserialize_any(self)
    }
}

impl Visitor<'_> for Key {
    type Value = String;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }
    fn visit_str<E>(self, value: &str) -> Result<String, E> {
        Ok(value.to_owned())
    }
    fn visit_string<E>(self, value: String) -> Result<String, E> {
        Ok(value)
    }
    fn visit_bool<E>(self, value: bool) -> Result<String, E> {
        Ok(value.to_string())
    }
    fn visit_i64<E>(self, value: i64) -> Result<String, E> {
        Ok(value.to_string())
    }
    fn visit_u64<E>(self, value: u64) -> Result<String, E> {
        Ok(value.to_string())
    }
    fn visit_f64<E>(self, value: f64) -> Result<String, E> {
        Ok(value.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn duplicates_are_told_with_their_path() {
        let (value, duplicates) = json(br#"{"a":1,"b":[{"c":1,"c":2}],"a":{"d":{"e":1,"e":1}}}"#).unwrap();
        assert_eq!(value, json!({"a": {"d": {"e": 1}}, "b": [{"c": 2}]}));
        assert_eq!(duplicates, [r#"duplicate field "b[0].c""#, r#"duplicate field "a""#, r#"duplicate field "a.d.e""#]);
    }

    #[test]
    fn yaml_gives_the_same_value_as_json() {
        let (value, duplicates) = yaml(b"a: 1\nb:\n- c: x\n  d: null\n1: true\ntrue: 1.5\na: 2\n").unwrap();
        assert_eq!(value, json!({"a": 2, "b": [{"c": "x", "d": null}], "1": true, "true": 1.5}));
        assert_eq!(duplicates, [r#"duplicate field "a""#]);
    }

    #[test]
    fn what_is_malformed_is_refused() {
        let deep = "[".repeat(200);
        for text in ["", "{", "{\"a\":}", "nul", "{} {}", deep.as_str(), "{\"a\":1e999}"] {
            assert!(json(text.as_bytes()).is_err(), "{text}");
        }
        let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\n\
            d: &d [*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e]\n\
            g: [*f,*f,*f,*f,*f,*f,*f,*f]\n";
        for text in ["a: b: c", "a: [", "---\na: 1\n---\nb: 2\n", bomb, "a: .nan"] {
            assert!(yaml(text.as_bytes()).is_err(), "{text}");
        }
        assert!(json(&[0xff, 0xfe]).is_err());
    }
}
