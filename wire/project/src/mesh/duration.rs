//! Durations as Go and Kubernetes' CEL read them: `1h30m`, `1.5s`, `100ms`, `250us`.

use crate::read::at;
use serde_json::Value;

/// In milliseconds; what is shorter than one is cut off. None: it is no duration, or a negative one.
pub fn duration_ms(text: &str) -> Option<u64> {
    if text == "0" {
        return Some(0);
    }
    let mut rest = text;
    let mut total_us = 0f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').filter(|end| (1..=18).contains(end))?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let units = [("ms", 1e3), ("us", 1.0), ("µs", 1.0), ("ns", 1e-3), ("h", 3.6e9), ("m", 6e7), ("s", 1e6)];
        let (unit, factor) = units.into_iter().find(|(unit, _)| rest.starts_with(unit))?;
        rest = &rest[unit.len()..];
        total_us += number * factor;
    }
    (!text.is_empty() && total_us < 1e18).then_some((total_us / 1e3 + 1e-6) as u64)
}

/// A field that is a duration. One that cannot be read is a flaw, and counts as absent.
pub(super) fn opt_duration(value: &Value, name: &str, flaw: &mut String) -> Option<u64> {
    let text = at(value, name).as_str()?;
    let read = duration_ms(text);
    if read.is_none() {
        *flaw = format!("{name} {text:?} is no duration");
    }
    read
}

#[cfg(test)]
mod tests {
    use super::duration_ms;

    #[test]
    fn durations() {
        for (text, ms) in [
            ("1h", Some(3_600_000)),
            ("1m30s", Some(90_000)),
            ("0.5s", Some(500)),
            ("1.2s", Some(1_200)),
            ("100ms", Some(100)),
            ("1500us", Some(1)),
            ("0s", Some(0)),
            ("0", Some(0)),
            ("", None),
            ("5", None),
            ("-1s", None),
            ("1x", None),
            ("1..2s", None),
            ("99999999999999999999s", None),
        ] {
            assert_eq!(duration_ms(text), ms, "{text}");
        }
    }
}
