//! Bytes to objects and orders to calls, both ways.

use crate::{PatchKind, Verb, project, render, revision_of};
use model::condition::Condition;
use model::effect::{Body, Change, MetaPatch, NewMeta, NewPod, Propagation, Status, Target};
use model::taint::{TaintEffect, Toleration};
use model::workload::DeploymentStatus;
use model::{Doc, Effect, Key, Kind, LabelSelector, Object, Timestamp};
use serde_json::{Value, json};

const NOW: Timestamp = Timestamp::from_secs(1_767_225_600);

fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {
            "name": "web", "namespace": "shop", "uid": "u1", "resourceVersion": "41", "generation": 3,
            "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"app": "web"},
            "annotations": {"a": "b", "kubectl.kubernetes.io/last-applied-configuration": "{}"},
        },
        "spec": {
            "replicas": 4, "selector": {"matchLabels": {"app": "web"}}, "minReadySeconds": 2,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "30%", "maxUnavailable": 0}},
            "template": {
                "metadata": {"labels": {"app": "web"}, "creationTimestamp": null},
                "spec": {"containers": [{"name": "c", "image": "i", "fromTheFuture": {"x": [1, 2.5]}}], "fromTheFuture": true},
            },
        },
        "status": {"observedGeneration": 3, "replicas": 4, "conditions": [
            {"type": "Available", "status": "True", "reason": "R", "message": "M", "lastUpdateTime": "2026-01-01T00:00:01Z", "lastTransitionTime": "2026-01-01T00:00:02Z"},
        ]},
    })
}

fn read(kind: Kind, value: &Value) -> Object {
    project(kind.resource(), value.to_string().as_bytes()).expect("an object")
}

fn body(effect: &Effect) -> Value {
    let calls = render(effect, NOW);
    assert_eq!(calls.len(), 1);
    serde_json::from_slice(&calls[0].body).expect("JSON")
}

#[test]
fn a_deployment_is_read() {
    let Object::Deployment(read) = read(Kind::Deployment, &deployment()) else { panic!("another kind") };
    assert_eq!((read.meta.revision, read.meta.generation, read.replicas, read.min_ready_s), (41, 3, 4, 2));
    assert_eq!(read.meta.created, NOW);
    assert_eq!(read.meta.annotations.len(), 1, "the copy of the whole object is left out");
    assert_eq!((read.history_limit, read.progress_deadline_s), (Some(10), Some(600)));
    assert_eq!(read.status.conditions[0].last_update, NOW.plus_ms(1000));
    assert!(matches!(read.strategy, model::workload::DeploymentStrategy::RollingUpdate { max_surge, max_unavailable }
        if max_surge.of(4, true) == 2 && max_unavailable.of(4, false) == 0));
}

#[test]
fn what_a_template_says_survives_and_its_own_label_is_no_difference() {
    let Object::Deployment(deployment) = read(Kind::Deployment, &deployment()) else { panic!("another kind") };
    let new = NewMeta { key: Key::new("shop", "web-abc"), ..NewMeta::default() };
    let effect = Effect::Create(
        new,
        Body::ReplicaSet {
            replicas: 4,
            min_ready_s: 2,
            selector: deployment.selector.clone(),
            template: deployment.template.body.clone(),
            hash: "abc".into(),
        },
    );
    let mut set = body(&effect);
    let container = &set["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["fromTheFuture"], json!({"x": [1, 2.5]}));
    assert_eq!(set["spec"]["template"]["metadata"]["labels"]["pod-template-hash"], "abc");
    assert_eq!(set["spec"]["selector"]["matchLabels"], json!({"app": "web", "pod-template-hash": "abc"}));
    set["spec"]["template"]["metadata"]["creationTimestamp"] = Value::Null;
    let Object::ReplicaSet(set) = read(Kind::ReplicaSet, &set) else { panic!("another kind") };
    assert_eq!(set.template.body, deployment.template.body);
    assert_ne!(set.template.body, Doc::new("{}"));
}

#[test]
fn a_status_that_is_written_is_read_back() {
    let status = DeploymentStatus {
        observed_generation: 7,
        replicas: 3,
        updated: 2,
        ready: 1,
        conditions: vec![Condition::new("Progressing", true, "NewReplicaSetAvailable", "fine", NOW)],
        collisions: Some(2),
        ..DeploymentStatus::default()
    };
    let target = Target { kind: Kind::Deployment, key: Key::new("shop", "web"), uid: "u1".into(), revision: 41 };
    let effect = Effect::PatchStatus(target, Status::Deployment(status.clone()));
    let call = &render(&effect, NOW)[0];
    assert_eq!((call.verb.clone(), call.subresource), (Verb::Patch(PatchKind::Merge), Some("status")));
    let patch = body(&effect);
    assert_eq!(patch["metadata"], json!({"uid": "u1", "resourceVersion": "41"}));
    assert_eq!(patch["status"]["availableReplicas"], Value::Null, "a nought is left out by the API");
    let mut object = deployment();
    object["status"] = patch["status"].clone();
    let Object::Deployment(again) = read(Kind::Deployment, &object) else { panic!("another kind") };
    assert_eq!(again.status, status);
}

#[test]
fn a_pod_from_a_template_with_everything_on_top() {
    let template = Doc::new(
        json!({
            "metadata": {"labels": {"app": "db"}, "annotations": {"x": "y"}},
            "spec": {
                "containers": [{"name": "c", "env": [{"name": "A", "value": "old"}]}],
                "volumes": [{"name": "data", "emptyDir": {}}, {"name": "other", "emptyDir": {}}],
                "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                    {"matchExpressions": [{"key": "disk", "operator": "Exists"}]},
                ]}}},
            },
        })
        .to_string(),
    );
    let pod = NewPod {
        template,
        only_node: Some("n1".into()),
        tolerations: vec![Toleration::exists("k", TaintEffect::NoExecute)],
        hostname: "db-0".into(),
        subdomain: "db".into(),
        claims: vec![("data".into(), "data-db-0".into())],
        env: vec![("A".into(), "new".into())],
        ..NewPod::default()
    };
    let meta =
        NewMeta { key: Key::new("shop", "db-0"), labels: [("more".into(), "m".into())].into(), ..NewMeta::default() };
    let pod = body(&Effect::Create(meta, Body::Pod(Box::new(pod))));
    assert_eq!(pod["metadata"]["labels"], json!({"app": "db", "more": "m"}));
    assert_eq!(pod["spec"]["hostname"], "db-0");
    assert_eq!(pod["spec"]["containers"][0]["env"], json!([{"name": "A", "value": "new"}]));
    let volumes = pod["spec"]["volumes"].as_array().expect("volumes");
    assert_eq!((volumes.len(), &volumes[1]["persistentVolumeClaim"]["claimName"]), (2, &json!("data-db-0")));
    let term = &pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
        [0];
    assert_eq!(
        (&term["matchFields"][0]["values"], &term["matchExpressions"][0]["key"]),
        (&json!(["n1"]), &json!("disk"))
    );
    let Object::Pod(pod) = read(Kind::Pod, &pod) else { panic!("another kind") };
    assert_eq!((pod.spec.claims.len(), pod.spec.tolerations.len()), (1, 1));
}

#[test]
fn deletions_and_changes_of_metadata() {
    let target = Target { kind: Kind::Pod, key: Key::new("a", "b"), uid: "u".into(), revision: 0 };
    let call = &render(
        &Effect::Delete { target: target.clone(), grace_s: Some(0), propagation: Propagation::Foreground },
        NOW,
    )[0];
    let Verb::Delete(options) = &call.verb else { panic!("another verb") };
    assert_eq!((options.grace_s, &*options.uid, options.propagation), (Some(0), "u", Some("Foreground")));
    let patch = MetaPatch { finalizers: Some(vec![]), labels: vec![("x".into(), None)], ..MetaPatch::default() };
    assert_eq!(
        body(&Effect::PatchMeta(target.clone(), patch)),
        json!({"metadata": {"uid": "u", "finalizers": [], "labels": {"x": null}}})
    );
    assert_eq!(body(&Effect::Update(target, Change::Scale { replicas: 3 }))["spec"], json!({"replicas": 3}));
}

/// Every value of a document replaced by values of other types: nothing panics, and only what has no name is refused.
#[test]
fn malformed_objects_are_read_or_refused_but_never_panicked_over() {
    let wrong = [
        Value::Null,
        json!(true),
        json!(-1),
        json!(1e300),
        json!("%"),
        json!("9999999999999999999"),
        json!([1]),
        json!({"x": {}}),
    ];
    for kind in Kind::TYPED {
        for value in &wrong {
            let mut object = deployment();
            object["spec"]["template"]["spec"]["volumes"] = json!([{"name": "v", "ephemeral": {}}]);
            spoil(&mut object, value, &mut |object| {
                let _ = project(kind.resource(), object.to_string().as_bytes());
            });
        }
    }
    let error = project(Kind::Pod.resource(), b"{\"metadata\":").expect_err("cut short");
    assert!(error.to_string().starts_with("pods: not JSON"), "{error}");
    let error = project(Kind::Pod.resource(), b"{}").expect_err("no name");
    assert_eq!(error.to_string(), "pods: an object without metadata.name");
}

/// Calls `look` once for each place in the document at which `value` stands instead.
fn spoil(object: &mut Value, value: &Value, look: &mut dyn FnMut(&Value)) {
    fn pointers(value: &Value, at: String, out: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                map.iter().for_each(|(key, value)| pointers(value, format!("{at}/{}", key.replace('/', "~1")), out))
            }
            Value::Array(list) => {
                list.iter().enumerate().for_each(|(index, value)| pointers(value, format!("{at}/{index}"), out))
            }
            _ => {}
        }
        out.push(at);
    }
    let mut places = Vec::new();
    pointers(object, String::new(), &mut places);
    for place in places {
        let Some(slot) = object.pointer_mut(&place) else { continue };
        let before = std::mem::replace(slot, value.clone());
        look(object);
        if let Some(slot) = object.pointer_mut(&place) {
            *slot = before;
        }
    }
}

#[test]
fn revisions_are_found_without_decoding_the_rest() {
    assert_eq!(revision_of(deployment().to_string().as_bytes()), 41);
    assert_eq!(revision_of(b"{}"), 0);
    assert_eq!(revision_of(b"no"), 0);
}

#[test]
fn a_recorded_template_is_the_template() {
    let Object::Deployment(deployment) = read(Kind::Deployment, &deployment()) else { panic!("another kind") };
    let data = json!({"spec": {"template": {"$patch": "replace"}}});
    let mut revision = json!({"metadata": {"name": "r"}, "revision": 2, "data": data});
    let template: Value = serde_json::from_str(deployment.template.body.text()).expect("JSON");
    for (key, value) in template.as_object().expect("a map") {
        revision["data"]["spec"]["template"][key] = value.clone();
    }
    let Object::ControllerRevision(read) = read(Kind::ControllerRevision, &revision) else { panic!("another kind") };
    assert_eq!(read.template.as_ref().map(|t| &t.body), Some(&deployment.template.body));
    assert_eq!((read.number, LabelSelector::default().is_empty()), (2, true));
}
