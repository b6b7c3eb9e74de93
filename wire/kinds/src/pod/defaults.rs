//! What Kubernetes 1.37 fills into pods and pod templates.

use crate::json::{Members, child, each_object, existing, fill, fill_number, fill_text, text};
use crate::quantity;
use serde_json::{Value, json};

/// Defaults of a Pod: those of its spec, and those that only pods get and templates do not.
pub fn pod(object: &mut Value) {
    let Some(map) = object.as_object_mut() else { return };
    if let Some(status) = existing(map, "status") {
        mirror_address(status);
    }
    let Some(spec) = child(map, "spec") else { return };
    pod_spec(spec);
    for key in ["containers", "initContainers"] {
        for container in each_object(spec, key) {
            requests_from_limits(container);
        }
    }
    if spec["terminationGracePeriodSeconds"].as_i64().is_some_and(|seconds| seconds < 0) {
        spec.insert("terminationGracePeriodSeconds".into(), Value::from(1));
    }
    fill(spec, "enableServiceLinks", true);
    if spec.get("hostNetwork") == Some(&Value::Bool(true)) {
        for key in ["containers", "initContainers"] {
            for container in each_object(spec, key) {
                for port in each_object(container, "ports") {
                    let number = port.get("containerPort").cloned().unwrap_or(Value::Null);
                    if port.get("hostPort").is_none_or(|p| p.is_null() || p.as_i64() == Some(0)) && !number.is_null() {
                        port.insert("hostPort".into(), number);
                    }
                }
            }
        }
    }
}

/// Defaults of a `PodTemplateSpec` under `key`.
pub fn template(owner: &mut Members, key: &str) {
    if let Some(spec) = child(owner, key).and_then(|template| child(template, "spec")) {
        pod_spec(spec);
    }
}

/// Defaults of a `PodSpec`.
pub fn pod_spec(spec: &mut Members) {
    fill_text(spec, "dnsPolicy", "ClusterFirst");
    fill_text(spec, "restartPolicy", "Always");
    fill_text(spec, "schedulerName", "default-scheduler");
    fill(spec, "securityContext", json!({}));
    fill(spec, "terminationGracePeriodSeconds", 30);
    mirror_service_account(spec);
    quantity::canonicalise_list(spec, "overhead");
    if let Some(resources) = existing(spec, "resources") {
        resource_requirements(resources);
    }
    for volume in each_object(spec, "volumes") {
        volume_defaults(volume);
    }
    for key in ["initContainers", "containers", "ephemeralContainers"] {
        for container in each_object(spec, key) {
            container_defaults(container);
        }
    }
}

/// `serviceAccount` is the old name of `serviceAccountName`; both are always written.
fn mirror_service_account(spec: &mut Members) {
    let name = spec.get("serviceAccountName").map_or("", text);
    let name = if name.is_empty() { spec.get("serviceAccount").map_or("", text) } else { name }.to_owned();
    if !name.is_empty() {
        spec.insert("serviceAccountName".into(), Value::from(name.as_str()));
        spec.insert("serviceAccount".into(), Value::from(name));
    }
}

/// `podIP` is the first of `podIPs`; whoever writes one writes both.
fn mirror_address(status: &mut Members) {
    let first = status.get("podIPs").map_or("", |ips| text(&ips[0]["ip"])).to_owned();
    let one = status.get("podIP").map_or("", text).to_owned();
    if !first.is_empty() {
        status.insert("podIP".into(), Value::from(first));
    } else if !one.is_empty() {
        status.insert("podIPs".into(), json!([{"ip": one}]));
    }
}

fn container_defaults(container: &mut Members) {
    let policy = if image_tag_is_latest(container.get("image").map_or("", text)) { "Always" } else { "IfNotPresent" };
    fill_text(container, "imagePullPolicy", policy);
    fill_text(container, "terminationMessagePath", "/dev/termination-log");
    fill_text(container, "terminationMessagePolicy", "File");
    if let Some(resources) = child(container, "resources") {
        resource_requirements(resources);
    }
    for port in each_object(container, "ports") {
        fill_text(port, "protocol", "TCP");
    }
    for variable in each_object(container, "env") {
        if let Some(source) = existing(variable, "valueFrom") {
            if let Some(field) = existing(source, "fieldRef") {
                fill_text(field, "apiVersion", "v1");
            }
            if let Some(divisor) = existing(source, "resourceFieldRef") {
                fill(divisor, "divisor", "0");
                divisor.get_mut("divisor").into_iter().for_each(quantity::canonicalise);
            }
        }
    }
    for key in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = existing(container, key) {
            probe_defaults(probe);
        }
    }
    if let Some(lifecycle) = existing(container, "lifecycle") {
        for key in ["postStart", "preStop"] {
            if let Some(http) = existing(lifecycle, key).and_then(|hook| existing(hook, "httpGet")) {
                http_get_defaults(http);
            }
        }
    }
}

/// Canonical quantities in `limits` and `requests`.
pub fn resource_requirements(resources: &mut Members) {
    quantity::canonicalise_list(resources, "limits");
    quantity::canonicalise_list(resources, "requests");
}

fn requests_from_limits(container: &mut Members) {
    let Some(resources) = existing(container, "resources") else { return };
    let Some(limits) = resources.get("limits").and_then(Value::as_object).cloned() else { return };
    if let Some(requests) = child(resources, "requests") {
        for (name, limit) in limits {
            requests.entry(name).or_insert(limit);
        }
    }
}

fn probe_defaults(probe: &mut Members) {
    fill_number(probe, "timeoutSeconds", 1);
    fill_number(probe, "periodSeconds", 10);
    fill_number(probe, "successThreshold", 1);
    fill_number(probe, "failureThreshold", 3);
    if let Some(http) = existing(probe, "httpGet") {
        http_get_defaults(http);
    }
    if let Some(grpc) = existing(probe, "grpc") {
        fill(grpc, "service", "");
    }
}

fn http_get_defaults(http: &mut Members) {
    fill_text(http, "path", "/");
    fill_text(http, "scheme", "HTTP");
}

fn volume_defaults(volume: &mut Members) {
    if volume.iter().all(|(key, value)| key == "name" || value.is_null()) {
        volume.insert("emptyDir".into(), json!({}));
    }
    for key in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = existing(volume, key) {
            fill(source, "defaultMode", 420);
            downward_items(source);
        }
    }
    if let Some(projected) = existing(volume, "projected") {
        for source in each_object(projected, "sources") {
            if let Some(token) = existing(source, "serviceAccountToken") {
                fill(token, "expirationSeconds", 3600);
            }
            if let Some(downward) = existing(source, "downwardAPI") {
                downward_items(downward);
            }
        }
    }
    if let Some(path) = existing(volume, "hostPath") {
        fill(path, "type", "");
    }
    if let Some(empty) = existing(volume, "emptyDir") {
        empty.get_mut("sizeLimit").into_iter().for_each(quantity::canonicalise);
    }
    if let Some(image) = existing(volume, "image") {
        let latest = image_tag_is_latest(image.get("reference").map_or("", text));
        fill_text(image, "pullPolicy", if latest { "Always" } else { "IfNotPresent" });
    }
    let claim = existing(volume, "ephemeral").and_then(|source| existing(source, "volumeClaimTemplate"));
    if let Some(spec) = claim.and_then(|claim| child(claim, "spec")) {
        fill(spec, "volumeMode", "Filesystem");
    }
}

fn downward_items(source: &mut Members) {
    for item in each_object(source, "items") {
        if let Some(field) = existing(item, "fieldRef") {
            fill_text(field, "apiVersion", "v1");
        }
        if let Some(resource) = existing(item, "resourceFieldRef") {
            fill(resource, "divisor", "0");
            resource.get_mut("divisor").into_iter().for_each(quantity::canonicalise);
        }
    }
}

/// Whether the image would be `latest`: named so, or neither a tag nor a digest given.
fn image_tag_is_latest(image: &str) -> bool {
    let (name, digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
    let last = name.rsplit('/').next().unwrap_or(name);
    match last.split_once(':') {
        Some((_, tag)) => tag == "latest",
        None => digest.is_none() && !image.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_pod_gets_what_kubernetes_gives() {
        let mut object = json!({"spec": {"containers": [{"name": "c", "image": "nginx",
            "ports": [{"containerPort": 80}],
            "resources": {"limits": {"cpu": "1000m", "memory": "1024Mi"}},
            "readinessProbe": {"httpGet": {"port": 80}}}],
            "volumes": [{"name": "v"}, {"name": "s", "secret": {"secretName": "x"}}]}});
        pod(&mut object);
        assert_eq!(
            object,
            json!({"spec": {
                "containers": [{
                    "name": "c", "image": "nginx", "imagePullPolicy": "Always",
                    "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                    "ports": [{"containerPort": 80, "protocol": "TCP"}],
                    "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}},
                    "readinessProbe": {"httpGet": {"path": "/", "port": 80, "scheme": "HTTP"},
                        "failureThreshold": 3, "periodSeconds": 10, "successThreshold": 1, "timeoutSeconds": 1}
                }],
                "volumes": [{"name": "v", "emptyDir": {}}, {"name": "s", "secret": {"secretName": "x", "defaultMode": 420}}],
                "dnsPolicy": "ClusterFirst", "enableServiceLinks": true, "restartPolicy": "Always",
                "schedulerName": "default-scheduler", "securityContext": {}, "terminationGracePeriodSeconds": 30
            }})
        );
        let once = object.clone();
        pod(&mut object);
        assert_eq!(object, once, "idempotent");
    }

    #[test]
    fn pull_policy_follows_the_tag() {
        for (image, latest) in [
            ("nginx", true),
            ("nginx:latest", true),
            ("nginx:1.27", false),
            ("host:5000/a/b", true),
            ("host:5000/a/b:1", false),
            ("a@sha256:00", false),
            ("a:latest@sha256:00", true),
        ] {
            assert_eq!(image_tag_is_latest(image), latest, "{image}");
        }
    }

    #[test]
    fn wrong_types_are_left_alone() {
        let mut object = json!({"spec": {"containers": "none", "volumes": [1]}});
        pod(&mut object);
        assert_eq!(object["spec"]["containers"], "none");
        let mut object = json!([]);
        pod(&mut object);
        assert_eq!(object, json!([]));
    }
}
