//! What bears on placement beyond kube-scheduler, with kubectl against a control plane without node agents: quotas that lend and take back,
//! gangs, nodes that tell of their use, their NUMA zones and their GPUs. Nodes are API objects; what is looked at is where pods are bound.

use e2e::shell::{Ran, run};
use e2e::{Check, Runner, Server, contains, eventually, platform};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

const PORT: u16 = 16_474;
const SOON: Duration = Duration::from_secs(10);
const LATER: Duration = Duration::from_secs(40);

struct Cluster {
    dir: PathBuf,
    kubectl: PathBuf,
}

impl Cluster {
    fn kubectl(&self, arguments: &[&str], input: Option<&str>) -> Ran {
        let mut command = Command::new(&self.kubectl);
        command.env("KUBECONFIG", self.dir.join("admin.kubeconfig")).env("HOME", &self.dir).args(arguments);
        run(&mut command, input)
    }

    fn apply(&self, object: &Value) -> Check {
        self.kubectl(&["apply", "-f", "-"], Some(&object.to_string())).ok().map(drop)
    }

    /// A node of a pool, with so many cores, and more resources.
    fn node(&self, name: &str, cores: u32, more: &[(&str, &str)]) -> Check {
        let pool = name.split('-').next().unwrap_or_default();
        let labels = json!({"kubernetes.io/hostname": name, "pool": pool});
        self.apply(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}))?;
        let mut has = json!({"cpu": cores.to_string(), "memory": "32Gi", "pods": "110"});
        more.iter().for_each(|(resource, amount)| has[*resource] = json!(amount));
        let ready = json!({"type": "Ready", "status": "True", "reason": "KubeletReady",
            "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let status = json!({"status": {"capacity": has, "allocatable": has, "conditions": [ready]}}).to_string();
        let patch = ["patch", "node", name, "--subresource=status", "--type=merge", "-p", &status];
        self.kubectl(&patch, None).ok().map(drop)
    }

    /// A pod for a pool that asks for this much, all of it guaranteed.
    fn pod(&self, namespace: &str, name: &str, pool: &str, amounts: &Value, labels: &Value) -> Check {
        let resources = json!({"requests": amounts, "limits": amounts});
        self.apply(&json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "labels": labels},
            "spec": {"nodeSelector": {"pool": pool}, "terminationGracePeriodSeconds": 0,
                "containers": [{"name": "c", "image": "registry.example/pause:1", "resources": resources}]}}))
    }

    fn cores(&self, namespace: &str, names: &[&str], pool: &str, cores: &str, labels: &Value) -> Check {
        let amounts = json!({"cpu": cores, "memory": "64Mi"});
        names.iter().try_for_each(|name| self.pod(namespace, name, pool, &amounts, labels))
    }

    /// Where pods are: `name=node`, sorted.
    fn bound(&self, namespace: &str) -> Check<Vec<String>> {
        let template = "jsonpath={range .items[*]}{.metadata.name}={.spec.nodeName}{\"\\n\"}{end}";
        let text = self.kubectl(&["-n", namespace, "get", "pods", "-o", template], None).ok()?;
        Ok(text.lines().filter(|line| !line.ends_with('=')).map(str::to_owned).collect())
    }

    fn expect_bound(&self, namespace: &str, wanted: &[&str]) -> Check {
        eventually(SOON, || {
            let bound = self.bound(namespace)?;
            if bound == wanted { Ok(()) } else { Err(format!("bound are {bound:?}, not {wanted:?}")) }
        })
    }

    fn expect_told(&self, namespace: &str, pod: &str, why: &str) -> Check {
        let path = "jsonpath={.spec.nodeName}{.status.conditions[?(@.type==\"PodScheduled\")].message}";
        contains(&self.kubectl(&["-n", namespace, "get", "pod", pod, "-o", path], None).ok()?, &[why])
    }

    /// That a pod is told this. It and others are made again until what the platform was just told of is known to its scheduler.
    fn expect_of_new(&self, namespace: &str, pod: &str, make: impl Fn() -> Check, why: &str) -> Check {
        eventually(SOON, || {
            make()?;
            let told = eventually(Duration::from_secs(1), || self.expect_told(namespace, pod, why));
            if told.is_err() {
                self.kubectl(&["-n", namespace, "delete", "pods", "-l", "again=yes"], None).ok()?;
            }
            told
        })
    }

    /// Defines a kind, as its project would.
    fn define(&self, (group, version, kind, plural): (&str, &str, &str, &str), namespaced: bool) -> Check {
        let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        let mut version =
            json!({"name": version, "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}});
        if kind == "Reservation" {
            // The one whose status the platform writes.
            version["subresources"] = json!({"status": {}});
        }
        let names = json!({"kind": kind, "plural": plural, "singular": kind.to_lowercase()});
        self.apply(&json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.{group}"),
                "annotations": {"api-approved.kubernetes.io": "unapproved, for a test"}},
            "spec": {"group": group, "names": names, "versions": [version],
                "scope": if namespaced { "Namespaced" } else { "Cluster" }}}))?;
        let crd = format!("crd/{plural}.{group}");
        self.kubectl(&["wait", "--for=condition=Established", "--timeout=20s", &crd], None).ok().map(drop)
    }
}

fn quotas(c: &Cluster) -> Check {
    c.define(("scheduling.sigs.k8s.io", "v1alpha1", "ElasticQuota", "elasticquotas"), true)?;
    c.node("quota-a", 4, &[])?;
    c.node("quota-b", 4, &[])?;
    for (namespace, most) in [("red", 6), ("blue", 8)] {
        c.kubectl(&["create", "namespace", namespace], None).ok()?;
        c.apply(&json!({"apiVersion": "scheduling.sigs.k8s.io/v1alpha1", "kind": "ElasticQuota",
            "metadata": {"name": namespace, "namespace": namespace},
            "spec": {"min": {"cpu": 4}, "max": {"cpu": most}}}))?;
    }
    // Blue asks for nothing: red borrows, up to its max.
    let names = ["r1", "r2", "r3", "r4", "r5", "r6"];
    c.cores("red", &names, "quota", "1", &json!({}))?;
    eventually(SOON, || match c.bound("red")?.len() {
        6 => Ok(()),
        bound => Err(format!("{bound} of 6 are bound")),
    })?;
    let one_more = || c.cores("red", &["r7"], "quota", "1", &json!({"again": "yes"}));
    c.expect_of_new("red", "r7", one_more, "Insufficient quotas, quotaName: red")?;
    // Blue asks for what it is sure of: two fit, for two what was borrowed is taken back.
    c.cores("blue", &["b1", "b2", "b3", "b4"], "quota", "1", &json!({}))?;
    eventually(LATER, || match (c.bound("blue")?.len(), c.bound("red")?.len()) {
        (4, 4) => Ok(()),
        bound => Err(format!("blue and red have {bound:?} bound")),
    })?;
    let events = c.kubectl(&["-n", "red", "get", "events", "-o", "jsonpath={.items[*].message}"], None).ok()?;
    contains(&events, &["takes back what quota red borrowed"])
}

fn gangs(c: &Cluster) -> Check {
    c.define(("scheduling.x-k8s.io", "v1alpha1", "PodGroup", "podgroups"), true)?;
    c.kubectl(&["create", "namespace", "gangs"], None).ok()?;
    c.apply(&json!({"apiVersion": "scheduling.x-k8s.io/v1alpha1", "kind": "PodGroup",
        "metadata": {"name": "g", "namespace": "gangs"}, "spec": {"minMember": 3}}))?;
    c.node("gang-a", 2, &[])?;
    let labels = json!({"scheduling.x-k8s.io/pod-group": "g", "again": "yes"});
    let gang = || c.cores("gangs", &["a", "b", "c"], "gang", "1", &labels);
    c.expect_of_new("gangs", "a", gang, "pod group gangs/g: there is no room for 3 more pods at once")?;
    c.expect_bound("gangs", &[])?;
    c.node("gang-b", 1, &[])?;
    eventually(SOON, || match c.bound("gangs")?.len() {
        3 => Ok(()),
        bound => Err(format!("{bound} of 3 are bound")),
    })
}

fn load(c: &Cluster) -> Check {
    c.define(("slo.koordinator.sh", "v1alpha1", "NodeMetric", "nodemetrics"), false)?;
    c.kubectl(&["create", "namespace", "load"], None).ok()?;
    c.node("load-large", 8, &[])?;
    c.node("load-small", 4, &[])?;
    c.cores("load", &["before"], "load", "1", &json!({}))?;
    c.expect_bound("load", &["before=load-large"])?;
    let now = run(Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ"]), None).ok()?;
    let used = |cpu: &str| json!({"resources": {"cpu": cpu, "memory": "1Gi"}});
    c.apply(&json!({"apiVersion": "slo.koordinator.sh/v1alpha1", "kind": "NodeMetric",
        "metadata": {"name": "load-large"},
        "status": {"updateTime": now.trim(), "nodeMetric": {"nodeUsage": used("7")}}}))?;
    // Told from then on: what is asked for is little, what is used is much.
    let after = || c.cores("load", &["after"], "load", "1", &json!({"again": "yes"}));
    c.expect_of_new("load", "after", after, "load-small")?;
    c.cores("load", &["large"], "load", "4", &json!({}))?;
    eventually(SOON, || c.expect_told("load", "large", "1 node(s) were too busy"))
}

fn zones(c: &Cluster) -> Check {
    c.define(("topology.node.k8s.io", "v1alpha2", "NodeResourceTopology", "noderesourcetopologies"), false)?;
    c.kubectl(&["create", "namespace", "zones"], None).ok()?;
    c.node("zone-a", 4, &[])?;
    let zone = |name: &str| {
        json!({"name": name, "type": "Node", "resources": [
            {"name": "cpu", "capacity": "2", "allocatable": "2", "available": "2"}]})
    };
    c.apply(&json!({"apiVersion": "topology.node.k8s.io/v1alpha2", "kind": "NodeResourceTopology",
        "metadata": {"name": "zone-a"}, "attributes": [{"name": "topologyManagerPolicy", "value": "single-numa-node"}],
        "zones": [zone("node-0"), zone("node-1")]}))?;
    let wide = || c.cores("zones", &["wide"], "zone", "3", &json!({"again": "yes"}));
    c.expect_of_new("zones", "wide", wide, "1 node(s) NUMA Topology affinity error")?;
    c.cores("zones", &["one", "two"], "zone", "2", &json!({}))?;
    c.expect_bound("zones", &["one=zone-a", "two=zone-a"])
}

const SHARE: &str = "koordinator.sh/gpu-core";

fn share(c: &Cluster, name: &str, percent: u32) -> Check {
    c.pod("gpus", name, "gpu", &json!({"cpu": "100m", "memory": "64Mi", SHARE: percent.to_string()}), &json!({}))
}

fn gpus(c: &Cluster) -> Check {
    c.define(("scheduling.koordinator.sh", "v1alpha1", "Device", "devices"), false)?;
    c.kubectl(&["create", "namespace", "gpus"], None).ok()?;
    let gpu = |minor: i32| json!({"type": "gpu", "minor": minor, "health": true, "resources": {SHARE: "100"}});
    c.apply(&json!({"apiVersion": "scheduling.koordinator.sh/v1alpha1", "kind": "Device",
        "metadata": {"name": "gpu-a"}, "spec": {"devices": [gpu(0), gpu(1)]}}))?;
    c.node("gpu-a", 8, &[(SHARE, "200")])?;
    share(c, "one", 60)?;
    share(c, "two", 60)?;
    c.expect_bound("gpus", &["one=gpu-a", "two=gpu-a"])?;
    let path = "jsonpath={.items[*].metadata.annotations.scheduling\\.koordinator\\.sh/device-allocated}";
    let told = c.kubectl(&["-n", "gpus", "get", "pods", "-o", path], None).ok()?;
    contains(&told, &["\"minor\":0", "\"minor\":1", "\"koordinator.sh/gpu-core\":\"60\""])?;
    // 80 per cent are free, but on no GPU more than 40.
    share(c, "three", 50)?;
    eventually(SOON, || c.expect_told("gpus", "three", "1 Insufficient gpu devices"))?;
    c.kubectl(&["-n", "gpus", "delete", "pod", "three"], None).ok()?;
    share(c, "four", 40)?;
    c.expect_bound("gpus", &["four=gpu-a", "one=gpu-a", "two=gpu-a"])
}

/// What pods were told is what counts after a restart.
fn gpus_again(c: &Cluster) -> Check {
    share(c, "five", 40)?;
    c.expect_bound("gpus", &["five=gpu-a", "four=gpu-a", "one=gpu-a", "two=gpu-a"])?;
    let path = |pod: &str| {
        let annotation = "jsonpath={.metadata.annotations.scheduling\\.koordinator\\.sh/device-allocated}";
        c.kubectl(&["-n", "gpus", "get", "pod", pod, "-o", annotation], None).ok()
    };
    let (four, five) = (path("four")?, path("five")?);
    if four == five { Err(format!("both have {five}")) } else { Ok(()) }
}

fn reservations(c: &Cluster) -> Check {
    c.define(("scheduling.koordinator.sh", "v1alpha1", "Reservation", "reservations"), false)?;
    c.kubectl(&["create", "namespace", "held"], None).ok()?;
    c.node("held-a", 4, &[])?;
    let make = |name: &str, cores: &str, once: bool, app: &str| {
        let resources = json!({"requests": {"cpu": cores, "memory": "64Mi"}});
        c.apply(&json!({"apiVersion": "scheduling.koordinator.sh/v1alpha1", "kind": "Reservation",
            "metadata": {"name": name},
            "spec": {"allocateOnce": once, "ttl": "1h", "owners": [{"labelSelector": {"matchLabels": {"app": app}}}],
                "template": {"metadata": {"namespace": "held"}, "spec": {"nodeSelector": {"pool": "held"},
                    "containers": [{"name": "c", "image": "registry.example/pause:1", "resources": resources}]}}}}))
    };
    let shows = |name: &str, wanted: &str| {
        eventually(SOON, || {
            let path = "jsonpath={.status.phase} {.status.nodeName} {.status.allocated.cpu}/{.status.allocatable.cpu} {.status.currentOwners[*].name}";
            contains(&c.kubectl(&["get", "reservation", name, "-o", path], None).ok()?, &[wanted])
        })
    };
    make("shared", "2", false, "web")?;
    shows("shared", "Available held-a 0/2 ")?;
    // Four cores, two of them held: there is no room for three, but for those whom it is for.
    c.cores("held", &["wide"], "held", "3", &json!({}))?;
    eventually(SOON, || c.expect_told("held", "wide", "1 Insufficient cpu"))?;
    c.cores("held", &["web"], "held", "1", &json!({"app": "web"}))?;
    shows("shared", "Available held-a 1/2 web")?;
    let path = "jsonpath={.metadata.annotations.scheduling\\.koordinator\\.sh/reservation-allocated}";
    contains(
        &c.kubectl(&["-n", "held", "get", "pod", "web", "-o", path], None).ok()?,
        &["\"name\":\"shared\",\"uid\":"],
    )?;
    make("once", "2", true, "db")?;
    shows("once", "Available held-a 0/2 ")?;
    c.cores("held", &["db"], "held", "1", &json!({"app": "db"}))?;
    shows("once", "Succeeded held-a 1/2 db")?;
    c.expect_bound("held", &["db=held-a", "web=held-a"])
}

/// What was held is held after a restart, on the same node, and free once its time is over.
fn reservations_again(c: &Cluster) -> Check {
    c.cores("held", &["web2"], "held", "1", &json!({"app": "web"}))?;
    c.expect_bound("held", &["db=held-a", "web=held-a", "web2=held-a"])?;
    eventually(SOON, || {
        let path = "jsonpath={.status.phase} {.status.allocated.cpu} {.status.currentOwners[*].name}";
        contains(&c.kubectl(&["get", "reservation", "shared", "-o", path], None).ok()?, &["Available 2 web web2"])
    })?;
    c.kubectl(&["-n", "held", "delete", "pod", "web", "web2", "db"], None).ok()?;
    eventually(SOON, || c.expect_told("held", "wide", "1 Insufficient cpu"))?;
    let over = r#"{"spec":{"ttl":null,"expires":"2026-01-01T00:00:00Z"}}"#;
    c.kubectl(&["patch", "reservation", "shared", "--type=merge", "-p", over], None).ok()?;
    c.expect_bound("held", &["wide=held-a"])?;
    eventually(SOON, || {
        let path = "jsonpath={.status.phase} {.status.conditions[?(@.type==\"Ready\")].reason}";
        contains(&c.kubectl(&["get", "reservation", "shared", "-o", path], None).ok()?, &["Failed Expired"])
    })
}

fn start(binary: &Path, dir: &Path, runtime: &tokio::runtime::Runtime) -> Check<Server> {
    let mut server = Server::start(binary, dir, PORT)?;
    runtime.block_on(server.ready())?;
    Ok(server)
}

fn main() -> ExitCode {
    let mut runner = Runner::from_arguments();
    let (Some(binary), Some(kubectl)) = (platform::binary("DIOLKOS_BIN"), platform::binary("KUBECTL")) else {
        runner.skip("scheduling", "DIOLKOS_BIN or KUBECTL names no program; run it with `cargo xtask test --only e2e`");
        return runner.finish();
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let dir = std::env::temp_dir().join(format!("diolkos-scheduling-{}", std::process::id()));
    let mut server = None;
    runner.always("scheduling::a control plane comes up", || {
        std::fs::create_dir_all(&dir).map_err(|error| error.to_string())?;
        server = Some(start(&binary, &dir, &runtime)?);
        Ok(())
    });
    if server.is_some() {
        let c = Cluster { dir: dir.clone(), kubectl };
        let (mut shared, mut held) = (false, false);
        runner.check("scheduling::a quota lends, refuses and takes back", || quotas(&c));
        runner.check("scheduling::a gang is bound whole or not at all", || gangs(&c));
        runner.check("scheduling::a busy node gets no more pods", || load(&c));
        runner.check("scheduling::NUMA zones that are too small refuse a pod", || zones(&c));
        runner.check("scheduling::GPUs are shared one by one", || gpus(&c).inspect(|()| shared = true));
        runner.check("scheduling::a reservation holds room for its owners", || {
            reservations(&c).inspect(|()| held = true)
        });
        if shared || held {
            runner.check("scheduling::and after a restart as before", || {
                drop(server.take());
                server = Some(start(&binary, &dir, &runtime)?);
                if shared { gpus_again(&c) } else { Ok(()) }
            });
        }
        if held {
            runner.check("scheduling::a reservation outlives a restart and ends", || reservations_again(&c));
        }
    }
    drop(server);
    let _ = std::fs::remove_dir_all(&dir);
    runner.finish()
}
