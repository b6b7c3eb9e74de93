//! The API as a client sees it, over TLS.

mod common;

use bytes::Bytes;
use client::BoxFuture;
use common::{call, get, post, start, start_with};
use diolkos_server::{Body, Extension, ExtensionRequest};
use http::{Method, Response};
use serde_json::{Value, json};
use std::sync::Arc;

const PODS: &str = "/api/v1/namespaces/default/pods";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn pod(name: &str, labels: Value) -> Value {
    json!({"metadata": {"name": name, "labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_gets_the_error_that_users_know() {
    let server = start("bad").await;
    let big = format!("{{\"data\":{{\"a\":\"{}\"}}}}", "x".repeat(4 << 20));
    let json = "application/json";
    for (method, path, kind, body, code, says) in [
        ("POST", PODS, json, "{", 400, "couldn't get version/kind; json parse error"),
        ("POST", PODS, json, "[]", 400, "cannot unmarshal array"),
        ("POST", PODS, json, "{}", 422, "name or generateName is required"),
        ("POST", PODS, json, r#"{"metadata":{"name":"A_"}}"#, 422, "a lowercase RFC 1123 subdomain"),
        ("POST", PODS, json, r#"{"metadata":{"name":"a"},"spec":{}}"#, 422, "spec.containers: Required value"),
        (
            "POST",
            PODS,
            json,
            r#"{"metadata":{"name":"a","namespace":"b"}}"#,
            400,
            "the namespace of the provided object does not match",
        ),
        ("POST", PODS, json, r#"{"spec":{"containers":1}}"#, 400, "cannot unmarshal number"),
        (
            "POST",
            "/api/v1/namespaces/default/pods?fieldValidation=Strict",
            json,
            r#"{"metadata":{"name":"a"},"spec":{"foo":1}}"#,
            400,
            r#"strict decoding error: unknown field "spec.foo""#,
        ),
        (
            "POST",
            "/api/v1/namespaces/default/pods?dryRun=Some",
            json,
            r#"{"metadata":{"name":"a"}}"#,
            422,
            "Unsupported value",
        ),
        (
            "POST",
            PODS,
            "application/vnd.kubernetes.protobuf",
            "garbage",
            400,
            "does not appear to be a protobuf message",
        ),
        ("POST", PODS, "text/plain", "x", 415, "the body of the request was in an unknown format"),
        ("POST", MAPS, json, &big, 413, "limit is 3145728"),
        (
            "POST",
            "/api/v1/namespaces/nope/configmaps",
            json,
            r#"{"metadata":{"name":"a"}}"#,
            404,
            r#"namespaces "nope" not found"#,
        ),
        (
            "POST",
            MAPS,
            json,
            r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a"}}"#,
            400,
            "does not match the expected kind",
        ),
        ("GET", "/api/v1/namespaces/default/pods/x", json, "", 404, r#"pods "x" not found"#),
        ("GET", "/api/v1/nonsense", json, "", 404, "the server could not find the requested resource"),
        ("GET", "/apis/no.such/v1/things", json, "", 404, "the server could not find the requested resource"),
        ("GET", "/api/v1/pods?fieldSelector=spec.nope%3D1", json, "", 400, "field label not supported"),
        ("GET", "/api/v1/pods?labelSelector=a%20b%20c", json, "", 400, "unable to parse requirement"),
        ("GET", "/api/v1/pods?limit=x", json, "", 400, "not an integer"),
        ("GET", "/api/v1/pods?continue=x", json, "", 400, "continue key is not valid"),
        ("GET", "/api/v1/pods?resourceVersion=99999999", json, "", 504, "Too large resource version"),
        (
            "PUT",
            "/api/v1/namespaces/default/configmaps/x",
            json,
            r#"{"metadata":{"name":"y"}}"#,
            400,
            "does not match the name on the URL",
        ),
        (
            "PUT",
            "/api/v1/namespaces/default/configmaps/x",
            json,
            r#"{"metadata":{"name":"x"}}"#,
            404,
            r#"configmaps "x" not found"#,
        ),
        ("PATCH", "/api/v1/namespaces/default/configmaps/x", json, "{}", 415, "application/apply-patch+yaml"),
        ("PATCH", "/api/v1/namespaces/default/configmaps/x", "application/apply-patch+yaml", "{}", 422, "fieldManager"),
        ("DELETE", "/api/v1/namespaces/default", json, "", 403, "this namespace may not be deleted"),
        (
            "DELETE",
            "/api/v1/namespaces/default/configmaps/x?propagationPolicy=Maybe",
            json,
            "",
            422,
            "propagationPolicy",
        ),
        ("POST", "/version", json, "{}", 405, "not supported"),
        (
            "POST",
            "/api/v1/namespaces/default/pods/x",
            json,
            r#"{"metadata":{"name":"x"}}"#,
            405,
            "create is not supported",
        ),
        ("PUT", PODS, json, r#"{"metadata":{"name":"x"}}"#, 405, "update is not supported"),
        ("GET", "/api/v1/watch/pods", json, "", 404, "could not find"),
        ("GET", "/api/v1/namespaces/default/pods/..%2F..%2Fsecrets", json, "", 404, "not found"),
        ("DELETE", "/api/v1/componentstatuses", json, "", 404, "could not find"),
    ] {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let answer = server.admin.call(method.clone(), path, kind, Bytes::from(body.to_owned())).await.unwrap();
        let text = String::from_utf8_lossy(&answer.body);
        let short = &body[..body.len().min(80)];
        assert_eq!(answer.status.as_u16(), code, "{method} {path} {short}: {text}");
        let status: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(status["kind"], "Status");
        let message = status["message"].as_str().unwrap();
        assert!(message.contains(says), "{method} {path} {short}: {message}");
    }
    assert_eq!(get(&server.admin, MAPS).await["items"].as_array().unwrap().len(), 1, "only the CA's");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_a_list_are_of_one_moment() {
    let server = start("pages").await;
    for name in ["a", "b", "c", "d", "e"] {
        post(&server.admin, PODS, pod(name, json!({}))).await;
    }
    let first = get(&server.admin, &format!("{PODS}?limit=2")).await;
    let names = |list: &Value| -> Vec<String> {
        list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names(&first), ["a", "b"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 3);
    call(&server.admin, Method::DELETE, &format!("{PODS}/d"), Value::Null).await;
    post(&server.admin, PODS, pod("bb", json!({}))).await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = get(&server.admin, &format!("{PODS}?limit=10&continue={token}")).await;
    assert_eq!(names(&second), ["c", "d", "e"], "neither the deletion nor the creation since is seen");
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    assert!(second["metadata"].get("continue").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn runtime_classes_complete_pods() {
    let server = start("runtime-class").await;
    let classes = "/apis/node.k8s.io/v1/runtimeclasses";
    for (class, code, says) in [
        (
            json!({"metadata": {"name": "kata"}, "handler": "kata", "overhead": {"podFixed": {"cpu": "0.25"}},
                "scheduling": {"nodeSelector": {"kata": "yes"}, "tolerations": [{"key": "kata", "operator": "Exists"}]}}),
            201,
            "\"podFixed\":{\"cpu\":\"250m\"}",
        ),
        (json!({"metadata": {"name": "plain"}, "handler": "runc"}), 201, "plain"),
        (json!({"metadata": {"name": "none"}}), 422, "handler: Required value"),
        (json!({"metadata": {"name": "bad"}, "handler": "A_"}), 422, "handler: Invalid value: \\\"A_\\\""),
        (
            json!({"metadata": {"name": "bad"}, "handler": "a", "overhead": {"podFixed": {"wagons": "1"}}}),
            422,
            "overhead.limits[wagons]: Invalid value",
        ),
        (
            json!({"metadata": {"name": "bad"}, "handler": "a", "scheduling": {"tolerations": [{"key": "a", "operator": "Maybe"}]}}),
            422,
            "scheduling.tolerations[0].operator: Unsupported value",
        ),
    ] {
        let (status, answer) = call(&server.admin, Method::POST, classes, class.clone()).await;
        assert_eq!(status, code, "{class}: {answer}");
        assert!(answer.to_string().contains(says), "{class}: {answer}");
    }
    let refused = |why: &str| (403, format!("pods \"p\" is forbidden: {why}"));
    for (spec, (code, says)) in [
        (json!({"runtimeClassName": "kata"}), (201, String::new())),
        (json!({"runtimeClassName": "plain"}), (201, String::new())),
        (json!({"runtimeClassName": "lost"}), refused("pod rejected: RuntimeClass \"lost\" not found")),
        (
            json!({"overhead": {"cpu": "1"}}),
            refused("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"),
        ),
        (
            json!({"runtimeClassName": "kata", "overhead": {"cpu": "1"}}),
            refused("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"),
        ),
        (
            json!({"runtimeClassName": "kata", "nodeSelector": {"kata": "no"}}),
            refused("conflict: runtimeClass.scheduling.nodeSelector[kata] = yes; pod.spec.nodeSelector[kata] = no"),
        ),
    ] {
        let mut wish = pod("p", json!({}));
        wish["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let (status, answer) = call(&server.admin, Method::POST, &format!("{PODS}?dryRun=All"), wish).await;
        assert_eq!(status, code, "{spec}: {answer}");
        if code != 201 {
            assert_eq!(answer["message"], says, "{spec}");
        } else if spec["runtimeClassName"] == "kata" {
            let got = &answer["spec"];
            assert_eq!(got["overhead"], json!({"cpu": "250m"}));
            assert_eq!(got["nodeSelector"], json!({"kata": "yes"}));
            assert_eq!(got["tolerations"].as_array().unwrap().len(), 3, "{got}");
        } else {
            assert!(answer["spec"]["overhead"].is_null() && answer["spec"]["nodeSelector"].is_null());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_follows_a_selection() {
    let server = start("watch").await;
    post(&server.admin, PODS, pod("a", json!({"app": "x"}))).await;
    let from = get(&server.admin, PODS).await["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    for label in ["y", "x", "x"] {
        let patch =
            json!({"metadata": {"labels": {"app": label}, "annotations": {"n": format!("{label}{}", label.len())}}});
        call(&server.admin, Method::PATCH, &format!("{PODS}/a"), patch).await;
    }
    call(&server.admin, Method::DELETE, &format!("{PODS}/a"), Value::Null).await;
    let lines =
        watch(&server, &format!("{PODS}?watch=1&timeoutSeconds=1&labelSelector=app%3Dx&resourceVersion={from}")).await;
    let kinds: Vec<&str> = lines.iter().map(|line| line["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["DELETED", "ADDED", "DELETED"], "the patch that changed nothing made no event");
    let lines = watch(&server, "/api/v1/namespaces?watch=1&timeoutSeconds=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true").await;
    let added = lines.iter().filter(|line| line["type"] == "ADDED").count();
    assert_eq!(added, 5);
    assert_eq!(lines[5]["type"], "BOOKMARK");
    assert_eq!(lines[5]["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
}

async fn watch(server: &common::Running, path: &str) -> Vec<Value> {
    let answer = server.admin.call(Method::GET, path, "", Bytes::new()).await.unwrap();
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_go_gracefully_and_evictions_keep_the_budget() {
    let server = start("grace").await;
    let admin = &server.admin;
    post(admin, "/api/v1/nodes", json!({"metadata": {"name": "n1"}})).await;
    for name in ["a", "b"] {
        post(admin, PODS, pod(name, json!({"app": "x"}))).await;
        let target = json!({"target": {"kind": "Node", "name": "n1"}, "metadata": {"name": name}});
        post(admin, &format!("{PODS}/{name}/binding"), target).await;
        let status = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        let (code, _) = call(admin, Method::PATCH, &format!("{PODS}/{name}/status"), status).await;
        assert_eq!(code, 200);
    }
    let (code, again) =
        call(admin, Method::POST, &format!("{PODS}/a/binding"), json!({"target": {"name": "n2"}})).await;
    assert_eq!(code, 409, "{again}");

    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let budget =
        json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "x"}}}});
    post(admin, budgets, budget).await;
    let status = json!({"status": {"disruptionsAllowed": 1, "currentHealthy": 2, "desiredHealthy": 1, "expectedPods": 2, "observedGeneration": 1}});
    let (code, answer) = call(admin, Method::PATCH, &format!("{budgets}/b/status"), status).await;
    assert_eq!(code, 200, "{answer}");
    let eviction = |name: &str| json!({"kind": "Eviction", "apiVersion": "policy/v1", "metadata": {"name": name, "namespace": "default"}});
    post(admin, &format!("{PODS}/a/eviction"), eviction("a")).await;
    let (code, refused) = call(admin, Method::POST, &format!("{PODS}/b/eviction"), eviction("b")).await;
    assert_eq!(
        (code, refused["message"].as_str()),
        (429, Some("Cannot evict pod as it would violate the pod's disruption budget."))
    );

    let going = get(admin, &format!("{PODS}/a")).await;
    assert_eq!(going["metadata"]["deletionGracePeriodSeconds"], 30);
    let (code, _) = call(admin, Method::DELETE, &format!("{PODS}/a?gracePeriodSeconds=0"), Value::Null).await;
    assert_eq!(code, 200);
    assert_eq!(call(admin, Method::GET, &format!("{PODS}/a"), Value::Null).await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_bound_and_roles_are_kept() {
    let server = start("tokens").await;
    let admin = &server.admin;
    post(admin, PODS, pod("p", json!({}))).await;
    let uid = get(admin, &format!("{PODS}/p")).await["metadata"]["uid"].clone();
    let request = json!({"spec": {"expirationSeconds": 600, "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": uid}}});
    let answer = post(admin, "/api/v1/namespaces/default/serviceaccounts/default/token", request).await;
    let holder = server.with_token(answer["status"]["token"].as_str().unwrap());
    let who = post(&holder, "/apis/authentication.k8s.io/v1/selfsubjectreviews", json!({})).await;
    assert_eq!(who["status"]["userInfo"]["username"], "system:serviceaccount:default:default");
    let (code, refused) = call(&holder, Method::GET, PODS, Value::Null).await;
    assert_eq!(code, 403);
    assert_eq!(
        refused["message"],
        r#"pods is forbidden: User "system:serviceaccount:default:default" cannot list resource "pods" in API group "" in the namespace "default""#
    );
    let binding = json!({"metadata": {"name": "v"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": "default"}]});
    let bindings = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";
    post(admin, bindings, binding).await;
    assert_eq!(call(&holder, Method::GET, PODS, Value::Null).await.0, 200, "at once");
    assert_eq!(call(&holder, Method::GET, "/api/v1/pods", Value::Null).await.0, 403, "only there");
    let more = json!({"metadata": {"name": "w"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": "default"}]});
    assert_eq!(call(&holder, Method::POST, bindings, more).await.0, 403);
    call(admin, Method::DELETE, &format!("{PODS}/p"), Value::Null).await;
    assert_eq!(call(&holder, Method::GET, PODS, Value::Null).await.0, 401, "the pod is gone, and the token with it");
    assert_eq!(call(&server.with_token("nonsense"), Method::GET, PODS, Value::Null).await.0, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_reaches_its_own_only() {
    let server = start("node").await;
    let admin = &server.admin;
    let node = client::HttpsApi::from_kubeconfig(&server.dir.join("node.kubeconfig")).unwrap();
    post(&node, "/api/v1/nodes", json!({"metadata": {"name": "n1"}})).await;
    assert_eq!(call(&node, Method::POST, "/api/v1/nodes", json!({"metadata": {"name": "n2"}})).await.0, 403);
    for secret in ["mine", "other"] {
        post(admin, "/api/v1/namespaces/default/secrets", json!({"metadata": {"name": secret}})).await;
    }
    let mut body = pod("p", json!({}));
    body["spec"]["volumes"] = json!([{"name": "v", "secret": {"secretName": "mine"}}]);
    post(admin, PODS, body).await;
    let mine = "/api/v1/namespaces/default/secrets/mine";
    assert_eq!(call(&node, Method::GET, mine, Value::Null).await.0, 403, "not bound yet");
    post(admin, &format!("{PODS}/p/binding"), json!({"target": {"name": "n1"}})).await;
    assert_eq!(call(&node, Method::GET, mine, Value::Null).await.0, 200);
    assert_eq!(call(&node, Method::GET, "/api/v1/namespaces/default/secrets/other", Value::Null).await.0, 403);
    assert_eq!(call(&node, Method::GET, "/api/v1/secrets", Value::Null).await.0, 403);
}

struct Panics;

impl Extension for Panics {
    fn takes(&self, path: &str, _dashboard: bool) -> bool {
        path == "/panics"
    }
    fn call(&self, _request: ExtensionRequest) -> BoxFuture<'_, Response<Body>> {
        Box::pin(async { panic!("on purpose") })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_costs_one_request() {
    let server = start_with("panic", vec![Arc::new(Panics)]).await;
    let (code, status) = call(&server.admin, Method::GET, "/panics", Value::Null).await;
    assert_eq!((code, status["reason"].as_str()), (500, Some("InternalError")));
    get(&server.admin, "/api/v1/namespaces").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_start_finds_everything_again() {
    let server = start("again").await;
    post(&server.admin, MAPS, json!({"metadata": {"name": "kept"}, "data": {"a": "b"}})).await;
    let before = get(&server.admin, &format!("{MAPS}/kept")).await;
    let dir = server.stop().await;
    let server = common::open(dir, Vec::new()).await;
    assert_eq!(get(&server.admin, &format!("{MAPS}/kept")).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn dry_runs_leave_nothing() {
    let server = start("dry").await;
    let service = json!({"metadata": {"name": "s"}, "spec": {"clusterIP": "10.96.0.99", "ports": [{"port": 80}]}});
    let services = "/api/v1/namespaces/default/services";
    for _ in 0..2 {
        let made = post(&server.admin, &format!("{services}?dryRun=All"), service.clone()).await;
        assert_eq!(made["spec"]["clusterIP"], "10.96.0.99");
    }
    assert_eq!(call(&server.admin, Method::GET, &format!("{services}/s"), Value::Null).await.0, 404);
    post(&server.admin, services, service).await;
    let (code, deleted) = call(&server.admin, Method::DELETE, &format!("{services}/s?dryRun=All"), Value::Null).await;
    assert_eq!((code, deleted["kind"].as_str()), (200, Some("Service")));
    get(&server.admin, &format!("{services}/s")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_in_process_client_passes_the_same_gate() {
    let server = start("local").await;
    let pods = client::Resource { group: "", version: "v1", plural: "pods" };
    let refused =
        server.local.create(pods, "default", None, Bytes::from_static(b"{\"metadata\":{\"name\":\"x\"}}")).await;
    assert_eq!(refused.unwrap_err().code, 422);
    let made = server.local.create(pods, "default", None, pod("x", json!({})).to_string().into()).await.unwrap();
    let made: Value = serde_json::from_slice(&made).unwrap();
    assert_eq!(made["metadata"]["managedFields"][0]["manager"], "diolkos-manager");
    assert_eq!(made["spec"]["serviceAccountName"], "default");
}

#[tokio::test(flavor = "multi_thread")]
async fn quotas_and_ranges_are_kept() {
    let server = start("quota").await;
    let admin = &server.admin;
    let range = json!({"metadata": {"name": "r"}, "spec": {"limits": [{"type": "Container", "defaultRequest": {"cpu": "100m"}, "default": {"cpu": "200m"}, "max": {"cpu": "1"}}]}});
    post(admin, "/api/v1/namespaces/default/limitranges", range).await;
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {"pods": "2", "requests.cpu": "1"}}});
    post(admin, "/api/v1/namespaces/default/resourcequotas", quota).await;
    let made = post(admin, PODS, pod("a", json!({}))).await;
    assert_eq!(
        made["spec"]["containers"][0]["resources"],
        json!({"limits": {"cpu": "200m"}, "requests": {"cpu": "100m"}})
    );
    let mut large = pod("b", json!({}));
    large["spec"]["containers"][0]["resources"] = json!({"limits": {"cpu": "2"}});
    let (code, refused) = call(admin, Method::POST, PODS, large.clone()).await;
    assert_eq!(
        (code, refused["message"].as_str()),
        (403, Some(r#"pods "b" is forbidden: maximum cpu usage per Container is 1, but limit is 2"#))
    );
    large["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "1"}, "limits": {"cpu": "1"}});
    let (code, refused) = call(admin, Method::POST, PODS, large).await;
    assert_eq!(
        (code, refused["message"].as_str()),
        (
            403,
            Some(
                r#"pods "b" is forbidden: exceeded quota: q, requested: requests.cpu=1, used: requests.cpu=100m, limited: requests.cpu=1"#
            )
        )
    );
    let racing: Vec<_> = (0..8)
        .map(|i| {
            let admin = admin.clone();
            tokio::spawn(async move { call(&admin, Method::POST, PODS, pod(&format!("race-{i}"), json!({}))).await.0 })
        })
        .collect();
    let mut made = 0;
    for one in racing {
        made += usize::from(one.await.unwrap() == 201);
    }
    assert_eq!(made, 1, "one place was left");
}

/// Guards against an index that misses a write whose client hung up: its address would be given twice, its role never count.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_counts_although_its_client_hung_up() {
    let server = start("hangup").await;
    let services = client::Resource { group: "", version: "v1", plural: "services" };
    let body =
        |name: &str| json!({"metadata": {"name": name}, "spec": {"clusterIP": "10.96.0.77", "ports": [{"port": 80}]}});
    let first: Bytes = body("first").to_string().into();
    let creation = server.local.create(services, "default", None, first);
    // Polled once, so that the commit is on its way, and then dropped.
    let _ = tokio::time::timeout(std::time::Duration::ZERO, creation).await;
    let path = "/api/v1/namespaces/default/services";
    while call(&server.admin, Method::GET, &format!("{path}/first"), Value::Null).await.0 != 200 {
        tokio::task::yield_now().await;
    }
    let (code, refused) = call(&server.admin, Method::POST, path, body("second")).await;
    assert_eq!(code, 422, "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn patches_of_many_at_once_all_land() {
    let server = start("many").await;
    post(&server.admin, MAPS, json!({"metadata": {"name": "m"}})).await;
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let api = server.admin.clone();
            tokio::spawn(async move {
                for n in 0..10 {
                    let patch = json!({"data": {format!("{writer}-{n}"): "x"}});
                    assert_eq!(call(&api, Method::PATCH, &format!("{MAPS}/m"), patch).await.0, 200);
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let map = get(&server.admin, &format!("{MAPS}/m")).await;
    assert_eq!(map["data"].as_object().unwrap().len(), 80);
}
