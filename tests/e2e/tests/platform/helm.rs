//! Helm 4, with a chart that brings a CRD.

use e2e::shell::{Check, run as run_program};
use e2e::{Platform, Runner, contains, platform};

pub fn run(runner: &mut Runner, p: &Platform) {
    if platform::binary("HELM").is_none() {
        return runner.skip("helm::install, upgrade, rollback, uninstall", "HELM does not name helm");
    }
    runner.check("helm::install, upgrade, rollback, uninstall", || p.in_namespace("helm", |ns| life(p, ns)));
}

fn life(p: &Platform, ns: &str) -> Check {
    let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/shop");
    let helm = |arguments: &[&str]| run_program(p.client("HELM").args(["-n", ns]).args(arguments), None);
    let replicas = || p.kubectl(&["-n", ns, "get", "deployment/shop-web", "-o", "jsonpath={.spec.replicas}"]).ok();
    contains(
        &helm(&["install", "shop", chart, "--wait", "--timeout=90s"]).ok()?,
        &["STATUS: deployed", "REVISION: 1"],
    )?;
    contains(&p.kubectl(&["-n", ns, "get", "counters"]).ok()?, &["shop"])?;
    contains(&replicas()?, &["1"])?;
    contains(
        &helm(&["upgrade", "shop", chart, "--set", "replicas=2", "--wait", "--timeout=90s"]).ok()?,
        &["REVISION: 2"],
    )?;
    contains(&replicas()?, &["2"])?;
    contains(&helm(&["rollback", "shop", "1", "--wait", "--timeout=90s"]).ok()?, &["Rollback was a success"])?;
    contains(&replicas()?, &["1"])?;
    contains(&helm(&["history", "shop"]).ok()?, &["superseded", "deployed"])?;
    contains(&helm(&["list"]).ok()?, &["shop", "deployed"])?;
    contains(&helm(&["get", "manifest", "shop"]).ok()?, &["kind: Deployment"])?;
    contains(&helm(&["uninstall", "shop", "--wait", "--timeout=60s"]).ok()?, &["uninstalled"])?;
    p.kubectl(&["-n", ns, "get", "deployment/shop-web"]).refused()?;
    p.kubectl(&["delete", "crd", "counters.shop.example.com"]).ok().map(drop)
}
