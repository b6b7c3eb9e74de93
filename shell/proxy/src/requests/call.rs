//! Calls of our own to services of the mesh, under the identity of whom they concern: one gRPC message there and one back.
use super::body::Source;
use super::conn::Piece;
use super::pool::{ByPlace, H2Connection, Life, PoolKey};
use super::upstream;
use crate::dial;
use crate::origin::Origin;
use crate::stream::Stream;
use crate::telemetry::{Carries, Peers};
use crate::upstream::{Asker, Port, Upstream};
use crate::worker::Worker;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use model::Key;
use prost::Message;
use std::sync::Arc;

/// An answer's body at most.
const MOST_BYTES: usize = 64 << 10;
/// Endpoints that are tried.
const TRIES: usize = 2;

/// Who is called.
#[derive(Clone, Debug)]
pub struct Callee {
    port: Arc<Port>,
    service: Key,
    /// Host and port, as `:authority`.
    authority: String,
}

impl Callee {
    /// A port of a service, known to callers as `host`.
    pub fn new(worker: &Worker, origin: &Origin, service: &Key, (port, host): (u16, &str)) -> Result<Self, String> {
        let found = worker.ports.get(&worker.shared, service, port, Asker::new(origin));
        let found = found.ok_or_else(|| format!("there is no {service} with port {port}"))?;
        Ok(Self { port: found, service: service.clone(), authority: format!("{host}:{port}") })
    }

    /// A connection of its own.
    pub async fn connect(&self, worker: &Worker, origin: &Origin) -> Result<Stream, String> {
        let mut tried = Vec::new();
        loop {
            let upstream = self.port.choose(&tried, None, worker.now_ms()).ok_or("no endpoint is ready")?;
            match dial::dial(worker, origin, &upstream, None).await {
                Ok(dialled) => return Ok(dialled.stream),
                Err(error) if error.is_retriable() && tried.len() + 1 < TRIES => tried.push(upstream.address),
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    /// An HTTP/2 connection, kept for the next call.
    async fn http2(&self, worker: &Worker, origin: &Origin, upstream: &Upstream) -> Result<H2Connection, String> {
        let key = self.pool_key(origin, upstream);
        if let Some(connection) = worker.http.h2(&key) {
            return Ok(connection);
        }
        let dialled = dial::dial(worker, origin, upstream, None).await.map_err(|error| error.to_string())?;
        let peer = dialled.peer.as_ref();
        let edge = Peers::outbound(worker, origin, peer, Some(&self.service), Carries::Requests, dialled.mtls);
        let cells = worker.cells.edge(&edge);
        let life = Life::of(self.port.policy().map(|policy| &policy.pool));
        upstream::http2(worker, key, dialled.stream, cells, false, life, false).await.map_err(|error| error.to_string())
    }

    fn pool_key(&self, origin: &Origin, upstream: &Upstream) -> PoolKey {
        PoolKey {
            origin: origin.serial,
            load: ByPlace(upstream.load.clone()),
            service: Some(self.service.clone()),
            last_resort: upstream.last_resort,
            outside: upstream.outside,
            tls: None,
            client: None,
        }
    }

    /// Asks and waits for the answer. A connection that turns out to be closed is not the callee's last word.
    pub async fn unary<A: Message + Default>(
        &self,
        worker: &Worker,
        origin: &Origin,
        path: &str,
        question: &impl Message,
    ) -> Result<A, String> {
        let mut tried = Vec::new();
        loop {
            let upstream = self.port.choose(&tried, None, worker.now_ms()).ok_or("no endpoint is ready")?;
            let answer = match self.http2(worker, origin, &upstream).await {
                Ok(connection) => match self.ask(&connection, path, question).await {
                    Ok(bytes) => return A::decode(bytes).map_err(|error| error.to_string()),
                    Err(why) => {
                        worker.http.retire_h2(&self.pool_key(origin, &upstream), &connection);
                        if !connection.reused {
                            tried.push(upstream.address);
                        }
                        why
                    }
                },
                Err(why) => {
                    tried.push(upstream.address);
                    why
                }
            };
            if tried.len() >= TRIES {
                return Err(answer);
            }
        }
    }

    async fn ask(&self, connection: &H2Connection, path: &str, question: &impl Message) -> Result<Bytes, String> {
        let failed = |error: h2::Error| error.to_string();
        let mut sender = connection.sender.clone().ready().await.map_err(failed)?;
        let request = http::Request::post(format!("http://{}{path}", self.authority))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .map_err(|error| error.to_string())?;
        let (response, mut body) = sender.send_request(request, false).map_err(failed)?;
        let length = question.encoded_len();
        let mut framed = BytesMut::with_capacity(length + 5);
        framed.put_u8(0);
        framed.put_u32(length as u32);
        question.encode(&mut framed).map_err(|error| error.to_string())?;
        body.send_data(framed.freeze(), true).map_err(failed)?;
        let response = response.await.map_err(failed)?;
        let status =
            response.headers().get("grpc-status").map(|it| String::from_utf8_lossy(it.as_bytes()).into_owned());
        if let Some(status) = status.filter(|status| status != "0") {
            return Err(format!("it answers with gRPC status {status}"));
        }
        let mut bytes = collect(&mut Source::H2(response.into_body())).await?;
        if bytes.len() < 5 || bytes.get_u8() != 0 || bytes.get_u32() as usize != bytes.len() {
            return Err("the answer is no message of gRPC".into());
        }
        Ok(bytes)
    }
}

/// The whole body of a short answer.
pub async fn collect(source: &mut Source<'_>) -> Result<Bytes, String> {
    let mut all = BytesMut::new();
    loop {
        match source.piece().await.map_err(|error| error.to_string())? {
            Piece::Data(bytes) if all.len() + bytes.len() > MOST_BYTES => return Err("the answer is too long".into()),
            Piece::Data(bytes) => all.extend_from_slice(&bytes),
            Piece::End(_) => return Ok(all.freeze()),
        }
    }
}
