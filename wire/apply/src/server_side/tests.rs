use super::*;
use crate::typed::test_schema;

const DEPLOYMENT: &str = "apps/v1";

fn manager<'a>(name: &'a str, subresource: &'a str, now: &'a str) -> FieldManager<'a> {
    let reset = FieldManager::reset_fields(subresource, true);
    FieldManager {
        schema: test_schema("apps", "v1", "Deployment"),
        api_version: DEPLOYMENT,
        manager: name,
        subresource,
        reset,
        now,
    }
}

fn deployment(rest: Value) -> Value {
    let mut object =
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "namespace": "n"}});
    merge_into(&mut object, rest);
    object
}

fn merge_into(target: &mut Value, patch: Value) {
    crate::merge_patch(target, patch);
}

fn owners(object: &Value) -> BTreeMap<String, Value> {
    ManagedFields::of(object).unwrap().summary()
}

fn created(name: &str, object: Value) -> Value {
    let mut object = object;
    manager(name, "", "2024-01-01T00:00:00Z").update(None, &mut object);
    object["metadata"]["uid"] = json!("u");
    object
}

fn applied(name: &str, live: Option<&Value>, config: Value) -> Result<Value, ApplyError> {
    manager(name, "", "2024-01-01T00:00:00Z").apply(live, &config, false)
}

#[test]
fn a_creator_owns_what_it_wrote() {
    let object = created(
        "kubectl-create",
        deployment(
            json!({"metadata": {"labels": {"app": "d"}}, "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "d"}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}},
            "template": {"metadata": {"labels": {"app": "d"}}, "spec": {"containers": [{"name": "c", "image": "i"}], "securityContext": {}}}},
            "status": {"replicas": 3}}),
        ),
    );
    let entry = &object["metadata"]["managedFields"][0];
    assert_eq!(entry["manager"], "kubectl-create");
    assert_eq!(
        (&entry["operation"], &entry["apiVersion"], &entry["fieldsType"]),
        (&json!("Update"), &json!("apps/v1"), &json!("FieldsV1"))
    );
    assert_eq!(entry["time"], "2024-01-01T00:00:00Z");
    // As kube-apiserver records it: no presence of what Go always prints, no status, no name.
    assert_eq!(
        entry["fieldsV1"],
        json!({
            "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
            "f:spec": {
                "f:replicas": {}, "f:selector": {},
                "f:strategy": {"f:type": {}, "f:rollingUpdate": {".": {}, "f:maxSurge": {}}},
                "f:template": {"f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                    "f:spec": {"f:securityContext": {}, "f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:image": {}, "f:name": {}}}}}
            }
        })
    );
}

#[test]
fn an_updater_owns_what_it_changed() {
    let live = created("a", deployment(json!({"spec": {"replicas": 1, "paused": true}})));
    let mut new = live.clone();
    new["spec"]["replicas"] = json!(2);
    new["spec"].as_object_mut().unwrap().remove("paused");
    manager("b", "", "2024-01-01T00:00:05Z").update(Some(&live), &mut new);
    assert_eq!(owners(&new), BTreeMap::from([("b/Update".into(), json!({"f:spec": {"f:replicas": {}}}))]));
    let before = new.clone();
    manager("c", "", "2024-01-01T00:00:09Z").update(Some(&before), &mut new);
    assert_eq!(new, before, "an update without a change is nobody's");
}

#[test]
fn conflicts_name_the_other_manager() {
    let live = created("kubectl-client-side-apply", deployment(json!({"spec": {"replicas": 1, "paused": true}})));
    let Err(ApplyError::Conflicts(one)) = applied("helm", Some(&live), deployment(json!({"spec": {"replicas": 2}})))
    else {
        panic!("no conflict")
    };
    assert_eq!(
        one.to_string(),
        "Apply failed with 1 conflict: conflict with \"kubectl-client-side-apply\" using apps/v1: .spec.replicas"
    );
    let cause = &one.causes()[0];
    assert_eq!(
        (cause.reason, cause.field.as_str(), cause.message.as_str()),
        ("FieldManagerConflict", ".spec.replicas", "conflict with \"kubectl-client-side-apply\" using apps/v1")
    );
    let two = applied("helm", Some(&live), deployment(json!({"spec": {"replicas": 2, "paused": false}}))).unwrap_err();
    assert_eq!(
        two.to_string(),
        "Apply failed with 2 conflicts: conflicts with \"kubectl-client-side-apply\" using apps/v1:\n- .spec.paused\n- .spec.replicas"
    );
    assert!(
        applied("helm", Some(&live), deployment(json!({"spec": {"replicas": 1}}))).is_ok(),
        "the same value is shared"
    );
}

#[test]
fn force_takes_over() {
    let first = applied("a", None, deployment(json!({"spec": {"replicas": 1}}))).unwrap();
    let config = deployment(json!({"spec": {"replicas": 2}}));
    let wrong = applied("b", Some(&first), config.clone()).unwrap_err();
    assert_eq!(wrong.to_string(), "Apply failed with 1 conflict: conflict with \"a\": .spec.replicas");
    let forced = manager("b", "", "2024-01-02T00:00:00Z").apply(Some(&first), &config, true).unwrap();
    assert_eq!(forced["spec"]["replicas"], 2);
    assert_eq!(owners(&forced), BTreeMap::from([("b/Apply".into(), json!({"f:spec": {"f:replicas": {}}}))]));
}

#[test]
fn what_is_left_out_is_removed() {
    let first = applied(
        "a",
        None,
        deployment(json!({"metadata": {"labels": {"x": "1", "y": "2"}}, "spec": {"replicas": 1, "template": {"spec": {"containers": [
            {"name": "c", "image": "i", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]}, {"name": "d", "image": "j"}]}}}})),
    )
    .unwrap();
    let second = applied(
        "a",
        Some(&first),
        deployment(json!({"metadata": {"labels": {"y": "2"}}, "spec": {"template": {"spec": {"containers": [
            {"name": "c", "image": "i", "env": [{"name": "B", "value": "2"}]}]}}}})),
    )
    .unwrap();
    assert_eq!(second["metadata"]["labels"], json!({"y": "2"}));
    assert_eq!(
        second["spec"],
        json!({"template": {"spec": {"containers": [{"name": "c", "image": "i", "env": [{"name": "B", "value": "2"}]}]}}})
    );
}

#[test]
fn what_others_have_stays() {
    let first =
        applied("a", None, deployment(json!({"metadata": {"labels": {"x": "1"}}, "spec": {"replicas": 1}}))).unwrap();
    let shared = applied("b", Some(&first), deployment(json!({"metadata": {"labels": {"x": "1", "z": "3"}}}))).unwrap();
    let second = applied("a", Some(&shared), deployment(json!({}))).unwrap();
    assert_eq!(second["metadata"]["labels"], json!({"x": "1", "z": "3"}));
    assert!(second.get("spec").is_none_or(|spec| spec.get("replicas").is_none()));
    assert_eq!(owners(&second).keys().collect::<Vec<_>>(), ["b/Apply"]);
    // Nobody's, such as a default that the server filled in, stays too.
    let mut defaulted = first.clone();
    defaulted["spec"]["revisionHistoryLimit"] = json!(10);
    let third = applied("a", Some(&defaulted), deployment(json!({"spec": {"paused": true}}))).unwrap();
    assert_eq!(third["spec"], json!({"paused": true, "revisionHistoryLimit": 10}));
}

#[test]
fn applying_again_changes_nothing() {
    let config = deployment(
        json!({"metadata": {"labels": {"x": "1"}}, "spec": {"replicas": 1, "template": {"spec": {"containers": [{"name": "c"}]}}}}),
    );
    let first = applied("a", None, config.clone()).unwrap();
    let again = manager("a", "", "2025-01-01T00:00:00Z").apply(Some(&first), &config, false).unwrap();
    assert_eq!(again, first, "not even the time");
}

#[test]
fn lists_of_each_kind() {
    let live = created(
        "x",
        deployment(json!({"metadata": {"finalizers": ["a/x"]}, "spec": {"template": {"spec": {"containers": [
            {"name": "a", "args": ["1"]}, {"name": "b"}]}}}})),
    );
    let config = deployment(
        json!({"metadata": {"finalizers": ["a/y"]}, "spec": {"template": {"spec": {"containers": [{"name": "c"}]}}}}),
    );
    let merged = applied("y", Some(&live), config).unwrap();
    assert_eq!(merged["metadata"]["finalizers"], json!(["a/x", "a/y"]), "a set is joined");
    let names: Vec<&Value> =
        merged["spec"]["template"]["spec"]["containers"].as_array().unwrap().iter().map(|c| &c["name"]).collect();
    assert_eq!(names, ["a", "b", "c"], "a list of named items is joined");
    let args = deployment(json!({"spec": {"template": {"spec": {"containers": [{"name": "a", "args": ["2"]}]}}}}));
    let wrong = applied("y", Some(&live), args).unwrap_err();
    assert!(
        wrong.to_string().ends_with(".spec.template.spec.containers[name=\"a\"].args"),
        "an atomic list is one field: {wrong}"
    );
    let twice = deployment(json!({"spec": {"template": {"spec": {"containers": [{"name": "a"}, {"name": "a"}]}}}}));
    assert_eq!(
        applied("y", Some(&live), twice).unwrap_err().to_string(),
        "failed to create typed patch object (n/d; apps/v1, Kind=Deployment): .spec.template.spec.containers: duplicate entries for key [name=\"a\"]"
    );
}

#[test]
fn status_is_another_managers_business() {
    let live = created("a", deployment(json!({"spec": {"replicas": 1}})));
    let mut new = live.clone();
    new["status"] = json!({"replicas": 1});
    manager("a", "status", "2024-01-01T00:00:01Z").update(Some(&live), &mut new);
    assert_eq!(
        owners(&new),
        BTreeMap::from([
            ("a/Update".into(), json!({"f:spec": {"f:replicas": {}}})),
            ("a/Update/status".into(), json!({"f:status": {"f:replicas": {}}}))
        ])
    );
    let with_status =
        applied("b", None, deployment(json!({"spec": {"replicas": 1}, "status": {"replicas": 9}}))).unwrap();
    assert_eq!(
        owners(&with_status)["b/Apply"],
        json!({"f:spec": {"f:replicas": {}}}),
        "status cannot be owned through the main resource"
    );
}

#[test]
fn kubectl_goes_on_from_client_side_apply() {
    let last = deployment(json!({"spec": {"replicas": 1}}));
    let live = created(
        "kubectl-client-side-apply",
        deployment(
            json!({"metadata": {"annotations": {LAST_APPLIED: last.to_string()}}, "spec": {"replicas": 1, "paused": true}}),
        ),
    );
    let merged = applied("kubectl", Some(&live), deployment(json!({"spec": {"replicas": 5}}))).unwrap();
    assert_eq!(merged["spec"]["replicas"], 5);
    let annotation = merged["metadata"]["annotations"][LAST_APPLIED].as_str().unwrap();
    assert!(annotation.contains("\"replicas\":5") && annotation.ends_with('\n'), "kept true: {annotation}");
    let wrong =
        applied("kubectl", Some(&live), deployment(json!({"spec": {"replicas": 5, "paused": false}}))).unwrap_err();
    assert!(
        wrong.to_string().starts_with("Apply failed with 1 conflict") && wrong.to_string().ends_with(".spec.paused"),
        "{wrong}"
    );
    assert!(applied("helm", Some(&live), deployment(json!({"spec": {"replicas": 5}}))).is_err(), "only kubectl");
}

#[test]
fn objects_from_before_managers() {
    let mut live = created("a", deployment(json!({"spec": {"replicas": 1, "paused": true}})));
    take_managed_fields(&mut live);
    let wrong = applied("b", Some(&live), deployment(json!({"spec": {"replicas": 2}}))).unwrap_err();
    assert_eq!(
        wrong.to_string(),
        "Apply failed with 1 conflict: conflict with \"before-first-apply\" using apps/v1: .spec.replicas"
    );
    let mut updated = live.clone();
    updated["spec"]["replicas"] = json!(4);
    manager("c", "", "2024-01-01T00:00:00Z").update(Some(&live), &mut updated);
    assert!(updated["metadata"]["managedFields"].is_null(), "tracked from the first apply on only");
}

#[test]
fn managed_fields_can_be_set_and_reset() {
    let live = created("a", deployment(json!({"spec": {"replicas": 1}})));
    let mut moved = live.clone();
    moved["metadata"]["managedFields"][0]["manager"] = json!("b");
    moved["metadata"]["managedFields"][0]["operation"] = json!("Apply");
    manager("kubectl", "", "2024-01-01T00:00:00Z").update(Some(&live), &mut moved);
    assert_eq!(owners(&moved).keys().collect::<Vec<_>>(), ["b/Apply"]);
    for reset in [json!([]), json!([{}])] {
        let mut forgotten = live.clone();
        forgotten["metadata"]["managedFields"] = reset;
        manager("x", "", "2024-01-01T00:00:00Z").update(Some(&live), &mut forgotten);
        assert!(forgotten["metadata"]["managedFields"].is_null());
    }
    let mut left_out = live.clone();
    take_managed_fields(&mut left_out);
    left_out["spec"]["paused"] = json!(true);
    manager("x", "", "2024-01-01T00:00:00Z").update(Some(&live), &mut left_out);
    assert_eq!(owners(&left_out).keys().collect::<Vec<_>>(), ["a/Update", "x/Update"]);
    let mut broken = live.clone();
    broken["metadata"]["managedFields"] = json!([{"manager": "m", "operation": "Dance"}]);
    manager("x", "", "2024-01-01T00:00:00Z").update(Some(&live), &mut broken);
    assert_eq!(owners(&broken), owners(&live));
}

#[test]
fn many_updaters_become_ancient() {
    let mut live = created("m00", deployment(json!({"metadata": {"labels": {"l00": "x"}}})));
    for number in 1..20 {
        let mut new = live.clone();
        new["metadata"]["labels"][format!("l{number:02}")] = json!("x");
        manager(&format!("m{number:02}"), "", &format!("2024-01-01T00:00:{number:02}Z")).update(Some(&live), &mut new);
        live = new;
    }
    let owners = owners(&live);
    assert_eq!(owners.len(), 10, "{:?}", owners.keys());
    assert!(owners["ancient-changes/Update"]["f:metadata"]["f:labels"]["f:l05"].is_object());
    assert!(owners.contains_key("m19/Update"));
}

#[test]
fn wrong_configurations() {
    let live = created("a", deployment(json!({})));
    let mut other = deployment(json!({}));
    other["apiVersion"] = json!("apps/v2");
    assert_eq!(
        applied("b", Some(&live), other).unwrap_err().to_string(),
        "Incorrect version specified in apply patch. Specified patch version: apps/v2, expected: apps/v1"
    );
    let managed = deployment(json!({"metadata": {"managedFields": []}}));
    assert_eq!(applied("b", Some(&live), managed).unwrap_err(), ApplyError::HasManagedFields);
}

/// Gateway API's definitions say which lists are maps: parents are told apart by their names, filters are one field.
#[test]
fn custom_resources_follow_their_definition() {
    let reset = FieldManager::reset_fields("", true);
    let schema = test_schema("gateway.networking.k8s.io", "v1", "Gateway");
    let writer = |name: &'static str| FieldManager {
        schema,
        api_version: "gateway.networking.k8s.io/v1",
        manager: name,
        subresource: "",
        reset,
        now: "2024-01-01T00:00:00Z",
    };
    let gateway = |rest: Value| {
        let mut object = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"name": "g", "namespace": "n"}});
        merge_into(&mut object, rest);
        object
    };
    let listener = |name: &str, port: u16| json!({"name": name, "port": port, "protocol": "HTTP"});
    let first = writer("a")
        .apply(None, &gateway(json!({"metadata": {"labels": {"x": "1"}}, "spec": {"gatewayClassName": "c", "listeners": [listener("one", 80)]}})), false)
        .unwrap();
    let second = writer("b")
        .apply(
            Some(&first),
            &gateway(json!({"metadata": {"labels": {"y": "2"}}, "spec": {"listeners": [listener("two", 81)]}})),
            false,
        )
        .unwrap();
    assert_eq!(second["spec"]["listeners"], json!([listener("one", 80), listener("two", 81)]));
    assert_eq!(second["metadata"]["labels"], json!({"x": "1", "y": "2"}));
    assert_eq!(
        owners(&second)["b/Apply"],
        json!({"f:metadata": {"f:labels": {"f:y": {}}},
            "f:spec": {"f:listeners": {"k:{\"name\":\"two\"}": {".": {}, "f:name": {}, "f:port": {}, "f:protocol": {}}}}})
    );
    let wrong = writer("b")
        .apply(Some(&first), &gateway(json!({"spec": {"listeners": [listener("one", 90)]}})), false)
        .unwrap_err();
    assert_eq!(
        wrong.to_string(),
        "Apply failed with 1 conflict: conflict with \"a\": .spec.listeners[name=\"one\"].port"
    );
    let created = {
        let mut object = gateway(json!({"metadata": {"labels": {"x": "1"}}, "spec": {"gatewayClassName": "c"}}));
        writer("c").update(None, &mut object);
        owners(&object)["c/Update"].clone()
    };
    assert_eq!(created["f:metadata"], json!({"f:labels": {".": {}, "f:x": {}}}));
    assert_eq!(created["f:spec"]["f:gatewayClassName"], json!({}));
}

mod properties {
    use super::*;
    use proptest::prelude::*;

    /// Small configurations that overlap often.
    fn config() -> impl Strategy<Value = Value> {
        let labels = prop::collection::btree_map("[a-c]", "[xy]", 0..3);
        let env = prop::collection::btree_map("[A-C]", "[12]", 0..3);
        let containers = prop::collection::btree_map("[p-r]", (proptest::option::of("[ij]"), env), 0..3);
        let finalizers = prop::collection::btree_set("f/[a-c]", 0..3);
        (labels, proptest::option::of(0i64..3), containers, finalizers).prop_map(
            |(labels, replicas, containers, finalizers)| {
                let mut object = deployment(json!({}));
                if !labels.is_empty() {
                    object["metadata"]["labels"] = json!(labels);
                }
                if !finalizers.is_empty() {
                    object["metadata"]["finalizers"] = json!(finalizers);
                }
                if let Some(replicas) = replicas {
                    object["spec"]["replicas"] = json!(replicas);
                }
                let containers: Vec<Value> = containers
                    .into_iter()
                    .map(|(name, (image, env))| {
                        let mut container = json!({"name": name});
                        if let Some(image) = image {
                            container["image"] = json!(image);
                        }
                        if !env.is_empty() {
                            container["env"] =
                                env.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
                        }
                        container
                    })
                    .collect();
                if !containers.is_empty() {
                    object["spec"]["template"] = json!({"spec": {"containers": containers}});
                }
                object
            },
        )
    }

    fn fields(object: &Value) -> Set {
        fields_of(object, Type::Known(test_schema("apps", "v1", "Deployment")), true)
            .unwrap()
            .difference(system_fields())
    }

    fn force(name: &str, live: Option<&Value>, config: &Value) -> Value {
        manager(name, "", "2024-01-01T00:00:00Z").apply(live, config, true).unwrap()
    }

    /// The object without order of lists and without managers.
    fn content(object: &Value) -> Value {
        let mut object = object.clone();
        take_managed_fields(&mut object);
        sort(&mut object);
        object
    }

    fn sort(value: &mut Value) {
        match value {
            Value::Object(map) => map.values_mut().for_each(sort),
            Value::Array(items) => {
                items.iter_mut().for_each(sort);
                items.sort_by_key(|item| item["name"].as_str().map_or_else(|| item.to_string(), str::to_owned));
            }
            _ => {}
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn applying_twice_is_applying_once(first in config(), second in config()) {
            let live = force("a", None, &first);
            let once = force("b", Some(&live), &second);
            prop_assert_eq!(force("b", Some(&once), &second), once);
        }

        #[test]
        fn the_last_forced_apply_is_what_it_says(first in config(), second in config()) {
            let live = force("b", Some(&force("a", None, &first)), &second);
            let said = fields(&second);
            let (missing, wanted) = (said.difference(&fields_of(&live, Type::Known(test_schema("apps", "v1", "Deployment")), true).unwrap()), Set::default());
            prop_assert_eq!(missing, wanted);
            let merged = merge(&live, &second, Type::Known(test_schema("apps", "v1", "Deployment"))).unwrap().unwrap();
            prop_assert_eq!(content(&merged), content(&live));
        }

        #[test]
        fn a_single_applier_gets_exactly_its_configuration(first in config(), second in config()) {
            let live = force("a", Some(&force("a", None, &first)), &second);
            prop_assert_eq!(content(&live), content(&second));
        }

        #[test]
        fn appliers_of_other_fields_keep_theirs(first in config(), second in config(), third in config()) {
            // b leaves again what it took nothing from: a's fields that b never said are as a said.
            let live = force("a", None, &first);
            let both = force("b", Some(&live), &second);
            let after = force("b", Some(&both), &third);
            let touched = fields(&second).union(&fields(&third));
            let kept = fields(&first).difference(&touched);
            let now = fields_of(&after, Type::Known(test_schema("apps", "v1", "Deployment")), true).unwrap();
            prop_assert_eq!(kept.difference(&now), Set::default());
        }

        #[test]
        fn without_conflict_the_order_of_appliers_does_not_matter(first in config(), second in config()) {
            let a = manager("a", "", "2024-01-01T00:00:00Z");
            let b = manager("b", "", "2024-01-01T00:00:00Z");
            let ab = b.apply(Some(&force("a", None, &first)), &second, false);
            let ba = a.apply(Some(&force("b", None, &second)), &first, false);
            match (ab, ba) {
                (Ok(ab), Ok(ba)) => {
                    prop_assert_eq!(content(&ab), content(&ba));
                    prop_assert_eq!(owners(&ab), owners(&ba));
                }
                (Err(_), Err(_)) => {}
                (ab, ba) => prop_assert!(false, "only one way conflicts: {ab:?} {ba:?}"),
            }
        }

        #[test]
        fn a_conflict_is_a_difference_between_two_said_fields(first in config(), second in config()) {
            let live = force("a", None, &first);
            let common = fields(&first).intersection(&fields(&second));
            match manager("b", "", "2024-01-01T00:00:00Z").apply(Some(&live), &second, false) {
                Err(ApplyError::Conflicts(conflicts)) => {
                    prop_assert!(conflicts.0.iter().all(|conflict| common.has(&conflict.path)));
                }
                other => prop_assert!(other.is_ok()),
            }
        }

        #[test]
        fn field_sets_survive_their_encoding(object in config()) {
            let set = fields(&object);
            prop_assert_eq!(Set::from_json(&set.to_json()).unwrap(), set);
        }
    }
}
