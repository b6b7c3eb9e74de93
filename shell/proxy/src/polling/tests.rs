use super::*;
use std::io::{Read, Write};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const MOST_US: u64 = 100;

/// A worker that does something, and then has nothing to do for each of these times, in microseconds; whether it looked after each.
struct Waits {
    polling: Polling,
    now: Instant,
}

impl Waits {
    fn new() -> Self {
        let now = Instant::now();
        Self { polling: Polling::new(Duration::from_micros(MOST_US), now), now }
    }

    fn pass(&mut self, us: u64) {
        self.now += Duration::from_micros(us);
    }

    /// One wait, of which each look takes 2 us. How long it looked.
    fn wait(&mut self, us: u64) -> u64 {
        let (mut looked, mut left) = (0, us);
        let mut worked = true;
        while self.polling.looks_again(worked, self.now) {
            worked = false;
            let took = left.min(2);
            self.pass(took);
            looked += took;
            left -= took;
            if left == 0 {
                return looked;
            }
        }
        self.pass(left);
        self.polling.woke(self.now);
        looked
    }
}

#[test]
fn who_waits_shortly_looks_and_who_does_not_sleeps() {
    let mut waits = Waits::new();
    for _ in 0..ENOUGH {
        assert_eq!(waits.wait(50), 0, "it is not known yet");
    }
    for _ in 0..100 {
        assert_eq!(waits.wait(50), 50);
    }
    // Each of these it looks in vain, until they are known for what they are.
    let looked: Vec<u64> = (0..10).map(|_| waits.wait(1_000)).collect();
    assert_eq!(looked.iter().filter(|looked| **looked == MOST_US).count(), 3, "{looked:?}");
    assert_eq!(looked[3..], [0; 7]);
    let until = (0..20).position(|_| waits.wait(99) > 0);
    assert_eq!(until, Some(usize::from(ENOUGH)));
}

#[test]
fn one_long_wait_in_five_is_suffered() {
    let mut waits = Waits::new();
    for turn in 0..100 {
        waits.wait(if turn % 6 == 5 { 500 } else { 30 });
    }
    assert_eq!(waits.wait(30), 30);
    for turn in 0..100 {
        waits.wait(if turn % 4 == 3 { 500 } else { 30 });
    }
    assert!((0..12).map(|turn| waits.wait(if turn % 4 == 3 { 500 } else { 30 })).sum::<u64>() == 0);
}

#[test]
fn a_core_that_somebody_keeps_is_left_to_them() {
    let mut waits = Waits::new();
    for _ in 0..MOST {
        waits.wait(50);
    }
    let slice = Duration::from_micros(1_400);
    let mut pause = FIRST_PAUSE;
    for _ in 0..10 {
        let mut looks = 0;
        while waits.polling.looks_again(true, waits.now) {
            waits.polling.gave_way(slice, waits.now);
            waits.now += slice;
            looks += 1;
        }
        assert_eq!(looks, 5, "each of them somebody waited for");
        waits.now += pause - Duration::from_micros(1);
        assert!(!waits.polling.looks_again(true, waits.now), "{pause:?}");
        waits.pass(1);
        pause = (pause * 2).min(MOST_PAUSE);
    }
    // When it was left alone for longer than that, it is the first time again.
    waits.now += MOST_PAUSE;
    while waits.polling.looks_again(true, waits.now) {
        waits.polling.gave_way(slice, waits.now);
        waits.now += slice;
    }
    assert_eq!(waits.polling.pause, FIRST_PAUSE);
}

/// Who keeps the core for `kept` out of each of these times, all in microseconds; whether it is left to them.
#[test]
fn what_is_kept_now_and_then_is_suffered() {
    for (kept, of, left) in [
        (150, 300, false),
        // A host that takes the core, and what is done after it.
        (4_000, 100_000, false),
        (3_000, 30_000, false),
        (500, 5_100, false),
        // A batch that works half of the time, or a quarter of it.
        (1_000, 2_000, true),
        (1_400, 5_600, true),
        (700, 3_500, true),
    ] {
        let mut waits = Waits::new();
        for _ in 0..MOST {
            waits.wait(50);
        }
        let is_left = (0..200).any(|_| {
            waits.polling.gave_way(Duration::from_micros(kept), waits.now);
            waits.pass(of);
            !waits.polling.looks_again(true, waits.now)
        });
        assert_eq!(is_left, left, "{kept} of {of}");
    }
}

/// On a runtime: what comes while it looks is found, and it sleeps when nothing comes.
#[test]
fn a_runtime_looks_and_sleeps() {
    const LONG: Duration = Duration::from_millis(200);
    const REQUESTS: usize = 40;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    let peer = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut byte = [0];
        while stream.read(&mut byte).unwrap() == 1 {
            std::thread::sleep(Duration::from_micros(200));
            stream.write_all(&byte).unwrap();
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .on_thread_park(before_waiting)
        .on_thread_unpark(after_waiting)
        .enable_all()
        .build()
        .unwrap();
    let spent = Arc::new(Spent::default());
    let looked = || spent.0.load(Ordering::Relaxed);
    runtime.block_on(async {
        tokio::spawn(run(LONG, spent.clone()));
        let mut stream = tokio::net::TcpStream::connect(to).await.unwrap();
        for turn in 0..REQUESTS {
            stream.write_all(&[turn as u8]).await.unwrap();
            worked();
            let mut byte = [0];
            stream.read_exact(&mut byte).await.unwrap();
            assert_eq!(byte, [turn as u8]);
            worked();
        }
        tokio::time::sleep(4 * LONG).await;
        let before = looked();
        assert!(before > 0, "it looked");
        tokio::time::sleep(LONG).await;
        assert_eq!(looked(), before, "it sleeps");
    });
    peer.join().unwrap();
}
