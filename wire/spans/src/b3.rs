//! B3 propagation (Zipkin's), as one header or as several.

use crate::hex;

/// The header that says it all.
pub const SINGLE: &str = "b3";
/// The headers that say it one by one.
pub const TRACE_ID: &str = "x-b3-traceid";
/// See [`TRACE_ID`].
pub const SPAN_ID: &str = "x-b3-spanid";
/// See [`TRACE_ID`].
pub const PARENT_SPAN_ID: &str = "x-b3-parentspanid";
/// See [`TRACE_ID`].
pub const SAMPLED: &str = "x-b3-sampled";
/// See [`TRACE_ID`].
pub const FLAGS: &str = "x-b3-flags";

/// What the headers say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct B3 {
    /// Not zero; 64 bits of it in old traces.
    pub trace_id: u128,
    /// The span that caused the request; not zero.
    pub span_id: u64,
    /// Whether it is recorded; none: whoever reads it decides.
    pub sampled: Option<bool>,
}

fn sampled(text: &str) -> Option<bool> {
    match text {
        "1" | "d" | "true" => Some(true),
        "0" | "false" => Some(false),
        _ => None,
    }
}

fn ids(trace: &str, span: &str) -> Option<(u128, u64)> {
    let sized = matches!(trace.len(), 16 | 32) && span.len() == 16;
    let (trace, span) = (hex::parse(trace)?, u64::try_from(hex::parse(span)?).ok()?);
    (sized && trace != 0 && span != 0).then_some((trace, span))
}

impl B3 {
    /// Reads `b3: TRACE-SPAN[-SAMPLED[-PARENT]]`. A bare decision (`b3: 0`) names no trace and is none.
    pub fn parse_single(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (trace_id, span_id) = ids(parts.next()?, parts.next()?)?;
        let sampled = parts.next().map(sampled);
        let parent = parts.next().map(|text| text.len() == 16 && hex::parse(text).is_some());
        (parts.next().is_none() && parent != Some(false)).then_some(B3 {
            trace_id,
            span_id,
            sampled: sampled.flatten(),
        })
    }

    /// Reads the several headers.
    pub fn parse_multi(trace: &str, span: &str, sampled_text: Option<&str>, flags: Option<&str>) -> Option<Self> {
        let (trace_id, span_id) = ids(trace, span)?;
        let sampled = if flags == Some("1") { Some(true) } else { sampled_text.and_then(sampled) };
        Some(B3 { trace_id, span_id, sampled })
    }

    /// As the one header.
    pub fn encode_single(&self) -> String {
        let decision = match self.sampled {
            Some(true) => "-1",
            Some(false) => "-0",
            None => "",
        };
        format!("{:032x}-{:016x}{decision}", self.trace_id, self.span_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_header() {
        let trace = "80f198ee56343ba864fe8b2a57d3eff7";
        for (text, sampled) in [
            (format!("{trace}-e457b5a2e4d86bd1-1-05e3ac9a4f6e3b90"), Some(true)),
            (format!("{trace}-e457b5a2e4d86bd1-d"), Some(true)),
            (format!("{trace}-e457b5a2e4d86bd1-0"), Some(false)),
            (format!("{trace}-e457b5a2e4d86bd1"), None),
        ] {
            let read = B3::parse_single(&text).unwrap();
            assert_eq!((read.sampled, read.span_id), (sampled, 0xe457_b5a2_e4d8_6bd1), "{text}");
            assert_eq!(B3::parse_single(&read.encode_single()), Some(read));
        }
        for text in ["", "0", "1", "x-y", "80f1-e457b5a2e4d86bd1", "80f198ee56343ba864fe8b2a57d3eff7-0000000000000000"]
        {
            assert_eq!(B3::parse_single(text), None, "{text}");
        }
    }

    #[test]
    fn several_headers() {
        let read = B3::parse_multi("463ac35c9f6413ad", "a2fb4a1d1a96d312", Some("0"), Some("1")).unwrap();
        assert_eq!((read.trace_id, read.sampled), (0x463a_c35c_9f64_13ad, Some(true)), "debug means sampled");
        assert_eq!(B3::parse_multi("463ac35c9f6413ad", "+2fb4a1d1a96d312", None, None), None);
    }
}
