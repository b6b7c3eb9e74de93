//! Rounds of SIGKILL in the middle of concurrent writes: no acknowledged write is lost, none that was not acknowledged is half there, and a
//! watcher that reconnects sees every revision once, in order.

use bytes::Bytes;
use client::{DeleteOptions, EventKind, HttpsApi, ListOptions, ObjectApi, Resource};
use e2e::{Check, Runner, Server, platform};
use futures_util::StreamExt;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const MAPS: Resource = Resource { group: "", version: "v1", plural: "configmaps" };
const NAMESPACE: &str = "default";
const WRITERS: usize = 8;
const OBJECTS: usize = 6;
const PORT: u16 = 16_444;

fn rounds() -> usize {
    std::env::var("CRASH_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(200)
}

fn main() -> ExitCode {
    let mut runner = Runner::from_arguments();
    let name = format!("crash::{} rounds of SIGKILL lose nothing", rounds());
    match platform::binary("DIOLKOS_BIN") {
        None => runner.skip(&name, "DIOLKOS_BIN does not name the binary; run it with `cargo xtask test --only e2e`"),
        Some(binary) => {
            _ = runner.check(&name, || {
                let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
                runtime.map_err(|error| error.to_string())?.block_on(run(&binary))
            })
        }
    }
    runner.finish()
}

/// What one name may hold now: the last acknowledged state, or the state of the one write that was cut off.
#[derive(Clone, Debug, Default)]
struct Known {
    /// `None`: acknowledged to be absent.
    acknowledged: Option<u64>,
    /// The write under way when the server died: `Some(None)` is a delete.
    in_flight: Option<Option<u64>>,
}

type Ledger = Arc<Mutex<BTreeMap<String, Known>>>;

fn in_namespace() -> ListOptions {
    ListOptions { namespace: Some(NAMESPACE.into()), label_selector: Some("crash=yes".into()), field_selector: None }
}

async fn run(binary: &Path) -> Check {
    let dir = std::env::temp_dir().join(format!("diolkos-crash-{}", std::process::id()));
    std::fs::create_dir_all(&dir).map_err(|error| error.to_string())?;
    let ledger: Ledger = Arc::default();
    let seen: Arc<Mutex<Vec<u64>>> = Arc::default();
    let mut acknowledged = 0;
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 0..rounds() {
        let mut server = Server::start(binary, &dir, PORT)?;
        let api = server.ready().await.map_err(|why| format!("round {round}: {why}"))?;
        verify(&api, &ledger).await.map_err(|why| format!("round {round}: {why}"))?;
        if round == 0 {
            let first = api.list(MAPS, in_namespace()).await.map_err(|error| error.to_string())?.revision;
            lock(&seen).push(first);
        }
        let watcher = tokio::spawn(follow(server.api()?, seen.clone()));
        let writers: Vec<_> = (0..WRITERS).map(|n| server.api().map(|api| (n, api))).collect::<Check<_>>()?;
        let writing: Vec<_> = writers
            .into_iter()
            .map(|(n, api)| tokio::spawn(write(api, n, (round as u64) << 20, ledger.clone())))
            .collect();
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        tokio::time::sleep(Duration::from_millis(20 + (random >> 33) % 150)).await;
        server.kill();
        for writer in writing {
            acknowledged +=
                writer.await.map_err(|error| error.to_string())?.map_err(|why| format!("round {round}: {why}"))?;
        }
        watcher.await.map_err(|error| error.to_string())?.map_err(|why| format!("round {round}: watch: {why}"))?;
    }
    let mut server = Server::start(binary, &dir, PORT)?;
    let api = server.ready().await?;
    verify(&api, &ledger).await?;
    watched_everything(&api, &seen).await?;
    println!("    {acknowledged} acknowledged writes, {} watch events", lock(&seen).len());
    drop(server);
    std::fs::remove_dir_all(&dir).map_err(|error| error.to_string())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("no check panics while it holds this")
}

/// One writer: creates, updates and deletes its own names until the server is gone.
async fn write(api: HttpsApi, writer: usize, base: u64, ledger: Ledger) -> Check<u64> {
    let mut acknowledged = 0;
    for step in 0.. {
        let name = format!("w{writer}-{}", step as usize % OBJECTS);
        let value = base + step;
        let known = lock(&ledger).get(&name).cloned().unwrap_or_default();
        let delete = known.acknowledged.is_some() && step % 5 == 4;
        let wanted = (!delete).then_some(value);
        lock(&ledger).insert(name.clone(), Known { in_flight: Some(wanted), ..known.clone() });
        let body = object(&name, value);
        let outcome = match (delete, known.acknowledged) {
            (true, _) => api.delete(MAPS, NAMESPACE, &name, DeleteOptions::default()).await,
            (false, None) => api.create(MAPS, NAMESPACE, None, body).await.map(drop),
            (false, Some(_)) => api.update(MAPS, NAMESPACE, &name, None, body).await.map(drop),
        };
        match outcome {
            Ok(()) => {
                acknowledged += 1;
                lock(&ledger).insert(name, Known { acknowledged: wanted, in_flight: None });
            }
            Err(error) if error.code == 0 => return Ok(acknowledged),
            Err(error) => return Err(format!("{name}: {error}, though it was known as {known:?}")),
        }
    }
    Ok(acknowledged)
}

/// The value stands twice, so that half a write would show.
fn object(name: &str, value: u64) -> Bytes {
    let filler = "x".repeat((value % 700) as usize);
    let meta = serde_json::json!({"name": name, "labels": {"crash": "yes"}});
    let data = serde_json::json!({"value": value.to_string(), "filler": filler, "again": value.to_string()});
    Bytes::from(
        serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}).to_string(),
    )
}

/// What is there is what was acknowledged, or the whole of the one write that was cut off; from here on it is what is acknowledged.
async fn verify(api: &HttpsApi, ledger: &Ledger) -> Check {
    let list = api.list(MAPS, in_namespace()).await.map_err(|error| error.to_string())?;
    let mut there: BTreeMap<String, u64> = BTreeMap::new();
    for item in &list.items {
        let value: serde_json::Value =
            serde_json::from_slice(item).map_err(|error| format!("half an object: {error}"))?;
        let (one, two) = (&value["data"]["value"], &value["data"]["again"]);
        let number = one.as_str().and_then(|text| text.parse::<u64>().ok());
        let (Some(number), true) = (number, one == two) else { return Err(format!("half an object: {value}")) };
        if value["data"]["filler"].as_str().map(str::len) != Some((number % 700) as usize) {
            return Err(format!("half an object: {value}"));
        }
        there.insert(value["metadata"]["name"].as_str().unwrap_or_default().to_owned(), number);
    }
    let mut ledger = lock(ledger);
    for (name, known) in ledger.iter_mut() {
        let now = there.remove(name);
        let allowed = now == known.acknowledged || known.in_flight.is_some_and(|wanted| now == wanted);
        if !allowed {
            return Err(format!("{name} is {now:?} and should be {known:?}"));
        }
        *known = Known { acknowledged: now, in_flight: None };
    }
    if there.is_empty() { Ok(()) } else { Err(format!("nobody wrote {there:?}")) }
}

/// Watches from the last revision that was seen until the server is gone.
async fn follow(api: HttpsApi, seen: Arc<Mutex<Vec<u64>>>) -> Check {
    let from = lock(&seen).last().copied().unwrap_or(0);
    let mut watch = match api.watch(MAPS, in_namespace(), from).await {
        Ok(watch) => watch,
        Err(error) if error.code == 0 => return Ok(()),
        Err(error) => return Err(format!("from {from}: {error}")),
    };
    while let Some(Ok(event)) = watch.next().await {
        let value: serde_json::Value = serde_json::from_slice(&event.object).map_err(|error| error.to_string())?;
        let revision = value["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse::<u64>().ok());
        let revision = revision.ok_or_else(|| format!("an event without a revision: {value}"))?;
        if event.kind == EventKind::Bookmark {
            continue;
        }
        let mut seen = lock(&seen);
        let last = seen.last().copied().unwrap_or(0);
        if revision <= last {
            return Err(format!("revision {revision} came after {last}"));
        }
        seen.push(revision);
    }
    Ok(())
}

/// The watcher, asked once more, has the newest revision of every object, and nothing that it did not see is older than what it saw.
async fn watched_everything(api: &HttpsApi, seen: &Arc<Mutex<Vec<u64>>>) -> Check {
    let list = api.list(MAPS, in_namespace()).await.map_err(|error| error.to_string())?;
    let rest = tokio::time::timeout(Duration::from_secs(2), follow(api.clone(), seen.clone())).await;
    if let Ok(Err(why)) = rest {
        return Err(why);
    }
    let seen = lock(seen);
    for item in &list.items {
        let value: serde_json::Value = serde_json::from_slice(item).map_err(|error| error.to_string())?;
        let revision =
            value["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        if seen.binary_search(&revision).is_err() {
            return Err(format!("the watcher never saw revision {revision} of {}", value["metadata"]["name"]));
        }
    }
    Ok(())
}
