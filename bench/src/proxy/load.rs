//! The client: as many requests as the server answers, one after the other on each connection (or stream).

use bytes::Bytes;
use clap::Args;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const H1_CONNECTIONS: usize = 64;
const H2_CONNECTIONS: usize = 8;
const H2_STREAMS: usize = 32;

/// What the child does.
#[derive(Args)]
pub struct Options {
    /// HOST:PORT.
    address: String,
    /// Path.
    path: String,
    #[arg(long)]
    http2: bool,
    #[arg(long)]
    seconds: u64,
}

/// What it found.
#[derive(Serialize, Deserialize)]
pub struct Result {
    pub requests: u64,
    pub errors: u64,
    pub seconds: f64,
    pub p50_us: u64,
    pub p99_us: u64,
}

/// Runs the client in a process of its own on core 1, in a namespace if one is named.
pub fn start(
    netns: Option<&str>,
    address: &str,
    path: &str,
    http2: bool,
    seconds: u64,
) -> std::result::Result<Result, String> {
    let mut command = super::net::on_core(1, netns);
    command.arg(std::env::current_exe().map_err(|error| error.to_string())?);
    command.args(["load", address, path, "--seconds", &seconds.to_string()]).args(http2.then_some("--http2"));
    let output = Command::output(command.stderr(Stdio::inherit())).map_err(|error| error.to_string())?;
    serde_json::from_slice(&output.stdout).map_err(|error| format!("the client said nothing of use: {error}"))
}

struct Tally {
    until: Instant,
    times: Histogram<u64>,
    errors: u64,
}

type Shared = Rc<RefCell<Tally>>;

/// The child.
pub fn run(options: &Options) -> std::result::Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|it| it.to_string())?;
    let began = Instant::now();
    // Up to a minute.
    let times = Histogram::new_with_max(60_000_000, 3).map_err(|error| error.to_string())?;
    let until = began + Duration::from_secs(options.seconds);
    let tally = Rc::new(RefCell::new(Tally { until, times, errors: 0 }));
    runtime.block_on(tokio::task::LocalSet::new().run_until(clients(options, &tally)));
    let tally = tally.borrow();
    let result = Result {
        requests: tally.times.len(),
        errors: tally.errors,
        seconds: began.elapsed().as_secs_f64(),
        p50_us: tally.times.value_at_quantile(0.5),
        p99_us: tally.times.value_at_quantile(0.99),
    };
    println!("{}", serde_json::to_string(&result).map_err(|error| error.to_string())?);
    Ok(())
}

async fn clients(options: &Options, tally: &Shared) {
    let mut tasks = tokio::task::JoinSet::new();
    let count = if options.http2 { H2_CONNECTIONS } else { H1_CONNECTIONS };
    for _ in 0..count {
        let (address, path, tally) = (options.address.clone(), options.path.clone(), tally.clone());
        let http2 = options.http2;
        tasks.spawn_local(async move {
            let done = if http2 {
                h2_client(&address, &path, &tally).await.map_err(std::io::Error::other)
            } else {
                h1_client(&address, &path, &tally).await
            };
            if let Err(error) = done {
                eprintln!("client: {error}");
                tally.borrow_mut().errors += 1;
            }
        });
    }
    while tasks.join_next().await.is_some() {}
}

async fn h1_client(address: &str, path: &str, tally: &Shared) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: bench\r\nUser-Agent: diolkos-bench\r\nAccept: */*\r\n\r\n");
    let mut buffer = vec![0; 64 * 1024];
    while Instant::now() < tally.borrow().until {
        let began = Instant::now();
        stream.write_all(request.as_bytes()).await?;
        let mut head = 0;
        let (status, mut left) = loop {
            let read = stream.read(&mut buffer[head..]).await?;
            if read == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            head += read;
            if let Some((status, end, length)) = head_of(&buffer[..head]) {
                break (status, (end + length).saturating_sub(head));
            }
        };
        while left > 0 {
            let read = stream.read(&mut buffer).await?;
            if read == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            left = left.saturating_sub(read);
        }
        let mut tally = tally.borrow_mut();
        tally.times.saturating_record(began.elapsed().as_micros() as u64);
        tally.errors += u64::from(status != 200);
    }
    Ok(())
}

/// Status, end of the head, content length.
fn head_of(bytes: &[u8]) -> Option<(u16, usize, usize)> {
    let end = bytes.windows(4).position(|it| it == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&bytes[..end]).ok()?;
    let status = text.get(9..12)?.parse().ok()?;
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    Some((status, end, length.unwrap_or(0)))
}

async fn h2_client(address: &str, path: &str, tally: &Shared) -> std::result::Result<(), h2::Error> {
    let stream = TcpStream::connect(address).await.map_err(|_| h2::Error::from(h2::Reason::INTERNAL_ERROR))?;
    let _ = stream.set_nodelay(true);
    let (sender, connection) = h2::client::handshake(stream).await?;
    tokio::task::spawn_local(async move { connection.await.ok() });
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..H2_STREAMS {
        let (sender, tally, uri) = (sender.clone(), tally.clone(), format!("http://bench{path}"));
        tasks.spawn_local(async move {
            while Instant::now() < tally.borrow().until {
                let began = Instant::now();
                let good = h2_request(&sender, &uri).await.unwrap_or(false);
                let mut tally = tally.borrow_mut();
                tally.times.saturating_record(began.elapsed().as_micros() as u64);
                tally.errors += u64::from(!good);
            }
        });
    }
    while tasks.join_next().await.is_some() {}
    Ok(())
}

async fn h2_request(sender: &h2::client::SendRequest<Bytes>, uri: &str) -> std::result::Result<bool, h2::Error> {
    let request = http::Request::get(uri).body(()).map_err(|_| h2::Error::from(h2::Reason::INTERNAL_ERROR))?;
    let (response, _) = sender.clone().ready().await?.send_request(request, true)?;
    let response = response.await?;
    let good = response.status() == 200;
    let mut body = response.into_body();
    while let Some(bytes) = body.data().await {
        let _ = body.flow_control().release_capacity(bytes?.len());
    }
    Ok(good)
}
