//! The dashboard in a real browser.

use e2e::shell::{Check, run as run_program};
use e2e::{Platform, Runner, contains, eventually, platform};
use std::process::Command;
use std::time::Duration;

pub fn run(runner: &mut Runner, p: &Platform) {
    let chromium = run_program(Command::new("sh").args(["-c", "command -v chromium"]), None);
    if !chromium.ok {
        return runner.skip("dashboard::pages", "chromium is not installed");
    }
    runner.check("dashboard::sign in", || sign_in(p));
    for (page, needles) in [
        ("pool", &["Nodes ready", "e2e"][..]),
        ("workloads", &["Workloads", "frontend"]),
        ("mesh", &["Service graph", "reviews"]),
        ("services", &["catalog", "bookstore"]),
        (
            "services/bookstore/reviews",
            &["Latency", "Who calls it", "Endpoints", "ready", "mTLS tunnel", "What applies", "HTTPRoute"],
        ),
        ("routes", &["reviews", "%"]),
        ("events", &["Events", "Scheduled"]),
    ] {
        runner.check(&format!("dashboard::{page}"), || shows(p, page, needles));
    }
}

fn browse(p: &Platform, address: &str, more: &[&str]) -> Check<String> {
    let profile = format!("--user-data-dir={}", p.dir.join("chromium").display());
    let fixed = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--window-size=1400,1000",
        "--virtual-time-budget=8000",
        &profile,
    ];
    run_program(Command::new("chromium").args(fixed).args(more).arg(address), None).ok()
}

fn url(page: &str) -> String {
    format!("http://127.0.0.1:{}/{page}", platform::DASHBOARD)
}

fn sign_in(p: &Platform) -> Check {
    contains(&browse(p, &url(""), &["--dump-dom"])?, &["Sign in", "diolkos token dashboard"])
}

fn shows(p: &Platform, page: &str, needles: &[&str]) -> Check {
    let token = p.diolkos(&["token", "dashboard"]).ok()?;
    let address = url(&format!("#/{page}?token={}", token.trim()));
    eventually(Duration::from_secs(20), || contains(&browse(p, &address, &["--dump-dom"])?, needles))?;
    let shot = p.dir.join(format!("dashboard-{}.png", page.replace('/', "-")));
    browse(p, &address, &[&format!("--screenshot={}", shot.display())])?;
    if shot.exists() { Ok(()) } else { Err("no screenshot was made".into()) }
}
