//! The controllers, through the API.

use e2e::shell::Check;
use e2e::{Platform, Runner, contains, eventually};
use std::time::Duration;

pub fn run(runner: &mut Runner, p: &Platform) {
    runner.check("workloads::StatefulSet with claims", || p.in_namespace("stateful", |ns| stateful(p, ns)));
    runner.check("workloads::DaemonSet", || p.in_namespace("daemon", |ns| daemon(p, ns)));
    runner.check("workloads::ReplicationController", || p.in_namespace("controllers", |ns| controller(p, ns)));
    runner.check("workloads::Job and CronJob", || p.in_namespace("jobs", |ns| jobs(p, ns)));
    runner.check("workloads::HPA on CPU", || p.in_namespace("hpa", |ns| hpa(p, ns)));
    runner.check("workloads::PDB guards eviction", || p.in_namespace("pdb", |ns| budget(p, ns)));
    runner.check("workloads::owners are collected", || p.in_namespace("owners", |ns| owners(p, ns)));
}

fn apply(p: &Platform, ns: &str, manifest: &str) -> Check {
    p.kubectl_in(&["-n", ns, "apply", "-f", "-"], manifest).ok().map(drop)
}

fn stateful(p: &Platform, ns: &str) -> Check {
    apply(
        p,
        ns,
        "apiVersion: v1
kind: Service
metadata: {name: db}
spec: {clusterIP: None, selector: {app: db}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  replicas: 2
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: db
          image: toolbox:v1
          command: [/busybox, sh, -c, 'echo $HOSTNAME >> /data/who; exec /busybox sleep 1000']
          volumeMounts: [{name: data, mountPath: /data}]
  volumeClaimTemplates:
    - metadata: {name: data}
      spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
",
    )?;
    p.kubectl(&["-n", ns, "rollout", "status", "statefulset/db", "--timeout=60s"]).ok()?;
    contains(
        &p.kubectl(&["-n", ns, "get", "pods,pvc"]).ok()?,
        &["pod/db-0", "pod/db-1", "data-db-0", "data-db-1", "Bound"],
    )?;
    p.kubectl(&["-n", ns, "delete", "pod", "db-1", "--timeout=30s"]).ok()?;
    eventually(Duration::from_secs(30), || {
        let who = p.kubectl(&["-n", ns, "exec", "db-1", "--", "/busybox", "cat", "/data/who"]).ok()?;
        contains(&who, &["db-1\ndb-1"])
    })
}

fn controller(p: &Platform, ns: &str) -> Check {
    let manifest = "apiVersion: v1
kind: ReplicationController
metadata: {name: old}
spec:
  replicas: 2
  template:
    metadata: {labels: {app: old}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: main, image: toolbox:v1, command: [/busybox, sleep, '1000']}]
";
    p.kubectl_in(&["-n", ns, "create", "-f", "-"], manifest).ok()?;
    let ready = |count: &'static str| {
        eventually(Duration::from_secs(40), || {
            let shown = "jsonpath={.status.readyReplicas} of {.status.replicas}, {.spec.selector}";
            let shown = p.kubectl(&["-n", ns, "get", "rc", "old", "-o", shown]).ok()?;
            contains(&shown, &[&format!("{count} of {count}, {{\"app\":\"old\"}}")])
        })
    };
    ready("2")?;
    contains(&p.kubectl(&["-n", ns, "get", "rc"]).ok()?, &["DESIRED", "old", "2"])?;
    p.kubectl(&["-n", ns, "scale", "rc/old", "--replicas=1"]).ok()?;
    ready("1")?;
    contains(&p.kubectl(&["-n", ns, "describe", "rc", "old"]).ok()?, &["replication-controller", "Deleted pod: old-"])?;
    p.kubectl(&["-n", ns, "delete", "rc", "old"]).ok()?;
    eventually(Duration::from_secs(20), || {
        let pods = p.kubectl(&["-n", ns, "get", "pods", "-o", "name"]).ok()?;
        if pods.trim().is_empty() { Ok(()) } else { Err(pods) }
    })
}

fn daemon(p: &Platform, ns: &str) -> Check {
    apply(
        p,
        ns,
        "apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: a, image: toolbox:v1, command: [/busybox, sleep, '1000']}]
",
    )?;
    p.kubectl(&["-n", ns, "rollout", "status", "daemonset/agent", "--timeout=60s"]).ok()?;
    contains(&p.kubectl(&["-n", ns, "get", "daemonset"]).ok()?, &["DESIRED", "agent", "1"])
}

fn jobs(p: &Platform, ns: &str) -> Check {
    apply(p, ns, "apiVersion: batch/v1
kind: Job
metadata: {name: sum}
spec:
  completions: 3
  parallelism: 2
  template: {spec: {restartPolicy: Never, containers: [{name: s, image: toolbox:v1, command: [/busybox, sh, -c, 'echo $((1+2))']}]}}
---
apiVersion: batch/v1
kind: Job
metadata: {name: fails}
spec:
  backoffLimit: 0
  template: {spec: {restartPolicy: Never, containers: [{name: s, image: toolbox:v1, command: [/busybox, 'false']}]}}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: tick}
spec:
  schedule: '* * * * *'
  jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: s, image: toolbox:v1, command: [/busybox, 'true']}]}}}}
")?;
    p.kubectl(&["-n", ns, "wait", "--for=condition=Complete", "job/sum", "--timeout=60s"]).ok()?;
    contains(&p.kubectl(&["-n", ns, "get", "job/sum"]).ok()?, &["Complete", "3/3"])?;
    p.kubectl(&["-n", ns, "wait", "--for=condition=Failed", "job/fails", "--timeout=60s"]).ok()?;
    contains(&p.kubectl(&["-n", ns, "create", "job", "now", "--from=cronjob/tick"]).ok()?, &["job.batch/now created"])?;
    p.kubectl(&["-n", ns, "wait", "--for=condition=Complete", "job/now", "--timeout=60s"]).ok()?;
    eventually(Duration::from_secs(90), || {
        contains(&p.kubectl(&["-n", ns, "get", "jobs", "-o", "name"]).ok()?, &["job.batch/tick-"])
    })
}

fn hpa(p: &Platform, ns: &str) -> Check {
    apply(p, ns, "apiVersion: apps/v1
kind: Deployment
metadata: {name: busy}
spec:
  selector: {matchLabels: {app: busy}}
  template:
    metadata: {labels: {app: busy}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
        - {name: b, image: toolbox:v1, command: [/busybox, sh, -c, 'while true; do :; done'], resources: {requests: {cpu: 20m}, limits: {cpu: 100m}}}
")?;
    p.kubectl(&["-n", ns, "autoscale", "deployment/busy", "--min=1", "--max=3", "--cpu=50%"]).ok()?;
    eventually(Duration::from_secs(90), || {
        contains(&p.kubectl(&["-n", ns, "get", "deployment/busy", "-o", "jsonpath={.spec.replicas}"]).ok()?, &["3"])
    })?;
    contains(&p.kubectl(&["-n", ns, "top", "pods"]).ok()?, &["CPU(cores)", "busy-"])?;
    contains(&p.kubectl(&["-n", ns, "get", "hpa"]).ok()?, &["Deployment/busy", "%/50%"])
}

fn budget(p: &Platform, ns: &str) -> Check {
    p.kubectl(&["-n", ns, "create", "deployment", "web", "--image=bookstore:v1", "--", "/bookstore", "ratings"])
        .ok()?;
    p.kubectl(&["-n", ns, "create", "pdb", "web", "--selector=app=web", "--min-available=1"]).ok()?;
    p.kubectl(&["-n", ns, "rollout", "status", "deployment/web", "--timeout=60s"]).ok()?;
    eventually(Duration::from_secs(10), || {
        contains(&p.kubectl(&["-n", ns, "get", "pdb", "web"]).ok()?, &["1", "N/A", "0"])
    })?;
    let pod = p.kubectl(&["-n", ns, "get", "pods", "-o", "jsonpath={.items[0].metadata.name}"]).ok()?;
    let eviction =
        format!(r#"{{"apiVersion":"policy/v1","kind":"Eviction","metadata":{{"name":"{pod}","namespace":"{ns}"}}}}"#);
    let path = format!("/api/v1/namespaces/{ns}/pods/{pod}/eviction");
    let refused = p.kubectl_in(&["create", "--raw", &path, "-f", "-"], &eviction).refused()?;
    contains(&refused, &["disruption budget"])
}

fn owners(p: &Platform, ns: &str) -> Check {
    p.kubectl(&["-n", ns, "create", "deployment", "web", "--image=bookstore:v1", "--", "/bookstore", "ratings"])
        .ok()?;
    p.kubectl(&["-n", ns, "rollout", "status", "deployment/web", "--timeout=60s"]).ok()?;
    p.kubectl(&["-n", ns, "delete", "deployment/web", "--cascade=orphan"]).ok()?;
    std::thread::sleep(Duration::from_secs(2));
    contains(
        &p.kubectl(&["-n", ns, "get", "replicasets,pods", "-o", "name"]).ok()?,
        &["replicaset.apps/web-", "pod/web-"],
    )?;
    p.kubectl(&["-n", ns, "delete", "replicaset", "--all", "--cascade=foreground", "--timeout=40s"]).ok()?;
    let rest = p.kubectl(&["-n", ns, "get", "pods", "-o", "name"]).ok()?;
    if rest.trim().is_empty() {
        Ok(())
    } else {
        Err(format!("foreground deletion returned before its dependents were gone: {rest}"))
    }
}
