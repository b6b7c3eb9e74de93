//! Bytes -> heads. httparse finds the tokens; everything that HTTP leaves open is closed here.
use crate::error::HeadError;
use crate::fields::Span;
use crate::head::{Framing, RequestHead, ResponseHead, Upgrade, Version};
use httparse::{Header, Status};
use std::mem::MaybeUninit;
use std::net::Ipv6Addr;

/// More fields than any real message has; each costs 32 bytes of stack while parsing.
const MAX_FIELDS: usize = 128;

/// What a sender may spend on a head.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of the whole head.
    pub head_bytes: usize,
    /// Bytes of the request target.
    pub target_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { head_bytes: 64 * 1024, target_bytes: 16 * 1024 }
    }
}

/// What must be known of a request to find the end of its response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RequestKind {
    /// `HEAD`: no response has a body.
    Head,
    /// Anything else. (`CONNECT` is never sent in HTTP/1 by this proxy.)
    #[default]
    Other,
}

/// Reads one request head off the front of `buffer` into `head`. `Ok(None)`: more bytes are needed. `Ok(Some(n))`: the head
/// was the first `n` bytes. `head` is meaningless unless that.
pub fn parse_request(buffer: &[u8], limits: Limits, head: &mut RequestHead) -> Result<Option<usize>, HeadError> {
    head.clear();
    let Some(skipped) = skip_empty_line(buffer)? else { return Ok(None) };
    let bytes = &buffer[skipped..];
    let mut storage = [const { MaybeUninit::<Header<'_>>::uninit() }; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut []);
    let length = match request.parse_with_uninit_headers(bytes, &mut storage) {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) => return partial(bytes, limits),
        Err(error) => return Err(refusal(error, bytes)),
    };
    if length > limits.head_bytes {
        return Err(HeadError::TooLarge);
    }
    if !method_is_sound(request.method.unwrap_or_default()) {
        return Err(HeadError::Malformed("method"));
    }
    let target = request.path.unwrap_or_default();
    if target.len() > limits.target_bytes {
        return Err(HeadError::TargetTooLong);
    }
    let block = &bytes[..length];
    check_line_ends(block, request.headers)?;
    head.version = version(request.version);
    head.fields.text.extend_from_slice(block);
    head.method = span_in(block, request.method.unwrap_or_default().as_bytes());
    let mut hops = Hops::default();
    for header in request.headers.iter() {
        let value = span_in(block, header.value);
        match Known::of(header.name) {
            Known::Other => head.fields.entries.push((span_in(block, header.name.as_bytes()), value)),
            known => hops.note(known, value, header.value)?,
        }
    }
    finish_target(head, target, block, hops.host)?;
    head.keep_alive = hops.keep_alive(head.version);
    head.framing = match (hops.chunked, hops.length) {
        (true, _) if head.version == Version::Http10 => return Err(HeadError::UnknownCoding),
        (true, Some(_)) => return Err(HeadError::TwoFramings),
        (true, None) => Framing::Chunked,
        (false, Some(0) | None) => Framing::Empty,
        (false, Some(length)) => Framing::Length(length),
    };
    head.expect_continue = hops.expect && head.version == Version::Http11 && head.framing != Framing::Empty;
    head.te_trailers = hops.te_trailers;
    head.upgrade = hops.upgrade(head.version);
    // The switch to h2c would be made with a hop that does not see it: the classic way around a proxy's rules.
    if head.upgrade().is_some_and(|protocol| protocol.eq_ignore_ascii_case("h2c")) {
        head.upgrade = None;
    }
    for name in hops.nominated(block) {
        head.fields.remove(name);
    }
    Ok(Some(skipped + length))
}

/// Reads one response head; the answer is as in [`parse_request`].
pub fn parse_response(
    buffer: &[u8],
    limits: Limits,
    kind: RequestKind,
    head: &mut ResponseHead,
) -> Result<Option<usize>, HeadError> {
    head.clear();
    let mut storage = [const { MaybeUninit::<Header<'_>>::uninit() }; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let length = match config.parse_response_with_uninit_headers(&mut response, buffer, &mut storage) {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) => return partial(buffer, limits),
        Err(error) => return Err(refusal(error, buffer)),
    };
    if length > limits.head_bytes {
        return Err(HeadError::TooLarge);
    }
    let block = &buffer[..length];
    if !block.starts_with(b"HTTP/") {
        return Err(HeadError::Malformed("status line"));
    }
    check_line_ends(block, response.headers)?;
    head.version = version(response.version);
    head.status = response.code.unwrap_or_default();
    if head.status < 100 {
        return Err(HeadError::Malformed("status"));
    }
    head.fields.text.extend_from_slice(block);
    head.reason = span_in(block, response.reason.unwrap_or_default().as_bytes());
    let mut hops = Hops::default();
    for header in response.headers.iter() {
        let value = span_in(block, header.value);
        match Known::of(header.name) {
            Known::Other | Known::Host | Known::Expect | Known::Te => {
                head.fields.entries.push((span_in(block, header.name.as_bytes()), value));
            }
            known => hops.note(known, value, header.value)?,
        }
    }
    head.keep_alive = hops.keep_alive(head.version);
    if hops.chunked && head.version == Version::Http10 {
        return Err(HeadError::UnknownCoding);
    }
    if hops.chunked && hops.length.is_some() {
        return Err(HeadError::TwoFramings);
    }
    let bodiless = kind == RequestKind::Head || matches!(head.status, 100..=199 | 204 | 304);
    head.framing = match (bodiless, hops.chunked, hops.length) {
        (true, ..) => Framing::Empty,
        (_, true, _) => Framing::Chunked,
        (_, _, Some(length)) => Framing::Length(length),
        _ => Framing::Close,
    };
    if bodiless && head.status >= 200 && head.status != 204 {
        head.announced_length = hops.length;
    }
    head.keep_alive &= head.framing != Framing::Close;
    head.upgrade = hops.upgrade(head.version).filter(|_| head.status == 101);
    for name in hops.nominated(block) {
        head.fields.remove(name);
    }
    Ok(Some(length))
}

/// RFC 9112 2.2: a server should ignore an empty line before a request. One, and only a whole one.
fn skip_empty_line(buffer: &[u8]) -> Result<Option<usize>, HeadError> {
    match buffer {
        [] | [b'\r'] => Ok(None),
        [b'\r', b'\n', b'\r' | b'\n', ..] => Err(HeadError::Malformed("request line")),
        [b'\r', b'\n', ..] => Ok(Some(2)),
        [b'\n', ..] => Err(HeadError::BareLineFeed),
        _ => Ok(Some(0)),
    }
}

fn partial(bytes: &[u8], limits: Limits) -> Result<Option<usize>, HeadError> {
    // A line feed alone is refused as soon as it is seen: waiting for an end that this codec would not accept only
    // holds the connection.
    if bytes.iter().zip(bytes.iter().skip(1)).any(|(before, byte)| *byte == b'\n' && *before != b'\r') {
        return Err(HeadError::BareLineFeed);
    }
    match bytes.len() {
        length if length < limits.head_bytes => Ok(None),
        _ if !bytes.contains(&b'\n') => Err(HeadError::TargetTooLong),
        _ => Err(HeadError::TooLarge),
    }
}

fn refusal(error: httparse::Error, bytes: &[u8]) -> HeadError {
    match error {
        httparse::Error::TooManyHeaders => HeadError::TooLarge,
        httparse::Error::HeaderName => HeadError::Malformed("header name"),
        httparse::Error::HeaderValue => HeadError::Malformed("header value"),
        httparse::Error::NewLine => HeadError::Malformed("line end"),
        httparse::Error::Version => HeadError::Malformed("version"),
        httparse::Error::Status if !bytes.is_empty() => HeadError::Malformed("status"),
        _ => HeadError::Malformed("start line"),
    }
}

/// httparse takes a lone line feed for a line end. Every field name, and the end, must come after a whole one.
fn check_line_ends(block: &[u8], headers: &[Header<'_>]) -> Result<(), HeadError> {
    let whole = |at: usize| at >= 2 && block[at - 2..at] == *b"\r\n";
    let names = headers.iter().map(|header| offset(block, header.name.as_bytes()));
    if block.ends_with(b"\r\n\r\n") && names.into_iter().all(|at| at.is_some_and(whole)) {
        Ok(())
    } else {
        Err(HeadError::BareLineFeed)
    }
}

/// Where `part`, a slice of `whole`, begins.
fn offset(whole: &[u8], part: &[u8]) -> Option<usize> {
    (part.as_ptr() as usize).checked_sub(whole.as_ptr() as usize).filter(|at| at + part.len() <= whole.len())
}

fn span_in(block: &[u8], part: &[u8]) -> Span {
    // httparse may give an empty value that is not a slice of the input.
    if part.is_empty() {
        Span::default()
    } else {
        offset(block, part).map_or(Span::default(), |at| Span::new(at, part.len()))
    }
}

fn version(minor: Option<u8>) -> Version {
    if minor == Some(0) { Version::Http10 } else { Version::Http11 }
}

/// Whether a method is one that is passed on: capitals, `_` and `-`, as nginx has it. Who would take `get` for GET, and who would not, is
/// nothing that a policy can know.
pub fn method_is_sound(method: &str) -> bool {
    !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase() || matches!(byte, b'_' | b'-'))
}

/// Whether each `%` in a target's path begins a byte in hexadecimal that is not NUL: nobody behind us has to guess what is meant.
pub fn escapes_are_sound(target: &str) -> bool {
    let path = target.as_bytes();
    let Some(first) = path.iter().position(|byte| *byte == b'%') else { return true };
    let path = &path[..path.iter().position(|byte| *byte == b'?').unwrap_or(path.len())];
    let sound = |at: usize| match path.get(at + 1..at + 3) {
        Some([high, low]) => high.is_ascii_hexdigit() && low.is_ascii_hexdigit() && (*high, *low) != (b'0', b'0'),
        _ => false,
    };
    (first..path.len()).all(|at| path[at] != b'%' || sound(at))
}

fn finish_target(head: &mut RequestHead, target: &str, block: &[u8], host: Option<Span>) -> Result<(), HeadError> {
    if target.contains('#') || !escapes_are_sound(target) {
        return Err(HeadError::Malformed("request target"));
    }
    head.authority = match host {
        Some(host) => host,
        None if head.version == Version::Http10 => Span::default(),
        None => return Err(HeadError::BadHost),
    };
    head.target = span_in(block, target.as_bytes());
    if target.starts_with('/') || (target == "*" && head.method() == "OPTIONS") {
        return check_authority(head.authority());
    }
    if head.method() == "CONNECT" {
        head.authority = head.target;
        return check_authority(head.authority());
    }
    // Absolute form: RFC 9112 3.2.2 says that its host counts and the field's does not.
    let rest = ["http://", "https://"].iter().find_map(|scheme| {
        target.get(..scheme.len()).filter(|have| have.eq_ignore_ascii_case(scheme)).map(|_| &target[scheme.len()..])
    });
    let rest = rest.ok_or(HeadError::Malformed("request target"))?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if authority.is_empty() {
        return Err(HeadError::BadHost);
    }
    head.authority = span_in(block, authority.as_bytes());
    head.target = match path.as_bytes() {
        [b'/', ..] => span_in(block, path.as_bytes()),
        _ => head.fields.store(&[b"/", path.as_bytes()].concat()),
    };
    check_authority(head.authority())
}

/// Host and port and nothing that another parser could split elsewhere. Empty is what RFC 9112 asks of a client without one.
fn check_authority(authority: &str) -> Result<(), HeadError> {
    if authority_is_sound(authority) { Ok(()) } else { Err(HeadError::BadHost) }
}

/// Whether a host and port hold nothing that could be read as something else. Brackets hold an IPv6 address (RFC 3986, 3.2.2; one without
/// a zone, which means nothing to others), and only a port follows them: to some readers `[a]` is `a`.
pub fn authority_is_sound(authority: &str) -> bool {
    match authority.strip_prefix('[').map(|rest| rest.split_once(']')) {
        None => authority.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+;=%:".contains(&byte)),
        Some(None) => false,
        Some(Some((address, port))) => {
            let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
            address.parse::<Ipv6Addr>().is_ok() && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
        }
    }
}

/// Fields that this codec reads itself and does not pass on.
#[derive(Clone, Copy, PartialEq)]
enum Known {
    Host,
    Connection,
    Length,
    Coding,
    Upgrade,
    Expect,
    Te,
    Dropped,
    Other,
}

impl Known {
    fn of(name: &str) -> Self {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        match name.len() {
            2 if is("te") => Self::Te,
            4 if is("host") => Self::Host,
            6 if is("expect") => Self::Expect,
            7 if is("upgrade") => Self::Upgrade,
            10 if is("connection") => Self::Connection,
            10 if is("keep-alive") => Self::Dropped,
            14 if is("content-length") => Self::Length,
            14 if is("http2-settings") => Self::Dropped,
            16 if is("proxy-connection") => Self::Dropped,
            17 if is("transfer-encoding") => Self::Coding,
            _ => Self::Other,
        }
    }
}

#[derive(Default)]
struct Hops {
    host: Option<Span>,
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep: bool,
    wants_upgrade: bool,
    upgrade_to: Option<Span>,
    expect: bool,
    te_trailers: bool,
    /// Values of `Connection` that name fields; nearly always none.
    connection: Vec<Span>,
}

impl Hops {
    fn note(&mut self, known: Known, span: Span, value: &[u8]) -> Result<(), HeadError> {
        match known {
            Known::Host => {
                if self.host.replace(span).is_some() {
                    return Err(HeadError::BadHost);
                }
            }
            Known::Length => {
                if self.length.replace(content_length(value).ok_or(HeadError::BadLength)?).is_some() {
                    return Err(HeadError::BadLength);
                }
            }
            Known::Coding => {
                if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(HeadError::UnknownCoding);
                }
                self.chunked = true;
            }
            Known::Connection => self.note_connection(span, value),
            Known::Upgrade => self.upgrade_to = self.upgrade_to.or(Some(span)),
            Known::Expect => {
                if !value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(HeadError::UnknownExpectation);
                }
                self.expect = true;
            }
            Known::Te => self.te_trailers |= tokens(value).any(|token| token.eq_ignore_ascii_case(b"trailers")),
            Known::Dropped | Known::Other => {}
        }
        Ok(())
    }

    fn note_connection(&mut self, span: Span, value: &[u8]) {
        let mut names_fields = false;
        for token in tokens(value) {
            match token {
                _ if token.eq_ignore_ascii_case(b"close") => self.close = true,
                _ if token.eq_ignore_ascii_case(b"keep-alive") => self.keep = true,
                _ if token.eq_ignore_ascii_case(b"upgrade") => self.wants_upgrade = true,
                _ => names_fields = true,
            }
        }
        if names_fields {
            self.connection.push(span);
        }
    }

    fn keep_alive(&self, version: Version) -> bool {
        !self.close && (version == Version::Http11 || self.keep)
    }

    fn upgrade(&self, version: Version) -> Option<Upgrade> {
        self.upgrade_to.filter(|_| self.wants_upgrade && version == Version::Http11).map(Upgrade)
    }

    fn nominated<'a>(&'a self, block: &'a [u8]) -> impl Iterator<Item = &'a str> {
        self.connection.iter().flat_map(|span| tokens(span.of(block))).filter_map(|name| std::str::from_utf8(name).ok())
    }
}

fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(|token| token.trim_ascii()).filter(|token| !token.is_empty())
}

/// Digits only: no sign, no list, no blank, and below 2^63 so that no peer's signed integer wraps.
pub fn content_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 18 || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}
