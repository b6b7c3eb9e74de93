//! Runs checks one after the other, against one platform, and closes with a line that counts them.

use crate::shell::Check;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

/// How a check ended.
pub enum Outcome {
    Passed,
    Failed(String),
    Skipped(String),
}

/// Collects outcomes. A word on the command line runs only the checks whose name has it.
pub struct Runner {
    only: Option<String>,
    counts: [usize; 3],
    failures: Vec<String>,
}

impl Runner {
    pub fn from_arguments() -> Runner {
        let only = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
        Runner { only, counts: [0; 3], failures: Vec::new() }
    }

    /// Whether a check of this name is wanted.
    pub fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| name.contains(only.as_str()))
    }

    /// Runs what the other checks rest on, whatever is wanted. True unless it failed.
    pub fn always(&mut self, name: &str, check: impl FnOnce() -> Check) -> bool {
        let only = self.only.take();
        let passed = self.check(name, check);
        self.only = only;
        passed
    }

    /// Runs a check. True unless it failed.
    pub fn check(&mut self, name: &str, check: impl FnOnce() -> Check) -> bool {
        if !self.wants(name) {
            return true;
        }
        let begun = Instant::now();
        let outcome = match catch_unwind(AssertUnwindSafe(check)) {
            Ok(Ok(())) => Outcome::Passed,
            Ok(Err(why)) => Outcome::Failed(why),
            Err(_) => Outcome::Failed("panicked".into()),
        };
        let failed = matches!(outcome, Outcome::Failed(_));
        self.record(&format!("{name} ({:.1} s)", begun.elapsed().as_secs_f64()), outcome);
        !failed
    }

    /// A check that cannot run here.
    pub fn skip(&mut self, name: &str, why: &str) {
        if self.wants(name) {
            self.record(name, Outcome::Skipped(why.into()));
        }
    }

    fn record(&mut self, name: &str, outcome: Outcome) {
        match outcome {
            Outcome::Passed => {
                self.counts[0] += 1;
                println!("test {name} ... ok");
            }
            Outcome::Failed(why) => {
                self.counts[1] += 1;
                println!("test {name} ... FAILED\n    {}", why.replace('\n', "\n    "));
                self.failures.push(name.into());
            }
            Outcome::Skipped(why) => {
                self.counts[2] += 1;
                println!("SKIPPED {name}: {why}");
            }
        }
    }

    /// The closing line.
    pub fn finish(self) -> ExitCode {
        if !self.failures.is_empty() {
            println!("\nfailed:\n    {}", self.failures.join("\n    "));
        }
        let [passed, failed, skipped] = self.counts;
        println!("\n{passed} passed, {failed} failed, {skipped} skipped");
        if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
