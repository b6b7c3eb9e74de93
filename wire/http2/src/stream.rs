//! One stream.

/// The largest window (RFC 9113, 6.9.1).
pub const MOST_WINDOW: i64 = (1 << 31) - 1;

/// Its state, from the head of its request until its owner is done with it.
#[derive(Debug)]
pub struct Stream {
    pub id: u32,
    /// All of the request came.
    pub received: bool,
    /// All of the answer was sent.
    pub sent: bool,
    /// It was reset: nothing more is sent or told.
    pub gone: Option<By>,
    /// Its owner has more to send than it was let.
    pub blocked: bool,
    /// Bytes that may be sent; below 0 when a setting took some back.
    pub window_out: i64,
    /// What the client may send.
    pub window_in: Credit,
    /// Bytes that came and that the owner did not take yet.
    pub held: u32,
    /// Bytes of the body that are still to come, as announced.
    pub left: Option<u64>,
    /// Where the flags of the last frame of the answer are in the output.
    pub flags_at: u64,
}

/// Who reset a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    Us,
    Client,
}

impl Stream {
    /// Whether the client counts it.
    pub fn is_open(&self) -> bool {
        self.gone.is_none() && !(self.received && self.sent)
    }
}

/// A window of ours.
#[derive(Clone, Copy, Debug)]
pub struct Credit {
    size: u32,
    /// What may come.
    left: u32,
    /// What was taken since the client was told last.
    taken: u32,
}

impl Credit {
    pub fn new(size: u32) -> Self {
        Self { size, left: size, taken: 0 }
    }

    /// Bytes came. False: more than they were let.
    #[must_use]
    pub fn spend(&mut self, bytes: u32) -> bool {
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }

    /// Bytes were taken. Some: the client should be told of so many, which is half of the window.
    pub fn give_back(&mut self, bytes: u32) -> Option<u32> {
        self.taken += bytes;
        if self.taken < self.size.div_ceil(2) {
            return None;
        }
        let told = std::mem::take(&mut self.taken);
        self.left += told;
        Some(told)
    }
}
