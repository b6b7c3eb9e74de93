//! The cluster's name server, in every pod: names of services from what the mesh knows, everything else from the host's
//! resolvers.
pub mod answer;
pub mod forward;

use crate::pods::Pod;
use crate::worker::Worker;
use answer::{Answered, Zone};
use forward::Transport;
use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// RFC 1035's limit for who does not say more.
const PLAIN_UDP_BYTES: usize = 512;
/// Answers over UDP are not made larger whatever the client says: beyond it they come in fragments.
const MAX_UDP_BYTES: usize = 1232;
const TCP_PATIENCE: Duration = Duration::from_secs(10);

/// Serves a pod's questions over UDP.
pub async fn serve_udp(worker: Arc<Worker>, pod: Arc<Pod>, socket: UdpSocket) {
    let socket = Arc::new(socket);
    let mut buffer = [0u8; 4096];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let question = buffer[..length].to_vec();
        let (worker, pod, socket) = (worker.clone(), pod.clone(), socket.clone());
        tokio::spawn(async move {
            if let Some(answer) = respond(&worker, &pod, &question, Transport::Udp).await {
                // The client asks again if it does not hear.
                let _ = socket.send_to(&answer, from).await;
            }
        });
    }
}

/// Serves a pod's questions over TCP.
pub async fn serve_tcp(worker: Arc<Worker>, pod: Arc<Pod>, mut stream: TcpStream, _from: SocketAddr) {
    let exchange = async {
        loop {
            let length = stream.read_u16().await?;
            let mut question = vec![0; usize::from(length)];
            stream.read_exact(&mut question).await?;
            let Some(answer) = respond(&worker, &pod, &question, Transport::Tcp).await else { return Ok(()) };
            let length = u16::try_from(answer.len()).map_err(std::io::Error::other)?;
            let framed = [&length.to_be_bytes()[..], &answer].concat();
            stream.write_all(&framed).await?;
        }
    };
    let served: Result<std::io::Result<()>, _> = timeout(TCP_PATIENCE, exchange).await;
    drop(served);
}

/// Answers one question. None: it is none, and there is nobody to answer.
async fn respond(worker: &Worker, pod: &Pod, question: &[u8], transport: Transport) -> Option<Vec<u8>> {
    let request = Message::from_vec(question).ok()?;
    if request.metadata.message_type != MessageType::Query {
        return None;
    }
    let refuse = |code| Message::error_msg(request.metadata.id, request.metadata.op_code, code).to_vec().ok();
    if request.metadata.op_code != OpCode::Query || request.queries.len() != 1 {
        return refuse(ResponseCode::NotImp);
    }
    let zone = Zone { domain: &worker.shared.config.cluster_domain, namespace: &pod.origin.namespace };
    let answered = zone.answer(&worker.shared.mesh.known().directory, &request.queries[0]);
    let mut response = Message::response(request.metadata.id, OpCode::Query);
    response.metadata.recursion_desired = request.metadata.recursion_desired;
    response.metadata.recursion_available = true;
    response.add_queries(request.queries.iter().cloned());
    match answered {
        Answered::NotOurs => {
            let forwarder = &worker.shared.forwarder;
            return match forwarder.forward(&pod.asking, question, transport).await {
                Ok(answer) => Some(answer),
                Err(error) => {
                    tracing::debug!(%error, name = %request.queries[0].name, "a question is not answered");
                    refuse(ResponseCode::ServFail)
                }
            };
        }
        Answered::Alias(alias, target) => {
            // A name for a name outside: the client gets both in one answer, as from any resolver.
            let outside = worker.shared.forwarder.ask(&pod.asking, &target, request.queries[0].query_type).await;
            response.add_answer(alias);
            response.add_answers(outside.unwrap_or_default());
        }
        Answered::Records(records) => {
            response.metadata.authoritative = true;
            response.add_answers(records);
        }
        Answered::Nothing { exists, soa } => {
            response.metadata.authoritative = true;
            response.metadata.response_code = if exists { ResponseCode::NoError } else { ResponseCode::NXDomain };
            response.add_authority(soa);
        }
    }
    let bytes = response.to_vec().ok()?;
    let limit = match transport {
        Transport::Tcp => usize::from(u16::MAX),
        Transport::Udp => usize::from(request.max_payload()).clamp(PLAIN_UDP_BYTES, MAX_UDP_BYTES),
    };
    if bytes.len() <= limit { Some(bytes) } else { response.truncate().to_vec().ok() }
}
