//! External authorization (a CUSTOM policy): somebody else is asked about a request, in Envoy's ext_authz protocol, by gRPC or HTTP.
use super::body::Source;
use super::call::{Callee, collect};
use super::conn;
use crate::origin::Origin;
use crate::policy::Caller;
use crate::stream::Stream;
use crate::worker::Worker;
use bytes::Bytes;
use http1::{BodyDecoder, RequestHead, RequestKind, ResponseHead};
use model::mesh::policy::{ExtensionProvider, ProviderKind};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::timeout;
use xds::ext_authz as wire;

/// What the authorizer says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The request may pass.
    pub pass: bool,
    /// Headers to put on the request (`true`: beside others of the name), or on the refusal.
    pub headers: Vec<(String, String, bool)>,
    /// Headers to take off the request.
    pub remove: Vec<String>,
    /// Status of the refusal.
    pub status: u16,
    /// Body of the refusal.
    pub body: Bytes,
}

/// The two ends of the request.
#[derive(Clone, Copy, Debug)]
pub struct Ends<'a> {
    pub caller: &'a Caller,
    pub to: SocketAddr,
    /// Identity of who is called.
    pub own: &'a str,
    /// Protocol of the request, `HTTP/1.1` or `HTTP/2`.
    pub protocol: &'static str,
}

/// Asks. An error means that there was no answer.
pub async fn ask(
    worker: &Worker,
    origin: &Origin,
    provider: &ExtensionProvider,
    head: &RequestHead,
    ends: Ends<'_>,
) -> Result<Verdict, String> {
    let asking = async {
        let callee = callee(worker, origin, provider)?;
        match &provider.kind {
            ProviderKind::Grpc => {
                let answer = callee.unary(worker, origin, wire::CHECK_PATH, &check_request(head, ends)).await;
                answer.map(verdict)
            }
            ProviderKind::Http { .. } => by_http(callee.connect(worker, origin).await?, provider, head).await,
        }
    };
    let limit = Duration::from_millis(provider.timeout_ms);
    timeout(limit, asking).await.map_err(|_| "the authorizer took too long".to_owned())?
}

fn callee(worker: &Worker, origin: &Origin, provider: &ExtensionProvider) -> Result<Callee, String> {
    let mesh = worker.shared.mesh.known();
    let known = mesh.directory.service_for_all(&provider.service, &provider.namespace);
    let key = known
        .map(|it| it.service.key.clone())
        .ok_or_else(|| format!("no service has the host {}", provider.service))?;
    Callee::new(worker, origin, &key, (provider.port, &provider.service))
}

fn check_request(head: &RequestHead, ends: Ends<'_>) -> wire::CheckRequest {
    let peer = |address: SocketAddr, principal: String| wire::Peer {
        address: Some(wire::Address {
            socket_address: Some(wire::SocketAddress {
                address: address.ip().to_string(),
                port: address.port().into(),
            }),
        }),
        principal,
    };
    let caller = ends.caller.identity.as_ref().map(ToString::to_string).unwrap_or_default();
    let mut headers = std::collections::BTreeMap::<String, String>::new();
    for (name, value) in head.fields.iter() {
        let value = String::from_utf8_lossy(value);
        // As Envoy tells them, and authorizers look for them.
        headers
            .entry(name.to_ascii_lowercase())
            .and_modify(|have| *have = format!("{have},{value}"))
            .or_insert(value.into());
    }
    for (name, value) in [(":method", head.method()), (":path", head.target()), (":authority", head.authority())] {
        headers.insert(name.to_owned(), value.to_owned());
    }
    let http = wire::HttpRequest {
        method: head.method().to_owned(),
        headers,
        path: head.target().to_owned(),
        host: head.authority().to_owned(),
        scheme: "http".into(),
        protocol: ends.protocol.into(),
    };
    wire::CheckRequest {
        attributes: Some(wire::AttributeContext {
            source: Some(peer(ends.caller.address, caller)),
            destination: Some(peer(ends.to, ends.own.to_owned())),
            request: Some(wire::Request { http: Some(http) }),
        }),
    }
}

fn verdict(answer: wire::CheckResponse) -> Verdict {
    let headers = |headers: Vec<wire::HeaderValueOption>| -> Vec<(String, String, bool)> {
        let all = headers.into_iter().filter_map(|it| Some((it.header?, it.append.is_some_and(|append| append.value))));
        all.map(|(header, append)| (header.key.to_ascii_lowercase(), header.value, append)).collect()
    };
    let pass = answer.status.as_ref().is_some_and(|status| status.code == 0);
    if pass {
        let ok = answer.ok.unwrap_or_default();
        return Verdict { pass, headers: headers(ok.headers), remove: ok.headers_to_remove, ..Verdict::default() };
    }
    let denied = answer.denied.unwrap_or_default();
    let status = denied.status.and_then(|status| u16::try_from(status.code).ok()).filter(|it| (200..600).contains(it));
    Verdict {
        pass,
        headers: headers(denied.headers),
        remove: Vec::new(),
        status: status.unwrap_or(403),
        body: denied.body.into(),
    }
}

async fn by_http(stream: Stream, provider: &ExtensionProvider, head: &RequestHead) -> Result<Verdict, String> {
    let ProviderKind::Http { prefix, send, add, upstream, downstream } = &provider.kind else {
        return Err("not an HTTP provider".into());
    };
    let target = format!("{prefix}{}", head.target());
    let mut asking = RequestHead::new(head.method(), &target, head.authority());
    asking.keep_alive = false;
    for (name, value) in head.fields.iter() {
        // Authorization always goes along, as Envoy has it.
        if name.eq_ignore_ascii_case("authorization") || listed(send, name) {
            let _ = asking.fields.append(name, value);
        }
    }
    for (name, value) in add {
        let _ = asking.fields.set(name, value.as_bytes());
    }
    let (mut reader, mut writer) = conn::halves(stream);
    http1::encode_request(&asking, &mut writer.out);
    writer.flush().await.map_err(|error| error.to_string())?;
    let mut answer = ResponseHead::default();
    let kind = if head.method() == "HEAD" { RequestKind::Head } else { RequestKind::Other };
    loop {
        let read = reader.response(kind, &mut answer).await.map_err(|error| error.to_string())?;
        if read.is_none() {
            return Err("the authorizer closed the connection".into());
        }
        if !answer.is_interim() {
            break;
        }
    }
    let decoder = BodyDecoder::new(answer.framing);
    let body = collect(&mut Source::H1(&mut reader, decoder)).await?;
    if answer.status >= 500 {
        return Err(format!("the authorizer answered {}", answer.status));
    }
    let pass = answer.status == 200;
    let passed_on = if pass { upstream } else { downstream };
    let all = answer.fields.iter();
    // A refusal's headers all go to the caller unless some are named; the framing is ours.
    let kept = all.filter(|(name, _)| {
        listed(passed_on, name) || (!pass && downstream.is_empty() && !name.eq_ignore_ascii_case("content-length"))
    });
    let headers =
        kept.map(|(name, value)| (name.to_ascii_lowercase(), String::from_utf8_lossy(value).into_owned(), false));
    Ok(Verdict { pass, headers: headers.collect(), remove: Vec::new(), status: answer.status, body })
}

/// Whether a name, in whichever case, is in a list of exact names, `prefix*` and `*suffix` in small letters.
fn listed(list: &[std::sync::Arc<str>], name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    list.iter().any(|pattern| match (pattern.strip_suffix('*'), pattern.strip_prefix('*')) {
        (Some(prefix), _) => name.starts_with(prefix),
        (None, Some(suffix)) => name.ends_with(suffix),
        (None, None) => **pattern == *name,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts() {
        let header = |key: &str, value: &str, append: bool| wire::HeaderValueOption {
            header: Some(wire::HeaderValue { key: key.into(), value: value.into() }),
            append: Some(wire::BoolValue { value: append }),
        };
        let status = |code| Some(wire::Status { code, message: String::new() });
        let ok = wire::OkResponse {
            headers: vec![header("X-User", "me", true)],
            headers_to_remove: vec!["x-secret".into()],
            response_headers: vec![],
        };
        let passed = verdict(wire::CheckResponse { status: status(0), denied: None, ok: Some(ok) });
        assert!(passed.pass);
        assert_eq!(passed.headers, [("x-user".into(), "me".into(), true)]);
        assert_eq!(passed.remove, ["x-secret"]);
        let denied = wire::DeniedResponse {
            status: Some(wire::HttpStatus { code: 401 }),
            headers: vec![header("www-authenticate", "x", false)],
            body: "no".into(),
        };
        let refused = verdict(wire::CheckResponse { status: status(7), denied: Some(denied), ok: None });
        assert_eq!((refused.pass, refused.status, &refused.body[..]), (false, 401, &b"no"[..]));
        let bare = verdict(wire::CheckResponse { status: status(16), denied: None, ok: None });
        assert_eq!((bare.pass, bare.status), (false, 403));
        assert!(!verdict(wire::CheckResponse::default()).pass, "an answer without a status lets nothing pass");
    }

    #[test]
    fn names_are_listed() {
        let list = ["x-a".into(), "x-b-*".into(), "*-c".into()];
        for (name, yes) in [
            ("x-a", true),
            ("x-b-1", true),
            ("y-c", true),
            ("X-A", true),
            ("X-B-1", true),
            ("Y-C", true),
            ("x-b", false),
            ("x-ab", false),
        ] {
            assert_eq!(listed(&list, name), yes, "{name}");
        }
    }
}
