//! The table at the end of the demo, and whether it is good.

use super::scene::Report;
use crate::sh::Result;
use std::collections::BTreeMap;

/// Prints everything that was measured.
pub fn print(report: &Report) {
    println!("\n{:<36} {:>9} {:>9} {:>9} {:>9}", "scene", "requests", "failed", "p50 ms", "p99 ms");
    for phase in &report.phases {
        let failed = phase.failures.len();
        println!("{:<36} {:>9} {failed:>9} {:>9.2} {:>9.2}", phase.name, phase.requests, phase.p50_ms, phase.p99_ms);
    }
    let (requests, failed) = report.totals();
    println!("{:<36} {requests:>9} {failed:>9}", "all");
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for failure in report.phases.iter().flat_map(|phase| &phase.failures) {
        *reasons.entry(failure).or_default() += 1;
    }
    for (reason, count) in reasons.iter().take(10) {
        println!("  {count} x {reason}");
    }
    println!("\n{:<36} {:>9} {:>9} {:>9}", "weight of reviews v2, %", "asked", "measured", "requests");
    for weights in &report.weights {
        println!("{:<36} {:>9.0} {:>9.1} {:>9}", "", weights.asked, weights.measured, weights.requests);
    }
    println!("\n{:<22} {:<60}", "hop", "called by, as proved by mTLS");
    for hop in &report.hops {
        println!("{:<22} {:<60}", format!("{} {}", hop.service, hop.version), hop.caller);
    }
    let say = |yes: bool| if yes { "yes" } else { "NO" };
    println!("\nsnoop may call catalog before the policy: {}", say(report.denied.allowed_before));
    println!("snoop is refused (403) after it:          {}", say(report.denied.refused_after));
    println!("frontend still may:                       {}", say(report.denied.others_unharmed));
    println!("\nfrom start to Ready on an empty data directory  {:>7.2} s    (to reach: 5)", report.ready_s);
    println!("first pod of a loaded image Ready after apply   {:>7.2} s    (to reach: 2)", report.first_pod_s);
    println!("idle platform without containerd, resident      {:>7.1} MiB  (to reach: 150 MB)", report.idle_mib);
}

impl Report {
    fn totals(&self) -> (usize, usize) {
        let requests = self.phases.iter().map(|phase| phase.requests).sum();
        (requests, self.phases.iter().map(|phase| phase.failures.len()).sum())
    }

    /// What must hold for the demo to have succeeded.
    pub fn verdict(&self) -> Result<()> {
        let mut wrong = Vec::new();
        let (requests, failed) = self.totals();
        if requests == 0 || failed > 0 {
            wrong.push(format!("{failed} of {requests} requests failed"));
        }
        for weights in &self.weights {
            let off = (weights.asked - weights.measured).abs();
            if off.is_nan() || off > 3.0 {
                wrong.push(format!("v2 was asked for {} % and got {:.1} %", weights.asked, weights.measured));
            }
        }
        if self.hops.is_empty() || self.hops.iter().any(|hop| !hop.caller.starts_with("spiffe://")) {
            wrong.push("a hop was called without a proven identity".into());
        }
        let denied = &self.denied;
        if !(denied.allowed_before && denied.refused_after && denied.others_unharmed) {
            wrong.push("the policy did not deny exactly one caller".into());
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
    }
}
