//! What `diolkos mesh status` prints for people.

use kinds::table::human_duration;
use serde_json::Value;
use std::fmt::Write;

/// A line for each proxy, a line more for each type that is not as it should be; then what is trusted, and which objects are of no use.
pub fn text(status: &Value, now_unix_s: i64) -> String {
    let mut out = String::new();
    let proxies = list(&status["proxies"]);
    let width = proxies.iter().map(|proxy| said(&proxy["proxy"]).chars().count()).max().unwrap_or(0).max(5);
    let _ = writeln!(out, "{:<width$}  {:<8}  {:<10}  ADDRESS", "PROXY", "STATE", "CONNECTED");
    for proxy in proxies {
        let since_s = proxy["connectedSinceUnixS"].as_i64().unwrap_or(now_unix_s);
        let connected = human_duration((now_unix_s - since_s).max(0) * 1_000);
        let (name, state, address) = (said(&proxy["proxy"]), said(&proxy["state"]), said(&proxy["address"]));
        let _ = writeln!(out, "{name:<width$}  {state:<8}  {connected:<10}  {address}");
        for of in list(&proxy["types"]).iter().filter(|of| of["state"] != "synced") {
            let what = format!(
                "{}: {} (runs {}, newest {})",
                said(&of["type"]),
                said(&of["state"]),
                of["version"],
                of["newest"]
            );
            let _ = writeln!(out, "  {what}");
            if of["error"].is_string() {
                let _ = writeln!(out, "    {}", said(&of["error"]));
            }
        }
    }
    if proxies.is_empty() {
        out.push_str("(no proxy is connected)\n");
    }
    let trust = &status["trust"];
    let roots = list(&trust["roots"]);
    let phase = said(&trust["phase"]);
    let of = if roots.len() == 1 { "root" } else { "roots" };
    let _ = write!(out, "\nTrust domain {}: {} {of}, {phase}", said(&status["trustDomain"]), roots.len());
    for waiting in list(&trust["waitingFor"]) {
        let _ = write!(out, "\n  waits for {}: {}", said(&waiting["proxy"]), said(&waiting["why"]));
    }
    let counts = status["resources"].as_object().into_iter().flatten().filter(|(_, count)| **count != 0);
    let counts: Vec<String> = counts.map(|(kind, count)| format!("{kind} {count}")).collect();
    let _ = writeln!(out, "\nResources: {}", if counts.is_empty() { "none".to_owned() } else { counts.join(", ") });
    for object in list(&status["unusableObjects"]) {
        let (kind, name) = (said(&object["kind"]), said(&object["object"]));
        let _ = writeln!(out, "Not usable: {kind} {name}: {}", said(&object["error"]));
    }
    out
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A text without control characters, and without those that turn the direction of writing: joined hosts and their Envoys choose names and words in
/// it, and a terminal would obey them.
fn said(value: &Value) -> String {
    let turns = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    value.as_str().unwrap_or("-").chars().map(|c| if c.is_control() || turns(c) { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_wrong_stands_out() {
        let of = |kind: &str, state: &str, error: Value| json!({"type": kind, "version": 7, "sent": 9, "newest": 9, "state": state, "error": error});
        let status = json!({
            "version": 9, "trustDomain": "cluster.local",
            "trust": {"phase": "spreading", "roots": [{}, {}], "waitingFor": [{"proxy": "vm", "why": "says nothing of late"}]},
            "resources": {"Route": 2, "Secret": 0, "Service": 5},
            "proxies": [
                {"proxy": "vm", "address": "127.0.0.1:9", "connectedSinceUnixS": 940, "state": "synced", "types": [of("Route", "synced", Value::Null)]},
                {"proxy": "envoy e1 at vm", "address": "10.0.0.2:9", "connectedSinceUnixS": 1000, "state": "refused",
                 "types": [of("Listener", "refused", json!("no such\u{1b}[2Jfilter\nvm2")), of("Cluster", "behind", Value::Null)]},
            ],
            "unusableObjects": [{"kind": "HttpRoute", "object": "shop/web", "error": "no \u{202e}port"}],
        });
        let expected = "\
PROXY           STATE     CONNECTED   ADDRESS
vm              synced    60s         127.0.0.1:9
envoy e1 at vm  refused   0s          10.0.0.2:9
  Listener: refused (runs 7, newest 9)
    no such [2Jfilter vm2
  Cluster: behind (runs 7, newest 9)

Trust domain cluster.local: 2 roots, spreading
  waits for vm: says nothing of late
Resources: Route 2, Service 5
Not usable: HttpRoute shop/web: no  port
";
        assert_eq!(text(&status, 1_000), expected);
        let none = text(
            &json!({"proxies": [], "trustDomain": "x", "trust": {"phase": "steady", "roots": [{}]}, "resources": {}}),
            0,
        );
        assert!(
            none.contains("(no proxy is connected)") && none.contains("x: 1 root, steady\nResources: none\n"),
            "{none}"
        );
    }
}
