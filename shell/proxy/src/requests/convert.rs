//! Between the heads of the library that speaks HTTP/2 to endpoints and ours.
use h2::ext::Protocol;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri};
use http1::{Fields, Framing, RequestHead, ResponseHead};

/// Fields that mean a connection; HTTP/2 forbids them, and here they never get across.
const CONNECTION_FIELDS: [&str; 6] =
    ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "http2-settings"];

/// A request to be sent in HTTP/2. None: something in it is not valid there.
pub fn http2_request(head: &RequestHead) -> Option<Request<()>> {
    let uri = Uri::builder().scheme("http").authority(head.authority()).path_and_query(head.target()).build().ok()?;
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(head.method().as_bytes()).ok()?;
    *request.uri_mut() = uri;
    *request.headers_mut() = header_map(&head.fields);
    if let Framing::Length(length) = head.framing {
        request.headers_mut().insert(http::header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    if head.te_trailers {
        request.headers_mut().insert(http::header::TE, HeaderValue::from_static("trailers"));
    }
    Some(request)
}

/// An upgrade to `protocol` as extended CONNECT (RFC 8441). None: something in it is not valid there.
pub fn extended_connect(head: &RequestHead, protocol: &'static str) -> Option<Request<()>> {
    let mut request = http2_request(head)?;
    *request.method_mut() = Method::CONNECT;
    request.extensions_mut().insert(Protocol::from_static(protocol));
    Some(request)
}

/// A response that came in HTTP/2.
pub fn response<B>(response: &Response<B>, ended: bool, head_request: bool) -> ResponseHead {
    let length = response.headers().get(http::header::CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let framing = match (ended || head_request, length) {
        (true, _) => Framing::Empty,
        (false, Some(length)) => Framing::Length(length),
        (false, None) => Framing::Chunked,
    };
    let mut head = ResponseHead::new(response.status().as_u16(), framing);
    head.announced_length = length.filter(|_| framing == Framing::Empty);
    for (name, value) in response.headers() {
        if name != http::header::CONTENT_LENGTH && !CONNECTION_FIELDS.contains(&name.as_str()) {
            append(&mut head.fields, name, value);
        }
    }
    head
}

/// Fields as h2 wants them.
pub fn header_map(fields: &Fields) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(fields.len() + 2);
    for (name, value, sensitive) in fields.iter_sensitive() {
        if let (Ok(name), Ok(mut value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value)) {
            value.set_sensitive(sensitive);
            map.append(name, value);
        }
    }
    map
}

/// Fields as h2 gives them.
pub fn fields(map: &HeaderMap) -> Fields {
    let mut fields = Fields::default();
    for (name, value) in map {
        append(&mut fields, name, value);
    }
    fields
}

/// What h2 took as a header value can stand in ours.
fn append(fields: &mut Fields, name: &HeaderName, value: &HeaderValue) {
    if fields.append(name.as_str(), value.as_bytes()).is_ok() && value.is_sensitive() {
        fields.mark_sensitive();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_said_whole() {
        let mut head = RequestHead::new("POST", "/a?b=c", "shop");
        head.fields.append("x-one", b"1").unwrap();
        head.fields.mark_sensitive();
        head.te_trailers = true;
        head.framing = Framing::Length(5);
        let outgoing = http2_request(&head).unwrap();
        assert_eq!((outgoing.method().as_str(), outgoing.uri().to_string().as_str()), ("POST", "http://shop/a?b=c"));
        assert_eq!(
            (&outgoing.headers()["te"], &outgoing.headers()["content-length"]),
            (&"trailers".parse().unwrap(), &"5".parse().unwrap())
        );
        assert_eq!(outgoing.headers()["x-one"], "1");
        assert!(outgoing.headers()["x-one"].is_sensitive() && !outgoing.headers()["te"].is_sensitive());
        assert!(fields(outgoing.headers()).iter_sensitive().all(|(name, _, marked)| marked == (name == "x-one")));
    }
}
