//! Cron schedules: five fields, names, ranges, steps, macros, `@every`; in any time zone.

use jiff::civil::{Date, DateTime};
use jiff::tz::{AmbiguousOffset, TimeZone};
use model::Timestamp;
use std::fmt;

/// Why a text is no schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError(String);

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn error(text: impl Into<String>) -> ParseError {
    ParseError(text.into())
}

/// A schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// Bits of allowed values.
    Fields {
        /// 0-59.
        minutes: u64,
        /// 0-23.
        hours: u64,
        /// 1-31.
        days: u64,
        /// 1-12.
        months: u64,
        /// 0-6, Sunday first.
        weekdays: u64,
        /// Neither day field was `*`: then either suffices.
        either_day: bool,
    },
    /// `@every`: so many seconds apart.
    Every(i64),
}

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
/// A schedule that has no time within so many years (the 30th of February) never has one.
const YEARS: i16 = 5;

impl Schedule {
    /// Reads a schedule.
    ///
    /// # Errors
    /// A field is missing, too many, or out of range.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let text = text.trim();
        if let Some(every) = text.strip_prefix("@every ") {
            return Ok(Schedule::Every(duration(every)?.max(1)));
        }
        let text = match text {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            other => other,
        };
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields[..] else {
            return Err(error(format!("expected exactly 5 fields, found {}: [{text}]", fields.len())));
        };
        Ok(Schedule::Fields {
            minutes: field(minute, 0, 59, &[])?,
            hours: field(hour, 0, 23, &[])?,
            days: field(day, 1, 31, &[])?,
            months: field(month, 1, 12, &MONTHS)?,
            weekdays: field(weekday, 0, 6, &WEEKDAYS)?,
            either_day: !is_star(day) && !is_star(weekday),
        })
    }

    /// The first time after `after`; None: never.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        if let Schedule::Every(seconds) = self {
            return Some(Timestamp::from_secs(after.secs() + seconds));
        }
        let start = jiff::Timestamp::from_second(after.secs()).ok()?;
        let local = zone.to_datetime(start);
        let mut at =
            DateTime::from_parts(local.date(), jiff::civil::Time::new(local.hour(), local.minute(), 0, 0).ok()?);
        let last_year = local.year().checked_add(YEARS)?;
        loop {
            at = self.next_local(at, last_year)?;
            let ambiguous = zone.to_ambiguous_timestamp(at);
            // A time that the clock jumps over does not happen; one that it repeats happens the first time.
            if matches!(ambiguous.offset(), AmbiguousOffset::Gap { .. }) {
                continue;
            }
            let found = Timestamp::from_secs(ambiguous.earlier().ok()?.as_second());
            if found > after {
                return Some(found);
            }
        }
    }

    /// The next minute after `at` whose fields are all allowed.
    fn next_local(&self, at: DateTime, last_year: i16) -> Option<DateTime> {
        let Schedule::Fields { minutes, hours, .. } = self else { return None };
        let mut date = at.date();
        let mut from = Some((at.hour(), at.minute() + 1));
        while date.year() <= last_year {
            if self.allows(date) {
                let (first_hour, first_minute) = from.unwrap_or((0, 0));
                for hour in first_hour..24 {
                    if hours >> hour & 1 == 0 {
                        continue;
                    }
                    let start = if hour == first_hour { first_minute } else { 0 };
                    if let Some(minute) = (start..60).find(|minute| minutes >> minute & 1 == 1) {
                        return Some(date.at(hour, minute, 0, 0));
                    }
                }
            }
            from = None;
            date = date.tomorrow().ok()?;
        }
        None
    }

    fn allows(&self, date: Date) -> bool {
        let Schedule::Fields { days, months, weekdays, either_day, .. } = self else { return false };
        let day = days >> date.day() & 1 == 1;
        let weekday = weekdays >> date.weekday().to_sunday_zero_offset() & 1 == 1;
        months >> date.month() & 1 == 1 && if *either_day { day || weekday } else { day && weekday }
    }
}

fn is_star(field: &str) -> bool {
    field.split(',').any(|part| part.starts_with(['*', '?']))
}

/// Bits of one field.
fn field(text: &str, min: u32, max: u32, names: &[&str]) -> Result<u64, ParseError> {
    let mut bits = 0;
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => {
                (range, Some(step.parse::<u32>().map_err(|_| error(format!("failed to parse int from {step}")))?))
            }
            None => (part, None),
        };
        let (first, last) = match range {
            "*" | "?" => (min, max),
            _ => match range.split_once('-') {
                Some((first, last)) => (value(first, min, names)?, value(last, min, names)?),
                None => {
                    let first = value(range, min, names)?;
                    // `5/15` runs from 5 to the end.
                    (first, if step.is_some() { max } else { first })
                }
            },
        };
        // Sunday is 0 and 7.
        let max = if names.len() == 7 { 7 } else { max };
        if first < min || last > max || first > last {
            return Err(error(format!("value out of range ({min} - {max}): {part}")));
        }
        let step = step.unwrap_or(1);
        if step == 0 {
            return Err(error(format!("step of range should be a positive number: {part}")));
        }
        for value in (first..=last).step_by(step as usize) {
            bits |= 1u64 << if names.len() == 7 { value % 7 } else { value };
        }
    }
    Ok(bits)
}

fn value(text: &str, min: u32, names: &[&str]) -> Result<u32, ParseError> {
    let lower = text.to_ascii_lowercase();
    if let Some(index) = names.iter().position(|name| *name == lower) {
        return Ok(index as u32 + min);
    }
    text.parse().map_err(|_| error(format!("failed to parse int from {text}")))
}

/// Seconds of a Go duration: `1h30m`, `90s`.
fn duration(text: &str) -> Result<i64, ParseError> {
    let wrong = || error(format!("failed to parse duration {text}"));
    let (mut total, mut number) = (0i64, String::new());
    for c in text.trim().chars() {
        if c.is_ascii_digit() {
            number.push(c);
            continue;
        }
        let unit = match c {
            'h' => 3600,
            'm' => 60,
            's' => 1,
            _ => return Err(wrong()),
        };
        let amount: i64 = number.parse().map_err(|_| wrong())?;
        total = amount.checked_mul(unit).and_then(|seconds| total.checked_add(seconds)).ok_or_else(wrong)?;
        number.clear();
    }
    if number.is_empty() && total > 0 { Ok(total) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp(text.parse::<jiff::Timestamp>().unwrap().as_microsecond())
    }

    fn check(schedule: &str, zone: &str, after: &str, expect: &str) {
        let zone = TimeZone::get(zone).unwrap();
        let got = Schedule::parse(schedule).unwrap().next(at(after), &zone);
        assert_eq!(got, Some(at(expect)), "{schedule} after {after}");
    }

    #[test]
    fn next_times() {
        check("* * * * *", "UTC", "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z");
        check("*/15 * * * *", "UTC", "2026-01-01T00:15:01Z", "2026-01-01T00:30:00Z");
        check("0 0 1 1 *", "UTC", "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z");
        check("30 4 1,15 * 5", "UTC", "2026-01-01T05:00:00Z", "2026-01-02T04:30:00Z");
        check("0 12 * * MON-FRI", "UTC", "2026-01-02T13:00:00Z", "2026-01-05T12:00:00Z");
        check("0 0 29 2 *", "UTC", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z");
        check("5/20 * * * *", "UTC", "2026-01-01T00:06:00Z", "2026-01-01T00:25:00Z");
        check("0 0 * * 7", "UTC", "2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z");
        check("@hourly", "UTC", "2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z");
        check("@every 1h30m", "UTC", "2026-01-01T00:00:00Z", "2026-01-01T01:30:00Z");
        check("0 9 * * *", "Asia/Tokyo", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
    }

    #[test]
    fn a_time_that_the_clock_jumps_over_does_not_happen() {
        check("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-30T00:30:00Z");
        check("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", "2026-10-25T00:30:00Z");
    }

    #[test]
    fn what_is_no_schedule() {
        for text in [
            "",
            "* * * *",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * * 13 *",
            "*/0 * * * *",
            "5-3 * * * *",
            "x * * * *",
            "@every x",
            "@never",
        ] {
            assert!(Schedule::parse(text).is_err(), "{text}");
        }
        let never = Schedule::parse("0 0 30 2 *").unwrap();
        assert_eq!(never.next(at("2026-01-01T00:00:00Z"), &TimeZone::UTC), None);
    }
}
