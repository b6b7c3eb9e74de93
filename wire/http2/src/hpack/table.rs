//! The tables of RFC 7541: the static one (appendix A), and what one end has told the other.
use std::collections::VecDeque;

/// Entries of the static table, the first of which has index 1.
#[rustfmt::skip]
pub const STATIC: [(&str, &str); 61] = [
    (":authority", ""), (":method", "GET"), (":method", "POST"), (":path", "/"), (":path", "/index.html"),
    (":scheme", "http"), (":scheme", "https"), (":status", "200"), (":status", "204"), (":status", "206"),
    (":status", "304"), (":status", "400"), (":status", "404"), (":status", "500"), ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"), ("accept-language", ""), ("accept-ranges", ""), ("accept", ""),
    ("access-control-allow-origin", ""), ("age", ""), ("allow", ""), ("authorization", ""), ("cache-control", ""),
    ("content-disposition", ""), ("content-encoding", ""), ("content-language", ""), ("content-length", ""),
    ("content-location", ""), ("content-range", ""), ("content-type", ""), ("cookie", ""), ("date", ""), ("etag", ""),
    ("expect", ""), ("expires", ""), ("from", ""), ("host", ""), ("if-match", ""), ("if-modified-since", ""),
    ("if-none-match", ""), ("if-range", ""), ("if-unmodified-since", ""), ("last-modified", ""), ("link", ""),
    ("location", ""), ("max-forwards", ""), ("proxy-authenticate", ""), ("proxy-authorization", ""), ("range", ""),
    ("referer", ""), ("refresh", ""), ("retry-after", ""), ("server", ""), ("set-cookie", ""),
    ("strict-transport-security", ""), ("transfer-encoding", ""), ("user-agent", ""), ("vary", ""), ("via", ""),
    ("www-authenticate", ""),
];

/// What an entry costs besides its text (RFC 7541, 4.1).
pub const ENTRY_BYTES: usize = 32;
/// What a table may hold unless something else is agreed on (RFC 9113, 6.5.2).
pub const TABLE_BYTES: usize = 4096;

/// Name and value in one text.
#[derive(Debug)]
struct Entry {
    text: Box<[u8]>,
    name: usize,
    hash: u32,
}

impl Entry {
    fn bytes(&self) -> usize {
        self.text.len() + ENTRY_BYTES
    }
}

/// What was told, newest first, up to a size: the oldest makes room.
#[derive(Debug)]
pub struct Table {
    entries: VecDeque<Entry>,
    bytes: usize,
    most: usize,
}

impl Default for Table {
    fn default() -> Self {
        Self { entries: VecDeque::new(), bytes: 0, most: TABLE_BYTES }
    }
}

impl Table {
    /// Name and value at an index of both tables together.
    pub fn get(&self, index: usize) -> Option<(&[u8], &[u8])> {
        if let Some((name, value)) = STATIC.get(index.checked_sub(1)?) {
            return Some((name.as_bytes(), value.as_bytes()));
        }
        let entry = self.entries.get(index - 1 - STATIC.len())?;
        Some(entry.text.split_at(entry.name))
    }

    /// The index of a field that was told, by its hash and itself.
    pub fn find(&self, hash: u32, name: &[u8], value: &[u8]) -> Option<usize> {
        let is_it = |entry: &Entry| entry.hash == hash && entry.text.split_at(entry.name) == (name, value);
        self.entries.iter().position(is_it).map(|place| place + 1 + STATIC.len())
    }

    /// Another size.
    pub fn resize(&mut self, most: usize) {
        self.most = most;
        self.evict();
    }

    /// Adds a field, whose name is the first `name` bytes of `text`. One that is larger than the table empties it (RFC 7541, 4.4).
    pub fn insert(&mut self, text: &[u8], name: usize, hash: u32) {
        self.bytes += text.len() + ENTRY_BYTES;
        if text.len() + ENTRY_BYTES > self.most {
            self.entries.clear();
            self.bytes = 0;
            return;
        }
        self.evict();
        self.entries.push_front(Entry { text: text.into(), name, hash });
    }

    fn evict(&mut self) {
        while self.bytes > self.most
            && let Some(oldest) = self.entries.pop_back()
        {
            self.bytes -= oldest.bytes();
        }
    }

    /// Entries, and their bytes.
    #[cfg(test)]
    pub fn size(&self) -> (usize, usize) {
        (self.entries.len(), self.entries.iter().map(Entry::bytes).sum())
    }
}
