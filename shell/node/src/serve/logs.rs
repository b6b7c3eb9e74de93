//! `kubectl logs`.

use super::query::Query;
use super::{Answer, Body, text};
use crate::agent::Pods;
use crate::clock;
use crate::pod::observe::{Run, RunState, label};
use crate::pod::spec::Pod;
use crate::runtime::Runtime;
use crate::upkeep::rotated;
use bytes::Bytes;
use futures_util::StreamExt;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use model::Timestamp;
use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt, SeekFrom};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// How long a follower waits for more.
const POLL: Duration = Duration::from_millis(100);
/// Polls between two questions whether the container still runs.
const POLLS_A_LOOK: u32 = 5;
const CHUNK: usize = 64 << 10;
/// The runtime cuts lines at 16 KiB: a longer one is no log.
const MAX_LINE: usize = 1 << 20;

#[derive(Clone, Debug)]
struct Options {
    follow: bool,
    timestamps: bool,
    since: Option<Timestamp>,
    tail: Option<usize>,
    limit: Option<u64>,
    stderr: Option<bool>,
}

impl Options {
    fn read(query: &Query) -> Self {
        let seconds = query.get("sinceSeconds").and_then(|text| text.parse::<i64>().ok());
        let ago = seconds.map(|seconds| clock::now().plus_ms(seconds.saturating_mul(-1000)));
        Options {
            follow: query.flag("follow"),
            timestamps: query.flag("timestamps"),
            since: ago.or_else(|| query.get("sinceTime").and_then(clock::parse)),
            tail: query.number("tailLines").map(|n| usize::try_from(n).unwrap_or(usize::MAX)),
            limit: query.number("limitBytes"),
            stderr: match query.get("stream") {
                Some("Stdout") => Some(false),
                Some("Stderr") => Some(true),
                _ => None,
            },
        }
    }
}

pub(super) async fn answer(pods: &Pods, namespace: &str, name: &str, container: &str, query: &Query) -> Answer {
    let Some(pod) = pods.find(namespace, name) else {
        return text(StatusCode::NOT_FOUND, format!("pods \"{name}\" not found"));
    };
    if !pod.all_containers().any(|c| c.name == container) {
        return text(StatusCode::BAD_REQUEST, format!("container {container} is not valid for pod {name}"));
    }
    let runtime = pods.shared().runtime.clone();
    let runs = match runs(&runtime, &pod, container).await {
        Ok(runs) => runs,
        Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    };
    let run = if query.flag("previous") {
        runs.into_iter()
            .nth(1)
            .ok_or_else(|| format!("previous terminated container \"{container}\" in pod \"{name}\" not found"))
    } else {
        runs.into_iter().find(|run| run.1 != RunState::Created).ok_or_else(|| {
            format!(
                "container \"{container}\" in pod \"{name}\" is waiting to start: {}",
                waiting_reason(&pod, container)
            )
        })
    };
    let (id, _, path) = match run {
        Ok(run) => run,
        Err(why) => return text(StatusCode::BAD_REQUEST, why),
    };
    let (sender, receiver) = mpsc::channel(16);
    let options = Options::read(query);
    tokio::spawn(async move {
        let mut out = Out { sender, left: options.limit };
        if let Err(error) = send(&runtime, &id, Path::new(&path), &options, &mut out).await {
            tracing::debug!(%error, path, "logs");
        }
    });
    let frames = ReceiverStream::new(receiver).map(|bytes: Bytes| Ok::<_, Infallible>(Frame::data(bytes)));
    let body: Body = StreamBody::new(frames).boxed_unsync();
    let mut answer = Response::new(body);
    answer.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain"));
    answer
}

fn waiting_reason(pod: &Pod, container: &str) -> String {
    let mut statuses = pod.status.container_statuses.iter().chain(&pod.status.init_container_statuses);
    let waiting = statuses.find(|s| s.name == container).and_then(|s| s.state.waiting.as_ref());
    waiting.map_or_else(|| "ContainerCreating".to_owned(), |waiting| waiting.reason.clone())
}

type Found = (String, RunState, String);

/// Runs of a container, newest first, with their log files.
async fn runs(runtime: &Runtime, pod: &Pod, container: &str) -> Result<Vec<Found>, crate::runtime::RuntimeError> {
    let labels = BTreeMap::from([
        (label::POD_UID.to_owned(), pod.uid().to_owned()),
        (label::CONTAINER_NAME.to_owned(), container.to_owned()),
    ]);
    let mut listed = runtime.list_containers(labels).await?;
    listed.sort_by_key(|c| std::cmp::Reverse((c.created_at, c.metadata.as_ref().map(|m| m.attempt))));
    let mut out = Vec::new();
    for container in listed {
        match runtime.container_status(&container.id).await {
            Ok(status) => {
                let path = status.log_path.clone();
                let run: Run = Run::from_status(status, container.pod_sandbox_id);
                out.push((run.id, run.state, path));
            }
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(out)
}

struct Out {
    sender: mpsc::Sender<Bytes>,
    left: Option<u64>,
}

/// The reader went away, or has all that it asked for.
struct Enough;

impl Out {
    async fn send(&mut self, mut bytes: Vec<u8>) -> Result<(), Enough> {
        if let Some(left) = &mut self.left {
            bytes.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= bytes.len() as u64;
        }
        if !bytes.is_empty() {
            self.sender.send(bytes.into()).await.map_err(|_| Enough)?;
        }
        if self.left == Some(0) { Err(Enough) } else { Ok(()) }
    }
}

/// Turns records into what the container wrote.
struct Printer<'a> {
    options: &'a Options,
    rest: Vec<u8>,
    line_open: bool,
}

impl Printer<'_> {
    fn print(&mut self, chunk: &[u8]) -> Vec<u8> {
        self.rest.extend_from_slice(chunk);
        let mut out = Vec::new();
        let mut at = 0;
        while let Some(end) = self.rest[at..].iter().position(|b| *b == b'\n') {
            let line = &self.rest[at..at + end];
            at += end + 1;
            let Some(record) = cri::log::parse(line) else { continue };
            let early = self.options.since.is_some_and(|since| clock::parse(record.time).is_some_and(|at| at < since));
            if early || self.options.stderr.is_some_and(|wanted| wanted != record.stderr) {
                continue;
            }
            if self.options.timestamps && !self.line_open {
                out.extend_from_slice(record.time.as_bytes());
                out.push(b' ');
            }
            out.extend_from_slice(record.content);
            if record.ends_line {
                out.push(b'\n');
            }
            self.line_open = !record.ends_line;
        }
        self.rest.drain(..at);
        if self.rest.len() > MAX_LINE {
            self.rest.clear();
        }
        out
    }
}

async fn send(runtime: &Runtime, id: &str, path: &Path, options: &Options, out: &mut Out) -> std::io::Result<()> {
    let mut printer = Printer { options, rest: Vec::new(), line_open: false };
    for (file, from) in start(path, options.tail).await? {
        if file.as_path() == path {
            let _ = follow(runtime, id, path, from, &mut printer, out).await?;
        } else {
            let mut file = File::open(&file).await?;
            file.seek(SeekFrom::Start(from)).await?;
            if copy(&mut file, &mut printer, out).await?.is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// To the end of the file as it is now.
async fn copy(file: &mut File, printer: &mut Printer<'_>, out: &mut Out) -> std::io::Result<Result<(), Enough>> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let n = file.read(&mut chunk).await?;
        if n == 0 {
            return Ok(Ok(()));
        }
        if out.send(printer.print(&chunk[..n])).await.is_err() {
            return Ok(Err(Enough));
        }
    }
}

async fn follow(
    runtime: &Runtime,
    id: &str,
    path: &Path,
    from: u64,
    printer: &mut Printer<'_>,
    out: &mut Out,
) -> std::io::Result<Result<(), Enough>> {
    let mut file = File::open(path).await?;
    let mut inode = file.metadata().await?.ino();
    file.seek(SeekFrom::Start(from)).await?;
    let mut polls = 0;
    let mut ended = false;
    loop {
        if copy(&mut file, printer, out).await?.is_err() {
            return Ok(Err(Enough));
        }
        if !printer.options.follow || ended || out.sender.is_closed() {
            return Ok(Ok(()));
        }
        // The file may have been rotated away under us.
        match tokio::fs::metadata(path).await {
            Ok(meta) if meta.ino() != inode => {
                let _ = copy(&mut file, printer, out).await?;
                file = File::open(path).await?;
                inode = file.metadata().await?.ino();
                continue;
            }
            // Removed with its container.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => ended = true,
            _ => {}
        }
        polls += 1;
        if polls % POLLS_A_LOOK == 0 {
            let status = runtime.container_status(id).await;
            // One more copy after it ended: the last lines may have come in between.
            ended |= status.is_ok_and(|status| status.state != cri::ContainerState::Running as i32);
        }
        tokio::select! {
            () = tokio::time::sleep(POLL) => {}
            () = out.sender.closed() => return Ok(Err(Enough)),
        }
    }
}

/// Files to read and where to begin in the first: rotated ones first, unless the tail lies in fewer.
async fn start(path: &Path, tail: Option<usize>) -> std::io::Result<VecDeque<(PathBuf, u64)>> {
    let mut files: Vec<PathBuf> = rotated(path);
    files.push(path.to_owned());
    let Some(mut wanted) = tail else { return Ok(files.into_iter().map(|file| (file, 0)).collect()) };
    let mut out = VecDeque::new();
    for file in files.into_iter().rev() {
        let (from, lines) = last_lines(&file, wanted).await?;
        out.push_front((file, from));
        wanted -= lines.min(wanted);
        if wanted == 0 {
            break;
        }
    }
    Ok(out)
}

/// Where the last `wanted` lines begin, and how many there are up to that.
async fn last_lines(path: &Path, wanted: usize) -> std::io::Result<(u64, usize)> {
    let mut file = File::open(path).await?;
    let length = file.metadata().await?.len();
    if wanted == 0 {
        return Ok((length, 0));
    }
    let mut end = length;
    let mut lines = 0;
    let mut chunk = vec![0; CHUNK];
    while end > 0 {
        let begin = end.saturating_sub(CHUNK as u64);
        let n = (end - begin) as usize;
        file.seek(SeekFrom::Start(begin)).await?;
        file.read_exact(&mut chunk[..n]).await?;
        for at in (0..n).rev() {
            // The line feed that ends the last line begins none.
            if chunk[at] == b'\n' && begin + at as u64 + 1 < length {
                lines += 1;
                if lines == wanted {
                    return Ok((begin + at as u64 + 1, lines));
                }
            }
        }
        end = begin;
    }
    Ok((0, if length > 0 { lines + 1 } else { 0 }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(query: &str) -> Options {
        Options::read(&Query::parse(query))
    }

    #[test]
    fn records_become_lines() {
        let printed = |query: &str| {
            let options = options(query);
            let mut printer = Printer { options: &options, rest: Vec::new(), line_open: false };
            let mut out = printer.print(b"2026-11-22T02:00:00.1Z stdout F one\n2026-11-22T02:00:01Z std");
            out.extend(
                printer.print(b"err P tw\ntorn line\n2026-11-22T02:00:01Z stderr F o\n2026-11-22T02:00:02Z stdout F\n"),
            );
            String::from_utf8(out).unwrap()
        };
        assert_eq!(printed(""), "one\ntwo\n\n");
        assert_eq!(printed("stream=Stderr"), "two\n");
        assert_eq!(
            printed("timestamps=true&sinceTime=2026-11-22T02:00:01Z"),
            "2026-11-22T02:00:01Z two\n2026-11-22T02:00:02Z \n"
        );
    }

    #[tokio::test]
    async fn a_tail_reaches_into_rotated_files() {
        let dir = std::env::temp_dir().join(format!("diolkos-tail-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let log = dir.join("0.log");
        std::fs::write(dir.join("0.log.1"), "a\nb\n").unwrap();
        std::fs::write(&log, "c\nd\n").unwrap();
        let begin = async |tail: Option<usize>| -> Vec<(bool, u64)> {
            start(&log, tail).await.unwrap().into_iter().map(|(file, at)| (file == log, at)).collect()
        };
        assert_eq!(begin(None).await, [(false, 0), (true, 0)]);
        assert_eq!(begin(Some(0)).await, [(true, 4)]);
        assert_eq!(begin(Some(1)).await, [(true, 2)]);
        assert_eq!(begin(Some(2)).await, [(true, 0)]);
        assert_eq!(begin(Some(3)).await, [(false, 2), (true, 0)]);
        assert_eq!(begin(Some(9)).await, [(false, 0), (true, 0)]);
        std::fs::remove_dir_all(dir).unwrap();
    }
}
