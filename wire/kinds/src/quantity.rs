//! The canonical text of a quantity: what Go prints after it has read one.
//!
//! Kubernetes stores `1000m` as `1` and `1024Mi` as `1Gi`, because a quantity is parsed on the way in. Clients rely on
//! it (a later client-side diff compares the stored text), so writes canonicalise the texts of the known quantity fields.

use crate::json::Members;
use serde_json::Value;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Decimal,
    Exponent,
    Binary,
}

const DECIMAL: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

/// The canonical text, or `None` when `text` is no quantity (or larger than this arithmetic reaches: then it is kept).
pub fn canonical(text: &str) -> Option<String> {
    let (nanos, format) = parse(text)?;
    Some(print(nanos, format))
}

/// Whether the text is a quantity.
pub fn is_valid(text: &str) -> bool {
    model::Quantity::parse(text).is_ok()
}

/// The sum of quantity texts in canonical form, in the first one's format; unreadable ones count as nothing.
pub fn sum<'a>(texts: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let mut total: Option<(i128, Format)> = None;
    for (nanos, format) in texts.into_iter().filter_map(parse) {
        total = Some(match total {
            None => (nanos, format),
            Some((sum, first)) => (sum.checked_add(nanos)?, first),
        });
    }
    total.map(|(nanos, format)| print(nanos, format))
}

/// Canonicalises a quantity member in place; JSON numbers become texts, as Go accepts both.
pub fn canonicalise(value: &mut Value) {
    let text = match &*value {
        Value::String(text) => canonical(text),
        Value::Number(number) => canonical(&number.to_string()),
        _ => None,
    };
    if let Some(text) = text {
        *value = Value::String(text);
    }
}

/// Canonicalises every member of a resource list such as `limits`, and rounds up to thousandths as its defaulting does.
pub fn canonicalise_list(map: &mut Members, key: &str) {
    let Some(list) = map.get_mut(key).and_then(Value::as_object_mut) else { return };
    for value in list.values_mut() {
        let text = match &*value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => continue,
        };
        if let Some((nanos, format)) = parse(&text) {
            let milli = nanos.div_euclid(1_000_000) + i128::from(nanos.rem_euclid(1_000_000) != 0);
            *value = Value::String(print(milli * 1_000_000, format));
        }
    }
}

fn parse(text: &str) -> Option<(i128, Format)> {
    let text = text.trim();
    let (negative, rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let (number, suffix) = rest.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || number.len() > 30 {
        return None;
    }
    let mut digits: i128 = 0;
    for byte in whole.bytes().chain(fraction.bytes()) {
        digits = digits.checked_mul(10)?.checked_add(i128::from(byte - b'0'))?;
    }
    let scale = i32::try_from(fraction.len()).ok()?;
    let (nanos, format) = if let Some(power) = BINARY.iter().skip(1).position(|name| *name == suffix) {
        let scaled = digits.checked_mul(1i128 << (10 * (power + 1)))?.checked_mul(1_000_000_000)?;
        (ceil_div(scaled, 10i128.checked_pow(scale.unsigned_abs())?), Format::Binary)
    } else {
        let (exponent, format) = decimal_exponent(suffix)?;
        let power = exponent + 9 - scale;
        let ten = 10i128.checked_pow(power.unsigned_abs())?;
        (if power >= 0 { digits.checked_mul(ten)? } else { ceil_div(digits, ten) }, format)
    };
    Some((if negative { -nanos } else { nanos }, format))
}

fn decimal_exponent(suffix: &str) -> Option<(i32, Format)> {
    if let Some(at) = DECIMAL.iter().position(|name| *name == suffix) {
        return Some((at as i32 * 3 - 9, Format::Decimal));
    }
    let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    (-30..=30).contains(&exponent).then_some((exponent, Format::Exponent))
}

fn ceil_div(value: i128, by: i128) -> i128 {
    value / by + i128::from(value % by != 0)
}

fn print(nanos: i128, format: Format) -> String {
    const ONE: i128 = 1_000_000_000;
    if nanos == 0 {
        return "0".to_owned();
    }
    if format == Format::Binary && nanos.abs() >= 1024 * ONE {
        let mut number = nanos.div_euclid(ONE) + i128::from(nanos.rem_euclid(ONE) != 0);
        let mut at = 0;
        while at + 1 < BINARY.len() && number % 1024 == 0 {
            number /= 1024;
            at += 1;
        }
        return format!("{number}{}", BINARY[at]);
    }
    let mut number = nanos;
    let mut at = 0;
    while at + 1 < DECIMAL.len() && number % 1000 == 0 {
        number /= 1000;
        at += 1;
    }
    match format {
        Format::Exponent if at != 3 => format!("{number}e{}", at as i32 * 3 - 9),
        _ => format!("{number}{}", DECIMAL[at]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_as_go_does() {
        for (text, expected) in [
            ("1000m", "1"),
            ("0.5", "500m"),
            ("1.5", "1500m"),
            ("100m", "100m"),
            ("0", "0"),
            ("0Mi", "0"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("500Mi", "500Mi"),
            ("512", "512"),
            ("0.5Ki", "512"),
            ("1000Ki", "1000Ki"),
            ("1000", "1k"),
            ("1500", "1500"),
            ("1000000", "1M"),
            ("1e3", "1e3"),
            ("12e2", "1200"),
            ("1E", "1E"),
            ("+2", "2"),
            ("-250m", "-250m"),
        ] {
            assert_eq!(canonical(text).as_deref(), Some(expected), "{text}");
        }
        assert_eq!(canonical("one"), None);
        assert_eq!(sum(["1", "500m"]).as_deref(), Some("1500m"));
    }

    #[test]
    fn lists_round_up_to_thousandths() {
        let mut map = serde_json::json!({"limits": {"cpu": 1, "memory": "1048576Ki", "x": "100u"}});
        canonicalise_list(map.as_object_mut().unwrap(), "limits");
        assert_eq!(map, serde_json::json!({"limits": {"cpu": "1", "memory": "1Gi", "x": "1m"}}));
    }
}
