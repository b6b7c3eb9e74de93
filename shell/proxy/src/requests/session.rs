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
    let brought = brought.and_then(|token| read(token, session.idle_s > 0, now_s));
    if let Some(token) = brought
        && !token.is_to_be_renewed(session.idle_s, now_s)
    {
        return Held { key: token.key, made: None };
    }
    let (key, ends_s) = brought.map_or_else(
        || (random::u64(), if session.absolute_s == 0 { 0 } else { now_s + session.absolute_s }),
        |token| (token.key, token.ends_s),
    );
    let token = match session.idle_s {
        0 => format!("{key:016x}.{ends_s:x}"),
        idle_s => format!("{key:016x}.{ends_s:x}.{:x}", now_s + idle_s),
    };
    let made = if session.header {
        (session.name.to_string().into(), token)
    } else {
        let kept = match ends_s.saturating_sub(now_s) {
            left_s if session.permanent && left_s > 0 => format!("; Max-Age={left_s}"),
            _ => String::new(),
        };
        ("set-cookie".into(), format!("{}={token}; Path=/; HttpOnly{kept}", session.name))
    };
    Held { key, made: Some(made) }
}

/// What a token says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Token {
    key: u64,
    /// Seconds since the epoch; 0: never.
    ends_s: u64,
    /// When it ends unless it is brought before; 0: it does not say so.
    idle_ends_s: u64,
}

impl Token {
    /// Whether the client gets it with a later end: not each time, so that most answers carry none.
    fn is_to_be_renewed(self, idle_s: u64, now_s: u64) -> bool {
        idle_s > 0 && self.idle_ends_s.saturating_sub(now_s) <= idle_s - idle_s.div_ceil(8)
    }
}

/// A token that still counts; `idle`: also after what it says of idling.
fn read(token: &[u8], idle: bool, now_s: u64) -> Option<Token> {
    let mut parts = std::str::from_utf8(token).ok()?.splitn(3, '.');
    let number = |text: &str| u64::from_str_radix(text, 16).ok().filter(|_| text.len() <= 16);
    let (key, ends_s) = (number(parts.next()?)?, number(parts.next()?)?);
    let idle_ends_s = parts.next().map_or(Some(0), number)?;
    let over = |end_s: u64| end_s != 0 && now_s >= end_s;
    let is_over = over(ends_s) || idle && over(idle_ends_s);
    (!is_over).then_some(Token { key, ends_s, idle_ends_s })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens() {
        let session = |header, absolute_s| Session { name: "s".into(), header, absolute_s, idle_s: 0, permanent: true };
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
        let key = |token: &[u8], idle, now_s| read(token, idle, now_s).map(|token| token.key);
        assert_eq!((key(b"a.64", false, 99), key(b"a.64", false, 100)), (Some(10), None));
        assert_eq!((key(b"a.0.64", true, 99), key(b"a.0.64", true, 100)), (Some(10), None));
        assert_eq!(key(b"a.0.64", false, 100), Some(10), "nobody asks any more how long it idled");
        assert_eq!(key(b"a.0.", true, 0), None);
    }

    #[test]
    fn a_session_that_is_used_goes_on() {
        let session = Session { name: "s".into(), header: true, absolute_s: 0, idle_s: 80, permanent: false };
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let mut head = RequestHead::new("GET", "/", "h");
        let (_, token) = held(&session, &head).made().expect("a token is made");
        head.fields.set("s", token.as_bytes()).unwrap();
        assert!(held(&session, &head).made().is_none(), "a moment later nothing has to be said");
        head.fields.set("s", format!("a.0.{:x}", now_s + 40).as_bytes()).unwrap();
        let renewed = held(&session, &head);
        assert!(renewed.key == 10 && renewed.made().is_some_and(|(_, token)| token.starts_with("000000000000000a.0.")));
        head.fields.set("s", format!("a.0.{:x}", now_s - 1).as_bytes()).unwrap();
        assert_ne!(held(&session, &head).key, 10, "it idled too long");
    }
}
