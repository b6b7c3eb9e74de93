use bytes::Bytes;

/// The JSON text of an object with a gap where `metadata.resourceVersion`'s digits go: the store alone knows the revision, and only at
/// commit, but the object is encoded once, by the caller.
#[derive(Clone, Debug)]
pub struct Draft {
    text: Vec<u8>,
    gap: usize,
}

impl Draft {
    /// `prefix` ends with `"resourceVersion":"`, `suffix` begins with the closing quote.
    pub fn new(prefix: impl AsRef<[u8]>, suffix: impl AsRef<[u8]>) -> Self {
        let (prefix, suffix) = (prefix.as_ref(), suffix.as_ref());
        let mut text = Vec::with_capacity(prefix.len() + suffix.len());
        text.extend_from_slice(prefix);
        text.extend_from_slice(suffix);
        Draft { text, gap: prefix.len() }
    }

    /// Bytes without the revision's digits.
    pub fn len(&self) -> usize {
        self.text.len()
    }

    /// Whether there is no text at all (tests of the store itself use such drafts).
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// The object at `revision`, in an allocation of exactly its size.
    pub fn render(&self, revision: u64) -> Bytes {
        let mut digits = [0u8; 20];
        let digits = decimal(revision, &mut digits);
        let mut out = Vec::with_capacity(self.text.len() + digits.len());
        out.extend_from_slice(&self.text[..self.gap]);
        out.extend_from_slice(digits);
        out.extend_from_slice(&self.text[self.gap..]);
        Bytes::from(out.into_boxed_slice())
    }
}

fn decimal(mut number: u64, buffer: &mut [u8; 20]) -> &[u8] {
    let mut at = buffer.len();
    loop {
        at -= 1;
        buffer[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &buffer[at..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn puts_the_revision_into_the_gap() {
        let draft = Draft::new(r#"{"metadata":{"resourceVersion":""#, r#""}}"#);
        assert_eq!(&draft.render(0)[..], br#"{"metadata":{"resourceVersion":"0"}}"#);
        assert_eq!(&draft.render(u64::MAX)[..], br#"{"metadata":{"resourceVersion":"18446744073709551615"}}"#);
    }
}
