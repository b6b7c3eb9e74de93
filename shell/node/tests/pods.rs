//! Pods on a real containerd: from the first sandbox to the last file removed. Needs root; skipped by name without.

mod support;

use serde_json::{Value, json};
use support::{HTTP, Node, pod, shell, unfit};

macro_rules! need_containers {
    ($name:literal) => {
        if let Some(reason) = unfit() {
            println!("SKIPPED {}: {reason}", $name);
            return;
        }
    };
}

fn container(pod: &Value, at: usize) -> &Value {
    &pod["status"]["containerStatuses"][at]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_lives_and_goes() {
    need_containers!("a_pod_lives_and_goes");
    let node = Node::start(1, |_| {}).await;
    let mut main =
        shell("main", "echo hello; echo oops >&2; trap 'echo bye; exit 3' TERM; while :; do sleep 0.05; done");
    main["readinessProbe"] = json!({"exec": {"command": ["true"]}, "periodSeconds": 1});
    node.api.put("pods", &pod("first", &json!({"containers": [main]})));
    let ready = node.api.wait_ready("first").await;
    let status = &ready["status"];
    assert_eq!((&status["phase"], &status["qosClass"]), (&json!("Running"), &json!("BestEffort")));
    assert!(status["podIP"].as_str().unwrap().starts_with("10.251.1."), "{status:#}");
    assert_eq!(container(&ready, 0)["restartCount"], 0);
    let (code, logs) = node.get("/containerLogs/default/first/main").await;
    // Two pipes: nobody promises an order between them.
    assert!(code == 200 && ["hello\noops\n", "oops\nhello\n"].contains(&logs.as_str()), "{logs}");
    let (_, tail) = node.get("/containerLogs/default/first/main?tailLines=1&timestamps=true").await;
    assert!(tail.lines().count() == 1 && tail.starts_with("20"), "{tail}");
    assert!(tail.trim_end().ends_with(logs.lines().last().unwrap()), "{tail}");
    assert_eq!(node.get_as_nobody("/pods").await.0, 401);
    let node_object = node.api.find("nodes", "", "test-node").unwrap();
    let conditions = node_object["status"]["conditions"].as_array().unwrap();
    assert!(conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"), "{conditions:#?}");
    assert!(node.api.find("leases", "kube-node-lease", "test-node").is_some());
    node.api.delete_pod("first", 30);
    node.api.wait_gone("first").await;
    assert!(!node.config.pod_dir(ready["metadata"]["uid"].as_str().unwrap()).exists());
    let events = node.api.events("first");
    for expect in ["Pulled: ", "Created: ", "Started: ", "Killing: Stopping container main"] {
        assert!(events.iter().any(|event| event.starts_with(expect)), "{expect} in {events:#?}");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_gets_everything_that_its_spec_says() {
    need_containers!("a_pod_gets_everything_that_its_spec_says");
    let node = Node::start(2, |_| {}).await;
    let config = json!({"metadata": {"name": "settings", "namespace": "default"}, "kind": "ConfigMap", "data": {"color": "red", "file.txt": "from a map"}});
    node.api.put("configmaps", &config);
    let secret = json!({"metadata": {"name": "keys", "namespace": "default"}, "kind": "Secret", "data": {"password": "czNjcmV0"}});
    node.api.put("secrets", &secret);
    let script = r#"
        echo "env $PLAIN $COLOR $PASSWORD $POD $LIMIT $ALL_color"
        echo "args $0 $1"
        echo "files $(cat /config/file.txt) $(cat /secret/password) $(cat /down/labels) $(cat /token/token)"
        echo "sub $(cat /one.txt) memory $(stat -f -c %T /memory) secret $(stat -f -c %T /secret)"
        echo "id $(id -u):$(id -g) $(id -G)"
        echo "init $(cat /shared/init) host $(hostname) $(grep alias.test /etc/hosts | cut -f1)"
        echo "group $(stat -c %g:%a /shared)"
        echo last words > /dev/termination-log
        exit 4
    "#;
    let spec = json!({
        "restartPolicy": "Never",
        "serviceAccountName": "robot",
        "securityContext": {"runAsUser": 1234, "runAsGroup": 2345, "fsGroup": 3456},
        "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["alias.test"]}],
        "initContainers": [
            shell("first", "echo one > /shared/init"),
            {"name": "side", "restartPolicy": "Always", "command": ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.05; done"],
                "startupProbe": {"exec": {"command": ["true"]}, "periodSeconds": 1}},
            shell("second", "echo two >> /shared/init; test -s /shared/init"),
        ],
        "containers": [{
            "name": "main",
            "command": ["sh", "-c", script, "$(PLAIN)", "$(NOTHING)"],
            "resources": {"limits": {"cpu": "500m", "memory": "64Mi"}},
            "env": [
                {"name": "PLAIN", "value": "plain"},
                {"name": "COLOR", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "color"}}},
                {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "password"}}},
                {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "LIMIT", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
                {"name": "GONE", "valueFrom": {"configMapKeyRef": {"name": "nothing", "key": "x", "optional": true}}},
            ],
            "envFrom": [{"prefix": "ALL_", "configMapRef": {"name": "settings"}}],
            "volumeMounts": [
                {"name": "config", "mountPath": "/config"}, {"name": "secret", "mountPath": "/secret"},
                {"name": "down", "mountPath": "/down"}, {"name": "token", "mountPath": "/token"},
                {"name": "config", "mountPath": "/one.txt", "subPath": "file.txt"},
                {"name": "memory", "mountPath": "/memory"}, {"name": "shared", "mountPath": "/shared"},
            ],
        }],
        "volumes": [
            {"name": "config", "configMap": {"name": "settings"}},
            {"name": "secret", "secret": {"secretName": "keys"}},
            {"name": "down", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
            {"name": "token", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}},
            {"name": "memory", "emptyDir": {"medium": "Memory"}},
            {"name": "shared", "emptyDir": {}},
        ],
    });
    let mut spec = spec;
    for init in spec["initContainers"].as_array_mut().unwrap() {
        init["volumeMounts"] = json!([{"name": "shared", "mountPath": "/shared"}]);
    }
    node.api.put("pods", &pod("full", &spec));
    let done = node.api.wait_phase("full", "Failed").await;
    let ended = &container(&done, 0)["state"]["terminated"];
    assert_eq!(
        (&ended["exitCode"], &ended["reason"], &ended["message"]),
        (&json!(4), &json!("Error"), &json!("last words\n"))
    );
    assert_eq!(done["status"]["qosClass"], "Burstable");
    let (_, logs) = node.get("/containerLogs/default/full/main").await;
    let expect = [
        "env plain red s3cret full 64 red",
        "args plain $(NOTHING)",
        "files from a map s3cret app=\"full\" token-of-robot",
        "sub from a map memory tmpfs secret tmpfs",
        "id 1234:2345 2345 3456",
        "init one two host full 1.2.3.4",
        "group 3456:2777",
    ];
    assert_eq!(logs.replace("one\ntwo", "one two").lines().collect::<Vec<_>>(), expect);
    let init = done["status"]["initContainerStatuses"].as_array().unwrap();
    assert_eq!(init[0]["state"]["terminated"]["reason"], "Completed");
    assert!(init[0]["ready"] == true && init[2]["ready"] == true);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_say_what_kubectl_users_know() {
    need_containers!("failures_say_what_kubectl_users_know");
    let node = Node::start(3, |_| {}).await;
    let once = |name: &str, container: Value| pod(name, &json!({"restartPolicy": "Never", "containers": [container]}));
    node.api.put("pods", &once("done", shell("c", "exit 0")));
    node.api.put("pods", &pod("crash", &json!({"containers": [shell("c", "echo run; exit 7")]})));
    let mut absent = shell("c", "true");
    absent["image"] = json!("diolkos.test/absent:1");
    absent["imagePullPolicy"] = json!("Never");
    node.api.put("pods", &once("never", absent));
    let mut broken = shell("c", "true");
    broken["image"] = json!("Not An Image");
    node.api.put("pods", &once("invalid", broken));
    let mut keyless = shell("c", "true");
    keyless["env"] = json!([{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "absent", "key": "k"}}}]);
    node.api.put("pods", &once("config", keyless));
    node.api.put("pods", &once("program", json!({"name": "c", "command": ["/no/such/program"]})));
    let mut hungry = shell("c", "exec perl -e '$x=\"a\"x(200*1024*1024); sleep 100'");
    hungry["resources"] = json!({"limits": {"memory": "20Mi"}});
    node.api.put("pods", &once("hungry", hungry));
    let mut late = pod("late", &json!({"activeDeadlineSeconds": 1, "containers": [shell("c", "sleep 1000")]}));
    late["spec"]["terminationGracePeriodSeconds"] = json!(0);
    node.api.put("pods", &late);

    let waiting = |reason: &'static str| {
        move |pod: &Value| pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == reason
    };
    // First: in ten seconds it runs again.
    let crash = node.api.wait("crash", "CrashLoopBackOff", waiting("CrashLoopBackOff")).await;
    assert_eq!(crash["status"]["phase"], "Running");
    let status = container(&crash, 0);
    assert_eq!((&status["restartCount"], &status["lastState"]["terminated"]["exitCode"]), (&json!(1), &json!(7)));
    assert!(
        status["state"]["waiting"]["message"]
            .as_str()
            .unwrap()
            .starts_with("back-off 10s restarting failed container=c pod=crash_default(")
    );
    let (code, previous) = node.get("/containerLogs/default/crash/c?previous=true").await;
    assert_eq!((code, previous.as_str()), (200, "run\n"));
    let done = node.api.wait_phase("done", "Succeeded").await;
    assert_eq!(container(&done, 0)["state"]["terminated"]["reason"], "Completed");
    let never = node.api.wait("never", "ErrImageNeverPull", waiting("ErrImageNeverPull")).await;
    assert_eq!(never["status"]["phase"], "Pending");
    node.api.wait("invalid", "InvalidImageName", waiting("InvalidImageName")).await;
    let config = node.api.wait("config", "CreateContainerConfigError", waiting("CreateContainerConfigError")).await;
    assert_eq!(container(&config, 0)["state"]["waiting"]["message"], "configmap \"absent\" not found");
    let program = node.api.wait_phase("program", "Failed").await;
    assert_eq!(container(&program, 0)["state"]["terminated"]["reason"], "StartError");
    let hungry = node.api.wait_phase("hungry", "Failed").await;
    assert_eq!(container(&hungry, 0)["state"]["terminated"]["reason"], "OOMKilled");
    let (code, why) = node.get("/containerLogs/default/config/c").await;
    assert_eq!(
        (code, why.as_str()),
        (400, "container \"c\" in pod \"config\" is waiting to start: CreateContainerConfigError")
    );
    let late = node.api.wait_phase("late", "Failed").await;
    assert_eq!(late["status"]["reason"], "DeadlineExceeded");
    // What was missing appears: the pod goes on by itself.
    let map = json!({"metadata": {"name": "absent", "namespace": "default"}, "kind": "ConfigMap", "data": {"k": "v"}});
    node.api.put("configmaps", &map);
    node.api.wait_phase("config", "Succeeded").await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_decide_about_readiness_and_restarts() {
    need_containers!("probes_decide_about_readiness_and_restarts");
    let node = Node::start(4, |_| {}).await;
    let mut web = shell("web", HTTP);
    web["ports"] = json!([{"name": "http", "containerPort": 8080}]);
    web["readinessProbe"] = json!({"httpGet": {"port": "http"}, "periodSeconds": 1, "failureThreshold": 1});
    web["volumeMounts"] = json!([{"name": "tmp", "mountPath": "/tmp"}]);
    let spec = json!({"containers": [web], "volumes": [{"name": "tmp", "emptyDir": {}}]});
    node.api.put("pods", &pod("web", &spec));
    let mut sick = shell("sick", "sleep 1000");
    sick["livenessProbe"] =
        json!({"exec": {"command": ["sh", "-c", "echo too bad; false"]}, "periodSeconds": 1, "failureThreshold": 2});
    let sick = json!({"terminationGracePeriodSeconds": 0, "containers": [sick]});
    node.api.put("pods", &pod("sick", &sick));
    let down = node.config.pod_dir(&format!("uid-web-{}", std::process::id())).join("volumes/empty-dir/tmp/down");
    node.api.wait_ready("web").await;
    std::fs::write(&down, "").unwrap();
    node.api.wait("web", "unready", |pod| container(pod, 0)["ready"] == false).await;
    std::fs::remove_file(&down).unwrap();
    node.api.wait_ready("web").await;
    node.api.wait("sick", "restarted", |pod| container(pod, 0)["restartCount"] == 1).await;
    let events = node.api.events("sick");
    for expect in [
        "Unhealthy: Liveness probe failed: too bad",
        "Killing: Container sick failed liveness probe, will be restarted",
    ] {
        assert!(events.iter().any(|event| event == expect), "{expect} in {events:#?}");
    }
    let events = node.api.events("web");
    assert!(
        events.iter().any(|e| e == "Unhealthy: Readiness probe failed: HTTP probe failed with statuscode: 503"),
        "{events:#?}"
    );
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_outlive_the_agent() {
    need_containers!("pods_outlive_the_agent");
    let mut node = Node::start(5, |_| {}).await;
    for name in ["stays", "unwanted"] {
        node.api.put(
            "pods",
            &pod(name, &json!({"containers": [shell("c", "trap 'exit 0' TERM; while :; do sleep 0.05; done")]})),
        );
        node.api.wait_ready(name).await;
    }
    let before = node.api.pod("stays");
    let unwanted = node.api.pod("unwanted");
    node.stop_agent().await;
    node.api.forget_pod("unwanted");
    node.start_agent();
    let uid = unwanted["metadata"]["uid"].as_str().unwrap();
    for _ in 0..400 {
        if node.sandboxes(uid).await == 0 && !node.config.pod_dir(uid).exists() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
    assert!(
        node.sandboxes(uid).await == 0 && !node.config.pod_dir(uid).exists(),
        "what nobody wants any more is ended"
    );
    let after = node.api.pod("stays");
    assert_eq!(container(&before, 0), container(&after, 0), "and what is wanted never noticed");
    node.stop().await;
}
