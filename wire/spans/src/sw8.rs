//! `sw8`: SkyWalking's cross-process propagation header, version 3 of its protocol.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Name of the header.
pub const HEADER: &str = "sw8";
/// Longer values are refused: an endpoint's name is a path, and paths end somewhere.
pub const MAX_BYTES: usize = 8 << 10;

/// What the header says: `SAMPLE-TRACE-SEGMENT-SPAN-SERVICE-INSTANCE-ENDPOINT-TARGET`, texts in Base64.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sw8 {
    /// Whether the trace is recorded.
    pub sample: bool,
    /// Trace.
    pub trace_id: String,
    /// Segment of the caller.
    pub segment_id: String,
    /// Span in it.
    pub span_id: u32,
    /// Service of the caller.
    pub service: String,
    /// Instance of it.
    pub instance: String,
    /// What its own caller asked of it.
    pub endpoint: String,
    /// The address that the caller called.
    pub target: String,
}

fn text(part: &str) -> Option<String> {
    String::from_utf8(STANDARD.decode(part).ok()?).ok()
}

impl Sw8 {
    /// Reads a header. None: it is not one, and the trace begins here.
    pub fn parse(value: &[u8]) -> Option<Self> {
        if value.len() > MAX_BYTES {
            return None;
        }
        let mut parts = std::str::from_utf8(value).ok()?.split('-');
        let mut next = || parts.next();
        let sample = match next()? {
            "0" => false,
            "1" => true,
            _ => return None,
        };
        let (trace_id, segment_id) = (text(next()?)?, text(next()?)?);
        let span = next()?;
        let span_id = span.bytes().all(|byte| byte.is_ascii_digit()).then(|| span.parse().ok()).flatten()?;
        let (service, instance) = (text(next()?)?, text(next()?)?);
        let (endpoint, target) = (text(next()?)?, text(next()?)?);
        let whole = next().is_none() && !trace_id.is_empty() && !segment_id.is_empty() && !service.is_empty();
        whole.then_some(Sw8 { sample, trace_id, segment_id, span_id, service, instance, endpoint, target })
    }

    /// As it stands in the header.
    pub fn encode(&self) -> String {
        let mut out = String::with_capacity(256);
        out.push(if self.sample { '1' } else { '0' });
        for (at, part) in
            [&self.trace_id, &self.segment_id, "", &self.service, &self.instance, &self.endpoint, &self.target]
                .into_iter()
                .enumerate()
        {
            out.push('-');
            match at {
                2 => out.push_str(&self.span_id.to_string()),
                _ => STANDARD.encode_string(part, &mut out),
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The example of the protocol's own document.
    const EXAMPLE: &str = "1-TRACEID-SEGMENTID-3-PARENT_SERVICE-PARENT_INSTANCE-PARENT_ENDPOINT-IPPORT";

    fn example() -> String {
        EXAMPLE
            .split('-')
            .map(|part| if part.parse::<u8>().is_ok() { part.to_owned() } else { STANDARD.encode(part) })
            .collect::<Vec<_>>()
            .join("-")
    }

    #[test]
    fn the_protocols_example() {
        let read = Sw8::parse(example().as_bytes()).unwrap();
        assert_eq!((read.sample, read.span_id), (true, 3));
        assert_eq!((&*read.service, &*read.endpoint, &*read.target), ("PARENT_SERVICE", "PARENT_ENDPOINT", "IPPORT"));
        assert_eq!(read.encode(), example());
    }

    #[test]
    fn refused() {
        let good = example();
        for bad in [
            "".to_owned(),
            "1".into(),
            good.replacen('1', "2", 1),
            format!("{good}-"),
            good.replace("-3-", "-+3-"),
            good.replace("-3-", "-99999999999-"),
            good.replace("-3-", "--"),
            good.replacen("1-", "1--", 1),
            good.rsplit_once('-').unwrap().0.to_owned(),
            format!("1-{}", "A".repeat(MAX_BYTES)),
        ] {
            assert_eq!(Sw8::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(sample: bool, texts in proptest::array::uniform6(".{1,40}"), span_id: u32) {
            let [trace_id, segment_id, service, instance, endpoint, target] = texts;
            let wrote = Sw8 { sample, trace_id, segment_id, span_id, service, instance, endpoint, target };
            prop_assert_eq!(Sw8::parse(wrote.encode().as_bytes()), Some(wrote));
        }

        #[test]
        fn any_bytes_are_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Sw8::parse(&bytes);
        }

        #[test]
        fn a_damaged_header_is_refused_or_still_whole(at in 0usize..200, byte: u8, cut in 0usize..200) {
            let mut bytes = example().into_bytes();
            let at = at % bytes.len();
            bytes[at] = byte;
            bytes.truncate(bytes.len() - cut % bytes.len());
            if let Some(read) = Sw8::parse(&bytes) {
                prop_assert!(!read.trace_id.is_empty() && !read.service.is_empty());
                prop_assert_eq!(Sw8::parse(read.encode().as_bytes()), Some(read));
            }
        }
    }
}
