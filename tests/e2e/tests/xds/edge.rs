//! The doors of an Envoy that serves a Gateway: TLS with clients' certificates, TLS by server name, PROXY headers, WebSocket over HTTP/2.

use super::features::{CERTIFICATES, CONFIG_MAPS, SECRETS};
use super::{BACKENDS, GATEWAYS, PATIENCE, Process, ROUTES, TRAFFIC_POLICIES, World, backends};
use client::Resource;
use e2e::{Check, contains, eventually, shell};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

const HTTPS: u16 = 16_474;
const BY_NAME: u16 = 16_475;
const PROXIED: u16 = 16_476;
const TLS_BACKEND: u16 = 16_477;
const SOCKETS: u16 = 16_478;
const TLS_ROUTES: Resource = Resource { group: "gateway.networking.k8s.io", version: "v1", plural: "tlsroutes" };

/// Sends what it is given, and prints what comes back.
const RAW: &str = r#"
import sys, socket
connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])), 3)
connection.sendall(sys.argv[2].encode().decode("unicode_escape").encode())
while True:
    try:
        data = connection.recv(65536)
    except ConnectionError:
        break
    if not data: break
    sys.stdout.write(data.decode())
"#;

/// Agrees to be a WebSocket, and says again what it hears.
const ECHO: &str = r#"
import sys, socket, threading, hashlib, base64
def serve(connection):
    head = b""
    while b"\r\n\r\n" not in head:
        head += connection.recv(65536)
    fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:] if ": " in line)
    fields = {name.lower(): value for name, value in fields.items()}
    accept = base64.b64encode(hashlib.sha1((fields.get("sec-websocket-key", "") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()).decode()
    connection.sendall(f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n".encode())
    while data := connection.recv(65536):
        connection.sendall(b"echo " + data)
server = socket.create_server(("0.0.0.0", int(sys.argv[1])))
while True:
    threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
"#;

/// An extended CONNECT (RFC 8441), frame by frame: prints whether it was offered, the answer's header block, and what came back.
const CONNECT: &str = r#"
import sys, socket, struct
port, host = int(sys.argv[1]), sys.argv[2]
connection = socket.create_connection(("127.0.0.1", port), 3)
def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload
def literal(name, value):
    return b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
fields = [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":path", "/socket"), (":authority", host),
    ("sec-websocket-version", "13")]
connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0))
def read(count):
    data = b""
    while len(data) < count:
        more = connection.recv(count - len(data))
        if not more: raise SystemExit("the connection ended")
        data += more
    return data
sent = False
while True:
    head = read(9)
    payload = read(int.from_bytes(head[:3], "big"))
    kind, flags = head[3], head[4]
    if kind == 4 and not flags & 1:
        settings = {payload[at:at + 2]: payload[at + 2:at + 6] for at in range(0, len(payload), 6)}
        print("offered" if settings.get(b"\x00\x08") == b"\x00\x00\x00\x01" else "not offered")
        connection.sendall(frame(4, 1, 0))
        connection.sendall(frame(1, 4, 1, b"".join(literal(*field) for field in fields)))
    elif kind == 1:
        # Indexed field 8 of the static table is `:status: 200`.
        print("agreed" if payload[:1] == b"\x88" else f"refused {payload!r}")
        connection.sendall(frame(0, 0, 1, b"hello"))
    elif kind == 0:
        print(payload.decode())
        break
    elif kind in (3, 7):
        raise SystemExit(f"ended: {kind} {payload!r}")
"#;

fn run(script: &str, arguments: &[&str]) -> Check<String> {
    shell::run(Command::new("python3").args(["-c", script]).args(arguments), None).ok()
}

impl World {
    pub fn doors(&self, envoy: &Path) -> Check {
        let dir = self.dir.join("doors");
        std::fs::create_dir_all(&dir).map_err(|error| error.to_string())?;
        shell::run(Command::new("sh").args(["-c", CERTIFICATES]).current_dir(&dir), None).ok()?;
        let read = |name: &str| std::fs::read_to_string(dir.join(name)).map_err(|error| format!("{name}: {error}"));
        let _whole = backends::https(TLS_BACKEND, "whole", &dir)?;
        let _sockets = Process::start(Command::new("python3").args(["-c", ECHO, &SOCKETS.to_string()]))?;
        self.service("whole", &[TLS_BACKEND])?;
        self.service("sockets", &[SOCKETS])?;
        self.put(
            CONFIG_MAPS,
            &json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "clients" }, "data": { "ca.crt": read("authority.crt")? } }),
        )?;
        self.put(
            SECRETS,
            &json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "doors" }, "type": "kubernetes.io/tls",
                "stringData": { "tls.crt": read("server.crt")?, "tls.key": read("server.key")? } }),
        )?;
        let terminate = json!({ "mode": "Terminate", "certificateRefs": [{ "name": "doors" }] });
        let listeners = json!([
            { "name": "https", "port": HTTPS, "protocol": "HTTPS", "hostname": "secure.example", "tls": terminate },
            { "name": "whole", "port": BY_NAME, "protocol": "TLS", "hostname": "whole.example", "tls": { "mode": "Passthrough" } },
            { "name": "ended", "port": BY_NAME, "protocol": "TLS", "hostname": "ended.example", "tls": terminate },
            { "name": "http", "port": PROXIED, "protocol": "HTTP" }]);
        let gateway = |tls: &Value| {
            self.put(
                GATEWAYS,
                &json!({ "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": { "name": "doors" },
                    "spec": { "gatewayClassName": "diolkos", "listeners": listeners, "tls": tls } }),
            )
        };
        gateway(&json!({}))?;
        for (name, service) in [("whole", "whole"), ("ended", "one")] {
            self.put(
                TLS_ROUTES,
                &json!({ "apiVersion": "gateway.networking.k8s.io/v1", "kind": "TLSRoute", "metadata": { "name": name },
                    "spec": { "parentRefs": [{ "name": "doors", "sectionName": name }], "hostnames": [format!("{name}.example")],
                        "rules": [{ "backendRefs": [{ "name": service, "port": 80 }] }] } }),
            )?;
        }
        let backend = |service: &str| json!([{ "name": service, "port": 80 }]);
        self.put(
            ROUTES,
            &json!({ "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": { "name": "doors" },
                "spec": { "parentRefs": [{ "name": "doors" }], "rules": [
                    { "matches": [{ "path": { "type": "PathPrefix", "value": "/socket" } }], "backendRefs": backend("sockets") },
                    { "backendRefs": backend("one") }] } }),
        )?;
        let _envoy = self.envoy(envoy, "DELTA_GRPC", &json!({ "gateway": "default/doors" }))?;
        let told = |name: &str, what: Check| what.map_err(|why| format!("{name}: {why}\n{}", self.log("DELTA_GRPC")));
        told("names", self.by_name(&dir))?;
        told("clients", self.clients(&dir, &gateway))?;
        told("sockets", self.sockets())?;
        told("proxied", self.proxied())
    }

    /// Passed through and ended, on one port.
    fn by_name(&self, dir: &Path) -> Check {
        let get = |name: &str| tls(dir, name, BY_NAME, &["--insecure"]);
        eventually(PATIENCE, || contains(&get("whole.example")?, &["whole GET /tls "]))?;
        eventually(PATIENCE, || contains(&get("ended.example")?, &[&format!("backend-{} GET /tls ", BACKENDS[0])]))?;
        match get("other.example") {
            Ok(answer) => Err(format!("a name that is nobody's was answered: {answer}")),
            Err(_) => Ok(()),
        }
    }

    /// Clients must show a certificate; then they may.
    fn clients(&self, dir: &Path, gateway: &dyn Fn(&Value) -> Check) -> Check {
        let get = |more: &[&str]| tls(dir, "secure.example", HTTPS, more);
        let own = ["--cert", "client.crt", "--key", "client.key"];
        eventually(PATIENCE, || contains(&get(&[])?, &["GET /tls "]))?;
        let frontend = |mode: &str| {
            json!({ "frontend": { "default": { "validation": { "mode": mode,
                "caCertificateRefs": [{ "group": "", "kind": "ConfigMap", "name": "clients" }] } } } })
        };
        gateway(&frontend("AllowValidOnly"))?;
        eventually(PATIENCE, || match get(&[]) {
            Ok(answer) => Err(format!("nobody was answered: {answer}")),
            Err(_) => contains(&get(&own)?, &["GET /tls "]),
        })?;
        gateway(&frontend("AllowInsecureFallback"))?;
        eventually(PATIENCE, || contains(&get(&[])?, &["GET /tls "]))?;
        contains(&get(&own)?, &["GET /tls "])
    }

    fn sockets(&self) -> Check {
        let connect = || run(CONNECT, &[&PROXIED.to_string(), "any.example"]);
        eventually(PATIENCE, || contains(&connect()?, &["offered\nagreed\necho hello"]))
    }

    /// The address in the header is the client's, and without a header nobody is answered.
    fn proxied(&self) -> Check {
        let request = r"GET /proxied HTTP/1.1\r\nHost: any.example\r\nConnection: close\r\n\r\n";
        let send = |header: &str| run(RAW, &[&PROXIED.to_string(), &format!("{header}{request}")]);
        eventually(PATIENCE, || contains(&send("")?, &["GET /proxied "]))?;
        self.put(
            TRAFFIC_POLICIES,
            &json!({ "apiVersion": "mesh.diolkos.io/v1", "kind": "TrafficPolicy", "metadata": { "name": "doors" },
                "spec": { "targetRefs": [{ "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "doors" }],
                    "proxyProtocol": "Required" } }),
        )?;
        let header = r"PROXY TCP4 192.0.2.9 192.0.2.1 4000 80\r\n";
        eventually(PATIENCE, || contains(&send(header)?, &["GET /proxied ", "from=192.0.2.9"]))?;
        let without = send("")?;
        if without.contains("GET /proxied") {
            return Err(format!("without a header: {without}"));
        }
        self.delete(TRAFFIC_POLICIES, "doors")
    }
}

/// Asks under TLS, for a server's name.
fn tls(dir: &Path, name: &str, port: u16, more: &[&str]) -> Check<String> {
    let mut curl = Command::new("curl");
    curl.args(["-sS", "-m", "3", "--cacert", "authority.crt", "--resolve", &format!("{name}:{port}:127.0.0.1")]);
    curl.args(more).arg(format!("https://{name}:{port}/tls")).current_dir(dir);
    shell::run(&mut curl, None).ok()
}
