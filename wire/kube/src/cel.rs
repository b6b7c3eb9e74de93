//! The Common Expression Language, as far as `x-kubernetes-validations` uses it: all operators and macros, the standard functions,
//! and Kubernetes' libraries for strings, lists, regular expressions, URLs, addresses, quantities and optionals.
//!
//! Types are checked when an expression runs, not when it is compiled: an expression that names a field which the schema has not
//! is accepted with its definition and fails, by name, when an object meets it. Every run has a budget, so that nobody's
//! definition can stop the server.

mod eval;
mod functions;
mod lexer;
mod parser;
mod strings;
mod values;

pub(crate) use values::Val;

use parser::Expr;

/// What one evaluation may cost, in steps. Kubernetes' own limits have the same numbers.
pub(crate) const RULE_BUDGET: u64 = 1_000_000;
/// What all evaluations for one object may cost.
pub(crate) const OBJECT_BUDGET: u64 = 10_000_000;
/// Longer expressions are refused.
const MAX_LENGTH: usize = 64 * 1024;

/// Functions of Kubernetes' libraries that are not built. An expression with one of them is stored and published, not evaluated.
const UNBUILT: [&str; 8] = ["semver", "isSemver", "format", "authorizer", "base64", "lists", "regex", "jsonpatch"];

/// Whether a compile error is about something that Kubernetes has and this evaluator has not.
pub(crate) fn is_unbuilt(error: &str) -> bool {
    UNBUILT.iter().any(|name| error.contains(&format!("undeclared reference to '{name}'")))
}

/// A compiled expression.
#[derive(Debug)]
pub(crate) struct Program {
    expr: Expr,
    /// Whether it compares with the value before an update.
    pub(crate) uses_old_self: bool,
}

/// Why an expression gave no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// `no such key: x`, `division by zero`, ...
    Failed(String),
    /// It cost more than it may.
    Budget,
}

impl Program {
    /// Compiles an expression about `self` and `oldSelf`.
    ///
    /// # Errors
    /// Where the text is no expression, or names something unknown.
    pub(crate) fn compile(text: &str) -> Result<Program, String> {
        if text.len() > MAX_LENGTH {
            return Err(format!(
                "ERROR: <input>:1:1: expression of {} bytes exceeds the limit of {MAX_LENGTH}",
                text.len()
            ));
        }
        let (expr, uses_old_self) = parser::parse(text)?;
        Ok(Program { expr, uses_old_self })
    }

    /// Runs it, taking what it costs from `budget`.
    ///
    /// # Errors
    /// See [`Fault`].
    pub(crate) fn run<'v>(&'v self, own: Val<'v>, old: Option<Val<'v>>, budget: &mut u64) -> Result<Val<'v>, Fault> {
        eval::run(&self.expr, own, old, budget)
    }
}

#[cfg(test)]
mod tests;
