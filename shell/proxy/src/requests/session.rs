//! Session persistence: a token, made at a client's first request, decides backend and endpoint of those that bring it.
use super::affinity::cookie;
use crate::random;
use http1::RequestHead;
use model::mesh::Session;
use std::borrow::Cow;
use std::time::{SystemTime, UNIX_EPOCH};
use traffic::balance::table::spread;

/// A request's session.
#[derive(Debug)]
pub struct Held {
    key: u64,
    /// Header for the answer, when the token is new.
    made: Option<(Cow<'static, str>, String)>,
}

impl Held {
    /// Chooses the backend.
    pub fn draw(&self) -> u32 {
        (self.key >> 32) as u32
    }

    /// Chooses the endpoint, whatever chose the backend.
    pub fn key(&self) -> u64 {
        spread(&self.key.to_le_bytes())
    }

    /// Header that tells the client its token, if it has none yet.
    pub fn made(&self) -> Option<(Cow<'static, str>, String)> {
        self.made.clone()
    }
}

/// The session of a request: that of the token it brings, or a new one.
pub fn held(session: &Session, head: &RequestHead) -> Held {
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let brought = match session.header {
        true => head.fields.get(&session.name),
        false => head.fields.get_all("cookie").find_map(|line| cookie(line, session.name.as_bytes())),
    };
    if let Some(key) = brought.and_then(|token| read(token, now_s)) {
        return Held { key, made: None };
    }
    let key = random::u64();
    let ends_s = if session.absolute_s == 0 { 0 } else { now_s + session.absolute_s };
    let token = format!("{key:016x}.{ends_s:x}");
    let made = if session.header {
        (session.name.to_string().into(), token)
    } else {
        let kept =
            if session.permanent && ends_s > 0 { format!("; Max-Age={}", session.absolute_s) } else { String::new() };
        ("set-cookie".into(), format!("{}={token}; Path=/; HttpOnly{kept}", session.name))
    };
    Held { key, made: Some(made) }
}

/// The key in a token that still counts.
fn read(token: &[u8], now_s: u64) -> Option<u64> {
    let (key, ends_s) = std::str::from_utf8(token).ok()?.split_once('.')?;
    let number = |text: &str| u64::from_str_radix(text, 16).ok().filter(|_| text.len() <= 16);
    let (key, ends_s) = (number(key)?, number(ends_s)?);
    (ends_s == 0 || now_s < ends_s).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens() {
        let session = |header, absolute_s| Session { name: "s".into(), header, absolute_s, permanent: true };
        let mut head = RequestHead::new("GET", "/", "h");
        let first = held(&session(false, 0), &head);
        let (name, value) = first.made().expect("a token is made");
        assert!(name == "set-cookie" && value.ends_with("; Path=/; HttpOnly"), "{value}");
        let token = value["s=".len()..].split(';').next().unwrap().to_owned();
        head.fields.append("cookie", format!("a=b; s={token}").as_bytes()).unwrap();
        let again = held(&session(false, 0), &head);
        assert!(again.made().is_none() && again.key() == first.key() && again.draw() == first.draw());
        assert!(held(&session(false, 9), &head).made().is_none(), "what was for ever stays so");
        head.fields.set("s", token.as_bytes()).unwrap();
        assert!(held(&session(true, 0), &head).made().is_none());
        for bad in ["", "x", "1", "1.", ".0", "1.1", "11112222333344445.0"] {
            head.fields.set("s", bad.as_bytes()).unwrap();
            let (name, _) = held(&session(true, 60), &head).made().expect(bad);
            assert_eq!(name, "s");
        }
        assert_eq!((read(b"a.64", 99), read(b"a.64", 100)), (Some(10), None));
    }
}
