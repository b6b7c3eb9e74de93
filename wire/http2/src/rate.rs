//! How much of what costs us and asks for nothing a client may send.

/// At once, in seconds' worth.
const BURST: u64 = 5;

/// A bucket of tokens.
#[derive(Debug)]
pub struct Rate {
    per_second: u64,
    /// In thousandths.
    left: u64,
    /// Milliseconds of the caller's clock.
    at: u64,
}

impl Rate {
    pub fn new(per_second: u32) -> Self {
        let per_second = u64::from(per_second);
        Self { per_second, left: per_second * BURST * 1_000, at: 0 }
    }

    /// The time is now.
    pub fn tick(&mut self, now_ms: u64) {
        let earned = now_ms.saturating_sub(self.at).saturating_mul(self.per_second);
        self.left = self.left.saturating_add(earned).min(self.per_second * BURST * 1_000);
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
