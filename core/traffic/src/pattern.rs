//! Texts that match texts.

use model::mesh::TextMatch;
use regex::{Regex, RegexBuilder};
use std::sync::Arc;

/// A compiled expression may take this many bytes: expressions come from anybody who may write a route.
const REGEX_LIMIT: usize = 1 << 18;
/// And be this long.
const REGEX_LENGTH_LIMIT: usize = 4_096;

/// An expression that cannot be used. The route's author's fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadPattern {
    /// The expression.
    pub pattern: Arc<str>,
    /// Why, in one line.
    pub why: String,
}

impl std::fmt::Display for BadPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "regular expression {:?}: {}", self.pattern, self.why)
    }
}

impl std::error::Error for BadPattern {}

/// Compiles an expression that must match the whole text, as Envoy matches it.
///
/// # Errors
/// It is no RE2-like expression, or too large.
pub fn whole(pattern: &Arc<str>) -> Result<Regex, BadPattern> {
    build(pattern, &format!("^(?:{pattern})$"))
}

/// Compiles an expression that may match anywhere in a text.
///
/// # Errors
/// As [`whole`].
pub fn part(pattern: &Arc<str>) -> Result<Regex, BadPattern> {
    build(pattern, pattern)
}

fn build(pattern: &Arc<str>, expression: &str) -> Result<Regex, BadPattern> {
    let bad = |why: String| BadPattern { pattern: pattern.clone(), why };
    if pattern.len() > REGEX_LENGTH_LIMIT {
        return Err(bad(format!("longer than {REGEX_LENGTH_LIMIT} bytes")));
    }
    RegexBuilder::new(expression)
        .size_limit(REGEX_LIMIT)
        .build()
        .map_err(|error| bad(error.to_string().lines().last().unwrap_or_default().trim().to_owned()))
}

/// A compiled [`TextMatch`].
#[derive(Clone, Debug)]
pub(crate) enum Text {
    Exact(Arc<str>),
    Prefix(Arc<str>),
    Regex(Box<Regex>),
    Present,
    /// From an expression that cannot be used: matches nothing, so that a bad route widens nothing.
    Never,
}

impl Text {
    pub(crate) fn new(of: &TextMatch) -> Self {
        match of {
            TextMatch::Exact(text) => Text::Exact(text.clone()),
            TextMatch::Prefix(text) => Text::Prefix(text.clone()),
            TextMatch::Present => Text::Present,
            TextMatch::Regex(pattern) => whole(pattern).map_or(Text::Never, |regex| Text::Regex(Box::new(regex))),
        }
    }

    pub(crate) fn matches(&self, value: &str) -> bool {
        match self {
            Text::Exact(text) => &**text == value,
            Text::Prefix(text) => value.starts_with(&**text),
            Text::Regex(regex) => regex.is_match(value),
            Text::Present => true,
            Text::Never => false,
        }
    }
}
