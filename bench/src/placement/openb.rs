//! The published openb protocol (being written).

use crate::placement::Options;
use crate::report::Report;

pub fn run(options: &Options, _report: &mut Report) -> Result<(), String> {
    options.traces().map(drop)
}
