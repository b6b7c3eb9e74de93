//! The diolkos binary: roles, configuration, wiring.
//!
//! Everything that can be wrong with the configuration is found here, before anything is bound or started.

mod cli;
mod config;
mod logging;
mod notify;
mod role;
mod supervisor;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("diolkos: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
