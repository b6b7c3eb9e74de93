//! RFC 3339 texts as the Kubernetes API writes them.

use model::Timestamp;

/// `2006-01-02T15:04:05Z` (metav1.Time).
pub fn seconds(at: Timestamp) -> String {
    format(at, false)
}

/// `2006-01-02T15:04:05.000000Z` (metav1.MicroTime).
pub fn micros(at: Timestamp) -> String {
    format(at, true)
}

fn format(at: Timestamp, micros: bool) -> String {
    let (days, second_of_day) = (at.secs().div_euclid(86_400), at.secs().rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second_of_day / 3600, second_of_day / 60 % 60, second_of_day % 60);
    let date = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    if micros { format!("{date}.{:06}Z", at.0.rem_euclid(1_000_000)) } else { format!("{date}Z") }
}

/// Reads an RFC 3339 time with any offset and any number of fraction digits.
pub fn parse(text: &str) -> Option<Timestamp> {
    let at: jiff::Timestamp = text.parse().ok()?;
    Some(Timestamp(at.as_microsecond()))
}

/// Days since the epoch to year, month, day (Hinnant's civil_from_days).
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips() {
        for secs in [0, 951_782_400, 1_700_000_000, 4_102_444_799, -1] {
            let at = Timestamp::from_secs(secs);
            assert_eq!(parse(&seconds(at)), Some(at), "{secs}");
        }
        assert_eq!(seconds(Timestamp::from_secs(951_782_400)), "2000-02-29T00:00:00Z");
        let micro = Timestamp(1_700_000_000_123_456);
        assert_eq!(micros(micro), "2023-11-14T22:13:20.123456Z");
        assert_eq!(parse("2023-11-14T23:13:20.123456+01:00"), Some(micro));
        assert_eq!(parse("yesterday"), None);
    }
}
