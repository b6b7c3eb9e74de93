//! How much of what costs us and asks for nothing a client may send.

/// At once.
const BURST: u64 = 1_000;
/// And so many in a second.
const PER_SECOND: u64 = 200;

/// A bucket of tokens.
#[derive(Debug)]
pub struct Rate {
    /// In thousandths.
    left: u64,
    /// Milliseconds of the caller's clock.
    at: u64,
}

impl Default for Rate {
    fn default() -> Self {
        Self { left: BURST * 1_000, at: 0 }
    }
}

impl Rate {
    /// The time is now.
    pub fn tick(&mut self, now_ms: u64) {
        let earned = now_ms.saturating_sub(self.at).saturating_mul(PER_SECOND);
        self.left = self.left.saturating_add(earned).min(BURST * 1_000);
        self.at = now_ms;
    }

    /// One more. False: it is one too many.
    #[must_use]
    pub fn take(&mut self) -> bool {
        match self.left.checked_sub(1_000) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}
