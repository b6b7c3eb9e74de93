//! The text that a runtime writes for a container's output: `TIME STREAM TAG CONTENT`, one record a line.
//!
//! `TIME` is RFC 3339 with nanoseconds, `STREAM` is `stdout` or `stderr`, `TAG` begins with `F` when the record ends a line of the
//! container's and `P` when the line goes on in the next record (the runtime cuts lines at 16 KiB).

/// One record, borrowed from its line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// RFC 3339, as written; compares as text only within one offset.
    pub time: &'a str,
    /// Whether it came from standard error.
    pub stderr: bool,
    /// Whether the container's own line ends here.
    pub ends_line: bool,
    /// What the container wrote, without the line feed.
    pub content: &'a [u8],
}

/// Reads one line (without its line feed); `None` when it is no record: the runtime died while writing it.
pub fn parse(line: &[u8]) -> Option<Record<'_>> {
    let (time, rest) = field(line)?;
    let (stream, rest) = field(rest)?;
    // A record of an empty line may end right after the tag.
    let (tag, content) = field(rest).unwrap_or((rest, &[]));
    let stderr = match stream {
        b"stdout" => false,
        b"stderr" => true,
        _ => return None,
    };
    let ends_line = match tag.first()? {
        b'F' => true,
        b'P' => false,
        _ => return None,
    };
    Some(Record { time: std::str::from_utf8(time).ok()?, stderr, ends_line, content })
}

fn field(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = bytes.iter().position(|b| *b == b' ')?;
    Some((&bytes[..space], &bytes[space + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_whole_and_partial_records() {
        let record = parse(b"2026-11-22T02:00:00.123456789+01:00 stderr F  two  spaces").unwrap();
        assert_eq!(record.time, "2026-11-22T02:00:00.123456789+01:00");
        assert!(record.stderr && record.ends_line);
        assert_eq!(record.content, b" two  spaces");
        assert!(!parse(b"2026-11-22T02:00:00Z stdout P x").unwrap().ends_line);
        assert_eq!(parse(b"2026-11-22T02:00:00Z stdout F ").unwrap().content, b"");
        assert_eq!(parse(b"2026-11-22T02:00:00Z stdout F").unwrap().content, b"");
    }

    #[test]
    fn a_torn_record_is_none() {
        for line in
            [&b""[..], b"2026", b"2026-11-22T02:00:00Z std", b"t stdin F x", b"t stdout Q x", b"\xff stdout F x"]
        {
            assert_eq!(parse(line), None, "{line:?}");
        }
    }
}
