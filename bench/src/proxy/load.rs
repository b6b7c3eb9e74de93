//! The client. Under saturation: as many requests as the server answers, one after the other on each connection (or stream).

mod http1;
mod http2;

use super::certs;
use clap::{Args, ValueEnum};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// HTTP/1.1 on 64 connections.
    H1,
    /// The same under mutual TLS.
    Mtls,
    /// HTTP/2 without TLS, 8 connections with 32 streams each.
    H2,
    /// A connection under mutual TLS for each request, with a whole handshake.
    NewFull,
    /// The same with a resumed one.
    NewResumed,
    /// Connections that have sent one request and wait.
    Idle,
    /// The same under mutual TLS.
    IdleMtls,
}

/// What the child does.
#[derive(Args)]
pub struct Options {
    /// HOST:PORT.
    address: String,
    /// Path.
    path: String,
    #[arg(long)]
    mode: Mode,
    #[arg(long, default_value_t = 1000)]
    milliseconds: u64,
    /// Requests a second, in all; none: as many as are answered.
    #[arg(long)]
    rate: Option<f64>,
    /// Connections that wait.
    #[arg(long, default_value_t = 0)]
    connections: usize,
    /// Where the certificates are.
    #[arg(long)]
    certs: PathBuf,
}

/// What it found.
#[derive(Serialize, Deserialize)]
pub struct Result {
    pub requests: u64,
    pub errors: u64,
    pub seconds: f64,
    pub p50_us: u64,
    pub p99_us: u64,
    /// Handshakes that were resumed.
    pub resumed: u64,
}

/// Where a client goes and what it does there.
#[derive(Clone)]
pub struct Load<'a> {
    pub netns: Option<&'a str>,
    pub address: String,
    pub path: String,
    pub mode: Mode,
    pub certs: &'a Path,
}

impl Load<'_> {
    fn command(&self) -> std::result::Result<Command, String> {
        let mut command = super::net::on_core(1, self.netns);
        command.arg(std::env::current_exe().map_err(|error| error.to_string())?);
        let mode = self.mode.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        command.args(["load", &self.address, &self.path, "--mode", &mode, "--certs"]).arg(self.certs);
        command.stderr(Stdio::inherit());
        Ok(command)
    }

    /// Runs the client in a process of its own on core 1.
    pub fn run(&self, time: Duration, rate: Option<f64>) -> std::result::Result<Result, String> {
        let mut command = self.command()?;
        command.args(["--milliseconds", &time.as_millis().to_string()]);
        command.args(rate.map(|rate| format!("--rate={rate}")));
        let output = command.output().map_err(|error| error.to_string())?;
        serde_json::from_slice(&output.stdout).map_err(|error| format!("the client said nothing of use: {error}"))
    }

    /// Holds connections that wait until the value is dropped.
    pub fn hold(&self, connections: usize) -> std::result::Result<Held, String> {
        let mut command = self.command()?;
        command.args(["--connections", &connections.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|error| error.to_string())?;
        let mut line = String::new();
        let read = child.stdout.take().map(|out| BufReader::new(out).read_line(&mut line));
        match read {
            Some(Ok(length)) if length > 0 => Ok(Held(child)),
            _ => Err("the client did not get its connections".into()),
        }
    }
}

/// Connections that wait.
pub struct Held(Child);

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

struct Tally {
    time: Duration,
    began: Instant,
    until: Instant,
    times: Histogram<u64>,
    errors: u64,
    resumed: u64,
}

impl Tally {
    /// From here on answers count: whoever needs connections first has them.
    fn begin(&mut self) {
        self.began = Instant::now();
        self.until = self.began + self.time;
    }
}

type Shared = Rc<RefCell<Tally>>;

fn note(tally: &Shared, began: Instant, good: bool) {
    let mut tally = tally.borrow_mut();
    tally.times.saturating_record(began.elapsed().as_micros() as u64);
    tally.errors += u64::from(!good);
}

/// The child.
pub fn run(options: &Options) -> std::result::Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|it| it.to_string())?;
    let (began, time) = (Instant::now(), Duration::from_millis(options.milliseconds));
    // Up to a minute.
    let times = Histogram::new_with_max(60_000_000, 3).map_err(|error| error.to_string())?;
    let tally = Tally { time, began, until: began + time, times, errors: 0, resumed: 0 };
    let tally = Rc::new(RefCell::new(tally));
    runtime.block_on(tokio::task::LocalSet::new().run_until(clients(options, &tally)))?;
    let tally = tally.borrow();
    let result = Result {
        requests: tally.times.len(),
        errors: tally.errors,
        seconds: tally.began.elapsed().as_secs_f64(),
        p50_us: tally.times.value_at_quantile(0.5),
        p99_us: tally.times.value_at_quantile(0.99),
        resumed: tally.resumed,
    };
    println!("{}", serde_json::to_string(&result).map_err(|error| error.to_string())?);
    Ok(())
}

async fn clients(options: &Options, tally: &Shared) -> std::result::Result<(), String> {
    let tls = match options.mode {
        Mode::Mtls | Mode::NewFull | Mode::NewResumed | Mode::IdleMtls => {
            Some(certs::client(&options.certs, options.mode == Mode::NewResumed)?)
        }
        Mode::H1 | Mode::H2 | Mode::Idle => None,
    };
    let target = http1::Target { address: options.address.clone(), path: options.path.clone(), tls };
    let done = match options.mode {
        Mode::H1 | Mode::Mtls => http1::saturate(target, options.rate, tally).await,
        Mode::NewFull | Mode::NewResumed => http1::connect_again_and_again(target, tally).await,
        Mode::H2 => {
            http2::saturate(&options.address, &options.path, tally).await;
            Ok(())
        }
        Mode::Idle | Mode::IdleMtls => {
            let held = http1::hold(target, options.connections).await.map_err(|error| error.to_string())?;
            println!("ready");
            let _ = std::io::stdout().flush();
            // Until the parent closes the pipe.
            let _ = std::io::stdin().read(&mut [0]);
            drop(held);
            std::process::exit(0)
        }
    };
    done.map_err(|error| error.to_string())
}
