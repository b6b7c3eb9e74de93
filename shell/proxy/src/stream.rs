//! Any connection: plain, under TLS, or a stream in a tunnel.
use crate::hbone::pool::Leaving;
use crate::hbone::stream::HboneStream;
use crate::outbox::Tcp;
use bytes::{Buf, Bytes};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::{client, server};

/// Bytes that were read already (to see what is spoken), then a connection.
#[derive(Debug)]
pub struct Stream {
    prefix: Bytes,
    io: Io,
}

/// The kinds of connection. An enum, so that the protocols above are compiled once.
#[derive(Debug)]
pub enum Io {
    /// Plain TCP.
    Tcp(Tcp),
    /// A stream in a tunnel between proxies.
    Hbone(Box<HboneStream>),
    /// TLS that ends here (a gateway's listener).
    TlsServer(Box<server::TlsStream<Tcp>>),
    /// TLS that ends here on a connection that was looked into first: before a pod's process, or at a gateway that passes other TLS on.
    TlsPeer(Box<server::TlsStream<Stream>>),
    /// TLS to a service that ends it itself.
    TlsClient(Box<client::TlsStream<Stream>>),
}

impl From<Io> for Stream {
    fn from(io: Io) -> Self {
        Self { prefix: Bytes::new(), io }
    }
}

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Self {
        Io::Tcp(stream.into()).into()
    }
}

impl Stream {
    /// Gives bytes back to be read first.
    pub fn unread(&mut self, bytes: Bytes) {
        debug_assert!(self.prefix.is_empty());
        self.prefix = bytes;
    }

    /// The state of the tunnel that it runs in, if it does.
    pub fn leaving(&self) -> Option<Leaving> {
        match &self.io {
            Io::Hbone(stream) => stream.leaving(),
            Io::TlsClient(stream) => stream.get_ref().0.leaving(),
            Io::Tcp(_) | Io::TlsServer(_) | Io::TlsPeer(_) => None,
        }
    }

    /// Whether it runs in a tunnel that should carry nothing new.
    pub fn is_leaving(&self) -> bool {
        match &self.io {
            Io::Hbone(stream) => stream.is_leaving(),
            Io::TlsClient(stream) => stream.get_ref().0.is_leaving(),
            Io::Tcp(_) | Io::TlsServer(_) | Io::TlsPeer(_) => false,
        }
    }

    /// Ready when its other end is known to have left it, also behind bytes that nobody has read. Not all kinds of it wake the task when that
    /// changes: who waits looks again.
    pub fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.io {
            Io::Tcp(stream) => stream.poll_left(cx),
            Io::Hbone(stream) => stream.poll_left(cx),
            Io::TlsServer(stream) => stream.get_ref().0.poll_left(cx),
            Io::TlsPeer(stream) => stream.get_mut().0.poll_left(cx),
            Io::TlsClient(stream) => stream.get_mut().0.poll_left(cx),
        }
    }

    /// Drops a connection so that the other side sees a failure and not an end.
    pub fn abort(self) {
        match self.io {
            Io::Tcp(stream) => stream.abort(),
            Io::Hbone(mut stream) => stream.reset(),
            Io::TlsServer(_) | Io::TlsPeer(_) | Io::TlsClient(_) => {}
        }
    }

    /// The connection itself, if bytes come and go on it as they are.
    pub fn plain(&mut self) -> Option<&mut Tcp> {
        match &mut self.io {
            Io::Tcp(stream) if self.prefix.is_empty() => Some(stream),
            _ => None,
        }
    }

    /// Reads either into `scratch` or, where the bytes are in memory already, hands them out. None: the end.
    pub fn poll_chunk(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Poll<io::Result<Chunk>> {
        if !self.prefix.is_empty() {
            return Poll::Ready(Ok(Chunk::Bytes(std::mem::take(&mut self.prefix))));
        }
        if let Io::Hbone(stream) = &mut self.io {
            return stream.poll_bytes(cx).map_ok(|bytes| bytes.map_or(Chunk::End, Chunk::Bytes));
        }
        let mut buffer = ReadBuf::new(scratch);
        match Pin::new(self).poll_read(cx, &mut buffer) {
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => Poll::Ready(Ok(Chunk::End)),
            Poll::Ready(Ok(())) => Poll::Ready(Ok(Chunk::Scratch(buffer.filled().len()))),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// What [`Stream::poll_chunk`] read.
#[derive(Debug)]
pub enum Chunk {
    /// So many bytes are in the scratch buffer.
    Scratch(usize),
    /// These.
    Bytes(Bytes),
    /// Nothing more will come.
    End,
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.prefix.is_empty() {
            let take = self.prefix.len().min(buffer.remaining());
            buffer.put_slice(&self.prefix[..take]);
            self.prefix.advance(take);
            return Poll::Ready(Ok(()));
        }
        match &mut self.io {
            Io::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Io::Hbone(stream) => Pin::new(stream.as_mut()).poll_read(cx, buffer),
            Io::TlsServer(stream) => Pin::new(stream.as_mut()).poll_read(cx, buffer),
            Io::TlsPeer(stream) => Pin::new(stream.as_mut()).poll_read(cx, buffer),
            Io::TlsClient(stream) => Pin::new(stream.as_mut()).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Io::Hbone(stream) => Pin::new(stream.as_mut()).poll_write(cx, bytes),
            Io::TlsServer(stream) => Pin::new(stream.as_mut()).poll_write(cx, bytes),
            Io::TlsPeer(stream) => Pin::new(stream.as_mut()).poll_write(cx, bytes),
            Io::TlsClient(stream) => Pin::new(stream.as_mut()).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
            Io::Hbone(stream) => Pin::new(stream.as_mut()).poll_write_vectored(cx, parts),
            Io::TlsServer(stream) => Pin::new(stream.as_mut()).poll_write_vectored(cx, parts),
            Io::TlsPeer(stream) => Pin::new(stream.as_mut()).poll_write_vectored(cx, parts),
            Io::TlsClient(stream) => Pin::new(stream.as_mut()).poll_write_vectored(cx, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        !matches!(self.io, Io::Hbone(_))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Io::Hbone(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
            Io::TlsServer(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
            Io::TlsPeer(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
            Io::TlsClient(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Io::Hbone(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
            Io::TlsServer(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
            Io::TlsPeer(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
            Io::TlsClient(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }
}
