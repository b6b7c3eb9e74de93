//! Requests that come in HTTP/2 and go on in HTTP/1.1: what would be two requests there, or another one, is refused, or becomes harmless.
//! Beside nginx, which passes the same on: what it refuses is refused here. What reaches the process is looked at byte by byte.
#[path = "support/nginx.rs"]
mod nginx;
mod support;

use diolkos_proxy::mesh::Change;
use model::mesh::*;
use nginx::Nginx;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use support::frames::*;
use support::{NODE, Node, curl, eventually, gateway, inside, service, town};

const OURS: u16 = 25_099;
const NGINX: u16 = 25_109;
const BACKEND: u16 = 25_119;
/// What smuggled requests ask for.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

/// A request as the process got it: its head, and the trailers of its body.
#[derive(Clone, Debug)]
struct Got {
    head: String,
    trailers: String,
}

/// Reads up to an empty line.
fn lines(reader: &mut impl BufRead) -> Option<String> {
    let mut text = Vec::new();
    loop {
        let before = text.len();
        if reader.read_until(b'\n', &mut text).ok()? == 0 {
            return None;
        }
        if matches!(&text[before..], b"\r\n" | b"\n") {
            return Some(String::from_utf8_lossy(&text).into_owned());
        }
    }
}

/// A server that believes what it reads: a length, chunks, and that what follows is the next request.
fn serve_anything(netns: &str, got: Arc<Mutex<Vec<Got>>>) {
    let (ready, started) = std::sync::mpsc::channel();
    inside(netns, move || {
        let listener = TcpListener::bind((NODE, BACKEND)).unwrap();
        ready.send(()).unwrap();
        for stream in listener.incoming().flatten() {
            let got = got.clone();
            std::thread::spawn(move || {
                let mut writer = stream.try_clone().unwrap();
                let mut reader = BufReader::new(stream);
                while let Some(head) = lines(&mut reader) {
                    let lower = head.to_ascii_lowercase();
                    let field = |name: &str| lower.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
                    let mut trailers = String::new();
                    if field("transfer-encoding:").is_some_and(|value| value.contains("chunked")) {
                        loop {
                            let mut size = String::new();
                            let _ = reader.read_line(&mut size);
                            let Ok(size) = usize::from_str_radix(size.trim(), 16) else { return };
                            if size == 0 {
                                trailers = lines(&mut reader).unwrap_or_default();
                                break;
                            }
                            let _ = reader.read_exact(&mut vec![0; size + 2]);
                        }
                    } else if let Some(length) = field("content-length:").and_then(|value| value.parse().ok()) {
                        let mut body: Vec<u8> = vec![0; length];
                        let _ = reader.read_exact(&mut body);
                    }
                    got.lock().unwrap().push(Got { head, trailers });
                    if writer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_err() {
                        return;
                    }
                }
            });
        }
    });
    started.recv().unwrap();
}

/// An nginx in the namespace that passes HTTP/2 on to the same server.
fn nginx(netns: &str) -> Option<Nginx> {
    let servers = format!(
        "server {{ listen 127.0.0.1:{NGINX} http2; location / {{ proxy_http_version 1.1; proxy_set_header Connection '';\n\
         proxy_pass http://{NODE}:{BACKEND}; }} }}"
    );
    let nginx = Nginx::start("nginx2", &["ip", "netns", "exec", netns], &servers)?;
    let url = format!("http://127.0.0.1:{NGINX}/");
    let answers = |_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        curl(netns, &["--http2-prior-knowledge", &url]) == "ok"
    };
    (0..60).any(answers).then_some(nginx)
}

/// What nginx refuses and is passed on here, with the reason.
const MILDER: [(&str, &str); 3] = [
    ("trailers [(\"x-sum\", \"1\")]", "trailers may end a request (RFC 9113, 8.1)"),
    ("\"host\": \"a\"", "a host that is the authority again says nothing new (RFC 9113, 8.3.1)"),
    (":method \"TRACE\"", "Gateway API's routes can match on TRACE: it is theirs to refuse"),
];

/// A request: its fields, its body if it has one, and the body's trailers.
struct Case {
    what: String,
    fields: Vec<(String, String)>,
    body: Option<String>,
    trailers: Vec<(&'static str, &'static str)>,
}

fn case(what: &str, fields: &[(&str, &str)]) -> Case {
    let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Case { what: what.to_owned(), fields, body: None, trailers: vec![] }
}

/// `GET /` with one pseudo-header changed.
fn but(name: &'static str, value: &str) -> Case {
    let fields = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")];
    let fields = fields.map(|(of, usual)| (of, if of == name { value } else { usual }));
    case(&format!("{name} {value:?}"), &fields)
}

const GET_A: [(&str, &str); 4] = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")];
const POST_A: [(&str, &str); 4] = [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "a")];

/// `GET /` with a field more.
fn with(name: &str, value: &str) -> Case {
    case(&format!("{name:?}: {value:?}"), &[&GET_A[..], &[(name, value)]].concat())
}

/// `POST /` with fields more and a body.
fn post(fields: &[(&str, &str)], body: &str) -> Case {
    let whole = case(&format!("POST {fields:?} {body:?}"), &[&POST_A[..], fields].concat());
    Case { body: Some(body.to_owned()), ..whole }
}

/// `POST /` whose body has trailers.
fn trailed(trailers: Vec<(&'static str, &'static str)>) -> Case {
    Case { what: format!("trailers {trailers:?}"), trailers, ..post(&[], "hello") }
}

fn corpus() -> Vec<Case> {
    let chunked = format!("0\r\n\r\n{SMUGGLED}");
    let mut all = vec![
        with("x-ordinary", "1"),
        post(&[], "hello"),
        post(&[("content-length", "5")], "hello"),
        post(&[("transfer-encoding", "chunked")], &chunked),
        post(&[("transfer-encoding", "chunked"), ("content-length", "5")], &chunked),
        post(&[("transfer-encoding", "identity")], SMUGGLED),
        post(&[("transfer-encoding", "")], SMUGGLED),
        post(&[("Transfer-Encoding", "chunked")], &chunked),
        post(&[("transfer_encoding", "chunked")], SMUGGLED),
        post(&[("te", "chunked")], "hello"),
        post(&[("content-length", "0")], SMUGGLED),
        post(&[("content-length", "4")], "hello"),
        post(&[("content-length", "6")], "hello"),
        post(&[("content-length", "5"), ("content-length", "5")], "hello"),
        post(&[("content-length", "5"), ("content-length", "0")], "hello"),
        post(&[("content_length", "0")], "hello"),
        trailed(vec![("transfer-encoding", "chunked"), ("content-length", "0"), ("host", "b")]),
        trailed(vec![("x-sum", "1")]),
        trailed(vec![("x-sum", "1\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")]),
    ];
    let lengths = ["5, 5", "+5", "-5", "0x5", " 5", "5 ", "5\t", "", "5.0", "18446744073709551621", "٥", "5;a"];
    all.extend(lengths.map(|length| post(&[("content-length", length)], "hello")));
    let smuggling = [
        "a\r\nx-smuggled: 1",
        "a\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a",
        "a\nx-smuggled: 1",
        "a\rx-smuggled: 1",
        "a\0b",
        "a\u{b}b",
    ];
    all.extend(smuggling.map(|value| with("x-ordinary", value)));
    all.extend(
        ["x y", "x:y", "x\r\nx-smuggled", "x\n", "x\t", "", "x\0", "X-Capital", "x(y", "x\u{e9}", "x\""]
            .map(|name| with(name, "1")),
    );
    all.extend(["host: a", "x-smuggled: 1\r\n"].map(|name| with(name, "1")));
    for (name, value) in [
        ("connection", "x-ordinary"),
        ("connection", "close"),
        ("keep-alive", "1"),
        ("proxy-connection", "keep-alive"),
        ("upgrade", "h2c"),
        ("http2-settings", "AAMAAABkAAQAAP__"),
        ("te", "trailers"),
        ("te", "trailers, chunked"),
        ("expect", "100-continue"),
        ("expect", "200-fantasy"),
        ("host", "a"),
        ("host", "b"),
        ("host", "a\r\nx-smuggled: 1"),
        ("cookie", "a=1\r\nx-smuggled: 1"),
        ("x-forwarded-for", "a\r\nb"),
    ] {
        all.push(with(name, value));
    }
    let methods = [
        "GET / HTTP/1.1\r\nx-smuggled: 1\r\n",
        "GET /smuggled",
        "get",
        "G\tET",
        "GET\0",
        "",
        "CONNECT",
        "TRACE",
        "PRI",
        "G\u{e9}T",
        "GET:",
        "X-Y_Z",
    ];
    all.extend(methods.map(|method| but(":method", method)));
    let paths = [
        "/ HTTP/1.1\r\nx-smuggled: 1\r\ny: ",
        "/a b",
        "/a\tb",
        "/a\0",
        "/a\nb",
        "/a\rb",
        "a",
        "",
        "*",
        "http://b/x",
        "//b/x",
        "/a#b",
        "/\\b",
        "/%0d%0ax-smuggled:%201",
        "/%00",
        "/%zz",
        "/..;/x",
        "/a?b c",
        "/a?b\r\nc",
        "?a",
        "/\u{e9}",
        "/{}|^`\"<>",
        "/a HTTP/1.0",
    ];
    all.extend(paths.map(|path| but(":path", path)));
    let authorities = [
        "",
        "a b",
        "a/b",
        "a@b",
        "a,b",
        "a#b",
        "a?b",
        "a\\b",
        "a\r\nx-smuggled: 1",
        "a:",
        "a:b",
        "a:99999",
        "[::1",
        "a\0",
        "a%0d",
        "a\u{e9}",
        "*",
        "a:80:80",
    ];
    all.extend(authorities.map(|authority| but(":authority", authority)));
    let schemes = ["https", "ftp", "", "http://b/x?", "http\r\nx-smuggled: 1", "h t"];
    all.extend(schemes.map(|scheme| but(":scheme", scheme)));
    all.push(case("no authority and two hosts", &[&GET_A[..3], &[("host", "a"), ("host", "b")]].concat()));
    all.push(case("no authority and no host", &GET_A[..3]));
    all.push(case("no authority and a host with a path", &[&GET_A[..3], &[("host", "a/b")]].concat()));
    all.push(case("no authority and a host", &[&GET_A[..3], &[("host", "a")]].concat()));
    all
}

/// Names the case in each request, last of its fields: one that was broken off may reach the process when others are asked already.
const NUMBER: &str = "x-case";

/// Whether a server answers with a success.
fn accepts(netns: &str, port: u16, number: usize, case: &Case) -> bool {
    let mut peer = Peer::open(town::connect(netns, SocketAddr::from(([127, 0, 0, 1], port))));
    let mut fields: Vec<u8> =
        case.fields.iter().flat_map(|(name, value)| field(name.as_bytes(), value.as_bytes())).collect();
    fields.extend(field(NUMBER.as_bytes(), number.to_string().as_bytes()));
    let ends = if case.body.is_none() { END_STREAM } else { 0 };
    let mut bytes = frame(HEADERS, END_HEADERS | ends, 1, &fields);
    if let Some(body) = &case.body {
        let ends = if case.trailers.is_empty() { END_STREAM } else { 0 };
        bytes.extend(frame(DATA, ends, 1, body.as_bytes()));
    }
    if !case.trailers.is_empty() {
        bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&case.trailers)));
    }
    peer.send(&bytes);
    matches!(peer.outcome(), Outcome::Answered(1, 200))
}

/// Whether a request that reached the process is another case's. One without a number was smuggled, and counts.
fn is_late(got: &Got, number: usize) -> bool {
    let own = got.head.lines().find_map(|line| line.strip_prefix(NUMBER)?.strip_prefix(": "));
    own.is_some_and(|own| own != number.to_string())
}

/// What is wrong with a request that reached the process.
fn flaw(got: &Got) -> Option<&'static str> {
    let mut lines = got.head.strip_suffix("\r\n\r\n")?.split("\r\n");
    let request = lines.next()?;
    let sound = |text: &str| text.bytes().all(|byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f));
    let (mut hosts, mut framings) = (0, 0);
    for line in lines {
        let Some((name, value)) = line.split_once(':') else { return Some("a line without a name") };
        let name = name.to_ascii_lowercase();
        hosts += usize::from(name == "host");
        framings += usize::from(name == "content-length" || name == "transfer-encoding");
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if name.is_empty() || !name.bytes().all(token) || !sound(value) {
            return Some("a field that is none");
        }
        if name == "x-smuggled" || name == "upgrade" || name == "http2-settings" || name == "keep-alive" {
            return Some("a field that must not get across");
        }
    }
    let words: Vec<&str> = request.split(' ').collect();
    let trailers = got.trailers.to_ascii_lowercase();
    match &words[..] {
        [_, target, "HTTP/1.1"] if !sound(target) || target.contains('\t') => Some("a target that is none"),
        [_, target, "HTTP/1.1"] if target.contains("smuggled") && !target.contains('%') => {
            Some("a request in a request")
        }
        [_, _, "HTTP/1.1"] if hosts != 1 => Some("not one host"),
        [_, _, "HTTP/1.1"] if framings > 1 => Some("two framings"),
        [_, _, "HTTP/1.1"]
            if ["content-length", "transfer-encoding", "host"].iter().any(|it| trailers.contains(it)) =>
        {
            Some("a trailer that changes the request")
        }
        [_, _, "HTTP/1.1"] => None,
        _ => Some("a request line of other than three words"),
    }
}

#[test]
fn what_http_2_could_smuggle_into_http_1() {
    need_root!("what_http_2_could_smuggle_into_http_1");
    let node = Node::start(|_| {});
    let host = node.net.node();
    let got = Arc::new(Mutex::new(Vec::new()));
    serve_anything(&host, got.clone());
    let mut changes = service("web", 50, AppProtocol::Http, &[]);
    for change in &mut changes {
        if let Change::Set(Resource::Endpoints(group)) = change {
            let group = Arc::make_mut(group);
            group.ports = vec![("main".into(), BACKEND)];
            group.endpoints = vec![Endpoint { node: "node".into(), ..Endpoint::at(NODE.parse().unwrap()) }];
        }
    }
    node.proxy().apply(changes);
    node.proxy().apply(gateway(OURS, "", "web"));
    eventually("the gateway answers", || curl(&host, &[&format!("http://127.0.0.1:{OURS}/")]) == "ok");
    let nginx = nginx(&host);
    if nginx.is_none() {
        eprintln!("SKIPPED what_http_2_could_smuggle_into_http_1 (the part with nginx): nginx does not run here");
    }
    got.lock().unwrap().clear();
    let (mut wrong, mut accepted) = (Vec::new(), 0);
    for (number, case) in corpus().into_iter().enumerate() {
        let ours = accepts(&host, OURS, number, &case);
        accepted += usize::from(ours);
        let mut reached = std::mem::take(&mut *got.lock().unwrap());
        reached.retain(|it| !is_late(it, number));
        wrong.extend(reached.iter().filter_map(|it| flaw(it).map(|flaw| format!("{}: {flaw}: {it:?}", case.what))));
        if reached.len() > 1 {
            wrong.push(format!("{}: {} requests of one: {reached:?}", case.what, reached.len()));
        }
        let milder = MILDER.iter().any(|(what, _)| *what == case.what);
        if ours && nginx.is_some() && !milder && !accepts(&host, NGINX, number, &case) {
            wrong.push(format!("{}: nginx refuses it", case.what));
        }
    }
    assert!(wrong.is_empty(), "{} of {}, {accepted} accepted:\n{}", wrong.len(), corpus().len(), wrong.join("\n"));
    assert!((10..=60).contains(&accepted), "{accepted} of {} are requests", corpus().len());
}
