//! The node's proxy.

use crate::cli::CommandError;
use crate::config::Config;

pub fn run(_config: Config) -> Result<(), CommandError> {
    Err(CommandError::Role("not wired".into()))
}
