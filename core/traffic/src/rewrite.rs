//! New paths and redirects.

use crate::request::RequestView;
use model::mesh::{PathModifier, Redirect};
use std::borrow::Cow;

/// The path after a modifier, without query. `prefix` is the one that matched ([`Hit::prefix`](crate::table::Hit::prefix)); without
/// one a prefix replacement leaves the path as it is.
pub fn path<'a>(modifier: &'a PathModifier, path: &'a str, prefix: Option<&str>) -> Cow<'a, str> {
    match modifier {
        PathModifier::ReplaceFull(full) => Cow::Borrowed(full),
        PathModifier::ReplacePrefix(new) => {
            let Some(prefix) = prefix else { return Cow::Borrowed(path) };
            let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
            let Some(rest) = path.strip_prefix(prefix) else { return Cow::Borrowed(path) };
            let new = new.strip_suffix('/').unwrap_or(new);
            match (new, rest) {
                ("", "") => Cow::Borrowed("/"),
                ("", rest) if rest.starts_with('/') => Cow::Borrowed(rest),
                (new, rest) => Cow::Owned(format!("{new}{rest}")),
            }
        }
        PathModifier::ReplaceMatched(new) => match prefix.and_then(|prefix| after(path, prefix)) {
            Some("") | None => Cow::Borrowed(new),
            Some(rest) => Cow::Owned(format!("{new}{rest}")),
        },
        PathModifier::ReplaceRegex { pattern, substitution } => {
            let Ok(regex) = crate::pattern::part(pattern) else { return Cow::Borrowed(path) };
            regex.replace_all(path, |found: &regex::Captures<'_>| substituted(substitution, found))
        }
    }
}

/// What follows a prefix that may have matched in another case.
fn after<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    path.get(..prefix.len()).filter(|begin| begin.eq_ignore_ascii_case(prefix)).map(|begin| &path[begin.len()..])
}

/// `\1` to `\9` stand for groups, `\0` for all that was found, and two backslashes for one.
fn substituted(text: &str, found: &regex::Captures<'_>) -> String {
    let mut out = String::new();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match (c, if c == '\\' { rest.next() } else { None }) {
            (_, Some(digit)) if digit.is_ascii_digit() => {
                let group = digit.to_digit(10).and_then(|at| found.get(at as usize));
                out.push_str(group.map_or("", |group| group.as_str()));
            }
            (_, Some(other)) => out.push(other),
            (c, None) => out.push(c),
        }
    }
    out
}

/// Where a redirect points (the Location header). `scheme` and `port` are those that the request came by.
pub fn location(
    redirect: &Redirect,
    request: &RequestView<'_>,
    prefix: Option<&str>,
    scheme: &str,
    port: u16,
) -> String {
    let new_scheme = redirect.scheme.as_deref().unwrap_or(scheme);
    let host = redirect.hostname.as_deref().unwrap_or(request.host);
    let well_known = |scheme: &str| match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    };
    // A scheme without a port means the scheme's own port; no scheme, the port that the request came by.
    let new_port = redirect.port.or(if redirect.scheme.is_some() { well_known(new_scheme) } else { Some(port) });
    let path =
        redirect.path.as_ref().map_or(Cow::Borrowed(request.path), |modifier| path(modifier, request.path, prefix));
    let mut location = format!("{new_scheme}://");
    match host.contains(':') {
        true => location.push_str(&format!("[{host}]")),
        false => location.push_str(host),
    }
    if let Some(port) = new_port.filter(|port| well_known(new_scheme) != Some(*port)) {
        location.push_str(&format!(":{port}"));
    }
    location.push_str(&path);
    if let Some(query) = request.query {
        location.push('?');
        location.push_str(query);
    }
    location
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_prefixes_as_the_specification_tables_it() {
        // The table of HTTPPathModifier in the Gateway API specification.
        for (from, prefix, to, result) in [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo/", "/foo", "", "/"),
            ("/foo", "/foo", "", "/"),
            ("/foo/", "/foo", "/", "/"),
            ("/foo", "/foo", "/", "/"),
        ] {
            let modifier = PathModifier::ReplacePrefix(to.into());
            assert_eq!(path(&modifier, from, Some(prefix)), result, "{from} {prefix} -> {to}");
        }
        assert_eq!(path(&PathModifier::ReplaceFull("/x".into()), "/foo/bar", None), "/x");
    }

    #[test]
    fn redirects_keep_what_they_do_not_change() {
        let request = RequestView::new("a.example", "/one/two?q=1", "GET", &());
        let none = Redirect { scheme: None, hostname: None, path: None, port: None, status: 302 };
        let check = |redirect: &Redirect, scheme: &str, port: u16, expect: &str| {
            assert_eq!(location(redirect, &request, Some("/one"), scheme, port), expect);
        };
        check(&none, "http", 80, "http://a.example/one/two?q=1");
        check(&none, "http", 8080, "http://a.example:8080/one/two?q=1");
        check(&none, "https", 443, "https://a.example/one/two?q=1");
        let https = Redirect { scheme: Some("https".into()), ..none.clone() };
        check(&https, "http", 8080, "https://a.example/one/two?q=1");
        check(&Redirect { port: Some(8443), ..https.clone() }, "http", 80, "https://a.example:8443/one/two?q=1");
        check(&Redirect { port: Some(443), ..https }, "http", 80, "https://a.example/one/two?q=1");
        check(&Redirect { port: Some(80), ..none.clone() }, "http", 8080, "http://a.example/one/two?q=1");
        let host = Redirect { hostname: Some("b.example".into()), ..none.clone() };
        check(&host, "http", 80, "http://b.example/one/two?q=1");
        let path = Redirect { path: Some(PathModifier::ReplacePrefix("/three".into())), ..none };
        check(&path, "http", 80, "http://a.example/three/two?q=1");
    }
}
