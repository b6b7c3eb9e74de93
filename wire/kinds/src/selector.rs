//! Label selectors: the text form of query parameters and the JSON form of objects.

use crate::json::{Members, list, members, text};
use crate::names;
use model::selector::{LabelSelector, Operator, Requirement};
use serde_json::Value;
use std::sync::Arc;

/// Why a selector's text is refused (400), worded as apimachinery words it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(String);

/// A selector with more terms than this is refused; nobody writes one by hand.
const MOST_TERMS: usize = 1000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    End,
    Comma,
    Open,
    Close,
    Not,
    Equals,
    DoubleEquals,
    NotEquals,
    Greater,
    Less,
    Word(&'a str),
}

impl Token<'_> {
    fn shown(&self) -> &str {
        match self {
            Token::End => "",
            Token::Comma => ",",
            Token::Open => "(",
            Token::Close => ")",
            Token::Not => "!",
            Token::Equals => "=",
            Token::DoubleEquals => "==",
            Token::NotEquals => "!=",
            Token::Greater => ">",
            Token::Less => "<",
            Token::Word(word) => word,
        }
    }
}

struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
}

/// Parses `a=b,c!=d,e in (x,y),!f`.
///
/// # Errors
/// The text is no selector, or a key or value is malformed.
pub fn parse(selector: &str) -> Result<LabelSelector, SelectorError> {
    let mut parser = Parser { tokens: tokens(selector), at: 0 };
    let mut requirements =
        parser.terms().map_err(|wrong| SelectorError(format!("unable to parse requirement: {wrong}")))?;
    requirements.sort();
    Ok(LabelSelector { requirements })
}

fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let symbols = [
            ("==", Token::DoubleEquals),
            ("!=", Token::NotEquals),
            ("=", Token::Equals),
            ("!", Token::Not),
            (",", Token::Comma),
            ("(", Token::Open),
            (")", Token::Close),
            (">", Token::Greater),
            ("<", Token::Less),
        ];
        if first.is_whitespace() {
            rest = &rest[first.len_utf8()..];
        } else if let Some((symbol, token)) = symbols.iter().find(|(symbol, _)| rest.starts_with(symbol)) {
            tokens.push(*token);
            rest = &rest[symbol.len()..];
        } else {
            let end = rest.find(|c: char| c.is_whitespace() || "=!,()><".contains(c)).unwrap_or(rest.len());
            tokens.push(Token::Word(&rest[..end]));
            rest = &rest[end..];
        }
    }
    tokens
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Token<'a> {
        self.tokens.get(self.at).copied().unwrap_or(Token::End)
    }
    fn next(&mut self) -> Token<'a> {
        let token = self.peek();
        self.at += 1;
        token
    }

    fn terms(&mut self) -> Result<Vec<Requirement>, String> {
        let mut found = Vec::new();
        loop {
            match self.peek() {
                Token::Word(_) | Token::Not => found.push(self.term()?),
                Token::End if found.is_empty() => return Ok(found),
                other => return Err(format!("found '{}', expected: !, identifier, or 'end of string'", other.shown())),
            }
            if found.len() > MOST_TERMS {
                return Err(format!("a selector has at most {MOST_TERMS} terms"));
            }
            match self.next() {
                Token::End => return Ok(found),
                Token::Comma => {
                    if !matches!(self.peek(), Token::Word(_) | Token::Not) {
                        return Err(format!("found '{}', expected: identifier after ','", self.peek().shown()));
                    }
                }
                other => return Err(format!("found '{}', expected: ',' or 'end of string'", other.shown())),
            }
        }
    }

    fn term(&mut self) -> Result<Requirement, String> {
        let negated = self.peek() == Token::Not;
        if negated {
            self.next();
        }
        let key = match self.next() {
            Token::Word(key) => key,
            other => return Err(format!("found '{}', expected: identifier", other.shown())),
        };
        let wrong = names::qualified(key);
        if !wrong.is_empty() {
            return Err(format!("key: Invalid value: {key:?}: {}", wrong.join("; ")));
        }
        if negated {
            return Ok(requirement(key, Operator::DoesNotExist, Vec::new()));
        }
        if matches!(self.peek(), Token::End | Token::Comma) {
            return Ok(requirement(key, Operator::Exists, Vec::new()));
        }
        let (operator, values) = match self.next() {
            Token::Equals | Token::DoubleEquals => (Operator::In, vec![self.value()?]),
            Token::NotEquals => (Operator::NotIn, vec![self.value()?]),
            Token::Greater => (Operator::Gt, vec![self.number(key)?]),
            Token::Less => (Operator::Lt, vec![self.number(key)?]),
            Token::Word("in") => (Operator::In, self.values()?),
            Token::Word("notin") => (Operator::NotIn, self.values()?),
            other => return Err(format!("found '{}', expected: in, notin, =, ==, !=, gt, lt", other.shown())),
        };
        for value in &values {
            let wrong = names::label_value(value);
            if !wrong.is_empty() {
                return Err(format!("values[0][{key}]: Invalid value: {value:?}: {}", wrong.join("; ")));
            }
        }
        Ok(requirement(key, operator, values))
    }

    fn value(&mut self) -> Result<&'a str, String> {
        match self.peek() {
            Token::End | Token::Comma => Ok(""),
            Token::Word(value) => {
                self.next();
                Ok(value)
            }
            other => Err(format!("found '{}', expected: identifier", other.shown())),
        }
    }

    fn number(&mut self, key: &str) -> Result<&'a str, String> {
        let value = self.value()?;
        if value.parse::<i64>().is_err() {
            return Err(format!(
                "values[0][{key}]: Invalid value: {value:?}: for 'Gt', 'Lt' operators, the value must be an integer"
            ));
        }
        Ok(value)
    }

    fn values(&mut self) -> Result<Vec<&'a str>, String> {
        match self.next() {
            Token::Open => {}
            other => return Err(format!("found '{}' expected: '('", other.shown())),
        }
        let mut values = Vec::new();
        loop {
            match self.peek() {
                Token::Word(value) => {
                    self.next();
                    values.push(value);
                }
                // `(a,,b)` and `(,)` name the empty value.
                Token::Comma | Token::Close => values.push(""),
                other => return Err(format!("found '{}', expected: ',', or identifier", other.shown())),
            }
            match self.next() {
                Token::Comma => {}
                Token::Close => break,
                other => return Err(format!("found '{}', expected: ',' or ')'", other.shown())),
            }
        }
        values.sort_unstable();
        values.dedup();
        Ok(values)
    }
}

fn requirement(key: &str, operator: Operator, values: Vec<&str>) -> Requirement {
    Requirement { key: key.into(), operator, values: values.into_iter().map(Arc::from).collect() }
}

/// A `metav1.LabelSelector` of an object. An unknown operator matches nothing (validation refuses it on write).
pub fn from_object(selector: &Value) -> LabelSelector {
    let mut requirements: Vec<Requirement> = members(&selector["matchLabels"])
        .iter()
        .map(|(key, value)| requirement(key, Operator::In, vec![text(value)]))
        .collect();
    for expression in list(&selector["matchExpressions"]) {
        let mut values: Vec<&str> = list(&expression["values"]).iter().map(text).collect();
        values.sort_unstable();
        let operator = match text(&expression["operator"]) {
            "In" => Operator::In,
            "NotIn" => Operator::NotIn,
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::DoesNotExist,
            _ => {
                values.clear();
                Operator::In
            }
        };
        requirements.push(requirement(text(&expression["key"]), operator, values));
    }
    requirements.sort();
    LabelSelector { requirements }
}

/// Whether an object's labels satisfy a parsed selector.
pub fn selects(selector: &LabelSelector, labels: &Value) -> bool {
    selector
        .requirements
        .iter()
        .all(|requirement| requirement.matches_value(labels.get(&*requirement.key).and_then(Value::as_str)))
}

/// Whether labels satisfy a `metav1.LabelSelector`.
pub(crate) fn matches(selector: &Value, labels: &Members) -> bool {
    let selector = from_object(selector);
    selector
        .requirements
        .iter()
        .all(|requirement| requirement.matches_value(labels.get(&*requirement.key).and_then(Value::as_str)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn selectors() {
        let labels = json!({"app": "web", "tier": "front", "n": "5"});
        for (selector, expected) in [
            ("", true),
            ("app=web", true),
            ("app==web,tier!=back", true),
            ("app in (api, web)", true),
            ("app notin (web)", false),
            ("tier", true),
            ("!tier", false),
            ("!missing", true),
            ("missing!=x", true),
            ("missing=x", false),
            ("n>4", true),
            ("n<4", false),
            ("app=", false),
            ("  app  =  web  ", true),
            ("app in (,web)", true),
            ("in in (in)", false),
        ] {
            assert_eq!(selects(&parse(selector).expect(selector), &labels), expected, "{selector}");
        }
    }

    #[test]
    fn refusals() {
        for (selector, expected) in [
            ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
            ("a in b", "unable to parse requirement: found 'b' expected: '('"),
            ("a=b,", "unable to parse requirement: found '', expected: identifier after ','"),
            (",", "unable to parse requirement: found ',', expected: !, identifier, or 'end of string'"),
            ("a in (b", "unable to parse requirement: found '', expected: ',' or ')'"),
            ("!", "unable to parse requirement: found '', expected: identifier"),
            (
                "a>x",
                "unable to parse requirement: values[0][a]: Invalid value: \"x\": for 'Gt', 'Lt' operators, the value must be an integer",
            ),
        ] {
            assert_eq!(parse(selector).unwrap_err().to_string(), expected, "{selector}");
        }
        assert!(
            parse("-a=b").unwrap_err().to_string().contains("key: Invalid value: \"-a\": name part must consist of")
        );
        assert!(
            parse("a=-b")
                .unwrap_err()
                .to_string()
                .contains("values[0][a]: Invalid value: \"-b\": a valid label must be")
        );
    }

    #[test]
    fn both_forms_agree() {
        let object = json!({"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "c", "operator": "NotIn", "values": ["y", "x"]}]});
        assert_eq!(from_object(&object), parse("c notin (x,y),a=b").unwrap());
        assert!(!selects(
            &from_object(&json!({"matchExpressions": [{"key": "a", "operator": "Maybe"}]})),
            &json!({"a": "b"})
        ));
    }
}
