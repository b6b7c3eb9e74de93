//! The roles: each turns the settings in force into one crate's configuration and runs it until it is told to stop.

pub mod dashboard;
pub mod host;
pub mod image;
pub mod insight;
pub mod join;
pub mod mesh;
pub mod node;
pub mod proxy;
pub mod reset;
pub mod server;
pub mod simulate;
pub mod token;

use crate::cli::CommandError;
use crate::config::Config;
use client::HttpsApi;
use std::future::Future;
use std::path::Path;
use tokio::signal::unix::{SignalKind, signal};

/// An error of a role, as a sentence.
pub fn failed(error: impl std::fmt::Display) -> CommandError {
    CommandError::Role(error.to_string())
}

/// How a role was told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// SIGTERM: this process goes, what it started stays.
    Process,
    /// SIGINT: what it started is stopped too.
    Everything,
}

/// Done when the process is told to stop.
pub fn stop_signal() -> Result<impl Future<Output = Stop> + Send, CommandError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => Stop::Process,
            _ = interrupt.recv() => Stop::Everything,
        }
    })
}

/// A runtime with `workers` threads, and the rustls provider that all of them use.
pub fn runtime(workers: usize) -> Result<tokio::runtime::Runtime, CommandError> {
    // Fails only when one is installed already, which is then the same one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(workers).enable_all().build().map_err(failed)
}

/// The platform's API server, as its administrator.
pub fn admin(config: &Config) -> Result<HttpsApi, CommandError> {
    let path = config.admin_kubeconfig();
    HttpsApi::from_kubeconfig(&path).map_err(|error| unread(&path, error))
}

/// Why a file that the platform makes is not read, with what helps when it is not there.
pub fn unread(path: &Path, error: impl std::fmt::Display) -> CommandError {
    let name = path.display();
    match path.exists() {
        true => failed(error),
        false => failed(format!(
            "{name} is not there: `diolkos up` makes it; where that has another --data-dir, say the same here"
        )),
    }
}

/// PATH, once.
pub fn path() -> String {
    std::env::var("PATH").unwrap_or_default()
}
