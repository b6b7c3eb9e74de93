use super::*;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Runs on a thread of its own, with an outbox if `kept`.
fn on_worker<T: Send + 'static>(kept: bool, test: impl Future<Output = T> + Send + 'static) -> T {
    let body = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
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

#[test]
fn an_aborted_connection_sends_nothing() {
    on_worker(true, async {
        let (mut tcp, mut peer) = pair().await;
        tcp.write_all(b"never").await.unwrap();
        tcp.abort();
        assert!(peer.read(&mut [0; 8]).await.is_err());
    });
}
