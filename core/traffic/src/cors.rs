//! Cross-origin requests (the Fetch standard's CORS, configured as Gateway API's HTTPCORSFilter).

use crate::pattern::Text;
use model::mesh::Cors;
use std::sync::Arc;

/// What to do with a request that has an Origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CorsVerdict {
    /// A preflight: answer it (204) with these headers, do not pass it on.
    Answer(Vec<(&'static str, String)>),
    /// Pass it on and put these headers on the answer, in place of any that the backend set; `vary` beside the backend's.
    Pass(Vec<(&'static str, String)>),
}

/// Decides about a request. `preflight_method` and `preflight_headers` are the Access-Control-Request-* headers.
pub fn decide(
    cors: &Cors,
    origin: &str,
    method: &str,
    preflight_method: Option<&str>,
    preflight_headers: Option<&str>,
) -> CorsVerdict {
    let preflight = method == "OPTIONS" && preflight_method.is_some();
    let by_pattern = || cors.allow_origin_patterns.iter().any(|pattern| Text::new(pattern).matches(origin));
    if !cors.allow_origins.iter().any(|allowed| origin_matches(allowed, origin)) && !by_pattern() {
        // The browser sees no permission and refuses, unless the backend is to see such preflights and permits it.
        let answered = preflight && !cors.pass_unmatched;
        return if answered { CorsVerdict::Answer(Vec::new()) } else { CorsVerdict::Pass(Vec::new()) };
    }
    let star = |list: &[Arc<str>]| list.iter().any(|item| &**item == "*");
    let mut headers = Vec::new();
    let any_origin = star(&cors.allow_origins) && !cors.allow_credentials;
    headers.push(("access-control-allow-origin", if any_origin { "*".to_owned() } else { origin.to_owned() }));
    if cors.allow_credentials {
        headers.push(("access-control-allow-credentials", "true".to_owned()));
    }
    if !any_origin {
        headers.push(("vary", "origin".to_owned()));
    }
    // With credentials `*` is taken literally by browsers, so what was asked for is named instead.
    let list = |allowed: &[Arc<str>], asked: Option<&str>| match (star(allowed), cors.allow_credentials, asked) {
        (true, true, Some(asked)) => asked.to_owned(),
        (true, ..) => "*".to_owned(),
        _ => allowed.join(", "),
    };
    // Browsers look at it in answers only; Gateway API asks for it in preflights too.
    if !cors.expose_headers.is_empty() {
        headers.push(("access-control-expose-headers", list(&cors.expose_headers, None)));
    }
    if !preflight {
        return CorsVerdict::Pass(headers);
    }
    if !cors.allow_methods.is_empty() {
        headers.push(("access-control-allow-methods", list(&cors.allow_methods, preflight_method)));
    }
    if !cors.allow_headers.is_empty() {
        headers.push(("access-control-allow-headers", list(&cors.allow_headers, preflight_headers)));
    }
    headers.push(("access-control-max-age", cors.max_age_s.to_string()));
    CorsVerdict::Answer(headers)
}

/// `*`, an origin, or an origin with one `*` for any characters of the host.
fn origin_matches(allowed: &str, origin: &str) -> bool {
    match allowed.split_once('*') {
        None => allowed.eq_ignore_ascii_case(origin),
        Some(("", "")) => true,
        Some((before, after)) => {
            let (origin, before, after) =
                (origin.to_ascii_lowercase(), before.to_ascii_lowercase(), after.to_ascii_lowercase());
            origin.len() > before.len() + after.len() && origin.starts_with(&before) && origin.ends_with(&after)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins() {
        for (allowed, origin, yes) in [
            ("*", "https://x", true),
            ("https://a.example", "https://a.example", true),
            ("https://a.example", "http://a.example", false),
            ("https://*.example", "https://x.y.example", true),
            ("https://*.example", "https://.example", false),
            ("https://*.example", "https://x.example:8443", false),
        ] {
            assert_eq!(origin_matches(allowed, origin), yes, "{allowed} {origin}");
        }
    }

    #[test]
    fn preflights_are_answered_here() {
        let cors = Cors {
            allow_origins: vec!["https://a.example".into()],
            allow_credentials: true,
            allow_methods: vec!["*".into()],
            allow_headers: vec!["x-a".into(), "x-b".into()],
            expose_headers: vec!["x-c".into()],
            max_age_s: 5,
            ..Cors::default()
        };
        let CorsVerdict::Answer(headers) = decide(&cors, "https://a.example", "OPTIONS", Some("PUT"), Some("x-a"))
        else {
            panic!("a preflight is answered");
        };
        let text: Vec<String> = headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        assert_eq!(
            text,
            [
                "access-control-allow-origin: https://a.example",
                "access-control-allow-credentials: true",
                "vary: origin",
                "access-control-expose-headers: x-c",
                "access-control-allow-methods: PUT",
                "access-control-allow-headers: x-a, x-b",
                "access-control-max-age: 5",
            ]
        );
        assert_eq!(decide(&cors, "https://evil", "OPTIONS", Some("PUT"), None), CorsVerdict::Answer(vec![]));
        assert_eq!(decide(&cors, "https://evil", "GET", None, None), CorsVerdict::Pass(vec![]));
        let passing = Cors { pass_unmatched: true, ..cors.clone() };
        assert_eq!(decide(&passing, "https://evil", "OPTIONS", Some("PUT"), None), CorsVerdict::Pass(vec![]));
        let CorsVerdict::Pass(headers) = decide(&cors, "https://a.example", "GET", None, None) else { panic!() };
        assert!(headers.contains(&("access-control-expose-headers", "x-c".to_owned())));
    }
}
