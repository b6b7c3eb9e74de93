//! How long a client that is not of the cluster may keep us waiting.
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};
use tokio::time::Sleep;

/// A wait that begins anew now and then: one timer, set again only when it fires.
#[derive(Debug)]
pub struct Patience {
    most: Duration,
    since: Instant,
    timer: Pin<Box<Sleep>>,
}

impl Patience {
    /// It begins now.
    pub fn begin(most: Duration) -> Self {
        Self { most, since: Instant::now(), timer: Box::pin(tokio::time::sleep(most)) }
    }

    /// It begins anew.
    pub fn renew(&mut self) {
        self.since = Instant::now();
    }

    /// Ready when it is over.
    pub fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.timer.as_mut().poll(cx));
            let end = self.since + self.most;
            if Instant::now() >= end {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(end.into());
        }
    }
}

/// A look from time to time at a task that is woken often: between two looks its timer costs a comparison.
#[derive(Debug)]
pub struct Looks {
    timer: Pin<Box<Sleep>>,
    /// Who is woken for the next one.
    wakes: Option<Waker>,
}

impl Looks {
    /// The first one is after `pause`.
    pub fn after(pause: Duration) -> Self {
        Self { timer: Box::pin(tokio::time::sleep(pause)), wakes: None }
    }

    /// Whether it is time for one; the next is then after `pause`.
    pub fn is_time(&mut self, cx: &mut Context<'_>, pause: Duration) -> bool {
        if self.wakes.as_ref().is_some_and(|wakes| wakes.will_wake(cx.waker())) && !self.timer.is_elapsed() {
            return false;
        }
        let mut due = false;
        while self.timer.as_mut().poll(cx).is_ready() {
            self.timer.as_mut().reset(tokio::time::Instant::now() + pause);
            due = true;
        }
        self.wakes = Some(cx.waker().clone());
        due
    }
}
