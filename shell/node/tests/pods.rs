//! Pods on a real containerd: from the first sandbox to the last file removed. Needs root; skipped by name without.

mod support;

use serde_json::{Value, json};
use support::{Node, pod, shell, unfit};

macro_rules! need_containers {
    ($name:literal) => {
        if let Some(reason) = unfit() {
            println!("SKIPPED {}: {reason}", $name);
            return;
        }
    };
}

fn container<'a>(pod: &'a Value, at: usize) -> &'a Value {
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
    assert_eq!((code, logs.as_str()), (200, "hello\noops\n"));
    let (_, tail) = node.get("/containerLogs/default/first/main?tailLines=1&timestamps=true").await;
    assert!(tail.ends_with(" oops\n") && tail.starts_with("20"), "{tail}");
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
