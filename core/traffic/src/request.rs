//! What a decision sees of a request.

use std::borrow::Cow;
use std::net::Ipv6Addr;

use model::Labels;
pub use model::mesh::Headers;

/// The parts of a request that routes look at.
#[derive(Clone, Copy)]
pub struct RequestView<'a> {
    /// Host header or `:authority`, lower case, without port.
    pub host: &'a str,
    /// Path without query.
    pub path: &'a str,
    /// What stands after `?`.
    pub query: Option<&'a str>,
    /// Method, upper case.
    pub method: &'a str,
    /// The headers.
    pub headers: &'a dyn Headers,
    /// By which way it came.
    pub came: Came<'a>,
}

/// How a request came here: what only routes in order ask for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Came<'a> {
    /// `http` or `https`.
    pub scheme: &'a str,
    /// Host header or `:authority`, as sent.
    pub authority: &'a str,
    /// The service's or listener's port.
    pub port: u16,
    /// The caller's namespace, or empty.
    pub namespace: &'a str,
    /// The caller's labels, if they are known and the table asks for them.
    pub labels: Option<&'a Labels>,
}

impl<'a> RequestView<'a> {
    /// Splits a request target into path and query.
    pub fn new(host: &'a str, target: &'a str, method: &'a str, headers: &'a dyn Headers) -> Self {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        RequestView { host, path, query, method, headers, came: Came::default() }
    }

    /// With the way by which it came.
    pub fn by(self, came: Came<'a>) -> Self {
        RequestView { came, ..self }
    }

    /// First value of a query parameter, percent-decoded, `+` as space.
    pub fn query_value(&self, name: &str) -> Option<Cow<'a, str>> {
        self.query?.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key) == name).then(|| decode(value))
        })
    }
}

/// Host of a Host header or `:authority`: without port, brackets kept off IPv6. What is neither stays whole, so that it is nobody's host.
/// Lower-casing is the caller's.
pub fn host_without_port(authority: &str) -> &str {
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    if let Some((address, port)) = authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        let sound = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        return if sound && address.parse::<Ipv6Addr>().is_ok() { address } else { authority };
    }
    match authority.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') && is_port(port) => host,
        _ => authority,
    }
}

/// Percent-decoding of form data. Bad sequences stay as they are; bytes that are no UTF-8 become U+FFFD.
fn decode(text: &str) -> Cow<'_, str> {
    if !text.bytes().any(|byte| byte == b'%' || byte == b'+') {
        return Cow::Borrowed(text);
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = |offset: usize| bytes.get(at + offset).and_then(|byte| char::from(*byte).to_digit(16));
        match (bytes[at], hex(1), hex(2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, ..) => {
                out.push(if byte == b'+' { b' ' } else { byte });
                at += 1;
            }
        }
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_query_parameters() {
        let request = RequestView::new("h", "/p?a=1&b=x%20y+z&a=2&c&%64=%zz%", "GET", &());
        let expect = [("a", Some("1")), ("b", Some("x y z")), ("c", Some("")), ("d", Some("%zz%")), ("e", None)];
        for (name, value) in expect {
            assert_eq!(request.query_value(name).as_deref(), value, "{name}");
        }
        assert_eq!(request.path, "/p");
    }

    #[test]
    fn strips_ports() {
        for (authority, host) in [
            ("a.b", "a.b"),
            ("a.b:80", "a.b"),
            ("10.0.0.1:8080", "10.0.0.1"),
            ("[::1]:80", "::1"),
            ("[::1]", "::1"),
            ("a:b", "a:b"),
            ("[a.b]", "[a.b]"),
            ("[a.b]:80", "[a.b]:80"),
            ("[::1]a.b", "[::1]a.b"),
            ("[::1]:x", "[::1]:x"),
            ("[::1", "[::1"),
        ] {
            assert_eq!(host_without_port(authority), host);
        }
    }
}
