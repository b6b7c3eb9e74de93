//! Memory that a worker keeps for its connections: one has some only while there are bytes in it, and the next gets what the last gave back,
//! which is warm.
use std::cell::RefCell;

/// Kept for the next; more is in use only while peers are slow.
const MOST: usize = 16;

/// Of one kind, of one worker.
#[derive(Debug, Default)]
pub struct Spares(RefCell<Vec<Vec<u8>>>);

impl Spares {
    pub const fn new() -> Self {
        Self(RefCell::new(Vec::new()))
    }

    /// What was given back last, with its content; None: all is in use.
    pub fn take(&self) -> Option<Vec<u8>> {
        self.0.borrow_mut().pop()
    }

    /// Keeps it for the next, if it is any and there are not enough.
    pub fn give(&self, memory: Vec<u8>) {
        let mut kept = self.0.borrow_mut();
        if memory.capacity() > 0 && kept.len() < MOST {
            kept.push(memory);
        }
    }
}
