"""What the Python client does all day, against the server of the kubeconfig in KUBECONFIG."""
from kubernetes import client, config, watch

config.load_kube_config()
core, apps = client.CoreV1Api(), client.AppsV1Api()
ns = "default"
assert ns in [n.metadata.name for n in core.list_namespace().items]
core.create_namespaced_config_map(ns, {"metadata": {"name": "py"}, "data": {"a": "1"}})
core.patch_namespaced_config_map("py", ns, {"data": {"b": "2"}})
assert core.read_namespaced_config_map("py", ns).data == {"a": "1", "b": "2"}
seen = core.list_namespaced_config_map(ns).metadata.resource_version
core.patch_namespaced_config_map("py", ns, {"data": {"c": "3"}})
events = watch.Watch().stream(core.list_namespaced_config_map, ns, resource_version=seen, timeout_seconds=1)
assert [(e["type"], e["object"].metadata.name) for e in events] == [("MODIFIED", "py")]
labels = {"app": "d"}
template = client.V1PodTemplateSpec(
    metadata=client.V1ObjectMeta(labels=labels),
    spec=client.V1PodSpec(containers=[client.V1Container(name="c", image="i")]),
)
spec = client.V1DeploymentSpec(selector={"matchLabels": labels}, template=template)
apps.create_namespaced_deployment(ns, client.V1Deployment(metadata=client.V1ObjectMeta(name="d"), spec=spec))
apps.patch_namespaced_deployment_scale("d", ns, {"spec": {"replicas": 2}})
assert apps.read_namespaced_deployment_scale("d", ns).spec.replicas == 2
deployment = apps.read_namespaced_deployment("d", ns)
deployment.spec.replicas = 7
assert apps.replace_namespaced_deployment("d", ns, deployment).spec.replicas == 7
try:
    apps.replace_namespaced_deployment("d", ns, deployment)
    raise SystemExit("a stale replace went through")
except client.ApiException as error:
    assert error.status == 409, error
apps.delete_namespaced_deployment("d", ns)
core.delete_collection_namespaced_config_map(ns, label_selector="x=y")
core.delete_namespaced_config_map("py", ns)
print("well")
