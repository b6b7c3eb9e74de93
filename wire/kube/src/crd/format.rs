//! Values of `format` that Kubernetes checks. Unknown formats are not checked, as there.

use crate::codec::time;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Whether a text is of a format; `None` for formats that are not checked.
pub(super) fn matches(format: &str, text: &str) -> Option<bool> {
    Some(match format {
        "date-time" | "datetime" => time::canonical(text).is_ok(),
        "date" => time::canonical(&format!("{text}T00:00:00Z")).is_ok(),
        "duration" => time::parse_duration(text).is_some() || spaced_duration(text),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => cidr(text),
        "mac" => mac(text),
        "uuid" | "uuid3" | "uuid4" | "uuid5" => uuid(text, format),
        "hostname" => hostname(text),
        "email" => email(text),
        "uri" => uri(text),
        "byte" => byte(text),
        "bsonobjectid" => text.len() == 24 && hex(text),
        "hexcolor" => text.strip_prefix('#').is_some_and(|rest| matches!(rest.len(), 3 | 6) && hex(rest)),
        "k8s-short-name" => label(text),
        "k8s-long-name" => text.len() <= 253 && text.split('.').all(label),
        _ => return None,
    })
}

fn hex(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn label(text: &str) -> bool {
    let ok = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !text.is_empty() && text.len() <= 63 && text.chars().all(ok) && !text.starts_with('-') && !text.ends_with('-')
}

/// `22 ns`: Scala's way of writing durations, which the format allows beside Go's.
fn spaced_duration(text: &str) -> bool {
    let Some((number, unit)) = text.split_once(' ') else { return false };
    let units = [
        "ns", "us", "µs", "ms", "s", "m", "h", "d", "w", "nanos", "micros", "millis", "second", "seconds", "minute",
        "minutes",
    ];
    let more = ["hour", "hours", "day", "days", "week", "weeks"];
    number.parse::<f64>().is_ok() && (units.contains(&unit) || more.contains(&unit))
}

fn cidr(text: &str) -> bool {
    let Some((address, length)) = text.split_once('/') else { return false };
    let Ok(length) = length.parse::<u8>() else { return false };
    address.parse::<Ipv4Addr>().is_ok() && length <= 32 || address.parse::<Ipv6Addr>().is_ok() && length <= 128
}

fn mac(text: &str) -> bool {
    let parts: Vec<&str> = text.split([':', '-']).collect();
    matches!(parts.len(), 6 | 8 | 20) && parts.iter().all(|part| part.len() == 2 && hex(part))
}

fn uuid(text: &str, format: &str) -> bool {
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    let groups: Vec<usize> = text.split('-').map(str::len).collect();
    let shaped = hex(&digits) && digits.len() == 32 && (groups == [8, 4, 4, 4, 12] || groups == [32]);
    shaped && format.strip_prefix("uuid").is_none_or(|version| version.is_empty() || digits[12..].starts_with(version))
}

fn hostname(text: &str) -> bool {
    let part = |part: &str| {
        let ok = part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        !part.is_empty() && part.len() <= 63 && ok && !part.starts_with('-') && !part.ends_with('-')
    };
    text.len() <= 255 && text.trim_end_matches('.').split('.').all(part)
}

fn email(text: &str) -> bool {
    text.rsplit_once('@')
        .is_some_and(|(user, host)| !user.is_empty() && !user.contains(char::is_whitespace) && hostname(host))
}

/// Go's `url.ParseRequestURI`: an absolute URI or an absolute path.
fn uri(text: &str) -> bool {
    if text.is_empty() || text.bytes().any(|byte| byte.is_ascii_control() || byte == b' ') {
        return false;
    }
    let scheme = text.split_once(':').map(|(scheme, _)| scheme).unwrap_or_default();
    let scheme_ok = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    text.starts_with('/') || scheme_ok
}

fn byte(text: &str) -> bool {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_that_are_checked() {
        for (format, good, bad) in [
            ("date-time", "2024-01-01T00:00:00Z", "yesterday"),
            ("date", "2024-01-01", "2024-13-01"),
            ("duration", "1h30m", "1 parsec"),
            ("duration", "22 ns", "x"),
            ("ipv4", "10.0.0.1", "10.0.0.256"),
            ("ipv6", "::1", "10.0.0.1"),
            ("cidr", "10.0.0.0/8", "10.0.0.0/33"),
            ("mac", "00:00:5e:00:53:01", "00:00:5e"),
            ("uuid4", "123e4567-e89b-42d3-a456-426614174000", "123e4567-e89b-12d3-a456-426614174000"),
            ("hostname", "a.example", "-a"),
            ("email", "a@example.org", "a@"),
            ("uri", "https://example.org/x", "not a uri"),
            ("byte", "aGk=", "a"),
        ] {
            assert_eq!((matches(format, good), matches(format, bad)), (Some(true), Some(false)), "{format}");
        }
        assert_eq!(matches("int32", "x"), None);
    }
}
