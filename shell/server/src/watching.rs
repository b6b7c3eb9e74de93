//! A watch as a stream of JSON lines.

use crate::core::Core;
use crate::core::stopped;
use crate::handler::Running;
use crate::negotiate::View;
use crate::ops::{Event, EventType, Watching};
use crate::view;
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::Stream;
use kinds::table::Include;
use kube::{Resource, Status};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch::Receiver;
use tokio::time::{Instant, Interval, MissedTickBehavior};

/// How a client wants its watch.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Whole objects, rows or metadata.
    pub view: View,
    /// Whether it understands bookmarks.
    pub bookmarks: bool,
    /// When to end.
    pub timeout_s: Option<u64>,
    /// What rows carry.
    pub include: Include,
}

/// A bookmark a minute keeps a quiet watcher's revision inside the window.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// Without a wish of the client: half an hour and up to as much again, so that watches do not all end together.
const MIN_TIMEOUT_S: u64 = 1800;

struct State {
    core: Arc<Core>,
    resource: Arc<Resource>,
    watching: Watching,
    settings: Settings,
    ends: Instant,
    ticks: Interval,
    shutdown: Receiver<bool>,
    columns_sent: bool,
    over: bool,
    _running: Running,
}

/// Events as lines, until the time is over, the server stops, or the watcher falls behind (then a last ERROR line says so).
pub fn stream(
    core: Arc<Core>,
    resource: Arc<Resource>,
    watching: Watching,
    settings: Settings,
    running: Running,
) -> impl Stream<Item = Bytes> + Send {
    let spread = core.store.revision() % MIN_TIMEOUT_S;
    let ends =
        Instant::now() + Duration::from_secs(settings.timeout_s.unwrap_or(MIN_TIMEOUT_S + spread).min(24 * 3600));
    let mut ticks = tokio::time::interval_at(Instant::now() + BOOKMARK_EVERY, BOOKMARK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let shutdown = core.shutdown.clone();
    let state = State {
        core,
        resource,
        watching,
        settings,
        ends,
        ticks,
        shutdown,
        columns_sent: false,
        over: false,
        _running: running,
    };
    futures_util::stream::unfold(state, |mut state| async move { state.next().await.map(|line| (line, state)) })
}

enum Woken {
    Event(Result<Event, Status>),
    Tick,
    End,
}

impl State {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if self.over {
                return None;
            }
            let woken = tokio::select! {
                biased;
                () = stopped(&mut self.shutdown) => Woken::End,
                next = self.watching.next() => next.map_or(Woken::End, Woken::Event),
                _ = self.ticks.tick() => Woken::Tick,
                () = tokio::time::sleep_until(self.ends) => Woken::End,
            };
            match woken {
                Woken::Tick => {
                    if let Some(line) = self.bookmark(false) {
                        return Some(line);
                    }
                }
                Woken::Event(Ok(event)) => match self.line(event) {
                    Ok(Some(line)) => return Some(line),
                    Ok(None) => {}
                    Err(status) => return Some(self.error(&status)),
                },
                Woken::Event(Err(status)) => return Some(self.error(&status)),
                Woken::End => {
                    // A last bookmark spares the client a list.
                    self.over = true;
                    return self.bookmark(false);
                }
            }
        }
    }

    fn error(&mut self, status: &Status) -> Bytes {
        self.over = true;
        framed("ERROR", status.to_value().to_string().as_bytes())
    }

    fn bookmark(&mut self, initial_end: bool) -> Option<Bytes> {
        if !self.settings.bookmarks {
            return None;
        }
        let mut meta = json!({"resourceVersion": self.watching.revision().to_string(), "creationTimestamp": null});
        if initial_end {
            meta["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = match self.settings.view {
            View::Table => {
                let object =
                    json!({"kind": self.resource.kind(), "apiVersion": self.resource.api_version(), "metadata": meta});
                self.table(&object)
            }
            View::Metadata => view::metadata_only(&json!({ "metadata": meta })),
            View::Whole => {
                json!({"kind": self.resource.kind(), "apiVersion": self.resource.api_version(), "metadata": meta})
            }
        };
        Some(framed("BOOKMARK", object.to_string().as_bytes()))
    }

    fn table(&mut self, object: &Value) -> Value {
        // kubectl prints a heading whenever it sees columns, so only the first event has them.
        let columns = (!std::mem::replace(&mut self.columns_sent, true)).then(|| view::columns(&self.resource));
        let meta = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
        let row = view::row(&self.resource, object, self.settings.include, self.core.now());
        view::table_of(columns, meta, vec![row])
    }

    fn line(&mut self, event: Event) -> Result<Option<Bytes>, Status> {
        let kind = match event.kind {
            EventType::Added => "ADDED",
            EventType::Modified => "MODIFIED",
            EventType::Deleted => "DELETED",
            EventType::InitialEnd => return Ok(self.bookmark(true)),
        };
        if self.settings.view == View::Whole {
            return Ok(Some(framed(kind, &event.object)));
        }
        let object: Value = serde_json::from_slice(&event.object).map_err(Status::internal)?;
        let shown = match self.settings.view {
            View::Table => self.table(&object),
            _ => view::metadata_only(&object),
        };
        Ok(Some(framed(kind, shown.to_string().as_bytes())))
    }
}

fn framed(kind: &str, object: &[u8]) -> Bytes {
    let mut line = BytesMut::with_capacity(object.len() + 40);
    line.put_slice(b"{\"type\":\"");
    line.put_slice(kind.as_bytes());
    line.put_slice(b"\",\"object\":");
    line.put_slice(object);
    line.put_slice(b"}\n");
    line.freeze()
}
