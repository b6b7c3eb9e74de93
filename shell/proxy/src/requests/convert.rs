//! Between the heads of HTTP/2 and ours.
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http1::{Fields, Framing, RequestHead, ResponseHead, escapes_are_sound, method_is_sound};

/// Fields that mean a connection; HTTP/2 forbids them, and here they never get across.
const CONNECTION_FIELDS: [&str; 6] =
    ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "http2-settings"];

/// A request that came in HTTP/2. None: it is not one that HTTP/1.1 could say (the sender's fault).
pub fn request<B>(request: &Request<B>, ended: bool) -> Option<RequestHead> {
    let mut hosts = request.headers().get_all(http::header::HOST).iter();
    let host = match hosts.next() {
        Some(host) => Some(host.to_str().ok()?),
        None => None,
    };
    let authority = request.uri().authority().map(|authority| authority.as_str()).or(host)?;
    // RFC 9113 8.3.1: who is named twice is named alike, or somebody behind us would read the other one.
    if hosts.next().is_some() || host.is_some_and(|host| !host.eq_ignore_ascii_case(authority)) {
        return None;
    }
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    let sound = |text: &str| text.bytes().all(|byte| byte > b' ' && byte != 0x7f);
    if !sound(target) || !sound(authority) || authority.contains(['/', '@', '?', '#']) {
        return None;
    }
    let method = request.method().as_str();
    let of_a_request = target.starts_with('/') || (target == "*" && method == "OPTIONS");
    if !of_a_request || !method_is_sound(method) || !escapes_are_sound(target) || request.uri().scheme_str() == Some("")
    {
        return None;
    }
    let mut head = RequestHead::new(method, target, authority);
    let mut length = None;
    let mut cookies = Vec::new();
    for (name, value) in request.headers() {
        match name.as_str() {
            "host" => {}
            "content-length" => {
                if !value.as_bytes().iter().all(u8::is_ascii_digit)
                    || length.replace(value.to_str().ok()?.parse::<u64>().ok()?).is_some()
                {
                    return None;
                }
            }
            "te" => head.te_trailers = value.as_bytes().eq_ignore_ascii_case(b"trailers"),
            // RFC 9113 8.2.3: split cookies are one field again in HTTP/1.1.
            "cookie" => {
                if !cookies.is_empty() {
                    cookies.extend_from_slice(b"; ");
                }
                cookies.extend_from_slice(value.as_bytes());
            }
            name if CONNECTION_FIELDS.contains(&name) => {}
            name => head.fields.append(name, value.as_bytes()).ok()?,
        }
    }
    if !cookies.is_empty() {
        head.fields.append("cookie", &cookies).ok()?;
    }
    head.framing = match (ended, length) {
        (true, _) | (_, Some(0)) => Framing::Empty,
        (false, Some(length)) => Framing::Length(length),
        (false, None) => Framing::Chunked,
    };
    Some(head)
}

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
            // What h2 took as a header value can stand in ours.
            let _ = head.fields.append(name.as_str(), value.as_bytes());
        }
    }
    head
}

/// A response to be sent in HTTP/2.
pub fn http2_response(head: &ResponseHead) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(head.status).unwrap_or(StatusCode::BAD_GATEWAY);
    *response.headers_mut() = header_map(&head.fields);
    let length = match head.framing {
        Framing::Length(length) => Some(length),
        Framing::Empty => head.announced_length,
        Framing::Chunked | Framing::Close => None,
    };
    if let Some(length) = length {
        response.headers_mut().insert(http::header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    response
}

/// Fields as h2 wants them.
pub fn header_map(fields: &Fields) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(fields.len() + 2);
    for (name, value) in fields.iter() {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value)) {
            map.append(name, value);
        }
    }
    map
}

/// Fields as h2 gives them.
pub fn fields(map: &HeaderMap) -> Fields {
    let mut fields = Fields::default();
    for (name, value) in map {
        let _ = fields.append(name.as_str(), value.as_bytes());
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_survive_the_way_to_http_1_and_back() {
        let incoming = Request::post("http://shop/a?b=c")
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .header("te", "trailers")
            .header("x-one", "1")
            .header("content-length", "5")
            .body(())
            .unwrap();
        let head = request(&incoming, false).unwrap();
        assert_eq!((head.method(), head.target(), head.authority()), ("POST", "/a?b=c", "shop"));
        assert_eq!(head.fields.get("cookie"), Some(&b"a=1; b=2"[..]));
        assert_eq!(head.framing, Framing::Length(5));
        let outgoing = http2_request(&head).unwrap();
        assert_eq!(outgoing.uri(), incoming.uri());
        assert_eq!(outgoing.headers()["te"], "trailers");
        assert_eq!(outgoing.headers()["content-length"], "5");
    }

    #[test]
    fn what_http_1_cannot_say_is_refused() {
        let two_lengths = Request::get("http://a/").header("content-length", "1").header("content-length", "2");
        assert!(request(&two_lengths.body(()).unwrap(), false).is_none());
        let not_a_number = Request::get("http://a/").header("content-length", "+1").body(()).unwrap();
        assert!(request(&not_a_number, false).is_none());
        assert!(request(&Request::get("/no-host").body(()).unwrap(), true).is_none());
        assert!(request(&Request::get("http://a/").header("host", "b").body(()).unwrap(), true).is_none());
        assert!(request(&Request::get("http://a/").header("host", "A").body(()).unwrap(), true).is_some());
        assert!(
            request(&Request::get("http://a/").header("host", "a").header("host", "a").body(()).unwrap(), true)
                .is_none()
        );
        let hops = Request::get("http://a/").header("connection", "x").header("transfer-encoding", "chunked");
        assert!(request(&hops.body(()).unwrap(), true).unwrap().fields.is_empty());
    }
}
