//! Functions of strings. Positions count characters.

use super::Val;
use super::functions::{Out, shown};
use super::values::{failed, no_overload};
use crate::schema::rules::Pattern;

/// Longer results are refused, so that `replace` and `join` cannot grow without bound.
const MAX_TEXT: usize = 1 << 20;

pub(super) fn call<'v>(name: &str, arguments: &[Val<'v>]) -> Out<'v> {
    let own = arguments[0].as_text()?;
    let text = |at: usize| arguments.get(at).ok_or_else(no_overload).and_then(Val::as_text);
    let int = |at: usize| arguments.get(at).map(Val::as_int).transpose();
    match name {
        "startsWith" => Ok(Val::Bool(own.starts_with(text(1)?))),
        "endsWith" => Ok(Val::Bool(own.ends_with(text(1)?))),
        "contains" => Ok(Val::Bool(own.contains(text(1)?))),
        "matches" | "find" | "findAll" => regular(name, own, text(1)?, int(2)?),
        "lowerAscii" => Ok(Val::text(own.to_ascii_lowercase())),
        "upperAscii" => Ok(Val::text(own.to_ascii_uppercase())),
        "trim" => Ok(Val::text(own.trim())),
        "reverse" => Ok(Val::text(own.chars().rev().collect::<String>())),
        "strings.quote" => Ok(Val::text(format!("{own:?}"))),
        "charAt" => char_at(own, int(1)?.ok_or_else(no_overload)?),
        "substring" => substring(own, int(1)?.ok_or_else(no_overload)?, int(2)?),
        "indexOf" => position(own, text(1)?, int(2)?),
        "lastIndexOf" => last_position(own, text(1)?, int(2)?),
        "replace" => replace(own, text(1)?, text(2)?, int(3)?),
        "split" => Ok(Val::list(split(own, text(1)?, int(2)?).into_iter().map(Val::text).collect())),
        "format" => format(own, arguments.get(1).and_then(Val::items).ok_or_else(no_overload)?),
        _ => Err(no_overload()),
    }
}

fn regular<'v>(name: &str, own: &str, pattern: &str, limit: Option<i64>) -> Out<'v> {
    let pattern = match Pattern::compile(pattern) {
        Ok(pattern) => pattern,
        Err(problem) => return failed(format!("Illegal regex: {problem}")),
    };
    Ok(match name {
        "matches" => Val::Bool(pattern.is_match(own)),
        "find" => Val::text(pattern.find(own).map_or("", |found| found.as_str())),
        _ => {
            let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
            Val::list(pattern.find_iter(own).take(limit).map(|found| Val::text(found.as_str())).collect())
        }
    })
}

/// Byte position of a character.
fn byte_of(text: &str, at: usize) -> Option<usize> {
    text.char_indices().map(|(byte, _)| byte).chain(std::iter::once(text.len())).nth(at)
}

fn char_at<'v>(own: &str, at: i64) -> Out<'v> {
    let length = own.chars().count();
    match usize::try_from(at) {
        Ok(at) if at <= length => Ok(Val::text(own.chars().nth(at).map(String::from).unwrap_or_default())),
        _ => failed(format!("index out of range: {at}")),
    }
}

fn substring<'v>(own: &str, from: i64, to: Option<i64>) -> Out<'v> {
    let byte = |at: i64| usize::try_from(at).ok().and_then(|at| byte_of(own, at));
    let end = to.map_or(Some(own.len()), byte);
    match (byte(from), end) {
        (Some(from), Some(end)) if from <= end => Ok(Val::text(&own[from..end])),
        (Some(_), Some(_)) => {
            failed(format!("invalid substring range. start: {from}, end: {}", to.unwrap_or_default()))
        }
        _ => {
            failed(format!("index out of range: {}", if byte(from).is_none() { from } else { to.unwrap_or_default() }))
        }
    }
}

fn position<'v>(own: &str, wanted: &str, from: Option<i64>) -> Out<'v> {
    let from = from.unwrap_or(0);
    let Some(start) = usize::try_from(from).ok().and_then(|at| byte_of(own, at)) else {
        return failed(format!("index out of range: {from}"));
    };
    let found = own[start..].find(wanted).map(|at| own[..start + at].chars().count() as i64);
    Ok(Val::Int(found.unwrap_or(-1)))
}

fn last_position<'v>(own: &str, wanted: &str, until: Option<i64>) -> Out<'v> {
    let end = match until {
        None => own.len(),
        Some(until) => match usize::try_from(until).ok().and_then(|at| byte_of(own, at)) {
            // The match may begin at the position itself.
            Some(byte) => (byte + wanted.len()).min(own.len()),
            None => return failed(format!("index out of range: {until}")),
        },
    };
    let found = own.get(..end).and_then(|head| head.rfind(wanted)).map(|at| own[..at].chars().count() as i64);
    Ok(Val::Int(found.unwrap_or(-1)))
}

fn replace<'v>(own: &str, old: &str, new: &str, limit: Option<i64>) -> Out<'v> {
    let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    let times = if old.is_empty() { own.chars().count() + 1 } else { own.matches(old).count() };
    if times.min(limit).saturating_mul(new.len()).saturating_add(own.len()) > MAX_TEXT {
        return failed("text grows too long");
    }
    Ok(Val::text(own.replacen(old, new, limit)))
}

fn split(own: &str, by: &str, limit: Option<i64>) -> Vec<String> {
    let owned = |part: &str| part.to_owned();
    if by.is_empty() {
        return own.chars().map(String::from).collect();
    }
    match limit {
        Some(0) => Vec::new(),
        Some(limit) if limit > 0 => own.splitn(limit as usize, by).map(owned).collect(),
        _ => own.split(by).map(owned).collect(),
    }
}

/// `%s`, `%d`, `%f` with an optional precision, `%x`, `%b`, `%o`, `%e` and `%%`.
fn format<'v>(own: &str, arguments: Vec<Val<'v>>) -> Out<'v> {
    let mut out = String::new();
    let mut arguments = arguments.into_iter();
    let mut rest = own;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let precision: usize = rest[..end].trim_start_matches('.').parse().unwrap_or(6);
        let Some(verb) = rest[end..].chars().next() else { return failed("unexpected end of format string") };
        rest = &rest[end + verb.len_utf8()..];
        if verb == '%' {
            out.push('%');
            continue;
        }
        let Some(value) = arguments.next() else { return failed("index out of range in format") };
        match (verb, &value) {
            ('s', value) => out.push_str(&shown(value)),
            ('d', Val::Int(_) | Val::Uint(_) | Val::Double(_)) => out.push_str(&shown(&value)),
            ('f', Val::Double(value)) => out.push_str(&format!("{value:.*}", precision.min(30))),
            ('f', Val::Int(value)) => out.push_str(&format!("{:.*}", precision.min(30), *value as f64)),
            ('e', Val::Double(value)) => out.push_str(&format!("{value:.*e}", precision.min(30))),
            ('x', Val::Int(value)) => out.push_str(&format!("{value:x}")),
            ('X', Val::Int(value)) => out.push_str(&format!("{value:X}")),
            ('o', Val::Int(value)) => out.push_str(&format!("{value:o}")),
            ('b', Val::Int(value)) => out.push_str(&format!("{value:b}")),
            ('x', Val::Text(text)) => text.bytes().for_each(|byte| out.push_str(&format!("{byte:02x}"))),
            _ => return Err(no_overload()),
        }
        if out.len() > MAX_TEXT {
            return failed("text grows too long");
        }
    }
    out.push_str(rest);
    Ok(Val::text(out))
}
