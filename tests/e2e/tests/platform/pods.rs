//! What a pod may ask of its node.

use e2e::shell::{Check, run as run_program};
use e2e::{Platform, Runner, contains, eventually};
use std::process::Command;
use std::time::Duration;

pub fn run(runner: &mut Runner, p: &Platform) {
    runner.check("pods::env, volumes, downward API", || p.in_namespace("volumes", |ns| volumes(p, ns)));
    runner.check("pods::init and sidecar containers", || p.in_namespace("init", |ns| init(p, ns)));
    runner.check("pods::restarts, back-off, exit codes", || p.in_namespace("restarts", |ns| restarts(p, ns)));
    runner.check("pods::probes", || p.in_namespace("probes", |ns| probes(p, ns)));
    runner.check("pods::gRPC probes", || p.in_namespace("grpc", |ns| grpc_probes(p, ns)));
    runner.check("pods::hostPort", || p.in_namespace("hostport", |ns| host_port(p, ns)));
    runner.check("pods::logs -f, exec -it, exit code of exec", || p.in_namespace("streams", |ns| streams(p, ns)));
    runner.check("pods::port-forward", || p.in_namespace("forward", |ns| port_forward(p, ns)));
    runner.check("pods::preStop and grace", || p.in_namespace("grace", |ns| grace(p, ns)));
    runner.check("pods::unschedulable says why", || p.in_namespace("stuck", |ns| unschedulable(p, ns)));
    runner.check("pods::unknown image", || p.in_namespace("noimage", |ns| unknown_image(p, ns)));
    runner.check("pods::RuntimeClass", || p.in_namespace("classes", |ns| runtime_class(p, ns)));
    runner.check("pods::limits reach the cgroup", || p.in_namespace("limits", |ns| limits(p, ns)));
}

/// A pod of one busybox container that runs `script`.
fn toolbox(name: &str, script: &str, more_container: &str, more_pod: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  terminationGracePeriodSeconds: 2
{more_pod}
  containers:
    - name: main
      image: toolbox:v1
      command: [/busybox, sh, -c, {script:?}]
{more_container}
"
    )
}

fn apply(p: &Platform, ns: &str, manifest: &str) -> Check {
    p.kubectl_in(&["-n", ns, "apply", "-f", "-"], manifest).ok().map(drop)
}

fn ready(p: &Platform, ns: &str, pod: &str) -> Check {
    p.kubectl(&["-n", ns, "wait", "--for=condition=Ready", &format!("pod/{pod}"), "--timeout=40s"]).ok().map(drop)
}

fn logs(p: &Platform, ns: &str, pod: &str, needles: &[&str]) -> Check {
    eventually(Duration::from_secs(30), || contains(&p.kubectl(&["-n", ns, "logs", pod]).ok()?, needles))
}

fn volumes(p: &Platform, ns: &str) -> Check {
    p.kubectl(&["-n", ns, "create", "configmap", "settings", "--from-literal=colour=blue"]).ok()?;
    p.kubectl(&["-n", ns, "create", "secret", "generic", "keys", "--from-literal=key=geheim"]).ok()?;
    let claim = "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: disk}\nspec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}\n";
    apply(p, ns, claim)?;
    let script = "echo env=$COLOUR ip=$POD_IP name=$NAME; echo file=$(/busybox cat /settings/colour) secret=$(/busybox cat /keys/key); \
        echo label=$(/busybox cat /info/labels); /busybox test -s /var/run/secrets/kubernetes.io/serviceaccount/token && echo token; \
        echo kept >> /disk/file; /busybox cat /disk/file; echo x > /scratch/y && echo scratch; exec /busybox sleep 1000";
    let container = "      env:
        - {name: COLOUR, valueFrom: {configMapKeyRef: {name: settings, key: colour}}}
        - {name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
        - {name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
      volumeMounts:
        - {name: settings, mountPath: /settings}
        - {name: keys, mountPath: /keys}
        - {name: info, mountPath: /info}
        - {name: disk, mountPath: /disk}
        - {name: scratch, mountPath: /scratch}";
    let pod = "  volumes:
    - {name: settings, configMap: {name: settings}}
    - {name: keys, secret: {secretName: keys}}
    - {name: info, downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}
    - {name: disk, persistentVolumeClaim: {claimName: disk}}
    - {name: scratch, emptyDir: {}}";
    apply(p, ns, &toolbox("vol", script, container, pod))?;
    ready(p, ns, "vol")?;
    logs(
        p,
        ns,
        "vol",
        &["env=blue ip=10.", "name=vol", "file=blue secret=geheim", "label=app=\"vol\"", "token", "kept", "scratch"],
    )?;
    contains(&p.kubectl(&["-n", ns, "get", "pvc"]).ok()?, &["disk", "Bound", "standard"])?;
    p.kubectl(&["-n", ns, "patch", "configmap", "settings", "-p", r#"{"data":{"colour":"red"}}"#]).ok()?;
    eventually(Duration::from_secs(90), || {
        contains(&p.kubectl(&["-n", ns, "exec", "vol", "--", "/busybox", "cat", "/settings/colour"]).ok()?, &["red"])
    })
}

fn init(p: &Platform, ns: &str) -> Check {
    let pod = "  initContainers:
    - {name: first, image: toolbox:v1, command: [/busybox, sh, -c, 'echo one > /shared/order'], volumeMounts: [{name: shared, mountPath: /shared}]}
    - {name: side, image: toolbox:v1, restartPolicy: Always, command: [/busybox, sh, -c, 'echo two >> /shared/order; exec /busybox sleep 1000'], volumeMounts: [{name: shared, mountPath: /shared}]}
  volumes: [{name: shared, emptyDir: {}}]";
    let mount = "      volumeMounts: [{name: shared, mountPath: /shared}]";
    apply(
        p,
        ns,
        &toolbox("init", "/busybox sleep 1; /busybox cat /shared/order; exec /busybox sleep 1000", mount, pod),
    )?;
    ready(p, ns, "init")?;
    logs(p, ns, "init", &["one\ntwo"])?;
    contains(&p.kubectl(&["-n", ns, "get", "pod", "init"]).ok()?, &["2/2"])
}

fn restarts(p: &Platform, ns: &str) -> Check {
    apply(p, ns, &toolbox("crash", "echo gone; exit 3", "", ""))?;
    apply(p, ns, &toolbox("done", "exit 0", "", "  restartPolicy: Never"))?;
    apply(p, ns, &toolbox("failed", "exit 7", "", "  restartPolicy: Never"))?;
    eventually(Duration::from_secs(40), || {
        contains(&p.kubectl(&["-n", ns, "get", "pods"]).ok()?, &["CrashLoopBackOff", "Completed", "Error"])
    })?;
    let exit =
        |pod: &str, path: &str| p.kubectl(&["-n", ns, "get", "pod", pod, "-o", &format!("jsonpath={{{path}}}")]).ok();
    contains(&exit("failed", ".status.containerStatuses[0].state.terminated.exitCode")?, &["7"])?;
    contains(&exit("failed", ".status.phase")?, &["Failed"])?;
    contains(&exit("done", ".status.phase")?, &["Succeeded"])?;
    contains(&p.kubectl(&["-n", ns, "logs", "crash", "--previous"]).ok()?, &["gone"])
}

fn probes(p: &Platform, ns: &str) -> Check {
    let readiness = "      readinessProbe: {exec: {command: [/busybox, test, -e, /tmp/ready]}, periodSeconds: 1}
      livenessProbe: {exec: {command: [/busybox, test, '!', -e, /tmp/dead]}, periodSeconds: 1, failureThreshold: 1}
      volumeMounts: [{name: tmp, mountPath: /tmp}]";
    apply(
        p,
        ns,
        &toolbox(
            "probed",
            "/busybox rm -f /tmp/dead; exec /busybox sleep 1000",
            readiness,
            "  volumes: [{name: tmp, emptyDir: {}}]",
        ),
    )?;
    eventually(Duration::from_secs(20), || {
        contains(&p.kubectl(&["-n", ns, "get", "pods"]).ok()?, &["0/1", "Running"])
    })?;
    p.kubectl(&["-n", ns, "exec", "probed", "--", "/busybox", "touch", "/tmp/ready"]).ok()?;
    ready(p, ns, "probed")?;
    p.kubectl(&["-n", ns, "exec", "probed", "--", "/busybox", "touch", "/tmp/dead"]).ok()?;
    eventually(Duration::from_secs(30), || {
        contains(
            &p.kubectl(&[
                "-n",
                ns,
                "get",
                "pod",
                "probed",
                "-o",
                "jsonpath={.status.containerStatuses[0].restartCount}",
            ])
            .ok()?,
            &["1"],
        )
    })?;
    contains(&p.kubectl(&["-n", ns, "get", "events"]).ok()?, &["Unhealthy", "Liveness probe failed"])
}

/// A pod of the bookstore's catalog.
fn catalog(name: &str, more_container: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 2
  containers:
    - name: main
      image: bookstore:v1
      args: [catalog]
      env: [{{name: PORT, value: \"8080\"}}]
{more_container}
"
    )
}

fn grpc_probes(p: &Platform, ns: &str) -> Check {
    let probe = |service: &str| {
        format!("      readinessProbe: {{grpc: {{port: 8080, service: {service:?}}}, periodSeconds: 1}}")
    };
    apply(p, ns, &catalog("healthy", &probe("catalog")))?;
    apply(p, ns, &catalog("unheard-of", &probe("nobody")))?;
    ready(p, ns, "healthy")?;
    eventually(Duration::from_secs(20), || {
        contains(
            &p.kubectl(&["-n", ns, "describe", "pod", "unheard-of"]).ok()?,
            &["Readiness probe failed", "NotFound"],
        )
    })?;
    contains(&p.kubectl(&["-n", ns, "get", "pod", "unheard-of"]).ok()?, &["0/1", "Running"])
}

/// A port of the machine that leads into a pod, and is free again when the pod is gone.
fn host_port(p: &Platform, ns: &str) -> Check {
    let container = "      ports: [{containerPort: 8080, hostPort: 18099}]";
    apply(p, ns, &catalog("exposed", container))?;
    ready(p, ns, "exposed")?;
    let host = p.kubectl(&["-n", ns, "get", "pod", "exposed", "-o", "jsonpath={.status.hostIP}"]).ok()?;
    let url = format!("http://{host}:18099/healthz");
    let ask = || run_program(Command::new("curl").args(["-sS", "--max-time", "2", &url]), None);
    eventually(Duration::from_secs(10), || contains(&ask().ok()?, &["ok"]))?;
    p.kubectl(&["-n", ns, "delete", "pod", "exposed"]).ok()?;
    eventually(Duration::from_secs(10), || ask().refused().map(drop))
}

fn streams(p: &Platform, ns: &str) -> Check {
    apply(
        p,
        ns,
        &toolbox(
            "talk",
            "for i in 1 2 3 4 5; do echo line $i; /busybox sleep 0.3; done; exec /busybox sleep 1000",
            "",
            "",
        ),
    )?;
    ready(p, ns, "talk")?;
    let script =
        format!("timeout 4 {:?} -n {ns} logs -f talk --tail=5", e2e::platform::binary("KUBECTL").unwrap_or_default());
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).env("KUBECONFIG", p.kubeconfig());
    contains(&run_program(&mut shell, None).stdout, &["line 1", "line 5"])?;
    let echoed = p.kubectl_in(&["-n", ns, "exec", "-i", "talk", "--", "/busybox", "cat"], "through and back\n").ok()?;
    contains(&echoed, &["through and back"])?;
    let failed = p.kubectl(&["-n", ns, "exec", "talk", "--", "/busybox", "sh", "-c", "exit 42"]).refused()?;
    contains(&failed, &["exit code 42"])?;
    let tty = format!(
        "script -qec '{} -n {ns} exec -it talk -- /busybox sh -c \"/busybox tty; /busybox stty size\"' /dev/null",
        e2e::platform::binary("KUBECTL").unwrap_or_default().display()
    );
    let mut shell = Command::new("sh");
    shell.args(["-c", &tty]).env("KUBECONFIG", p.kubeconfig());
    contains(&run_program(&mut shell, Some("")).stdout, &["/dev/pts/"])
}

fn port_forward(p: &Platform, ns: &str) -> Check {
    p.kubectl(&["-n", ns, "run", "web", "--image=bookstore:v1", "--port=8080", "--", "ratings"]).ok()?;
    ready(p, ns, "web")?;
    let mut forward = p.client("KUBECTL");
    let mut forward =
        forward.args(["-n", ns, "port-forward", "pod/web", "18080:8080"]).spawn().map_err(|e| e.to_string())?;
    let answer = eventually(Duration::from_secs(10), || {
        let mut curl = Command::new("curl");
        contains(&run_program(curl.args(["-sS", "http://127.0.0.1:18080/stars"]), None).ok()?, &["\"stars\""])
    });
    let _ = forward.kill();
    let _ = forward.wait();
    answer
}

fn grace(p: &Platform, ns: &str) -> Check {
    let hook = "      lifecycle: {preStop: {exec: {command: [/busybox, sh, -c, 'echo stopping > /marks/stopped']}}}
      volumeMounts: [{name: marks, mountPath: /marks}]";
    let dir = p.dir.join("marks");
    let volume =
        format!("  volumes: [{{name: marks, hostPath: {{path: {}, type: DirectoryOrCreate}}}}]", dir.display());
    apply(
        p,
        ns,
        &toolbox(
            "polite",
            "trap 'echo term > /marks/term; exit 0' TERM; while true; do /busybox sleep 0.1; done",
            hook,
            &volume,
        ),
    )?;
    ready(p, ns, "polite")?;
    p.kubectl(&["-n", ns, "delete", "pod", "polite", "--grace-period=10", "--timeout=30s"]).ok()?;
    for mark in ["stopped", "term"] {
        if !dir.join(mark).exists() {
            return Err(format!("the container left no mark {mark:?}"));
        }
    }
    Ok(())
}

fn unschedulable(p: &Platform, ns: &str) -> Check {
    apply(p, ns, &toolbox("big", "exec /busybox sleep 1", "      resources: {requests: {cpu: '1000'}}", ""))?;
    apply(p, ns, &toolbox("picky", "exec /busybox sleep 1", "", "  nodeSelector: {disk: golden}"))?;
    eventually(Duration::from_secs(10), || {
        contains(
            &p.kubectl(&["-n", ns, "describe", "pod", "big"]).ok()?,
            &["FailedScheduling", "0/1 nodes are available: 1 Insufficient cpu."],
        )?;
        contains(
            &p.kubectl(&["-n", ns, "describe", "pod", "picky"]).ok()?,
            &["1 node(s) didn't match Pod's node affinity/selector."],
        )
    })?;
    p.kubectl(&["label", "node", "e2e", "disk=golden"]).ok()?;
    let outcome = ready(p, ns, "picky");
    p.kubectl(&["label", "node", "e2e", "disk-"]).ok()?;
    outcome.or_else(|_| contains(&p.kubectl(&["-n", ns, "get", "pod", "picky"]).ok()?, &["Completed"]))
}

fn unknown_image(p: &Platform, ns: &str) -> Check {
    p.kubectl(&["-n", ns, "run", "lost", "--image=registry.invalid/nothing:v1"]).ok()?;
    eventually(Duration::from_secs(60), || {
        let pods = p.kubectl(&["-n", ns, "get", "pods"]).ok()?;
        contains(&pods, &["ErrImagePull"]).or_else(|_| contains(&pods, &["ImagePullBackOff"]))
    })
}

fn runtime_class(p: &Platform, ns: &str) -> Check {
    let classes = "apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {name: e2e-runc}
handler: runc
overhead: {podFixed: {cpu: 10m, memory: 16Mi}}
scheduling: {nodeSelector: {kubernetes.io/os: linux}}
---
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {name: e2e-lost}
handler: lost
";
    p.kubectl_in(&["apply", "-f", "-"], classes).ok()?;
    let outcome = run_by_class(p, ns);
    p.kubectl(&["delete", "runtimeclass", "e2e-runc", "e2e-lost"]).ok()?;
    outcome
}

fn run_by_class(p: &Platform, ns: &str) -> Check {
    let sleep = "exec /busybox sleep 1000";
    apply(p, ns, &toolbox("known", sleep, "", "  runtimeClassName: e2e-runc"))?;
    apply(p, ns, &toolbox("lost", sleep, "", "  runtimeClassName: e2e-lost"))?;
    ready(p, ns, "known")?;
    let show = "jsonpath={.spec.overhead.memory} {.spec.nodeSelector}";
    contains(
        &p.kubectl(&["-n", ns, "get", "pod", "known", "-o", show]).ok()?,
        &["16Mi {\"kubernetes.io/os\":\"linux\"}"],
    )?;
    let unknown = toolbox("unknown", sleep, "", "  runtimeClassName: e2e-nothing");
    let refused = p.kubectl_in(&["-n", ns, "create", "-f", "-"], &unknown).refused()?;
    contains(&refused, &["forbidden: pod rejected: RuntimeClass \"e2e-nothing\" not found"])?;
    eventually(Duration::from_secs(20), || {
        let told = p.kubectl(&["-n", ns, "describe", "pod", "lost"]).ok()?;
        contains(&told, &["ContainerCreating", "FailedCreatePodSandBox", "no runtime for \"lost\" is configured"])
    })
}

fn limits(p: &Platform, ns: &str) -> Check {
    let resources = "      resources: {limits: {memory: 32Mi, cpu: 500m}, requests: {cpu: 100m}}";
    apply(p, ns, &toolbox("bounded", "exec /busybox sleep 1000", resources, ""))?;
    apply(
        p,
        ns,
        &toolbox(
            "greedy",
            "exec /busybox dd if=/dev/zero of=/dev/null bs=100M",
            "      resources: {limits: {memory: 16Mi}}",
            "  restartPolicy: Never",
        ),
    )?;
    ready(p, ns, "bounded")?;
    let read = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || /busybox cat /sys/fs/cgroup/memory.max";
    contains(
        &p.kubectl(&["-n", ns, "exec", "bounded", "--", "/busybox", "sh", "-c", &format!("/busybox {read}")]).ok()?,
        &["33554432"],
    )?;
    eventually(Duration::from_secs(30), || contains(&p.kubectl(&["-n", ns, "get", "pods"]).ok()?, &["OOMKilled"]))
}
