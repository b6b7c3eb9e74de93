//! Connections that somebody passes on to a gateway's listener: a PROXY header says who opened them.
use http1::proxy_protocol::{Error, Header, decode};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long the header may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest header that is read, and one byte more.
const PEEK_BYTES: usize = 1_041;

/// Takes the header off a connection. Gives who opened the connection: without addresses, who passes it on.
pub async fn take(stream: &mut TcpStream, from: SocketAddr) -> io::Result<SocketAddr> {
    timeout(PATIENCE, header(stream)).await?.map(|header| header.ends.map_or(from, |ends| ends.source))
}

async fn header(stream: &mut TcpStream) -> io::Result<Header> {
    let mut bytes = [0; PEEK_BYTES];
    let mut taken = 0;
    loop {
        let length = stream.peek(&mut bytes[taken..]).await?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let header = decode(&bytes[..taken + length]).map_err(refused)?;
        // What is only a part of it is all its own. It is taken, so that the next look waits for more.
        let end = header.as_ref().map_or(taken + length, |header| header.length);
        stream.read_exact(&mut bytes[taken..end]).await?;
        taken = end;
        if let Some(header) = header {
            return Ok(header);
        }
    }
}

fn refused(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
