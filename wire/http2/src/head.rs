//! Header blocks and heads.
use crate::error::Fault;
use crate::hpack::{Decoder, ENTRY_BYTES, Encoder, Malformed};
use http1::{
    Fields, Framing, RequestHead, ResponseHead, authority_is_sound, content_length, digits_of, escapes_are_sound,
    is_trailer, method_is_sound,
};

/// Fields that mean a connection (RFC 9113, 8.2.2).
const CONNECTION_FIELDS: [&[u8]; 5] =
    [b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"];
/// The one protocol that an extended CONNECT may ask for.
const WEBSOCKET: &str = "websocket";
/// A list that is so many times too large is not even unpacked to its end.
const ABSURD: usize = 16;

/// A header block that is well coded but no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It breaks a rule of HTTP/2: an error of the stream (RFC 9113, 8.1.1).
    Malformed(&'static str),
    /// It is answered with this status.
    Status(u16),
}

impl From<Malformed> for Fault {
    fn from(_: Malformed) -> Self {
        Self { code: crate::Code::COMPRESSION_ERROR, why: "no header block" }
    }
}

/// What was found so far.
#[derive(Default)]
struct Parts {
    method: bool,
    scheme: bool,
    path: bool,
    authority: bool,
    protocol: bool,
    fields: bool,
    host: Option<Vec<u8>>,
    length: Option<u64>,
    cookies: Vec<u8>,
    sensitive_cookie: bool,
    bytes: usize,
    wrong: Option<Refusal>,
}

/// Reads a request into an empty head. `ended`: it has no body. Its length, if it announces one.
pub fn request(
    decoder: &mut Decoder,
    block: &[u8],
    most: usize,
    ended: bool,
    head: &mut RequestHead,
) -> Result<Result<Option<u64>, Refusal>, Fault> {
    let mut parts = Parts::default();
    decoder.decode(block, |name, value, sensitive| {
        parts.bytes += name.len() + value.len() + ENTRY_BYTES;
        if parts.bytes > most * ABSURD {
            return Err(Fault::too_much("a header list that is large when unpacked"));
        }
        if parts.wrong.is_none() {
            parts.wrong = if parts.bytes > most {
                Some(Refusal::Status(431))
            } else {
                parts.take(name, value, sensitive, head).err()
            };
        }
        Ok(())
    })?;
    Ok(parts.finish(ended, head))
}

impl Parts {
    fn take(&mut self, name: &[u8], value: &[u8], sensitive: bool, head: &mut RequestHead) -> Result<(), Refusal> {
        const TWICE: Refusal = Refusal::Malformed("a pseudo-header twice");
        let once = |seen: &mut bool| if std::mem::replace(seen, true) { Err(TWICE) } else { Ok(()) };
        if name.first() == Some(&b':') {
            if self.fields {
                return Err(Refusal::Malformed("a pseudo-header behind a field"));
            }
            let text = text(value)?;
            return match name {
                b":method" => once(&mut self.method).map(|()| head.set_method(text)),
                b":scheme" => {
                    // RFC 3986, 3.1.
                    let sound = text.starts_with(|first: char| first.is_ascii_alphabetic())
                        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
                    once(&mut self.scheme).and(if sound { Ok(()) } else { Err(Refusal::Malformed("scheme")) })
                }
                b":path" if text.is_empty() => Err(Refusal::Malformed("no path")),
                b":path" => once(&mut self.path).map(|()| head.set_target(text)),
                b":authority" => once(&mut self.authority).map(|()| head.set_authority(text)),
                b":protocol" => once(&mut self.protocol).map(|()| head.set_upgrade(Some(text))),
                _ => Err(Refusal::Malformed("an unknown pseudo-header")),
            };
        }
        self.fields = true;
        match name {
            b"host" if self.host.is_some() => return Err(Refusal::Status(400)),
            b"host" => self.host = Some(value.to_vec()),
            b"content-length" => {
                let length = content_length(value).ok_or(Refusal::Malformed("content-length"))?;
                if self.length.replace(length).is_some() {
                    return Err(Refusal::Malformed("two lengths"));
                }
            }
            b"te" if value.eq_ignore_ascii_case(b"trailers") => head.te_trailers = true,
            b"te" => return Err(Refusal::Malformed("te")),
            // RFC 9113, 8.2.3: split cookies are one field again in HTTP/1.1.
            b"cookie" => {
                if !self.cookies.is_empty() {
                    self.cookies.extend_from_slice(b"; ");
                }
                self.cookies.extend_from_slice(value);
                self.sensitive_cookie |= sensitive;
            }
            // As for HTTP/1.1: the endpoint is not asked first.
            b"expect" if value.eq_ignore_ascii_case(b"100-continue") => {}
            b"expect" => return Err(Refusal::Status(417)),
            _ if CONNECTION_FIELDS.contains(&name) => return Err(Refusal::Malformed("a field of a connection")),
            b"http2-settings" => {}
            _ => append(&mut head.fields, name, value, sensitive)?,
        }
        Ok(())
    }

    fn finish(mut self, ended: bool, head: &mut RequestHead) -> Result<Option<u64>, Refusal> {
        if let Some(wrong) = self.wrong {
            return Err(wrong);
        }
        let connect = head.method() == "CONNECT";
        if !self.method || ((!connect || self.protocol) && !(self.scheme && self.path)) {
            return Err(Refusal::Malformed("a pseudo-header is missing"));
        }
        if self.protocol && !connect {
            return Err(Refusal::Malformed("a protocol where nothing is connected"));
        }
        // RFC 9113, 8.3.1: who is named twice is named alike, or somebody behind us would read the other one.
        match self.host.take() {
            Some(host) if self.authority && !host.eq_ignore_ascii_case(head.authority().as_bytes()) => {
                return Err(Refusal::Status(400));
            }
            Some(host) if !self.authority => head.set_authority(text(&host)?),
            _ => {}
        }
        let (authority, target, method) = (head.authority(), head.target(), head.method());
        if connect && !self.protocol {
            return Err(Refusal::Status(405));
        }
        let of_a_request = target.starts_with('/') || (target == "*" && method == "OPTIONS");
        let sound = of_a_request && method_is_sound(method) && escapes_are_sound(target) && !target.contains('#');
        if !sound || authority.is_empty() || !authority_is_sound(authority) {
            return Err(Refusal::Status(400));
        }
        if !self.cookies.is_empty() {
            append(&mut head.fields, b"cookie", &self.cookies, self.sensitive_cookie)?;
        }
        if self.protocol {
            return self.connect(ended, head);
        }
        if ended && self.length.is_some_and(|length| length > 0) {
            return Err(Refusal::Malformed("no body, but a length"));
        }
        head.keep_alive = true;
        head.framing = match (ended, self.length) {
            (true, _) | (_, Some(0)) => Framing::Empty,
            (false, Some(length)) => Framing::Length(length),
            (false, None) => Framing::Chunked,
        };
        Ok(self.length)
    }

    /// An extended CONNECT (RFC 8441): what HTTP/1.1 asks for by `Upgrade`.
    fn connect(&self, ended: bool, head: &mut RequestHead) -> Result<Option<u64>, Refusal> {
        if head.upgrade() != Some(WEBSOCKET) {
            return Err(Refusal::Status(501));
        }
        if ended || self.length.is_some() {
            return Err(Refusal::Status(400));
        }
        head.set_method("GET");
        head.keep_alive = true;
        head.framing = Framing::Empty;
        Ok(None)
    }
}

/// Reads trailers.
pub fn trailers(decoder: &mut Decoder, block: &[u8], most: usize) -> Result<Result<Fields, Refusal>, Fault> {
    let (mut fields, mut bytes, mut wrong) = (Fields::default(), 0, None);
    decoder.decode(block, |name, value, sensitive| {
        bytes += name.len() + value.len() + ENTRY_BYTES;
        if bytes > most {
            return Err(Fault::too_much("a trailer list that is large when unpacked"));
        }
        let taken = if !is_trailer(name) {
            Err(Refusal::Malformed("a field that is no trailer"))
        } else {
            append(&mut fields, name, value, sensitive)
        };
        wrong = wrong.or(taken.err());
        Ok(())
    })?;
    Ok(wrong.map_or(Ok(fields), Err))
}

/// Writes the header block of an answer.
pub fn response(encoder: &mut Encoder, head: &ResponseHead, block: &mut Vec<u8>) {
    encoder.begin(block);
    encoder.status(head.status, block);
    fields(encoder, &head.fields, block);
    let length = match head.framing {
        Framing::Length(length) => Some(length),
        Framing::Empty => head.announced_length,
        Framing::Chunked | Framing::Close => None,
    };
    if let Some(length) = length {
        encoder.field(b"content-length", digits_of(length, &mut [0; 20]), false, block);
    }
}

/// Writes fields.
pub fn fields(encoder: &mut Encoder, fields: &Fields, block: &mut Vec<u8>) {
    if fields.has_sensitive() {
        for (name, value, sensitive) in fields.iter_sensitive() {
            encoder.field(name.as_bytes(), value, sensitive, block);
        }
        return;
    }
    for (name, value) in fields.iter() {
        encoder.field(name.as_bytes(), value, false, block);
    }
}

fn append(fields: &mut Fields, name: &[u8], value: &[u8], sensitive: bool) -> Result<(), Refusal> {
    fields.append_lowercase(name, value).map_err(|_| Refusal::Malformed("not a header name or value"))?;
    if sensitive {
        fields.mark_sensitive();
    }
    Ok(())
}

/// The value of a pseudo-header: text without blanks or controls.
fn text(value: &[u8]) -> Result<&str, Refusal> {
    let sound = value.iter().all(|byte| *byte > b' ' && *byte != 0x7f);
    let text = std::str::from_utf8(value).ok().filter(|_| sound);
    text.ok_or(Refusal::Malformed("a pseudo-header's value"))
}
