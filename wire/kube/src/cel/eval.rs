//! Evaluation.

use super::parser::{Comprehension, Expr, Node, Op, Select, TYPES};
use super::values::{failed, no_overload};
use super::{Fault, Val, functions};
use std::borrow::Cow;
use std::rc::Rc;

type Out<'v> = Result<Val<'v>, Fault>;

/// Variables that are in sight, innermost first.
struct Scope<'s, 'v> {
    name: &'s str,
    value: Val<'v>,
    outer: Option<&'s Scope<'s, 'v>>,
}

struct Machine<'b> {
    budget: &'b mut u64,
}

pub(super) fn run<'v>(expr: &'v Expr, own: Val<'v>, old: Option<Val<'v>>, budget: &mut u64) -> Out<'v> {
    let mut machine = Machine { budget };
    let outer = Scope { name: "self", value: own, outer: None };
    match old {
        Some(old) => machine.eval(expr, &Scope { name: "oldSelf", value: old, outer: Some(&outer) }),
        None => machine.eval(expr, &outer),
    }
}

impl Machine<'_> {
    fn pay(&mut self, cost: u64) -> Result<(), Fault> {
        *self.budget = self.budget.checked_sub(cost).ok_or(Fault::Budget)?;
        Ok(())
    }

    fn eval<'v>(&mut self, expr: &'v Expr, scope: &Scope<'_, 'v>) -> Out<'v> {
        self.pay(1)?;
        match &expr.node {
            Node::Null => Ok(Val::Null),
            Node::Bool(value) => Ok(Val::Bool(*value)),
            Node::Int(value) => Ok(Val::Int(*value)),
            Node::Uint(value) => Ok(Val::Uint(*value)),
            Node::Double(value) => Ok(Val::Double(*value)),
            Node::Text(text) => Ok(Val::Text(Cow::Borrowed(text))),
            Node::Bytes(bytes) => Ok(Val::Bytes(bytes.as_slice().into())),
            Node::Name(name) => lookup(name, scope),
            Node::Select { target, field, mode } => self.select(target, field, *mode, scope),
            Node::Index { target, key, optional } => self.index(target, key, *optional, scope),
            Node::List(items) => {
                Ok(Val::list(items.iter().map(|item| self.eval(item, scope)).collect::<Result<_, _>>()?))
            }
            Node::Map(entries) => self.map(entries, scope),
            Node::Not(inner) => match self.eval(inner, scope)? {
                Val::Bool(value) => Ok(Val::Bool(!value)),
                _ => Err(no_overload()),
            },
            Node::Negate(inner) => match self.eval(inner, scope)? {
                Val::Int(value) => value.checked_neg().map(Val::Int).map_or_else(|| failed("integer overflow"), Ok),
                Val::Double(value) => Ok(Val::Double(-value)),
                Val::Duration(value) => Ok(Val::Duration(value.saturating_neg())),
                _ => Err(no_overload()),
            },
            Node::And(parts) => self.junction(parts, false, scope),
            Node::Or(parts) => self.junction(parts, true, scope),
            Node::Choose(parts) => match self.eval(&parts[0], scope)? {
                Val::Bool(true) => self.eval(&parts[1], scope),
                Val::Bool(false) => self.eval(&parts[2], scope),
                _ => Err(no_overload()),
            },
            Node::Binary(op, left, right) => {
                let (left, right) = (self.eval(left, scope)?, self.eval(right, scope)?);
                self.pay(weight(&left) + weight(&right))?;
                binary(*op, &left, &right)
            }
            Node::Matches { target, pattern } => {
                let target = self.eval(target, scope)?;
                self.pay(weight(&target) * 4)?;
                Ok(Val::Bool(pattern.matches(target.as_text()?)))
            }
            Node::Call { name, arguments } => {
                let arguments: Vec<Val<'v>> =
                    arguments.iter().map(|argument| self.eval(argument, scope)).collect::<Result<_, _>>()?;
                self.pay(arguments.iter().map(weight).sum())?;
                functions::call(name, &arguments)
            }
            Node::Comprehend { kind, target, names, bodies } => self.comprehend(*kind, target, names, bodies, scope),
        }
    }

    /// `&&` and `||` do not care about the order of their operands: one that decides hides the failure of another.
    fn junction<'v>(&mut self, parts: &'v [Expr], decides: bool, scope: &Scope<'_, 'v>) -> Out<'v> {
        let mut fault = None;
        for part in parts {
            match self.eval(part, scope) {
                Ok(Val::Bool(value)) if value == decides => return Ok(Val::Bool(decides)),
                Ok(Val::Bool(_)) => {}
                Ok(_) => fault = fault.or(Some(no_overload())),
                Err(Fault::Budget) => return Err(Fault::Budget),
                Err(other) => fault = fault.or(Some(other)),
            }
        }
        fault.map_or(Ok(Val::Bool(!decides)), Err)
    }

    fn select<'v>(&mut self, target: &'v Expr, field: &'v str, mode: Select, scope: &Scope<'_, 'v>) -> Out<'v> {
        let target = self.eval(target, scope)?;
        let key = Val::Text(Cow::Borrowed(field));
        match (mode, &target) {
            (_, Val::Optional(inner)) => {
                let found = inner.as_ref().and_then(|inner| inner.get(&key));
                Ok(if mode == Select::Has { Val::Bool(found.is_some()) } else { Val::Optional(found.map(Rc::new)) })
            }
            (_, Val::Fields(..) | Val::Map(_)) => {
                let found = target.get(&key);
                match mode {
                    Select::Has => Ok(Val::Bool(found.is_some())),
                    Select::Optional => Ok(Val::Optional(found.map(Rc::new))),
                    Select::Plain => found.map_or_else(|| failed(format!("no such key: {field}")), Ok),
                }
            }
            _ => Err(no_overload()),
        }
    }

    fn index<'v>(&mut self, target: &'v Expr, key: &'v Expr, optional: bool, scope: &Scope<'_, 'v>) -> Out<'v> {
        let (target, key) = (self.eval(target, scope)?, self.eval(key, scope)?);
        let inner = match &target {
            Val::Optional(None) => return Ok(Val::Optional(None)),
            Val::Optional(Some(inner)) => inner,
            other => other,
        };
        let found = at(inner, &key);
        if optional || matches!(target, Val::Optional(_)) {
            return Ok(Val::Optional(found.ok().map(Rc::new)));
        }
        found
    }

    fn map<'v>(&mut self, entries: &'v [(Expr, Expr)], scope: &Scope<'_, 'v>) -> Out<'v> {
        let mut out: Vec<(Val<'v>, Val<'v>)> = Vec::new();
        for (key, value) in entries {
            let (key, value) = (self.eval(key, scope)?, self.eval(value, scope)?);
            if out.iter().any(|(own, _)| own.equals(&key)) {
                return failed("Failed with repeated key");
            }
            out.push((key, value));
        }
        Ok(Val::Map(Rc::new(out)))
    }

    fn comprehend<'v>(
        &mut self,
        kind: Comprehension,
        target: &'v Expr,
        names: &'v [String],
        bodies: &'v [Expr],
        scope: &Scope<'_, 'v>,
    ) -> Out<'v> {
        let target = self.eval(target, scope)?;
        match kind {
            Comprehension::Bind => {
                return self.eval(&bodies[0], &Scope { name: &names[0], value: target, outer: Some(scope) });
            }
            Comprehension::OptMap | Comprehension::OptFlatMap => {
                let Val::Optional(inner) = target else { return Err(no_overload()) };
                let Some(inner) = inner else { return Ok(Val::Optional(None)) };
                let value =
                    self.eval(&bodies[0], &Scope { name: &names[0], value: (*inner).clone(), outer: Some(scope) })?;
                return Ok(if kind == Comprehension::OptMap { Val::Optional(Some(Rc::new(value))) } else { value });
            }
            _ => {}
        }
        let pairs = pairs(&target, names.len() == 2 || kind == Comprehension::TransformMap)?;
        match kind {
            Comprehension::All | Comprehension::Exists => {
                self.quantify(kind == Comprehension::Exists, pairs, names, &bodies[0], scope)
            }
            Comprehension::ExistsOne => {
                let mut count = 0;
                for pair in pairs {
                    count += u32::from(self.holds(pair, names, &bodies[0], scope)?);
                }
                Ok(Val::Bool(count == 1))
            }
            _ => self.transform(kind, pairs, names, bodies, scope),
        }
    }

    fn quantify<'v>(
        &mut self,
        decides: bool,
        pairs: Vec<Pair<'v>>,
        names: &'v [String],
        body: &'v Expr,
        scope: &Scope<'_, 'v>,
    ) -> Out<'v> {
        let mut fault = None;
        for pair in pairs {
            match self.holds(pair, names, body, scope) {
                Ok(found) if found == decides => return Ok(Val::Bool(decides)),
                Ok(_) => {}
                Err(Fault::Budget) => return Err(Fault::Budget),
                Err(other) => fault = fault.or(Some(other)),
            }
        }
        fault.map_or(Ok(Val::Bool(!decides)), Err)
    }

    fn transform<'v>(
        &mut self,
        kind: Comprehension,
        pairs: Vec<Pair<'v>>,
        names: &'v [String],
        bodies: &'v [Expr],
        scope: &Scope<'_, 'v>,
    ) -> Out<'v> {
        let (mut list, mut map) = (Vec::new(), Vec::new());
        for pair in pairs {
            let (filter, body) = match (kind, bodies) {
                (Comprehension::Filter, [filter]) => (Some(filter), None),
                (_, [filter, body]) => (Some(filter), Some(body)),
                (_, [body]) => (None, Some(body)),
                _ => return Err(no_overload()),
            };
            if let Some(filter) = filter
                && !self.holds(pair.clone(), names, filter, scope)?
            {
                continue;
            }
            let value = match body {
                Some(body) => self.with(pair.clone(), names, body, scope)?,
                None => pair.value.clone(),
            };
            if kind == Comprehension::TransformMap { map.push((pair.key, value)) } else { list.push(value) }
        }
        Ok(if kind == Comprehension::TransformMap { Val::Map(Rc::new(map)) } else { Val::list(list) })
    }

    fn holds<'v>(
        &mut self,
        pair: Pair<'v>,
        names: &'v [String],
        body: &'v Expr,
        scope: &Scope<'_, 'v>,
    ) -> Result<bool, Fault> {
        match self.with(pair, names, body, scope)? {
            Val::Bool(value) => Ok(value),
            _ => Err(no_overload()),
        }
    }

    fn with<'v>(&mut self, pair: Pair<'v>, names: &'v [String], body: &'v Expr, scope: &Scope<'_, 'v>) -> Out<'v> {
        match names {
            [one] => self.eval(body, &Scope { name: one, value: pair.value, outer: Some(scope) }),
            [first, second] => {
                let outer = Scope { name: first, value: pair.key, outer: Some(scope) };
                self.eval(body, &Scope { name: second, value: pair.value, outer: Some(&outer) })
            }
            _ => Err(no_overload()),
        }
    }
}

/// What a macro walks over: position and item, or key and value.
#[derive(Clone)]
struct Pair<'v> {
    key: Val<'v>,
    value: Val<'v>,
}

/// With one name, a macro over a map walks its keys.
fn pairs<'v>(target: &Val<'v>, both: bool) -> Result<Vec<Pair<'v>>, Fault> {
    if let Some(items) = target.items() {
        return Ok(items.into_iter().enumerate().map(|(at, value)| Pair { key: Val::Int(at as i64), value }).collect());
    }
    let entries = target.entries().ok_or_else(no_overload)?;
    Ok(entries
        .into_iter()
        .map(|(key, value)| if both { Pair { key, value } } else { Pair { value: key.clone(), key } })
        .collect())
}

fn lookup<'v>(name: &str, scope: &Scope<'_, 'v>) -> Out<'v> {
    let mut at = Some(scope);
    while let Some(scope) = at {
        if scope.name == name {
            return Ok(scope.value.clone());
        }
        at = scope.outer;
    }
    match TYPES.iter().find(|kind| **kind == name) {
        Some(kind) => Ok(Val::Type(kind)),
        None => failed(format!("no such attribute(s): {name}")),
    }
}

fn at<'v>(target: &Val<'v>, key: &Val<'v>) -> Out<'v> {
    let length = match target {
        Val::Items(items, _) => items.len(),
        Val::List(items) => items.len(),
        Val::Fields(..) | Val::Map(_) => {
            return target.get(key).map_or_else(|| failed(format!("no such key: {}", functions::shown(key))), Ok);
        }
        _ => return Err(no_overload()),
    };
    let position = key.as_int()?;
    let found = usize::try_from(position).ok().filter(|at| *at < length);
    match (target, found) {
        (Val::Items(items, schema), Some(at)) => Ok(Val::of(&items[at], *schema)),
        (Val::List(items), Some(at)) => Ok(items[at].clone()),
        _ => failed(format!("index out of bounds: {position}")),
    }
}

/// What looking at a value costs beyond the step itself.
fn weight(value: &Val<'_>) -> u64 {
    match value {
        Val::Text(text) => text.len() as u64 / 16,
        Val::Items(items, _) => items.len() as u64,
        Val::List(items) => items.len() as u64,
        Val::Fields(map, _) => map.len() as u64,
        Val::Map(entries) => entries.len() as u64,
        _ => 0,
    }
}

fn binary<'v>(op: Op, left: &Val<'v>, right: &Val<'v>) -> Out<'v> {
    let compare = |wanted: fn(std::cmp::Ordering) -> bool| match left.order(right) {
        Some(order) => Ok(Val::Bool(wanted(order))),
        None if matches!((left, right), (Val::Double(_), _) | (_, Val::Double(_))) => Ok(Val::Bool(false)),
        None => Err(no_overload()),
    };
    match op {
        Op::Equal => Ok(Val::Bool(left.equals(right))),
        Op::NotEqual => Ok(Val::Bool(!left.equals(right))),
        Op::Less => compare(std::cmp::Ordering::is_lt),
        Op::LessOrEqual => compare(std::cmp::Ordering::is_le),
        Op::Greater => compare(std::cmp::Ordering::is_gt),
        Op::GreaterOrEqual => compare(std::cmp::Ordering::is_ge),
        Op::In => {
            if let Some(items) = right.items() {
                return Ok(Val::Bool(items.iter().any(|item| item.equals(left))));
            }
            if right.entries().is_some() { Ok(Val::Bool(right.get(left).is_some())) } else { Err(no_overload()) }
        }
        _ => arithmetic(op, left, right),
    }
}

fn arithmetic<'v>(op: Op, left: &Val<'v>, right: &Val<'v>) -> Out<'v> {
    let overflow = || Fault::Failed("integer overflow".to_owned());
    match (left, right) {
        (_, Val::Int(0) | Val::Uint(0)) if op == Op::Divide && !matches!(left, Val::Double(_)) => {
            failed("division by zero")
        }
        (_, Val::Int(0) | Val::Uint(0)) if op == Op::Remainder => failed("modulus by zero"),
        (Val::Int(a), Val::Int(b)) => whole(op, *a, *b).map(Val::Int).ok_or_else(overflow),
        (Val::Uint(a), Val::Uint(b)) => unsigned(op, *a, *b).map(Val::Uint).ok_or_else(overflow),
        (Val::Double(a), Val::Double(b)) => double(op, *a, *b),
        // Number fields hold whole values as often as not, and their literals are written so.
        (Val::Double(a), Val::Int(b)) => double(op, *a, *b as f64),
        (Val::Int(a), Val::Double(b)) => double(op, *a as f64, *b),
        (Val::Text(a), Val::Text(b)) if op == Op::Add => Ok(Val::text(format!("{a}{b}"))),
        (Val::Bytes(a), Val::Bytes(b)) if op == Op::Add => Ok(Val::Bytes([&a[..], &b[..]].concat().into())),
        (Val::Duration(a), Val::Duration(b)) => {
            whole(op, *a, *b).filter(|_| matches!(op, Op::Add | Op::Subtract)).map(Val::Duration).ok_or_else(overflow)
        }
        (Val::Timestamp(..), Val::Duration(by)) | (Val::Duration(by), Val::Timestamp(..)) => {
            shifted(op, left, right, *by)
        }
        (Val::Timestamp(a, m), Val::Timestamp(b, n)) if op == Op::Subtract => {
            let nanos = (i128::from(*a) - i128::from(*b)) * 1_000_000_000 + i128::from(*m) - i128::from(*n);
            i64::try_from(nanos).map(Val::Duration).map_err(|_| overflow())
        }
        _ => match (left.items(), right.items()) {
            (Some(mut a), Some(b)) if op == Op::Add => {
                a.extend(b);
                Ok(Val::list(a))
            }
            _ => Err(no_overload()),
        },
    }
}

fn shifted<'v>(op: Op, left: &Val<'v>, right: &Val<'v>, by: i64) -> Out<'v> {
    let (seconds, nanos, sign) = match (op, left, right) {
        (Op::Add, Val::Timestamp(seconds, nanos), _) | (Op::Add, _, Val::Timestamp(seconds, nanos)) => {
            (*seconds, *nanos, 1)
        }
        (Op::Subtract, Val::Timestamp(seconds, nanos), _) => (*seconds, *nanos, -1),
        _ => return Err(no_overload()),
    };
    let total = i128::from(seconds) * 1_000_000_000 + i128::from(nanos) + i128::from(by) * sign;
    let seconds =
        i64::try_from(total.div_euclid(1_000_000_000)).map_err(|_| Fault::Failed("timestamp overflow".to_owned()))?;
    Ok(Val::Timestamp(seconds, total.rem_euclid(1_000_000_000) as u32))
}

fn whole(op: Op, a: i64, b: i64) -> Option<i64> {
    match op {
        Op::Add => a.checked_add(b),
        Op::Subtract => a.checked_sub(b),
        Op::Multiply => a.checked_mul(b),
        Op::Divide => a.checked_div(b),
        _ => a.checked_rem(b),
    }
}

fn unsigned(op: Op, a: u64, b: u64) -> Option<u64> {
    match op {
        Op::Add => a.checked_add(b),
        Op::Subtract => a.checked_sub(b),
        Op::Multiply => a.checked_mul(b),
        Op::Divide => a.checked_div(b),
        _ => a.checked_rem(b),
    }
}

fn double<'v>(op: Op, a: f64, b: f64) -> Out<'v> {
    Ok(Val::Double(match op {
        Op::Add => a + b,
        Op::Subtract => a - b,
        Op::Multiply => a * b,
        Op::Divide => a / b,
        _ => return Err(no_overload()),
    }))
}
