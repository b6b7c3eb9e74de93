//! Heads of requests and responses, the same for HTTP/1.1 and (filled in from pseudo-headers) for HTTP/2.
use crate::fields::{Fields, Span};
use std::borrow::Cow;

/// Which HTTP/1 was spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0: connections close unless asked otherwise; no chunks.
    Http10,
    /// HTTP/1.1.
    #[default]
    Http11,
}

/// How the end of a body is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    #[default]
    Empty,
    /// So many bytes.
    Length(u64),
    /// Chunks, perhaps with trailers.
    Chunked,
    /// Until the connection ends (responses only).
    Close,
}

/// A protocol switch that a request asks for or a `101` grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upgrade(pub(crate) Span);

/// A request without its body. Reused from request to request: [`RequestHead::clear`] keeps the memory.
#[derive(Clone, Debug, Default)]
pub struct RequestHead {
    /// End-to-end fields (`Host` and hop-by-hop ones are not among them).
    pub fields: Fields,
    pub(crate) method: Span,
    pub(crate) target: Span,
    pub(crate) authority: Span,
    /// What the sender speaks.
    pub version: Version,
    /// How the body ends.
    pub framing: Framing,
    /// Whether the sender wants the connection kept.
    pub keep_alive: bool,
    /// Whether the sender waits for `100 Continue` before it sends the body.
    pub expect_continue: bool,
    /// Whether the sender reads trailers.
    pub te_trailers: bool,
    pub(crate) upgrade: Option<Upgrade>,
}

impl RequestHead {
    /// A request to be filled with fields, e.g. from HTTP/2 pseudo-headers. The parts must be valid already.
    pub fn new(method: &str, target: &str, authority: &str) -> Self {
        let mut head = Self { keep_alive: true, ..Self::default() };
        head.method = head.fields.store(method.as_bytes());
        head.set_target(target);
        head.set_authority(authority);
        head
    }

    /// Forgets everything but the memory.
    pub fn clear(&mut self) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        *self = Self { fields, ..Self::default() };
    }

    /// The method, letters as sent.
    pub fn method(&self) -> &str {
        self.text(self.method)
    }

    /// Path and query, `*`, or for `CONNECT` the authority.
    pub fn target(&self) -> &str {
        self.text(self.target)
    }

    /// The path without its query.
    pub fn path(&self) -> &str {
        self.target().split('?').next().unwrap_or_default()
    }

    /// The query without its question mark.
    pub fn query(&self) -> Option<&str> {
        self.target().split_once('?').map(|(_, query)| query)
    }

    /// Host and port as sent; empty only for HTTP/1.0.
    pub fn authority(&self) -> &str {
        self.text(self.authority)
    }

    /// What stands under a name that is not among the fields because the codec reads and writes it itself, as the next hop is told it: `host`
    /// (the same as `:authority`), `:method`, `:path`, `content-length`, `te`, and `upgrade` and `connection` of a switch. What is a matter
    /// between the sender and us alone (`expect`, `connection` otherwise) is not there.
    pub fn read_here(&self, name: &str) -> Option<Cow<'_, str>> {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        let text = match name.len() {
            2 if is("te") => self.te_trailers.then_some("trailers")?,
            4 if is("host") => return self.read_here(":authority"),
            5 if is(":path") => self.target(),
            7 if is("upgrade") => self.upgrade()?,
            7 if is(":method") => self.method(),
            10 if is("connection") => self.upgrade.map(|_| "upgrade")?,
            10 if is(":authority") => Some(self.authority()).filter(|named| !named.is_empty())?,
            14 if is("content-length") => return self.length().map(|length| length.to_string().into()),
            _ => return None,
        };
        Some(text.into())
    }

    /// The length that is announced with the body.
    fn length(&self) -> Option<u64> {
        match self.framing {
            Framing::Length(length) => Some(length),
            // A method that defines a body and has none says so; some servers answer 411 otherwise.
            Framing::Empty if matches!(self.method(), "POST" | "PUT" | "PATCH") => Some(0),
            _ => None,
        }
    }

    /// The protocol that the sender wants to switch to, e.g. `websocket`.
    pub fn upgrade(&self) -> Option<&str> {
        self.upgrade.map(|Upgrade(span)| self.text(span))
    }

    /// Asks for a switch to `protocol`, or for none.
    pub fn set_upgrade(&mut self, protocol: Option<&str>) {
        self.upgrade = protocol.map(|name| Upgrade(self.fields.store(name.as_bytes())));
    }

    /// Another method. Must hold no blank or control.
    pub fn set_method(&mut self, method: &str) {
        debug_assert!(!method.bytes().any(|byte| byte <= b' ' || byte == 0x7f));
        self.method = self.fields.store(method.as_bytes());
    }

    /// Another path and query. Must hold no blank or control (routes are validated when they are compiled).
    pub fn set_target(&mut self, target: &str) {
        debug_assert!(!target.bytes().any(|byte| byte <= b' ' || byte == 0x7f));
        self.target = self.fields.store(target.as_bytes());
    }

    /// Another host.
    pub fn set_authority(&mut self, authority: &str) {
        debug_assert!(!authority.bytes().any(|byte| byte <= b' ' || byte == 0x7f));
        self.authority = self.fields.store(authority.as_bytes());
    }

    /// Whether RFC 9110 says that doing it twice is the same as doing it once.
    pub fn is_idempotent(&self) -> bool {
        matches!(self.method(), "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE")
    }

    fn text(&self, span: Span) -> &str {
        std::str::from_utf8(span.of(&self.fields.text)).unwrap_or_default()
    }
}

/// A response without its body. Reused like [`RequestHead`].
#[derive(Clone, Debug, Default)]
pub struct ResponseHead {
    /// End-to-end fields.
    pub fields: Fields,
    /// 100 to 999.
    pub status: u16,
    pub(crate) reason: Span,
    /// What the sender speaks.
    pub version: Version,
    /// How the body ends.
    pub framing: Framing,
    /// The length that a response without body announces (to HEAD, or 304).
    pub announced_length: Option<u64>,
    /// Whether the connection may be used again.
    pub keep_alive: bool,
    pub(crate) upgrade: Option<Upgrade>,
}

impl ResponseHead {
    /// A response to be filled with fields.
    pub fn new(status: u16, framing: Framing) -> Self {
        Self { status, framing, keep_alive: true, ..Self::default() }
    }

    /// Forgets everything but the memory.
    pub fn clear(&mut self) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        *self = Self { fields, ..Self::default() };
    }

    /// The reason phrase as sent; HTTP/2 has none.
    pub fn reason(&self) -> &[u8] {
        self.reason.of(&self.fields.text)
    }

    /// The protocol that a `101` switches to.
    pub fn upgrade(&self) -> Option<&str> {
        self.upgrade.and_then(|Upgrade(span)| std::str::from_utf8(span.of(&self.fields.text)).ok())
    }

    /// Grants a switch to `protocol`.
    pub fn set_upgrade(&mut self, protocol: &str) {
        self.upgrade = Some(Upgrade(self.fields.store(protocol.as_bytes())));
    }

    /// Whether more heads follow for the same request.
    pub fn is_interim(&self) -> bool {
        (100..200).contains(&self.status) && self.status != 101
    }
}
