//! Running clients, and saying what was expected of them.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A check's result; the error says what was seen.
pub type Check<T = ()> = Result<T, String>;

/// What a program printed, and whether it succeeded.
#[derive(Clone, Debug)]
pub struct Ran {
    pub ok: bool,
    pub stdout: String,
    pub stderr: String,
    pub what: String,
}

impl Ran {
    /// Its standard output, if it succeeded.
    pub fn ok(self) -> Check<String> {
        if self.ok { Ok(self.stdout) } else { Err(format!("{} failed:\n{}{}", self.what, self.stdout, self.stderr)) }
    }
    /// Its standard error, if it failed, which it should have.
    pub fn refused(self) -> Check<String> {
        if self.ok {
            Err(format!("{} succeeded and should not have:\n{}", self.what, self.stdout))
        } else {
            Ok(self.stderr)
        }
    }
}

/// Runs a program to its end, with something on its standard input.
pub fn run(command: &mut Command, input: Option<&str>) -> Ran {
    let words: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let what = words.join(" ");
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let done = command.spawn().and_then(|mut child| {
        if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
            // A program that refuses early does not read it all; its own words are what counts.
            let _ = stdin.write_all(text.as_bytes());
        }
        child.wait_with_output()
    });
    match done {
        Ok(done) => Ran {
            ok: done.status.success(),
            stdout: String::from_utf8_lossy(&done.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&done.stderr).into_owned(),
            what,
        },
        Err(error) => Ran { ok: false, stdout: String::new(), stderr: error.to_string(), what },
    }
}

/// Fails, showing the whole text, unless all needles are in it.
pub fn contains(text: &str, needles: &[&str]) -> Check {
    match needles.iter().find(|needle| !text.contains(**needle)) {
        None => Ok(()),
        Some(missing) => Err(format!("expected {missing:?} in:\n{text}")),
    }
}

/// Tries until it holds or the time is over; then fails with the last reason.
pub fn eventually<T>(within: Duration, mut check: impl FnMut() -> Check<T>) -> Check<T> {
    let deadline = Instant::now() + within;
    loop {
        match check() {
            Ok(value) => return Ok(value),
            Err(reason) if Instant::now() > deadline => {
                return Err(format!("not within {} s: {reason}", within.as_secs()));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}
