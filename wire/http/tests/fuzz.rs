//! The codec under attack: bytes that are nearly HTTP. Nothing panics, nothing is read twice differently, nothing grows without bound.
//! Longer, and elsewhere: `PROPTEST_CASES=1000000 PROPTEST_RNG_SEED=7 cargo test -p diolkos-http1 --test fuzz --release`.
use diolkos_http1::*;
use proptest::prelude::*;

/// What mutations begin with: each has something that parsers disagree on.
const SEEDS: [&str; 14] = [
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET http://a/b?c HTTP/1.1\r\nHost: a\r\nConnection: close, x\r\nX: y\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "HTTP/1.0 200 OK\r\n\r\nuntil the end",
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\na",
];
/// Pieces that attacks are made of.
const PIECES: [&str; 18] = [
    "\r\n",
    "\n",
    "\r",
    "\0",
    " ",
    "\t",
    ":",
    ";",
    ",",
    "0\r\n\r\n",
    "ffffffffffffffff\r\n",
    "Content-Length: 1\r\n",
    "\u{b}",
    "Transfer-Encoding: chunked\r\n",
    "Host: b\r\n",
    "%00",
    "-1",
    "HTTP/1.1",
];

#[derive(Clone, Debug)]
enum Edit {
    Put(usize, u8),
    Insert(usize, usize),
    Cut(usize, usize),
    Double(usize, usize),
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let at = 0usize..600;
    let edit = prop_oneof![
        (at.clone(), any::<u8>()).prop_map(|(at, byte)| Edit::Put(at, byte)),
        (at.clone(), 0..PIECES.len()).prop_map(|(at, piece)| Edit::Insert(at, piece)),
        (at.clone(), 0usize..20).prop_map(|(at, length)| Edit::Cut(at, length)),
        (at, 0usize..40).prop_map(|(at, length)| Edit::Double(at, length)),
    ];
    proptest::collection::vec(edit, 0..6)
}

fn mutated(seed: usize, edits: &[Edit]) -> Vec<u8> {
    let mut bytes = SEEDS[seed].as_bytes().to_vec();
    for edit in edits {
        let within = |at: usize| at % (bytes.len() + 1);
        match *edit {
            Edit::Put(at, byte) if !bytes.is_empty() => {
                let at = at % bytes.len();
                bytes[at] = byte;
            }
            Edit::Put(..) => {}
            Edit::Insert(at, piece) => {
                let at = within(at);
                bytes.splice(at..at, PIECES[piece].bytes());
            }
            Edit::Cut(at, length) => {
                let at = within(at);
                let end = (at + length).min(bytes.len());
                bytes.drain(at..end);
            }
            Edit::Double(at, length) => {
                let at = within(at);
                let end = (at + length).min(bytes.len());
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
        }
    }
    bytes
}

/// Reads a body to its end, in pieces; gives its bytes and how much of the input it was. None: refused, or not whole.
fn body(framing: Framing, input: &[u8], piece: usize) -> Option<(Vec<u8>, usize)> {
    let (mut decoder, mut out, mut at, mut seen) = (BodyDecoder::new(framing), Vec::new(), 0, 0);
    // Each step takes something or asks for more: there is an end to it.
    for _ in 0..=4 * input.len() + 4 {
        match decoder.step(&input[at..seen]) {
            Ok(Step::Payload { skip, take }) => {
                assert!(take > 0 && at + skip + take <= seen, "a step stays within what there is");
                out.extend_from_slice(&input[at + skip..at + skip + take]);
                at += skip + take;
            }
            Ok(Step::End { skip }) => return Some((out, at + skip)),
            Ok(Step::More { skip }) => {
                assert!(at + skip <= seen);
                at += skip;
                if seen == input.len() {
                    return None;
                }
                seen = (seen + piece).min(input.len());
            }
            Err(_) => return None,
        }
    }
    panic!("the decoder does not come to an end with {input:?}");
}

proptest! {
    #[test]
    fn requests(seed in 0..SEEDS.len(), edits in edits(), piece in 1usize..40) {
        let bytes = mutated(seed, &edits);
        let mut head = RequestHead::default();
        let whole = parse_request(&bytes, Limits::default(), &mut head);
        let Ok(Some(length)) = whole else { return Ok(()) };
        prop_assert!(length <= bytes.len());
        // The same whatever pieces it came in: no shorter beginning is a request already.
        let mut early = RequestHead::default();
        for end in 0..length {
            prop_assert!(!matches!(parse_request(&bytes[..end], Limits::default(), &mut early), Ok(Some(_))));
        }
        // What is passed on means there what it meant here, and is one request.
        let mut wire = Vec::new();
        encode_request(&head, &mut wire);
        let mut again = RequestHead::default();
        prop_assert_eq!(parse_request(&wire, Limits::default(), &mut again), Ok(Some(wire.len())));
        prop_assert_eq!((again.method(), again.target(), again.authority()), (head.method(), head.target(), head.authority()));
        prop_assert_eq!(again.framing, head.framing);
        let fields = |of: &RequestHead| of.fields.iter().map(|(name, value)| (name.to_owned(), value.to_vec())).collect::<Vec<_>>();
        prop_assert_eq!(fields(&again), fields(&head));
        for (name, value) in head.fields.iter() {
            prop_assert!(!value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)), "{}: a line in a line", name);
        }
        // A body is the same body however it came.
        let rest = &bytes[length..];
        prop_assert_eq!(body(head.framing, rest, piece), body(head.framing, rest, usize::MAX / 2));
    }

    #[test]
    fn answers(seed in 0..SEEDS.len(), edits in edits(), head_request: bool, piece in 1usize..40) {
        let bytes = mutated(seed, &edits);
        let kind = if head_request { RequestKind::Head } else { RequestKind::Other };
        let mut head = ResponseHead::default();
        let Ok(Some(length)) = parse_response(&bytes, Limits::default(), kind, &mut head) else { return Ok(()) };
        prop_assert!(length <= bytes.len() && (100..=999).contains(&head.status));
        if head.framing != Framing::Close {
            let rest = &bytes[length..];
            prop_assert_eq!(body(head.framing, rest, piece), body(head.framing, rest, usize::MAX / 2));
        }
    }

    #[test]
    fn chunks_of_anything(bytes in proptest::collection::vec(any::<u8>(), 0..200), piece in 1usize..20) {
        let (out, _) = body(Framing::Chunked, &bytes, piece).unwrap_or_default();
        prop_assert!(out.len() <= bytes.len());
    }
}

/// Both ends of a connection that somebody passes on.
fn ends() -> impl Strategy<Value = proxy_protocol::Ends> {
    let socket = |address: std::net::IpAddr, port| std::net::SocketAddr::new(address.to_canonical(), port);
    let v4 = any::<[[u8; 4]; 2]>().prop_map(|pair| pair.map(std::net::IpAddr::from));
    let v6 = any::<[[u8; 16]; 2]>().prop_map(|pair| pair.map(std::net::IpAddr::from));
    (prop_oneof![v4, v6], any::<[u16; 2]>()).prop_map(move |([source, destination], [from, to])| proxy_protocol::Ends {
        source: socket(source, from),
        destination: socket(destination, to),
    })
}

proptest! {
    #[test]
    fn proxy_headers_are_read_as_they_were_written(ends in ends(), binary: bool, rest in proptest::collection::vec(any::<u8>(), 0..60)) {
        use proxy_protocol::{Version, decode, encode};
        let version = if binary { Version::V2 } else { Version::V1 };
        let mut bytes = encode(version, ends);
        let length = bytes.len();
        bytes.extend(rest);
        let header = decode(&bytes);
        prop_assert_eq!(header.map(|it| it.map(|it| it.length)), Ok(Some(length)));
        // Addresses of two families are both told as IPv6.
        let told = header.ok().flatten().and_then(|it| it.ends).unwrap();
        prop_assert_eq!(told.source.ip().to_canonical(), ends.source.ip());
        prop_assert_eq!(told.destination.ip().to_canonical(), ends.destination.ip());
        prop_assert_eq!((told.source.port(), told.destination.port()), (ends.source.port(), ends.destination.port()));
    }

    #[test]
    fn damaged_proxy_headers(
        ends in ends(),
        binary: bool,
        changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..3),
        more in proptest::collection::vec(any::<u8>(), 0..1_200),
    ) {
        use proxy_protocol::{Version, decode, encode};
        let mut bytes = encode(if binary { Version::V2 } else { Version::V1 }, ends);
        for (at, byte) in changes {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        bytes.extend(more);
        match decode(&bytes) {
            // The same in whatever pieces it came.
            Ok(Some(header)) => {
                prop_assert!(header.length <= bytes.len());
                prop_assert_eq!(decode(&bytes[..header.length]), Ok(Some(header)));
                for end in 0..header.length {
                    prop_assert_eq!(decode(&bytes[..end]), Ok(None));
                }
            }
            // What is waited for has an end.
            Ok(None) => prop_assert!(bytes.len() <= 16 + 1_024),
            Err(error) => {
                for end in 0..bytes.len() {
                    let early = decode(&bytes[..end]);
                    prop_assert!(early == Ok(None) || early == Err(error));
                }
            }
        }
    }
}

/// Heads beyond the limits are refused before they are whole: what is held of them has an end.
#[test]
fn endless_heads_are_refused() {
    for line in ["X: y\r\n", "X: ", "a"] {
        let mut text = "GET / HTTP/1.1\r\nHost: a\r\n".to_owned();
        text.push_str(&line.repeat(400_000 / line.len()));
        let mut head = RequestHead::default();
        assert!(parse_request(text.as_bytes(), Limits::default(), &mut head).is_err(), "{line:?} without end");
    }
}
