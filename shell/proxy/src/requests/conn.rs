//! A connection that speaks HTTP/1.1, as two halves that two futures can hold.
use super::inbox::Inbox;
use super::patience::Patience;
use super::spares::Spares;
use crate::splice::{LARGE_BYTES, Pipe};
use crate::stream::{Chunk, Stream};
use bytes::Bytes;
use http1::{
    BodyDecoder, BodyError, Fields, Framing, HeadError, Limits, RequestHead, RequestKind, ResponseHead, Step,
    encode_chunk_head, encode_last_chunk,
};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::AsyncWrite;
use tokio::time::{Instant, Sleep};

/// A writer keeps its memory up to this.
const KEPT_OUT_BYTES: usize = 8 * 1024;
/// Up to this a piece of a body is copied behind what waits to be sent: one plain write costs the kernel less than a vectored one.
const COPIED_BYTES: usize = 4 * 1024;

/// How often a peer is looked at of whom nothing is read.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Read of an answer whose body may be moved without being read.
const HEAD_BYTES: usize = 8 * 1024;
/// Read of it when the answer before was moved: most heads are shorter, and what is read of the body is copied twice.
const BARE_HEAD_BYTES: usize = 1024;

thread_local! {
    /// Writers' memory.
    static FREE_OUTS: Spares = const { Spares::new() };
}

/// Both halves hold the stream; each locks it for one system call. They are never polled at the same time, the lock only
/// lets two futures borrow what one task owns.
#[derive(Clone, Debug)]
struct Shared(Arc<Mutex<Stream>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Stream> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is read.
#[derive(Debug)]
pub struct Reader {
    stream: Shared,
    inbox: Inbox,
    /// Most that is read at once.
    most: usize,
    /// The last body was moved without being read.
    moved: bool,
    /// What is read are answers: behind one comes nothing before the next is asked for.
    answers: bool,
    /// Something came all the same.
    spoiled: bool,
    /// How long its peer may say nothing where it is waited for.
    patience: Option<Patience>,
}

/// A look at a connection while its reader waits for whoever takes what it has read, or has read all that it should for now.
#[derive(Debug)]
pub struct Watch {
    stream: Shared,
    /// It said more: what comes then is not known.
    said: AtomicBool,
    /// When it is looked at again, while nothing is read.
    again: Mutex<Option<Pin<Box<Sleep>>>>,
}

/// What is written.
#[derive(Debug)]
pub struct Writer {
    stream: Shared,
    /// Bytes that go out with the next flush.
    pub out: Vec<u8>,
}

/// Why no head or body came.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error(transparent)]
    Head(#[from] HeadError),
    #[error(transparent)]
    Body(#[from] BodyError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A piece of a body.
#[derive(Debug)]
pub enum Piece {
    Data(Bytes),
    End(Option<Fields>),
}

/// Splits a connection.
pub fn halves(stream: Stream) -> (Reader, Writer) {
    let stream = Shared(Arc::new(Mutex::new(stream)));
    let reader = Reader {
        stream: stream.clone(),
        inbox: Inbox::default(),
        most: usize::MAX,
        moved: false,
        answers: false,
        spoiled: false,
        patience: None,
    };
    (reader, Writer { stream, out: Vec::new() })
}

/// Joins the halves again; bytes that were read and not taken come first. None: they are not halves of one.
pub fn join(reader: Reader, writer: Writer) -> Option<Stream> {
    let Reader { stream, inbox, .. } = reader;
    drop(writer);
    let mut stream = Arc::try_unwrap(stream.0).ok()?.into_inner().unwrap_or_else(PoisonError::into_inner);
    if !inbox.is_empty() {
        stream.unread(Bytes::copy_from_slice(inbox.bytes()));
    }
    Some(stream)
}

impl Reader {
    /// Bytes that were read and not taken.
    pub fn buffered(&self) -> &[u8] {
        self.inbox.bytes()
    }

    /// The peer may say nothing for so long, and no longer take for a head, where it is its turn: then what is read fails.
    pub fn limit_silence(&mut self, most: Duration) {
        self.patience = Some(Patience::begin(most));
    }

    /// From now on it is the peer's turn.
    pub fn wait_anew(&mut self) {
        if let Some(patience) = &mut self.patience {
            patience.renew();
        }
    }

    /// Reads what comes next, in addition. 0: the end.
    ///
    /// # Errors
    /// The connection's; `TimedOut` after a silence that was too long.
    pub async fn fill(&mut self) -> io::Result<usize> {
        poll_fn(|cx| match self.poll_fill(cx) {
            Poll::Pending => silent(&mut self.patience, cx),
            read => read,
        })
        .await
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut pending = false;
        let mut whole = None;
        let (stream, most) = (&self.stream, self.most);
        let read = self.inbox.fill(|space| {
            let end = most.min(space.len());
            let space = &mut space[..end];
            match stream.lock().poll_chunk(cx, space) {
                Poll::Ready(Ok(Chunk::End)) => Ok(0),
                Poll::Ready(Ok(Chunk::Scratch(length))) => Ok(length),
                Poll::Ready(Ok(Chunk::Bytes(bytes))) => {
                    let Some(room) = space.get_mut(..bytes.len()) else {
                        whole = Some(bytes);
                        return Ok(0);
                    };
                    room.copy_from_slice(&bytes);
                    Ok(bytes.len())
                }
                Poll::Ready(Err(error)) => Err(error),
                Poll::Pending => {
                    pending = true;
                    Ok(0)
                }
            }
        });
        if let Some(mut bytes) = whole {
            // A tunnel's frame may be larger than the space that is left: the rest is read again.
            let read = self.inbox.fill(|space| {
                let part = bytes.split_to(space.len().min(bytes.len()));
                space[..part.len()].copy_from_slice(&part);
                Ok::<_, io::Error>(part.len())
            });
            self.stream.lock().unread(bytes);
            return Poll::Ready(read);
        }
        if pending { Poll::Pending } else { Poll::Ready(read) }
    }

    /// Ready when a peer that waits for an answer is gone. What it says meanwhile is kept for later, and then nothing more is known of it.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.inbox.is_empty() {
            return Poll::Pending;
        }
        if let Some(tcp) = self.stream.lock().plain() {
            // The usual case: nothing came.
            let _ = ready!(tcp.stream().poll_read_ready(cx));
        }
        match ready!(self.poll_fill(cx)) {
            Ok(1..) => Poll::Pending,
            Ok(0) | Err(_) => Poll::Ready(()),
        }
    }

    /// A look at the peer for somebody else.
    pub fn watch(&self) -> Watch {
        Watch { stream: self.stream.clone(), said: AtomicBool::new(false), again: Mutex::default() }
    }

    /// Whether the peer of an idle connection has said nothing, as it should. A connection that ended or that has bytes
    /// nobody asked for is of no use.
    pub fn is_quiet(&mut self) -> bool {
        if !self.inbox.is_empty() || self.spoiled {
            return false;
        }
        let mut probe = [0u8; 1];
        let mut cx = Context::from_waker(std::task::Waker::noop());
        self.stream.lock().poll_chunk(&mut cx, &mut probe).is_pending()
    }

    /// Whether it runs in a tunnel that should carry nothing new.
    pub fn is_leaving(&self) -> bool {
        self.stream.lock().is_leaving()
    }

    /// The next request head. `None`: the connection ended between requests.
    pub async fn request(&mut self, limits: Limits, head: &mut RequestHead) -> Result<Option<()>, ReadError> {
        loop {
            if !self.inbox.is_empty()
                && let Some(length) = http1::parse_request(self.inbox.bytes(), limits, head)?
            {
                self.inbox.take(length);
                return Ok(Some(()));
            }
            if self.fill().await? == 0 {
                let whole = self.inbox.is_empty();
                return if whole { Ok(None) } else { Err(BodyError::Truncated.into()) };
            }
        }
    }

    /// The next response head. `None`: the connection ended before a byte of it.
    pub async fn response(&mut self, kind: RequestKind, head: &mut ResponseHead) -> Result<Option<()>, ReadError> {
        loop {
            if !self.inbox.is_empty()
                && let Some(length) = http1::parse_response(self.inbox.bytes(), Limits::default(), kind, head)?
            {
                self.inbox.take(length);
                return Ok(Some(()));
            }
            if !self.inbox.is_empty() {
                self.most = self.most.max(HEAD_BYTES);
            }
            if self.fill().await? == 0 {
                let whole = self.inbox.is_empty();
                return if whole { Ok(None) } else { Err(BodyError::Truncated.into()) };
            }
        }
    }

    /// Whether what comes next may be moved on without being read (see [`pass_on`](Self::pass_on)): then little is read at once.
    pub fn reads_heads_alone(&mut self, to: &Writer) {
        let plain = self.stream.lock().plain().is_some() && to.stream.lock().plain().is_some();
        self.answers = true;
        let head = if std::mem::take(&mut self.moved) { BARE_HEAD_BYTES } else { HEAD_BYTES };
        self.most = if plain { head } else { usize::MAX };
    }

    /// Moves up to `most` bytes to a writer, behind what waits in it. None: they must be read.
    async fn move_on(&mut self, writer: &mut Writer, most: u64) -> Result<Option<u64>, PassError> {
        if !self.inbox.is_empty() || self.stream.lock().plain().is_none() || writer.stream.lock().plain().is_none() {
            return Ok(None);
        }
        let Some(mut pipe) = Pipe::take() else { return Ok(None) };
        let mut total = 0;
        while total < most {
            let wanted = usize::try_from(most - total).unwrap_or(usize::MAX);
            let mut fill = poll_fn(|cx| match self.stream.lock().plain() {
                Some(tcp) if self.answers => pipe.poll_fill_last(cx, tcp.stream(), wanted),
                Some(tcp) => pipe.poll_fill(cx, tcp.stream(), wanted),
                None => Poll::Ready(Ok(0)),
            });
            // What waits goes with the bytes that follow it, but does not wait for them.
            let filled = match poll_fn(|cx| Poll::Ready(Pin::new(&mut fill).poll(cx))).await {
                Poll::Ready(filled) => filled,
                Poll::Pending => {
                    writer.flush().await.map_err(PassError::Write)?;
                    if let Some(patience) = &mut self.patience {
                        patience.renew();
                    }
                    poll_fn(|cx| match Pin::new(&mut fill).poll(cx) {
                        Poll::Pending => silent(&mut self.patience, cx),
                        filled => filled,
                    })
                    .await
                }
            };
            let filled = filled.map_err(|error| PassError::Read(error.into()))?;
            if filled == 0 {
                break;
            }
            let passed = filled.min(wanted);
            // Something behind an answer, which nobody asked for.
            self.spoiled |= passed < filled;
            writer.lead().await.map_err(PassError::Write)?;
            let drained = poll_fn(|cx| match writer.stream.lock().plain() {
                Some(tcp) => pipe.poll_drain(cx, tcp.stream(), filled - passed),
                None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            });
            drained.await.map_err(PassError::Write)?;
            total += passed as u64;
        }
        self.moved = true;
        Ok(Some(total))
    }

    /// The next piece of a body.
    pub async fn piece(&mut self, decoder: &mut BodyDecoder) -> Result<Piece, ReadError> {
        self.most = usize::MAX;
        loop {
            match decoder.step(self.inbox.bytes())? {
                Step::Payload { skip, take } => {
                    let bytes = Bytes::copy_from_slice(&self.inbox.bytes()[skip..skip + take]);
                    self.inbox.take(skip + take);
                    return Ok(Piece::Data(bytes));
                }
                Step::End { skip } => {
                    self.inbox.take(skip);
                    return Ok(Piece::End(decoder.take_trailers()));
                }
                Step::More { skip } => self.inbox.take(skip),
            }
            self.wait_anew();
            if self.fill().await? == 0 {
                decoder.end_of_input()?;
                return Ok(Piece::End(None));
            }
        }
    }

    /// Sends a body on without a copy of its own. Bytes of it that went, and its trailers.
    pub async fn pass_on(
        &mut self,
        decoder: &mut BodyDecoder,
        writer: &mut Writer,
        framing: Framing,
    ) -> Result<(u64, Option<Fields>), PassError> {
        let mut passed = 0;
        self.most = usize::MAX;
        loop {
            let left = decoder.announced_left();
            let movable = framing != Framing::Chunked && left >= LARGE_BYTES as u64;
            if movable && let Some(moved) = self.move_on(writer, left).await? {
                decoder.taken(moved);
                passed += moved;
            }
            match decoder.step(self.inbox.bytes()).map_err(|error| PassError::Read(error.into()))? {
                Step::Payload { skip, take } => {
                    let payload = &self.inbox.bytes()[skip..skip + take];
                    if movable && writer.out.len() + take <= 2 * HEAD_BYTES {
                        // The rest is likely to be moved: this goes with it.
                        writer.out.extend_from_slice(payload);
                    } else {
                        writer.payload(payload, framing).await.map_err(PassError::Write)?;
                    }
                    passed += take as u64;
                    self.inbox.take(skip + take);
                    continue;
                }
                Step::End { skip } => {
                    self.inbox.take(skip);
                    let trailers = decoder.take_trailers();
                    writer.end(framing, trailers.as_ref()).await.map_err(PassError::Write)?;
                    return Ok((passed, trailers));
                }
                Step::More { skip } => self.inbox.take(skip),
            }
            // The rest may take long: what is there goes.
            let read = match poll_fn(|cx| Poll::Ready(self.poll_fill(cx))).await {
                Poll::Ready(read) => read,
                Poll::Pending => {
                    writer.flush().await.map_err(PassError::Write)?;
                    self.wait_anew();
                    self.fill().await
                }
            };
            if read.map_err(|error| PassError::Read(error.into()))? == 0 {
                decoder.end_of_input().map_err(|error| PassError::Read(error.into()))?;
                writer.end(framing, None).await.map_err(PassError::Write)?;
                return Ok((passed, None));
            }
        }
    }
}

/// Ready, as a failure, when a peer has said nothing for too long.
fn silent(patience: &mut Option<Patience>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
    let Some(patience) = patience else { return Poll::Pending };
    patience.poll_end(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
}

impl Watch {
    /// Ready when the peer is gone. `all_read`: the reader reads no more; what the peer says then the next to read gets.
    pub fn poll_gone(&self, cx: &mut Context<'_>, all_read: bool) -> Poll<()> {
        if !all_read || self.said.load(Ordering::Relaxed) {
            return self.poll_left(cx);
        }
        let (mut stream, mut space) = (self.stream.lock(), [0; 512]);
        if let Some(tcp) = stream.plain() {
            let _ = ready!(tcp.stream().poll_read_ready(cx));
        }
        let bytes = match ready!(stream.poll_chunk(cx, &mut space)) {
            Ok(Chunk::End) | Err(_) => return Poll::Ready(()),
            Ok(Chunk::Scratch(length)) => Bytes::copy_from_slice(&space[..length]),
            Ok(Chunk::Bytes(bytes)) => bytes,
        };
        stream.unread(bytes);
        self.said.store(true, Ordering::Relaxed);
        Poll::Pending
    }

    /// Ready when the peer is gone whose bytes nobody reads now, as far as that is seen behind them.
    fn poll_left(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut again = self.again.lock().unwrap_or_else(PoisonError::into_inner);
        let again = again.get_or_insert_with(|| Box::pin(tokio::time::sleep(LOOK_EVERY)));
        let mut due = false;
        while again.as_mut().poll(cx).is_ready() {
            again.as_mut().reset(Instant::now() + LOOK_EVERY);
            due = true;
        }
        if due { self.stream.lock().poll_left(cx) } else { Poll::Pending }
    }
}

/// Which side of [`Reader::pass_on`] failed.
#[derive(Debug)]
pub enum PassError {
    Read(ReadError),
    Write(io::Error),
}

impl Writer {
    /// Sends what is in `out`.
    pub async fn flush(&mut self) -> io::Result<()> {
        self.flush_with(&[]).await
    }

    /// Sends what is in `out` to a plain connection, to which more is written at once.
    async fn lead(&mut self) -> io::Result<()> {
        let mut sent = 0;
        poll_fn(|cx| {
            let mut stream = self.stream.lock();
            let Some(tcp) = stream.plain() else { return Poll::Ready(Err(io::Error::from(io::ErrorKind::BrokenPipe))) };
            ready!(tcp.poll_all(cx))?;
            while sent < self.out.len() {
                sent += ready!(tcp.poll_lead(cx, &self.out[sent..]))?;
            }
            Poll::Ready(Ok(()))
        })
        .await?;
        self.clear();
        Ok(())
    }

    /// Something is to be written soon: gets memory for it, which the last one to rest gave back.
    pub fn stir(&mut self) {
        if self.out.capacity() == 0 {
            self.out = FREE_OUTS.with(Spares::take).unwrap_or_default();
        }
    }

    /// Nothing is to be written until its peer has said something: holds no memory meanwhile.
    pub fn rest(&mut self) {
        if self.out.is_empty() {
            let memory = std::mem::take(&mut self.out);
            FREE_OUTS.with(|free| free.give(memory));
        }
    }

    /// Forgets what was sent.
    fn clear(&mut self) {
        self.out.clear();
        if self.out.capacity() > KEPT_OUT_BYTES {
            self.out = Vec::new();
        }
    }

    /// Sends what is in `out` and then `parts`, in as few system calls as it takes.
    pub async fn flush_with(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        let mut sent = 0;
        let total = self.out.len() + parts.iter().map(|part| part.len()).sum::<usize>();
        while sent < total {
            let slices = remaining(&self.out, parts, sent);
            let slices: [io::IoSlice<'_>; 4] = slices.map(io::IoSlice::new);
            let written = poll_fn(|cx| {
                let mut stream = self.stream.lock();
                // The usual case: one piece, for which the vectored call costs the kernel more.
                if slices[1].is_empty() {
                    return Pin::new(&mut *stream).poll_write(cx, &slices[0]);
                }
                Pin::new(&mut *stream).poll_write_vectored(cx, &slices)
            })
            .await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            sent += written;
        }
        self.clear();
        poll_fn(|cx| Pin::new(&mut *self.stream.lock()).poll_flush(cx)).await
    }

    /// A piece of a body: a small one waits in `out` for the next, a large one is sent with what waits.
    pub async fn payload(&mut self, bytes: &[u8], framing: Framing) -> io::Result<()> {
        let chunked = framing == Framing::Chunked;
        if chunked {
            encode_chunk_head(bytes.len(), &mut self.out);
        }
        if self.out.len() + bytes.len() <= COPIED_BYTES {
            self.out.extend_from_slice(bytes);
            if chunked {
                self.out.extend_from_slice(b"\r\n");
            }
            return Ok(());
        }
        if chunked { self.flush_with(&[bytes, b"\r\n"]).await } else { self.flush_with(&[bytes]).await }
    }

    /// Ends a body and sends what waits.
    pub async fn end(&mut self, framing: Framing, trailers: Option<&Fields>) -> io::Result<()> {
        if framing == Framing::Chunked {
            encode_last_chunk(trailers, &mut self.out);
        }
        if self.out.is_empty() { Ok(()) } else { self.flush().await }
    }

    /// Ends what is sent.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        poll_fn(|cx| Pin::new(&mut *self.stream.lock()).poll_shutdown(cx)).await
    }
}

/// What is left of `first` and up to three more parts after `sent` bytes.
fn remaining<'a>(first: &'a [u8], parts: &[&'a [u8]], mut sent: usize) -> [&'a [u8]; 4] {
    debug_assert!(parts.len() <= 3);
    let mut out: [&[u8]; 4] = [&[]; 4];
    let mut count = 0;
    for part in std::iter::once(first).chain(parts.iter().copied()) {
        let skip = sent.min(part.len());
        sent -= skip;
        if skip < part.len() {
            out[count] = &part[skip..];
            count += 1;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::copy::tests::pair;
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// An answer whose body comes in pieces, and another when it is asked for: both arrive as they were sent, moved or copied, and the connection
    /// is quiet between them.
    async fn answers_pass(pieces: Vec<usize>, outbox: bool) {
        if outbox {
            tokio::spawn(crate::outbox::run());
            tokio::task::yield_now().await;
        }
        let ((mut server, from), (to, mut client)) = (pair().await, pair().await);
        let ((mut reader, _), (_, mut writer)) = (halves(from.into()), halves(to.into()));
        let length: usize = pieces.iter().sum();
        let body: Vec<u8> = (0..length).map(|at| (at * 7) as u8).collect();
        let whole = [format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n").into_bytes(), body].concat();
        let last = b"HTTP/1.1 204 No Content\r\n\r\n";
        let expected = [&whole[..], last].concat();
        let (ask, mut asked) = tokio::sync::mpsc::channel(1);
        tokio::spawn(async move {
            let mut rest = &whole[..];
            for piece in pieces {
                let (now, later) = rest.split_at(piece.min(rest.len()));
                server.write_all(now).await.unwrap();
                tokio::task::yield_now().await;
                rest = later;
            }
            server.write_all(rest).await.unwrap();
            asked.recv().await.unwrap();
            server.write_all(last).await.unwrap();
            asked.recv().await.unwrap();
        });
        let read = tokio::spawn(async move {
            let mut read = Vec::new();
            client.read_to_end(&mut read).await.map(|_| read)
        });
        for _ in 0..2 {
            let mut head = ResponseHead::default();
            reader.reads_heads_alone(&writer);
            reader.response(RequestKind::Other, &mut head).await.unwrap().unwrap();
            let (kind, version) = (RequestKind::Other, http1::Version::Http11);
            http1::encode_response(&head, kind, version, true, &mut writer.out);
            let mut decoder = BodyDecoder::new(head.framing);
            let (passed, _) = reader.pass_on(&mut decoder, &mut writer, head.framing).await.unwrap();
            assert_eq!(passed, if head.status == 200 { length as u64 } else { 0 });
            assert!(reader.is_quiet());
            ask.send(()).await.unwrap();
        }
        writer.shutdown().await.unwrap();
        let read = read.await.unwrap().unwrap();
        assert!(read == expected, "{} of {} bytes", read.len(), expected.len());
    }

    /// Nobody reads what it sent: its leaving is seen behind that, be it an end or a break, and whether or not it said more behind its request.
    #[tokio::test]
    async fn a_peer_that_leaves_behind_unread_bytes_is_seen() {
        for (breaks, said_more) in [(false, false), (true, false), (false, true)] {
            let (mut peer, of) = pair().await;
            let (reader, _writer) = halves(of.into());
            let watch = reader.watch();
            peer.write_all(&[7; 40_000]).await.unwrap();
            let mut cx = Context::from_waker(std::task::Waker::noop());
            tokio::time::sleep(LOOK_EVERY / 4).await;
            assert!(watch.poll_gone(&mut cx, said_more).is_pending());
            let seen = poll_fn(|cx| watch.poll_gone(cx, said_more));
            assert!(tokio::time::timeout(2 * LOOK_EVERY, seen).await.is_err(), "it is there");
            if breaks {
                socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
            }
            drop(peer);
            poll_fn(|cx| watch.poll_gone(cx, said_more)).await;
        }
    }

    /// What an endpoint says behind its answer reaches nobody, and its connection carries nothing more; nor does one that has ended.
    #[tokio::test]
    async fn what_nobody_asked_for_is_seen() {
        let length = 3 * LARGE_BYTES;
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n").into_bytes();
        for (at_once, later) in [(&b"x"[..], &b""[..]), (b"HTTP/1.1 200 OK\r\n", b""), (b"", b"y"), (b"", b"")] {
            let ((mut server, from), (to, mut client)) = (pair().await, pair().await);
            let ((mut reader, _), (_, mut writer)) = (halves(from.into()), halves(to.into()));
            let sent = [&head[..], &vec![7; length], at_once].concat();
            let server = tokio::spawn(async move { server.write_all(&sent).await.map(|()| server) });
            let read = tokio::spawn(async move {
                let mut read = Vec::new();
                client.read_to_end(&mut read).await.map(|_| read)
            });
            let mut answer = ResponseHead::default();
            reader.reads_heads_alone(&writer);
            reader.response(RequestKind::Other, &mut answer).await.unwrap().unwrap();
            let mut decoder = BodyDecoder::new(answer.framing);
            let (passed, _) = reader.pass_on(&mut decoder, &mut writer, answer.framing).await.unwrap();
            assert_eq!(passed, length as u64);
            let mut server = server.await.unwrap().unwrap();
            if at_once.is_empty() {
                assert!(reader.is_quiet());
                server.write_all(later).await.unwrap();
                if later.is_empty() {
                    drop(server);
                }
            }
            // The runtime hears of it when it next looks.
            tokio::time::sleep(Duration::from_millis(20)).await;
            assert!(!reader.is_quiet(), "{at_once:?} {later:?}");
            writer.shutdown().await.unwrap();
            assert_eq!(read.await.unwrap().unwrap(), vec![7; length]);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn answers_pass_whole(
            pieces in proptest::collection::vec(prop_oneof![0..300usize, 8_000..60_000usize, Just(300_000)], 1..8),
            outbox: bool,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            // On a thread of its own: the outbox is the thread's.
            std::thread::spawn(move || runtime.block_on(answers_pass(pieces, outbox))).join().unwrap();
        }
    }

    proptest! {
        #[test]
        fn what_is_left_is_what_was_not_sent(
            first in proptest::collection::vec(any::<u8>(), 0..20),
            parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 0..=3),
            sent in any::<prop::sample::Index>(),
        ) {
            let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
            let whole = [&[first.as_slice()][..], &parts].concat().concat();
            let sent = sent.index(whole.len() + 1);
            let left = remaining(&first, &parts, sent);
            prop_assert_eq!(left.concat(), &whole[sent..]);
            // The first slice is the one that a writer without vectored writes takes.
            prop_assert!(left[0].is_empty() == (sent == whole.len()));
        }
    }
}
