//! SkyWalking's own Python agent reports to the platform: two processes, of which one calls the other, become an edge of the service graph.

use client::HttpsApi;
use e2e::{Check, Runner, Server, eventually, platform, shell};
use serde_json::Value;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

const PORT: u16 = 16_490;
const AGENTS: u16 = PORT + 3;
const BACK: u16 = PORT + 4;
const TOKEN: &str = "let me in";
const PATIENCE: Duration = Duration::from_secs(60);

/// The service that is called.
const CALLED: &str = r#"
import sys
from skywalking import agent, config
config.init(agent_name="back", agent_instance_name="back-1", agent_collector_backend_services=sys.argv[1],
            agent_authentication=sys.argv[3], agent_collector_heartbeat_period=1)
agent.start()
from http.server import BaseHTTPRequestHandler, HTTPServer
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        code = 500 if self.path == "/broken" else 200
        self.send_response(code); self.send_header("content-length", "2"); self.end_headers(); self.wfile.write(b"ok")
    def log_message(self, *_): pass
HTTPServer(("127.0.0.1", int(sys.argv[2])), Handler).serve_forever()
"#;

/// The service that calls.
const CALLER: &str = r#"
import sys, time, urllib.request, urllib.error
from skywalking import agent, config
config.init(agent_name="front", agent_instance_name="front-1", agent_collector_backend_services=sys.argv[1],
            agent_authentication=sys.argv[3], agent_collector_heartbeat_period=1)
agent.start()
while True:
    for path in ("/fine", "/broken"):
        try: urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[2]}{path}").read()
        except urllib.error.URLError: pass
    time.sleep(0.1)
"#;

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(script: &str, token: &str) -> Check<Running> {
    let python = platform::binary("PYTHON").ok_or("no Python")?;
    let arguments = ["-c", script, &format!("127.0.0.1:{AGENTS}"), &BACK.to_string(), token];
    let mut command = Command::new(python);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().map(Running).map_err(|error| error.to_string())
}

fn main() -> ExitCode {
    let mut runner = Runner::from_arguments();
    let graph = "skywalking::two Python services with agents are an edge of the graph";
    let token = "skywalking::who does not show the token is not heard";
    let has_agent = |python: &std::path::PathBuf| {
        shell::run(Command::new(python).args(["-c", "import skywalking.protocol"]), None).ok
    };
    let Some(binary) = platform::binary("DIOLKOS_BIN") else {
        for name in [graph, token] {
            runner.skip(name, "DIOLKOS_BIN does not name the binary; run it with `cargo xtask test --only e2e`");
        }
        return runner.finish();
    };
    if platform::binary("PYTHON").filter(has_agent).is_none() {
        for name in [graph, token] {
            runner.skip(name, "PYTHON names no Python with apache-skywalking");
        }
        return runner.finish();
    }
    let dir = std::env::temp_dir().join(format!("diolkos-skywalking-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    let world = std::fs::create_dir_all(&dir).map_err(|error| error.to_string()).and_then(|()| {
        let more = [
            format!("--skywalking-listen=127.0.0.1:{AGENTS}"),
            format!("--skywalking-token={TOKEN}"),
            "--scrape-s=1".into(),
        ];
        let mut server = Server::start_with(&binary, &dir, PORT, &more)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let api = runtime.block_on(server.ready())?;
        Ok((server, runtime, api))
    });
    match world {
        Err(why) => _ = runner.check("skywalking::a control plane", || Err::<(), _>(why)),
        Ok((server, runtime, api)) => {
            _ = runner.check(token, || strangers(&runtime, &api));
            _ = runner.check(graph, || edges(&runtime, &api));
            drop(server);
        }
    }
    let _ = std::fs::remove_dir_all(&dir);
    runner.finish()
}

fn ask(runtime: &tokio::runtime::Runtime, api: &HttpsApi, path: &str) -> Check<Value> {
    let answer = runtime.block_on(api.call(http::Method::GET, path, "", bytes::Bytes::new()));
    let answer = answer.map_err(|error| error.to_string())?;
    serde_json::from_slice(&answer.body).map_err(|error| error.to_string())
}

fn instances(runtime: &tokio::runtime::Runtime, api: &HttpsApi) -> Check<Vec<(String, String)>> {
    let told = ask(runtime, api, "/diolkos/v1/agents")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let instances = told["instances"].as_array().ok_or_else(|| told.to_string())?;
    Ok(instances.iter().map(|it| (text(&it["instance"]), text(&it["language"]))).collect())
}

fn strangers(runtime: &tokio::runtime::Runtime, api: &HttpsApi) -> Check {
    let stranger = start(CALLED, "let me in, please")?;
    std::thread::sleep(Duration::from_secs(4));
    drop(stranger);
    match &instances(runtime, api)?[..] {
        [] => Ok(()),
        heard => Err(format!("heard all the same: {heard:?}")),
    }
}

fn edges(runtime: &tokio::runtime::Runtime, api: &HttpsApi) -> Check {
    let _back = start(CALLED, TOKEN)?;
    let _front = start(CALLER, TOKEN)?;
    eventually(PATIENCE, || {
        let heard = instances(runtime, api)?;
        let lives = |name: &str| {
            heard.iter().any(|(instance, language)| instance == name && language.eq_ignore_ascii_case("python"))
        };
        if lives("back-1") && lives("front-1") { Ok(()) } else { Err(format!("hearts that beat: {heard:?}")) }
    })?;
    eventually(PATIENCE, || {
        let graph = ask(runtime, api, "/diolkos/v1/graph")?;
        let edge = graph["edges"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|edge| edge["source"]["workload"] == "front" && edge["destination"]["workload"] == "back");
        let edge = edge.ok_or_else(|| format!("no such edge: {graph}"))?;
        let errors = edge["error_share"].as_f64().unwrap_or(0.0);
        if errors > 0.3 && errors < 0.7 && edge["p99_ms"].is_number() { Ok(()) } else { Err(edge.to_string()) }
    })
}
