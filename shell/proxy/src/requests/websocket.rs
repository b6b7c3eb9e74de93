//! WebSocket over HTTP/2 (RFC 8441). A client's extended CONNECT is an upgrade of HTTP/1.1 to all that decides, and to the endpoint; unless that
//! takes extended CONNECT, which upgrades of either HTTP then become.
use super::body::{self, PumpError, Sink, Source};
use super::exchange::{self, Outcome};
use super::reply::{Caller, Responder};
use super::standing::Standing;
use super::streams::{self, Half};
use super::{Site, conn, convert};
use crate::random;
use crate::stream::Stream;
use crate::worker::Worker;
use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http1::{BodyDecoder, Framing, RequestHead, ResponseHead};
use std::io;
use std::sync::Arc;

/// What a server puts behind the key that it answers (RFC 6455, 1.3).
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const KEY: &str = "sec-websocket-key";
const PROTOCOL: &str = "websocket";
const ACCEPT: &str = "sec-websocket-accept";

/// Serves an extended CONNECT: the handshake like any request, and then bytes both ways.
pub async fn serve(worker: &Arc<Worker>, site: &Site, half: Half, mut head: RequestHead) {
    // HTTP/2 needs no key (RFC 8441, 5); HTTP/1.1 does.
    let _ = head.fields.set(KEY, STANDARD.encode(random::u128().to_be_bytes()).as_bytes());
    let (from, to) = (half.clone(), half.clone());
    let caller = Caller::Served(half.clone());
    let responder = Responder::Served { half, head_request: false };
    let outcome = exchange::run(worker, site, &mut head, Source::Empty, responder, caller).await;
    streams::recycle(head);
    if let Outcome::Switched(upstream, mut standing) = outcome {
        let ends = async { Standing::ends(&mut standing, worker, site).await };
        pass(from, to, upstream, ends).await;
    }
}

/// Whether a request opens a WebSocket, so that it can be said in HTTP/2.
pub fn is_opening(request: &RequestHead) -> bool {
    request.upgrade().is_some_and(|protocol| protocol.eq_ignore_ascii_case(PROTOCOL))
        && request.method() == "GET"
        && request.framing == Framing::Empty
        && request.fields.get(KEY).is_some()
}

/// The same in HTTP/2, where there are no keys. None: something in it is not valid there.
pub fn extended_connect(request: &RequestHead) -> Option<http::Request<()>> {
    let mut connect = convert::extended_connect(request, PROTOCOL)?;
    connect.headers_mut().remove(KEY);
    Some(connect)
}

/// Says in the words of HTTP/1.1 that the endpoint agreed in HTTP/2.
pub fn switched(request: &RequestHead, answer: &mut ResponseHead) {
    (answer.status, answer.framing) = (101, Framing::Empty);
    answer.set_upgrade(PROTOCOL);
    if let Some(key) = request.fields.get(KEY) {
        let _ = answer.fields.set(ACCEPT, accept(key).as_bytes());
    }
}

fn accept(key: &[u8]) -> String {
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, GUID.as_bytes()].concat()))
}

/// Whether an endpoint that switches protocols answers the key of this request.
fn is_agreed(request: &RequestHead, answer: &ResponseHead) -> bool {
    let (Some(key), Some(said)) = (request.fields.get(KEY), answer.fields.get(ACCEPT)) else { return false };
    said == accept(key).as_bytes()
}

/// Whether an answer that switches nothing would tell a client of HTTP/2 that the protocol was switched: there each good status does.
pub fn would_agree(answer: &ResponseHead, responder: Option<&Responder<'_>>) -> bool {
    (200..300).contains(&answer.status) && matches!(responder, Some(Responder::Served { .. }))
}

/// Says to a client that the endpoint has switched protocols. False: it has not, and nothing was said.
pub fn agree(request: &RequestHead, answer: &mut ResponseHead, half: &mut Half) -> io::Result<bool> {
    if !is_agreed(request, answer) {
        return Ok(false);
    }
    answer.fields.remove(ACCEPT);
    (answer.status, answer.framing) = (200, Framing::Chunked);
    half.respond(answer, false).map(|()| true)
}

/// Client and endpoint speak until both are done, or it `ends`: as fast as the slower one reads.
async fn pass(from: Half, to: Half, upstream: Stream, ends: impl Future<Output = ()>) {
    let (mut reader, mut writer) = conn::halves(upstream);
    let mut last = to.clone();
    let there = async {
        let sent = body::pump(&mut Source::Served(from), &mut Sink::H1(&mut writer, Framing::Close), None).await?;
        writer.shutdown().await.map_err(PumpError::Sink)?;
        Ok::<_, PumpError>(sent.bytes)
    };
    let back = async {
        let mut answers = Source::H1(&mut reader, BodyDecoder::new(Framing::Close));
        Ok(body::pump(&mut answers, &mut Sink::Served(to), None).await?.bytes)
    };
    let passed = tokio::select! {
        biased;
        () = ends => Err(PumpError::Sink(io::ErrorKind::PermissionDenied.into())),
        passed = async { tokio::try_join!(there, back) } => passed,
    };
    match passed {
        Ok((there, back)) => tracing::debug!(there, back, "a WebSocket ended"),
        Err(error) => {
            // RFC 8441, 5: one side's reset is the other's.
            tracing::debug!(%error, "a WebSocket broke");
            last.reset(http2::Code::CANCEL);
            if let Some(upstream) = conn::join(reader, writer) {
                upstream.abort();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6455, 1.3.
    #[test]
    fn an_endpoint_answers_the_key() {
        let mut request = RequestHead::new("GET", "/chat", "server.example.com");
        request.fields.append(KEY, b"dGhlIHNhbXBsZSBub25jZQ==").unwrap();
        let mut answer = ResponseHead::new(101, Framing::Empty);
        assert!(!is_agreed(&request, &answer));
        answer.fields.append(ACCEPT, b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=").unwrap();
        assert!(is_agreed(&request, &answer));
        request.fields.set(KEY, b"dGhlIHNhbXBsZSBub25jZR==").unwrap();
        assert!(!is_agreed(&request, &answer));
    }
}
