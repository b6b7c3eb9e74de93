//! A real proxy in a process of its own that is given a configuration, so that its memory is told apart from that of who made it.

use ::proxy::identity::LocalIssuer;
use ::proxy::mesh::Change;
use ::proxy::{Config, Proxy};
use bytes::Bytes;
use prost::Message;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use xds::discovery::{DeltaDiscoveryResponse, Node};
use xds::resources::{kind_of, type_url};
use xds::session::Client;

/// The process, from outside.
pub struct ProxyProcess {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl ProxyProcess {
    /// Starts it and waits until it serves.
    pub fn start() -> Result<Self, String> {
        let this = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Command::new(this);
        command.arg("proxy-with-routes").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|error| error.to_string())?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("no pipes".into());
        };
        let mut process = Self { child, input, output: BufReader::new(output) };
        process.hear()?;
        Ok(process)
    }

    /// Gives it a response and waits until it is in force.
    pub fn tell(&mut self, response: &[u8]) -> Result<(), String> {
        let length = (response.len() as u64).to_le_bytes();
        let sent = self.input.write_all(&length).and_then(|()| self.input.write_all(response));
        sent.and_then(|()| self.input.flush()).map_err(|error| error.to_string())?;
        self.hear()
    }

    fn hear(&mut self) -> Result<(), String> {
        let mut line = String::new();
        match self.output.read_line(&mut line) {
            Ok(read) if read > 0 => Ok(()),
            Ok(_) => Err("the proxy's process ended".into()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// What it has resident, in MB.
    pub fn resident_mb(&self) -> f64 {
        crate::proxy::net::resident_bytes(self.child.id()) / 1e6
    }
}

impl Drop for ProxyProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The process, from inside: as the stream to the control plane does it, responses are decoded and put into force.
pub fn run() -> Result<(), String> {
    let issuer = LocalIssuer::generate(86_400).map_err(|error| error.to_string())?;
    let config = Config { gateways: false, ..Config::default() };
    let proxy = Proxy::start(config, Arc::new(issuer)).map_err(|error| error.to_string())?;
    let mut client = Client::new(Node::default());
    model::mesh::ResourceKind::ALL.into_iter().for_each(|kind| client.subscribe_all(type_url(kind)));
    client.connected();
    let mut input = std::io::stdin().lock();
    println!("ready");
    let mut length = [0; 8];
    while input.read_exact(&mut length).is_ok() {
        let mut bytes = vec![0; u64::from_le_bytes(length) as usize];
        input.read_exact(&mut bytes).map_err(|error| error.to_string())?;
        let response = DeltaDiscoveryResponse::decode(Bytes::from(bytes)).map_err(|error| error.to_string())?;
        let received = client.receive(response).map_err(|error| error.to_string())?;
        let kind = kind_of(&received.type_url).ok_or("a type of our own")?;
        let decode = |value: Bytes| xds::convert::decode(kind, value).map(Change::Set);
        let changes = received.changed.iter().map(|resource| decode(resource.value.clone()));
        let changes: Vec<Change> = changes.collect::<Result<_, _>>().map_err(|error| error.to_string())?;
        proxy.apply(changes);
        client.finish(&received, &[]);
        drop(received);
        println!("taken");
    }
    Ok(())
}
