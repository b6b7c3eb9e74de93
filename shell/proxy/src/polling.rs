//! What a worker does when all that was ready is done: it sleeps, or looks for more for a while before it does.
//!
//! To be woken takes longer than a request does: the core was given back, a virtual machine's to its host. So a worker whose waits were short
//! lately looks again and again for as long as that may take (adaptive polling, as Linux's haltpoll governor does before it gives an idle core
//! back). Waits are that short where a worker has some thousands of requests a second and is about half busy: with less to do it sleeps as
//! others do, and with more there is always something ready.
//!
//! Before each look the core is offered to whoever else could run on it, which may be the very process that is to answer. Where others then keep
//! it for long, and for a good part of the time, the worker sleeps as others do: beside somebody who has much to do, one who is woken is run sooner
//! than one who gave way. (That a virtual machine's host takes the core, or the process that answers had many requests to answer after that,
//! is not much of the time.)

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

/// A wait that was short counts for one, and one that was not takes so many back: four of five must be short.
const LONG_TAKES: u8 = 4;
/// From this many on the next is expected to be short.
const ENOUGH: u8 = 8;
/// No more are counted: what was long ago says nothing.
const MOST: u8 = 16;
/// Who keeps the core for so long does not only answer us. The kernel lets one run for about a millisecond before another who gave way.
const KEPT: Duration = Duration::from_micros(200);
/// One part in so many of the time may be kept by others, without end.
const SUFFERED: u32 = 10;
/// And so much beyond it before it is much.
const MUCH: Duration = Duration::from_millis(6);
/// How long it sleeps as others do then; twice as long when it finds the core kept again sooner than that, up to the most.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const MOST_PAUSE: Duration = Duration::from_secs(10);
/// Time is told to others in portions of this.
const PORTION: Duration = Duration::from_millis(10);

thread_local! {
    static POLLING: RefCell<Option<Looking>> = const { RefCell::new(None) };
    static WORKED: Cell<bool> = const { Cell::new(false) };
}

/// How long all workers looked and nothing came.
#[derive(Debug, Default)]
pub struct Spent(AtomicU64);

impl Spent {
    /// For Prometheus.
    pub fn prometheus(&self) -> String {
        const NAME: &str = "diolkos_proxy_polling_seconds_total";
        let seconds = self.0.load(Ordering::Relaxed) as f64 / 1e9;
        format!(
            "# HELP {NAME} Time that workers looked for more to do before they slept, in place of being woken.\n\
             # TYPE {NAME} counter\n{NAME} {seconds}\n"
        )
    }
}

/// One thread's.
struct Looking {
    polling: Polling,
    /// Of a task that does nothing: as long as it is ready the runtime looks for events and does not wait for them.
    again: Waker,
    spent: Arc<Spent>,
    untold: Duration,
    /// When it looked last, if it did before it was asked last.
    looked: Option<Instant>,
}

/// Has the thread look for up to `most` before it sleeps. Never returns, unless that is nothing.
pub async fn run(most: Duration, spent: Arc<Spent>) {
    if most.is_zero() {
        return;
    }
    poll_fn(|cx| {
        POLLING.with_borrow_mut(|looking| {
            looking.get_or_insert_with(|| Looking {
                polling: Polling::new(most, Instant::now()),
                again: cx.waker().clone(),
                spent: spent.clone(),
                untold: Duration::ZERO,
                looked: None,
            });
        });
        Poll::<()>::Pending
    })
    .await;
}

/// Something was sent for somebody: what went before was no part of a wait.
pub fn worked() {
    WORKED.set(true);
}

/// What the worker's runtime calls when all tasks that were ready have run.
pub fn before_waiting() {
    POLLING.with_borrow_mut(|looking| {
        let Some(looking) = looking else { return };
        let (now, worked) = (Instant::now(), WORKED.take());
        if let Some(looked) = looking.looked.take().filter(|_| !worked) {
            looking.untold += now.duration_since(looked);
        }
        let again = looking.polling.looks_again(worked, now);
        if again {
            looking.looked = Some(now);
            looking.again.wake_by_ref();
            std::thread::yield_now();
            looking.polling.gave_way(now.elapsed(), now);
        }
        if looking.untold > PORTION || (!again && !looking.untold.is_zero()) {
            let told = std::mem::take(&mut looking.untold).as_nanos() as u64;
            looking.spent.0.fetch_add(told, Ordering::Relaxed);
        }
    });
}

/// What the worker's runtime calls when it has waited.
pub fn after_waiting() {
    POLLING.with_borrow_mut(|looking| {
        if let Some(looking) = looking {
            looking.polling.woke(Instant::now());
        }
    });
}

/// Whether to look again.
#[derive(Debug)]
struct Polling {
    most: Duration,
    /// Since when nothing was done.
    idle_since: Instant,
    looking: bool,
    /// This wait is known to be short or long.
    counted: bool,
    /// Short waits, less what long ones took back.
    short: u8,
    /// How long others kept the core, beyond what is suffered, and when that was so.
    kept: Duration,
    counted_at: Instant,
    /// Until then the core is somebody else's.
    kept_until: Instant,
    pause: Duration,
}

impl Polling {
    fn new(most: Duration, now: Instant) -> Self {
        Self {
            most,
            idle_since: now,
            looking: false,
            counted: false,
            short: 0,
            kept: Duration::ZERO,
            counted_at: now,
            kept_until: now,
            pause: Duration::ZERO,
        }
    }

    /// Nothing is ready. `worked`: something was, since this was asked last.
    fn looks_again(&mut self, worked: bool, now: Instant) -> bool {
        if worked {
            if self.looking {
                self.count(true);
            }
            (self.idle_since, self.counted) = (now, false);
        }
        let late = now.duration_since(self.idle_since) >= self.most;
        if late && self.looking {
            self.count(false);
        }
        self.looking = !late && self.short >= ENOUGH && now >= self.kept_until;
        self.looking
    }

    /// Something came, or a timer is due.
    fn woke(&mut self, now: Instant) {
        if !self.looking {
            self.count(now.duration_since(self.idle_since) < self.most);
        }
    }

    fn count(&mut self, short: bool) {
        if std::mem::replace(&mut self.counted, true) {
            return;
        }
        self.short = if short { (self.short + 1).min(MOST) } else { self.short.saturating_sub(LONG_TAKES) };
    }

    /// Others ran for so long.
    fn gave_way(&mut self, took: Duration, from: Instant) {
        if took < KEPT {
            return;
        }
        let now = from + took;
        let suffered = now.duration_since(self.counted_at) / SUFFERED;
        self.kept = self.kept.saturating_sub(suffered) + took;
        self.counted_at = now;
        if self.kept < MUCH {
            return;
        }
        let soon = from.duration_since(self.kept_until) < self.pause;
        self.pause = if soon { (self.pause * 2).min(MOST_PAUSE) } else { FIRST_PAUSE };
        (self.kept, self.kept_until, self.looking) = (Duration::ZERO, now + self.pause, false);
    }
}

#[cfg(test)]
mod tests;
