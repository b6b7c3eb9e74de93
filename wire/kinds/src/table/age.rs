//! Durations for people (apimachinery `duration.HumanDuration`).

use crate::json::text;
use model::Timestamp;
use serde_json::Value;

/// Two to three significant figures: `59s`, `2m5s`, `3h`, `7d2h`, `2y30d`. `ms` may be slightly negative, clocks differ.
pub fn human_duration(ms: i64) -> String {
    let seconds = ms / 1000;
    if seconds < -1 {
        return "<invalid>".to_owned();
    }
    if seconds < 0 {
        return "0s".to_owned();
    }
    if seconds < 120 {
        return format!("{seconds}s");
    }
    let two = |big: i64, unit: &str, small: i64, small_unit: &str| {
        if small == 0 { format!("{big}{unit}") } else { format!("{big}{unit}{small}{small_unit}") }
    };
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let days = hours / 24;
    match () {
        () if minutes < 10 => two(minutes, "m", seconds % 60, "s"),
        () if minutes < 180 => format!("{minutes}m"),
        () if hours < 8 => two(hours, "h", minutes % 60, "m"),
        () if hours < 48 => format!("{hours}h"),
        () if hours < 24 * 8 => two(days, "d", hours % 24, "h"),
        () if hours < 24 * 365 * 2 => format!("{days}d"),
        () if hours < 24 * 365 * 8 => two(days / 365, "y", days % 365, "d"),
        () => format!("{}y", days / 365),
    }
}

/// How long ago the RFC 3339 time in `value` was; `<unknown>` when there is none.
pub fn since(value: &Value, now: Timestamp) -> String {
    match crate::time::parse(text(value)) {
        Some(at) => human_duration(now.since_ms(at)),
        None => "<unknown>".to_owned(),
    }
}

/// The age cell.
pub fn age(object: &Value, now: Timestamp) -> Value {
    Value::from(since(&object["metadata"]["creationTimestamp"], now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_apimachinery_prints() {
        const M: i64 = 60;
        const H: i64 = 3600;
        const D: i64 = 86_400;
        for (seconds, expected) in [
            (-2, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (1, "1s"),
            (70, "70s"),
            (119, "119s"),
            (2 * M, "2m"),
            (4 * M + 10, "4m10s"),
            (10 * M + 59, "10m"),
            (3 * H - 1, "179m"),
            (3 * H, "3h"),
            (3 * H + 5 * M, "3h5m"),
            (8 * H, "8h"),
            (47 * H, "47h"),
            (2 * D, "2d"),
            (3 * D + 4 * H, "3d4h"),
            (8 * D, "8d"),
            (500 * D, "500d"),
            (2 * 365 * D, "2y"),
            (2 * 365 * D + 10 * D, "2y10d"),
            (9 * 365 * D, "9y"),
        ] {
            assert_eq!(human_duration(seconds * 1000), expected, "{seconds}");
        }
    }
}
