use thiserror::Error;

/// What a log record did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// The object is new.
    Create,
    /// The object replaced an older version of itself.
    Update,
    /// The object went away; the value is its last state, for watchers.
    Delete,
}

/// A change as it lies in the log: all parts borrow from the frame.
///
/// Layout, little-endian: op u8, revision u64, resource length u16, namespace length u16, name length u16, value length u32, then the four texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordRef<'a> {
    /// What happened.
    pub op: Op,
    /// Global revision.
    pub revision: u64,
    /// `pods`, `apps/deployments`.
    pub resource: &'a str,
    /// Empty for cluster-scoped kinds.
    pub namespace: &'a str,
    /// `metadata.name`.
    pub name: &'a str,
    /// The object.
    pub value: &'a [u8],
}

/// A record inside a frame whose checksum is right does not parse: a defect of the writer, or another format.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("record at byte {at} of the frame: {what}")]
pub struct RecordError {
    /// Offset inside the frame's payload.
    pub at: usize,
    /// What is wrong.
    pub what: &'static str,
}

const HEADER: usize = 1 + 8 + 2 + 2 + 2 + 4;

impl<'a> RecordRef<'a> {
    /// Bytes that [`RecordRef::encode`] appends.
    pub fn encoded_len(&self) -> usize {
        HEADER + self.resource.len() + self.namespace.len() + self.name.len() + self.value.len()
    }

    /// Appends the record to `out`. Names are at most 65,535 bytes and values at most 4 GiB; admission's limits are far below.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let short = |text: &str| u16::try_from(text.len()).expect("admission limits names to 253 bytes").to_le_bytes();
        out.push(match self.op {
            Op::Create => 1,
            Op::Update => 2,
            Op::Delete => 3,
        });
        out.extend_from_slice(&self.revision.to_le_bytes());
        out.extend_from_slice(&short(self.resource));
        out.extend_from_slice(&short(self.namespace));
        out.extend_from_slice(&short(self.name));
        let value_len = u32::try_from(self.value.len()).expect("admission limits objects to a few MiB");
        out.extend_from_slice(&value_len.to_le_bytes());
        for part in [self.resource.as_bytes(), self.namespace.as_bytes(), self.name.as_bytes(), self.value] {
            out.extend_from_slice(part);
        }
    }

    /// The record at `at`, and where the next one begins.
    ///
    /// # Errors
    /// The payload ends inside the record, or has an unknown op or text that is not UTF-8.
    pub fn decode(payload: &'a [u8], at: usize) -> Result<(Self, usize), RecordError> {
        let bad = |what| RecordError { at, what };
        let head = payload.get(at..at + HEADER).ok_or(bad("cut short"))?;
        let op = match head[0] {
            1 => Op::Create,
            2 => Op::Update,
            3 => Op::Delete,
            _ => return Err(bad("unknown operation")),
        };
        let u16_at = |i: usize| usize::from(u16::from_le_bytes([head[i], head[i + 1]]));
        let revision = u64::from_le_bytes(head[1..9].try_into().expect("eight bytes"));
        let value_len = u32::from_le_bytes(head[15..19].try_into().expect("four bytes")) as usize;
        let mut cursor = at + HEADER;
        let mut take = |len: usize| {
            let part = payload.get(cursor..cursor.checked_add(len)?)?;
            cursor += len;
            Some(part)
        };
        let mut text = |len: usize| {
            let part = take(len).ok_or(bad("cut short"))?;
            std::str::from_utf8(part).map_err(|_| bad("name is not UTF-8"))
        };
        let (resource, namespace, name) = (text(u16_at(9))?, text(u16_at(11))?, text(u16_at(13))?);
        let value = take(value_len).ok_or(bad("cut short"))?;
        Ok((RecordRef { op, revision, resource, namespace, name, value }, cursor))
    }
}
