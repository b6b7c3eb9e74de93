//! What a custom resource's schema demands of a value beyond its shape.

use crate::cel::Program;
use regex::Regex;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::OnceLock;

/// Validation keywords of one node. Children of the structural part are in the table; `properties`, `items` and `additional`
/// here are only filled below `allOf`, `anyOf`, `oneOf` and `not`.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    /// `object`, `array`, `string`, `integer`, `number`, `boolean`, or empty for any.
    pub(crate) kind: String,
    pub(crate) int_or_string: bool,
    pub(crate) format: String,
    pub(crate) pattern: Option<Pattern>,
    pub(crate) enum_values: Vec<Value>,
    pub(crate) minimum: Option<Bound>,
    pub(crate) maximum: Option<Bound>,
    pub(crate) multiple_of: Option<f64>,
    pub(crate) length: Span,
    pub(crate) items_count: Span,
    pub(crate) properties_count: Span,
    pub(crate) unique_items: bool,
    pub(crate) required: Vec<String>,
    pub(crate) all_of: Vec<Rules>,
    pub(crate) any_of: Vec<Rules>,
    pub(crate) one_of: Vec<Rules>,
    pub(crate) not: Option<Box<Rules>>,
    pub(crate) properties: BTreeMap<String, Rules>,
    pub(crate) items: Option<Box<Rules>>,
    pub(crate) additional: Option<Box<Rules>>,
    pub(crate) nullable: bool,
    /// `x-kubernetes-validations`.
    pub(crate) expressions: Vec<Expression>,
}

impl Rules {
    /// Whether there is nothing but a type to check, as with most nodes: those share one of [`plain`] instead of having their own.
    pub(crate) fn is_plain(&self) -> bool {
        let Rules {
            kind: _,
            nullable: _,
            int_or_string,
            format,
            pattern,
            enum_values,
            minimum,
            maximum,
            multiple_of,
            ..
        } = self;
        let Rules {
            length, items_count, properties_count, unique_items, required, all_of, any_of, one_of, not, ..
        } = self;
        let Rules { properties, items, additional, expressions, .. } = self;
        let spans = [length, items_count, properties_count];
        !int_or_string
            && !unique_items
            && format.is_empty()
            && pattern.is_none()
            && enum_values.is_empty()
            && minimum.is_none()
            && maximum.is_none()
            && multiple_of.is_none()
            && spans.iter().all(|span| span.min.is_none() && span.max.is_none())
            && required.is_empty()
            && [all_of, any_of, one_of].iter().all(|branches| branches.is_empty())
            && not.is_none()
            && properties.is_empty()
            && items.is_none()
            && additional.is_none()
            && expressions.is_empty()
    }
}

/// Rules that ask for a type and no more.
pub(crate) fn plain(kind: &str) -> &'static Rules {
    const KINDS: [&str; 7] = ["", "array", "boolean", "integer", "number", "object", "string"];
    static PLAIN: OnceLock<Vec<Rules>> = OnceLock::new();
    let plain = PLAIN.get_or_init(|| KINDS.map(|kind| Rules { kind: kind.to_owned(), ..Rules::default() }).into());
    let at = KINDS.iter().position(|known| *known == kind).unwrap_or_default();
    &plain[at]
}

/// One `x-kubernetes-validations` entry.
#[derive(Debug, Default)]
pub(crate) struct Expression {
    pub(crate) rule: String,
    pub(crate) message: String,
    pub(crate) message_expression: String,
    pub(crate) reason: String,
    pub(crate) field_path: String,
    /// Whether it also runs when there is no value before, with `oldSelf` as an optional.
    pub(crate) optional_old_self: bool,
    /// `None` when it uses a library that is not built.
    pub(crate) program: Option<Program>,
    pub(crate) message_program: Option<Program>,
}

/// A least or greatest value.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bound {
    pub(crate) value: f64,
    pub(crate) exclusive: bool,
}

/// Least and greatest count.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Span {
    pub(crate) min: Option<u64>,
    pub(crate) max: Option<u64>,
}

/// A regular expression, compiled when it is first asked: most schemas of a cluster never see an object.
#[derive(Debug)]
pub(crate) struct Pattern {
    pub(crate) text: String,
    compiled: OnceLock<Option<Regex>>,
}

impl Pattern {
    pub(crate) fn new(text: String) -> Self {
        Pattern { text, compiled: OnceLock::new() }
    }
    /// Compiles a pattern of a custom resource with a bound on the size of the program it becomes.
    pub(crate) fn compile(text: &str) -> Result<Regex, regex::Error> {
        regex::RegexBuilder::new(text).size_limit(1 << 20).build()
    }
    /// Whether the text matches; a pattern that does not compile is refused when the definition is made, and matches nothing.
    pub(crate) fn matches(&self, text: &str) -> bool {
        self.compiled
            .get_or_init(|| Pattern::compile(&self.text).ok())
            .as_ref()
            .is_some_and(|regex| regex.is_match(text))
    }
}
