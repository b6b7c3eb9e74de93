//! What can be wrong with an input, and reading of its parts.

use model::Quantity;
use std::fmt;

/// An input that cannot be used: where it is wrong, what is wrong, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputError {
    /// The file, as the caller named it.
    pub file: String,
    /// Line, from 1 on; 0 when it is about the file as a whole.
    pub line: usize,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub mend: String,
}

impl fmt::Display for InputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}\n  mend: {}", self.file, self.what, self.mend),
            line => write!(f, "{}:{line}: {}\n  mend: {}", self.file, self.what, self.mend),
        }
    }
}

impl std::error::Error for InputError {}

/// One input file, for errors.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) file: &'a str,
    pub(crate) line: usize,
}

impl Place<'_> {
    pub(crate) fn error(self, what: impl Into<String>, mend: impl Into<String>) -> InputError {
        InputError { file: self.file.to_owned(), line: self.line, what: what.into(), mend: mend.into() }
    }
}

/// The line of a byte of a text, from 1 on.
pub(crate) fn line_of(text: &str, at: usize) -> usize {
    let end = at.min(text.len());
    text.as_bytes()[..end].iter().filter(|byte| **byte == b'\n').count() + 1
}

/// A CPU quantity in thousandths.
pub(crate) fn cpu(text: &str) -> Result<i64, String> {
    amount(text, "500m, 4").map(Quantity::milli)
}

/// A memory quantity in bytes.
pub(crate) fn memory(text: &str) -> Result<i64, String> {
    amount(text, "512Mi, 16Gi").map(Quantity::units)
}

fn amount(text: &str, such_as: &str) -> Result<Quantity, String> {
    let quantity = Quantity::parse(text.trim()).map_err(|_| format!("{text:?} is no quantity (such as {such_as})"))?;
    if quantity < Quantity::default() { Err(format!("{text:?} is less than nothing")) } else { Ok(quantity) }
}

/// A span of time in seconds: `90s`, `15m`, `2h`, `7d`.
pub(crate) fn span(text: &str) -> Result<i64, String> {
    let wrong = || format!("{text:?} is no span of time (such as 90s, 15m, 2h, 7d)");
    let unit = text.chars().last().ok_or_else(wrong)?;
    let scale = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let number: i64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    if !(0..=100 * 365 * 86_400 / scale).contains(&number) {
        return Err(format!("{text:?} is not between 0 and a hundred years"));
    }
    Ok(number * scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_quantities() {
        assert_eq!(span("15m"), Ok(900));
        assert_eq!(span("0s"), Ok(0));
        for wrong in ["", "15", "m", "-1s", "1.5h", "99999999d"] {
            assert!(span(wrong).is_err(), "{wrong}");
        }
        assert_eq!(cpu("1500m"), Ok(1500));
        assert_eq!(memory("1Gi"), Ok(1 << 30));
        assert!(cpu("-1").unwrap_err().contains("less than nothing"));
        assert!(memory("much").unwrap_err().contains("no quantity"));
    }

    #[test]
    fn lines_are_counted_from_one() {
        assert_eq!([0, 1, 2, 9].map(|at| line_of("a\nb\n", at)), [1, 1, 2, 3]);
    }
}
