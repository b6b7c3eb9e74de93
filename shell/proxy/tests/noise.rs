//! Bytes that are nearly right, at every socket where somebody else's bytes are read: each is answered, refused or cut off, and whoever
//! comes next is served. Longer: `PROPTEST_CASES=100000 cargo test -p diolkos-proxy --test noise`.
mod support;

use model::mesh::*;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::Duration;
use support::frames::*;
use support::{Node, address, curl, eventually, inside, serve_http};

const PORT: u16 = 25_129;

/// Changes to bytes: a place, how many go, what comes.
type Edits = Vec<(usize, usize, Vec<u8>)>;

fn edits() -> impl Strategy<Value = Edits> {
    let bytes = proptest::collection::vec(any::<u8>(), 0..4);
    proptest::collection::vec((any::<usize>(), 0usize..4, bytes), 0..4)
}

fn edited(mut bytes: Vec<u8>, edits: &Edits) -> Vec<u8> {
    for (at, gone, come) in edits {
        let at = at % (bytes.len() + 1);
        let end = (at + gone).min(bytes.len());
        bytes.splice(at..end, come.iter().copied());
    }
    bytes
}

fn runner() -> TestRunner {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(400);
    TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(cases) })
}

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream
}

/// A field in one of HPACK's forms: by number, kept, not kept, compressed or not; or the table's size.
fn representation() -> impl Strategy<Value = Vec<u8>> {
    let kinds = prop_oneof![Just((6, 0x40)), Just((4, 0)), Just((4, 0x10))];
    let text = (any::<bool>(), proptest::collection::vec(any::<u8>(), 0..40));
    let text =
        text.prop_map(|(huffman, bytes)| [integer(7, if huffman { 0x80 } else { 0 }, bytes.len()), bytes].concat());
    let plain = "[a-z][a-z0-9-]{0,20}".prop_map(|name| [integer(7, 0, name.len()), name.into_bytes()].concat());
    let known = ["cookie", "content-length", "te", "host", "expect", "upgrade", "transfer-encoding"];
    let known = proptest::sample::select(known.to_vec());
    let known = known.prop_map(|name| [integer(7, 0, name.len()), name.as_bytes().to_vec()].concat());
    prop_oneof![
        (0usize..80).prop_map(|index| integer(7, 0x80, index)),
        (0usize..5_000).prop_map(|size| integer(5, 0x20, size)),
        any::<usize>().prop_map(|index| integer(7, 0x80, index)),
        (kinds.clone(), 1usize..70, text.clone()).prop_map(|((bits, first), index, value)| [
            integer(bits, first, index),
            value
        ]
        .concat()),
        (kinds.clone(), prop_oneof![plain, known], text.clone()).prop_map(|((_, first), name, value)| [
            vec![first],
            name,
            value
        ]
        .concat()),
        (kinds, text.clone(), text).prop_map(|((_, first), name, value)| [vec![first], name, value].concat()),
    ]
}

/// Header blocks.
fn hpack(to: SocketAddr) {
    let blocks = (proptest::collection::vec(representation(), 0..6), edits(), any::<bool>(), any::<usize>());
    // A connection is used as long as it lasts: the table goes along with it.
    let open = move || (Peer::open(connect(to)), 1);
    let state = std::cell::RefCell::new(open());
    let result = runner().run(&blocks, |(fields, edits, edit, cut)| {
        let mut state = state.borrow_mut();
        let (peer, stream) = &mut *state;
        let tail = if edit { edited(fields.concat(), &edits) } else { fields.concat() };
        let block = [GET, &tail].concat();
        let (first, second) = block.split_at(cut % (block.len() + 1));
        let frames = [frame(HEADERS, END_STREAM, *stream, first), frame(CONTINUATION, END_HEADERS, *stream, second)];
        peer.send(&frames.concat());
        match peer.outcome() {
            Outcome::Answered(of, _) | Outcome::Reset(of, _) if of == *stream => *stream += 2,
            Outcome::GoAway(_) | Outcome::Closed => *state = open(),
            other => prop_assert!(false, "{:?} for {:?}", other, block),
        }
        Ok(())
    });
    result.unwrap();
}

/// Frames in no order.
fn frames(to: SocketAddr) {
    let payload = proptest::collection::vec(any::<u8>(), 0..40);
    let wild = (0u8..12, any::<u8>(), 0u32..6, payload)
        .prop_map(|(kind, flags, stream, bytes)| frame(kind, flags, stream, &bytes));
    let sane = (1u32..6).prop_map(|stream| frame(HEADERS, END_HEADERS, stream, POST));
    let data = (1u32..6, any::<bool>()).prop_map(|(stream, end)| frame(DATA, u8::from(end), stream, b"data"));
    let update = (0u32..6, any::<u32>()).prop_map(|(stream, by)| frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes()));
    let settings = (0u16..9, any::<u32>()).prop_map(|(id, value)| setting(id, value));
    let reset = (1u32..6, any::<u32>()).prop_map(|(stream, code)| frame(RST_STREAM, 0, stream, &code.to_be_bytes()));
    let sequence = proptest::collection::vec(prop_oneof![wild, sane, data, update, settings, reset], 0..12);
    let result = runner().run(&sequence, |frames| {
        let mut peer = Peer::open(connect(to));
        peer.send(&frames.concat());
        peer.send(&frame(PING, 0, 0, &MARK));
        loop {
            match peer.outcome() {
                Outcome::Pong | Outcome::GoAway(_) | Outcome::Closed => return Ok(()),
                Outcome::Silence => prop_assert!(false, "no answer to {:?}", frames),
                Outcome::Answered(..) | Outcome::Reset(..) => {}
            }
        }
    });
    result.unwrap();
}

/// First messages of TLS, and what may follow them.
fn hellos(to: SocketAddr) {
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth());
    let result = runner().run(&(edits(), proptest::collection::vec(any::<u8>(), 0..60)), |(edits, more)| {
        let name = ServerName::try_from("shop.example").unwrap();
        let mut hello = Vec::new();
        ClientConnection::new(config.clone(), name).unwrap().write_tls(&mut hello).unwrap();
        let mut stream = connect(to);
        let _ = stream.write_all(&[edited(hello, &edits), more].concat());
        let _ = stream.shutdown(Shutdown::Write);
        // To its end: whoever ends a connection with bytes unread resets it.
        let mut buffer = [0; 4_096];
        while let Ok(1..) = stream.read(&mut buffer) {}
        Ok(())
    });
    result.unwrap();
}

/// Questions to the name server, by datagram and by stream.
fn questions(to: SocketAddr) {
    let good = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03web\x07default\x03svc\x07cluster\x05local\0\0\x01\0\x01".to_vec();
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    socket.connect(to).unwrap();
    let framed = |question: &[u8]| [&(question.len() as u16).to_be_bytes()[..], question].concat();
    let result = runner().run(&(edits(), any::<bool>(), any::<bool>()), |(edits, pointer, stream)| {
        let mut question = good.clone();
        if pointer {
            // A name that goes on at its own beginning, and a record more.
            question.splice(32.., [0xc0, 12, 0, 1, 0, 1]);
        }
        let question = edited(question, &edits);
        if stream {
            let mut stream = connect(to);
            let _ = stream.write_all(&framed(&question));
            return Ok(());
        }
        let _ = socket.send(&question);
        Ok(())
    });
    result.unwrap();
    // What was answered meanwhile is not what is asked now.
    let mut asked = good.clone();
    asked[..2].copy_from_slice(b"\xab\xcd");
    let mut answer = [0; 512];
    let answered = (0..20).any(|_| {
        socket.send(&asked).unwrap();
        // Until there is nothing more: the answer was lost, with so many that nobody read.
        while let Ok(length) = socket.recv(&mut answer) {
            if length > 12 && answer[..2] == asked[..2] {
                return true;
            }
        }
        false
    });
    assert!(answered && answer[7] == 1, "an address for web");
}

#[test]
fn nearly_right() {
    need_root!("nearly_right");
    let mut node = Node::start(|_| {});
    let web = node.pod(6, "web");
    serve_http(&web, "web");
    let outside = node.net.pod(9);
    node.service("web", 50, AppProtocol::Http, &[(6, Health::Ready)]);
    node.proxy().apply(support::gateway(PORT, "/", "web"));
    let host = node.net.node();
    let url = format!("http://127.0.0.1:{PORT}/ok");
    eventually("the gateway answers", || curl(&host, &[&url]).starts_with("web GET /ok"));
    let gateway = SocketAddr::from(([127, 0, 0, 1], PORT));
    let pod = SocketAddr::new(address(6), 8_080);
    let tunnel = SocketAddr::new(address(6), 15_008);
    let names = SocketAddr::from(([10, 96, 0, 10], 53));
    for (what, netns, attack, to) in [
        ("header blocks at a gateway", &host, hpack as fn(SocketAddr), gateway),
        ("frames at a gateway", &host, frames, gateway),
        ("frames at a pod", &outside, frames, pod),
        ("TLS at a tunnel's port", &outside, hellos, tunnel),
        ("questions to the name server", &web, questions, names),
    ] {
        assert!(inside(netns, move || attack(to)).join().is_ok(), "{what}");
        for version in ["--http1.1", "--http2-prior-knowledge"] {
            let answer = curl(&host, &[version, &url]);
            assert!(answer.starts_with("web GET /ok"), "after {what}: {answer}");
        }
    }
}
