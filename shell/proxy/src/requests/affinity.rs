//! What keeps a request on its endpoint: a header, a cookie, a query parameter, the client's address.
use super::Site;
use super::plan::{Chosen, Plan};
use crate::random;
use crate::upstream::Port;
use http1::RequestHead;
use model::mesh::traffic::HashKey;
use traffic::RequestView;
use traffic::balance::table::spread;

/// The key of a request; a cookie that it lacks is put on the plan's answer.
pub fn of_request(port: &Port, site: &Site, head: &RequestHead, plan: &mut Plan) -> Option<u64> {
    if let Some(session) = plan.chosen.as_ref().and_then(Chosen::session) {
        let (key, made) = (session.key(), session.made());
        plan.answer_headers.extend(made);
        return Some(key);
    }
    let by_address = || super::hash_of_address(site.client.ip());
    let Some(key) = port.hash_key() else { return port.service().service.affinity_s.map(|_| by_address()) };
    match key {
        HashKey::SourceIp => Some(by_address()),
        HashKey::Header(name) => match head.fields.get(name) {
            Some(value) => Some(spread(value)),
            None => head.read_here(name).map(|value| spread(value.as_bytes())),
        },
        HashKey::Query(name) => {
            RequestView::new("", head.target(), "", &()).query_value(name).map(|value| spread(value.as_bytes()))
        }
        HashKey::Cookie { name, path, ttl_s } => {
            if let Some(value) = head.fields.get_all("cookie").find_map(|line| cookie(line, name.as_bytes())) {
                return Some(spread(value));
            }
            let ttl_s = (*ttl_s)?;
            let value = format!("{:016x}", random::u64());
            let mut made = format!("{name}={value}; HttpOnly");
            if ttl_s > 0 {
                made.push_str(&format!("; Max-Age={ttl_s}"));
            }
            if !path.is_empty() {
                made.push_str(&format!("; Path={path}"));
            }
            plan.answer_headers.push(("set-cookie".into(), made));
            Some(spread(value.as_bytes()))
        }
    }
}

/// A cookie's value in a Cookie header.
pub(super) fn cookie<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    line.split(|byte| *byte == b';').find_map(|pair| {
        let pair = pair.trim_ascii();
        let value = pair.strip_prefix(name)?.strip_prefix(b"=")?;
        Some(value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value))
    })
}

#[cfg(test)]
mod tests {
    use super::cookie;

    #[test]
    fn cookies() {
        for (line, expect) in [
            ("a=1", Some("1")),
            ("b=2; a=1", Some("1")),
            ("ba=2;a=\"x y\"", Some("x y")),
            ("ab=1", None),
            ("a", None),
            ("", None),
        ] {
            assert_eq!(cookie(line.as_bytes(), b"a"), expect.map(str::as_bytes), "{line}");
        }
    }
}
