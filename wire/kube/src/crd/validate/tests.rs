use crate::codec::{Format, Kind, decode};
use crate::crd::CustomResource;
use crate::registry::{Registry, Resource};
use serde_json::{Value, json};
use std::sync::Arc;

fn definition(spec: Value) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "crontabs.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "crontabs", "kind": "CronTab", "shortNames": ["ct"]},
            "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"status": {},
                    "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}},
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}}}]},
    })
}

fn resource(spec: Value) -> Arc<Resource> {
    CustomResource::from_object(&definition(spec)).unwrap().resources().next().unwrap()
}

fn faults(spec: Value, value: Value) -> Vec<String> {
    let resource = resource(spec);
    let custom = resource.custom().unwrap();
    custom.validate(&json!({"spec": value})).iter().map(|cause| format!("{}|{}", cause.reason, cause)).collect()
}

#[test]
fn causes_are_worded_as_kubernetes_words_them() {
    for (schema, value, expected) in [
        (
            json!({"type": "integer"}),
            json!("x"),
            r#"FieldValueTypeInvalid|spec: Invalid value: "string": spec in body must be of type integer: "string""#,
        ),
        (
            json!({"type": "string"}),
            Value::Null,
            r#"FieldValueTypeInvalid|spec: Invalid value: "null": spec in body must be of type string: "null""#,
        ),
        (
            json!({"type": "integer", "minimum": 1}),
            json!(0),
            "FieldValueInvalid|spec: Invalid value: 0: spec in body should be greater than or equal to 1",
        ),
        (
            json!({"type": "integer", "maximum": 9, "exclusiveMaximum": true}),
            json!(9),
            "FieldValueInvalid|spec: Invalid value: 9: spec in body should be less than 9",
        ),
        (
            json!({"type": "number", "multipleOf": 0.5}),
            json!(0.7),
            "FieldValueInvalid|spec: Invalid value: 0.7: spec in body should be a multiple of 0.5",
        ),
        (
            json!({"type": "string", "pattern": "^a+$"}),
            json!("b"),
            r#"FieldValueInvalid|spec: Invalid value: "b": spec in body should match '^a+$'"#,
        ),
        (
            json!({"type": "string", "minLength": 2}),
            json!("é"),
            r#"FieldValueInvalid|spec: Invalid value: "é": spec in body should be at least 2 chars long"#,
        ),
        (
            json!({"type": "string", "maxLength": 1}),
            json!("ab"),
            "FieldValueTooLong|spec: Too long: may not be more than 1 byte",
        ),
        (
            json!({"type": "string", "enum": ["a", "b"]}),
            json!("c"),
            r#"FieldValueNotSupported|spec: Unsupported value: "c": supported values: "a", "b""#,
        ),
        (
            json!({"type": "string", "format": "date-time"}),
            json!("x"),
            r#"FieldValueTypeInvalid|spec: Invalid value: "x": spec in body must be of type date-time: "x""#,
        ),
        (
            json!({"type": "array", "items": {"type": "string"}, "maxItems": 1}),
            json!(["a", "b"]),
            "FieldValueTooMany|spec: Too many: 2: must have at most 1 item",
        ),
        (
            json!({"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"}),
            json!(["a", "a"]),
            r#"FieldValueDuplicate|spec[1]: Duplicate value: "a""#,
        ),
        (
            json!({"type": "object", "required": ["a"], "properties": {"a": {"type": "string"}}}),
            json!({}),
            "FieldValueRequired|spec.a: Required value",
        ),
        (
            json!({"type": "object", "additionalProperties": {"type": "integer"}}),
            json!({"k": true}),
            r#"FieldValueTypeInvalid|spec.k: Invalid value: "boolean": spec.k in body must be of type integer: "boolean""#,
        ),
        (
            json!({"x-kubernetes-int-or-string": true}),
            json!(true),
            r#"FieldValueTypeInvalid|spec: Invalid value: "boolean": spec in body must be of type integer,string: "boolean""#,
        ),
        (
            json!({"type": "string", "not": {"enum": ["x"]}}),
            json!("x"),
            r#"FieldValueInvalid|<nil>: Invalid value: "": "spec" must not validate the schema (not)"#,
        ),
        (
            json!({"type": "integer", "oneOf": [{"minimum": 1}, {"minimum": 2}]}),
            json!(3),
            r#"FieldValueInvalid|<nil>: Invalid value: "": "spec" must validate one and only one schema (oneOf). Found 2 valid alternatives"#,
        ),
    ] {
        assert_eq!(faults(schema.clone(), value), [expected], "{schema}");
    }
}

#[test]
fn junctors_tell_the_branch_that_came_closest() {
    let schema = json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}, "c": {"type": "string"}},
        "anyOf": [{"required": ["a", "b"]}, {"required": ["c"]}]});
    let found = faults(schema.clone(), json!({}));
    assert_eq!(
        found,
        [
            "FieldValueRequired|spec.c: Required value",
            r#"FieldValueInvalid|<nil>: Invalid value: "": "spec" must validate at least one schema (anyOf)"#
        ]
    );
    assert!(faults(schema, json!({"c": ""})).is_empty());
}

#[test]
fn list_maps_tell_items_apart_by_their_keys_and_defaults() {
    let schema = json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port", "protocol"],
        "items": {"type": "object", "required": ["port"], "properties": {"port": {"type": "integer"}, "protocol": {"type": "string", "default": "TCP"}}}});
    let value = json!([{"port": 1}, {"port": 2}, {"port": 1, "protocol": "TCP"}, {"port": 1, "protocol": "UDP"}]);
    assert_eq!(faults(schema, value), [r#"FieldValueDuplicate|spec[2]: Duplicate value: {"port":1,"protocol":"TCP"}"#]);
}

#[test]
fn what_did_not_change_is_not_held_against_the_writer() {
    let resource = resource(
        json!({"type": "object", "properties": {"old": {"type": "integer", "maximum": 1}, "new": {"type": "integer", "maximum": 1}}}),
    );
    let custom = resource.custom().unwrap();
    let old = json!({"spec": {"old": 5}});
    let causes = custom.validate_update(&json!({"spec": {"old": 5, "new": 5}}), Some(&old));
    assert_eq!(causes.iter().map(|cause| cause.field.as_str()).collect::<Vec<_>>(), ["spec.new"]);
}

#[test]
fn objects_are_pruned_and_defaulted() {
    let resource = resource(json!({"type": "object", "properties": {
        "replicas": {"type": "integer", "default": 1}, "image": {"type": "string"},
        "nested": {"type": "object", "default": {}, "properties": {"deep": {"type": "string", "default": "d"}}},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"known": {"type": "object", "properties": {}}}},
        "either": {"x-kubernetes-int-or-string": true},
        "list": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string"}}}},
        "template": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true},
    }}));
    let body = json!({"metadata": {"name": "x", "creationTimestamp": null, "labels": {}, "nonsense": 1},
        "spec": {"replicas": null, "imag": "i", "free": {"x": {"y": 1}, "known": {"z": 1}}, "either": "50%", "list": [{"a": "b", "c": 1}],
            "template": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "t", "bad": 1}, "spec": {"any": 1}}}, "extra": 1});
    let mut decoded = decode(&Kind::of(&resource), Format::Json, body.to_string().as_bytes()).unwrap();
    decoded.problems.sort();
    assert_eq!(
        decoded.problems,
        [
            r#"unknown field "extra""#,
            r#"unknown field "metadata.nonsense""#,
            r#"unknown field "spec.free.known.z""#,
            r#"unknown field "spec.imag""#,
            r#"unknown field "spec.list[0].c""#,
            r#"unknown field "spec.template.metadata.bad""#
        ]
    );
    resource.custom().unwrap().set_defaults(&mut decoded.value);
    assert_eq!(
        decoded.value,
        json!({"apiVersion": "example.com/v1", "kind": "CronTab", "metadata": {"name": "x"},
            "spec": {"replicas": 1, "nested": {"deep": "d"}, "free": {"x": {"y": 1}, "known": {}}, "either": "50%", "list": [{"a": "b"}],
                "template": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "t"}, "spec": {"any": 1}}}})
    );
}

#[test]
fn definitions_at_fault_say_where() {
    for (change, value, expected) in [
        (
            "/spec/scope",
            json!("Nowhere"),
            r#"spec.scope: Unsupported value: "Nowhere": supported values: "Cluster", "Namespaced""#,
        ),
        (
            "/metadata/name",
            json!("x"),
            r#"metadata.name: Invalid value: "x": must be spec.names.plural+"."+spec.group"#,
        ),
        (
            "/spec/versions/0/storage",
            json!(false),
            "spec.versions: Invalid value: must have exactly one version marked as storage version",
        ),
        (
            "/spec/versions/0/schema",
            json!({}),
            "spec.versions[0].schema.openAPIV3Schema: Required value: schemas are required",
        ),
        (
            "/spec/versions/0/schema/openAPIV3Schema/properties/spec",
            json!({"properties": {}}),
            "spec.versions[0].schema.openAPIV3Schema.properties[spec].type: Required value: must not be empty for specified object fields",
        ),
        (
            "/spec/versions/0/schema/openAPIV3Schema/properties/spec",
            json!({"type": "array"}),
            "spec.versions[0].schema.openAPIV3Schema.properties[spec].items: Required value: must be specified",
        ),
        (
            "/spec/versions/0/subresources/scale/specReplicasPath",
            json!("replicas"),
            r#"spec.versions[0].subresources.scale.specReplicasPath: Invalid value: "replicas": should be a json path under .spec"#,
        ),
    ] {
        let mut object = definition(json!({"type": "object"}));
        *object.pointer_mut(change).unwrap() = value;
        let causes = CustomResource::from_object(&object).unwrap_err();
        assert_eq!(causes.iter().map(ToString::to_string).collect::<Vec<_>>(), [expected], "{change}");
    }
}

#[test]
fn schemas_that_are_not_structural_say_why() {
    for (schema, expected) in [
        (
            json!({"type": "object", "properties": {"a": {"type": "string"}}, "anyOf": [{"properties": {"b": {"minLength": 1}}}]}),
            "properties[spec].properties[b]: Required value: because it is defined in SCHEMA.properties[spec].anyOf[0].properties[b]",
        ),
        (
            json!({"type": "string", "oneOf": [{"type": "string"}]}),
            "properties[spec].oneOf[0].type: Forbidden: must be empty to be structural",
        ),
        (
            json!({"type": "array", "uniqueItems": true, "items": {"type": "string"}}),
            "properties[spec].uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
        ),
        (
            json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["a"],
                "items": {"type": "object", "properties": {"a": {"type": "string"}}}}),
            "properties[spec].items.properties[a].default: Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
        ),
        (
            json!({"type": "array", "x-kubernetes-list-type": "bag", "items": {"type": "string"}}),
            r#"properties[spec].x-kubernetes-list-type: Unsupported value: "bag": supported values: "atomic", "map", "set""#,
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "integer", "default": "x"}}}),
            r#"properties[spec].properties[a].default: Invalid value: "string":  in body must be of type integer: "string""#,
        ),
        (
            json!({"type": "object", "default": {"zzz": 1}, "properties": {"a": {"type": "integer"}}}),
            r#"properties[spec].default: Invalid value: {"zzz":1}: must not have unknown fields"#,
        ),
    ] {
        let causes = CustomResource::from_object(&definition(schema.clone())).unwrap_err();
        let base = "spec.versions[0].schema.openAPIV3Schema.";
        let found: Vec<String> = causes.iter().map(|cause| cause.to_string().replacen(base, "", 1)).collect();
        assert_eq!(found, [expected.replace("SCHEMA", "spec.validation.openAPIV3Schema")], "{schema}");
    }
    let sound = json!({"type": "object", "properties": {"port": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]}}});
    assert!(CustomResource::from_object(&definition(sound)).is_ok());
}

#[test]
fn what_stored_objects_hang_on_cannot_change() {
    let mut old = definition(json!({"type": "object"}));
    old["status"] = json!({"conditions": [{"type": "Established", "status": "True"}], "storedVersions": ["v1"]});
    let mut new = old.clone();
    new["spec"]["scope"] = "Cluster".into();
    new["spec"]["versions"][0]["name"] = "v2".into();
    let fields: Vec<String> = crate::crd::update_faults(&new, &old).into_iter().map(|cause| cause.field).collect();
    assert_eq!(fields, ["spec.scope", "status.storedVersions[0]"]);
    assert_eq!(crate::crd::update_faults(&old, &old), []);
}

#[test]
fn definitions_come_and_go_and_conflict_by_name() {
    let registry = Registry::builtin();
    let custom = CustomResource::from_object(&definition(json!({"type": "object"}))).unwrap();
    assert_eq!(crate::crd::names_conflict(&registry, &custom), None);
    let with = registry.with_custom(&custom);
    let found = with.by_kind("example.com", "v1", "CronTab").unwrap();
    assert_eq!(found.subresources().iter().map(|sub| sub.name).collect::<Vec<_>>(), ["scale", "status"]);
    assert_eq!(custom.accepted_names()["listKind"], "CronTabList");
    let mut other = definition(json!({"type": "object"}));
    other["metadata"]["name"] = "others.example.com".into();
    other["spec"]["names"] = json!({"plural": "others", "kind": "Other", "shortNames": ["ct"]});
    let other = CustomResource::from_object(&other).unwrap();
    assert_eq!(crate::crd::names_conflict(&with, &other), Some(r#""ct" is already in use"#.to_owned()));
    assert!(with.without("example.com", "crontabs").by_kind("example.com", "v1", "CronTab").is_none());
}

#[test]
fn a_bundled_resource_gives_way_and_comes_back() {
    let registry = Registry::builtin();
    let mut object = definition(json!({"type": "object"}));
    object["metadata"]["name"] = "httproutes.gateway.networking.k8s.io".into();
    object["spec"]["group"] = "gateway.networking.k8s.io".into();
    let causes = CustomResource::from_object(&object).unwrap_err();
    assert!(causes.iter().any(|cause| cause.message.contains("protected groups must have approval")));
    object["metadata"]["annotations"] = json!({"api-approved.kubernetes.io": "https://example.org/approval"});
    object["spec"]["names"] = json!({"plural": "httproutes", "kind": "HTTPRoute"});
    let custom = CustomResource::from_object(&object).unwrap();
    assert_eq!(crate::crd::names_conflict(&registry, &custom), None);
    let with = registry.with_custom(&custom);
    assert!(
        with.resource("gateway.networking.k8s.io", "v1beta1", "httproutes").is_none(),
        "the definition has v1 only"
    );
    let back = with.without("gateway.networking.k8s.io", "httproutes");
    assert!(back.resource("gateway.networking.k8s.io", "v1beta1", "httproutes").is_some());
}

/// A cluster holds each of them as an object too; compiling those as any other's cost 15 MB.
#[test]
fn a_definition_equal_to_a_bundled_one_is_not_compiled() {
    let registry = Registry::builtin();
    let approval = [("api-approved.kubernetes.io", "https://example.org/approval")];
    for mut object in Registry::bundled_definitions("gateway.networking.k8s.io", &approval) {
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let plural = object["spec"]["names"]["plural"].as_str().unwrap_or_default().to_owned();
        let dynamic = |object: &Value| {
            let with = registry.with_custom(&CustomResource::from_object(object).expect("sound"));
            let found = with.preferred("gateway.networking.k8s.io", &plural).expect("served");
            (found.is_dynamic(), found.fingerprint())
        };
        let before = registry.preferred("gateway.networking.k8s.io", &plural).expect("bundled").fingerprint();
        assert_eq!(dynamic(&object), (false, before), "{name}");
        for version in object["spec"]["versions"].as_array_mut().expect("versions") {
            version["schema"]["openAPIV3Schema"]["properties"]["more"] = json!({"type": "string"});
        }
        assert!(dynamic(&object).0, "{name} differs");
    }
}

#[test]
fn a_bundled_route_gets_its_defaults_and_faults() {
    let registry = Registry::builtin();
    let resource = registry.resource("gateway.networking.k8s.io", "v1", "httproutes").unwrap();
    let body = json!({"metadata": {"name": "r"}, "spec": {"parentRefs": [{"name": "g"}], "rules": [{"backendRefs": [{"name": "s", "port": 80}]}]}});
    let mut decoded = decode(&Kind::of(resource), Format::Json, body.to_string().as_bytes()).unwrap();
    let custom = resource.custom().unwrap();
    custom.set_defaults(&mut decoded.value);
    assert_eq!(custom.validate(&decoded.value), []);
    let rule = &decoded.value["spec"]["rules"][0];
    assert_eq!(rule["matches"], json!([{"path": {"type": "PathPrefix", "value": "/"}}]));
    assert_eq!(rule["backendRefs"][0], json!({"name": "s", "port": 80, "group": "", "kind": "Service", "weight": 1}));
    decoded.value["spec"]["rules"][0]["backendRefs"][0]["port"] = 70_000.into();
    let causes = custom.validate(&decoded.value);
    assert_eq!(
        causes[0].to_string(),
        "spec.rules[0].backendRefs[0].port: Invalid value: 70000: spec.rules[0].backendRefs[0].port in body should be less than or equal to 65535"
    );
}

#[test]
fn expressions_are_evaluated_and_worded_as_kubernetes_words_them() {
    let schema = json!({"type": "object", "properties": {
            "min": {"type": "integer"}, "max": {"type": "integer"},
            "name": {"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "name is immutable"}]},
            "items": {"type": "array", "items": {"type": "string", "x-kubernetes-validations": [
                {"rule": "self.size() < 3", "messageExpression": "'too long: ' + self"}]}},
            "when": {"type": "string", "format": "date-time"}},
        "x-kubernetes-validations": [
            {"rule": "!has(self.max) || self.min <= self.max", "fieldPath": ".min", "reason": "FieldValueForbidden", "message": "min must not exceed max"},
            {"rule": "!has(self.when) || self.when > timestamp('2020-01-01T00:00:00Z')"}]});
    for (value, expected) in [
        (json!({"min": 1, "max": 2, "items": ["a"], "when": "2024-01-01T00:00:00Z"}), vec![]),
        (json!({"min": 3, "max": 2}), vec!["FieldValueForbidden|spec.min: Forbidden: min must not exceed max"]),
        (json!({"items": ["abc"]}), vec![r#"FieldValueInvalid|spec.items[0]: Invalid value: "abc": too long: abc"#]),
        (
            json!({"when": "2019-01-01T00:00:00Z"}),
            vec![
                "FieldValueInvalid|spec: Invalid value: failed rule: !has(self.when) || self.when > timestamp('2020-01-01T00:00:00Z')",
            ],
        ),
        (
            json!({"max": 1}),
            vec![
                r#"FieldValueInvalid|spec: Invalid value: "object": no such key: min evaluating rule: min must not exceed max"#,
            ],
        ),
    ] {
        assert_eq!(faults(schema.clone(), value.clone()), expected, "{value}");
    }
    let resource = resource(schema);
    let custom = resource.custom().unwrap();
    let (old, new) = (json!({"spec": {"name": "a"}}), json!({"spec": {"name": "b"}}));
    let causes = custom.validate_update(&new, Some(&old));
    assert_eq!(
        causes.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [r#"spec.name: Invalid value: "b": name is immutable"#]
    );
    assert_eq!(custom.validate_update(&new, Some(&new)), []);
    assert_eq!(custom.expression_warning(), None);
}

#[test]
fn expressions_that_do_not_compile_are_refused_and_those_of_unbuilt_libraries_are_told() {
    let with = |rule: &str| definition(json!({"type": "string", "x-kubernetes-validations": [{"rule": rule}]}));
    let causes = CustomResource::from_object(&with("self.nonsense(")).unwrap_err();
    let text = causes[0].to_string();
    let field = "spec.versions[0].schema.openAPIV3Schema.properties[spec].x-kubernetes-validations[0].rule: Invalid value: \"self.nonsense(\": compilation failed: ERROR: <input>:1:15:";
    assert!(text.starts_with(field), "{text}");
    let custom = CustomResource::from_object(&with("isSemver(self)")).unwrap();
    assert!(custom.warnings()[0].starts_with("version v1: 1 x-kubernetes-validations"));
    let resource = custom.resources().next().unwrap();
    assert!(resource.custom().unwrap().expression_warning().unwrap().starts_with("1 x-kubernetes-validations"));
}

#[test]
fn the_rules_of_a_bundled_route_hold() {
    let registry = Registry::builtin();
    let route = registry.resource("gateway.networking.k8s.io", "v1", "httproutes").unwrap();
    let custom = route.custom().unwrap();
    let rule = |filters: Value, matches: Value| {
        let mut value = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "r"},
            "spec": {"rules": [{"filters": filters, "matches": matches}]}});
        custom.set_defaults(&mut value);
        custom.validate(&value).iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let path = |value: &str| json!([{"path": {"type": "PathPrefix", "value": value}}]);
    assert_eq!(rule(json!([]), path("/a")), Vec::<String>::new());
    assert_eq!(
        rule(json!([]), path("a")),
        [
            "spec.rules[0].matches[0].path: Invalid value: value must be an absolute path and start with '/' when type one of ['Exact', 'PathPrefix']"
        ]
    );
    let both = json!([{"type": "RequestRedirect", "requestRedirect": {"port": 1}}, {"type": "URLRewrite", "urlRewrite": {"hostname": "a.b"}}]);
    assert_eq!(
        rule(both, path("/")),
        [
            "spec.rules[0].filters: Invalid value: May specify either httpRouteFilterRequestRedirect or httpRouteFilterRequestRewrite, but not both"
        ]
    );
    let wrong = json!([{"type": "RequestMirror"}]);
    assert_eq!(
        rule(wrong, path("/")),
        [
            "spec.rules[0].filters[0]: Invalid value: filter.requestMirror must be specified for RequestMirror filter.type"
        ]
    );
}

#[test]
fn every_bundled_schema_compiles() {
    for resource in Registry::builtin().iter() {
        if let Some(custom) = resource.custom() {
            assert!(custom.schema().field("spec").is_some(), "{}", resource.kind());
            assert_eq!(custom.expression_warning(), None, "{}", resource.kind());
        }
    }
}
