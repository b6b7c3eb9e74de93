//! RFC 3339 times and Go durations as Kubernetes prints them.

const LAYOUT: &str = "2006-01-02T15:04:05Z07:00";

/// Seconds and nanoseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Instant {
    seconds: i64,
    nanos: u32,
}

/// `metav1.Time`: UTC, whole seconds (fractions are dropped).
///
/// # Errors
/// The text is not RFC 3339; worded as Go's `time.Parse` does.
pub fn canonical(text: &str) -> Result<String, String> {
    parse(text).map(|at| format(at.seconds)).ok_or_else(|| unreadable(text))
}

/// `metav1.MicroTime`: UTC with six digits of fraction.
///
/// # Errors
/// As [`canonical`].
pub fn canonical_micro(text: &str) -> Result<String, String> {
    parse(text).map(|at| format_micro(at.seconds, at.nanos)).ok_or_else(|| unreadable(text))
}

fn unreadable(text: &str) -> String {
    format!("parsing time {text:?} as {LAYOUT:?}: cannot parse {text:?} as \"2006\"")
}

/// Seconds since 1970 as `2006-01-02T15:04:05Z`.
pub fn format(seconds: i64) -> String {
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

/// The same with microseconds.
pub fn format_micro(seconds: i64, nanos: u32) -> String {
    let text = format(seconds);
    format!("{}.{:06}Z", text.trim_end_matches('Z'), nanos / 1000)
}

/// Seconds since 1970 of an RFC 3339 text.
pub fn seconds(text: &str) -> Option<i64> {
    parse(text).map(|at| at.seconds)
}

/// Seconds since 1970 and nanoseconds of an RFC 3339 text.
pub(crate) fn instant(text: &str) -> Option<(i64, u32)> {
    parse(text).map(|at| (at.seconds, at.nanos))
}

/// Year, month, day and day of the week (0: Sunday) of a second since 1970, in UTC.
pub(crate) fn date(seconds: i64) -> (i64, i64, i64, i64) {
    let days = seconds.div_euclid(86_400);
    let (year, month, day) = civil(days);
    (year, month, day, (days + 4).rem_euclid(7))
}

/// Gregorian date of a day counted from 1970-01-01. Eras of 400 years start in March, so that the leap day comes last.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let shifted_month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + day_of_year - 719_468
}

fn parse(text: &str) -> Option<Instant> {
    let bytes = text.as_bytes();
    let number = |from: usize, to: usize| -> Option<i64> {
        let part = bytes.get(from..to)?;
        part.iter().try_fold(0, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + i64::from(byte - b'0')))
    };
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    let shaped = marks.iter().all(|(at, mark)| bytes[*at] == *mark);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if !shaped || !(1..=12).contains(&month) || !(1..=length).contains(&day) || hour > 23 || minute > 59 || second > 59
    {
        return None;
    }
    let mut rest = &text[19..];
    let mut nanos = 0;
    if let Some(fraction) = rest.strip_prefix('.') {
        let end = fraction.find(|c: char| !c.is_ascii_digit()).unwrap_or(fraction.len());
        let digits: String = fraction[..end].chars().chain("000000000".chars()).take(9).collect();
        nanos = if end == 0 { return None } else { digits.parse().ok()? };
        rest = &fraction[end..];
    }
    let seconds = days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset(rest)?;
    Some(Instant { seconds, nanos })
}

fn offset(text: &str) -> Option<i64> {
    if text == "Z" {
        return Some(0);
    }
    let sign = match text.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, minutes) = text.get(1..)?.split_once(':')?;
    if hours.len() != 2 || minutes.len() != 2 {
        return None;
    }
    let (hours, minutes): (u8, u8) = (hours.parse().ok()?, minutes.parse().ok()?);
    (hours < 24 && minutes < 60).then_some(sign * (i64::from(hours) * 3600 + i64::from(minutes) * 60))
}

/// Go's `Duration.String` of nanoseconds: `1h2m3.5s`, `150ms`, `0s`.
pub fn format_duration(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let total = nanos.unsigned_abs();
    if total == 0 {
        return "0s".to_owned();
    }
    if total < 1_000_000_000 {
        let (unit, size) = if total < 1000 {
            ("ns", 1)
        } else if total < 1_000_000 {
            ("µs", 1000)
        } else {
            ("ms", 1_000_000)
        };
        return format!("{sign}{}{unit}", fraction(total, size));
    }
    let (minutes, rest) = (total / 60_000_000_000, total % 60_000_000_000);
    let seconds = format!("{}s", fraction(rest, 1_000_000_000));
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{sign}{seconds}"),
        (0, minutes) => format!("{sign}{minutes}m{seconds}"),
        (hours, minutes) => format!("{sign}{hours}h{minutes}m{seconds}"),
    }
}

fn fraction(value: u64, unit: u64) -> String {
    let (whole, part) = (value / unit, value % unit);
    if part == 0 {
        return whole.to_string();
    }
    let width = unit.ilog10() as usize;
    format!("{whole}.{part:0width$}").trim_end_matches('0').to_owned()
}

/// Nanoseconds of Go's duration text.
pub fn parse_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut total: f64 = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        total += number * unit;
        rest = &rest[end..];
    }
    let nanos = total.round();
    (nanos < 9.2e18).then_some(if negative { -(nanos as i64) } else { nanos as i64 })
}

/// Canonical form of Go's duration text.
///
/// # Errors
/// The text is no duration; worded as Go words it.
pub fn canonical_duration(text: &str) -> Result<String, String> {
    parse_duration(text).map(format_duration).ok_or_else(|| format!("time: invalid duration {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_become_utc() {
        for (text, canonical_text) in [
            ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z"),
            ("2024-02-29T23:59:59.999Z", "2024-02-29T23:59:59Z"),
            ("2024-03-01T01:30:00+02:00", "2024-02-29T23:30:00Z"),
            ("1969-12-31T23:59:59Z", "1969-12-31T23:59:59Z"),
            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
            ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(canonical(text).as_deref(), Ok(canonical_text));
        }
        assert_eq!(canonical_micro("2024-01-02T03:04:05.1234567Z").unwrap(), "2024-01-02T03:04:05.123456Z");
        for text in [
            "",
            "x",
            "2024-02-30T00:00:00Z",
            "2024-01-01 00:00:00Z",
            "2024-01-01T24:00:00Z",
            "2024-01-01T00:00:00",
            "2024-01-01T00:00:00.Z",
            "é024-01-01T00:00:00Z",
            "2024-01-01T00:00:00+1:00",
        ] {
            assert!(canonical(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_read_as_go_prints_them() {
        for (text, canonical) in [
            ("0", "0s"),
            ("90s", "1m30s"),
            ("1.5h", "1h30m0s"),
            ("150ms", "150ms"),
            ("1500ms", "1.5s"),
            ("-2m", "-2m0s"),
            ("1h1m1.001s", "1h1m1.001s"),
            ("10us", "10µs"),
            ("1ns", "1ns"),
        ] {
            assert_eq!(canonical_duration(text).as_deref(), Ok(canonical), "{text}");
        }
        for text in ["", "1", "s", "1x", "1h 2m", "-", "1e3s"] {
            assert!(canonical_duration(text).is_err(), "{text}");
        }
    }
}
