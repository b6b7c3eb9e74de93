//! The real clients, unmodified. Each is found by an environment variable or on the PATH, and its test is skipped by name without it.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn data(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name).to_string_lossy().into_owned()
}

/// A program by variable or name; `None` after saying that the test is skipped.
fn program(test: &str, variable: &str, name: &str) -> Option<PathBuf> {
    let named = std::env::var_os(variable).map(PathBuf::from);
    let on_path = || {
        let dirs = std::env::var_os("PATH")?;
        std::env::split_paths(&dirs).map(|dir| dir.join(name)).find(|path| path.is_file())
    };
    let found = named.or_else(on_path);
    if found.is_none() {
        println!("SKIPPED {test}: {name} is not on the PATH and {variable} is not set");
    }
    found
}

struct Client {
    program: PathBuf,
    kubeconfig: PathBuf,
    home: PathBuf,
}

impl Client {
    fn new(program: PathBuf, server: &common::Running) -> Client {
        // Clients cache discovery in their home; one of the machine's would speak of another server.
        Client { program, kubeconfig: server.kubeconfig(), home: server.dir.join("home") }
    }

    fn output(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(&self.program);
        command.args(arguments).env("KUBECONFIG", &self.kubeconfig).env("HOME", &self.home).stdin(Stdio::null());
        command.output().expect("the client can be started")
    }

    /// Standard output of a command that must succeed.
    #[track_caller]
    fn run(&self, line: &str) -> String {
        let arguments: Vec<&str> = line.split(' ').collect();
        let output = self.output(&arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {error}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Standard error of a command that must fail.
    #[track_caller]
    fn fails(&self, line: &str) -> String {
        let arguments: Vec<&str> = line.split(' ').collect();
        let output = self.output(&arguments);
        assert!(!output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// A command must print a text.
    #[track_caller]
    fn says(&self, line: &str, expect: &str) {
        let said = self.run(line);
        assert!(said.contains(expect), "{line}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl() {
    let Some(program) = program("kubectl", "DIOLKOS_KUBECTL", "kubectl") else { return };
    let server = common::start("kubectl").await;
    let client = Client::new(program, &server);
    tokio::task::spawn_blocking(move || {
        client.says("version", "Server Version: v1.37.0+diolkos");
        client.says("create deployment web --image=nginx", "deployment.apps/web created");
        client.says("get deployments", "web    0/1");
        client.says("describe deployment web", "RollingUpdateStrategy:  25% max unavailable, 25% max surge");
        client.says("delete deployment web", "deployment.apps \"web\" deleted");
        let shop = format!("-f {}", data("shop.yaml"));
        client.says(&format!("apply {shop}"), "deployment.apps/web created");
        client.says(&format!("apply {shop}"), "deployment.apps/web unchanged");
        client.says(&format!("apply --server-side --force-conflicts {shop}"), "service/web serverside-applied");
        client.says("-n shop get all -o wide", "service/web   NodePort   10.96.1.");
        client.says("-n shop get deployment web -o jsonpath={.spec.replicas}", "2");
        client.says("-n shop scale deployment web --replicas=3", "scaled");
        client.says("-n shop label deployment web a=b", "labeled");
        client.says("-n shop annotate deployment web c=d", "annotated");
        client.says("-n shop set image deployment/web web=nginx:2", "image updated");
        client.says("-n shop rollout restart deployment web", "restarted");
        client.says("-n shop patch deployment web -p {\"spec\":{\"paused\":true}}", "patched");
        client.says("-n shop get deployment web -o yaml --show-managed-fields", "manager: kubectl-patch");
        client.says("-n shop create token default", "ey");
        client.says("explain pod.spec.containers.ports", "containerPort\t<integer> -required-");
        client.says("api-resources", "horizontalpodautoscalers");
        client.says("auth whoami", "kubernetes-admin");
        client.says("auth can-i create pods", "yes");
        assert!(
            client
                .fails("get pods --as jane")
                .contains("cannot list resource \"pods\" in API group \"\" in the namespace \"default\"")
        );
        assert!(client.fails("get pods nope").contains("Error from server (NotFound): pods \"nope\" not found"));
        client.says("-n shop delete pod p", "deleted");
        client.says("-n shop wait --for=delete pod/p --timeout=5s", "");
        let crd = format!("-f {}", data("chart/crds/widgets.yaml"));
        client.says(&format!("apply {crd}"), "created");
        client.says("wait --for=condition=Established crd/widgets.example.com --timeout=5s", "condition met");
        client.says("get widgets", "");
        client.says(&format!("delete {crd}"), "deleted");
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn helm() {
    let Some(program) = program("helm", "DIOLKOS_HELM", "helm") else { return };
    let server = common::start("helm").await;
    let client = Client::new(program, &server);
    tokio::task::spawn_blocking(move || {
        let chart = data("chart");
        client.says(&format!("install one {chart} -n shop --create-namespace"), "STATUS: deployed");
        client.says(&format!("upgrade one {chart} -n shop --set replicas=3"), "REVISION: 2");
        client.says("rollback one 1 -n shop", "Rollback was a success");
        client.says("history one -n shop", "Rollback to 1");
        client.says("uninstall one -n shop", "release \"one\" uninstalled");
        client.says("list -A", "NAME");
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn python() {
    let Some(program) = program("python", "DIOLKOS_PYTHON", "python3") else { return };
    let has_client =
        Command::new(&program).args(["-c", "import kubernetes"]).output().is_ok_and(|out| out.status.success());
    if !has_client {
        println!("SKIPPED python: {} has no package kubernetes", program.display());
        return;
    }
    let server = common::start("python").await;
    let client = Client::new(program, &server);
    tokio::task::spawn_blocking(move || client.says(&data("client.py"), "well")).await.unwrap();
}
