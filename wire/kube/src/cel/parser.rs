//! Tokens -> expression tree.

use super::functions;
use super::lexer::{self, Kind, Token, error};
use crate::schema::rules::Pattern;

/// Trees deeper than this are refused: evaluation recurses along them.
const MAX_DEPTH: u16 = 120;
/// Parentheses and the like nested deeper than this are refused: parsing recurses along them.
const MAX_NESTING: usize = 40;

/// A node of the tree.
#[derive(Debug)]
pub(super) struct Expr {
    pub(super) node: Node,
    depth: u16,
}

#[derive(Debug)]
pub(super) enum Node {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(String),
    Bytes(Vec<u8>),
    Name(String),
    /// `a.b`, `a.?b`, and `has(a.b)`.
    Select {
        target: Box<Expr>,
        field: String,
        mode: Select,
    },
    /// `a[b]`, `a[?b]`.
    Index {
        target: Box<Expr>,
        key: Box<Expr>,
        optional: bool,
    },
    List(Vec<Expr>),
    Map(Vec<(Expr, Expr)>),
    Not(Box<Expr>),
    Negate(Box<Expr>),
    Binary(Op, Box<Expr>, Box<Expr>),
    And(Vec<Expr>),
    Or(Vec<Expr>),
    Choose(Box<[Expr; 3]>),
    /// A function, with the receiver as first argument for a method.
    Call {
        name: &'static str,
        arguments: Vec<Expr>,
    },
    /// `matches` with a literal, compiled once.
    Matches {
        target: Box<Expr>,
        pattern: Pattern,
    },
    Comprehend {
        kind: Comprehension,
        target: Box<Expr>,
        names: Vec<String>,
        bodies: Vec<Expr>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Select {
    Plain,
    Optional,
    Has,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comprehension {
    All,
    Exists,
    ExistsOne,
    Filter,
    Map,
    TransformList,
    TransformMap,
    OptMap,
    OptFlatMap,
    Bind,
}

/// Parses an expression; tells whether it names `oldSelf`.
pub(super) fn parse(text: &str) -> Result<(Expr, bool), String> {
    let tokens = lexer::tokens(text)?;
    let mut parser =
        Parser { text, tokens, at: 0, scope: vec!["self".into(), "oldSelf".into()], nesting: 0, uses_old_self: false };
    let expr = parser.expression()?;
    if parser.peek() != &Kind::End {
        return Err(parser.unexpected());
    }
    Ok((expr, parser.uses_old_self))
}

struct Parser<'t> {
    text: &'t str,
    tokens: Vec<Token>,
    at: usize,
    scope: Vec<String>,
    nesting: usize,
    uses_old_self: bool,
}

type Parsed = Result<Expr, String>;

/// Names of types, which are values.
pub(super) const TYPES: [&str; 12] =
    ["int", "uint", "double", "bool", "string", "bytes", "list", "map", "null_type", "type", "timestamp", "duration"];

impl Parser<'_> {
    fn peek(&self) -> &Kind {
        &self.tokens[self.at].kind
    }

    fn next(&mut self) -> Kind {
        let kind = self.tokens[self.at].kind.clone();
        self.at = (self.at + 1).min(self.tokens.len() - 1);
        kind
    }

    fn is(&self, sign: &str) -> bool {
        matches!(self.peek(), Kind::Sign(found) if *found == sign)
    }

    fn take(&mut self, sign: &str) -> bool {
        let found = self.is(sign);
        if found {
            self.next();
        }
        found
    }

    fn expect(&mut self, sign: &str) -> Result<(), String> {
        if self.take(sign) { Ok(()) } else { Err(self.unexpected()) }
    }

    fn unexpected(&self) -> String {
        let token = &self.tokens[self.at];
        let end = self.tokens.get(self.at + 1).map_or(self.text.len(), |next| next.at);
        let found =
            if token.kind == Kind::End { "<EOF>" } else { self.text.get(token.at..end).unwrap_or_default().trim() };
        error(self.text, token.at, &format!("Syntax error: mismatched input '{found}'"))
    }

    fn fail<T>(&self, at: usize, detail: &str) -> Result<T, String> {
        Err(error(self.text, at, detail))
    }

    fn make(&self, node: Node) -> Parsed {
        let below = children(&node).map(|child| child.depth).max().unwrap_or(0);
        if below >= MAX_DEPTH {
            return self.fail(self.tokens[self.at].at, &format!("expression recursion limit exceeded: {MAX_DEPTH}"));
        }
        Ok(Expr { node, depth: below + 1 })
    }

    fn expression(&mut self) -> Parsed {
        self.nesting += 1;
        if self.nesting > MAX_NESTING {
            return self.fail(self.tokens[self.at].at, &format!("expression recursion limit exceeded: {MAX_NESTING}"));
        }
        let first = self.or()?;
        let found = if self.take("?") {
            let then = self.or()?;
            self.expect(":")?;
            let otherwise = self.expression()?;
            self.make(Node::Choose(Box::new([first, then, otherwise])))
        } else {
            Ok(first)
        };
        self.nesting -= 1;
        found
    }

    fn or(&mut self) -> Parsed {
        let mut parts = vec![self.and()?];
        while self.take("||") {
            parts.push(self.and()?);
        }
        if parts.len() == 1 { Ok(parts.remove(0)) } else { self.make(Node::Or(parts)) }
    }

    fn and(&mut self) -> Parsed {
        let mut parts = vec![self.relation()?];
        while self.take("&&") {
            parts.push(self.relation()?);
        }
        if parts.len() == 1 { Ok(parts.remove(0)) } else { self.make(Node::And(parts)) }
    }

    fn relation(&mut self) -> Parsed {
        let mut left = self.sum()?;
        loop {
            let op = match self.peek() {
                Kind::Sign("==") => Op::Equal,
                Kind::Sign("!=") => Op::NotEqual,
                Kind::Sign("<=") => Op::LessOrEqual,
                Kind::Sign(">=") => Op::GreaterOrEqual,
                Kind::Sign("<") => Op::Less,
                Kind::Sign(">") => Op::Greater,
                Kind::Name(name) if name == "in" => Op::In,
                _ => return Ok(left),
            };
            self.next();
            let right = self.sum()?;
            left = self.make(Node::Binary(op, Box::new(left), Box::new(right)))?;
        }
    }

    fn sum(&mut self) -> Parsed {
        let mut left = self.product()?;
        loop {
            let op = match self.peek() {
                Kind::Sign("+") => Op::Add,
                Kind::Sign("-") => Op::Subtract,
                _ => return Ok(left),
            };
            self.next();
            let right = self.product()?;
            left = self.make(Node::Binary(op, Box::new(left), Box::new(right)))?;
        }
    }

    fn product(&mut self) -> Parsed {
        let mut left = self.unary()?;
        loop {
            let op = match self.peek() {
                Kind::Sign("*") => Op::Multiply,
                Kind::Sign("/") => Op::Divide,
                Kind::Sign("%") => Op::Remainder,
                _ => return Ok(left),
            };
            self.next();
            let right = self.unary()?;
            left = self.make(Node::Binary(op, Box::new(left), Box::new(right)))?;
        }
    }

    fn unary(&mut self) -> Parsed {
        let (mut not, mut minus) = (0, 0);
        while self.take("!") {
            not += 1;
        }
        while not == 0 && self.take("-") {
            minus += 1;
        }
        let mut expr = self.member()?;
        if minus % 2 == 1 {
            expr = match expr.node {
                Node::Int(value) => self.make(Node::Int(value.wrapping_neg()))?,
                Node::Double(value) => self.make(Node::Double(-value))?,
                _ => self.make(Node::Negate(Box::new(expr)))?,
            };
        }
        if not % 2 == 1 { self.make(Node::Not(Box::new(expr))) } else { Ok(expr) }
    }

    fn member(&mut self) -> Parsed {
        let mut target = self.primary()?;
        loop {
            let at = self.tokens[self.at].at;
            if self.take(".") {
                let mode = if self.take("?") { Select::Optional } else { Select::Plain };
                let Kind::Name(name) = self.next() else { return self.fail(at, "Syntax error: expected a field") };
                target = if mode == Select::Plain && self.take("(") {
                    self.method(target, &name, at)?
                } else {
                    self.make(Node::Select { target: Box::new(target), field: unescape(&name), mode })?
                };
            } else if self.take("[") {
                let optional = self.take("?");
                let key = self.expression()?;
                self.expect("]")?;
                target = self.make(Node::Index { target: Box::new(target), key: Box::new(key), optional })?;
            } else {
                return Ok(target);
            }
        }
    }

    fn arguments(&mut self, end: &str) -> Result<Vec<Expr>, String> {
        let mut out = Vec::new();
        while !self.take(end) {
            out.push(self.expression()?);
            if !self.take(",") {
                self.expect(end)?;
                break;
            }
        }
        Ok(out)
    }

    fn method(&mut self, target: Expr, name: &str, at: usize) -> Parsed {
        if let Some(kind) = comprehension(name) {
            return self.comprehend(kind, target);
        }
        // `cel.bind(x, value, body)`, `optional.of(x)`, `sets.contains(a, b)`: the target is a namespace, not a value.
        if let Node::Name(space) = &target.node
            && functions::NAMESPACES.contains(&space.as_str())
        {
            let full = format!("{space}.{name}");
            if full == "cel.bind" {
                return self.bind();
            }
            let arguments = self.arguments(")")?;
            return self.call(&full, arguments, false, at);
        }
        let mut arguments = vec![target];
        arguments.extend(self.arguments(")")?);
        if name == "matches"
            && arguments.len() == 2
            && let Node::Text(pattern) = &arguments[1].node
        {
            if let Err(problem) = Pattern::compile(pattern) {
                return self.fail(at, &format!("invalid matches argument: {problem}"));
            }
            let pattern = Pattern::new(pattern.clone());
            return self.make(Node::Matches { target: Box::new(arguments.swap_remove(0)), pattern });
        }
        self.call(name, arguments, true, at)
    }

    fn call(&mut self, name: &str, arguments: Vec<Expr>, method: bool, at: usize) -> Parsed {
        let Some(function) = functions::find(name) else {
            return self.fail(at, &format!("undeclared reference to '{name}' (in container '')"));
        };
        if !function.takes(arguments.len(), method) {
            return self.fail(
                at,
                &format!("found no matching overload for '{name}' applied to {} arguments", arguments.len()),
            );
        }
        self.make(Node::Call { name: function.name, arguments })
    }

    fn comprehend(&mut self, kind: Comprehension, target: Expr) -> Parsed {
        let at = self.tokens[self.at].at;
        let mut names = vec![self.variable()?];
        self.expect(",")?;
        // A second name, when another argument follows it that could be the body.
        let two_named = matches!(
            (self.peek(), &self.tokens.get(self.at + 1).map(|t| &t.kind)),
            (Kind::Name(_), Some(Kind::Sign(",")))
        );
        if two_named
            && !matches!(
                kind,
                Comprehension::Map | Comprehension::Filter | Comprehension::OptMap | Comprehension::OptFlatMap
            )
        {
            names.push(self.variable()?);
            self.expect(",")?;
        }
        let outer = self.scope.len();
        self.scope.extend(names.iter().cloned());
        let bodies = self.arguments(")")?;
        self.scope.truncate(outer);
        let most = if matches!(kind, Comprehension::Map | Comprehension::TransformList | Comprehension::TransformMap) {
            2
        } else {
            1
        };
        if bodies.is_empty() || bodies.len() > most {
            return self.fail(at, "invalid arguments of a macro");
        }
        self.make(Node::Comprehend { kind, target: Box::new(target), names, bodies })
    }

    fn bind(&mut self) -> Parsed {
        let name = self.variable()?;
        self.expect(",")?;
        let value = self.expression()?;
        self.expect(",")?;
        self.scope.push(name.clone());
        let body = self.expression()?;
        self.scope.pop();
        self.expect(")")?;
        self.make(Node::Comprehend {
            kind: Comprehension::Bind,
            target: Box::new(value),
            names: vec![name],
            bodies: vec![body],
        })
    }

    fn variable(&mut self) -> Result<String, String> {
        let at = self.tokens[self.at].at;
        match self.next() {
            Kind::Name(name) => Ok(name),
            _ => self.fail(at, "argument must be a simple name"),
        }
    }

    fn primary(&mut self) -> Parsed {
        let (at, position) = (self.tokens[self.at].at, self.at);
        match self.next() {
            Kind::Int(value) => self.make(Node::Int(value)),
            Kind::Uint(value) => self.make(Node::Uint(value)),
            Kind::Double(value) => self.make(Node::Double(value)),
            Kind::Text(value) => self.make(Node::Text(value)),
            Kind::Bytes(value) => self.make(Node::Bytes(value)),
            Kind::Sign("(") => {
                let inner = self.expression()?;
                self.expect(")")?;
                Ok(inner)
            }
            Kind::Sign("[") => {
                let items = self.arguments("]")?;
                self.make(Node::List(items))
            }
            Kind::Sign("{") => self.map(),
            Kind::Sign(".") => self.primary(),
            Kind::Name(name) => self.name(name, at),
            _ => {
                self.at = position;
                Err(self.unexpected())
            }
        }
    }

    fn map(&mut self) -> Parsed {
        let mut entries = Vec::new();
        while !self.take("}") {
            let key = self.expression()?;
            self.expect(":")?;
            entries.push((key, self.expression()?));
            if !self.take(",") {
                self.expect("}")?;
                break;
            }
        }
        self.make(Node::Map(entries))
    }

    fn name(&mut self, name: String, at: usize) -> Parsed {
        match name.as_str() {
            "true" => return self.make(Node::Bool(true)),
            "false" => return self.make(Node::Bool(false)),
            "null" => return self.make(Node::Null),
            _ => {}
        }
        if self.take("(") {
            if name == "has" {
                return self.has(at);
            }
            let arguments = self.arguments(")")?;
            return self.call(&name, arguments, false, at);
        }
        let is_namespace = functions::NAMESPACES.contains(&name.as_str()) && self.is(".");
        if !self.scope.contains(&name) && !TYPES.contains(&name.as_str()) && !is_namespace {
            return self.fail(at, &format!("undeclared reference to '{name}' (in container '')"));
        }
        self.uses_old_self |= name == "oldSelf";
        self.make(Node::Name(name))
    }

    fn has(&mut self, at: usize) -> Parsed {
        let inner = self.expression()?;
        self.expect(")")?;
        match inner.node {
            Node::Select { target, field, mode: Select::Plain } => {
                self.make(Node::Select { target, field, mode: Select::Has })
            }
            _ => self.fail(at, "invalid argument to has() macro"),
        }
    }
}

fn comprehension(name: &str) -> Option<Comprehension> {
    Some(match name {
        "all" => Comprehension::All,
        "exists" => Comprehension::Exists,
        "exists_one" | "existsOne" => Comprehension::ExistsOne,
        "filter" => Comprehension::Filter,
        "map" => Comprehension::Map,
        "transformList" => Comprehension::TransformList,
        "transformMap" => Comprehension::TransformMap,
        "optMap" => Comprehension::OptMap,
        "optFlatMap" => Comprehension::OptFlatMap,
        _ => return None,
    })
}

/// Words of the language that cannot be field names; Kubernetes writes them as `__namespace__`.
const RESERVED: [&str; 21] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// Undoes Kubernetes' escaping of property names.
fn unescape(name: &str) -> String {
    if let Some(word) = name.strip_prefix("__").and_then(|rest| rest.strip_suffix("__"))
        && RESERVED.contains(&word)
    {
        return word.to_owned();
    }
    if !name.contains("__") {
        return name.to_owned();
    }
    let mut out = name.to_owned();
    for (escaped, plain) in [("__dot__", "."), ("__dash__", "-"), ("__slash__", "/"), ("__underscores__", "__")] {
        out = out.replace(escaped, plain);
    }
    out
}

fn children(node: &Node) -> Box<dyn Iterator<Item = &Expr> + '_> {
    match node {
        Node::Select { target, .. } | Node::Matches { target, .. } | Node::Not(target) | Node::Negate(target) => {
            Box::new(std::iter::once(&**target))
        }
        Node::Index { target, key, .. } => Box::new([&**target, &**key].into_iter()),
        Node::Binary(_, left, right) => Box::new([&**left, &**right].into_iter()),
        Node::List(items) | Node::And(items) | Node::Or(items) | Node::Call { arguments: items, .. } => {
            Box::new(items.iter())
        }
        Node::Map(entries) => Box::new(entries.iter().flat_map(|(key, value)| [key, value])),
        Node::Choose(parts) => Box::new(parts.iter()),
        Node::Comprehend { target, bodies, .. } => Box::new(std::iter::once(&**target).chain(bodies)),
        _ => Box::new(std::iter::empty()),
    }
}
