//! The load on the gateway, and what it saw.

use crate::sh::Result;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

/// A request as the load generator saw it.
pub struct Sample {
    /// When it was sent, Unix milliseconds.
    pub at_ms: u64,
    /// How long it took.
    pub latency_us: u64,
    /// The hops of its answer, or why there was none.
    pub outcome: std::result::Result<Vec<Hop>, String>,
}

/// A service on the path, and who called it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hop {
    pub service: String,
    pub version: String,
    /// SPIFFE identity, as proved by the mesh.
    pub caller: String,
}

/// A running load.
pub struct Load {
    process: Child,
    output: PathBuf,
}

impl Load {
    pub fn start(bookstore: &Path, url: &str, rate: u32, seconds: u32, output: &Path) -> Result<Load> {
        let process = Command::new(bookstore)
            .args(["load", "--url", url, "--rate", &rate.to_string(), "--seconds", &seconds.to_string(), "--output"])
            .arg(output)
            .stdin(Stdio::null())
            .spawn()
            .map_err(|error| format!("{}: {error}", bookstore.display()))?;
        Ok(Load { process, output: output.to_path_buf() })
    }

    /// Waits for its end and reads what it saw.
    pub fn finish(mut self) -> Result<Vec<Sample>> {
        let status = self.process.wait().map_err(|error| error.to_string())?;
        if !status.success() {
            return Err(format!("the load generator ended with {status}"));
        }
        let text = fs::read_to_string(&self.output).map_err(|error| format!("{}: {error}", self.output.display()))?;
        text.lines().map(parse).collect()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn parse(line: &str) -> Result<Sample> {
    let value: Value = serde_json::from_str(line).map_err(|error| format!("load report: {error}: {line}"))?;
    let text = |value: &Value| value.as_str().unwrap_or("none").to_owned();
    let hop = |hop: &Value| Hop {
        service: text(&hop["service"]),
        version: text(&hop["version"]),
        caller: text(&hop["caller"]),
    };
    let outcome = match value["error"].as_str() {
        Some(error) => Err(error.to_owned()),
        None => Ok(value["hops"].as_array().into_iter().flatten().map(hop).collect()),
    };
    Ok(Sample { at_ms: value["at_ms"].as_u64().unwrap_or(0), latency_us: value["us"].as_u64().unwrap_or(0), outcome })
}

/// Unix milliseconds.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}
