//! The access log: a line for each request, written by a thread of its own. A line costs a request what it takes to make it; when the
//! writer does not keep up, lines are left out and counted.
mod format;

pub use format::{Format, FormatError, Operator};
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;

/// Lines that wait to be written.
const WAITING: usize = 8192;

/// Whether and how requests are logged.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The form of a line.
    pub format: Format,
    /// Where to; none: the proxy's own log (standard error).
    pub file: Option<PathBuf>,
}

/// The log.
#[derive(Debug)]
pub struct AccessLog {
    /// The form of a line.
    pub format: Format,
    lines: mpsc::Sender<String>,
    left_out: AtomicU64,
}

impl AccessLog {
    /// Opens it and starts its writer.
    pub fn open(settings: &Settings) -> io::Result<Self> {
        let sink: Box<dyn Write + Send> = match &settings.file {
            Some(path) => Box::new(OpenOptions::new().create(true).append(true).open(path)?),
            None => Box::new(io::stderr()),
        };
        let (lines, waiting) = mpsc::channel(WAITING);
        std::thread::Builder::new().name("access-log".into()).spawn(move || write(waiting, sink))?;
        Ok(Self { format: settings.format.clone(), lines, left_out: AtomicU64::new(0) })
    }

    /// Puts a line, without its end.
    pub fn put(&self, line: String) {
        if self.lines.try_send(line).is_err() {
            self.left_out.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Lines that were left out.
    pub fn left_out(&self) -> u64 {
        self.left_out.load(Ordering::Relaxed)
    }
}

fn write(mut waiting: mpsc::Receiver<String>, mut sink: Box<dyn Write + Send>) {
    let mut batch = Vec::new();
    let mut text = String::new();
    while waiting.blocking_recv_many(&mut batch, 256) > 0 {
        for line in batch.drain(..) {
            text.push_str(&line);
            text.push('\n');
        }
        if let Err(error) = sink.write_all(text.as_bytes()) {
            tracing::warn!(%error, "the access log cannot be written");
        }
        text.clear();
    }
}
