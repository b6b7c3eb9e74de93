//! Python: the Kubernetes client, which posts without a Content-Type and watches with its own reader, and SPIFFE's, in a pod.

use e2e::shell::{Check, run as run_program};
use e2e::{Platform, Runner, contains, eventually, platform, spiffe};
use serde_json::json;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

pub fn run(runner: &mut Runner, p: &Platform) {
    let (client, workload_api) =
        ("python::create, watch, patch, exec, custom objects", "python::a pod's process asks the SPIFFE Workload API");
    if platform::binary("PYTHON").is_some() {
        runner.check(client, || p.in_namespace("python", |ns| script(p, ns)));
    } else {
        runner.skip(client, "PYTHON does not name a Python with `kubernetes`");
    }
    match spiffe::python() {
        Some(python) => {
            runner.check(workload_api, || p.in_namespace("spiffe", |ns| workload_api_of(p, ns, &python)));
        }
        None => runner.skip(workload_api, "PYTHON does not name a Python with `spiffe`"),
    }
}

const SCRIPT: &str = r#"
import sys
from kubernetes import client, config, watch
from kubernetes.stream import stream
from kubernetes.client.rest import ApiException

namespace = sys.argv[1]
config.load_kube_config()
core, apps = client.CoreV1Api(), client.AppsV1Api()
core.create_namespaced_config_map(namespace, client.V1ConfigMap(metadata=client.V1ObjectMeta(name="a"), data={"k": "v"}))
core.patch_namespaced_config_map("a", namespace, {"data": {"k": "w"}})
assert core.read_namespaced_config_map("a", namespace).data == {"k": "w"}
try:
    core.create_namespaced_config_map(namespace, client.V1ConfigMap(metadata=client.V1ObjectMeta(name="a")))
    raise SystemExit("a second object of the same name was taken")
except ApiException as error:
    assert error.status == 409, error
labels = {"app": "web"}
container = client.V1Container(name="c", image="toolbox:v1", command=["/busybox", "sleep", "1000"])
template = client.V1PodTemplateSpec(metadata=client.V1ObjectMeta(labels=labels), spec=client.V1PodSpec(containers=[container], termination_grace_period_seconds=1))
spec = client.V1DeploymentSpec(replicas=1, selector=client.V1LabelSelector(match_labels=labels), template=template)
apps.create_namespaced_deployment(namespace, client.V1Deployment(metadata=client.V1ObjectMeta(name="web"), spec=spec))
pod = None
watching = watch.Watch()
for event in watching.stream(core.list_namespaced_pod, namespace, label_selector="app=web", timeout_seconds=60):
    conditions = {c.type: c.status for c in event["object"].status.conditions or []}
    if conditions.get("Ready") == "True":
        pod = event["object"].metadata.name
        watching.stop()
assert pod, "no pod became ready"
answer = stream(core.connect_get_namespaced_pod_exec, pod, namespace, command=["/busybox", "echo", "hello"], stderr=True, stdin=False, stdout=True, tty=False)
assert answer.strip() == "hello", answer
apps.patch_namespaced_deployment_scale("web", namespace, {"spec": {"replicas": 0}})
page = core.list_namespaced_config_map(namespace, limit=1)
assert page.metadata._continue, "no second page"
assert client.VersionApi().get_code().major == "1"
apps.delete_namespaced_deployment("web", namespace)
print("all good")
"#;

fn script(p: &Platform, ns: &str) -> Check {
    let ran = run_program(p.client("PYTHON").args(["-c", SCRIPT, ns]), None);
    contains(&ran.ok()?, &["all good"])
}

/// This machine's Python in a pod: what it needs is mounted at the same places.
fn workload_api_of(p: &Platform, ns: &str, python: &Path) -> Check {
    let base = run_program(Command::new(python).args(["-c", "import sys; print(sys.base_prefix)"]), None).ok()?;
    let own = python.parent().and_then(Path::parent).ok_or("PYTHON is no path of a virtual environment")?;
    let own = own.to_string_lossy();
    let mut paths = vec!["/usr", "/lib", "/lib64", &*own];
    if !base.starts_with("/usr") {
        paths.push(base.trim());
    }
    let paths = paths.into_iter().filter(|path| Path::new(path).exists());
    let (volumes, mounts): (Vec<_>, Vec<_>) = paths
        .enumerate()
        .map(|(number, path)| {
            let name = format!("v{number}");
            (
                json!({ "name": name, "hostPath": { "path": path } }),
                json!({ "name": name, "mountPath": path, "readOnly": true }),
            )
        })
        .unzip();
    let identity = format!("spiffe://cluster.local/ns/{ns}/sa/default");
    let pod = json!({ "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "app", "annotations": { "diolkos.io/workload-api": "true" } },
        "spec": { "restartPolicy": "Never", "volumes": volumes, "containers": [{ "name": "c", "image": "toolbox:v1",
            "command": [python, "-c", spiffe::SCRIPT, identity], "volumeMounts": mounts }] } });
    p.kubectl_in(&["-n", ns, "apply", "-f", "-"], &pod.to_string()).ok()?;
    eventually(Duration::from_secs(60), || {
        let phase = p.kubectl(&["-n", ns, "get", "pod/app", "-o", "jsonpath={.status.phase}"]).ok()?;
        if matches!(phase.trim(), "Succeeded" | "Failed") { Ok(()) } else { Err(format!("the pod is {phase}")) }
    })?;
    contains(&p.kubectl(&["-n", ns, "logs", "app"]).ok()?, &["all good"])
}
