//! Printer columns and the part of JSONPath that they use.

use serde_json::Value;

/// One `additionalPrinterColumns` entry.
#[derive(Clone, Debug)]
pub struct Column {
    /// Heading.
    pub name: String,
    /// `string`, `integer`, `number`, `boolean` or `date`.
    pub kind: String,
    /// `format` of OpenAPI, mostly empty.
    pub format: String,
    /// What it shows.
    pub description: String,
    /// 0 is shown always, others with `-o wide` only.
    pub priority: i32,
    /// Where the value is.
    pub path: JsonPath,
}

/// The column of a definition that declares none.
pub(super) fn age() -> Column {
    Column {
        name: "Age".to_owned(),
        kind: "date".to_owned(),
        format: String::new(),
        description: "CreationTimestamp is a timestamp representing the server time when this object was created."
            .to_owned(),
        priority: 0,
        path: JsonPath::parse(".metadata.creationTimestamp"),
    }
}

impl Column {
    pub(super) fn from_value(value: &Value) -> Self {
        let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
        Column {
            name: text("name"),
            kind: text("type"),
            format: text("format"),
            description: text("description"),
            priority: value["priority"].as_i64().unwrap_or(0) as i32,
            path: JsonPath::parse(value["jsonPath"].as_str().unwrap_or_default()),
        }
    }

    /// The cell for an object: the first value found, in the column's type; null when there is none or it does not fit. For
    /// `date` it is the timestamp text itself: the age needs a clock, which this crate has not.
    pub fn cell(&self, object: &Value) -> Value {
        let found = self.path.find(object);
        let Some(first) = found.first() else { return Value::Null };
        match self.kind.as_str() {
            "integer" => first.as_i64().or_else(|| first.as_f64().map(|f| f as i64)).map_or(Value::Null, Value::from),
            "number" => first.as_f64().map_or(Value::Null, Value::from),
            "boolean" => first.as_bool().map_or(Value::Null, Value::from),
            "string" => Value::String(shown(first)),
            _ => first.as_str().map_or(Value::Null, Value::from),
        }
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// A JSONPath with fields, quoted fields, indexes, slices, `[*]`, `..` and filters `[?(@.a=="b")]`. Anything else finds nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonPath {
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    Index(i64),
    Slice(Option<i64>, Option<i64>),
    All,
    Deep(String),
    Filter {
        path: Vec<String>,
        compare: Compare,
        with: Value,
    },
    /// A step that is not understood matches nothing rather than something else.
    Nothing,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Compare {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Exists,
}

impl JsonPath {
    /// Reads a path; with or without surrounding braces.
    pub fn parse(text: &str) -> Self {
        let text = text.trim();
        let text = text.strip_prefix('{').and_then(|inner| inner.strip_suffix('}')).unwrap_or(text);
        let mut rest = text.strip_prefix('$').unwrap_or(text);
        let mut steps = Vec::new();
        while !rest.is_empty() {
            let (step, after) = step(rest);
            steps.push(step);
            rest = after;
        }
        JsonPath { steps }
    }

    /// All values that the path finds, in order.
    pub fn find<'v>(&self, root: &'v Value) -> Vec<&'v Value> {
        let mut found = vec![root];
        for step in &self.steps {
            found = found.into_iter().flat_map(|value| step.apply(value)).collect();
        }
        found
    }
}

fn step(text: &str) -> (Step, &str) {
    if let Some(rest) = text.strip_prefix("..") {
        let (name, rest) = name(rest);
        return (if name.is_empty() { Step::Nothing } else { Step::Deep(name) }, rest);
    }
    if let Some(rest) = text.strip_prefix('[') {
        let Some(end) = closing(rest) else { return (Step::Nothing, "") };
        return (bracket(rest[..end].trim()), &rest[end + 1..]);
    }
    let rest = text.strip_prefix('.').unwrap_or(text);
    if rest.is_empty() || rest.starts_with('[') {
        return if rest.is_empty() { (Step::Nothing, "") } else { step(rest) };
    }
    let (name, rest) = name(rest);
    let step = if name == "*" { Step::All } else { Step::Field(name) };
    (step, rest)
}

/// A name up to the next dot or bracket; a backslash keeps the character after it (`metadata.annotations.a\.b`).
fn name(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '.' | '[' => return (name, &text[at..]),
            '\\' => name.extend(chars.next().map(|(_, c)| c)),
            c => name.push(c),
        }
    }
    (name, "")
}

/// Position of the bracket that closes, not looking inside quotes.
fn closing(text: &str) -> Option<usize> {
    let (mut quote, mut depth) = (None, 0);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some(at),
            (None, ']') => depth -= 1,
            _ => {}
        }
    }
    None
}

fn bracket(text: &str) -> Step {
    if text == "*" {
        return Step::All;
    }
    if let Some(filter) = text.strip_prefix("?(").and_then(|rest| rest.strip_suffix(')')) {
        return filter_step(filter.trim());
    }
    if let Some(name) = unquote(text) {
        return Step::Field(name);
    }
    if let Some((from, to)) = text.split_once(':') {
        let bound = |text: &str| if text.trim().is_empty() { Some(None) } else { text.trim().parse().ok().map(Some) };
        return match (bound(from), bound(to)) {
            (Some(from), Some(to)) => Step::Slice(from, to),
            _ => Step::Nothing,
        };
    }
    text.parse().map_or(Step::Nothing, Step::Index)
}

fn unquote(text: &str) -> Option<String> {
    let inner = [('\'', '\''), ('"', '"')].iter().find_map(|(a, b)| text.strip_prefix(*a)?.strip_suffix(*b))?;
    Some(inner.replace("\\", ""))
}

fn filter_step(text: &str) -> Step {
    let operators = [
        ("==", Compare::Equal),
        ("!=", Compare::NotEqual),
        ("<=", Compare::LessOrEqual),
        (">=", Compare::GreaterOrEqual),
        ("<", Compare::Less),
        (">", Compare::Greater),
    ];
    let found = operators.iter().find_map(|(sign, compare)| text.split_once(sign).map(|(a, b)| (a, *compare, b)));
    let (left, compare, right) = found.unwrap_or((text, Compare::Exists, "null"));
    let Some(path) = left.trim().strip_prefix('@') else { return Step::Nothing };
    let mut keys = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        match step(rest) {
            (Step::Field(key), after) => {
                keys.push(key);
                rest = after;
            }
            _ => return Step::Nothing,
        }
    }
    let right = right.trim();
    let with = unquote(right).map(Value::String).or_else(|| serde_json::from_str(right).ok());
    with.map_or(Step::Nothing, |with| Step::Filter { path: keys, compare, with })
}

impl Step {
    fn apply<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        match (self, value) {
            (Step::Field(name), Value::Object(map)) => map.get(name).into_iter().collect(),
            (Step::Index(at), Value::Array(items)) => {
                position(*at, items.len()).and_then(|at| items.get(at)).into_iter().collect()
            }
            (Step::Slice(from, to), Value::Array(items)) => {
                let bound = |at: Option<i64>, default| {
                    at.map_or(default, |at| position(at, items.len()).unwrap_or(0).min(items.len()))
                };
                let (from, to) = (bound(*from, 0), bound(*to, items.len()));
                items.get(from..to).unwrap_or_default().iter().collect()
            }
            (Step::All, Value::Array(items)) => items.iter().collect(),
            (Step::All, Value::Object(map)) => map.values().collect(),
            (Step::Deep(name), value) => {
                let mut found = Vec::new();
                deep(name, value, &mut found);
                found
            }
            (Step::Filter { path, compare, with }, Value::Array(items)) => {
                items.iter().filter(|item| matches(item, path, *compare, with)).collect()
            }
            _ => Vec::new(),
        }
    }
}

fn position(at: i64, len: usize) -> Option<usize> {
    if at >= 0 { usize::try_from(at).ok() } else { len.checked_sub(at.unsigned_abs() as usize) }
}

fn deep<'v>(name: &str, value: &'v Value, found: &mut Vec<&'v Value>) {
    match value {
        Value::Object(map) => {
            found.extend(map.get(name));
            map.values().for_each(|child| deep(name, child, found));
        }
        Value::Array(items) => items.iter().for_each(|child| deep(name, child, found)),
        _ => {}
    }
}

fn matches(item: &Value, path: &[String], compare: Compare, with: &Value) -> bool {
    let Some(found) = path.iter().try_fold(item, |at, key| at.get(key)) else { return false };
    let order = || match (found, with) {
        (Value::Number(a), Value::Number(b)) => a.as_f64().partial_cmp(&b.as_f64()),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        _ => None,
    };
    match compare {
        Compare::Exists => true,
        Compare::Equal => found == with,
        Compare::NotEqual => found != with,
        Compare::Less => order().is_some_and(std::cmp::Ordering::is_lt),
        Compare::LessOrEqual => order().is_some_and(std::cmp::Ordering::is_le),
        Compare::Greater => order().is_some_and(std::cmp::Ordering::is_gt),
        Compare::GreaterOrEqual => order().is_some_and(std::cmp::Ordering::is_ge),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_find_what_kubectl_would() {
        let object = json!({
            "metadata": {"name": "a", "annotations": {"x.y/z": "v"}},
            "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Synced", "status": "False"}],
                "addresses": [{"value": "1.1.1.1"}, {"value": "2.2.2.2"}], "n": [1, 2, 3]},
        });
        for (path, found) in [
            (".metadata.name", json!(["a"])),
            ("{.metadata.name}", json!(["a"])),
            ("$.metadata.name", json!(["a"])),
            (".metadata.annotations.x\\.y/z", json!(["v"])),
            (".metadata.annotations['x\\.y/z']", json!(["v"])),
            (".metadata.annotations[\"x.y/z\"]", json!(["v"])),
            (".status.conditions[?(@.type==\"Ready\")].status", json!(["True"])),
            (".status.conditions[?(@.type=='Synced')].status", json!(["False"])),
            (".status.conditions[?(@.type!=\"Ready\")].type", json!(["Synced"])),
            (".status.conditions[?(@.missing)].type", json!([])),
            (".status.addresses[*].value", json!(["1.1.1.1", "2.2.2.2"])),
            (".status.addresses[0].value", json!(["1.1.1.1"])),
            (".status.addresses[-1].value", json!(["2.2.2.2"])),
            (".status.n[0:2]", json!([1, 2])),
            (".status.n[?(@>1)]", json!([2, 3])),
            ("..value", json!(["1.1.1.1", "2.2.2.2"])),
            (".missing.deeper", json!([])),
            (".status.conditions[", json!([])),
            ("[?(", json!([])),
            ("..", json!([])),
        ] {
            let values: Vec<Value> = JsonPath::parse(path).find(&object).into_iter().cloned().collect();
            assert_eq!(Value::Array(values), found, "{path}");
        }
    }

    #[test]
    fn cells_have_the_type_of_their_column() {
        let object = json!({"spec": {"n": 3, "s": "x", "b": true, "l": ["a", "b"]}});
        for (kind, path, cell) in [
            ("integer", ".spec.n", json!(3)),
            ("string", ".spec.n", json!("3")),
            ("integer", ".spec.s", Value::Null),
            ("boolean", ".spec.b", json!(true)),
            ("string", ".spec.l[*]", json!("a")),
            ("string", ".spec.l", json!("[\"a\",\"b\"]")),
            ("string", ".spec.none", Value::Null),
        ] {
            let column = Column { kind: kind.to_owned(), path: JsonPath::parse(path), ..age() };
            assert_eq!(column.cell(&object), cell, "{kind} {path}");
        }
    }
}
