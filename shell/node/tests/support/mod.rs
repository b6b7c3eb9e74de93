//! A node on this machine with a containerd of its own, fed by an API of its own.
#![allow(dead_code, reason = "every test binary uses a part of it")]

mod api;
mod https;

pub use api::FakeApi;

use diolkos_node::image::{ImageBuilder, Loader};
use diolkos_node::{Config, TlsFiles};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub const IMAGE: &str = "diolkos.test/host:1";

/// Why containers cannot be run here.
pub fn unfit() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("needs root".to_owned());
    }
    let missing = diolkos_node::preflight::missing(&path());
    (!missing.is_empty()).then(|| missing.iter().map(|m| m.program).collect::<Vec<_>>().join(", ") + " missing")
}

pub fn path() -> String {
    std::env::var("PATH").unwrap_or_default()
}

/// Everything that a test started; all of it is gone after `stop`.
pub struct Node {
    pub api: Arc<FakeApi>,
    pub config: Config,
    pub root: PathBuf,
    containerd: Child,
    agent: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Node {
    /// `index` keeps tests that run at the same time apart: ports, bridges and address ranges.
    pub async fn start(index: u16, change: impl FnOnce(&mut Config)) -> Node {
        let root = std::env::temp_dir().join(format!("diolkos-node-{}-{index}", std::process::id()));
        std::fs::create_dir_all(&root).unwrap();
        let mut config = Config::new("test-node", [127, 0, 0, 1].into(), &root.join("data"), &root.join("run"));
        config.bridge = Some(format!("dtest{index}"));
        config.pod_cidr = format!("10.251.{index}.0/24");
        config.cluster_cidr = "10.251.0.0/16".to_owned();
        config.cgroup_root = format!("/diolkos-test-{}-{index}", std::process::id());
        config.port = 24000 + index;
        config.cluster_dns.clear();
        config.drain_delay = Duration::from_millis(100);
        config.tls = Some(https::certificates(&root));
        change(&mut config);
        let containerd = diolkos_node::containerd::containerd_command(&config, &path())
            .unwrap()
            .stdout(std::fs::File::create(root.join("containerd.out")).unwrap())
            .stderr(std::fs::File::create(root.join("containerd.err")).unwrap())
            .spawn()
            .unwrap();
        let mut started = Node { api: Arc::new(FakeApi::default()), config, root, containerd, agent: None };
        diolkos_node::containerd::wait_ready(&started.config, Duration::from_secs(30)).await.unwrap();
        started.load_image().await;
        started.start_agent();
        started
    }

    /// An image with nothing of its own: the machine's `/usr` is mounted into its containers.
    async fn load_image(&self) {
        let tar = self.root.join("host.tar");
        let mut image = ImageBuilder::new(IMAGE).unwrap();
        for (name, mode) in [("/usr", 0o755), ("/tmp", 0o1777), ("/etc", 0o755), ("/root", 0o700)] {
            image = image.directory(name, mode);
        }
        for name in ["bin", "sbin", "lib", "lib64"] {
            image = image.link(&format!("/{name}"), &format!("usr/{name}"));
        }
        image.env("PATH", "/usr/sbin:/usr/bin").cmd(["sleep", "1000"]).write_to(&tar).unwrap();
        let loaded = Loader::new(&self.config, &path()).load(&tar).await.unwrap();
        assert_eq!(loaded.names, [IMAGE]);
    }

    pub fn start_agent(&mut self) {
        let (stop, stopped) = oneshot::channel();
        let (config, api) = (self.config.clone(), self.api.clone());
        let task = tokio::spawn(async move {
            let shutdown = async { drop(stopped.await) };
            diolkos_node::run(config, api, &path(), shutdown).await.unwrap();
        });
        self.agent = Some((stop, task));
    }

    /// Stops the agent; its containers run on.
    pub async fn stop_agent(&mut self) {
        if let Some((stop, task)) = self.agent.take() {
            let _ = stop.send(());
            task.await.unwrap();
        }
    }

    /// Removes every pod, and everything that the test made.
    pub async fn stop(mut self) {
        for name in self.api.pod_names() {
            self.api.delete_pod(&name, 0);
        }
        for name in self.api.pod_names() {
            self.api.wait_gone(&name).await;
        }
        self.wait_empty().await;
        self.stop_agent().await;
        self.remove();
    }

    /// Until the runtime has no sandbox any more.
    pub async fn wait_empty(&self) {
        let runtime = diolkos_node::Runtime::connect(&self.config.containerd_socket());
        for _ in 0..800 {
            if runtime.list_sandboxes(Default::default()).await.unwrap().is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("sandboxes are left");
    }

    /// Sandboxes of a pod.
    pub async fn sandboxes(&self, uid: &str) -> usize {
        let runtime = diolkos_node::Runtime::connect(&self.config.containerd_socket());
        let sandboxes = runtime.list_sandboxes(Default::default()).await.unwrap();
        sandboxes.iter().filter(|s| s.metadata.as_ref().is_some_and(|meta| meta.uid == uid)).count()
    }

    /// Sandboxes, their networks and mounts, without the agent. A runtime of its own: the test's may be winding down.
    fn end_all(&mut self) {
        if let Some((_, task)) = self.agent.take() {
            task.abort();
        }
        let config = self.config.clone();
        let ended = std::thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
                let _ = diolkos_node::stop_pods(&config).await;
                let runtime = diolkos_node::Runtime::connect(&config.containerd_socket());
                for sandbox in runtime.list_sandboxes(Default::default()).await.unwrap_or_default() {
                    let _ = runtime.remove_sandbox(&sandbox.id).await;
                }
            });
        });
        let _ = ended.join();
        let root = self.root.display();
        run(
            "sh",
            &[
                "-c",
                &format!("for m in $(cut -d' ' -f5 /proc/self/mountinfo | grep '^{root}/'); do umount -l $m; done"),
            ],
        );
    }

    fn remove(&mut self) {
        use nix::sys::signal::{Signal, kill};
        let pid = nix::unistd::Pid::from_raw(self.containerd.id() as i32);
        let _ = kill(pid, Signal::SIGTERM);
        let _ = self.containerd.wait();
        let bridge = self.config.bridge.clone().unwrap();
        run("ip", &["link", "delete", &bridge]);
        run("nft", &["delete", "table", "ip", &bridge]);
        let _ = std::fs::remove_dir_all(&self.root);
        for hierarchy in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            remove_cgroups(&hierarchy.path().join(self.config.cgroup_root.trim_start_matches('/')));
        }
    }

    /// GET on the node's HTTPS server as the API server.
    pub async fn get(&self, path: &str) -> (u16, String) {
        https::get(&self.root, self.config.port, path, true).await
    }

    pub async fn get_as_nobody(&self, path: &str) -> (u16, String) {
        https::get(&self.root, self.config.port, path, false).await
    }

    pub fn tls(&self) -> rustls::ClientConfig {
        https::client(&self.root, true)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.root.exists() {
            // A test failed: what it started must not stay.
            eprintln!("{}", std::fs::read_to_string(self.root.join("containerd.err")).unwrap_or_default());
            self.end_all();
            self.remove();
        }
    }
}

fn remove_cgroups(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir()) {
        remove_cgroups(&entry.path());
    }
    let _ = std::fs::remove_dir(dir);
}

fn run(program: &str, args: &[&str]) {
    let _ = std::process::Command::new(program).args(args).stderr(std::process::Stdio::null()).status();
}

/// A pod whose containers have the machine's programs.
pub fn pod(name: &str, spec: &Value) -> Value {
    let mut spec = spec.clone();
    spec["nodeName"] = json!("test-node");
    let mut volumes = spec["volumes"].as_array().cloned().unwrap_or_default();
    volumes.push(json!({"name": "usr", "hostPath": {"path": "/usr"}}));
    spec["volumes"] = json!(volumes);
    for list in ["containers", "initContainers"] {
        for container in spec[list].as_array_mut().into_iter().flatten() {
            if container["image"].is_null() {
                container["image"] = json!(IMAGE);
            }
            let mut mounts = container["volumeMounts"].as_array().cloned().unwrap_or_default();
            mounts.push(json!({"name": "usr", "mountPath": "/usr", "readOnly": true}));
            container["volumeMounts"] = json!(mounts);
        }
        if spec[list].is_null() {
            spec.as_object_mut().unwrap().remove(list);
        }
    }
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}-{}", std::process::id()), "labels": {"app": name}},
        "spec": spec, "status": {"phase": "Pending"},
    })
}

/// A web server that says `hi`; with status 503 while `/tmp/down` is there.
pub const HTTP: &str = r#"exec perl -MIO::Socket::INET -e '$s=IO::Socket::INET->new(LocalPort=>8080,Listen=>9,ReuseAddr=>1);
    while($c=$s->accept){while(defined($l=<$c>)&&$l ne "\r\n"){}; $up=!-e "/tmp/down"; print $c "HTTP/1.1 ".($up?"200 OK":"503 No")."\r\nContent-Length: 3\r\nConnection: close\r\n\r\nhi\n";close $c}'"#;

/// `sh -c` of `script`.
pub fn shell(name: &str, script: &str) -> Value {
    json!({"name": name, "command": ["sh", "-c", script]})
}

pub fn tls_files(root: &Path) -> TlsFiles {
    TlsFiles { certificate: root.join("node.crt"), key: root.join("node.key"), client_ca: root.join("ca.crt") }
}
