//! What Kubernetes' own validation and printers say of objects, against ours.
//!
//! The cases are random objects with many faults; their answers were recorded from kube-apiserver's packages (1.36, default
//! feature gates). Messages are compared word for word.

use diolkos_kinds as kinds;
use kube::Registry;
use kube::codec::{self, Format};
use model::Timestamp;
use serde_json::Value;

/// When the answers were recorded: ages in the cells count to here.
const RECORDED: Timestamp = Timestamp::from_secs(1_795_319_118);

fn cases(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("a recorded case")).collect()
}

/// The object as the server holds it before it validates, and what its kind does.
fn admitted(registry: &Registry, object: &Value) -> (&'static dyn kinds::Kind, Value) {
    let (api_version, name) =
        (object["apiVersion"].as_str().unwrap_or_default(), object["kind"].as_str().unwrap_or_default());
    let (group, version) = kube::registry::split_api_version(api_version);
    let resource = registry.by_kind(group, version, name).expect("a built-in kind");
    let bytes = serde_json::to_vec(object).expect("JSON");
    let mut value = codec::decode(&codec::Kind::of(resource), Format::Json, &bytes).expect("a decodable object").value;
    let kind = kinds::behaviour(group, name);
    kind.defaults(&mut value);
    (kind, value)
}

fn texts(causes: Vec<kinds::Cause>) -> Vec<String> {
    let mut texts: Vec<String> = causes.iter().map(ToString::to_string).collect();
    texts.sort();
    texts.dedup();
    texts
}

fn expected(case: &Value) -> Vec<String> {
    let mut texts: Vec<String> =
        case["errors"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    texts.sort();
    texts
}

#[test]
fn new_objects_are_judged_and_shown_as_kubernetes_does() {
    let registry = Registry::builtin();
    for case in cases(include_str!("kubernetes/create.jsonl")) {
        let (kind, value) = admitted(&registry, &case["object"]);
        assert_eq!(texts(kind.validate_create(&value)), expected(&case), "{}", case["object"]);
        assert_eq!(Value::Array(kind.row(&value, RECORDED).cells), case["cells"], "{}", case["object"]);
    }
}

#[test]
fn changes_are_judged_as_kubernetes_does() {
    let registry = Registry::builtin();
    for case in cases(include_str!("kubernetes/update.jsonl")) {
        let (kind, old) = admitted(&registry, &case["old"]);
        let (_, new) = admitted(&registry, &case["new"]);
        assert_eq!(texts(kind.validate_update(&new, &old)), expected(&case), "{} -> {}", case["old"], case["new"]);
    }
}

#[test]
fn defaults_are_stable() {
    let registry = Registry::builtin();
    for case in cases(include_str!("kubernetes/create.jsonl")) {
        let (kind, value) = admitted(&registry, &case["object"]);
        let mut again = value.clone();
        kind.defaults(&mut again);
        assert_eq!(again, value, "defaulting twice is defaulting once");
    }
}
