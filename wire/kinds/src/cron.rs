//! Whether a text is a cron schedule (the five standard fields, or a descriptor such as `@daily`).

/// Checks a schedule.
///
/// # Errors
/// What is wrong with it, as the cron parser that Kubernetes uses words it.
pub fn check(schedule: &str) -> Result<(), String> {
    let mut rest = schedule.trim();
    if let Some(zoned) = rest.strip_prefix("TZ=").or_else(|| rest.strip_prefix("CRON_TZ=")) {
        rest = zoned.split_once(' ').map_or("", |(_, after)| after.trim());
    }
    if let Some(descriptor) = rest.strip_prefix('@') {
        return check_descriptor(descriptor, rest);
    }
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let [minute, hour, day, month, weekday] = fields.as_slice() else {
        return Err(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
    };
    const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
    let number = |_: &str| None;
    check_field(minute, 0, 59, &number)?;
    check_field(hour, 0, 23, &number)?;
    check_field(day, 1, 31, &number)?;
    check_field(month, 1, 12, &|name| position(&MONTHS, name).map(|at| at + 1))?;
    check_field(weekday, 0, 6, &|name| position(&DAYS, name))
}

fn position(names: &[&str], name: &str) -> Option<u64> {
    names.iter().position(|known| known.eq_ignore_ascii_case(name)).map(|at| at as u64)
}

fn check_descriptor(descriptor: &str, whole: &str) -> Result<(), String> {
    if matches!(descriptor, "yearly" | "annually" | "monthly" | "weekly" | "daily" | "midnight" | "hourly") {
        return Ok(());
    }
    match descriptor.strip_prefix("every ") {
        Some(duration) if is_go_duration(duration) => Ok(()),
        Some(duration) => Err(format!("failed to parse duration {whole}: time: invalid duration {duration:?}")),
        None => Err(format!("unrecognized descriptor: {whole}")),
    }
}

/// `1h30m`, `1.5s`, `300ms`.
fn is_go_duration(text: &str) -> bool {
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return true;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let Some(unit) = ["ns", "us", "µs", "ms", "s", "m", "h"].iter().find(|unit| {
            after
                .strip_prefix(**unit)
                .is_some_and(|left| left.is_empty() || left.starts_with(|c: char| c.is_ascii_digit() || c == '.'))
        }) else {
            return false;
        };
        if number.parse::<f64>().is_err() {
            return false;
        }
        rest = &after[unit.len()..];
    }
    !text.is_empty()
}

fn check_field(field: &str, min: u64, max: u64, named: &dyn Fn(&str) -> Option<u64>) -> Result<(), String> {
    field.split(',').filter(|part| !part.is_empty()).try_for_each(|part| check_range(part, min, max, named))
}

fn check_range(expression: &str, min: u64, max: u64, named: &dyn Fn(&str) -> Option<u64>) -> Result<(), String> {
    let parse = |text: &str| -> Result<u64, String> {
        if let Some(number) = named(text) {
            return Ok(number);
        }
        if text.starts_with('-') && text[1..].parse::<u64>().is_ok() {
            return Err(format!("negative number ({text}) not allowed: {text}"));
        }
        text.parse()
            .map_err(|_| format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax"))
    };
    let parts: Vec<&str> = expression.split('/').collect();
    let ends: Vec<&str> = parts[0].split('-').collect();
    let (start, mut end) = match ends.as_slice() {
        ["*" | "?"] => (min, max),
        [one] => {
            let at = parse(one)?;
            (at, at)
        }
        ["*" | "?", _] => return Err(format!("too many hyphens: {expression}")),
        [from, to] => (parse(from)?, parse(to)?),
        _ => return Err(format!("too many hyphens: {expression}")),
    };
    match parts.as_slice() {
        [_] => {}
        [_, step] => {
            if parse(step)? == 0 {
                return Err(format!("step of range should be a positive number: {expression}"));
            }
            if ends.len() == 1 {
                end = max;
            }
        }
        _ => return Err(format!("too many slashes: {expression}")),
    }
    if start < min {
        return Err(format!("beginning of range ({start}) below minimum ({min}): {expression}"));
    }
    if end > max {
        return Err(format!("end of range ({end}) above maximum ({max}): {expression}"));
    }
    if start > end {
        return Err(format!("beginning of range ({start}) beyond end of range ({end}): {expression}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules() {
        for good in [
            "* * * * *",
            "*/5 0-6 1,15 jan-MAR mon",
            "0 0 ? * SUN",
            "5/15 * * * *",
            "@daily",
            "@every 1h30m",
            "TZ=UTC 0 0 * * *",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for (bad, expected) in [
            ("", "expected exactly 5 fields, found 0: []"),
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("61 * * * *", "end of range (61) above maximum (59): 61"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("x * * * *", "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("@never", "unrecognized descriptor: @never"),
        ] {
            assert_eq!(check(bad), Err(expected.to_owned()), "{bad}");
        }
    }
}
