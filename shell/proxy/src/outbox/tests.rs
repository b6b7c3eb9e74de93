use super::*;
use proptest::prelude::*;
use std::pin::Pin;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::TcpListener;

/// Runs on a thread of its own, with an outbox if `kept`.
fn on_worker<T: Send + 'static>(kept: bool, test: impl Future<Output = T> + Send + 'static) -> T {
    let body = move || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.on_thread_park(before_waiting).enable_all().build().unwrap();
        runtime.block_on(async move {
            if kept {
                tokio::spawn(run());
                tokio::task::yield_now().await;
            }
            test.await
        })
    };
    std::thread::spawn(body).join().unwrap()
}

async fn pair() -> (Tcp, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (one, other) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (one.unwrap().into(), other.unwrap().0)
}

/// Whether nothing waits to be sent.
fn is_empty() -> bool {
    with_outbox(|outbox| outbox.entries.is_empty()).unwrap()
}

/// What was written comes whole and in order, however large the pieces are and however it ends.
async fn written_comes(pieces: Vec<usize>, end: bool) {
    let (mut tcp, mut peer) = pair().await;
    let mut sent = Vec::new();
    let read = tokio::spawn(async move {
        let mut read = Vec::new();
        peer.read_to_end(&mut read).await.map(|_| read)
    });
    for (number, length) in pieces.into_iter().enumerate() {
        let piece: Vec<u8> = (0..length).map(|at| (number * 31 + at) as u8).collect();
        tcp.write_all(&piece).await.unwrap();
        sent.extend_from_slice(&piece);
        if number % 3 == 2 {
            tokio::task::yield_now().await;
        }
    }
    if end {
        tcp.shutdown().await.unwrap();
    }
    drop(tcp);
    let read = read.await.unwrap().unwrap();
    assert!(read == sent, "{} of {} bytes", read.len(), sent.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn all_comes_in_order(
        pieces in proptest::collection::vec(prop_oneof![1..200usize, 10_000..40_000usize], 1..30),
        kept: bool,
    ) {
        on_worker(kept, written_comes(pieces, true));
    }
}

#[test]
fn what_is_kept_is_sent_by_the_drop() {
    on_worker(true, written_comes(vec![10, 20], false));
}

#[test]
fn a_peer_that_does_not_read_holds_only_its_own() {
    on_worker(true, async {
        let (mut slow, mut peer) = pair().await;
        let (mut other, mut other_peer) = pair().await;
        // Until the socket is full and some of the last piece is left.
        let piece = vec![7u8; 16 * 1024];
        let mut given = 0;
        let all = async {
            loop {
                slow.write_all(&piece).await.unwrap();
                given += piece.len();
                tokio::task::yield_now().await;
            }
        };
        assert!(tokio::time::timeout(Duration::from_millis(300), all).await.is_err());
        other.write_all(b"hello").await.unwrap();
        let mut five = [0; 5];
        other_peer.read_exact(&mut five).await.unwrap();
        assert_eq!(&five, b"hello");
        let mut left = given;
        let mut buffer = vec![0; 256 * 1024];
        while left > 0 {
            let read = peer.read(&mut buffer).await.unwrap();
            assert!(read > 0 && buffer[..read].iter().all(|byte| *byte == 7));
            left = left.saturating_sub(read);
        }
    });
}

#[test]
fn a_broken_connection_is_told_by_a_later_write() {
    on_worker(true, async {
        let (mut tcp, peer) = pair().await;
        let _ = socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO));
        drop(peer);
        let mut told = false;
        for _ in 0..10 {
            told |= tcp.write_all(b"x").await.is_err();
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
        }
        assert!(told);
        assert_eq!(tcp.read(&mut [0; 8]).await.map_err(|error| error.kind()).unwrap_or(0), 0);
    });
}

/// The rest of a write to a peer that does not read is sent by somebody else, who would keep the connection open.
#[test]
fn an_aborted_connection_breaks_before_a_peer_that_does_not_read() {
    on_worker(true, async {
        let (mut tcp, peer) = pair().await;
        let all = async {
            loop {
                tcp.write_all(&[7; 16 * 1024]).await.unwrap();
                tokio::task::yield_now().await;
            }
        };
        let stuck: Result<(), _> = tokio::time::timeout(Duration::from_millis(300), all).await;
        assert!(stuck.is_err());
        tcp.abort();
        while peer.take_error().unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
}

#[test]
fn an_aborted_connection_sends_nothing() {
    on_worker(true, async {
        let (mut tcp, mut peer) = pair().await;
        tcp.write_all(b"never").await.unwrap();
        tcp.abort();
        assert!(peer.read(&mut [0; 8]).await.is_err());
    });
}

#[test]
fn a_write_that_is_alone_leaves_at_once_and_others_together() {
    on_worker(true, async {
        let (mut one, mut one_peer) = pair().await;
        let (mut other, mut other_peer) = pair().await;
        // Larger than what comes: whoever fills all of it looks for more before anybody waits.
        let mut answer = [0; 8];
        // One answer at a time: nothing goes with it.
        for turn in 0..3 {
            one.write_all(b"1").await.unwrap();
            assert_eq!(is_empty(), turn > 0, "the first one is not known to be alone");
            assert_eq!(one_peer.read(&mut answer).await.unwrap(), 1);
        }
        // Two of them: the first has gone when the second comes.
        one.write_all(b"2").await.unwrap();
        other.write_all(b"2").await.unwrap();
        assert!(!is_empty());
        assert_eq!(other_peer.read(&mut answer).await.unwrap(), 1);
        assert_eq!(one_peer.read(&mut answer).await.unwrap(), 1);
        // From then on all are kept, until there is one again.
        one.write_all(b"3").await.unwrap();
        assert!(!is_empty());
        assert_eq!(one_peer.read(&mut answer).await.unwrap(), 1);
        one.write_all(b"4").await.unwrap();
        assert!(is_empty());
        assert_eq!(one_peer.read(&mut answer).await.unwrap(), 1);
    });
}

#[test]
fn what_is_read_early_is_read_once_and_what_follows_is_waited_for() {
    on_worker(true, async {
        let (mut tcp, mut peer) = pair().await;
        let mut answer = [0; 8];
        // Until one is known to be alone.
        tcp.write_all(b"ask").await.unwrap();
        assert_eq!(peer.read(&mut answer).await.unwrap(), 3);
        for turn in 0..3u8 {
            // Here, and the runtime has not heard of it.
            let std_peer = socket2::SockRef::from(&peer);
            std_peer.send(&[turn]).unwrap();
            tcp.answered = true;
            let mut buffer = ReadBuf::new(&mut answer);
            let read = Pin::new(&mut tcp).poll_read(&mut Context::from_waker(Waker::noop()), &mut buffer);
            assert!(matches!(read, Poll::Ready(Ok(()))) && buffer.filled() == [turn], "{read:?}");
            // Nothing is here: the next bytes wake who waits for them.
            tcp.answered = true;
            let later = async {
                tokio::time::sleep(Duration::from_millis(5)).await;
                peer.write_all(&[turn, turn]).await.unwrap();
            };
            let (read, ()) = tokio::join!(tcp.read(&mut answer), later);
            assert_eq!(&answer[..read.unwrap()], [turn, turn]);
        }
        // An answer that was found early is as one that was waited for: what is written then is alone again.
        tcp.write_all(b"ask").await.unwrap();
        assert!(is_empty());
        socket2::SockRef::from(&peer).send(b"tell").unwrap();
        tcp.answered = true;
        assert_eq!(tcp.read(&mut answer).await.unwrap(), 4);
        tcp.write_all(b"ask").await.unwrap();
        assert!(is_empty());
        peer.shutdown().await.unwrap();
        tcp.answered = true;
        assert_eq!(tcp.read(&mut answer).await.unwrap(), 0);
    });
}
