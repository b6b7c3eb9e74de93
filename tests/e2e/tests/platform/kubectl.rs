//! kubectl's verbs, as a user types them.

use e2e::shell::{Check, run as run_program};
use e2e::{Platform, Runner, contains, eventually};
use std::process::Command;
use std::time::Duration;

pub fn run(runner: &mut Runner, p: &Platform) {
    runner.check("kubectl::version, api-resources, explain", || discovery(p));
    runner.check("kubectl::create, get, describe, label, annotate, delete", || {
        p.in_namespace("verbs", |ns| verbs(p, ns))
    });
    runner.check("kubectl::apply, diff, edit, patch", || p.in_namespace("applies", |ns| applies(p, ns)));
    runner.check("kubectl::apply --server-side and its conflicts", || p.in_namespace("ssa", |ns| server_side(p, ns)));
    runner.check("kubectl::get -w", || p.in_namespace("watches", |ns| watch(p, ns)));
    runner.check("kubectl::auth can-i, whoami, RBAC", || p.in_namespace("rbac", |ns| rbac(p, ns)));
    runner.check("kubectl::custom resources", || custom_resources(p));
    runner.check("kubectl::get nodes, top, cordon", || nodes(p));
}

fn discovery(p: &Platform) -> Check {
    contains(&p.kubectl(&["version"]).ok()?, &["Server Version: v1."])?;
    contains(&p.kubectl(&["cluster-info"]).ok()?, &["control plane"])?;
    let resources = p.kubectl(&["api-resources"]).ok()?;
    contains(
        &resources,
        &["deployments", "httproutes", "authorizationpolicies", "customresourcedefinitions", "persistentvolumeclaims"],
    )?;
    contains(
        &p.kubectl(&["api-versions"]).ok()?,
        &["apps/v1", "gateway.networking.k8s.io/v1", "security.istio.io/v1"],
    )?;
    contains(&p.kubectl(&["explain", "pod.spec.containers.livenessProbe"]).ok()?, &["FIELDS:", "periodSeconds"])?;
    contains(&p.kubectl(&["explain", "deployment", "--recursive"]).ok()?, &["maxUnavailable"])?;
    contains(&p.kubectl(&["explain", "httproute.spec.rules"]).ok()?, &["backendRefs"])
}

fn verbs(p: &Platform, ns: &str) -> Check {
    let k = |arguments: &[&str]| p.kubectl(&[&["-n", ns], arguments].concat());
    contains(
        &k(&["create", "configmap", "settings", "--from-literal=a=1", "--from-literal=b=two"]).ok()?,
        &["configmap/settings created"],
    )?;
    contains(&k(&["create", "secret", "generic", "keys", "--from-literal=k=v"]).ok()?, &["secret/keys created"])?;
    contains(&k(&["create", "serviceaccount", "robot"]).ok()?, &["serviceaccount/robot created"])?;
    contains(
        &k(&["create", "deployment", "web", "--image=bookstore:v1", "--replicas=2", "--", "/bookstore", "ratings"])
            .ok()?,
        &["created"],
    )?;
    contains(&k(&["expose", "deployment/web", "--port=80", "--target-port=8080"]).ok()?, &["service/web exposed"])?;
    k(&["wait", "--for=condition=Available", "deployment/web", "--timeout=60s"]).ok()?;
    contains(&k(&["get", "deployments"]).ok()?, &["READY", "UP-TO-DATE", "AVAILABLE", "2/2"])?;
    contains(&k(&["get", "pods", "-o", "wide"]).ok()?, &["NOMINATED NODE", "1/1", "Running", "e2e"])?;
    contains(
        &k(&["get", "deploy,rs,svc,cm"]).ok()?,
        &["deployment.apps/web", "replicaset.apps/web-", "service/web", "configmap/settings"],
    )?;
    contains(&k(&["get", "configmap/settings", "-o", "yaml"]).ok()?, &["a: \"1\"", "b: two", "kind: ConfigMap"])?;
    contains(&k(&["get", "configmap/settings", "-o", "jsonpath={.data.b}"]).ok()?, &["two"])?;
    contains(&k(&["get", "pods", "-o", "custom-columns=N:.metadata.name,P:.status.phase"]).ok()?, &["Running"])?;
    contains(&k(&["get", "pods", "--field-selector=status.phase=Running", "-o", "name"]).ok()?, &["pod/web-"])?;
    contains(
        &k(&["describe", "deployment", "web"]).ok()?,
        &["RollingUpdateStrategy", "NewReplicaSet:", "Scaled up replica set"],
    )?;
    let first = k(&["get", "pods", "-o", "jsonpath={.items[0].metadata.name}"]).ok()?;
    contains(&k(&["describe", "pod", &first]).ok()?, &["Events:", "Scheduled", "Started"])?;
    contains(&k(&["label", "configmap/settings", "tier=front"]).ok()?, &["labeled"])?;
    contains(&k(&["get", "cm", "-l", "tier in (front,back)", "-o", "name"]).ok()?, &["configmap/settings"])?;
    contains(&k(&["annotate", "configmap/settings", "note=hello"]).ok()?, &["annotated"])?;
    contains(&k(&["scale", "deployment/web", "--replicas=3"]).ok()?, &["scaled"])?;
    contains(&k(&["rollout", "status", "deployment/web", "--timeout=60s"]).ok()?, &["successfully rolled out"])?;
    let pods = k(&["get", "pods", "-o", "jsonpath={.items[*].metadata.name}"]).ok()?;
    let pod = pods.split_whitespace().next().ok_or("no pod")?.to_owned();
    contains(&k(&["logs", &pod]).ok()?, &["on port 8080"])?;
    contains(&k(&["exec", &pod, "--", "/bookstore"]).refused()?, &["usage: bookstore"])?;
    contains(&k(&["delete", "deployment/web", "service/web", "configmap/settings"]).ok()?, &["deleted"])?;
    eventually(Duration::from_secs(40), || {
        let rest = k(&["get", "pods", "-o", "name"]).ok()?;
        if rest.trim().is_empty() { Ok(()) } else { Err(format!("still there: {rest}")) }
    })
}

fn applies(p: &Platform, ns: &str) -> Check {
    let k = |arguments: &[&str]| p.kubectl(&[&["-n", ns], arguments].concat());
    let manifest = |image: &str, replicas: u32| {
        format!(
            r#"{{"apiVersion":"apps/v1","kind":"Deployment","metadata":{{"name":"web"}},"spec":{{"replicas":{replicas},
            "selector":{{"matchLabels":{{"app":"web"}}}},"template":{{"metadata":{{"labels":{{"app":"web"}}}},
            "spec":{{"containers":[{{"name":"web","image":"{image}","args":["ratings"],"ports":[{{"containerPort":8080}}]}}]}}}}}}}}"#
        )
    };
    let apply =
        |image: &str, replicas: u32| p.kubectl_in(&["-n", ns, "apply", "-f", "-"], &manifest(image, replicas)).ok();
    contains(&apply("bookstore:v1", 1)?, &["deployment.apps/web created"])?;
    contains(&apply("bookstore:v1", 1)?, &["deployment.apps/web unchanged"])?;
    contains(&apply("bookstore:v1", 2)?, &["deployment.apps/web configured"])?;
    let diff = p.kubectl_in(&["-n", ns, "diff", "-f", "-"], &manifest("bookstore:v1", 5));
    contains(&diff.stdout, &["+  replicas: 5"])?;
    contains(&k(&["get", "deployment/web", "-o", "jsonpath={.spec.replicas}"]).ok()?, &["2"])?;
    let mut edit = p.client("KUBECTL");
    edit.args(["-n", ns, "edit", "deployment/web"]).env("KUBE_EDITOR", "sed -i s/replicas:.2/replicas:\\ 1/");
    contains(&run_program(&mut edit, None).ok()?, &["deployment.apps/web edited"])?;
    contains(&k(&["get", "deployment/web", "-o", "jsonpath={.spec.replicas}"]).ok()?, &["1"])?;
    let strategic =
        r#"{"spec":{"template":{"spec":{"containers":[{"name":"web","env":[{"name":"VERSION","value":"v2"}]}]}}}}"#;
    contains(&k(&["patch", "deployment/web", "-p", strategic]).ok()?, &["patched"])?;
    contains(
        &k(&["get", "deployment/web", "-o", "jsonpath={.spec.template.spec.containers[*].image}"]).ok()?,
        &["bookstore:v1"],
    )?;
    contains(
        &k(&["patch", "deployment/web", "--type=merge", "-p", r#"{"metadata":{"labels":{"x":"y"}}}"#]).ok()?,
        &["patched"],
    )?;
    let json = r#"[{"op":"test","path":"/metadata/labels/x","value":"y"},{"op":"remove","path":"/metadata/labels/x"}]"#;
    contains(&k(&["patch", "deployment/web", "--type=json", "-p", json]).ok()?, &["patched"])?;
    contains(&k(&["set", "env", "deployment/web", "VERSION=v3"]).ok()?, &["env updated"])?;
    contains(&k(&["rollout", "status", "deployment/web", "--timeout=60s"]).ok()?, &["successfully rolled out"])?;
    contains(&k(&["rollout", "history", "deployment/web"]).ok()?, &["REVISION"])?;
    contains(&k(&["rollout", "undo", "deployment/web"]).ok()?, &["rolled back"])?;
    contains(&k(&["rollout", "status", "deployment/web", "--timeout=60s"]).ok()?, &["successfully rolled out"])?;
    contains(
        &k(&["get", "deployment/web", "-o", "jsonpath={.spec.template.spec.containers[0].env[0].value}"]).ok()?,
        &["v2"],
    )?;
    contains(&k(&["rollout", "restart", "deployment/web"]).ok()?, &["restarted"])?;
    k(&["rollout", "status", "deployment/web", "--timeout=60s"]).ok().map(drop)
}

fn server_side(p: &Platform, ns: &str) -> Check {
    let config = |value: &str| {
        format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"shared"}},"data":{{"a":"{value}"}}}}"#)
    };
    let apply = |manager: &str, value: &str, more: &[&str]| {
        let manager = format!("--field-manager={manager}");
        p.kubectl_in(&[&["-n", ns, "apply", "--server-side", &manager, "-f", "-"], more].concat(), &config(value))
    };
    contains(&apply("one", "1", &[]).ok()?, &["serverside-applied"])?;
    apply("one", "2", &[]).ok()?;
    contains(&apply("two", "3", &[]).refused()?, &["conflict with \"one\"", ".data.a"])?;
    apply("two", "3", &["--force-conflicts"]).ok()?;
    let managed = p.kubectl(&["-n", ns, "get", "cm/shared", "-o", "yaml", "--show-managed-fields"]).ok()?;
    contains(&managed, &["manager: two", "operation: Apply", "f:a: {}"])
}

fn watch(p: &Platform, ns: &str) -> Check {
    let mut kubectl = p.client("KUBECTL");
    kubectl.args(["-n", ns, "get", "configmaps", "-w", "--output-watch-events", "--request-timeout=4s"]);
    let watching = std::thread::spawn(move || run_program(&mut kubectl, None).stdout);
    std::thread::sleep(Duration::from_millis(1500));
    p.kubectl(&["-n", ns, "create", "configmap", "seen"]).ok()?;
    p.kubectl(&["-n", ns, "label", "configmap", "seen", "a=b"]).ok()?;
    p.kubectl(&["-n", ns, "delete", "configmap", "seen"]).ok()?;
    let seen = watching.join().map_err(|_| "the watch panicked")?;
    contains(&seen, &["ADDED", "MODIFIED", "DELETED", "seen"])
}

fn rbac(p: &Platform, ns: &str) -> Check {
    let k = |arguments: &[&str]| p.kubectl(&[&["-n", ns], arguments].concat());
    contains(&k(&["auth", "whoami"]).ok()?, &["kubernetes-admin"])?;
    contains(&k(&["auth", "can-i", "delete", "nodes"]).ok()?, &["yes"])?;
    k(&["create", "serviceaccount", "reader"]).ok()?;
    k(&["create", "role", "reads", "--verb=get,list", "--resource=configmaps"]).ok()?;
    k(&["create", "rolebinding", "reads", "--role=reads", &format!("--serviceaccount={ns}:reader")]).ok()?;
    let user = format!("--as=system:serviceaccount:{ns}:reader");
    eventually(Duration::from_secs(5), || {
        contains(&k(&["auth", "can-i", "list", "configmaps", &user]).stdout, &["yes"])
    })?;
    contains(&k(&["auth", "can-i", "list", "secrets", &user]).stdout, &["no"])?;
    let token = k(&["create", "token", "reader"]).ok()?;
    let with_token = |arguments: &[&str]| {
        let server = format!("--server=https://127.0.0.1:{}", e2e::platform::API);
        let token = format!("--token={}", token.trim());
        let fixed = ["--kubeconfig=/dev/null", "--insecure-skip-tls-verify", &server, &token, "-n", ns];
        run_program(
            Command::new(e2e::platform::binary("KUBECTL").unwrap_or_default()).args(fixed).args(arguments),
            None,
        )
    };
    contains(&with_token(&["get", "configmaps"]).ok()?, &["kube-root-ca.crt"])?;
    let refused = with_token(&["get", "secrets"]).refused()?;
    contains(
        &refused,
        &[&format!(
            "secrets is forbidden: User \"system:serviceaccount:{ns}:reader\" cannot list resource \"secrets\" in API group \"\" in the namespace \"{ns}\""
        )],
    )
}

const CRD: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: ships.harbour.example.com}
spec:
  group: harbour.example.com
  names: {kind: Ship, plural: ships, singular: ship, shortNames: [sh]}
  scope: Namespaced
  versions:
    - name: v1
      served: true
      storage: true
      subresources:
        status: {}
        scale: {specReplicasPath: .spec.oars, statusReplicasPath: .status.oars}
      additionalPrinterColumns:
        - {name: Oars, type: integer, jsonPath: .spec.oars}
      schema:
        openAPIV3Schema:
          type: object
          properties:
            spec:
              type: object
              required: [port]
              properties:
                port: {type: string, enum: [Lechaion, Kenchreai], description: Where it lies.}
                oars: {type: integer, minimum: 1, maximum: 300, default: 50}
            status:
              type: object
              properties: {oars: {type: integer}}
"#;

fn custom_resources(p: &Platform) -> Check {
    p.apply(CRD)?;
    p.kubectl(&["wait", "--for=condition=Established", "crd/ships.harbour.example.com", "--timeout=10s"]).ok()?;
    let ship = |port: &str, more: &str| {
        format!(
            r#"{{"apiVersion":"harbour.example.com/v1","kind":"Ship","metadata":{{"name":"argo"}},"spec":{{"port":"{port}"{more}}}}}"#
        )
    };
    eventually(Duration::from_secs(10), || p.apply(&ship("Lechaion", "")))?;
    contains(&p.kubectl(&["get", "sh"]).ok()?, &["OARS", "argo", "50"])?;
    contains(&p.kubectl(&["explain", "ship.spec.port"]).ok()?, &["Where it lies."])?;
    contains(&p.kubectl(&["scale", "ship/argo", "--replicas=120"]).ok()?, &["scaled"])?;
    let refused = p.kubectl_in(&["apply", "-f", "-"], &ship("Piraeus", "")).refused()?;
    contains(&refused, &["spec.port: Unsupported value: \"Piraeus\""])?;
    let refused = p.kubectl_in(&["apply", "-f", "-"], &ship("Lechaion", r#","sails":1"#)).refused()?;
    contains(&refused, &["unknown field \"spec.sails\""])?;
    p.kubectl(&["delete", "crd", "ships.harbour.example.com"]).ok()?;
    eventually(Duration::from_secs(10), || p.kubectl(&["get", "ships"]).refused().map(drop))
}

fn nodes(p: &Platform) -> Check {
    contains(&p.kubectl(&["get", "nodes", "-o", "wide"]).ok()?, &["e2e", "Ready", "containerd://"])?;
    contains(&p.kubectl(&["describe", "node", "e2e"]).ok()?, &["Allocatable:", "cpu", "PodCIDR:", "Conditions:"])?;
    contains(&p.kubectl(&["cordon", "e2e"]).ok()?, &["cordoned"])?;
    contains(&p.kubectl(&["get", "nodes"]).ok()?, &["SchedulingDisabled"])?;
    contains(&p.kubectl(&["uncordon", "e2e"]).ok()?, &["uncordoned"])?;
    eventually(Duration::from_secs(30), || contains(&p.kubectl(&["top", "nodes"]).ok()?, &["CPU(cores)", "e2e"]))
}
