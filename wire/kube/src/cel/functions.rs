//! Functions, by name.

use super::values::{Url, failed, no_overload};
use super::{Fault, Val, strings};
use crate::codec::{quantity_billionths, time};
use std::cmp::Ordering;
use std::net::IpAddr;
use std::rc::Rc;

pub(super) type Out<'v> = Result<Val<'v>, Fault>;

/// Names that stand before a dot without being values.
pub(super) const NAMESPACES: [&str; 6] = ["cel", "optional", "sets", "math", "strings", "ip"];

/// How a function is written and with how many arguments, the receiver included.
pub(super) struct Function {
    pub(super) name: &'static str,
    form: Form,
    min: usize,
    max: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Form {
    Global,
    Method,
    Both,
}

impl Function {
    pub(super) fn takes(&self, count: usize, method: bool) -> bool {
        let form = if method { self.form != Global } else { self.form != Method };
        form && (self.min..=self.max).contains(&count)
    }
}

const fn f(name: &'static str, form: Form, min: usize, max: usize) -> Function {
    Function { name, form, min, max }
}

use Form::{Both, Global, Method};

const FUNCTIONS: [Function; 102] = [
    f("size", Both, 1, 1),
    f("int", Global, 1, 1),
    f("uint", Global, 1, 1),
    f("double", Global, 1, 1),
    f("string", Global, 1, 1),
    f("bool", Global, 1, 1),
    f("bytes", Global, 1, 1),
    f("duration", Global, 1, 1),
    f("timestamp", Global, 1, 1),
    f("type", Global, 1, 1),
    f("dyn", Global, 1, 1),
    f("matches", Both, 2, 2),
    f("startsWith", Method, 2, 2),
    f("endsWith", Method, 2, 2),
    f("contains", Method, 2, 2),
    f("charAt", Method, 2, 2),
    f("indexOf", Method, 2, 3),
    f("lastIndexOf", Method, 2, 3),
    f("lowerAscii", Method, 1, 1),
    f("upperAscii", Method, 1, 1),
    f("replace", Method, 3, 4),
    f("split", Method, 2, 3),
    f("substring", Method, 2, 3),
    f("trim", Method, 1, 1),
    f("join", Method, 1, 2),
    f("reverse", Method, 1, 1),
    f("find", Method, 2, 2),
    f("findAll", Method, 2, 3),
    f("format", Method, 2, 2),
    f("strings.quote", Global, 1, 1),
    f("isSorted", Method, 1, 1),
    f("sum", Method, 1, 1),
    f("min", Method, 1, 1),
    f("max", Method, 1, 1),
    f("slice", Method, 3, 3),
    f("sort", Method, 1, 1),
    f("distinct", Method, 1, 1),
    f("flatten", Method, 1, 1),
    f("first", Method, 1, 1),
    f("last", Method, 1, 1),
    f("getFullYear", Method, 1, 1),
    f("getMonth", Method, 1, 1),
    f("getDate", Method, 1, 1),
    f("getDayOfMonth", Method, 1, 1),
    f("getDayOfWeek", Method, 1, 1),
    f("getHours", Method, 1, 1),
    f("getMinutes", Method, 1, 1),
    f("getSeconds", Method, 1, 1),
    f("getMilliseconds", Method, 1, 1),
    f("url", Global, 1, 1),
    f("isURL", Global, 1, 1),
    f("getScheme", Method, 1, 1),
    f("getHost", Method, 1, 1),
    f("getHostname", Method, 1, 1),
    f("getPort", Method, 1, 1),
    f("getEscapedPath", Method, 1, 1),
    f("getQuery", Method, 1, 1),
    f("ip", Both, 1, 1),
    f("isIP", Global, 1, 1),
    f("ip.isCanonical", Global, 1, 1),
    f("family", Method, 1, 1),
    f("isUnspecified", Method, 1, 1),
    f("isLoopback", Method, 1, 1),
    f("isLinkLocalMulticast", Method, 1, 1),
    f("isLinkLocalUnicast", Method, 1, 1),
    f("isGlobalUnicast", Method, 1, 1),
    f("cidr", Global, 1, 1),
    f("isCIDR", Global, 1, 1),
    f("containsIP", Method, 2, 2),
    f("containsCIDR", Method, 2, 2),
    f("masked", Method, 1, 1),
    f("prefixLength", Method, 1, 1),
    f("quantity", Global, 1, 1),
    f("isQuantity", Global, 1, 1),
    f("sign", Method, 1, 1),
    f("isInteger", Method, 1, 1),
    f("asInteger", Method, 1, 1),
    f("asApproximateFloat", Method, 1, 1),
    f("add", Method, 2, 2),
    f("sub", Method, 2, 2),
    f("isLessThan", Method, 2, 2),
    f("isGreaterThan", Method, 2, 2),
    f("compareTo", Method, 2, 2),
    f("optional.of", Global, 1, 1),
    f("optional.ofNonZeroValue", Global, 1, 1),
    f("optional.none", Global, 0, 0),
    f("hasValue", Method, 1, 1),
    f("value", Method, 1, 1),
    f("orValue", Method, 2, 2),
    f("or", Method, 2, 2),
    f("sets.contains", Global, 2, 2),
    f("sets.equivalent", Global, 2, 2),
    f("sets.intersects", Global, 2, 2),
    f("math.greatest", Global, 1, 8),
    f("math.least", Global, 1, 8),
    f("math.abs", Global, 1, 1),
    f("math.ceil", Global, 1, 1),
    f("math.floor", Global, 1, 1),
    f("math.round", Global, 1, 1),
    f("math.trunc", Global, 1, 1),
    f("math.sign", Global, 1, 1),
    f("math.isNaN", Global, 1, 1),
];

pub(super) fn find(name: &str) -> Option<&'static Function> {
    FUNCTIONS.iter().find(|function| function.name == name)
}

/// Calls a function that [`find`] knows, with a number of arguments that it takes.
pub(super) fn call<'v>(name: &'static str, arguments: &[Val<'v>]) -> Out<'v> {
    let first = arguments.first();
    if name == "size" {
        return first.and_then(Val::len).map_or_else(|| Err(no_overload()), |length| Ok(Val::Int(length as i64)));
    }
    if let Some(found) = convert(name, arguments) {
        return found;
    }
    if let Some(found) = optional(name, arguments) {
        return found;
    }
    match first {
        _ if name.starts_with("sets.") => sets(name, arguments),
        _ if name.starts_with("math.") => math(name, arguments),
        Some(Val::Text(_))
            if !matches!(
                name,
                "url" | "isURL" | "ip" | "isIP" | "ip.isCanonical" | "cidr" | "isCIDR" | "quantity" | "isQuantity"
            ) =>
        {
            strings::call(name, arguments)
        }
        Some(list @ (Val::Items(..) | Val::List(_))) => lists(name, &list.items().unwrap_or_default(), arguments),
        Some(Val::Timestamp(seconds, nanos)) => timestamp(name, *seconds, *nanos),
        Some(Val::Duration(nanos)) => duration(name, *nanos),
        _ => library(name, arguments),
    }
}

/// A value as `string()` and messages show it.
pub(super) fn shown(value: &Val<'_>) -> String {
    match value {
        Val::Null => "null".to_owned(),
        Val::Bool(value) => value.to_string(),
        Val::Int(value) => value.to_string(),
        Val::Uint(value) => value.to_string(),
        Val::Double(value) => value.to_string(),
        Val::Text(text) => text.clone().into_owned(),
        Val::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Val::Duration(nanos) => format!("{}s", *nanos as f64 / 1e9),
        Val::Timestamp(seconds, 0) => time::format(*seconds),
        Val::Timestamp(seconds, nanos) => time::format_micro(*seconds, *nanos),
        Val::Type(name) => (*name).to_owned(),
        Val::Ip(address) => address.to_string(),
        Val::Cidr(address, length) => format!("{address}/{length}"),
        Val::Quantity(billionths) => crate::codec::canonical_quantity(&format!("{billionths}n")).unwrap_or_default(),
        Val::Optional(Some(inner)) => format!("optional({})", shown(inner)),
        Val::Optional(None) => "optional.none()".to_owned(),
        Val::Url(url) => format!("{}://{}{}", url.scheme, url.host, url.path),
        list if list.items().is_some() => {
            let items: Vec<String> = list.items().unwrap_or_default().iter().map(shown).collect();
            format!("[{}]", items.join(", "))
        }
        map => {
            let entries: Vec<String> = map
                .entries()
                .unwrap_or_default()
                .iter()
                .map(|(key, value)| format!("{}: {}", shown(key), shown(value)))
                .collect();
            format!("{{{}}}", entries.join(", "))
        }
    }
}

/// Conversions between types.
fn convert<'v>(name: &str, arguments: &[Val<'v>]) -> Option<Out<'v>> {
    let value = arguments.first()?;
    let bad = |kind: &str| failed(format!("type conversion error from '{}' to '{kind}'", value.type_name()));
    Some(match (name, value) {
        ("dyn", value) => Ok(value.clone()),
        ("type", value) => Ok(Val::Type(value.type_name())),
        (
            "string",
            Val::Duration(_)
            | Val::Timestamp(..)
            | Val::Text(_)
            | Val::Int(_)
            | Val::Uint(_)
            | Val::Double(_)
            | Val::Bool(_)
            | Val::Bytes(_),
        )
        | ("string", Val::Ip(_) | Val::Cidr(..) | Val::Quantity(_)) => Ok(Val::text(shown(value))),
        ("int", Val::Int(_)) | ("uint", Val::Uint(_)) | ("double", Val::Double(_)) | ("bool", Val::Bool(_)) => {
            Ok(value.clone())
        }
        ("duration", Val::Duration(_)) | ("timestamp", Val::Timestamp(..)) | ("bytes", Val::Bytes(_)) => {
            Ok(value.clone())
        }
        ("int", Val::Text(text)) => text.parse().map(Val::Int).or_else(|_| bad("int")),
        ("int", Val::Uint(value)) => i64::try_from(*value).map(Val::Int).or_else(|_| failed("integer overflow")),
        ("int", Val::Double(value)) if value.abs() < 9.2e18 => Ok(Val::Int(*value as i64)),
        ("int", Val::Timestamp(seconds, _)) => Ok(Val::Int(*seconds)),
        ("uint", Val::Text(text)) => text.parse().map(Val::Uint).or_else(|_| bad("uint")),
        ("uint", Val::Int(value)) => {
            u64::try_from(*value).map(Val::Uint).or_else(|_| failed("unsigned integer overflow"))
        }
        ("double", Val::Text(text)) => text.parse().map(Val::Double).or_else(|_| bad("double")),
        ("double", Val::Int(value)) => Ok(Val::Double(*value as f64)),
        ("double", Val::Uint(value)) => Ok(Val::Double(*value as f64)),
        ("bool", Val::Text(text)) => text.to_lowercase().parse().map(Val::Bool).or_else(|_| bad("bool")),
        ("bytes", Val::Text(text)) => Ok(Val::Bytes(text.as_bytes().into())),
        ("duration", Val::Text(text)) => {
            time::parse_duration(text).map_or_else(|| bad("duration"), |nanos| Ok(Val::Duration(nanos)))
        }
        ("timestamp", Val::Text(text)) => {
            time::instant(text).map_or_else(|| bad("timestamp"), |(s, n)| Ok(Val::Timestamp(s, n)))
        }
        ("int" | "uint" | "double" | "string" | "bool" | "bytes" | "duration" | "timestamp", _) => Err(no_overload()),
        _ => return None,
    })
}

fn optional<'v>(name: &str, arguments: &[Val<'v>]) -> Option<Out<'v>> {
    let some = |value: &Val<'v>| Val::Optional(Some(Rc::new(value.clone())));
    Some(match (name, arguments) {
        ("optional.none", _) => Ok(Val::Optional(None)),
        ("optional.of", [value]) => Ok(some(value)),
        ("optional.ofNonZeroValue", [value]) => {
            let zero = match value {
                Val::Null | Val::Bool(false) | Val::Int(0) | Val::Uint(0) => true,
                Val::Double(value) => *value == 0.0,
                other => other.len() == Some(0),
            };
            Ok(if zero { Val::Optional(None) } else { some(value) })
        }
        ("hasValue", [Val::Optional(inner)]) => Ok(Val::Bool(inner.is_some())),
        ("value", [Val::Optional(inner)]) => {
            inner.as_deref().cloned().map_or_else(|| failed("optional.none() dereference"), Ok)
        }
        ("orValue", [Val::Optional(inner), other]) => Ok(inner.as_deref().cloned().unwrap_or_else(|| other.clone())),
        ("or", [Val::Optional(inner), other]) => Ok(if inner.is_some() { arguments[0].clone() } else { other.clone() }),
        _ => return None,
    })
}

fn lists<'v>(name: &str, items: &[Val<'v>], arguments: &[Val<'v>]) -> Out<'v> {
    let position = |found: Option<usize>| Ok(Val::Int(found.map_or(-1, |at| at as i64)));
    let best = |wanted: Ordering| {
        let mut items = items.iter();
        let Some(mut best) = items.next() else { return failed(format!("{name} called on empty list")) };
        for item in items {
            if item.order(best).ok_or_else(no_overload)? == wanted {
                best = item;
            }
        }
        Ok(best.clone())
    };
    match (name, arguments) {
        ("isSorted", _) => {
            Ok(Val::Bool(items.windows(2).all(|pair| pair[0].order(&pair[1]).is_some_and(Ordering::is_le))))
        }
        ("sum", _) => sum(items),
        ("min", _) => best(Ordering::Less),
        ("max", _) => best(Ordering::Greater),
        ("indexOf", [_, wanted]) => position(items.iter().position(|item| item.equals(wanted))),
        ("lastIndexOf", [_, wanted]) => position(items.iter().rposition(|item| item.equals(wanted))),
        ("join", _) => {
            let texts: Vec<&str> = items.iter().map(Val::as_text).collect::<Result<_, _>>()?;
            Ok(Val::text(texts.join(arguments.get(1).map_or(Ok(""), Val::as_text)?)))
        }
        ("slice", [_, from, to]) => {
            let bound = |value: &Val<'v>| {
                usize::try_from(value.as_int()?).map_err(|_| Fault::Failed("cannot slice: negative index".to_owned()))
            };
            let found = items.get(bound(from)?..bound(to)?);
            found.map_or_else(|| failed("cannot slice: index out of range"), |items| Ok(Val::list(items.to_vec())))
        }
        ("sort", _) => {
            let mut items = items.to_vec();
            items.sort_by(|a, b| a.order(b).unwrap_or(Ordering::Equal));
            Ok(Val::list(items))
        }
        ("reverse", _) => Ok(Val::list(items.iter().rev().cloned().collect())),
        ("distinct", _) => {
            let mut out: Vec<Val<'v>> = Vec::new();
            for item in items {
                if !out.iter().any(|other| other.equals(item)) {
                    out.push(item.clone());
                }
            }
            Ok(Val::list(out))
        }
        ("flatten", _) => {
            Ok(Val::list(items.iter().flat_map(|item| item.items().unwrap_or_else(|| vec![item.clone()])).collect()))
        }
        ("first", _) => Ok(Val::Optional(items.first().cloned().map(Rc::new))),
        ("last", _) => Ok(Val::Optional(items.last().cloned().map(Rc::new))),
        _ => Err(no_overload()),
    }
}

fn sum<'v>(items: &[Val<'v>]) -> Out<'v> {
    let mut whole: i64 = 0;
    let (mut double, mut duration, mut kind) = (0.0, 0i64, "int");
    for item in items {
        kind = item.type_name();
        match item {
            Val::Int(value) => {
                whole = whole.checked_add(*value).ok_or_else(|| Fault::Failed("integer overflow".to_owned()))?
            }
            Val::Double(value) => double += value,
            Val::Duration(value) => duration = duration.saturating_add(*value),
            _ => return Err(no_overload()),
        }
    }
    Ok(match kind {
        "double" => Val::Double(double + whole as f64),
        "duration" => Val::Duration(duration),
        _ => Val::Int(whole),
    })
}

fn sets<'v>(name: &str, arguments: &[Val<'v>]) -> Out<'v> {
    let list = |at: usize| arguments.get(at).and_then(Val::items).ok_or_else(no_overload);
    let (a, b) = (list(0)?, list(1)?);
    let contains =
        |all: &[Val<'v>], some: &[Val<'v>]| some.iter().all(|item| all.iter().any(|other| other.equals(item)));
    Ok(Val::Bool(match name {
        "sets.contains" => contains(&a, &b),
        "sets.equivalent" => contains(&a, &b) && contains(&b, &a),
        _ => a.iter().any(|item| b.iter().any(|other| other.equals(item))),
    }))
}

fn math<'v>(name: &str, arguments: &[Val<'v>]) -> Out<'v> {
    if matches!(name, "math.greatest" | "math.least") {
        let items = match arguments {
            [one] if one.items().is_some() => one.items().unwrap_or_default(),
            many => many.to_vec(),
        };
        return lists(if name == "math.greatest" { "max" } else { "min" }, &items, &[]);
    }
    match (name, &arguments[0]) {
        ("math.abs", Val::Int(value)) => {
            value.checked_abs().map_or_else(|| failed("integer overflow"), |value| Ok(Val::Int(value)))
        }
        ("math.sign", Val::Int(value)) => Ok(Val::Int(value.signum())),
        ("math.abs", Val::Double(value)) => Ok(Val::Double(value.abs())),
        ("math.ceil", Val::Double(value)) => Ok(Val::Double(value.ceil())),
        ("math.floor", Val::Double(value)) => Ok(Val::Double(value.floor())),
        ("math.round", Val::Double(value)) => Ok(Val::Double(value.round())),
        ("math.trunc", Val::Double(value)) => Ok(Val::Double(value.trunc())),
        ("math.sign", Val::Double(value)) => Ok(Val::Double(if *value == 0.0 { 0.0 } else { value.signum() })),
        ("math.isNaN", Val::Double(value)) => Ok(Val::Bool(value.is_nan())),
        _ => Err(no_overload()),
    }
}

fn timestamp<'v>(name: &str, seconds: i64, nanos: u32) -> Out<'v> {
    let (year, month, day, weekday) = time::date(seconds);
    let second = seconds.rem_euclid(86_400);
    Ok(Val::Int(match name {
        "getFullYear" => year,
        "getMonth" => month - 1,
        "getDate" => day,
        "getDayOfMonth" => day - 1,
        "getDayOfWeek" => weekday,
        "getHours" => second / 3600,
        "getMinutes" => second / 60 % 60,
        "getSeconds" => second % 60,
        "getMilliseconds" => i64::from(nanos / 1_000_000),
        _ => return Err(no_overload()),
    }))
}

fn duration<'v>(name: &str, nanos: i64) -> Out<'v> {
    Ok(Val::Int(match name {
        "getHours" => nanos / 3_600_000_000_000,
        "getMinutes" => nanos / 60_000_000_000,
        "getSeconds" => nanos / 1_000_000_000,
        "getMilliseconds" => nanos / 1_000_000,
        _ => return Err(no_overload()),
    }))
}

/// Kubernetes' own types.
fn library<'v>(name: &str, arguments: &[Val<'v>]) -> Out<'v> {
    match (name, arguments) {
        ("isURL", [Val::Text(text)]) => Ok(Val::Bool(url(text).is_some())),
        ("url", [Val::Text(text)]) => url(text).map_or_else(
            || {
                failed(format!(
                    "URL parse error during conversion from string: parse {text:?}: invalid URI for request"
                ))
            },
            |url| Ok(Val::Url(Rc::new(url))),
        ),
        (_, [Val::Url(url)]) => url_part(name, url),
        ("isIP", [Val::Text(text)]) => Ok(Val::Bool(text.parse::<IpAddr>().is_ok())),
        ("ip", [Val::Text(text)]) => text
            .parse()
            .map(Val::Ip)
            .or_else(|_| failed(format!("IP Address {text:?} parse error during conversion from string"))),
        ("ip.isCanonical", [Val::Text(text)]) => match text.parse::<IpAddr>() {
            Ok(address) => Ok(Val::Bool(address.to_string() == text.as_ref())),
            Err(_) => failed(format!("IP Address {text:?} parse error during conversion from string")),
        },
        (_, [Val::Ip(address)]) => address_part(name, *address),
        ("isCIDR", [Val::Text(text)]) => Ok(Val::Bool(cidr(text).is_some())),
        ("cidr", [Val::Text(text)]) => cidr(text).map_or_else(
            || failed(format!("network address parse error during conversion from string: {text:?}")),
            |(a, n)| Ok(Val::Cidr(a, n)),
        ),
        (_, [Val::Cidr(address, length), rest @ ..]) => network(name, *address, *length, rest),
        ("isQuantity", [Val::Text(text)]) => Ok(Val::Bool(quantity_billionths(text).is_ok())),
        ("quantity", [Val::Text(text)]) => {
            quantity_billionths(text).map(Val::Quantity).or_else(|error| failed(error.to_string()))
        }
        (_, [Val::Quantity(own), rest @ ..]) => quantity(name, *own, rest),
        _ => Err(no_overload()),
    }
}

fn url(text: &str) -> Option<Url> {
    if text.bytes().any(|byte| byte.is_ascii_control() || byte == b' ') {
        return None;
    }
    let (before_query, query) = text.split_once('?').unwrap_or((text, ""));
    if before_query.starts_with('/') {
        return Some(Url {
            scheme: String::new(),
            host: String::new(),
            path: before_query.to_owned(),
            query: query.to_owned(),
        });
    }
    let (scheme, rest) = before_query.split_once(':')?;
    let sound = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    let authority = rest.strip_prefix("//");
    let (host, path) = authority.map_or(("", rest), |rest| rest.split_at(rest.find('/').unwrap_or(rest.len())));
    let host = host.rsplit('@').next().unwrap_or_default();
    let (scheme, host) = (scheme.to_ascii_lowercase(), host.to_owned());
    sound.then(|| Url { scheme, host, path: path.to_owned(), query: query.to_owned() })
}

fn url_part<'v>(name: &str, url: &Url) -> Out<'v> {
    let after_bracket = url.host.rfind(']').map_or(0, |at| at + 1);
    let colon = url.host[after_bracket..].rfind(':').map(|at| at + after_bracket);
    Ok(match name {
        "getScheme" => Val::text(url.scheme.clone()),
        "getHost" => Val::text(url.host.clone()),
        "getHostname" => Val::text(url.host[..colon.unwrap_or(url.host.len())].trim_matches(['[', ']'])),
        "getPort" => Val::text(colon.map_or("", |at| &url.host[at + 1..])),
        "getEscapedPath" => Val::text(url.path.clone()),
        "getQuery" => {
            let mut out: Vec<(String, Vec<Val<'v>>)> = Vec::new();
            for pair in url.query.split('&').filter(|pair| !pair.is_empty()) {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                match out.iter_mut().find(|(own, _)| own == key) {
                    Some((_, values)) => values.push(Val::text(value)),
                    None => out.push((key.to_owned(), vec![Val::text(value)])),
                }
            }
            Val::Map(Rc::new(out.into_iter().map(|(key, values)| (Val::text(key), Val::list(values))).collect()))
        }
        _ => return Err(no_overload()),
    })
}

fn address_part<'v>(name: &str, address: IpAddr) -> Out<'v> {
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.segments()[0] & 0xffc0 == 0xfe80,
    };
    let link_local_multicast = match address {
        IpAddr::V4(v4) => v4.octets()[..3] == [224, 0, 0],
        IpAddr::V6(v6) => v6.segments()[0] & 0xff0f == 0xff02,
    };
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    Ok(match name {
        "family" => Val::Int(if address.is_ipv4() { 4 } else { 6 }),
        "isUnspecified" => Val::Bool(address.is_unspecified()),
        "isLoopback" => Val::Bool(address.is_loopback()),
        "isLinkLocalUnicast" => Val::Bool(link_local),
        "isLinkLocalMulticast" => Val::Bool(link_local_multicast),
        "isGlobalUnicast" => {
            let special =
                address.is_unspecified() || address.is_loopback() || address.is_multicast() || link_local || broadcast;
            Val::Bool(!special)
        }
        _ => return Err(no_overload()),
    })
}

fn cidr(text: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = text.split_once('/')?;
    let (address, length): (IpAddr, u8) = (address.parse().ok()?, length.parse().ok()?);
    (length <= if address.is_ipv4() { 32 } else { 128 }).then_some((address, length))
}

/// An address with all bits after the prefix cleared.
fn mask(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            IpAddr::V4((u32::from(v4) & u32::MAX.checked_shl(32 - u32::from(length.min(32))).unwrap_or(0)).into())
        }
        IpAddr::V6(v6) => {
            IpAddr::V6((u128::from(v6) & u128::MAX.checked_shl(128 - u32::from(length.min(128))).unwrap_or(0)).into())
        }
    }
}

fn network<'v>(name: &str, address: IpAddr, length: u8, rest: &[Val<'v>]) -> Out<'v> {
    let contains = |other: IpAddr| other.is_ipv4() == address.is_ipv4() && mask(other, length) == mask(address, length);
    match (name, rest) {
        ("ip", []) => Ok(Val::Ip(address)),
        ("masked", []) => Ok(Val::Cidr(mask(address, length), length)),
        ("prefixLength", []) => Ok(Val::Int(i64::from(length))),
        ("containsIP", [Val::Ip(other)]) => Ok(Val::Bool(contains(*other))),
        ("containsIP", [Val::Text(text)]) => match text.parse() {
            Ok(other) => Ok(Val::Bool(contains(other))),
            Err(_) => failed(format!("IP Address {text:?} parse error during conversion from string")),
        },
        ("containsCIDR", [Val::Cidr(other, theirs)]) => Ok(Val::Bool(length <= *theirs && contains(*other))),
        ("containsCIDR", [Val::Text(text)]) => match cidr(text) {
            Some((other, theirs)) => Ok(Val::Bool(length <= theirs && contains(other))),
            None => failed(format!("network address parse error during conversion from string: {text:?}")),
        },
        _ => Err(no_overload()),
    }
}

fn quantity<'v>(name: &str, own: i128, rest: &[Val<'v>]) -> Out<'v> {
    const UNIT: i128 = 1_000_000_000;
    let other = || match rest {
        [Val::Quantity(other)] => Ok(*other),
        [Val::Int(whole)] => Ok(i128::from(*whole) * UNIT),
        _ => Err(no_overload()),
    };
    let whole = || i64::try_from(own / UNIT).ok().filter(|_| own % UNIT == 0);
    let checked = |found: Option<i128>| found.map(Val::Quantity).map_or_else(|| failed("quantity overflow"), Ok);
    match name {
        "sign" => Ok(Val::Int(own.signum() as i64)),
        "isInteger" => Ok(Val::Bool(whole().is_some())),
        "asInteger" => whole().map_or_else(|| failed("cannot convert value to integer"), |value| Ok(Val::Int(value))),
        "asApproximateFloat" => Ok(Val::Double(own as f64 / UNIT as f64)),
        "add" => checked(own.checked_add(other()?)),
        "sub" => checked(own.checked_sub(other()?)),
        "isLessThan" => Ok(Val::Bool(own < other()?)),
        "isGreaterThan" => Ok(Val::Bool(own > other()?)),
        "compareTo" => Ok(Val::Int(own.cmp(&other()?) as i64)),
        _ => Err(no_overload()),
    }
}
