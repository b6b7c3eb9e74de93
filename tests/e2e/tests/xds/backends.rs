//! What stands behind services here: small Python programs, started with a port and a name.

use super::Process;
use e2e::Check;
use std::path::Path;
use std::process::Command;

/// Says what it was asked. With a directory it speaks TLS, with `server.crt` and `server.key`, and says whose certificate it was shown. Under `/check/` it
/// is an authorizer (ext_authz by HTTP): who says `x-pass: yes` passes.
pub const HTTP: &str = r#"
import sys, ssl
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
port, name, directory = int(sys.argv[1]), sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else None
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def answer(self, status, headers, body):
        self.send_response(status)
        for header in headers.items():
            self.send_header(*header)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        of = self.headers
        if self.path.startswith("/check/"):
            passes = of["X-Pass"] == "yes"
            said = f"{of['X-Unsent']} {of['X-Added']} {self.path}"
            return self.answer(*((200, {"X-User": said, "X-Other": "no"}, b"") if passes else (403, {"X-Why": said, "X-Other": "no"}, b"not you\n")))
        shown = self.connection.getpeercert() if directory else None
        client = (shown["subject"], shown.get("subjectAltName")) if shown else None
        self.answer(200, {}, f"{name} {self.command} {self.path} host={of['Host']} extra={of['X-Extra']} user={of['X-User']} other={of['X-Other']} from={of['X-Forwarded-For']} "
            f"who={of['X-Forwarded-Client-Cert']} client={client}\n".encode())
    def log_message(self, *arguments):
        pass
server = ThreadingHTTPServer(("0.0.0.0", port), Handler)
if directory:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{directory}/server.crt", f"{directory}/server.key")
    context.load_verify_locations(f"{directory}/authority.crt")
    context.verify_mode = ssl.CERT_OPTIONAL
    server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"#;

/// gRPC: an authorizer (ext_authz: who says `x-pass: yes` passes), a rate limit service (two requests for each descriptor, ever), and else what is asked
/// after the port.
pub const GRPC: &str = r#"
import sys, time, grpc
from collections import Counter
from concurrent import futures
def varint(n):
    out = b""
    while n > 127:
        out += bytes([n & 127 | 128]); n >>= 7
    return out + bytes([n])
def field(tag, data):
    data = data.encode() if isinstance(data, str) else data
    return varint(tag << 3) + varint(data) if isinstance(data, int) else varint(tag << 3 | 2) + varint(len(data)) + data
def read(data):
    out, at = {}, 0
    def number():
        nonlocal at
        value, shift = 0, 0
        while True:
            byte = data[at]; at += 1
            value |= (byte & 127) << shift; shift += 7
            if byte < 128: return value
    while at < len(data):
        key = number()
        if key & 7 == 2:
            length = number(); value = data[at:at + length]; at += length
        elif key & 7 == 0: value = number()
        else: at += 8 if key & 7 == 1 else 4; continue
        out.setdefault(key >> 3, []).append(value)
    return out
def header(key, value):
    return field(1, key) + field(2, value)
def check(request, context):
    http = read(read(read(read(request)[1][0])[4][0])[2][0])
    pairs = (read(entry) for entry in http.get(3, []))
    headers = {pair[1][0].decode(): pair[2][0].decode() for pair in pairs if 2 in pair}
    if "/slow" in http[4][0].decode(): time.sleep(3)
    if headers.get("x-pass") == "yes":
        return field(1, b"") + field(3, field(2, field(1, header("x-user", "known"))) + field(5, "x-other"))
    return field(1, field(1, 7)) + field(2, field(1, field(1, 401)) + field(2, field(1, header("x-why", "unknown"))) + field(3, "who are you\n"))
counts = Counter()
def limit(request, context):
    of, code, statuses, said = read(request), 1, b"", []
    for descriptor in of[2]:
        entries = [read(entry) for entry in read(descriptor)[1]]
        text = ";".join(f"{it[1][0].decode()}={it.get(2, [b''])[0].decode()}" for it in entries)
        said.append(text)
        counts[text] += 1
        one = 2 if counts[text] > 2 else 1
        code = max(code, one)
        statuses += field(2, field(1, one) + field(2, field(1, 2) + field(2, 3)) + field(3, max(0, 2 - counts[text])))
    text = of[1][0].decode() + "|" + "|".join(said)
    return field(1, code) + statuses + field(3, header("x-asked", text)) + field(4, header("x-extra", "counted"))
calls = {"/envoy.service.auth.v3.Authorization/Check": check, "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit": limit}
class Handler(grpc.GenericRpcHandler):
    def service(self, details):
        echo = lambda request, context: sys.argv[1].encode() + b" " + request
        return grpc.unary_unary_rpc_method_handler(calls.get(details.method, echo))
server = grpc.server(futures.ThreadPoolExecutor(4))
server.add_generic_rpc_handlers((Handler(),))
server.add_insecure_port("0.0.0.0:" + sys.argv[1])
server.start()
server.wait_for_termination()
"#;

/// Starts [`HTTP`].
pub fn http(port: u16, name: &str) -> Check<Process> {
    Process::start(Command::new("python3").args(["-c", HTTP, &port.to_string(), name]))
}

/// Starts [`HTTP`] under TLS.
pub fn https(port: u16, name: &str, directory: &Path) -> Check<Process> {
    Process::start(Command::new("python3").args(["-c", HTTP, &port.to_string(), name]).arg(directory))
}

/// Starts [`GRPC`].
pub fn grpc(python: &Path, port: u16) -> Check<Process> {
    Process::start(Command::new(python).args(["-c", GRPC, &port.to_string()]))
}
