//! Response bodies: whole, a list joined from shared bytes, or a stream.

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use http_body::{Frame, SizeHint};
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Bytes as they come. Errors end a response early; there is no other way to say so once its head is sent.
pub type ByteStream = Pin<Box<dyn Stream<Item = Bytes> + Send>>;

/// A response's body.
pub enum Body {
    /// Nothing, or one buffer.
    Whole(Bytes),
    /// A list.
    List(List),
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
}

/// Encoded items between a head and a tail, with commas between them. They are joined into writes of about 64 KiB while the client
/// reads: a frame for each object would cost more than the object, and one buffer for all would double a large list's memory.
pub struct List {
    head: Bytes,
    items: std::vec::IntoIter<Bytes>,
    first: bool,
    /// Taken from `items` and not sent, because it did not fit.
    held: Option<Bytes>,
    tail: Bytes,
    left: u64,
}

const CHUNK: usize = 64 << 10;

impl List {
    /// A list whose items are sent as they are.
    pub fn new(head: impl Into<Bytes>, items: Vec<Bytes>, tail: impl Into<Bytes>) -> List {
        let (head, tail) = (head.into(), tail.into());
        let commas = items.len().saturating_sub(1);
        let bytes: usize = items.iter().map(Bytes::len).sum();
        let left = (head.len() + bytes + commas + tail.len()) as u64;
        List { head, items: items.into_iter(), first: true, held: None, tail, left }
    }

    fn chunk(&mut self) -> Option<Bytes> {
        if self.left == 0 {
            return None;
        }
        let mut chunk = BytesMut::with_capacity(CHUNK.min(usize::try_from(self.left).unwrap_or(CHUNK)));
        chunk.extend_from_slice(&std::mem::take(&mut self.head));
        while let Some(item) = self.held.take().or_else(|| self.items.next()) {
            if !chunk.is_empty() && chunk.len() + item.len() >= CHUNK {
                self.held = Some(item);
                break;
            }
            if !std::mem::replace(&mut self.first, false) {
                chunk.extend_from_slice(b",");
            }
            chunk.extend_from_slice(&item);
        }
        if self.held.is_none() && self.items.len() == 0 {
            chunk.extend_from_slice(&std::mem::take(&mut self.tail));
        }
        self.left -= chunk.len() as u64;
        Some(chunk.freeze())
    }

    /// All of it, for who cannot take it in parts.
    pub fn into_bytes(mut self) -> Vec<u8> {
        let mut all = Vec::with_capacity(usize::try_from(self.left).unwrap_or_default());
        while let Some(chunk) = self.chunk() {
            all.extend_from_slice(&chunk);
        }
        all
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
            Body::List(list) => list.chunk(),
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
            Body::List(list) => list.left == 0,
            Body::Stream(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Body::List(list) => SizeHint::with_exact(list.left),
            Body::Stream(_) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    #[tokio::test]
    async fn a_list_is_every_byte_in_order() {
        for count in [0, 1, 2, 1000] {
            let items: Vec<Bytes> =
                (0..count).map(|i| Bytes::from(vec![b'a' + (i % 26) as u8; i * 7 % 9000])).collect();
            let texts: Vec<String> = items.iter().map(|item| String::from_utf8(item.to_vec()).unwrap()).collect();
            let expect = format!("[{}]", texts.join(","));
            let body = Body::List(List::new("[", items, "]"));
            assert_eq!(http_body::Body::size_hint(&body).exact(), Some(expect.len() as u64));
            assert_eq!(body.collect().await.unwrap().to_bytes(), expect);
        }
    }
}
