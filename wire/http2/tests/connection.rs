//! A connection, given bytes: what comes of them, however they arrive, and what is sent within which windows.
use bytes::Bytes;
use diolkos_http2::{Code, Connection, Event, Events, Limits, Sent};
use http1::{Framing, RequestHead, ResponseHead};
use proptest::prelude::*;
use std::collections::VecDeque;
use std::io::IoSlice;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const LIMITS: Limits = Limits {
    streams: 8,
    header_bytes: 4096,
    stream_window: 65_535,
    connection_window: 131_072,
    waiting_bytes: 100_000,
    idle_per_second: 200,
};

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn settings(entries: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<u8> =
        entries.iter().flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
    frame(4, 0, 0, &payload)
}

/// HPACK without its tables: a field as it is.
fn field(name: &str, value: &str) -> Vec<u8> {
    assert!(name.len() < 127 && value.len() < 127);
    [&[0, name.len() as u8][..], name.as_bytes(), &[value.len() as u8], value.as_bytes()].concat()
}

fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| field(name, value)).collect()
}

fn pseudo(method: &str, path: &str) -> Vec<u8> {
    block(&[(":method", method), (":scheme", "http"), (":path", path), (":authority", "shop")])
}

/// A connection whose client has said what it must.
fn greeted(entries: &[(u16, u32)]) -> Connection {
    let mut connection = Connection::new(LIMITS);
    let hello = [PREFACE, &settings(entries)].concat();
    assert_eq!(connection.receive(&hello, 0, &mut Events::default()), Ok(hello.len()));
    drain(&mut connection, usize::MAX);
    connection
}

/// Takes what waits to be sent.
fn drain(connection: &mut Connection, most: usize) -> (Vec<u8>, Vec<Event>) {
    let (mut sent, mut events) = (Vec::new(), Events::default());
    while sent.len() < most && !connection.output().is_empty() {
        let mut slices = [IoSlice::new(&[]); 4];
        let count = connection.output().slices(&mut slices);
        let next: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.iter().copied()).collect();
        let take = next.len().min(most - sent.len());
        sent.extend_from_slice(&next[..take]);
        connection.flushed(take, &mut events);
    }
    (sent, events.list)
}

/// Kind, flags, stream and payload.
type Frame = (u8, u8, u32, Vec<u8>);

fn frames(mut bytes: &[u8]) -> Vec<Frame> {
    let mut frames = Vec::new();
    while let [a, b, c, kind, flags, s0, s1, s2, s3, rest @ ..] = bytes {
        let (payload, behind) = rest.split_at(u32::from_be_bytes([0, *a, *b, *c]) as usize);
        frames.push((*kind, *flags, u32::from_be_bytes([*s0, *s1, *s2, *s3]), payload.to_vec()));
        bytes = behind;
    }
    assert!(bytes.is_empty(), "half a frame");
    frames
}

fn request(fields: &[u8], ended: bool) -> Result<RequestHead, Vec<Frame>> {
    let (mut connection, mut events) = (greeted(&[]), Events::default());
    let bytes = frame(1, 4 | u8::from(ended), 1, fields);
    connection.receive(&bytes, 0, &mut events).unwrap();
    match events.list.pop() {
        Some(Event::Request { head, .. }) => Ok(head),
        None => Err(frames(&drain(&mut connection, usize::MAX).0)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_request_is_read_into_the_houses_head() {
    let fields = [
        ("cookie", "a=1"),
        ("x-one", "1"),
        ("cookie", "b=2"),
        ("te", "trailers"),
        ("content-length", "5"),
        ("accept", "*/*"),
    ];
    let head = request(&[pseudo("POST", "/a?b=c"), block(&fields)].concat(), false).unwrap();
    assert_eq!((head.method(), head.target(), head.authority()), ("POST", "/a?b=c", "shop"));
    let said: Vec<_> = head.fields.iter().collect();
    assert_eq!(said, [("x-one", &b"1"[..]), ("accept", b"*/*"), ("cookie", b"a=1; b=2")]);
    assert!(head.te_trailers && head.framing == Framing::Length(5));
    assert_eq!(request(&pseudo("GET", "/"), true).unwrap().framing, Framing::Empty);
    assert_eq!(request(&pseudo("POST", "/"), false).unwrap().framing, Framing::Chunked);
    let by_host = block(&[(":method", "GET"), (":scheme", "http"), (":path", "/"), ("host", "shop")]);
    assert_eq!(request(&by_host, true).unwrap().authority(), "shop");
}

#[test]
fn what_http_1_cannot_say_is_answered_with_400() {
    let with = |fields: &[(&str, &str)]| [pseudo("GET", "/"), block(fields)].concat();
    let cases = [
        with(&[("host", "other")]),
        with(&[("host", "shop"), ("host", "shop")]),
        pseudo("get", "/"),
        pseudo("GET", "a/b"),
        pseudo("GET", "/a#b"),
        pseudo("GET", "/%zz"),
        block(&[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a@b")]),
        block(&[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a,b")]),
        block(&[(":method", "GET"), (":scheme", "http"), (":path", "/")]),
    ];
    for case in cases {
        let told = request(&case, true).unwrap_err();
        assert_eq!(told, [(1, 5, 1, vec![0x8c])], "{}", String::from_utf8_lossy(&case));
    }
    let told = request(&block(&[(":method", "CONNECT"), (":authority", "a:1")]), false).unwrap_err();
    assert_eq!((told[0].3.as_slice(), &told[1]), (&[8, 3, b'4', b'0', b'5'][..], &(3, 0, 1, vec![0; 4])));
    let large: Vec<u8> = (0..40).flat_map(|_| field("x", &"y".repeat(100))).collect();
    let told = request(&[pseudo("GET", "/"), large].concat(), true).unwrap_err();
    assert_eq!(told[0].3, [8, 3, b'4', b'3', b'1']);
}

#[test]
fn what_nobody_is_to_keep_is_known() {
    // RFC 7541, 6.2.3: never indexed.
    let never = |name, value| [&[0x10][..], &field(name, value)[1..]].concat();
    let fields =
        [pseudo("GET", "/"), never("x-key", "1"), field("x-one", "1"), never("cookie", "a=1"), field("cookie", "b=2")];
    let head = request(&fields.concat(), true).unwrap();
    let marked: Vec<_> = head.fields.iter_sensitive().map(|(name, _, marked)| (name, marked)).collect();
    assert_eq!(marked, [("x-key", true), ("x-one", false), ("cookie", true)]);
}

#[test]
fn an_extended_connect_asks_for_a_switch() {
    let connect = |protocol, more: &[(&str, &str)]| {
        let head = [(":method", "CONNECT"), (":protocol", protocol), (":scheme", "https"), (":path", "/chat?a")];
        [block(&head), block(&[(":authority", "shop")]), block(more)].concat()
    };
    let head = request(&connect("websocket", &[("sec-websocket-version", "13"), ("cookie", "a=1")]), false).unwrap();
    assert_eq!((head.method(), head.target(), head.authority()), ("GET", "/chat?a", "shop"));
    assert_eq!((head.upgrade(), head.framing, head.fields.len()), (Some("websocket"), Framing::Empty, 2));
    let status = |block: &[u8], ended| match &request(block, ended).unwrap_err()[..] {
        [(1, 5, 1, head), ..] if head.len() == 1 => u16::from(head[0]) - 0x8c + 400,
        [(1, 5, 1, head), ..] => std::str::from_utf8(&head[2..]).unwrap().parse().unwrap(),
        [(3, 0, 1, code)] => u16::from(code[3]),
        other => panic!("{other:?}"),
    };
    for (what, block, ended, expect) in [
        ("another protocol", connect("connect-udp", &[]), false, 501),
        ("ended before it began", connect("websocket", &[]), true, 400),
        ("with a length", connect("websocket", &[("content-length", "5")]), false, 400),
        (
            "a target that is no path",
            connect("websocket", &[]).iter().map(|it| if *it == b'?' { b'#' } else { *it }).collect(),
            false,
            400,
        ),
        (
            "without a path",
            block(&[(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "https"), (":authority", "a")]),
            false,
            1,
        ),
        ("without CONNECT", [pseudo("GET", "/"), block(&[(":protocol", "websocket")])].concat(), false, 1),
        ("CONNECT alone", block(&[(":method", "CONNECT"), (":authority", "a:1")]), false, 405),
        ("twice", block(&[(":method", "CONNECT"), (":protocol", "websocket"), (":protocol", "websocket")]), false, 1),
    ] {
        assert_eq!(status(&block, ended), expect, "{what}");
    }
}

#[test]
fn an_answer_ends_with_its_last_frame() {
    let (mut connection, mut events) = (greeted(&[]), Events::default());
    connection.receive(&frame(1, 5, 1, &pseudo("GET", "/")), 0, &mut events).unwrap();
    let Some(Event::Request { stream, .. }) = events.list.pop() else { panic!() };
    let mut head = ResponseHead::new(200, Framing::Length(5));
    head.fields.append("Server", b"bookstore").unwrap();
    assert_eq!(connection.respond(stream, &head, false), Sent::Whole);
    assert_eq!(connection.send(stream, &mut Bytes::from_static(b"hello")), Sent::Whole);
    assert_eq!(connection.finish(stream, None), Sent::Whole);
    connection.forget(stream);
    let told = frames(&drain(&mut connection, usize::MAX).0);
    assert_eq!(told.iter().map(|frame| (frame.0, frame.1)).collect::<Vec<_>>(), [(1, 4), (0, 1)], "no empty frame");
    assert_eq!(told[1].3, b"hello");
}

#[test]
fn whom_we_reset_may_have_said_more_before_he_knew() {
    let (mut connection, mut events) = (greeted(&[]), Events::default());
    connection.receive(&frame(1, 4, 1, &pseudo("POST", "/")), 0, &mut events).unwrap();
    let Some(Event::Request { stream, .. }) = events.list.pop() else { panic!() };
    connection.reset(stream, Code::CANCEL);
    connection.forget(stream);
    let late = [frame(0, 0, 1, b"late"), frame(1, 5, 1, &block(&[("x-sum", "1")]))].concat();
    assert_eq!(connection.receive(&late, 0, &mut events), Ok(late.len()));
    assert_eq!(frames(&drain(&mut connection, usize::MAX).0), [(3, 0, 1, vec![0, 0, 0, 8])]);
    assert!(events.list.is_empty());
}

#[test]
fn what_asks_for_nothing_has_a_rate() {
    let (mut connection, mut events) = (greeted(&[]), Events::default());
    let (ping, nothing) = (frame(6, 0, 0, &[0; 8]), settings(&[]));
    for now in 0..10 {
        // 200 a second are served for ever, and pings, which clients measure by, as often as they come.
        for _ in 0..200 {
            let bytes = [&nothing[..], &ping.repeat(9)].concat();
            connection.receive(&bytes, 1_000 * now, &mut events).unwrap();
        }
        drain(&mut connection, usize::MAX);
    }
    let fault = (0..2_000).find_map(|_| connection.receive(&nothing, 10_000, &mut events).err()).unwrap();
    assert_eq!(fault.code, Code::ENHANCE_YOUR_CALM);
    assert!(connection.is_done() && !connection.wants_input());
}

#[test]
fn who_is_told_to_leave_is_served_until_he_knows() {
    let (mut connection, mut events) = (greeted(&[]), Events::default());
    connection.leave();
    let told = frames(&drain(&mut connection, usize::MAX).0);
    assert_eq!(told.iter().map(|frame| frame.0).collect::<Vec<_>>(), [7, 6]);
    connection.receive(&frame(1, 5, 1, &pseudo("GET", "/")), 0, &mut events).unwrap();
    let Some(Event::Request { stream, .. }) = events.list.pop() else { panic!() };
    connection.receive(&frame(6, 1, 0, &told[1].3), 0, &mut events).unwrap();
    assert_eq!(frames(&drain(&mut connection, usize::MAX).0), [(7, 0, 0, vec![0, 0, 0, 1, 0, 0, 0, 0])]);
    let late = [
        frame(1, 4, 3, &pseudo("POST", "/")),
        frame(0, 1, 3, b"body"),
        frame(8, 0, 3, &[0, 0, 0, 9]),
        frame(3, 0, 3, &[0, 0, 0, 8]),
    ];
    connection.receive(&late.concat(), 0, &mut events).unwrap();
    assert!(events.list.is_empty() && !connection.is_done() && connection.output().is_empty());
    assert_eq!(connection.respond(stream, &ResponseHead::new(204, Framing::Empty), true), Sent::Whole);
    connection.forget(stream);
    assert!(connection.is_done());
}

#[test]
fn who_is_told_to_leave_before_he_said_a_word_is_heard_first() {
    let (mut connection, mut events) = (Connection::new(LIMITS), Events::default());
    connection.leave();
    assert!(!connection.is_greeted());
    let bytes = [PREFACE, &settings(&[]), &frame(1, 5, 1, &pseudo("GET", "/"))].concat();
    assert_eq!(connection.receive(&bytes, 0, &mut events), Ok(bytes.len()));
    assert!(matches!(events.list[..], [Event::Request { .. }]) && connection.is_greeted());
    let kinds: Vec<u8> = frames(&drain(&mut connection, usize::MAX).0).iter().map(|frame| frame.0).collect();
    assert_eq!(kinds, [4, 8, 7, 6, 4], "ours, then the farewell");
}

/// Two answers without end, of which each takes all the room there is when it is its turn.
#[test]
fn no_answer_starves_another() {
    let (mut connection, mut events) = (greeted(&[(4, 1 << 30)]), Events::default());
    connection.receive(&frame(8, 0, 0, &(1u32 << 30).to_be_bytes()), 0, &mut events).unwrap();
    let ask = [1, 3].map(|id| frame(1, 5, id, &pseudo("GET", "/"))).concat();
    connection.receive(&ask, 0, &mut events).unwrap();
    let mut waiting = Vec::new();
    for event in events.list.drain(..) {
        let Event::Request { stream, .. } = event else { panic!() };
        assert_eq!(connection.respond(stream, &ResponseHead::new(200, Framing::Chunked), false), Sent::Whole);
        waiting.push(stream);
    }
    let mut got = [0usize; 4];
    for _ in 0..40 {
        for stream in std::mem::take(&mut waiting) {
            assert_eq!(connection.send(stream, &mut vec![0; 1 << 20].into()), Sent::Blocked);
        }
        let (bytes, events) = drain(&mut connection, usize::MAX);
        frames(&bytes).iter().filter(|frame| frame.0 == 0).for_each(|frame| got[frame.2 as usize] += frame.3.len());
        waiting.extend(events.into_iter().map(|event| match event {
            Event::Writable { stream } => stream,
            other => panic!("{other:?}"),
        }));
    }
    assert!(got[1].abs_diff(got[3]) <= 2 * LIMITS.waiting_bytes && got[1] > 0, "{got:?}");
}

/// Frames that a client may send, and some that it may not.
fn anything() -> impl Strategy<Value = Vec<u8>> {
    let stream = prop_oneof![0..12u32, Just(1), Just(3)];
    let head = (stream.clone(), any::<bool>(), any::<bool>(), prop_oneof![Just("/"), Just("/a"), Just("")]);
    prop_oneof![
        4 => head.prop_map(|(stream, ended, whole, path)| {
            frame(1, u8::from(ended) | if whole { 4 } else { 0 }, stream, &pseudo("POST", path))
        }),
        4 => (stream.clone(), any::<bool>(), 0..3_000usize).prop_map(|(stream, ended, length)| {
            frame(0, u8::from(ended), stream, &vec![7; length])
        }),
        2 => (stream.clone(), 0..200_000u32).prop_map(|(stream, by)| frame(8, 0, stream, &by.to_be_bytes())),
        1 => (stream.clone(), any::<u32>()).prop_map(|(stream, code)| frame(3, 0, stream, &code.to_be_bytes())),
        1 => (0..7u16, 0..70_000u32).prop_map(|entry| settings(&[entry])),
        1 => (any::<u8>(), any::<u8>(), stream, proptest::collection::vec(any::<u8>(), 0..40))
            .prop_map(|(kind, flags, stream, payload)| frame(kind, flags, stream, &payload)),
    ]
}

/// What came of bytes that arrive in these pieces.
fn told(bytes: &[u8], pieces: &[usize]) -> (Vec<String>, Vec<u8>) {
    let (mut connection, mut events) = (Connection::new(LIMITS), Events::default());
    let (mut waiting, mut rest, mut sizes) = (Vec::new(), bytes, pieces.iter().cycle());
    while !rest.is_empty() {
        let (now, later) = rest.split_at(rest.len().min(sizes.next().copied().unwrap_or(usize::MAX)));
        (rest, waiting) = (later, [waiting, now.to_vec()].concat());
        match connection.receive(&waiting, 0, &mut events) {
            Ok(taken) => waiting.drain(..taken),
            Err(_) => break,
        };
    }
    let events = events.list.iter().map(|event| format!("{event:?}")).collect();
    (events, drain(&mut connection, usize::MAX).0)
}

proptest! {
    #[test]
    fn it_does_not_depend_on_how_bytes_arrive(
        sent in proptest::collection::vec(anything(), 0..30),
        pieces in proptest::collection::vec(1..400usize, 1..6),
    ) {
        let bytes = [PREFACE, &settings(&[]), &sent.concat()].concat();
        prop_assert_eq!(told(&bytes, &[usize::MAX]), told(&bytes, &pieces));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        told(&bytes, &[usize::MAX]);
        told(&[PREFACE, &settings(&[]), &bytes].concat(), &[7]);
    }
}

#[derive(Clone, Debug)]
enum Do {
    Ask,
    Say(usize, usize),
    End(usize),
    Grant(u32, u32),
    FirstWindow(u32),
    Read(usize),
}

fn what() -> impl Strategy<Value = Do> {
    prop_oneof![
        Just(Do::Ask),
        (0..4usize, 0..90_000usize).prop_map(|(which, length)| Do::Say(which, length)),
        (0..4usize).prop_map(Do::End),
        (0..10u32, 1..40_000u32).prop_map(|(stream, by)| Do::Grant(stream, by)),
        (0..100_000u32).prop_map(Do::FirstWindow),
        (0..200_000usize).prop_map(Do::Read),
    ]
}

proptest! {
    /// Beside a client that counts what it granted: no window is overrun, everything that was said arrives in order, and whoever waits is
    /// told when he need not.
    #[test]
    fn windows_are_kept_and_filled(steps in proptest::collection::vec(what(), 0..60)) {
        let mut connection = greeted(&[]);
        let mut events = Events::default();
        // Of the client: the connection's window, what a stream has at first and will have when that was acknowledged, and by stream:
        // window, bytes, ended.
        let (mut window, mut first) = (65_535i64, 65_535i64);
        let mut unknown = VecDeque::new();
        let mut seen: Vec<(u32, i64, Vec<u8>, bool)> = Vec::new();
        // Of the owners: handle, what is left to say, whether it ends then, whether it waits.
        let mut owners: Vec<(usize, Bytes, bool, bool)> = Vec::new();
        let mut expected: Vec<Vec<u8>> = Vec::new();
        let steps = steps.into_iter().chain([Do::FirstWindow(1 << 30), Do::Grant(0, 1 << 30)]).chain((0..200).map(|_| Do::Read(usize::MAX)));
        for step in steps {
            let mut list = Vec::new();
            match step {
                Do::Ask if owners.len() < 5 => {
                    let id = 2 * owners.len() as u32 + 1;
                    connection.receive(&frame(1, 5, id, &pseudo("GET", "/")), 0, &mut events).unwrap();
                    let Some(Event::Request { stream, .. }) = events.list.pop() else { panic!() };
                    prop_assert_eq!(connection.respond(stream, &ResponseHead::new(200, Framing::Chunked), false), Sent::Whole);
                    owners.push((stream, Bytes::new(), false, false));
                    expected.push(Vec::new());
                    seen.push((id, first, Vec::new(), false));
                }
                Do::Say(which, length) if which < owners.len() && !owners[which].2 && !owners[which].3 => {
                    let bytes: Vec<u8> = (0..length).map(|at| (at + which) as u8).collect();
                    expected[which].extend_from_slice(&bytes);
                    owners[which].1 = bytes.into();
                    list.push(Event::Writable { stream: owners[which].0 });
                }
                Do::End(which) if which < owners.len() && !owners[which].2 => {
                    owners[which].2 = true;
                    if !owners[which].3 {
                        prop_assert_eq!(connection.finish(owners[which].0, None), Sent::Whole);
                    }
                }
                Do::Grant(id, by) => {
                    let granted = frame(8, 0, id, &by.to_be_bytes());
                    let open = seen.iter_mut().find(|stream| stream.0 == id && !stream.3);
                    match open {
                        Some(stream) => stream.1 += i64::from(by),
                        None if id == 0 => window += i64::from(by),
                        None => continue,
                    }
                    connection.receive(&granted, 0, &mut events).unwrap();
                }
                Do::FirstWindow(value) => {
                    unknown.push_back(i64::from(value));
                    connection.receive(&settings(&[(4, value)]), 0, &mut events).unwrap();
                }
                Do::Read(most) => {
                    // Whole frames only: the client of this test does not remember halves.
                    if most < connection.output().len() {
                        continue;
                    }
                    let (bytes, more) = drain(&mut connection, usize::MAX);
                    list.extend(more);
                    for (kind, flags, id, payload) in frames(&bytes) {
                        if kind == 4 {
                            let value = unknown.pop_front().unwrap();
                            seen.iter_mut().for_each(|stream| stream.1 += value - first);
                            first = value;
                        }
                        let Some(stream) = seen.iter_mut().find(|stream| stream.0 == id) else { continue };
                        if kind == 0 {
                            (window, stream.1) = (window - payload.len() as i64, stream.1 - payload.len() as i64);
                            prop_assert!(payload.is_empty() || (window >= 0 && stream.1 >= 0), "{} {}", window, stream.1);
                            stream.2.extend_from_slice(&payload);
                        }
                        stream.3 |= flags & 1 != 0;
                    }
                }
                _ => {}
            }
            list.append(&mut events.list);
            for event in list {
                let Event::Writable { stream } = event else { continue };
                let owner = owners.iter_mut().find(|owner| owner.0 == stream).unwrap();
                owner.3 = connection.send(stream, &mut owner.1) == Sent::Blocked;
                if !owner.3 && owner.2 {
                    prop_assert_eq!(connection.finish(stream, None), Sent::Whole);
                }
            }
            prop_assert!(connection.output().len() <= LIMITS.waiting_bytes + 10_000);
        }
        for (index, stream) in seen.iter().enumerate() {
            prop_assert!(stream.2 == expected[index], "{} of {} bytes", stream.2.len(), expected[index].len());
            prop_assert_eq!(stream.3, owners[index].2);
        }
    }
}
