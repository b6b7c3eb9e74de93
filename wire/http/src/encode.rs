//! Heads -> bytes. Hop-by-hop fields are written here and nowhere else.
use crate::fields::Fields;
use crate::head::{Framing, RequestHead, ResponseHead, Version};
use crate::parse::RequestKind;

/// Appends the request head for the next hop, always as HTTP/1.1 on a connection that is kept (or switched).
pub fn encode_request(head: &RequestHead, out: &mut Vec<u8>) {
    let [method, target, authority] = [head.method, head.target, head.authority].map(|span| span.of(&head.fields.text));
    for part in [method, b" ", target, b" HTTP/1.1\r\nhost: ", authority, b"\r\n"] {
        out.extend_from_slice(part);
    }
    encode_fields(&head.fields, out);
    encode_framing(head.framing, out);
    // A method that defines a body and has none says so; some servers answer 411 otherwise.
    if head.framing == Framing::Empty && matches!(method, b"POST" | b"PUT" | b"PATCH") {
        out.extend_from_slice(b"content-length: 0\r\n");
    }
    match head.upgrade() {
        Some(protocol) => encode_upgrade(protocol, out),
        None if head.te_trailers => out.extend_from_slice(b"te: trailers\r\nconnection: te\r\n"),
        None => {}
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends the response head for a client that speaks `version`; `kind`: what it asked. `keep_alive`: whether this side will read another
/// request.
pub fn encode_response(head: &ResponseHead, kind: RequestKind, version: Version, keep_alive: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    push_decimal(u64::from(head.status), out);
    out.push(b' ');
    match head.reason() {
        b"" => out.extend_from_slice(reason(head.status).as_bytes()),
        text => out.extend_from_slice(text),
    }
    out.extend_from_slice(b"\r\n");
    encode_fields(&head.fields, out);
    encode_framing(head.framing, out);
    if let (Framing::Empty, Some(length)) = (head.framing, head.announced_length) {
        encode_framing(Framing::Length(length), out);
    } else if (head.framing, kind) == (Framing::Empty, RequestKind::Other)
        && !matches!(head.status, 100..=199 | 204 | 304)
    {
        // Nothing comes, and that is the length. What would come for GET only its origin knows (RFC 9110, 8.6).
        out.extend_from_slice(b"content-length: 0\r\n");
    }
    match head.upgrade() {
        Some(protocol) => encode_upgrade(protocol, out),
        None if head.status == 101 => {}
        None if !keep_alive => out.extend_from_slice(b"connection: close\r\n"),
        None if version == Version::Http10 => out.extend_from_slice(b"connection: keep-alive\r\n"),
        None => {}
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends an interim response (`100`, `103`).
pub fn encode_interim(head: &ResponseHead, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    push_decimal(u64::from(head.status), out);
    out.push(b' ');
    out.extend_from_slice(reason(head.status).as_bytes());
    out.extend_from_slice(b"\r\n");
    encode_fields(&head.fields, out);
    out.extend_from_slice(b"\r\n");
}

fn encode_fields(fields: &Fields, out: &mut Vec<u8>) {
    for (name, value) in &fields.entries {
        out.extend_from_slice(name.of(&fields.text));
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.of(&fields.text));
        out.extend_from_slice(b"\r\n");
    }
}

fn encode_framing(framing: Framing, out: &mut Vec<u8>) {
    match framing {
        Framing::Length(length) => {
            out.extend_from_slice(b"content-length: ");
            push_decimal(length, out);
            out.extend_from_slice(b"\r\n");
        }
        Framing::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        Framing::Empty | Framing::Close => {}
    }
}

fn encode_upgrade(protocol: &str, out: &mut Vec<u8>) {
    for part in ["connection: upgrade\r\nupgrade: ", protocol, "\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
}

fn push_decimal(value: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(digits_of(value, &mut [0; 20]));
}

/// A number in decimal digits, at the end of `room`.
pub fn digits_of(mut value: u64, room: &mut [u8; 20]) -> &[u8] {
    let mut at = room.len();
    loop {
        at -= 1;
        room[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    &room[at..]
}

/// The registered phrase, for heads that came without one.
fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "",
    }
}
