//! Bytes that were read from a connection and not taken yet. The memory is the worker's.
use super::spares::Spares;
use std::io;

/// A whole head, or much of a body at once: with 8 KiB bulk costs nearly twice as much (docs/benchmarks.md).
pub const CAPACITY: usize = 72 * 1024;

thread_local! {
    static FREE: Spares = const { Spares::new() };
}

/// What came and was not taken.
#[derive(Debug, Default)]
pub struct Inbox {
    /// [`CAPACITY`] bytes, or none.
    memory: Vec<u8>,
    start: usize,
    end: usize,
}

impl Inbox {
    /// What is there.
    pub fn bytes(&self) -> &[u8] {
        &self.memory[self.start..self.end]
    }

    /// Whether nothing is there.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Takes the first `count` bytes away.
    pub fn take(&mut self, count: usize) {
        debug_assert!(count <= self.end - self.start);
        self.start += count;
        if self.is_empty() {
            self.release();
        }
    }

    /// Lets `read` fill free space; it says how much it did. Memory is given back when there is nothing to keep in it.
    pub fn fill<E: From<io::Error>>(&mut self, read: impl FnOnce(&mut [u8]) -> Result<usize, E>) -> Result<usize, E> {
        if self.memory.is_empty() {
            self.memory = FREE.with(Spares::take).unwrap_or_else(|| vec![0; CAPACITY]);
        } else if self.start > 0 {
            self.memory.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.end == self.memory.len() {
            return Err(io::Error::from(io::ErrorKind::OutOfMemory).into());
        }
        let read = read(&mut self.memory[self.end..]);
        if let Ok(count) = &read {
            self.end += count;
        }
        if self.is_empty() {
            self.release();
        }
        read
    }

    fn release(&mut self) {
        (self.start, self.end) = (0, 0);
        let memory = std::mem::take(&mut self.memory);
        FREE.with(|free| free.give(memory));
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(inbox: &mut Inbox, bytes: &[u8]) {
        let read: io::Result<usize> = inbox.fill(|space| {
            space[..bytes.len()].copy_from_slice(bytes);
            Ok(bytes.len())
        });
        assert_eq!(read.unwrap(), bytes.len());
    }

    #[test]
    fn what_was_put_is_taken_in_order_and_memory_is_given_back() {
        let mut inbox = Inbox::default();
        put(&mut inbox, b"hello ");
        put(&mut inbox, b"world");
        assert_eq!(inbox.bytes(), b"hello world");
        inbox.take(6);
        put(&mut inbox, b"!");
        assert_eq!(inbox.bytes(), b"world!");
        inbox.take(6);
        assert!(inbox.is_empty() && inbox.memory.is_empty());
        let given = FREE.with(|free| [free.take(), free.take()]);
        assert!(matches!(given, [Some(memory), None] if memory.len() == CAPACITY));
        let nothing: io::Result<usize> = inbox.fill(|_| Ok(0));
        assert!(nothing.is_ok() && inbox.memory.is_empty());
    }

    #[test]
    fn there_is_an_end() {
        let mut inbox = Inbox::default();
        put(&mut inbox, &vec![1; CAPACITY]);
        let full: io::Result<usize> = inbox.fill(|_| Ok(1));
        assert!(full.is_err());
        inbox.take(1);
        put(&mut inbox, b"x");
        assert_eq!(inbox.bytes().len(), CAPACITY);
    }
}
