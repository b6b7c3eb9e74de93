//! A custom resource's value against its schema, with causes worded as kube-apiserver words them.

use super::{CustomVersion, expressions, format};
use crate::schema::rules::{Bound, Rules};
use crate::schema::{ListKind, Schema, Shape};
use crate::status::Cause;
use serde_json::{Map, Value};
use std::borrow::Cow;

/// More faults than this are not told one by one.
const MAX_CAUSES: usize = 100;
/// Lists longer than this are compared through a sorted copy only.
const MAX_PAIRWISE: usize = 32;

impl CustomVersion {
    /// What is wrong with an object, after pruning and defaulting.
    pub fn validate(&self, value: &Value) -> Vec<Cause> {
        self.validate_update(value, None)
    }

    /// What is wrong with a part of an object.
    pub(super) fn validate_part(&self, schema: Schema<'_>, value: &Value) -> Vec<Cause> {
        let mut check = Check { causes: Vec::new() };
        check.node(schema, "", value, None, false);
        check.causes
    }

    /// What is wrong with an object that replaces another. A part that is as it was is not held against the writer, so that a
    /// schema that got stricter does not lock its objects.
    pub fn validate_update(&self, value: &Value, old: Option<&Value>) -> Vec<Cause> {
        let mut check = Check { causes: Vec::new() };
        check.node(self.schema(), "", value, old, true);
        // Expressions count on what the schema demands.
        if check.causes.is_empty() { expressions::check(self.schema(), value, old) } else { check.causes }
    }
}

struct Check {
    causes: Vec<Cause>,
}

pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

impl Check {
    fn push(&mut self, cause: Cause) {
        if self.causes.len() < MAX_CAUSES {
            self.causes.push(cause);
        }
    }

    fn node(&mut self, schema: Schema<'_>, path: &str, value: &Value, old: Option<&Value>, root: bool) {
        if old == Some(value) {
            return;
        }
        if let Some(rules) = schema.rules()
            && !self.own(rules, schema.is_nullable(), path, value)
        {
            return;
        }
        match (schema.shape(), value) {
            (Shape::Object, Value::Object(map)) => self.object(schema, path, map, old, root),
            (Shape::Map(form), Value::Object(map)) => {
                for (key, child) in map {
                    self.node(form, &join(path, key), child, old.and_then(|old| old.get(key)), false);
                }
            }
            (Shape::List(form), Value::Array(items)) => {
                for (at, child) in items.iter().enumerate() {
                    let old = old.and_then(|old| counterpart(schema, child, old));
                    self.node(form, &format!("{path}[{at}]"), child, old, false);
                }
                self.list(schema, path, items);
            }
            _ => {}
        }
    }

    fn object(&mut self, schema: Schema<'_>, path: &str, map: &Map<String, Value>, old: Option<&Value>, root: bool) {
        if schema.is_embedded_resource() {
            for key in ["apiVersion", "kind"] {
                if map.get(key).and_then(Value::as_str).is_none_or(str::is_empty) {
                    self.push(Cause::required(join(path, key), "must not be empty"));
                }
            }
        }
        for (key, child) in map {
            let kubernetes_own =
                (root || schema.is_embedded_resource()) && matches!(key.as_str(), "apiVersion" | "kind" | "metadata");
            if let Some(field) = schema.field(key).filter(|_| !kubernetes_own) {
                self.node(field.schema(), &join(path, key), child, old.and_then(|old| old.get(key)), false);
            }
        }
    }

    /// Uniqueness of sets and of the keys of list maps.
    fn list(&mut self, schema: Schema<'_>, path: &str, items: &[Value]) {
        let keys: Vec<(usize, String, Cow<'_, Value>)> = match schema.list_kind() {
            ListKind::Atomic => return,
            ListKind::Set => {
                items.iter().enumerate().map(|(at, item)| (at, item.to_string(), Cow::Borrowed(item))).collect()
            }
            ListKind::Map => items
                .iter()
                .enumerate()
                .map(|(at, item)| (at, keys_of(schema, item)))
                .map(|(at, key)| (at, key.to_string(), Cow::Owned(key)))
                .collect(),
        };
        let mut sorted: Vec<&(usize, String, Cow<'_, Value>)> = keys.iter().collect();
        sorted.sort_by(|a, b| (&a.1, a.0).cmp(&(&b.1, b.0)));
        let mut repeated: Vec<_> =
            sorted.windows(2).filter(|pair| pair[0].1 == pair[1].1).map(|pair| pair[1]).collect();
        repeated.sort_by_key(|(at, _, _)| *at);
        for (at, _, value) in repeated {
            self.push(Cause::duplicate(format!("{path}[{at}]"), value));
        }
    }

    /// Keywords of one node. False when the type is wrong, so that nothing below makes sense.
    fn own(&mut self, rules: &Rules, nullable: bool, path: &str, value: &Value) -> bool {
        if value.is_null() && (nullable || rules.nullable) {
            return false;
        }
        let found = type_name(value);
        if !type_fits(rules, value, found) {
            let wanted = if rules.int_or_string { "integer,string" } else { &rules.kind };
            let detail = format!("{path} in body must be of type {wanted}: {found:?}");
            self.push(Cause::type_invalid(path, &found.into(), detail));
            return false;
        }
        if !rules.enum_values.is_empty() && !rules.enum_values.contains(value) {
            let known: Vec<String> =
                rules.enum_values.iter().map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned)).collect();
            self.push(Cause::not_supported(path, value, known.iter().map(String::as_str)));
        }
        match value {
            Value::String(text) => self.text(rules, path, value, text),
            Value::Number(number) => self.number(rules, path, value, number.as_f64().unwrap_or_default()),
            Value::Array(items) => self.count(rules, path, items),
            Value::Object(map) => self.keys(rules, path, map),
            _ => {}
        }
        self.junctors(rules, path, value);
        true
    }

    fn invalid(&mut self, path: &str, value: &Value, detail: impl std::fmt::Display) {
        self.push(Cause::invalid(path, value, format!("{path} in body {detail}")));
    }

    fn text(&mut self, rules: &Rules, path: &str, value: &Value, text: &str) {
        let length = text.chars().count() as u64;
        if let Some(max) = rules.length.max.filter(|max| length > *max) {
            self.push(Cause::too_long(path, max as usize));
        }
        if let Some(min) = rules.length.min.filter(|min| length < *min) {
            self.invalid(path, value, format_args!("should be at least {min} chars long"));
        }
        if let Some(pattern) = rules.pattern.as_ref().filter(|pattern| !pattern.matches(text)) {
            self.invalid(path, value, format_args!("should match '{}'", pattern.text));
        }
        if format::matches(&rules.format, text) == Some(false) {
            let detail = format!("{path} in body must be of type {}: {text:?}", rules.format);
            self.push(Cause::type_invalid(path, value, detail));
        }
    }

    fn number(&mut self, rules: &Rules, path: &str, value: &Value, number: f64) {
        if let Some(Bound { value: bound, exclusive }) = rules.maximum
            && (number > bound || exclusive && number == bound)
        {
            let or_equal = if exclusive { "" } else { " or equal to" };
            self.invalid(path, value, format_args!("should be less than{or_equal} {bound}"));
        }
        if let Some(Bound { value: bound, exclusive }) = rules.minimum
            && (number < bound || exclusive && number == bound)
        {
            let or_equal = if exclusive { "" } else { " or equal to" };
            self.invalid(path, value, format_args!("should be greater than{or_equal} {bound}"));
        }
        if let Some(factor) = rules.multiple_of.filter(|factor| *factor > 0.0) {
            let ratio = number / factor;
            if (ratio - ratio.round()).abs() > 1e-9 {
                self.invalid(path, value, format_args!("should be a multiple of {factor}"));
            }
        }
        let out_of_range = match rules.format.as_str() {
            "int32" => value.as_i64().is_none_or(|n| i32::try_from(n).is_err()),
            "int64" => value.as_i64().is_none() && number.fract() == 0.0 && value.is_u64(),
            _ => false,
        };
        if out_of_range && number.fract() == 0.0 {
            let detail = format!("Checked value must be of type integer with format {} in body", rules.format);
            self.push(Cause::invalid(path, value, detail));
        }
    }

    fn count(&mut self, rules: &Rules, path: &str, items: &[Value]) {
        let count = items.len() as u64;
        if let Some(max) = rules.items_count.max.filter(|max| count > *max) {
            self.push(Cause::too_many(path, items.len(), max as usize));
        }
        if let Some(min) = rules.items_count.min.filter(|min| count < *min) {
            self.invalid(path, &Value::from(count), format_args!("should have at least {min} items"));
        }
        if rules.unique_items && has_duplicates(items) {
            self.invalid(path, &"".into(), "shouldn't contain duplicates");
        }
    }

    fn keys(&mut self, rules: &Rules, path: &str, map: &Map<String, Value>) {
        for key in rules.required.iter().filter(|key| !map.contains_key(*key)) {
            self.push(Cause::required(join(path, key), ""));
        }
        let count = map.len() as u64;
        if let Some(max) = rules.properties_count.max.filter(|max| count > *max) {
            self.push(Cause::too_many(path, map.len(), max as usize));
        }
        if let Some(min) = rules.properties_count.min.filter(|min| count < *min) {
            self.invalid(path, &Value::from(count), format_args!("should have at least {min} properties"));
        }
    }

    fn junctors(&mut self, rules: &Rules, path: &str, value: &Value) {
        for branch in &rules.all_of {
            let mut faults = branch_faults(branch, path, value);
            if !faults.is_empty() {
                self.causes.append(&mut faults);
                self.junctor(path, "must validate all the schemas (allOf)");
            }
        }
        if !rules.any_of.is_empty() {
            let faults: Vec<_> = rules.any_of.iter().map(|branch| branch_faults(branch, path, value)).collect();
            if faults.iter().all(|faults| !faults.is_empty()) {
                self.best(faults);
                self.junctor(path, "must validate at least one schema (anyOf)");
            }
        }
        if !rules.one_of.is_empty() {
            let faults: Vec<_> = rules.one_of.iter().map(|branch| branch_faults(branch, path, value)).collect();
            match faults.iter().filter(|faults| faults.is_empty()).count() {
                1 => {}
                0 => {
                    self.best(faults);
                    self.junctor(path, "must validate one and only one schema (oneOf). Found none valid");
                }
                valid => self.junctor(
                    path,
                    &format!("must validate one and only one schema (oneOf). Found {valid} valid alternatives"),
                ),
            }
        }
        if rules.not.as_ref().is_some_and(|not| branch_faults(not, path, value).is_empty()) {
            self.junctor(path, "must not validate the schema (not)");
        }
    }

    /// kube-apiserver has no path for these and prints Go's nil.
    fn junctor(&mut self, path: &str, detail: &str) {
        self.push(Cause::invalid("<nil>", &"".into(), format!("{path:?} {detail}")));
    }

    /// Faults of the branch that came closest, which are the likeliest to help.
    fn best(&mut self, faults: Vec<Vec<Cause>>) {
        if let Some(least) = faults.into_iter().min_by_key(Vec::len) {
            least.into_iter().for_each(|cause| self.push(cause));
        }
    }
}

/// Faults of a value against a schema below a junctor, which carries its own children.
fn branch_faults(rules: &Rules, path: &str, value: &Value) -> Vec<Cause> {
    let mut check = Check { causes: Vec::new() };
    if check.own(rules, false, path, value) {
        match value {
            Value::Object(map) => {
                for (key, child) in map {
                    let form = rules.properties.get(key).or(rules.additional.as_deref());
                    if let Some(form) = form {
                        check.causes.extend(branch_faults(form, &join(path, key), child));
                    }
                }
            }
            Value::Array(items) => {
                for (at, child) in items.iter().enumerate() {
                    if let Some(form) = &rules.items {
                        check.causes.extend(branch_faults(form, &format!("{path}[{at}]"), child));
                    }
                }
            }
            _ => {}
        }
    }
    check.causes
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_i64() || number.is_u64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn type_fits(rules: &Rules, value: &Value, found: &str) -> bool {
    if rules.int_or_string {
        return matches!(found, "integer" | "string");
    }
    match rules.kind.as_str() {
        "" => true,
        "number" => value.is_number(),
        "integer" => value.is_number() && value.as_f64().is_some_and(|number| number.fract() == 0.0),
        kind => kind == found,
    }
}

fn keys_of(schema: Schema<'_>, item: &Value) -> Value {
    let mut map = Map::new();
    for key in schema.list_keys() {
        let own = item.get(key).cloned();
        let default =
            || schema.item().and_then(|item| item.field(key)).and_then(|field| field.default().map(Cow::into_owned));
        if let Some(value) = own.or_else(default) {
            map.insert(key.to_owned(), value);
        }
    }
    Value::Object(map)
}

/// The item of the old list that an item of the new one is a new state of; only list maps say.
pub(super) fn counterpart<'v>(schema: Schema<'_>, item: &Value, old: &'v Value) -> Option<&'v Value> {
    if schema.list_kind() != ListKind::Map {
        return None;
    }
    let keys = keys_of(schema, item);
    old.as_array()?.iter().find(|other| keys_of(schema, other) == keys)
}

fn has_duplicates(items: &[Value]) -> bool {
    if items.len() <= MAX_PAIRWISE {
        return items.iter().enumerate().any(|(at, item)| items[..at].contains(item));
    }
    let mut texts: Vec<String> = items.iter().map(Value::to_string).collect();
    texts.sort_unstable();
    texts.windows(2).any(|pair| pair[0] == pair[1])
}

#[cfg(test)]
mod tests;
