use super::*;
use serde_json::json;

fn pod() -> Schema<'static> {
    crate::typed::test_schema("", "v1", "Pod")
}

fn deployment() -> Schema<'static> {
    crate::typed::test_schema("apps", "v1", "Deployment")
}

fn merged(schema: Schema<'_>, original: Value, patch: Value) -> Result<Value, String> {
    let mut original = original;
    strategic_merge(&mut original, patch, schema).map(|()| original).map_err(|wrong| wrong.to_string())
}

fn names(list: &Value, key: &str) -> Vec<String> {
    list.as_array().unwrap().iter().map(|item| item[key].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn maps_merge_and_nulls_remove() {
    let result = merged(
        pod(),
        json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {"nodeName": "n"}}),
        json!({"metadata": {"labels": {"a": null, "c": "3"}}, "spec": {"hostname": "h", "nodeName": null}}),
    );
    assert_eq!(result, Ok(json!({"metadata": {"labels": {"b": "2", "c": "3"}}, "spec": {"hostname": "h"}})));
}

#[test]
fn lists_merge_by_key() {
    let live =
        json!({"spec": {"containers": [{"name": "a", "image": "x:1", "args": ["1"]}, {"name": "b", "image": "y"}]}});
    let patch =
        json!({"spec": {"containers": [{"name": "a", "image": "x:2"}, {"name": "c", "image": "z", "tty": null}]}});
    let result = merged(pod(), live, patch).unwrap();
    assert_eq!(
        result["spec"]["containers"],
        json!([{"name": "a", "image": "x:2", "args": ["1"]}, {"name": "c", "image": "z"}, {"name": "b", "image": "y"}])
    );
    let atomic = merged(
        pod(),
        json!({"spec": {"containers": [{"name": "a", "args": ["1", "2"]}]}}),
        json!({"spec": {"containers": [{"name": "a", "args": ["3"]}]}}),
    );
    assert_eq!(atomic.unwrap()["spec"]["containers"][0]["args"], json!(["3"]));
}

#[test]
fn directives_in_lists() {
    let live = json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}, {"name": "c"}]}});
    let deleted =
        merged(pod(), live.clone(), json!({"spec": {"containers": [{"name": "b", "$patch": "delete"}]}})).unwrap();
    assert_eq!(names(&deleted["spec"]["containers"], "name"), ["a", "c"]);
    let replaced =
        merged(pod(), live.clone(), json!({"spec": {"containers": [{"$patch": "replace"}, {"name": "z"}]}})).unwrap();
    assert_eq!(replaced["spec"]["containers"], json!([{"name": "z"}]));
    let unknown = merged(pod(), live.clone(), json!({"spec": {"containers": [{"name": "a", "$patch": "mix"}]}}));
    assert!(unknown.unwrap_err().starts_with("unknown patch type: \"mix\" in map"));
    let no_key = merged(pod(), live, json!({"spec": {"containers": [{"image": "x"}]}}));
    assert_eq!(no_key.unwrap_err(), "map: {\"image\":\"x\"} does not contain declared merge key: name");
}

#[test]
fn directives_in_maps() {
    let live = json!({"metadata": {"labels": {"a": "1"}}, "spec": {"nodeSelector": {"x": "y"}}});
    let patch = json!({"metadata": {"labels": {"$patch": "replace", "b": "2"}}, "spec": {"nodeSelector": {"$patch": "delete"}}});
    assert_eq!(
        merged(pod(), live, patch),
        Ok(json!({"metadata": {"labels": {"b": "2"}}, "spec": {"nodeSelector": {}}}))
    );
}

#[test]
fn lists_of_scalars() {
    let live = json!({"metadata": {"finalizers": ["a", "b"]}});
    let added = merged(pod(), live.clone(), json!({"metadata": {"finalizers": ["c", "a"]}})).unwrap();
    // The patch orders c and a; the live list puts b after a.
    assert_eq!(added["metadata"]["finalizers"], json!(["c", "a", "b"]));
    let removed =
        merged(pod(), live.clone(), json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a", "zz"]}}));
    assert_eq!(removed.unwrap()["metadata"]["finalizers"], json!(["b"]));
    let both = merged(
        pod(),
        live,
        json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "$setElementOrder/finalizers": ["c", "b"], "finalizers": ["c"]}}),
    );
    assert_eq!(both.unwrap()["metadata"]["finalizers"], json!(["c", "b"]));
}

#[test]
fn element_order() {
    let live = json!({"spec": {"containers": [{"name": "a"}, {"name": "server"}, {"name": "b"}]}});
    let patch = json!({"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "c"}, {"name": "a"}],
        "containers": [{"name": "c", "image": "i"}]}});
    let result = merged(pod(), live.clone(), patch).unwrap();
    let order = names(&result["spec"]["containers"], "name");
    assert_eq!(order.iter().filter(|name| *name != "server").collect::<Vec<_>>(), ["b", "c", "a"]);
    assert_eq!(order.len(), 4);
    let only_order =
        merged(pod(), live.clone(), json!({"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}}));
    let order = names(&only_order.unwrap()["spec"]["containers"], "name");
    assert_eq!(order.iter().filter(|name| *name != "server").collect::<Vec<_>>(), ["b", "a"]);
    let wrong = json!({"spec": {"$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "x"}]}});
    assert!(merged(pod(), live, wrong).unwrap_err().starts_with("The order in patch list"));
    let fresh = json!({"spec": {"$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "a"}]}});
    assert_eq!(merged(pod(), json!({"spec": {}}), fresh), Ok(json!({"spec": {"containers": [{"name": "a"}]}})));
}

/// What `kubectl apply` sends when a Deployment's strategy goes from RollingUpdate to Recreate.
#[test]
fn retain_keys() {
    let live = json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
    let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
    assert_eq!(merged(deployment(), live.clone(), patch), Ok(json!({"spec": {"strategy": {"type": "Recreate"}}})));
    let wrong = json!({"spec": {"strategy": {"$retainKeys": ["rollingUpdate"], "type": "Recreate"}}});
    assert_eq!(merged(deployment(), live, wrong), Err("invalid patch format of retainKeys".into()));
    // A fresh object keeps no directive.
    let fresh = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
    assert_eq!(merged(deployment(), json!({}), fresh), Ok(json!({"spec": {"strategy": {"type": "Recreate"}}})));
}

#[test]
fn nothing_hostile_gets_through() {
    let mut deep = json!({"a": 1});
    for _ in 0..400 {
        deep = json!({"metadata": deep});
    }
    let live = deep.clone();
    assert_eq!(merged(pod(), live, deep), Err(StrategicError::TooDeep.to_string()));
    assert_eq!(merged(pod(), json!({}), json!([])), Err("invalid JSON document".into()));
    let mixed = json!({"spec": {"containers": [{"name": "a"}, 1]}});
    assert!(merged(pod(), json!({"spec": {"containers": [{"name": "a"}]}}), mixed).is_err());
}

mod properties {
    use super::*;
    use proptest::prelude::*;

    fn containers() -> impl Strategy<Value = Vec<Value>> {
        prop::collection::btree_map("[a-e]", proptest::option::of("[xy]"), 0..5)
            .prop_map(|map| {
                let item = |(name, image): (String, Option<String>)| match image {
                    Some(image) => json!({"name": name, "image": image}),
                    None => json!({"name": name}),
                };
                map.into_iter().map(item).collect::<Vec<_>>()
            })
            .prop_shuffle()
    }

    fn of(containers: &[Value]) -> Value {
        json!({"spec": {"containers": containers}})
    }

    fn relative(list: &[String], among: &[String]) -> Vec<String> {
        list.iter().filter(|name| among.contains(name)).cloned().collect()
    }

    fn names_of(list: &[Value]) -> Vec<String> {
        list.iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
    }

    proptest! {
        #[test]
        fn merging_is_idempotent(live in containers(), patch in containers()) {
            let once = merged(pod(), of(&live), of(&patch)).unwrap();
            prop_assert_eq!(merged(pod(), once.clone(), of(&patch)).unwrap(), once);
        }

        #[test]
        fn every_item_is_there_once_and_both_orders_are_kept(live in containers(), patch in containers()) {
            let result = merged(pod(), of(&live), of(&patch)).unwrap();
            let order = names(&result["spec"]["containers"], "name");
            let (live_names, patch_names) = (names_of(&live), names_of(&patch));
            let mut all: Vec<String> = live_names.iter().chain(&patch_names).cloned().collect();
            all.sort();
            all.dedup();
            let mut sorted = order.clone();
            sorted.sort();
            prop_assert_eq!(sorted, all);
            prop_assert_eq!(relative(&order, &patch_names), patch_names.clone());
            let server_only: Vec<String> = live_names.iter().filter(|name| !patch_names.contains(name)).cloned().collect();
            prop_assert_eq!(relative(&order, &server_only), server_only);
        }

        #[test]
        fn what_is_deleted_is_gone_and_nothing_else(live in containers(), gone in "[a-e]") {
            let patch = json!({"spec": {"containers": [{"name": gone, "$patch": "delete"}]}});
            let result = merged(pod(), of(&live), patch).unwrap();
            let kept: Vec<Value> = live.iter().filter(|item| item["name"] != gone.as_str()).cloned().collect();
            prop_assert_eq!(&result["spec"]["containers"], &json!(kept));
        }
    }
}
