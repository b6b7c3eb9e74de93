//! Header fields over one text buffer.

/// Where a piece of the text is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    at: u32,
    len: u32,
}

impl Span {
    pub(crate) fn new(at: usize, len: usize) -> Self {
        Self { at: at as u32, len: len as u32 }
    }

    pub(crate) fn of(self, text: &[u8]) -> &[u8] {
        // Spans are made only by this crate over texts below 4 GiB, and texts never shrink while spans live.
        text.get(self.at as usize..(self.at + self.len) as usize).unwrap_or_default()
    }
}

/// A name or value that cannot stand in a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a header name or value")]
pub struct FieldError;

/// Memory that is kept from head to head.
const KEPT_BYTES: usize = 8 * 1024;

/// Ordered end-to-end header fields. Names keep the letters they came with and are compared without regard to case.
#[derive(Clone, Debug, Default)]
pub struct Fields {
    pub(crate) text: Vec<u8>,
    pub(crate) entries: Vec<(Span, Span)>,
    /// Where the values begin that no table of HPACK may keep; nearly always none.
    #[expect(clippy::box_collection, reason = "hardly ever there: a pointer in each head, and nothing to look at")]
    sensitive: Option<Box<Vec<u32>>>,
}

impl Fields {
    /// Forgets everything but the memory, and of that what no usual head needs.
    pub fn clear(&mut self) {
        self.text.clear();
        self.text.shrink_to(KEPT_BYTES);
        self.entries.clear();
        self.sensitive = None;
    }

    /// Number of fields.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no field.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All fields in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.entries.iter().map(|(name, value)| (text(name.of(&self.text)), value.of(&self.text)))
    }

    /// The first value of `name`.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.get_all(name).next()
    }

    /// The first value of `name`, if it is text.
    pub fn get_str(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// All values of `name` in order.
    pub fn get_all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.entries
            .iter()
            .filter(move |(have, _)| have.of(&self.text).eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| value.of(&self.text))
    }

    /// Adds a field at the end.
    pub fn append(&mut self, name: &str, value: &[u8]) -> Result<(), FieldError> {
        if name.is_empty() || !name.bytes().all(is_token) || !value.iter().all(|byte| is_value(*byte)) {
            return Err(FieldError);
        }
        let entry = (self.store(name.as_bytes()), self.store(value.trim_ascii()));
        self.entries.push(entry);
        Ok(())
    }

    /// Adds a field of HTTP/2, whose name has small letters only, and whose value has no blank around it (RFC 9113, 8.2.1).
    pub fn append_lowercase(&mut self, name: &[u8], value: &[u8]) -> Result<(), FieldError> {
        let small = !name.is_empty() && name.iter().all(|byte| is_token(*byte) && !byte.is_ascii_uppercase());
        let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
        if !small || blank(value.first()) || blank(value.last()) || !value.iter().all(|byte| is_value(*byte)) {
            return Err(FieldError);
        }
        let entry = (self.store(name), self.store(value));
        self.entries.push(entry);
        Ok(())
    }

    /// The field that was added last must not be kept by compression on any hop (RFC 7541, 6.2.3, "never indexed").
    pub fn mark_sensitive(&mut self) {
        if let Some((_, value)) = self.entries.last() {
            self.sensitive.get_or_insert_default().push(value.at);
        }
    }

    /// Whether a field was marked so.
    pub fn has_sensitive(&self) -> bool {
        self.sensitive.is_some()
    }

    /// All fields in order, and whether they are marked so.
    pub fn iter_sensitive(&self) -> impl Iterator<Item = (&str, &[u8], bool)> {
        let sensitive = self.sensitive.as_ref().map_or(&[][..], |marks| marks.as_slice());
        self.iter().zip(&self.entries).map(|((name, value), (_, at))| (name, value, sensitive.contains(&at.at)))
    }

    /// Makes `value` the only value of `name`.
    pub fn set(&mut self, name: &str, value: &[u8]) -> Result<(), FieldError> {
        self.remove(name);
        self.append(name, value)
    }

    /// Removes every field of that name.
    pub fn remove(&mut self, name: &str) {
        let text = &self.text;
        self.entries.retain(|(have, _)| !have.of(text).eq_ignore_ascii_case(name.as_bytes()));
    }

    pub(crate) fn store(&mut self, bytes: &[u8]) -> Span {
        let span = Span::new(self.text.len(), bytes.len());
        self.text.extend_from_slice(bytes);
        span
    }
}

/// Names are tokens and therefore ASCII; anything else never gets into [`Fields`].
fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

/// By table: each byte of a name is looked at.
static TOKENS: [bool; 256] = {
    let (mut table, mut byte) = ([false; 256], 0);
    while byte < table.len() {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let others = b"!#$%&'*+-.^_`|~";
    let mut at = 0;
    while at < others.len() {
        table[others[at] as usize] = true;
        at += 1;
    }
    table
};

pub(crate) fn is_token(byte: u8) -> bool {
    TOKENS[usize::from(byte)]
}

pub(crate) fn is_value(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_compare_without_case_and_order_is_kept() {
        let mut fields = Fields::default();
        fields.append("X-A", b"1").unwrap();
        fields.append("b", b"2").unwrap();
        fields.append("x-a", b" 3 ").unwrap();
        assert_eq!(fields.get_all("x-A").collect::<Vec<_>>(), [b"1", b"3"]);
        fields.set("X-a", b"4").unwrap();
        assert_eq!(fields.iter().collect::<Vec<_>>(), [("b", &b"2"[..]), ("X-a", b"4")]);
    }

    #[test]
    fn fields_of_http_2_are_as_its_rules_say() {
        let mut fields = Fields::default();
        fields.append_lowercase(b"x-a", b"a b").unwrap();
        fields.append_lowercase(b"x-b", b"").unwrap();
        for (name, value) in
            [("X-A", "a"), ("", "a"), ("a b", "a"), ("a:", "a"), ("a", " a"), ("a", "a\t"), ("a", "\n")]
        {
            assert_eq!(fields.append_lowercase(name.as_bytes(), value.as_bytes()), Err(FieldError), "{name}: {value}");
        }
        assert_eq!(fields.iter().collect::<Vec<_>>(), [("x-a", &b"a b"[..]), ("x-b", b"")]);
    }

    #[test]
    fn a_mark_stays_with_its_field() {
        let mut fields = Fields::default();
        fields.append("a", b"").unwrap();
        fields.append_lowercase(b"key", b"secret").unwrap();
        fields.mark_sensitive();
        fields.append("b", b"").unwrap();
        fields.mark_sensitive();
        fields.append("c", b"1").unwrap();
        fields.remove("a");
        let marks: Vec<_> = fields.iter_sensitive().map(|(name, _, marked)| (name, marked)).collect();
        assert_eq!(marks, [("key", true), ("b", true), ("c", false)]);
        fields.set("key", b"told").unwrap();
        assert!(fields.iter_sensitive().all(|(name, _, marked)| marked == (name == "b")), "another value is not meant");
        fields.clear();
        assert!(!fields.has_sensitive());
    }

    #[test]
    fn a_filter_cannot_split_a_header() {
        let mut fields = Fields::default();
        for (name, value) in [("a", &b"1\r\nb: 2"[..]), ("a\r", b""), ("", b""), ("a b", b""), ("a", b"\0")] {
            assert_eq!(fields.append(name, value), Err(FieldError));
        }
        assert!(fields.is_empty());
    }
}
