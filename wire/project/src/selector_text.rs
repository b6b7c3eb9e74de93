//! Label selectors as query parameters spell them.

use model::selector::{LabelSelector, Operator, Requirement};
use std::sync::Arc;

/// Commas outside of parentheses part requirements.
fn parts(text: &str) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0usize, 0, Vec::new());
    for (index, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn requirement(text: &str) -> Result<Requirement, String> {
    let wrong = || format!("unable to parse requirement: {text:?}");
    let make = |key: &str, operator: Operator, values: Vec<Arc<str>>| {
        let key = key.trim();
        if key.is_empty() || key.contains(char::is_whitespace) {
            return Err(wrong());
        }
        Ok(Requirement { key: key.into(), operator, values })
    };
    let list = |rest: &str| -> Result<Vec<Arc<str>>, String> {
        let inner = rest.trim().strip_prefix('(').and_then(|rest| rest.strip_suffix(')')).ok_or_else(wrong)?;
        let mut values: Vec<Arc<str>> = inner.split(',').map(|value| value.trim().into()).collect();
        values.sort();
        Ok(values)
    };
    if let Some((key, values)) = text.split_once(" notin ") {
        return make(key, Operator::NotIn, list(values)?);
    }
    if let Some((key, values)) = text.split_once(" in ") {
        return make(key, Operator::In, list(values)?);
    }
    if let Some((key, value)) = text.split_once("!=") {
        return make(key, Operator::NotIn, vec![value.trim().into()]);
    }
    if let Some((key, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        return make(key, Operator::In, vec![value.trim().into()]);
    }
    match text.trim().strip_prefix('!') {
        Some(key) => make(key, Operator::DoesNotExist, Vec::new()),
        None => make(text, Operator::Exists, Vec::new()),
    }
}

/// Reads a selector; the empty text selects everything.
pub fn parse(text: &str) -> Result<LabelSelector, String> {
    if text.trim().is_empty() {
        return Ok(LabelSelector::default());
    }
    let mut requirements = parts(text).into_iter().map(requirement).collect::<Result<Vec<_>, _>>()?;
    requirements.sort();
    Ok(LabelSelector { requirements })
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Labels;

    #[test]
    fn spellings() {
        let labels: Labels = [("app", "web"), ("tier", "front")].map(|(k, v)| (Arc::from(k), Arc::from(v))).into();
        for (text, expect) in [
            ("", true),
            ("app=web", true),
            ("app==web,tier=front", true),
            ("app!=web", false),
            ("app in (api, web)", true),
            ("app notin (api,web)", false),
            ("tier", true),
            ("!tier", false),
            ("!x,app", true),
        ] {
            assert_eq!(parse(text).map(|selector| selector.matches(&labels)), Ok(expect), "{text}");
        }
        assert!(parse("a b").is_err() && parse("=x").is_err() && parse("a in x").is_err());
    }
}
