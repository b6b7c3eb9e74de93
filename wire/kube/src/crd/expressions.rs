//! `x-kubernetes-validations` of a schema, evaluated for an object that the rest of the schema has nothing against.

use super::validate::{counterpart, join};
use crate::cel::{Fault, OBJECT_BUDGET, Program, RULE_BUDGET, Val};
use crate::schema::rules::Expression;
use crate::schema::{Schema, Shape};
use crate::status::Cause;
use serde_json::Value;
use std::rc::Rc;

/// A `messageExpression` that gives a longer text counts as having given none.
const MAX_MESSAGE: usize = 5 * 1024;

/// What the expressions have against a value. `old` is what it replaces.
pub(super) fn check(schema: Schema<'_>, value: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut walk = Walk { causes: Vec::new(), budget: OBJECT_BUDGET };
    walk.node(schema, "", value, old);
    walk.causes
}

struct Walk {
    causes: Vec<Cause>,
    budget: u64,
}

impl Walk {
    fn node(&mut self, schema: Schema<'_>, path: &str, value: &Value, old: Option<&Value>) {
        // An expression never sees a null: whether it may be null is for the schema around it to say.
        if value.is_null() {
            return;
        }
        let old = old.filter(|old| !old.is_null());
        for expression in schema.rules().map(|rules| &rules.expressions[..]).unwrap_or_default() {
            if self.budget > 0
                && let Some(program) = &expression.program
            {
                self.evaluate(schema, path, value, old, expression, program);
            }
        }
        match (schema.shape(), value) {
            (Shape::Object, Value::Object(map)) => {
                for (key, child) in map {
                    if let Some(field) = schema.field(key) {
                        self.node(field.schema(), &join(path, key), child, old.and_then(|old| old.get(key)));
                    }
                }
            }
            (Shape::Map(form), Value::Object(map)) => {
                for (key, child) in map {
                    self.node(form, &join(path, key), child, old.and_then(|old| old.get(key)));
                }
            }
            (Shape::List(form), Value::Array(items)) => {
                for (at, child) in items.iter().enumerate() {
                    let old = old.and_then(|old| counterpart(schema, child, old));
                    self.node(form, &format!("{path}[{at}]"), child, old);
                }
            }
            _ => {}
        }
    }

    fn evaluate(
        &mut self,
        schema: Schema<'_>,
        path: &str,
        value: &Value,
        old: Option<&Value>,
        expression: &Expression,
        program: &Program,
    ) {
        let compares = program.uses_old_self;
        // Without a value before there is no transition; without a change there is nothing new to hold against the writer.
        if compares && old.is_none() && !expression.optional_old_self || !compares && old == Some(value) {
            return;
        }
        let kind = schema.rules().map_or("object", |rules| rules.kind.as_str());
        let fault = |detail: String| Cause::invalid(path, &kind.into(), detail);
        match self.run(program, schema, value, old, expression.optional_old_self) {
            Ok(Val::Bool(true)) => {}
            Ok(_) => {
                let detail = self.message(schema, value, old, expression);
                self.causes.push(refusal(path, kind, value, expression, &detail));
            }
            Err(Fault::Budget) => {
                self.budget = 0;
                self.causes.push(fault(
                    "validation failed due to running out of cost budget, no further validation rules will be run"
                        .to_owned(),
                ));
            }
            Err(Fault::Failed(error)) => {
                let about = if expression.message.is_empty() { &expression.rule } else { &expression.message };
                self.causes.push(fault(format!("{error} evaluating rule: {}", about.trim())));
            }
        }
    }

    fn run<'v>(
        &mut self,
        program: &'v Program,
        schema: Schema<'v>,
        value: &'v Value,
        old: Option<&'v Value>,
        optional: bool,
    ) -> Result<Val<'v>, Fault> {
        let allowed = self.budget.min(RULE_BUDGET);
        let mut left = allowed;
        let old = old.map(|old| Val::of(old, Some(schema)));
        let old = if optional { Some(Val::Optional(old.map(Rc::new))) } else { old };
        let found = program.run(Val::of(value, Some(schema)), old, &mut left);
        self.budget -= allowed - left;
        found
    }

    fn message(&mut self, schema: Schema<'_>, value: &Value, old: Option<&Value>, expression: &Expression) -> String {
        let made = expression.message_program.as_ref().and_then(|program| {
            match self.run(program, schema, value, old, expression.optional_old_self) {
                Ok(Val::Text(text)) => Some(text.trim().to_owned()),
                _ => None,
            }
        });
        let sound = made.filter(|text| !text.is_empty() && text.len() <= MAX_MESSAGE && !text.contains('\n'));
        sound.unwrap_or_else(|| match expression.message.trim() {
            "" => format!("failed rule: {}", expression.rule.trim()),
            message => message.to_owned(),
        })
    }
}

fn refusal(path: &str, kind: &str, value: &Value, expression: &Expression, detail: &str) -> Cause {
    let path = match expression.field_path.trim_start_matches('.') {
        "" => path.to_owned(),
        below if below.starts_with('[') => format!("{path}{below}"),
        below => join(path, below),
    };
    match expression.reason.as_str() {
        "FieldValueForbidden" => Cause::forbidden(path, detail),
        "FieldValueRequired" => Cause::required(path, detail),
        "FieldValueDuplicate" => Cause::duplicate(path, value),
        // Objects and lists are not echoed.
        _ if matches!(kind, "object" | "array") => {
            Cause { message: format!("Invalid value: {detail}"), ..Cause::invalid(path, value, "") }
        }
        _ => Cause::invalid(path, value, detail),
    }
}
