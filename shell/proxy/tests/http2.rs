//! HTTP/2 by the sections of RFC 9113 and RFC 7541: what clients may do is served, and each thing that they must not do has its error. At
//! every door where requests arrive: a gateway in clear text, the same under TLS, and a pod.
mod support;

use model::Key;
use model::mesh::*;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use support::frames::*;
use support::{Node, curl, eventually, serve_http, town};

const PLAIN_PORT: u16 = 25_097;
const TLS_PORT: u16 = 25_447;

/// What a case must come to.
#[derive(Clone, Copy, Debug)]
enum Expect {
    /// The stream's answer, and the connection goes on.
    Answer(u32, u16),
    /// An error of the stream with this code, and the connection goes on.
    Reset(u32, u32),
    /// An error of the connection with this code.
    GoAway(u32),
    /// It is taken no notice of: what comes next is served.
    Ignored,
}
use Expect::*;

enum Step {
    Send(Vec<u8>),
    /// A whole answer with status 200 comes.
    Await(u32),
    /// A stream gets data, of this length.
    Data(u32, usize),
}

struct Case {
    section: &'static str,
    what: &'static str,
    steps: Vec<Step>,
    expect: Expect,
}

fn case(section: &'static str, what: &'static str, pieces: &[Vec<u8>], expect: Expect) -> Case {
    Case { section, what, steps: vec![Step::Send(pieces.concat())], expect }
}

fn get(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, GET)
}

/// The head of a request whose body follows.
fn post(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, POST)
}

fn data(stream: u32, flags: u8, bytes: &[u8]) -> Vec<u8> {
    frame(DATA, flags, stream, bytes)
}

/// `GET /` with these fields.
fn get_with(fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, 1, &[GET, &block(fields)].concat())
}

/// `GET /` with something behind it in its header block.
fn get_and(rest: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, 1, &[GET, rest].concat())
}

/// A request of these fields only.
fn only(fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, 1, &block(fields))
}

fn number(value: u32) -> Vec<u8> {
    value.to_be_bytes().to_vec()
}

/// A dependency (RFC 7540, 5.3.1) on a stream, of weight 16.
fn dependency(on: u32) -> Vec<u8> {
    [&number(on)[..], &[15]].concat()
}

fn framing() -> Vec<Case> {
    let unknown = |flags| frame(0x42, flags, 0, b"whatever");
    let half = |stream| frame(HEADERS, END_STREAM, stream, GET);
    vec![
        case("3.4", "preface and settings", &[], Ignored),
        case("4.1", "a frame of unknown type", &[unknown(0)], Ignored),
        case("4.1", "unknown flags", &[frame(PING, 0xf6, 0, &[1; 8])], Ignored),
        case("4.1", "the reserved bit of a stream's number", &[frame(PING, 0, 1 << 31, &[1; 8])], Ignored),
        case("4.2", "DATA of 2^14 bytes", &[post(1), data(1, END_STREAM, &[b'x'; 16_384])], Answer(1, 200)),
        case(
            "4.2",
            "DATA above the maximum frame size",
            &[post(1), data(1, 0, &[0; 16_385])],
            GoAway(FRAME_SIZE_ERROR),
        ),
        case("4.2", "HEADERS above it", &[frame(HEADERS, 5, 1, &[0; 16_385])], GoAway(FRAME_SIZE_ERROR)),
        case(
            "4.3",
            "a header block in three frames",
            &[
                frame(HEADERS, END_STREAM, 1, &GET[..2]),
                frame(CONTINUATION, 0, 1, &GET[2..4]),
                frame(CONTINUATION, END_HEADERS, 1, &GET[4..]),
            ],
            Answer(1, 200),
        ),
        case("4.3", "a header block that is none", &[frame(HEADERS, 5, 1, &[0x80])], GoAway(COMPRESSION_ERROR)),
        case(
            "4.3",
            "PRIORITY within a header block",
            &[half(1), frame(PRIORITY, 0, 1, &dependency(0))],
            GoAway(PROTOCOL_ERROR),
        ),
        case("4.3", "HEADERS of another stream within it", &[half(1), get(3)], GoAway(PROTOCOL_ERROR)),
        case("4.3", "DATA within it", &[half(1), data(1, 0, b"x")], GoAway(PROTOCOL_ERROR)),
        case("5.5", "a frame of unknown type within it", &[half(1), unknown(0)], GoAway(PROTOCOL_ERROR)),
    ]
}

fn streams() -> Vec<Case> {
    let reset = |stream| frame(RST_STREAM, 0, stream, &number(CANCEL));
    let after_answer = |section, what, then: Vec<u8>, expect| Case {
        section,
        what,
        steps: vec![Step::Send(get(1)), Step::Await(1), Step::Send(then)],
        expect,
    };
    let continuation = |stream| frame(CONTINUATION, END_HEADERS, stream, GET);
    let many: Vec<u8> = (0..257).flat_map(|index| post(2 * index + 1)).collect();
    vec![
        case("5.1", "DATA on an idle stream", &[data(1, END_STREAM, b"x")], GoAway(PROTOCOL_ERROR)),
        case("5.1", "RST_STREAM on an idle stream", &[reset(1)], GoAway(PROTOCOL_ERROR)),
        case(
            "5.1",
            "WINDOW_UPDATE on an idle stream",
            &[frame(WINDOW_UPDATE, 0, 1, &number(9))],
            GoAway(PROTOCOL_ERROR),
        ),
        case("5.1", "CONTINUATION on an idle stream", &[continuation(1)], GoAway(PROTOCOL_ERROR)),
        case("5.1", "PRIORITY on an idle stream", &[frame(PRIORITY, 0, 1, &dependency(0))], Ignored),
        case("5.1", "DATA on a half-closed stream", &[get(1), data(1, END_STREAM, b"x")], Reset(1, STREAM_CLOSED)),
        case("5.1", "HEADERS on a half-closed stream", &[get(1), get(1)], Reset(1, STREAM_CLOSED)),
        case("5.1", "CONTINUATION on a half-closed stream", &[get(1), continuation(1)], GoAway(PROTOCOL_ERROR)),
        case(
            "5.1",
            "WINDOW_UPDATE on a half-closed stream",
            &[get(1), frame(WINDOW_UPDATE, 0, 1, &number(9))],
            Answer(1, 200),
        ),
        case(
            "5.1",
            "PRIORITY on a half-closed stream",
            &[get(1), frame(PRIORITY, 0, 1, &dependency(0))],
            Answer(1, 200),
        ),
        case("5.1", "RST_STREAM on a half-closed stream", &[get(1), reset(1)], Ignored),
        case("5.1", "DATA after RST_STREAM", &[post(1), reset(1), data(1, END_STREAM, b"x")], Reset(1, STREAM_CLOSED)),
        case("5.1", "HEADERS after RST_STREAM", &[post(1), reset(1), get(1)], GoAway(STREAM_CLOSED)),
        case("5.1", "CONTINUATION after RST_STREAM", &[post(1), reset(1), continuation(1)], GoAway(PROTOCOL_ERROR)),
        after_answer("5.1", "DATA on a closed stream", data(1, END_STREAM, b"x"), Reset(1, STREAM_CLOSED)),
        after_answer("5.1", "HEADERS on a closed stream", get(1), GoAway(STREAM_CLOSED)),
        after_answer("5.1", "CONTINUATION on a closed stream", continuation(1), GoAway(PROTOCOL_ERROR)),
        after_answer("5.1", "PRIORITY on a closed stream", frame(PRIORITY, 0, 1, &dependency(0)), Ignored),
        after_answer("5.1", "WINDOW_UPDATE on a closed stream", frame(WINDOW_UPDATE, 0, 1, &number(9)), Ignored),
        case("5.1.1", "an even stream", &[get(2)], GoAway(PROTOCOL_ERROR)),
        after_answer("5.1.1", "streams may be left out", get(7), Answer(7, 200)),
        Case {
            section: "5.1.1",
            what: "a stream of a lower number",
            steps: vec![Step::Send(get(5)), Step::Await(5), Step::Send(get(3))],
            expect: GoAway(PROTOCOL_ERROR),
        },
        case("5.1.2", "more streams than are allowed", &[many], Reset(513, REFUSED_STREAM)),
        case(
            "5.3.1",
            "HEADERS that depend on themselves",
            &[frame(HEADERS, 5 | WITH_PRIORITY, 1, &[&dependency(1)[..], GET].concat())],
            Reset(1, PROTOCOL_ERROR),
        ),
        case(
            "5.3.1",
            "PRIORITY that depends on itself",
            &[frame(PRIORITY, 0, 3, &dependency(3))],
            Reset(3, PROTOCOL_ERROR),
        ),
    ]
}

fn frames() -> Vec<Case> {
    let update = |stream, by| frame(WINDOW_UPDATE, 0, stream, &number(by));
    vec![
        case("6.1", "DATA with padding", &[post(1), data(1, END_STREAM | PADDED, b"\x02ab\0\0")], Answer(1, 200)),
        case("6.1", "DATA on stream 0", &[post(1), data(0, 0, b"x")], GoAway(PROTOCOL_ERROR)),
        case(
            "6.1",
            "DATA with more padding than payload",
            &[post(1), data(1, PADDED, b"\x05abc")],
            GoAway(PROTOCOL_ERROR),
        ),
        case(
            "6.2",
            "HEADERS with padding",
            &[frame(HEADERS, 5 | PADDED, 1, &[&[3], GET, &[0; 3]].concat())],
            Answer(1, 200),
        ),
        case(
            "6.2",
            "HEADERS with priority",
            &[frame(HEADERS, 5 | WITH_PRIORITY, 1, &[&dependency(1 << 31)[..], GET].concat())],
            Answer(1, 200),
        ),
        case("6.2", "HEADERS on stream 0", &[get(0)], GoAway(PROTOCOL_ERROR)),
        case(
            "6.2",
            "HEADERS with more padding than payload",
            &[frame(HEADERS, 5 | PADDED, 1, &[&[200], GET].concat())],
            GoAway(PROTOCOL_ERROR),
        ),
        case("6.3", "PRIORITY on stream 0", &[frame(PRIORITY, 0, 0, &dependency(1))], GoAway(PROTOCOL_ERROR)),
        case("6.3", "PRIORITY of four bytes", &[frame(PRIORITY, 0, 1, &[0; 4])], GoAway(FRAME_SIZE_ERROR)),
        case("6.4", "RST_STREAM on stream 0", &[frame(RST_STREAM, 0, 0, &number(8))], GoAway(PROTOCOL_ERROR)),
        case(
            "6.4",
            "RST_STREAM of three bytes",
            &[post(1), frame(RST_STREAM, 0, 1, &[0; 3])],
            GoAway(FRAME_SIZE_ERROR),
        ),
        case(
            "6.5",
            "SETTINGS acknowledged with a payload",
            &[frame(SETTINGS, ACK, 0, &[0; 6])],
            GoAway(FRAME_SIZE_ERROR),
        ),
        case("6.5", "SETTINGS on a stream", &[frame(SETTINGS, 0, 1, &[])], GoAway(PROTOCOL_ERROR)),
        case("6.5", "SETTINGS of three bytes", &[frame(SETTINGS, 0, 0, &[0; 3])], GoAway(FRAME_SIZE_ERROR)),
        case("6.5.2", "ENABLE_PUSH 2", &[setting(2, 2)], GoAway(PROTOCOL_ERROR)),
        case("6.5.2", "INITIAL_WINDOW_SIZE 2^31", &[setting(4, 1 << 31)], GoAway(FLOW_CONTROL_ERROR)),
        case("6.5.2", "MAX_FRAME_SIZE 16383", &[setting(5, 16_383)], GoAway(PROTOCOL_ERROR)),
        case("6.5.2", "MAX_FRAME_SIZE 2^24", &[setting(5, 1 << 24)], GoAway(PROTOCOL_ERROR)),
        case("6.5.2", "an unknown setting", &[setting(0xff, 1)], Ignored),
        case(
            "6.6",
            "PUSH_PROMISE of a client",
            &[get(1), frame(PUSH_PROMISE, END_HEADERS, 1, &[&number(2)[..], GET].concat())],
            GoAway(PROTOCOL_ERROR),
        ),
        case("6.7", "PING", &[frame(PING, 0, 0, &[3; 8])], Ignored),
        case("6.7", "PING that nobody asked for", &[frame(PING, ACK, 0, &[3; 8])], Ignored),
        case("6.7", "PING on a stream", &[frame(PING, 0, 1, &[3; 8])], GoAway(PROTOCOL_ERROR)),
        case("6.7", "PING of six bytes", &[frame(PING, 0, 0, &[3; 6])], GoAway(FRAME_SIZE_ERROR)),
        case("6.8", "GOAWAY on a stream", &[frame(GOAWAY, 0, 1, &[0; 8])], GoAway(PROTOCOL_ERROR)),
        case("6.9", "WINDOW_UPDATE by 0", &[update(0, 0)], GoAway(PROTOCOL_ERROR)),
        case("6.9", "WINDOW_UPDATE of a stream by 0", &[post(1), update(1, 0)], Reset(1, PROTOCOL_ERROR)),
        case("6.9", "WINDOW_UPDATE of three bytes", &[frame(WINDOW_UPDATE, 0, 0, &[0; 3])], GoAway(FRAME_SIZE_ERROR)),
        case("6.9.1", "a window above 2^31-1", &[update(0, 0x7fff_ffff)], GoAway(FLOW_CONTROL_ERROR)),
        case(
            "6.9.1",
            "a stream's window above 2^31-1",
            &[post(1), update(1, 0x7fff_ffff)],
            Reset(1, FLOW_CONTROL_ERROR),
        ),
        case(
            "6.10",
            "CONTINUATION on stream 0",
            &[frame(HEADERS, END_STREAM, 1, GET), frame(CONTINUATION, END_HEADERS, 0, &[])],
            GoAway(PROTOCOL_ERROR),
        ),
        case(
            "6.10",
            "CONTINUATION after a whole header block",
            &[post(1), frame(CONTINUATION, END_HEADERS, 1, &[])],
            GoAway(PROTOCOL_ERROR),
        ),
        case(
            "6.10",
            "CONTINUATION after DATA",
            &[post(1), data(1, 0, b"x"), frame(CONTINUATION, END_HEADERS, 1, &[])],
            GoAway(PROTOCOL_ERROR),
        ),
        case("7", "RST_STREAM of an unknown code", &[post(1), frame(RST_STREAM, 0, 1, &number(0xff))], Ignored),
    ]
}

/// What was granted is sent, and no more.
fn windows() -> Vec<Case> {
    let update = |stream, by| Step::Send(frame(WINDOW_UPDATE, 0, stream, &number(by)));
    vec![
        Case {
            section: "6.9.1",
            what: "a window of one byte",
            steps: vec![Step::Send([setting(4, 1), get(1)].concat()), Step::Data(1, 1), update(1, 3), Step::Data(1, 3)],
            expect: Ignored,
        },
        Case {
            section: "6.9.2",
            what: "a window that grows by SETTINGS",
            steps: vec![Step::Send([setting(4, 0), get(1)].concat()), Step::Send(setting(4, 2)), Step::Data(1, 2)],
            expect: Ignored,
        },
        Case {
            section: "6.9.2",
            what: "a window below zero",
            steps: vec![
                Step::Send([setting(4, 3), get(1)].concat()),
                Step::Data(1, 3),
                Step::Send(setting(4, 2)),
                update(1, 2),
                Step::Data(1, 1),
            ],
            expect: Ignored,
        },
        Case {
            section: "6.5.3",
            what: "one setting said twice: the last counts",
            steps: vec![
                Step::Send([frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 9, 0, 4, 0, 0, 0, 1]), get(1)].concat()),
                Step::Data(1, 1),
            ],
            expect: Ignored,
        },
    ]
}

fn messages() -> Vec<Case> {
    let malformed = Reset(1, PROTOCOL_ERROR);
    let head = |method| only(&[(":method", method), (":scheme", "http"), (":path", "/"), (":authority", "a")]);
    let with_length =
        |length: &str| frame(HEADERS, END_HEADERS, 1, &[POST, &block(&[("content-length", length)])].concat());
    let trailers = |flags, fields: &[(&str, &str)]| frame(HEADERS, flags | END_HEADERS, 1, &block(fields));
    vec![
        case("8.1", "GET", &[get(1)], Answer(1, 200)),
        case("8.1", "HEAD", &[head("HEAD")], Answer(1, 200)),
        case("8.1", "POST", &[post(1), data(1, 0, b"a"), data(1, END_STREAM, b"b")], Answer(1, 200)),
        case("8.1", "trailers", &[post(1), data(1, 0, b"a"), trailers(END_STREAM, &[("x-sum", "1")])], Answer(1, 200)),
        case(
            "8.1",
            "trailers that end nothing",
            &[post(1), data(1, 0, b"a"), trailers(0, &[("x-sum", "1")])],
            malformed,
        ),
        case("8.1.1", "fewer bytes than announced", &[with_length("2"), data(1, END_STREAM, b"a")], malformed),
        case("8.1.1", "more bytes than announced", &[with_length("1"), data(1, 0, b"ab")], malformed),
        case("8.1.1", "no bytes but announced", &[get_with(&[("content-length", "1")])], malformed),
        case("8.2.1", "a name in capitals", &[get_with(&[("X-Test", "ok")])], malformed),
        case("8.2.1", "a line's end in a value", &[get_with(&[("x-test", "a\r\nhost: b")])], malformed),
        case("8.2.1", "a NUL in a value", &[get_with(&[("x-test", "a\0b")])], malformed),
        case("8.2.1", "a space in a name", &[get_with(&[("x test", "a")])], malformed),
        case("8.2.1", "a colon in a name", &[get_with(&[("x:test", "a")])], malformed),
        case("8.2.1", "no name", &[get_with(&[("", "a")])], malformed),
        case("8.2.2", "connection", &[get_with(&[("connection", "keep-alive")])], malformed),
        case("8.2.2", "keep-alive", &[get_with(&[("keep-alive", "5")])], malformed),
        case("8.2.2", "proxy-connection", &[get_with(&[("proxy-connection", "x")])], malformed),
        case("8.2.2", "transfer-encoding", &[get_with(&[("transfer-encoding", "chunked")])], malformed),
        case("8.2.2", "upgrade", &[get_with(&[("upgrade", "h2c")])], malformed),
        case("8.2.2", "te: trailers", &[get_with(&[("te", "trailers")])], Answer(1, 200)),
        case("8.2.2", "te: gzip", &[get_with(&[("te", "trailers, deflate;q=0.5")])], malformed),
        case("8.2.3", "cookies in pieces", &[get_with(&[("cookie", "a=1"), ("cookie", "b=2")])], Answer(1, 200)),
        case("8.3", "a pseudo-header that is none", &[get_with(&[(":test", "ok")])], malformed),
        case("8.3", "a response's pseudo-header", &[get_with(&[(":status", "200")])], malformed),
        case(
            "8.3",
            "a pseudo-header after a field",
            &[only(&[("x-test", "a"), (":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")])],
            malformed,
        ),
        case(
            "8.3",
            "a pseudo-header as a trailer",
            &[post(1), data(1, 0, b"a"), trailers(END_STREAM, &[(":path", "/x")])],
            malformed,
        ),
        case(
            "8.3.1",
            "an empty path",
            &[only(&[(":method", "GET"), (":scheme", "http"), (":path", ""), (":authority", "a")])],
            malformed,
        ),
        case("8.3.1", "no method", &[only(&[(":scheme", "http"), (":path", "/"), (":authority", "a")])], malformed),
        case("8.3.1", "no scheme", &[only(&[(":method", "GET"), (":path", "/"), (":authority", "a")])], malformed),
        case("8.3.1", "no path", &[only(&[(":method", "GET"), (":scheme", "http"), (":authority", "a")])], malformed),
        case("8.3.1", "two methods", &[get_with(&[(":method", "GET")])], malformed),
        case("8.3.1", "two schemes", &[get_with(&[(":scheme", "http")])], malformed),
        case("8.3.1", "two paths", &[get_with(&[(":path", "/x")])], malformed),
        case("8.3.1", "two authorities", &[get_with(&[(":authority", "b")])], malformed),
        case(
            "8.3.1",
            "a host in place of the authority",
            &[only(&[(":method", "GET"), (":scheme", "http"), (":path", "/"), ("host", "a")])],
            Answer(1, 200),
        ),
        case("8.3.1", "an authority and another host", &[get_with(&[("host", "b")])], Answer(1, 400)),
    ]
}

fn hpack() -> Vec<Case> {
    let bad = GoAway(COMPRESSION_ERROR);
    let huge = [&[0xff][..], &[0xff; 20]].concat();
    // The table's entry 62 is as large as the table; then it is said again and again.
    let bomb = {
        let value = [b'x'; 4_000];
        let entry = [&[0x40, 1, b'x'][..], &integer(7, 0, value.len()), &value].concat();
        [GET, &entry, &[0xbe; 12_000]].concat()
    };
    vec![
        case("7541 2.3.3", "an index above both tables", &[get_and(&[0xff, 0x20])], bad),
        case("7541 4.2", "an update of the table's size after a field", &[get_and(&[0x20])], bad),
        case(
            "7541 4.2",
            "two updates before the first field",
            &[frame(HEADERS, 5, 1, &[&[0x20][..], &integer(5, 0x20, 4_096), GET].concat())],
            Answer(1, 200),
        ),
        case(
            "7541 4.3",
            "a table of no bytes forgets",
            &[
                frame(HEADERS, 5, 1, &[GET, &[0x40, 1, b'x', 1, b'y']].concat()),
                frame(HEADERS, 5, 3, &[&[0x20][..], GET, &[0xbe]].concat()),
            ],
            bad,
        ),
        case("7541 5.1", "an integer without end", &[get_and(&huge)], bad),
        case("7541 5.1", "a length above what there is", &[get_and(&[0, 1, b'x', 0x7f, 0xff, 0xff, 0x7f])], bad),
        case(
            "7541 5.2",
            "Huffman's code",
            &[get_and(&[0, 1, b'x', 0x85, 0x18, 0xc6, 0x31, 0x8c, 0x63])],
            Answer(1, 200),
        ),
        case("7541 5.2", "padding of more than seven bits", &[get_and(&[0, 1, b'x', 0x82, 0x1f, 0xff])], bad),
        case("7541 5.2", "padding by zeros", &[get_and(&[0, 1, b'x', 0x81, 0x18])], bad),
        case("7541 5.2", "the end of string in a string", &[get_and(&[0, 1, b'x', 0x84, 0xff, 0xff, 0xff, 0xff])], bad),
        case("7541 6.1", "index 0", &[get_and(&[0x80])], bad),
        case(
            "7541 6.2.1",
            "a field to be kept, and said by its number",
            &[frame(HEADERS, 5, 1, &[GET, &[0x40, 1, b'x', 1, b'y', 0xbe]].concat())],
            Answer(1, 200),
        ),
        case("7541 6.2.3", "a field that must not be kept", &[get_and(&[0x10, 1, b'x', 1, b'y'])], Answer(1, 200)),
        case(
            "7541 6.3",
            "an update above what was allowed",
            &[frame(HEADERS, 5, 1, &[&integer(5, 0x20, 4_097)[..], GET].concat())],
            bad,
        ),
        case(
            "7541 7.3",
            "a list that is large when unpacked",
            &[frame(HEADERS, 5, 1, &bomb[..16_000])],
            GoAway(ENHANCE_YOUR_CALM),
        ),
    ]
}

trait Wire: Read + Write {}
impl<T: Read + Write> Wire for T {}

type Open = Box<dyn Fn() -> Box<dyn Wire>>;

fn run(open: &Open, case: &Case) -> Result<(), String> {
    let mut peer = Peer::open(open());
    for step in &case.steps {
        match step {
            Step::Send(bytes) => peer.send(bytes),
            Step::Await(stream) => match peer.outcome() {
                Outcome::Answered(answered, 200) if answered == *stream => {}
                other => return Err(format!("{other:?} in place of an answer")),
            },
            Step::Data(stream, length) => loop {
                match peer.read() {
                    Ok(came) if came.kind == DATA && came.stream == *stream && came.payload.len() == *length => break,
                    Ok(came) if came.kind == DATA => return Err(format!("{} bytes for {length}", came.payload.len())),
                    Ok(_) => {}
                    Err(outcome) => return Err(format!("{outcome:?} in place of data")),
                }
            },
        }
    }
    if matches!(case.expect, Ignored) {
        peer.send(&frame(PING, 0, 0, &MARK));
    }
    let outcome = peer.outcome();
    match (case.expect, outcome) {
        (GoAway(code), Outcome::GoAway(got)) if code == got => return Ok(()),
        // There is no room for another stream.
        (Reset(stream, REFUSED_STREAM), Outcome::Reset(got, REFUSED_STREAM)) if stream == got => return Ok(()),
        (Reset(stream, code), Outcome::Reset(got, with)) if (stream, code) == (got, with) => {}
        (Answer(stream, status), Outcome::Answered(got, with)) if (stream, status) == (got, with) => {}
        (Ignored, Outcome::Pong) => {}
        _ => return Err(format!("{outcome:?}")),
    }
    // The connection goes on.
    peer.send(&[setting(4, 65_535), frame(HEADERS, 5, 1_001, GET)].concat());
    loop {
        match peer.outcome() {
            Outcome::Answered(1_001, 200) => return Ok(()),
            // Of an earlier stream, which now gets what it waited for.
            Outcome::Answered(..) => {}
            other => return Err(format!("and then {other:?}")),
        }
    }
}

fn gateways() -> Vec<diolkos_proxy::mesh::Change> {
    use diolkos_proxy::mesh::Change;
    let mut changes = support::gateway(PLAIN_PORT, "/", "web");
    for change in &mut changes {
        match change {
            Change::Set(Resource::Gateway(gateway)) => {
                let gateway = Arc::make_mut(gateway);
                let tls = Listener {
                    name: "tls".into(),
                    port: TLS_PORT,
                    protocol: ListenerProtocol::Https,
                    tls: TlsMode::Terminate,
                    certificates: vec![Key::new("default", "shop")],
                    ..gateway.listeners[0].clone()
                };
                gateway.listeners.push(tls);
            }
            Change::Set(Resource::Route(route)) => {
                let target = ParentTarget::Listener { gateway: Key::new("default", "edge"), listener: "tls".into() };
                Arc::make_mut(route).parents.push(Parent { target, hostnames: vec![] });
            }
            _ => {}
        }
    }
    changes
}

fn tls_config(root: &str) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(root.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

fn tls_stream(config: &Arc<ClientConfig>, stream: TcpStream) -> Box<dyn Wire> {
    let name = ServerName::try_from("shop.example").unwrap();
    Box::new(StreamOwned::new(ClientConnection::new(config.clone(), name).unwrap(), stream))
}

#[test]
fn every_door_by_the_sections_of_the_rfcs() {
    need_root!("every_door_by_the_sections_of_the_rfcs");
    let mut node = Node::start(|_| {});
    let web = node.pod(6, "web");
    serve_http(&web, "web");
    // Somebody outside of the mesh.
    let outside = node.net.pod(9);
    node.service("web", 50, AppProtocol::Http, &[(6, Health::Ready)]);
    let root = node.shop_certificate();
    node.proxy().apply(gateways());
    let host = node.net.node();
    eventually("the gateway answers", || curl(&host, &[&format!("http://127.0.0.1:{PLAIN_PORT}/")]).starts_with("web"));
    let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let pod = SocketAddr::from(([10, 250, 0, 6], 8080));
    let config = tls_config(&root);
    let (plain_host, tls_host, tls) = (host.clone(), host.clone(), config.clone());
    let doors: [(&str, Open); 3] = [
        ("gateway", Box::new(move || Box::new(town::connect(&plain_host, local(PLAIN_PORT))))),
        ("gateway under TLS", Box::new(move || tls_stream(&tls, town::connect(&tls_host, local(TLS_PORT))))),
        ("pod", Box::new(move || Box::new(town::connect(&outside, pod)))),
    ];
    let cases: Vec<Case> =
        [framing(), streams(), frames(), windows(), messages(), hpack()].into_iter().flatten().collect();
    let mut wrong = Vec::new();
    for (door, open) in &doors {
        for case in &cases {
            if let Err(got) = run(open, case) {
                wrong.push(format!("{door}: {} {}: {:?}, got {got}", case.section, case.what, case.expect));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    // Where both are spoken, what begins neither is told so in HTTP/1.1, and the connection ends (h2spec's http2/3.5/2 wants a bare end).
    let mut stream = town::connect(&host, local(PLAIN_PORT));
    stream.write_all(b"INVALID CONNECTION PREFACE\r\n\r\n").unwrap();
    let mut told = String::new();
    stream.read_to_string(&mut told).unwrap();
    assert!(told.starts_with("HTTP/1.1 400 ") && told.contains("connection: close\r\n"), "{told}");
    // RFC 9113, 3.4: where HTTP/2 was agreed on, nothing else begins a connection.
    let stream = tls_stream(&config, town::connect(&host, local(TLS_PORT)));
    let mut peer = Peer::open_with(stream, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    loop {
        match peer.read() {
            Ok(came) if came.kind == GOAWAY => {}
            Ok(came) => {
                assert!(matches!(came.kind, SETTINGS | WINDOW_UPDATE), "an answer to what is no preface: {came:?}")
            }
            Err(outcome) => break assert_eq!(outcome, Outcome::Closed),
        }
    }
}
