//! Bodies from anywhere to anywhere.
use super::conn::{PassError, Piece, ReadError, Reader, Writer};
use super::convert;
use super::streams::Half;
use crate::telemetry::Messages;
use bytes::{Bytes, BytesMut};
use h2::{RecvStream, SendStream};
use http1::{BodyDecoder, Fields, Framing};
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Poll;

/// Of a request body this much is kept, so that the request can be sent again.
pub const REPLAY_BYTES: usize = 64 * 1024;

/// Where a body comes from.
#[derive(Debug)]
pub enum Source<'a> {
    /// There is none, or it was all taken.
    Empty,
    /// All of it is here.
    Bytes(Bytes),
    /// An HTTP/1.1 connection.
    H1(&'a mut Reader, BodyDecoder),
    /// A stream of an endpoint that speaks HTTP/2.
    H2(RecvStream),
    /// A stream of a client that does.
    Served(Half),
}

/// A body that is streamed, with what was taken of it so far while that is little: it can be sent again from its beginning.
#[derive(Debug)]
pub struct Kept<'a> {
    source: Source<'a>,
    pieces: Vec<Bytes>,
    size: usize,
    /// Pieces that this try has sent again.
    at: usize,
    end: Option<Option<Fields>>,
    whole: bool,
    /// Who wants all of it, if it is little.
    wanted: Option<Arc<OnceLock<Bytes>>>,
}

impl<'a> Kept<'a> {
    /// Nothing was taken yet.
    pub fn new(source: Source<'a>) -> Self {
        Self { source, pieces: Vec::new(), size: 0, at: 0, end: None, whole: true, wanted: None }
    }

    /// Where all of it will be found, once it came, if it is little and has no trailers. What is here of it is taken now.
    pub async fn want(&mut self, replayable: &AtomicBool) -> Arc<OnceLock<Bytes>> {
        let wanted = self.wanted.get_or_insert_default().clone();
        while self.end.is_none() && self.whole {
            let Poll::Ready(Ok(piece)) = poll_fn(|cx| Poll::Ready(pin!(self.source.piece()).poll(cx))).await else {
                // What is wrong with it the next to read it will see.
                break;
            };
            match piece {
                Piece::Data(bytes) => {
                    self.size += bytes.len();
                    self.pieces.push(bytes);
                    if self.size > REPLAY_BYTES {
                        // These are sent still, and then forgotten.
                        self.whole = false;
                        replayable.store(false, Ordering::Relaxed);
                    }
                }
                Piece::End(trailers) => self.end = Some(trailers),
            }
        }
        self.tell();
        wanted
    }

    fn tell(&self) {
        if let (Some(wanted), Some(None), true) = (&self.wanted, &self.end, self.whole) {
            let _ = wanted.set(match &self.pieces[..] {
                [one] => one.clone(),
                pieces => pieces
                    .iter()
                    .fold(BytesMut::new(), |mut all, piece| {
                        all.extend_from_slice(piece);
                        all
                    })
                    .freeze(),
            });
        }
    }

    /// Sends it, from its beginning. When more was taken than is kept, `replayable` becomes false; made false by
    /// another (an answer has begun), nothing more is kept.
    pub async fn pump(
        &mut self,
        sink: &mut Sink<'_>,
        replayable: &AtomicBool,
        mut messages: Option<Messages>,
    ) -> Result<Pumped, PumpError> {
        self.at = 0;
        let mut pumped = Pumped::default();
        loop {
            match self.piece(replayable).await? {
                Piece::Data(bytes) => {
                    pumped.count(&bytes, &mut messages);
                    pumped.bytes += bytes.len() as u64;
                    sink.data(bytes).await.map_err(PumpError::Sink)?;
                }
                Piece::End(trailers) => {
                    sink.end(trailers.as_ref()).await.map_err(PumpError::Sink)?;
                    pumped.trailers = trailers;
                    return Ok(pumped);
                }
            }
        }
    }

    async fn piece(&mut self, replayable: &AtomicBool) -> Result<Piece, ReadError> {
        if let Some(bytes) = self.pieces.get(self.at) {
            self.at += 1;
            return Ok(Piece::Data(bytes.clone()));
        }
        if let Some(trailers) = &self.end {
            return Ok(Piece::End(trailers.clone()));
        }
        let piece = self.source.piece().await?;
        match &piece {
            Piece::Data(bytes) => {
                self.size += bytes.len();
                self.whole &= self.size <= REPLAY_BYTES && replayable.load(Ordering::Relaxed);
                if self.whole {
                    self.pieces.push(bytes.clone());
                    self.at += 1;
                } else {
                    replayable.store(false, Ordering::Relaxed);
                    (self.pieces, self.at) = (Vec::new(), 0);
                }
            }
            Piece::End(trailers) => {
                self.end = Some(trailers.clone());
                self.tell();
            }
        }
        Ok(piece)
    }

    /// What was not taken, to be read to its end.
    pub fn rest(self) -> Source<'a> {
        if self.end.is_some() { Source::Empty } else { self.source }
    }

    /// Whether it has no byte.
    pub fn is_empty(&self) -> bool {
        self.size == 0 && self.end.as_ref().map_or_else(|| self.source.is_empty(), Option::is_none)
    }
}

/// Where a body goes.
#[derive(Debug)]
pub enum Sink<'a> {
    /// An HTTP/1.1 connection; what is in its buffer already (the head) goes with the first piece.
    H1(&'a mut Writer, Framing),
    /// A stream to an endpoint that speaks HTTP/2.
    H2(SendStream<Bytes>),
    /// A stream to a client that does.
    Served(Half),
    /// Nowhere: the head has ended the message.
    Ended,
}

/// Which side failed; the other is innocent.
#[derive(Debug, thiserror::Error)]
pub enum PumpError {
    #[error("reading: {0}")]
    Source(#[from] ReadError),
    #[error("writing: {0}")]
    Sink(#[source] io::Error),
}

/// What went through.
#[derive(Debug, Default)]
pub struct Pumped {
    pub bytes: u64,
    /// gRPC messages, if they were counted.
    pub messages: u64,
    pub trailers: Option<Fields>,
}

impl Source<'_> {
    /// Whether nothing of it is to come.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Bytes(bytes) => bytes.is_empty(),
            Self::H1(_, decoder) => decoder.is_done(),
            Self::H2(stream) => stream.is_end_stream(),
            Self::Served(half) => half.is_at_end(),
        }
    }

    /// The next piece.
    pub async fn piece(&mut self) -> Result<Piece, ReadError> {
        match self {
            Self::Empty => Ok(Piece::End(None)),
            Self::Bytes(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = Self::Empty;
                Ok(if bytes.is_empty() { Piece::End(None) } else { Piece::Data(bytes) })
            }
            Self::H1(reader, decoder) => reader.piece(decoder).await,
            Self::H2(stream) => h2_piece(stream).await,
            Self::Served(half) => Ok(half.piece().await?),
        }
    }
}

async fn h2_piece(stream: &mut RecvStream) -> Result<Piece, ReadError> {
    loop {
        match stream.data().await {
            Some(Ok(bytes)) if bytes.is_empty() => {}
            Some(Ok(bytes)) => {
                // The peer may send more as soon as this was taken; it is passed on before the next is asked for.
                let _ = stream.flow_control().release_capacity(bytes.len());
                return Ok(Piece::Data(bytes));
            }
            Some(Err(error)) => return Err(crate::hbone::stream::to_io(error).into()),
            None => {
                let trailers = stream.trailers().await.map_err(crate::hbone::stream::to_io)?;
                return Ok(Piece::End(trailers.as_ref().map(convert::fields)));
            }
        }
    }
}

impl Sink<'_> {
    async fn data(&mut self, bytes: Bytes) -> io::Result<()> {
        match self {
            Self::H1(writer, framing) => {
                writer.payload(&bytes, *framing).await?;
                // The next piece may take long.
                if writer.out.is_empty() { Ok(()) } else { writer.flush().await }
            }
            Self::H2(stream) => h2_data(stream, bytes).await,
            Self::Served(half) => half.data(bytes).await,
            // The answer to HEAD cannot have a body; a peer that sends one was refused by the codec.
            Self::Ended => Ok(()),
        }
    }

    async fn end(&mut self, trailers: Option<&Fields>) -> io::Result<()> {
        match self {
            Self::H1(writer, framing) => writer.end(*framing, trailers).await,
            Self::H2(stream) => match trailers {
                Some(trailers) => stream.send_trailers(convert::header_map(trailers)),
                None => stream.send_data(Bytes::new(), true),
            }
            .map_err(crate::hbone::stream::to_io),
            Self::Served(half) => half.finish(trailers),
            Self::Ended => Ok(()),
        }
    }
}

async fn h2_data(stream: &mut SendStream<Bytes>, mut bytes: Bytes) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len());
        if stream.capacity() == 0 {
            match poll_fn(|cx| stream.poll_capacity(cx)).await {
                Some(granted) => drop(granted.map_err(crate::hbone::stream::to_io)?),
                None => return Err(io::ErrorKind::BrokenPipe.into()),
            }
        }
        let take = stream.capacity().min(bytes.len());
        if take > 0 {
            stream.send_data(bytes.split_to(take), false).map_err(crate::hbone::stream::to_io)?;
        }
    }
    Ok(())
}

impl Pumped {
    fn count(&mut self, bytes: &[u8], messages: &mut Option<Messages>) {
        if let Some(messages) = messages {
            messages.take(bytes);
            self.messages = messages.count();
        }
    }
}

/// Passes a body on, piece by piece: a slow sink stops the reading. `messages`: it is a gRPC stream, whose messages are counted.
pub async fn pump(
    source: &mut Source<'_>,
    sink: &mut Sink<'_>,
    mut messages: Option<Messages>,
) -> Result<Pumped, PumpError> {
    match (&mut *source, &mut *sink) {
        (Source::H1(reader, decoder), Sink::H1(writer, framing)) => {
            let passed = reader.pass_on(decoder, writer, *framing).await;
            let (bytes, trailers) = passed.map_err(|error| match error {
                PassError::Read(error) => PumpError::Source(error),
                PassError::Write(error) => PumpError::Sink(error),
            })?;
            return Ok(Pumped { bytes, messages: 0, trailers });
        }
        // A whole body goes with its head.
        (Source::Bytes(bytes), Sink::H1(writer, framing)) if !bytes.is_empty() => {
            writer.payload(bytes, *framing).await.map_err(PumpError::Sink)?;
            writer.end(*framing, None).await.map_err(PumpError::Sink)?;
            return Ok(Pumped { bytes: std::mem::take(bytes).len() as u64, ..Pumped::default() });
        }
        _ => {}
    }
    let mut pumped = Pumped::default();
    loop {
        match source.piece().await? {
            Piece::Data(bytes) => {
                pumped.count(&bytes, &mut messages);
                pumped.bytes += bytes.len() as u64;
                sink.data(bytes).await.map_err(PumpError::Sink)?;
            }
            Piece::End(trailers) => {
                sink.end(trailers.as_ref()).await.map_err(PumpError::Sink)?;
                pumped.trailers = trailers;
                return Ok(pumped);
            }
        }
    }
}
