//! Running other programs.

use std::io::Write;
use std::process::{Command, Stdio};

/// An error as a sentence.
pub type Result<T> = std::result::Result<T, String>;

/// Runs to the end; its output goes where ours goes.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().map_err(|error| format!("{}: {error}", describe(command)))?;
    if status.success() { Ok(()) } else { Err(format!("{}: {status}", describe(command))) }
}

/// Runs to the end and returns what it printed.
pub fn output(command: &mut Command) -> Result<String> {
    output_with_input(command, None)
}

/// The same with something on its standard input.
pub fn output_with_input(command: &mut Command, input: Option<&str>) -> Result<String> {
    let fail = |command: &Command, why: String| format!("{}: {why}", describe(command));
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| fail(command, error.to_string()))?;
    if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
        stdin.write_all(text.as_bytes()).map_err(|error| fail(command, error.to_string()))?;
    }
    let done = child.wait_with_output().map_err(|error| fail(command, error.to_string()))?;
    if done.status.success() {
        Ok(String::from_utf8_lossy(&done.stdout).into_owned())
    } else {
        let stderr = String::from_utf8_lossy(&done.stderr);
        Err(fail(command, format!("{}: {}{}", done.status, String::from_utf8_lossy(&done.stdout), stderr.trim())))
    }
}

/// Whether a program of this name is on the PATH.
pub fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let sbin = ["/usr/sbin", "/sbin"].map(std::path::PathBuf::from);
    std::env::split_paths(&path).chain(sbin).any(|dir| dir.join(program).is_file())
}

/// Whether this process is root.
pub fn is_root() -> bool {
    output(Command::new("id").arg("-u")).is_ok_and(|uid| uid.trim() == "0")
}

fn describe(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|argument| argument.to_string_lossy().into_owned()));
    words.join(" ")
}
