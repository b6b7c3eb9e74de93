//! The node's wall clock, and how times are written in objects.

use model::Timestamp;

/// Now.
pub fn now() -> Timestamp {
    Timestamp(jiff::Timestamp::now().as_microsecond())
}

/// `metav1.Time`: RFC 3339 in UTC with whole seconds.
pub fn rfc3339(at: Timestamp) -> String {
    jiff::Timestamp::from_second(at.secs()).unwrap_or_default().to_string()
}

/// `metav1.MicroTime`: RFC 3339 in UTC with microseconds.
pub fn rfc3339_micro(at: Timestamp) -> String {
    let at = jiff::Timestamp::from_microsecond(at.0).unwrap_or_default();
    format!("{at:.6}")
}

/// Reads RFC 3339.
pub fn parse(text: &str) -> Option<Timestamp> {
    text.parse::<jiff::Timestamp>().ok().map(|at| Timestamp(at.as_microsecond()))
}

/// From the nanoseconds that the runtime counts; `None` for 0, "not yet".
pub fn from_nanos(nanos: i64) -> Option<Timestamp> {
    (nanos > 0).then_some(Timestamp(nanos / 1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_kubernetes_writes_them() {
        let at = Timestamp(1_795_312_800_123_456);
        assert_eq!(rfc3339(at), "2026-11-22T02:00:00Z");
        assert_eq!(rfc3339_micro(at), "2026-11-22T02:00:00.123456Z");
        assert_eq!(parse("2026-11-22T03:00:00+01:00"), Some(Timestamp::from_secs(1_795_312_800)));
        assert_eq!(parse("soon"), None);
    }
}
