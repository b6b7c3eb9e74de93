//! Response bodies: whole, chunked from shared bytes, or a stream.

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use http_body::{Frame, SizeHint};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Bytes as they come. Errors end a response early; there is no other way to say so once its head is sent.
pub type ByteStream = Pin<Box<dyn Stream<Item = Bytes> + Send>>;

/// A response's body.
pub enum Body {
    /// Nothing, or one buffer.
    Whole(Bytes),
    /// Several buffers that the store shares, sent without being copied into one.
    Parts(VecDeque<Bytes>),
    /// Whatever comes.
    Stream(ByteStream),
}

impl Body {
    /// No bytes.
    pub fn empty() -> Body {
        Body::Whole(Bytes::new())
    }
    /// A stream.
    pub fn stream(stream: impl Stream<Item = Bytes> + Send + 'static) -> Body {
        Body::Stream(Box::pin(stream))
    }
    /// Many small buffers, joined into writes of about 64 KiB: a frame for each object of a list would cost more than the object.
    pub fn joined(parts: impl IntoIterator<Item = Bytes>) -> Body {
        const CHUNK: usize = 64 << 10;
        let mut chunks = VecDeque::new();
        let mut chunk = BytesMut::new();
        for part in parts {
            if !chunk.is_empty() && chunk.len() + part.len() > CHUNK {
                chunks.push_back(chunk.split().freeze());
            }
            if part.len() >= CHUNK {
                chunks.push_back(part);
            } else {
                chunk.extend_from_slice(&part);
            }
        }
        if !chunk.is_empty() {
            chunks.push_back(chunk.freeze());
        }
        Body::Parts(chunks)
    }
}

impl<T: Into<Bytes>> From<T> for Body {
    fn from(bytes: T) -> Self {
        Body::Whole(bytes.into())
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = match &mut *self {
            Body::Whole(bytes) if bytes.is_empty() => None,
            Body::Whole(bytes) => Some(std::mem::take(bytes)),
            Body::Parts(parts) => parts.pop_front(),
            Body::Stream(stream) => match stream.as_mut().poll_next(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(next) => next,
            },
        };
        Poll::Ready(next.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Whole(bytes) => bytes.is_empty(),
            Body::Parts(parts) => parts.is_empty(),
            Body::Stream(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Body::Parts(parts) => SizeHint::with_exact(parts.iter().map(|part| part.len() as u64).sum()),
            Body::Stream(_) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    #[tokio::test]
    async fn joining_keeps_every_byte_in_order() {
        let parts: Vec<Bytes> = (0..1000).map(|i| Bytes::from(vec![(i % 251) as u8; i * 7 % 9000])).collect();
        let all: Vec<u8> = parts.iter().flatten().copied().collect();
        let body = Body::joined(parts);
        assert_eq!(http_body::Body::size_hint(&body).exact(), Some(all.len() as u64));
        assert!(matches!(&body, Body::Parts(chunks) if chunks.len() < 100));
        assert_eq!(body.collect().await.unwrap().to_bytes(), all);
    }
}
