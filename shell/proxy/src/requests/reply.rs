//! Answers that the proxy gives itself.
use super::body::Sink;
use super::conn::{Reader, Watch, Writer};
use super::streams::Half;
use crate::telemetry::Flag;
use bytes::Bytes;
use http1::{Fields, Framing, RequestHead, RequestKind, ResponseHead, Version};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

/// Set on an answer that the proxy before a process gives in its place: what became of the request there. The caller's proxy takes
/// it off and asks another endpoint, if the request may be sent again.
pub const UNANSWERED: &str = "x-diolkos-unanswered";

/// Values of [`UNANSWERED`].
pub mod unanswered {
    /// Nothing of the request got to the process.
    pub const NOT_SENT: &str = "not-sent";
    /// The process got it, or some of it, and its connection broke before a byte of an answer.
    pub const RESET: &str = "reset";
    /// The pod drains: nothing of the request got to the process, and no further one should be sent.
    pub const DRAINING: &str = "draining";
}

/// An answer, in words of HTTP; it is told in gRPC's own way to who speaks that.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    /// For the log, and for the body of what is no secret.
    pub why: &'static str,
    pub headers: Vec<(&'static str, String)>,
    /// In place of `why`.
    pub body: Option<Bytes>,
    /// Headers whose names are somebody else's.
    pub own: Vec<(String, String)>,
    /// Not before so many milliseconds.
    pub after_ms: u64,
    /// Who is to blame, for telemetry.
    pub flag: Flag,
}

impl Reply {
    /// An answer with a reason.
    pub fn new(status: u16, why: &'static str) -> Self {
        Self { status, why, headers: Vec::new(), body: None, own: Vec::new(), after_ms: 0, flag: Flag::None }
    }

    /// Refused by policy. The text is Envoy's, which people look for; which policy it was only the operator sees.
    pub fn denied() -> Self {
        Self::new(403, "RBAC: access denied")
    }

    /// With a header.
    pub fn with(mut self, name: &'static str, value: String) -> Self {
        self.headers.push((name, value));
        self
    }

    /// With a flag.
    pub fn flagged(self, flag: Flag) -> Self {
        Self { flag, ..self }
    }

    /// With a delay.
    pub fn after(self, after_ms: u64) -> Self {
        Self { after_ms, ..self }
    }

    /// With headers of somebody's own.
    pub fn with_own(self, own: Vec<(String, String)>) -> Self {
        Self { own, ..self }
    }

    /// With a body of somebody's own.
    pub fn saying(self, body: Bytes) -> Self {
        Self { body: Some(body), ..self }
    }

    /// The gRPC status that stands for it.
    pub fn grpc_status(&self) -> u8 {
        match self.status {
            400 => 13,
            401 => 16,
            403 => 7,
            404 => 12,
            429 | 502 | 503 => 14,
            504 => 4,
            _ => 2,
        }
    }

    /// Head and body.
    pub fn render(&self, grpc: bool) -> (ResponseHead, Bytes) {
        let mut head;
        let mut body = Bytes::new();
        if grpc && self.body.is_none() && !(200..400).contains(&self.status) {
            head = ResponseHead::new(200, Framing::Empty);
            let status = self.grpc_status().to_string();
            for (name, value) in
                [("content-type", "application/grpc"), ("grpc-status", &status), ("grpc-message", self.why)]
            {
                let _ = head.fields.append(name, value.as_bytes());
            }
        } else {
            head = ResponseHead::new(self.status, Framing::Empty);
            if self.status >= 400 || self.body.is_some() {
                body = self.body.clone().unwrap_or(Bytes::from_static(self.why.as_bytes()));
                head.framing = Framing::Length(body.len() as u64);
                let _ = head.fields.append("content-type", b"text/plain");
            }
        }
        for (name, value) in &self.headers {
            let _ = head.fields.append(name, value.as_bytes());
        }
        for (name, value) in &self.own {
            let _ = head.fields.append(name, value.as_bytes());
        }
        (head, body)
    }
}

/// Whether a request is a gRPC call.
pub fn is_grpc(fields: &Fields) -> bool {
    fields.get("content-type").is_some_and(|value| value.starts_with(b"application/grpc"))
}

/// Where an answer goes. It is used up by the answer's head.
#[derive(Debug)]
pub enum Responder<'a> {
    /// An HTTP/1.1 connection.
    H1 { writer: &'a mut Writer, version: Version, keep_alive: bool, head_request: bool },
    /// An HTTP/2 stream.
    Served { half: Half, head_request: bool },
    /// Nobody waits for it (a mirrored request).
    Nobody,
    /// Several tries race for it: the first that begins an answer takes it.
    Raced(Prize<'a>),
}

/// Whoever waits for an answer, as far as it can be seen whether he still does.
#[derive(Debug)]
pub enum Caller<'a> {
    /// It cannot be seen: his request is still being read, which tells, or nobody waits.
    Unseen,
    /// An HTTP/1.1 connection that somebody else reads the request's body from.
    Reading(Watch),
    /// An HTTP/1.1 connection.
    H1(Mutex<&'a mut Reader>),
    /// An HTTP/2 stream.
    Served(Half),
}

impl Caller<'_> {
    /// Ready when he is gone. `all_read`: nobody reads from him any longer.
    pub fn poll_gone(&self, cx: &mut Context<'_>, all_read: bool) -> Poll<()> {
        match self {
            Self::Unseen => Poll::Pending,
            Self::Reading(watch) => watch.poll_gone(cx, all_read),
            Self::H1(reader) => reader.lock().unwrap_or_else(PoisonError::into_inner).poll_gone(cx),
            Self::Served(half) => half.poll_gone(cx),
        }
    }

    /// Whether he speaks HTTP/2.
    pub fn speaks_http2(&self) -> bool {
        matches!(self, Self::Served(_))
    }
}

/// Where the answer of the try goes that wins a race; empty from then on.
pub type Prize<'a> = Arc<Mutex<Option<Box<Responder<'a>>>>>;

impl<'a> Responder<'a> {
    /// What the responder must know of a request.
    pub fn h1(writer: &'a mut Writer, head: &RequestHead, keep_alive: bool) -> Self {
        Self::H1 { writer, version: head.version, keep_alive, head_request: head.method() == "HEAD" }
    }

    /// Sends the head of the answer; the body goes into the sink. True: the connection may be used again after it.
    pub fn start(self, head: &mut ResponseHead) -> io::Result<(Sink<'a>, bool)> {
        match self {
            Self::H1 { writer, version, mut keep_alive, head_request } => {
                if head_request {
                    head.announced_length = head.announced_length.or(match head.framing {
                        Framing::Length(length) => Some(length),
                        _ => None,
                    });
                    head.framing = Framing::Empty;
                }
                if matches!(head.framing, Framing::Close | Framing::Chunked) {
                    let chunks = version == Version::Http11;
                    head.framing = if chunks { Framing::Chunked } else { Framing::Close };
                    keep_alive &= chunks;
                }
                let kind = if head_request { RequestKind::Head } else { RequestKind::Other };
                http1::encode_response(head, kind, version, keep_alive, &mut writer.out);
                Ok((Sink::H1(writer, head.framing), keep_alive))
            }
            Self::Served { mut half, head_request } => {
                let ended = head_request || head.framing == Framing::Empty;
                half.respond(head, ended)?;
                Ok((if ended { Sink::Ended } else { Sink::Served(half) }, true))
            }
            Self::Nobody => Ok((Sink::Ended, true)),
            Self::Raced(prize) => {
                let won = prize.lock().unwrap_or_else(PoisonError::into_inner).take();
                won.ok_or_else(|| io::Error::other("another try has won"))?.start(head)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_in_the_callers_own_words() {
        let (head, body) = Reply::denied().render(false);
        assert_eq!((head.status, &body[..]), (403, &b"RBAC: access denied"[..]));
        for (status, grpc) in [(403, "7"), (404, "12"), (503, "14"), (504, "4"), (500, "2")] {
            let (head, body) = Reply::new(status, "why").render(true);
            assert_eq!((head.status, head.fields.get_str("grpc-status")), (200, Some(grpc)));
            assert!(body.is_empty() && head.framing == Framing::Empty);
        }
        let moved = Reply::new(302, "redirect").with("location", "https://a/".into());
        assert_eq!(moved.render(true).0.status, 302, "a redirect is no failure");
    }
}
