//! Tables of custom resources, from the printer columns of their definitions.

use super::{NAME, Row, definition, human_duration, name};
use crate::json::text;
use kube::crd::Column;
use model::Timestamp;
use serde_json::Value;

/// `columnDefinitions`: the name, and the columns that the definition declares.
pub fn custom_columns(columns: &[Column]) -> Value {
    let declared = columns.iter().map(|c| definition(&c.name, &c.kind, &c.format, &c.description, c.priority));
    std::iter::once(NAME.to_json()).chain(declared).collect()
}

/// One row.
pub fn custom_row(columns: &[Column], object: &Value, now: Timestamp) -> Row {
    let cells = columns.iter().map(|column| dated(&column.kind, column.cell(object), now));
    Row::plain(std::iter::once(name(object)).chain(cells).collect())
}

/// Turns the timestamp of a `date` column into an age.
pub(crate) fn dated(kind: &str, cell: Value, now: Timestamp) -> Value {
    if kind != "date" || cell.is_null() {
        return cell;
    }
    Value::from(match crate::time::parse(text(&cell)) {
        Some(at) => human_duration(now.since_ms(at)),
        None => "<invalid>".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::crd::JsonPath;
    use serde_json::json;

    #[test]
    fn rows_of_custom_resources() {
        let column = |name: &str, kind: &str, path: &str| Column {
            name: name.into(),
            kind: kind.into(),
            format: String::new(),
            description: String::new(),
            priority: 0,
            path: JsonPath::parse(path),
        };
        let columns = [
            column("Replicas", "integer", ".spec.replicas"),
            column("Ready", "boolean", ".status.ready"),
            column("Age", "date", ".metadata.creationTimestamp"),
            column("Until", "date", ".spec.until"),
        ];
        let object = json!({"metadata": {"name": "x", "creationTimestamp": "2023-11-14T22:13:10Z"}, "spec": {"replicas": 2, "until": "soon"}});
        let now = Timestamp::from_secs(1_700_000_000);
        assert_eq!(
            custom_row(&columns, &object, now).cells,
            [json!("x"), json!(2), Value::Null, json!("10s"), json!("<invalid>")]
        );
        assert_eq!(custom_columns(&columns).as_array().map(Vec::len), Some(5));
    }
}
