//! `diolkos join`.

use crate::cli::{CommandError, JoinArgs};
use crate::config::Config;

pub fn run(_config: Config, _args: JoinArgs) -> Result<(), CommandError> {
    Err(CommandError::Role("not wired".into()))
}
