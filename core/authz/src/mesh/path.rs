//! Paths: their normal form, and templates.

use std::borrow::Cow;

/// Istio's BASE normalization: `\` is `/`, percent-encoded unreserved characters are decoded, hexadecimal digits are upper case, `.`
/// and `..` segments are resolved. A policy decides about this form, so it must also be what is passed on: else `/public/../admin`
/// would be public here and admin there. `%2F` stays: whether it separates is the application's matter.
pub fn normalize_path(path: &str) -> Cow<'_, str> {
    if is_plainly_normal(path) {
        return Cow::Borrowed(path);
    }
    let decoded = decode_unreserved(path);
    if !decoded.contains("/.") {
        return Cow::Owned(decoded);
    }
    let mut segments: Vec<&str> = Vec::new();
    let mut directory = false;
    for segment in decoded.split('/').skip(1) {
        directory = false;
        match segment {
            "." => directory = true,
            ".." => {
                segments.pop();
                directory = true;
            }
            other => segments.push(other),
        }
    }
    let mut out = String::with_capacity(decoded.len());
    for segment in &segments {
        out.push('/');
        out.push_str(segment);
    }
    if directory || out.is_empty() {
        out.push('/');
    }
    Cow::Owned(out)
}

/// Whether nothing in it asks for a closer look, as in nearly every path.
fn is_plainly_normal(path: &str) -> bool {
    let mut before = 0;
    path.bytes().all(|byte| {
        let plain = !matches!(byte, b'%' | b'\\') && (before, byte) != (b'/', b'.');
        before = byte;
        plain
    })
}

fn decode_unreserved(path: &str) -> String {
    let bytes = path.as_bytes();
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find(['%', '\\']) {
        out.push_str(&rest[..at]);
        let from = path.len() - rest.len() + at;
        if bytes[from] == b'\\' {
            out.push('/');
            rest = &rest[at + 1..];
            continue;
        }
        let hex = |offset: usize| bytes.get(from + offset).and_then(|byte| char::from(*byte).to_digit(16));
        match (hex(1), hex(2)) {
            (Some(high), Some(low)) => {
                let byte = (high * 16 + low) as u8;
                if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                    out.push(char::from(byte));
                } else {
                    out.push_str(&rest[at..at + 3].to_ascii_uppercase());
                }
                rest = &rest[at + 3..];
            }
            _ => {
                out.push('%');
                rest = &rest[at + 1..];
            }
        }
    }
    out.push_str(rest);
    out
}

/// A path with `{*}` (one segment, not empty) and, as the last operator, `{**}` (any number of characters).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template {
    before: Vec<Segment>,
    /// What follows `{**}`, if there is one.
    after: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Text(String),
    Any,
}

impl Template {
    /// None: it is no template (no operator), or not a valid one; the second is told apart by [`is_template`].
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut before = Vec::new();
        let mut rest = text.strip_prefix('/')?.split('/');
        while let Some(segment) = rest.next() {
            match segment {
                "{*}" => before.push(Segment::Any),
                "{**}" => {
                    let tail: Vec<&str> = rest.collect();
                    let after = tail.iter().map(|part| format!("/{part}")).collect::<String>();
                    let plain = !after.contains(['*', '{', '}']);
                    return plain.then_some(Template { before, after: Some(after) });
                }
                other if other.contains(['*', '{', '}']) => return None,
                other => before.push(Segment::Text(other.to_owned())),
            }
        }
        Some(Template { before, after: None })
    }

    /// What every path begins with that it matches.
    pub(super) fn beginning(&self) -> String {
        let mut out = String::from("/");
        for (index, segment) in self.before.iter().enumerate() {
            let Segment::Text(text) = segment else { break };
            out.push_str(text);
            if index + 1 < self.before.len() || self.after.is_some() {
                out.push('/');
            }
        }
        out
    }

    pub(super) fn matches(&self, path: &str) -> bool {
        let Some(mut rest) = path.strip_prefix('/') else { return false };
        for (index, segment) in self.before.iter().enumerate() {
            let last = index + 1 == self.before.len() && self.after.is_none();
            let (part, tail) = match rest.split_once('/') {
                Some((part, tail)) if !last => (part, tail),
                None if last => (rest, ""),
                _ => return false,
            };
            let fits = match segment {
                Segment::Text(text) => text == part,
                Segment::Any => !part.is_empty(),
            };
            if !fits {
                return false;
            }
            rest = tail;
        }
        match &self.after {
            None => true,
            Some(after) => rest.ends_with(after.as_str()) || (rest.is_empty() && after.is_empty()),
        }
    }
}

/// Whether a text of a policy is meant as a template.
pub(super) fn is_template(text: &str) -> bool {
    text.contains("{*}") || text.contains("{**}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_forms() {
        for (path, normal) in [
            ("/a/b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/./b", "/a/b"),
            ("/a/%2e%2e/b", "/b"),
            ("/a/%2E%2e", "/"),
            ("/../../x", "/x"),
            ("/a\\b", "/a/b"),
            ("/a/..\\..\\x", "/x"),
            ("/%61dmin", "/admin"),
            ("/a%2fb", "/a%2Fb"),
            ("/a%zz%", "/a%zz%"),
            ("/a//b", "/a//b"),
            ("/.well-known/x", "/.well-known/x"),
            ("/a/b/.", "/a/b/"),
        ] {
            assert_eq!(normalize_path(path), normal, "{path}");
            assert_eq!(normalize_path(&normalize_path(path)), normal, "twice: {path}");
        }
    }

    #[test]
    fn templates_as_istio_documents_them() {
        for (template, path, yes) in [
            ("/foo/{*}", "/foo/bar", true),
            ("/foo/{*}", "/foo/bar/baz", false),
            ("/foo/{*}", "/foo/", false),
            ("/foo/{**}/", "/foo/bar/", true),
            ("/foo/{**}/", "/foo/bar/baz.txt", false),
            ("/foo/{**}/", "/foo//", true),
            ("/foo/{**}/", "/foo/bar", false),
            ("/foo/{*}/bar/{**}", "/foo/buzz/bar/", true),
            ("/foo/{*}/bar/{**}", "/foo/buzz/bar/baz", true),
            ("/foo/{*}/bar/{**}", "/foo/buzz/baz/", false),
            ("/{*}/x", "/a/x", true),
            ("/{*}/x", "/a/b/x", false),
        ] {
            let template = Template::parse(template).unwrap();
            assert_eq!(template.matches(path), yes, "{template:?} {path}");
            assert!(!yes || path.starts_with(&template.beginning()), "{template:?} {path}");
        }
        for bad in ["/*/baz/{*}", "/**/baz/{*}", "/{**}/foo/{*}", "/foo/{*}.txt"] {
            assert!(is_template(bad) && Template::parse(bad).is_none(), "{bad}");
        }
    }
}
