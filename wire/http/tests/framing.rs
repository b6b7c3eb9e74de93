//! One reading only: what is refused, what is understood, and that neither depends on how the bytes arrive.
use diolkos_http1::*;
use proptest::prelude::*;

fn request(text: &str) -> Result<Option<(RequestHead, usize)>, HeadError> {
    let mut head = RequestHead::default();
    Ok(parse_request(text.as_bytes(), Limits::default(), &mut head)?.map(|length| (head, length)))
}

#[test]
fn smuggling_attempts_are_refused_with_their_reason() {
    use HeadError::*;
    let cases: &[(&str, HeadError)] = &[
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", TwoFramings),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", BadLength),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n", BadLength),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n", BadLength),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", BadLength),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\n", BadLength),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n", BadLength),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", BadLength),
        ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", UnknownCoding),
        ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", UnknownCoding),
        ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", UnknownCoding),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            UnknownCoding,
        ),
        ("GET / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", UnknownCoding),
        ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n", Malformed("header name")),
        ("GET / HTTP/1.1\r\nHost: a\r\n Transfer-Encoding: chunked\r\n\r\n", Malformed("header name")),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", Malformed("header name")),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n", Malformed("header value")),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", Malformed("header value")),
        ("GET / HTTP/1.1\nHost: a\n\n", BareLineFeed),
        ("GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", BareLineFeed),
        ("GET / HTTP/1.1\r\nHost: a\r\n\n", BareLineFeed),
        ("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", BareLineFeed),
        ("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Malformed("request line")),
        ("GET / HTTP/1.1\r\n\r\n", BadHost),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", BadHost),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", BadHost),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", BadHost),
        ("GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", BadHost),
        // To some readers this is `a`.
        ("GET / HTTP/1.1\r\nHost: [a]\r\n\r\n", BadHost),
        ("GET / HTTP/1.1\r\nHost: [a]:80\r\n\r\n", BadHost),
        ("GET / HTTP/1.1\r\nHost: [::1]a\r\n\r\n", BadHost),
        ("GET / HTTP/1.1\r\nHost: [::1]:a\r\n\r\n", BadHost),
        ("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", BadHost),
        ("GET / HTTP/1.1\r\nHost: a[::1]\r\n\r\n", BadHost),
        ("GET / HTTP/1.1\r\nHost: [fe80::1%25eth0]\r\n\r\n", BadHost),
        ("GET http://[a]/ HTTP/1.1\r\nHost: a\r\n\r\n", BadHost),
        ("GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", BadHost),
        ("GET x HTTP/1.1\r\nHost: a\r\n\r\n", Malformed("request target")),
        ("GET /#f HTTP/1.1\r\nHost: a\r\n\r\n", Malformed("request target")),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", Malformed("start line")),
        ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", Malformed("version")),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", Malformed("version")),
        ("GET /\r\nHost: a\r\n\r\n", Malformed("start line")),
        ("G{T / HTTP/1.1\r\nHost: a\r\n\r\n", Malformed("start line")),
        ("GET / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\n\r\n", UnknownExpectation),
        ("\x16\x03\x01\x02\x00\x01\x00", Malformed("start line")),
    ];
    for (text, error) in cases {
        assert_eq!(request(text).map(|_| ()), Err(*error), "{text:?}");
    }
}

#[test]
fn hop_by_hop_fields_are_read_and_not_passed_on() {
    let text = "POST /a?b=c HTTP/1.1\r\nHost: shop:80\r\nX-One: 1\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\n\
                Keep-Alive: timeout=5\r\nTE: trailers\r\nTransfer-Encoding: Chunked\r\nexpect: 100-Continue\r\nProxy-Connection: x\r\n\r\n";
    let (head, length) = request(text).unwrap().unwrap();
    assert_eq!(length, text.len());
    assert_eq!((head.method(), head.path(), head.query(), head.authority()), ("POST", "/a", Some("b=c"), "shop:80"));
    assert_eq!(head.fields.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["X-One"]);
    assert_eq!(head.framing, Framing::Chunked);
    assert!(head.keep_alive && head.expect_continue && head.te_trailers);
    let mut out = Vec::new();
    encode_request(&head, &mut out);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "POST /a?b=c HTTP/1.1\r\nhost: shop:80\r\nX-One: 1\r\ntransfer-encoding: chunked\r\nte: trailers\r\nconnection: te\r\n\r\n"
    );
}

#[test]
fn hosts_are_names_and_addresses() {
    for host in ["a", "a.b:80", "10.0.0.1:80", "[::1]", "[2001:db8::1]:8080", "[::1]:", "*.a_b~c", ""] {
        let (head, _) = request(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).unwrap().unwrap();
        assert_eq!(head.authority(), host);
    }
}

#[test]
fn fields_that_are_read_here_can_be_asked_for() {
    let text = "POST /a?b HTTP/1.1\r\nHost: shop:80\r\nTE: trailers\r\nContent-Length: 5\r\nConnection: upgrade\r\nUpgrade: x\r\nX: y\r\n\r\n";
    let (head, _) = request(text).unwrap().unwrap();
    let (bare, _) = request("GET / HTTP/1.0\r\n\r\n").unwrap().unwrap();
    for (name, value, of_bare) in [
        ("host", Some("shop:80"), None),
        ("Host", Some("shop:80"), None),
        (":authority", Some("shop:80"), None),
        (":method", Some("POST"), Some("GET")),
        (":path", Some("/a?b"), Some("/")),
        ("content-length", Some("5"), None),
        ("te", Some("trailers"), None),
        ("connection", Some("upgrade"), None),
        ("upgrade", Some("x"), None),
        ("x", None, None),
    ] {
        assert_eq!((head.read_here(name).as_deref(), bare.read_here(name).as_deref()), (value, of_bare), "{name}");
    }
    let (empty, _) = request("PUT / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap().unwrap();
    assert_eq!(empty.read_here("content-length").as_deref(), Some("0"), "as the next hop is told");
}

#[test]
fn a_length_is_announced_by_who_knows_it() {
    let encoded = |kind, announced_length| {
        let mut head = ResponseHead::new(200, Framing::Empty);
        head.announced_length = announced_length;
        let mut out = Vec::new();
        encode_response(&head, kind, Version::Http11, true, &mut out);
        String::from_utf8(out).unwrap().split_once("content-length: ").map(|(_, rest)| rest.trim_end().to_owned())
    };
    for (kind, announced, expect) in [
        (RequestKind::Other, None, Some("0")),
        (RequestKind::Head, None, None),
        (RequestKind::Head, Some(0), Some("0")),
        (RequestKind::Head, Some(7), Some("7")),
    ] {
        assert_eq!(encoded(kind, announced).as_deref(), expect, "{kind:?} {announced:?}");
    }
}

#[test]
fn the_absolute_form_wins_over_host() {
    let (head, _) = request("GET HTTP://real:81?x HTTP/1.1\r\nHost: other\r\n\r\n").unwrap().unwrap();
    assert_eq!((head.authority(), head.target()), ("real:81", "/?x"));
    let (head, _) = request("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").unwrap().unwrap();
    assert_eq!(head.target(), "*");
}

#[test]
fn upgrades_are_kept_but_not_to_h2c() {
    let text = |to: &str| {
        format!(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: {to}\r\nHTTP2-Settings: x\r\n\r\n"
        )
    };
    assert_eq!(request(&text("websocket")).unwrap().unwrap().0.upgrade(), Some("websocket"));
    let (head, _) = request(&text("h2c")).unwrap().unwrap();
    assert_eq!((head.upgrade(), head.fields.len()), (None, 0));
}

#[test]
fn limits_hold_before_the_head_is_whole() {
    let limits = Limits { head_bytes: 100, target_bytes: 20 };
    let mut head = RequestHead::default();
    let long_target = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(30));
    assert_eq!(parse_request(long_target.as_bytes(), limits, &mut head), Err(HeadError::TargetTooLong));
    let endless = "G".repeat(100);
    assert_eq!(parse_request(endless.as_bytes(), limits, &mut head), Err(HeadError::TargetTooLong));
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}", "a: b\r\n".repeat(20));
    assert_eq!(parse_request(many.as_bytes(), limits, &mut head), Err(HeadError::TooLarge));
    let fields = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "a: b\r\n".repeat(200));
    assert_eq!(request(&fields).map(|_| ()), Err(HeadError::TooLarge));
}

#[test]
fn responses_end_where_their_request_says() {
    let cases = [
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", RequestKind::Other, Framing::Length(5), None, true),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", RequestKind::Head, Framing::Empty, Some(5), true),
        ("HTTP/1.1 304 \r\nContent-Length: 5\r\n\r\n", RequestKind::Other, Framing::Empty, Some(5), true),
        ("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", RequestKind::Other, Framing::Empty, None, true),
        ("HTTP/1.1 200 OK\r\n\r\n", RequestKind::Other, Framing::Close, None, false),
        ("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", RequestKind::Other, Framing::Length(0), None, false),
        (
            "HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
            RequestKind::Other,
            Framing::Chunked,
            None,
            false,
        ),
    ];
    for (text, kind, framing, announced, keep_alive) in cases {
        let mut head = ResponseHead::default();
        let length = parse_response(text.as_bytes(), Limits::default(), kind, &mut head).unwrap();
        assert_eq!(length, Some(text.len()), "{text:?}");
        assert_eq!(
            (head.framing, head.announced_length, head.keep_alive),
            (framing, announced, keep_alive),
            "{text:?}"
        );
    }
    for text in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
        "HTTP/1.1 200 OK\nA: b\n\n",
        "HTTP/1.1 099 OK\r\n\r\n",
        "ICY 200 OK\r\n\r\n",
    ] {
        let mut head = ResponseHead::default();
        assert!(parse_response(text.as_bytes(), Limits::default(), RequestKind::Other, &mut head).is_err(), "{text:?}");
    }
}

/// Decodes a body that arrives in the given pieces.
fn decode(framing: Framing, pieces: &[&[u8]]) -> Result<(Vec<u8>, bool, Option<Fields>, usize), BodyError> {
    let mut decoder = BodyDecoder::new(framing);
    let (mut body, mut buffer, mut consumed) = (Vec::new(), Vec::new(), 0);
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match decoder.step(&buffer)? {
                Step::Payload { skip, take } => {
                    assert!(take > 0);
                    body.extend_from_slice(&buffer[skip..skip + take]);
                    buffer.drain(..skip + take);
                    consumed += skip + take;
                }
                Step::More { skip } => {
                    buffer.drain(..skip);
                    consumed += skip;
                    break;
                }
                Step::End { skip } => return Ok((body, true, decoder.take_trailers(), consumed + skip)),
            }
        }
    }
    Ok((body, false, None, consumed))
}

#[test]
fn chunks() {
    let whole = b"5;a=b\r\nhello\r\n00A\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\nGET";
    let (body, done, trailers, consumed) = decode(Framing::Chunked, &[whole]).unwrap();
    assert_eq!((body.as_slice(), done, consumed), (&b"hello0123456789"[..], true, whole.len() - 3));
    assert_eq!(trailers.unwrap().get("x-sum"), Some(&b"1"[..]));
    for (text, error) in [
        ("5\nhello", BodyError::Chunk),
        ("5 \r\nhello", BodyError::Chunk),
        (" 5\r\nhello", BodyError::Chunk),
        ("\r\n", BodyError::Chunk),
        (";x\r\n", BodyError::Chunk),
        ("-1\r\n", BodyError::Chunk),
        ("0x5\r\nhello\r\n", BodyError::Chunk),
        ("5\r\nhello!", BodyError::Chunk),
        ("5\r\nhello\n", BodyError::Chunk),
        ("5;a\nhello", BodyError::Chunk),
        ("1000000000000000\r\n", BodyError::Chunk),
        ("0\r\nContent-Length: 1\r\n\r\n", BodyError::Trailer),
        ("0\r\nA: b\n\r\n", BodyError::Trailer),
        ("0\r\n A: b\r\n\r\n", BodyError::Trailer),
    ] {
        assert_eq!(decode(Framing::Chunked, &[text.as_bytes()]).map(|_| ()), Err(error), "{text:?}");
    }
    let extension = format!("1;{}\r\n", "x".repeat(5000));
    assert_eq!(decode(Framing::Chunked, &[extension.as_bytes()]).map(|_| ()), Err(BodyError::TooLarge));
    let trailer = format!("0\r\nA: {}", "x".repeat(9000));
    assert_eq!(decode(Framing::Chunked, &[trailer.as_bytes()]).map(|_| ()), Err(BodyError::TooLarge));
}

#[test]
fn a_connection_that_ends_within_a_body_is_noticed() {
    for (framing, sound) in
        [(Framing::Length(3), false), (Framing::Chunked, false), (Framing::Close, true), (Framing::Empty, true)]
    {
        let mut decoder = BodyDecoder::new(framing);
        let _ = decoder.step(b"").unwrap();
        assert_eq!(decoder.end_of_input().is_ok(), sound, "{framing:?}");
    }
}

fn token() -> impl Strategy<Value = String> {
    "[a-zA-Z][a-zA-Z0-9_-]{0,12}".prop_filter("not read by the codec itself", |name| {
        let own = ["te", "host", "expect", "upgrade", "connection", "keep-alive"];
        !own.contains(&name.to_ascii_lowercase().as_str())
    })
}

fn head_strategy() -> impl Strategy<Value = RequestHead> {
    let framing = prop_oneof![Just(Framing::Empty), (1u64..1 << 40).prop_map(Framing::Length), Just(Framing::Chunked)];
    let fields = proptest::collection::vec((token(), "[!-~]([ -~]{0,20}[!-~])?|"), 0..8);
    (
        "[A-Z]{1,7}",
        "(/(%[1-9a-f][0-9a-fA-F]|[!-\"$&-~]){0,10}){1,3}(\\?[!-\"$-~]{0,9})?",
        "[a-z0-9.]{1,20}(:[0-9]{1,4})?",
        fields,
        framing,
        any::<bool>(),
    )
        .prop_map(|(method, target, host, fields, framing, trailers)| {
            // CONNECT has another form of target.
            let method = if method == "CONNECT" { "GET" } else { method.as_str() };
            let mut head = RequestHead::new(method, &target, &host);
            for (name, value) in fields {
                head.fields.append(&name, value.as_bytes()).unwrap();
            }
            head.framing = framing;
            head.te_trailers = trailers;
            head
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn what_is_written_is_what_is_read(head in head_strategy()) {
        let mut bytes = Vec::new();
        encode_request(&head, &mut bytes);
        let mut read = RequestHead::default();
        prop_assert_eq!(parse_request(&bytes, Limits::default(), &mut read), Ok(Some(bytes.len())));
        prop_assert_eq!((read.method(), read.target(), read.authority()), (head.method(), head.target(), head.authority()));
        prop_assert_eq!(read.framing, head.framing);
        let drop_length = |fields: &Fields| fields.iter().map(|(n, v)| (n.to_owned(), v.to_vec())).collect::<Vec<_>>();
        prop_assert_eq!(drop_length(&read.fields), drop_length(&head.fields));
        // Every proper prefix is incomplete: where a head ends never depends on how much came at once.
        for end in 0..bytes.len() {
            prop_assert_eq!(parse_request(&bytes[..end], Limits::default(), &mut read), Ok(None), "prefix of {}", end);
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse_request(&bytes, Limits::default(), &mut RequestHead::default());
        let _ = parse_response(&bytes, Limits::default(), RequestKind::Other, &mut ResponseHead::default());
        let _ = decode(Framing::Chunked, &[&bytes]);
    }

    #[test]
    fn no_damaged_message_makes_it_panic(head in head_strategy(), damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let mut bytes = Vec::new();
        encode_request(&head, &mut bytes);
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let mut read = RequestHead::default();
        if let Ok(Some(length)) = parse_request(&bytes, Limits::default(), &mut read) {
            prop_assert!(length <= bytes.len());
            // Whatever was understood is passed on so that it is understood the same way.
            let mut again = Vec::new();
            encode_request(&read, &mut again);
            let mut reread = RequestHead::default();
            prop_assert_eq!(parse_request(&again, Limits::default(), &mut reread), Ok(Some(again.len())), "{:?}", String::from_utf8_lossy(&again));
            prop_assert_eq!(reread.framing, read.framing);
        }
    }

    #[test]
    fn a_body_does_not_depend_on_how_it_arrives(
        chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..6),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6),
        trailer in proptest::option::of("[a-z]{1,5}"),
    ) {
        let mut wire = Vec::new();
        for chunk in &chunks {
            encode_chunk_head(chunk.len(), &mut wire);
            wire.extend_from_slice(chunk);
            wire.extend_from_slice(b"\r\n");
        }
        let trailers = trailer.map(|value| {
            let mut fields = Fields::default();
            fields.append("x-trailer", value.as_bytes()).unwrap();
            fields
        });
        encode_last_chunk(trailers.as_ref(), &mut wire);
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(wire.len())).collect();
        cuts.sort_unstable();
        cuts.push(wire.len());
        let mut pieces = Vec::new();
        let mut from = 0;
        for cut in cuts {
            pieces.push(&wire[from..cut]);
            from = cut;
        }
        let (body, done, read, consumed) = decode(Framing::Chunked, &pieces).unwrap();
        prop_assert_eq!(body, chunks.concat());
        prop_assert!(done);
        prop_assert_eq!(consumed, wire.len());
        prop_assert_eq!(read.map(|fields| fields.get("x-trailer").map(<[u8]>::to_vec)), trailers.map(|fields| fields.get("x-trailer").map(<[u8]>::to_vec)));
    }
}
