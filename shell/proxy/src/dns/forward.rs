//! Questions about the world outside, passed to the host's resolvers.
use crate::netns::{self, MARK, Netns};
use crate::random;
use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, Record, RecordType};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// How long each server is given.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long the list of servers is believed: a laptop changes networks.
const SERVERS_AGE: Duration = Duration::from_secs(30);
const MAX_SERVERS: usize = 3;
/// Questions under way; more are refused rather than each holding a socket. Nobody has more than are free: however many ask without end,
/// something is left for the next.
const MAX_UNDER_WAY: usize = 512;

/// How a question came, and goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Datagrams.
    Udp,
    /// A stream.
    Tcp,
}

/// Why there is no answer. All may be better later.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    #[error("no name server is configured on this host")]
    NoServer,
    #[error("too many questions under way")]
    Busy,
    #[error("no server answered; the last said: {0}")]
    Failed(#[source] io::Error),
}

/// The questions that one pod has under way.
#[derive(Debug, Default)]
pub struct Asking(AtomicUsize);

/// One of them.
struct Counted<'a>(&'a AtomicUsize);

impl Asking {
    /// Counts one more, unless there are `most`.
    fn begin(&self, most: usize) -> Option<Counted<'_>> {
        let more = |now| (now < most).then_some(now + 1);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok().map(|_| Counted(&self.0))
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Asks the servers of a `resolv.conf`.
#[derive(Debug)]
pub struct Forwarder {
    path: PathBuf,
    servers: Mutex<Option<(Instant, Vec<SocketAddr>)>>,
    under_way: Semaphore,
}

impl Forwarder {
    /// Reads the file when it is first needed.
    pub fn new(path: PathBuf) -> Self {
        Self { path, servers: Mutex::default(), under_way: Semaphore::new(MAX_UNDER_WAY) }
    }

    /// Passes a question on as it is and gives the answer as it is, but for the id: ours is not to be guessed.
    pub async fn forward(&self, by: &Asking, question: &[u8], transport: Transport) -> Result<Vec<u8>, ForwardError> {
        let _counted = by.begin(self.under_way.available_permits()).ok_or(ForwardError::Busy)?;
        let _permit = self.under_way.try_acquire().map_err(|_| ForwardError::Busy)?;
        let mut failed = None;
        for server in self.servers() {
            let asked = async {
                match transport {
                    Transport::Udp => ask_udp(server, question).await,
                    Transport::Tcp => ask_tcp(server, question).await,
                }
            };
            match timeout(PATIENCE, asked).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => failed = Some(error),
                Err(_) => failed = Some(io::ErrorKind::TimedOut.into()),
            }
        }
        Err(failed.map_or(ForwardError::NoServer, ForwardError::Failed))
    }

    /// The records of a name outside.
    pub async fn ask(&self, by: &Asking, name: &Name, kind: RecordType) -> Option<Vec<Record>> {
        let mut message = Message::query();
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(name.clone(), kind));
        let answer = self.forward(by, &message.to_vec().ok()?, Transport::Udp).await.ok()?;
        let answer = Message::from_vec(&answer).ok()?;
        (answer.metadata.response_code == ResponseCode::NoError).then_some(answer.answers)
    }

    fn servers(&self) -> Vec<SocketAddr> {
        let mut known = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((read, servers)) = known.as_ref().filter(|(read, _)| read.elapsed() < SERVERS_AGE) {
            debug_assert!(read.elapsed() < SERVERS_AGE);
            return servers.clone();
        }
        let servers = std::fs::read_to_string(&self.path).map(|text| parse(&text)).unwrap_or_default();
        *known = Some((Instant::now(), servers.clone()));
        servers
    }
}

fn parse(resolv_conf: &str) -> Vec<SocketAddr> {
    let servers = resolv_conf.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()? == "nameserver").then(|| words.next())?
    });
    let address = |text: &str| text.split('%').next()?.parse::<IpAddr>().ok();
    servers.filter_map(address).map(|ip| SocketAddr::new(ip, 53)).take(MAX_SERVERS).collect()
}

async fn ask_udp(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    // On a joined machine our own questions would come back to us. Without the right to mark nothing is captured either.
    let _ = socket2::SockRef::from(&socket).set_mark(MARK);
    socket.connect(server).await?;
    let (id, sent) = with_own_id(question)?;
    socket.send(&sent).await?;
    let mut answer = vec![0; 4096];
    loop {
        let length = socket.recv(&mut answer).await?;
        // Anything else on this socket is forged or late.
        if length >= 12 && answer[..2] == id && answer[2] & 0x80 != 0 {
            answer.truncate(length);
            answer[..2].copy_from_slice(&question[..2]);
            return Ok(answer);
        }
    }
}

async fn ask_tcp(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = netns::connect(&Netns::Own, server, false).await?;
    let (id, sent) = with_own_id(question)?;
    let length = u16::try_from(sent.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], &sent].concat()).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    if answer.get(..2) != Some(&id) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    answer[..2].copy_from_slice(&question[..2]);
    Ok(answer)
}

fn with_own_id(question: &[u8]) -> io::Result<([u8; 2], Vec<u8>)> {
    let id = (random::u32() as u16).to_be_bytes();
    let mut sent = question.to_vec();
    sent.get_mut(..2).ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(&id);
    Ok((id, sent))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that never answers: all that is asked stays under way.
    #[tokio::test]
    async fn one_pod_that_asks_without_end_leaves_room_for_another() {
        let forwarder = Forwarder::new(PathBuf::new());
        let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        *forwarder.servers.lock().unwrap() = Some((Instant::now(), vec![silent.local_addr().unwrap()]));
        let question = [0; 12];
        let (greedy, other) = (Asking::default(), Asking::default());
        let begin = |by| {
            let mut asked = Box::pin(forwarder.forward(by, &question, Transport::Udp));
            let busy = matches!(
                asked.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())),
                std::task::Poll::Ready(Err(ForwardError::Busy))
            );
            (!busy).then_some(asked)
        };
        let held: Vec<_> = (0..MAX_UNDER_WAY).map_while(|_| begin(&greedy)).collect();
        assert_eq!(held.len(), MAX_UNDER_WAY / 2);
        let others: Vec<_> = (0..MAX_UNDER_WAY).map_while(|_| begin(&other)).collect();
        assert_eq!(others.len(), MAX_UNDER_WAY / 4);
        drop(held);
        assert!(begin(&greedy).is_some(), "what ended is free again");
    }

    #[test]
    fn reads_resolv_conf() {
        let text = "# x\nsearch a.b\nnameserver 10.0.0.2\nnameserver fe80::1%eth0\nnameserver x\noptions ndots:5\n";
        let servers = parse(text).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(servers, ["10.0.0.2:53", "[fe80::1]:53"]);
    }
}
