//! Checks of a pod's containers.

use super::spec::host_network;
use super::volume::check_backsteps;
use crate::cause::{Causes, Path};
use crate::json::{flag, list, members, text};
use crate::{names, quantity};
use model::Quantity;
use serde_json::Value;

/// Checks all containers of a pod's spec; `volumes` are the names that mounts may refer to.
pub fn check_all(spec: &Value, path: &Path<'_>, volumes: &[&str], causes: &mut Causes) {
    let containers = list(&spec["containers"]);
    if containers.is_empty() {
        causes.required(&path.child("containers"), "");
    }
    let host_network = host_network(spec);
    let mut seen: Vec<&str> = Vec::new();
    for key in ["containers", "initContainers", "ephemeralContainers"] {
        let group = path.child(key);
        for (index, container) in list(&spec[key]).iter().enumerate() {
            let at = group.index(index);
            let name = text(&container["name"]);
            if name.is_empty() {
                causes.required(&at.child("name"), "");
            } else if seen.contains(&name) {
                causes.duplicate(&at.child("name"), name);
            } else {
                causes.invalid_each(&at.child("name"), name, names::label(name));
            }
            seen.push(name);
            check(container, &at, key, volumes, host_network, causes);
        }
    }
    check_host_ports(spec, path, causes);
}

fn check(container: &Value, path: &Path<'_>, group: &str, volumes: &[&str], host_network: bool, causes: &mut Causes) {
    let image = text(&container["image"]);
    if image.is_empty() {
        causes.required(&path.child("image"), "");
    } else if image.trim() != image {
        causes.invalid(&path.child("image"), image, "must not have leading or trailing whitespace");
    }
    let policy = text(&container["imagePullPolicy"]);
    if policy.is_empty() {
        causes.required(&path.child("imagePullPolicy"), "");
    } else {
        causes.one_of(&path.child("imagePullPolicy"), policy, &["Always", "IfNotPresent", "Never"]);
    }
    causes.one_of(
        &path.child("terminationMessagePolicy"),
        text(&container["terminationMessagePolicy"]),
        &["File", "FallbackToLogsOnError"],
    );
    check_ports(container, &path.child("ports"), host_network, causes);
    check_env(container, path, causes);
    check_mounts(container, &path.child("volumeMounts"), volumes, causes);
    check_resources(&container["resources"], &path.child("resources"), causes);
    let sidecar = group == "initContainers" && container["restartPolicy"] == "Always";
    for key in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let probe = &container[key];
        if probe.is_null() {
            continue;
        }
        if group == "initContainers" && !sidecar {
            causes.forbidden(&path.child(key), "may not be set for init containers without restartPolicy=Always");
        } else if group == "ephemeralContainers" {
            causes.forbidden(&path.child(key), "cannot be set for an Ephemeral Container");
        } else {
            check_probe(probe, &path.child(key), key, causes);
        }
    }
    if !container["lifecycle"].is_null() {
        if group == "initContainers" && !sidecar {
            causes
                .forbidden(&path.child("lifecycle"), "may not be set for init containers without restartPolicy=Always");
        }
        for key in ["postStart", "preStop"] {
            let hook = &container["lifecycle"][key];
            if !hook.is_null() {
                check_handler(
                    hook,
                    &path.child("lifecycle").child(key),
                    &["exec", "httpGet", "tcpSocket", "sleep"],
                    causes,
                );
            }
        }
    }
}

fn check_ports(container: &Value, path: &Path<'_>, host_network: bool, causes: &mut Causes) {
    let mut seen: Vec<&str> = Vec::new();
    for (index, port) in list(&container["ports"]).iter().enumerate() {
        let at = path.index(index);
        let name = text(&port["name"]);
        if !name.is_empty() {
            let wrong = names::port_name(name);
            if !wrong.is_empty() {
                causes.invalid_each(&at.child("name"), name, wrong);
            } else if seen.contains(&name) {
                causes.duplicate(&at.child("name"), name);
            }
            seen.push(name);
        }
        let number = port["containerPort"].as_i64().unwrap_or(0);
        if number == 0 {
            causes.required(&at.child("containerPort"), "");
        } else if let Some(detail) = names::port_number(number) {
            causes.invalid(&at.child("containerPort"), number, detail);
        }
        let host = port["hostPort"].as_i64().unwrap_or(0);
        if host != 0 {
            if let Some(detail) = names::port_number(host) {
                causes.invalid(&at.child("hostPort"), host, detail);
            }
            if host_network && host != number {
                causes.invalid(&at.child("hostPort"), host, "must match `containerPort` when `hostNetwork` is true");
            }
        }
        let protocol = text(&port["protocol"]);
        if protocol.is_empty() {
            causes.required(&at.child("protocol"), "");
        } else {
            causes.one_of(&at.child("protocol"), protocol, &["SCTP", "TCP", "UDP"]);
        }
    }
}

fn check_host_ports(spec: &Value, path: &Path<'_>, causes: &mut Causes) {
    let mut taken: Vec<(String, i64, &str)> = Vec::new();
    for (index, container) in list(&spec["containers"]).iter().enumerate() {
        for (at, port) in list(&container["ports"]).iter().enumerate() {
            let host = port["hostPort"].as_i64().unwrap_or(0);
            if host == 0 {
                continue;
            }
            let key = (text(&port["protocol"]).to_owned(), host, text(&port["hostIP"]));
            if taken.contains(&key) {
                let containers = path.child("containers");
                let shown = format!("{}/{}/{}", key.0, key.2, key.1);
                causes.duplicate(&containers.index(index).child("ports").index(at).child("hostPort"), shown);
            } else {
                taken.push(key);
            }
        }
    }
}

fn check_env(container: &Value, path: &Path<'_>, causes: &mut Causes) {
    let env = path.child("env");
    for (index, variable) in list(&container["env"]).iter().enumerate() {
        let at = env.index(index);
        let name = text(&variable["name"]);
        if name.is_empty() {
            causes.required(&at.child("name"), "");
        } else {
            causes.invalid_each(&at.child("name"), name, names::env_name(name));
        }
        let source = &variable["valueFrom"];
        if source.is_null() {
            continue;
        }
        let from = at.child("valueFrom");
        let sources = members(source).values().filter(|value| !value.is_null()).count();
        check_env_source(source, &from, causes);
        if sources == 0 {
            let detail = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`";
            causes.invalid(&from, "", detail);
        } else if !text(&variable["value"]).is_empty() {
            causes.invalid(&from, "", "may not be specified when `value` is not empty");
        } else if sources > 1 {
            causes.invalid(&from, "", "may not have more than one field specified at a time");
        }
    }
    let many = path.child("envFrom");
    for (index, source) in list(&container["envFrom"]).iter().enumerate() {
        let at = many.index(index);
        match (source["configMapRef"].is_null(), source["secretRef"].is_null()) {
            (true, true) => causes.invalid(&many, "", "must specify one of: `configMapRef` or `secretRef`"),
            (false, false) => causes.invalid(&many, "", "may not have more than one field specified at a time"),
            _ => {}
        }
        for key in ["configMapRef", "secretRef"] {
            if source[key].is_null() {
                continue;
            }
            let name = text(&source[key]["name"]);
            if name.is_empty() {
                causes.required(&at.child(key).child("name"), "");
            } else {
                causes.invalid_each(&at.child(key).child("name"), name, names::subdomain(name));
            }
        }
    }
}

fn check_env_source(source: &Value, path: &Path<'_>, causes: &mut Causes) {
    for key in ["configMapKeyRef", "secretKeyRef"] {
        let reference = &source[key];
        if reference.is_null() {
            continue;
        }
        let at = path.child(key);
        let name = text(&reference["name"]);
        causes.invalid_each(&at.child("name"), name, names::subdomain(name));
        let entry = text(&reference["key"]);
        if entry.is_empty() {
            causes.required(&at.child("key"), "");
        } else {
            causes.invalid_each(&at.child("key"), entry, names::config_key(entry));
        }
    }
    let field = text(&source["fieldRef"]["fieldPath"]);
    if !source["fieldRef"].is_null() {
        let known = [
            "metadata.name",
            "metadata.namespace",
            "metadata.uid",
            "spec.nodeName",
            "spec.serviceAccountName",
            "status.hostIP",
            "status.hostIPs",
            "status.podIP",
            "status.podIPs",
        ];
        let at = path.child("fieldRef");
        let subscript = |prefix: &str| field.starts_with(prefix) && field.ends_with("']");
        if field.is_empty() {
            causes.required(&at.child("fieldPath"), "");
        } else if !known.contains(&field) && !subscript("metadata.labels['") && !subscript("metadata.annotations['") {
            let detail = format!("error converting fieldPath: field label not supported: {field}");
            causes.invalid(&at.child("fieldPath"), field, detail);
        }
    }
    if !source["resourceFieldRef"].is_null() && text(&source["resourceFieldRef"]["resource"]).is_empty() {
        causes.required(&path.child("resourceFieldRef").child("resource"), "");
    }
}

fn check_mounts(container: &Value, path: &Path<'_>, volumes: &[&str], causes: &mut Causes) {
    let mut targets: Vec<&str> = Vec::new();
    for (index, mount) in list(&container["volumeMounts"]).iter().enumerate() {
        let at = path.index(index);
        let (name, target) = (text(&mount["name"]), text(&mount["mountPath"]));
        if name.is_empty() {
            causes.required(&at.child("name"), "");
        } else if !volumes.contains(&name) {
            causes.not_found(&at.child("name"), name);
        }
        if target.is_empty() {
            causes.required(&at.child("mountPath"), "");
        }
        if targets.contains(&target) {
            causes.invalid(&at.child("mountPath"), target, "must be unique");
        }
        targets.push(target);
        let sub = text(&mount["subPath"]);
        if sub.starts_with('/') {
            causes.invalid(&path.child("subPath"), sub, "must be a relative path");
        }
        check_backsteps(sub, &path.child("subPath"), causes);
        let propagation = text(&mount["mountPropagation"]);
        if !propagation.is_empty() {
            let at = path.child("mountPropagation");
            causes.one_of(&at, propagation, &["Bidirectional", "HostToContainer", "None"]);
            if propagation == "Bidirectional" && !flag(&container["securityContext"]["privileged"]) {
                causes.forbidden(&at, "Bidirectional mount propagation is available only to privileged containers");
            }
        }
    }
}

/// Checks `limits` and `requests`.
pub fn check_resources(resources: &Value, path: &Path<'_>, causes: &mut Causes) {
    for key in ["limits", "requests"] {
        let group = path.child(key);
        for (name, amount) in members(&resources[key]) {
            let at = group.key(name);
            let wrong = names::qualified(name);
            let native =
                matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
            let standard = native
                || matches!(
                    name.as_str(),
                    "storage" | "requests.cpu" | "limits.cpu" | "requests.memory" | "limits.memory"
                );
            if wrong.is_empty() && !name.contains('/') && !standard {
                causes.invalid(&at, name.as_str(), "must be a standard resource type or fully qualified");
            }
            causes.invalid_each(&at, name, wrong);
            if !name.contains('/') && !native {
                causes.invalid(&at, name.as_str(), "must be a standard resource for containers");
            }
            let amount = text(amount);
            match Quantity::parse(amount) {
                Ok(value) => {
                    if value.milli() < 0 {
                        causes.invalid(&at, amount, "must be greater than or equal to 0");
                    }
                    // Devices and pages come whole.
                    if name.contains('/') && value.milli() % 1000 != 0 {
                        causes.invalid(&at, amount, "must be an integer");
                    }
                    let page = name.strip_prefix("hugepages-").and_then(|size| Quantity::parse(size).ok());
                    if page.is_some_and(|page| page.milli() > 0 && value.milli() % page.milli() != 0) {
                        causes.invalid(&at, amount, format!("{amount} is not positive integer multiple of {name}"));
                    }
                }
                Err(wrong) => causes.invalid(&at, amount, wrong),
            }
        }
    }
    let requests = path.child("requests");
    for (name, request) in members(&resources["requests"]) {
        // What cannot be shared is asked for exactly as it is limited.
        let overcommit = !name.contains('/') && !name.starts_with("hugepages-");
        let limit = text(&resources["limits"][name]);
        let shown = text(request);
        match (Quantity::parse(shown), Quantity::parse(limit)) {
            (Ok(asked), Ok(most)) if !overcommit && asked != most => {
                causes.invalid(
                    &requests,
                    shown,
                    format!("must be equal to {name} limit of {}", quantity::canonical(limit)),
                );
            }
            (Ok(asked), Ok(most)) if asked > most => {
                let detail = format!("must be less than or equal to {name} limit of {}", quantity::canonical(limit));
                causes.invalid(&requests, shown, detail);
            }
            (Ok(_), Err(_)) if !overcommit => {
                causes.required(&path.child("limits"), "Limit must be set for non overcommitable resources");
            }
            _ => {}
        }
    }
    let names = || members(&resources["limits"]).keys().chain(members(&resources["requests"]).keys());
    if names().any(|name| name.starts_with("hugepages-")) && !names().any(|name| name == "cpu" || name == "memory") {
        causes.forbidden(path, "HugePages require cpu or memory");
    }
}

fn check_probe(probe: &Value, path: &Path<'_>, kind: &str, causes: &mut Causes) {
    check_handler(probe, path, &["exec", "httpGet", "tcpSocket", "grpc"], causes);
    for key in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        causes.non_negative(&path.child(key), &probe[key]);
    }
    let successes = probe["successThreshold"].as_i64().unwrap_or(1);
    if kind != "readinessProbe" && successes != 1 {
        causes.invalid(&path.child("successThreshold"), successes, "must be 1");
    }
    if let Some(grace) = probe["terminationGracePeriodSeconds"].as_i64() {
        let at = path.child("terminationGracePeriodSeconds");
        if kind == "readinessProbe" {
            causes.invalid(&at, grace, "must not be set for readinessProbes");
        }
        if grace <= 0 {
            causes.invalid(&at, grace, "must be greater than 0");
        }
    }
}

fn check_handler(handler: &Value, path: &Path<'_>, known: &[&str], causes: &mut Causes) {
    let mut given = 0;
    for key in known {
        let action = &handler[*key];
        if action.is_null() {
            continue;
        }
        let at = path.child(key);
        given += 1;
        if given > 1 {
            causes.forbidden(&at, "may not specify more than 1 handler type");
            continue;
        }
        match *key {
            "exec" if list(&action["command"]).is_empty() => causes.required(&at.child("command"), ""),
            "httpGet" => {
                if text(&action["path"]).is_empty() {
                    causes.required(&at.child("path"), "");
                }
                check_port(&action["port"], &at.child("port"), causes);
                causes.one_of(&at.child("scheme"), text(&action["scheme"]), &["HTTP", "HTTPS"]);
            }
            "tcpSocket" | "grpc" => check_port(&action["port"], &at.child("port"), causes),
            "sleep" if action["seconds"].as_i64().is_none_or(|seconds| seconds < 0) => {
                let seconds = action["seconds"].clone();
                causes.invalid(&at.child("seconds"), seconds, "must be greater than or equal to 0");
            }
            _ => {}
        }
    }
    if given == 0 {
        causes.required(path, "must specify a handler type");
    }
}

/// A port's number or name.
pub(crate) fn check_port(port: &Value, path: &Path<'_>, causes: &mut Causes) {
    match port {
        Value::String(name) => causes.invalid_each(path, name, names::port_name(name)),
        other => {
            let number = other.as_i64().unwrap_or(0);
            if let Some(detail) = names::port_number(number) {
                causes.invalid(path, number, detail);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::behaviour::Kind;
    use crate::pod::Pod;
    use serde_json::{Value, json};

    fn found(spec: Value) -> Vec<String> {
        let mut pod = json!({"metadata": {"name": "p", "namespace": "d"}, "spec": spec});
        Pod.defaults(&mut pod);
        Pod.validate_create(&pod).iter().map(ToString::to_string).collect()
    }

    fn container(extra: Value) -> Value {
        let mut container = json!({"name": "c", "image": "i"});
        container.as_object_mut().unwrap().extend(extra.as_object().cloned().unwrap());
        json!({"containers": [container]})
    }

    #[test]
    fn a_good_pod_passes() {
        let spec = json!({
            "containers": [{"name": "c", "image": "i", "ports": [{"name": "http", "containerPort": 80}],
                "env": [{"name": "A", "value": "b"}, {"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
                "resources": {"requests": {"cpu": "100m", "memory": "1Gi"}, "limits": {"cpu": "1"}},
                "volumeMounts": [{"name": "v", "mountPath": "/v"}],
                "livenessProbe": {"httpGet": {"port": "http"}}, "readinessProbe": {"grpc": {"port": 9000}},
                "lifecycle": {"preStop": {"sleep": {"seconds": 2}}}}],
            "volumes": [{"name": "v"}],
            "tolerations": [{"operator": "Exists"}],
            "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}]});
        assert_eq!(found(spec), [""; 0]);
    }

    #[test]
    fn faults_in_kubernetes_words() {
        for (spec, expected) in [
            (json!({}), "spec.containers: Required value"),
            (json!({"containers": [{"name": "c"}]}), "spec.containers[0].image: Required value"),
            (container(json!({"name": ""})), "spec.containers[0].name: Required value"),
            (
                container(json!({"imagePullPolicy": "Sometimes"})),
                "spec.containers[0].imagePullPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
            ),
            (
                container(json!({"ports": [{"containerPort": 70000}]})),
                "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
            ),
            (
                container(json!({"volumeMounts": [{"name": "x", "mountPath": "/x"}]})),
                "spec.containers[0].volumeMounts[0].name: Not found: \"x\"",
            ),
            (
                container(json!({"livenessProbe": {}})),
                "spec.containers[0].livenessProbe: Required value: must specify a handler type",
            ),
            (
                container(json!({"livenessProbe": {"exec": {"command": ["a"]}, "tcpSocket": {"port": 1}}})),
                "spec.containers[0].livenessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type",
            ),
            (
                container(json!({"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}})),
                "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
            ),
            (
                container(json!({"resources": {"limits": {"cpu": "-1"}}})),
                "spec.containers[0].resources.limits[cpu]: Invalid value: \"-1\": must be greater than or equal to 0",
            ),
            (
                container(json!({"env": [{"name": "a=b"}]})),
                "spec.containers[0].env[0].name: Invalid value: \"a=b\": a valid environment variable name must consist only of printable ASCII characters other than '='",
            ),
        ] {
            let found = found(spec);
            assert!(found.iter().any(|cause| cause == expected), "{found:?} lacks {expected}");
        }
        let mut restart = container(json!({}));
        restart["restartPolicy"] = json!("Sometimes");
        assert_eq!(
            found(restart),
            [
                "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \"Never\""
            ]
        );
        let twins =
            json!({"containers": [{"name": "c", "image": "i"}], "initContainers": [{"name": "c", "image": "i"}]});
        assert_eq!(found(twins), ["spec.initContainers[0].name: Duplicate value: \"c\""]);
    }
}
