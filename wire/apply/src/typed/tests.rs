use super::*;
use crate::fields::Set;
use serde_json::json;

fn pod() -> Type<'static> {
    Type::Known(test_schema("", "v1", "Pod"))
}

fn service() -> Type<'static> {
    Type::Known(test_schema("", "v1", "Service"))
}

#[test]
fn fields_of_a_pod() {
    let value = json!({"metadata": {"labels": {"a": "b"}, "finalizers": ["x"]}, "spec": {
        "nodeSelector": {"k": "v"}, "containers": [{"name": "c", "args": ["1"], "resources": {"limits": {"cpu": "1"}}}], "securityContext": {}}});
    let expected = json!({
        "f:metadata": {"f:labels": {"f:a": {}}, "f:finalizers": {"v:\"x\"": {}}},
        "f:spec": {"f:nodeSelector": {}, "f:securityContext": {}, "f:containers": {"k:{\"name\":\"c\"}": {
            ".": {}, "f:name": {}, "f:args": {}, "f:resources": {"f:limits": {"f:cpu": {}}}}}}
    });
    assert_eq!(fields_of(&value, pod(), true).unwrap().to_json(), expected);
}

#[test]
fn items_are_told_apart_with_defaults() {
    let fields =
        fields_of(&json!({"spec": {"ports": [{"port": 80}, {"port": 80, "protocol": "UDP"}]}}), service(), true)
            .unwrap();
    let ports = &fields.to_json()["f:spec"]["f:ports"];
    assert!(ports.get("k:{\"port\":80,\"protocol\":\"TCP\"}").is_some(), "{ports}");
    assert!(ports.get("k:{\"port\":80,\"protocol\":\"UDP\"}").is_some());
}

#[test]
fn doubles_are_refused_where_they_are_applied() {
    let twice = json!({"spec": {"containers": [{"name": "a"}, {"name": "a"}]}});
    let wrong = fields_of(&twice, pod(), true).unwrap_err();
    assert_eq!(wrong.to_string(), ".spec.containers: duplicate entries for key [name=\"a\"]");
    assert!(fields_of(&twice, pod(), false).is_ok());
    assert!(fields_of(&json!({"spec": {"containers": [{"image": "x"}]}}), pod(), true).is_err());
}

#[test]
fn merging_keeps_orders() {
    let names = |value: &Value| -> Vec<String> {
        value["spec"]["containers"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap().to_owned()).collect()
    };
    let of = |names: &[&str]| -> Value {
        json!({"spec": {"containers": names.iter().map(|name| json!({"name": name})).collect::<Vec<_>>()}})
    };
    for (left, right, expected) in [
        (&["a", "b", "c"][..], &["b"][..], &["a", "b", "c"][..]),
        (&["a", "b"], &["c"], &["a", "b", "c"]),
        (&["a", "b", "c"], &["c", "a"], &["b", "c", "a"]),
        (&["a", "b"], &["b", "a"], &["b", "a"]),
        (&["a", "x", "b"], &["a", "n", "b"], &["a", "x", "n", "b"]),
        (&[], &["b", "a"], &["b", "a"]),
    ] {
        let merged = merge(&of(left), &of(right), pod()).unwrap().unwrap();
        assert_eq!(names(&merged), expected, "{left:?} + {right:?}");
    }
}

#[test]
fn comparing() {
    let left = json!({"spec": {"nodeName": "a", "containers": [{"name": "x", "image": "1"}, {"name": "y"}]}});
    let right = json!({"spec": {"nodeName": "b", "hostname": "h", "containers": [{"name": "x", "image": "2"}]}});
    let found = compare(&left, &right, pod()).unwrap();
    assert_eq!(
        found.modified.to_json(),
        json!({"f:spec": {"f:nodeName": {}, "f:containers": {"k:{\"name\":\"x\"}": {"f:image": {}}}}})
    );
    assert_eq!(found.added.to_json(), json!({"f:spec": {"f:hostname": {}}}));
    assert_eq!(
        found.removed.to_json(),
        json!({"f:spec": {"f:containers": {"k:{\"name\":\"y\"}": {".": {}, "f:name": {}}}}})
    );
    let none = compare(&left, &left, pod()).unwrap();
    assert!(none.added.is_empty() && none.modified.is_empty() && none.removed.is_empty());
}

#[test]
fn removing() {
    let value = json!({"spec": {"nodeName": "a", "containers": [{"name": "x", "image": "1"}, {"name": "y"}]}});
    let gone = Set::from_json(&json!({"f:spec": {"f:nodeName": {}, "f:containers": {"k:{\"name\":\"y\"}": {}, "k:{\"name\":\"x\"}": {"f:image": {}}}}})).unwrap();
    assert_eq!(remove(&value, &gone, pod()), Some(json!({"spec": {"containers": [{"name": "x"}]}})));
}
