//! The system call. The only place here that gives the kernel addresses.
#![expect(
    unsafe_code,
    reason = "the kernel reads memory by address; see Ring::send for why it is valid as long as it is read"
)]

use io_uring::{IoUring, opcode, types};
use std::io;
use std::os::fd::{BorrowedFd, RawFd};

/// Writes that are handed over at once.
pub const MOST_ENTRIES: usize = 256;

/// Bytes for a socket.
pub struct Entry {
    /// A socket that is open: its [`Tcp`](super::Tcp) takes the bytes back before it closes it.
    pub fd: RawFd,
    /// None: they were taken back.
    pub bytes: Vec<u8>,
}

impl Entry {
    /// The socket.
    pub fn borrowed(&self) -> BorrowedFd<'_> {
        // SAFETY: see `fd`; the descriptor is not -1, for it came from a socket.
        unsafe { BorrowedFd::borrow_raw(self.fd) }
    }
}

/// What became of a write: bytes that were taken.
pub type Sent = io::Result<usize>;

/// An io_uring of one thread.
pub struct Ring(IoUring);

impl Ring {
    /// Needs Linux 6.0, and that nobody forbids it.
    pub fn open() -> io::Result<Self> {
        let ring = IoUring::builder().setup_single_issuer().setup_coop_taskrun().build(MOST_ENTRIES as u32)?;
        Ok(Self(ring))
    }

    /// Sends all, each without waiting for its peer, and says in `sent` what became of each. When it fails the entries are gone, and the ring
    /// is of no more use.
    pub fn send(&mut self, entries: &mut Vec<Entry>, sent: &mut Vec<Sent>) -> io::Result<()> {
        debug_assert!(entries.len() <= MOST_ENTRIES);
        sent.clear();
        sent.extend(entries.iter().map(|_| Ok(0)));
        let mut under_way = 0;
        for (place, entry) in entries.iter().enumerate().filter(|(_, entry)| !entry.bytes.is_empty()) {
            let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
            let length = entry.bytes.len() as u32;
            let send = opcode::Send::new(types::Fd(entry.fd), entry.bytes.as_ptr(), length).flags(flags).build();
            // SAFETY: the kernel reads the bytes until it has posted the completion. Nobody else has `entries` until this function returns,
            // which it does only when it has seen the completion of each; it leaks them if it cannot see that.
            let pushed = unsafe { self.0.submission().push(&send.user_data(place as u64)) };
            // There is room for as many as there may be, and the queue is empty between calls.
            if pushed.is_err() {
                std::mem::forget(std::mem::take(entries));
                return Err(io::ErrorKind::OutOfMemory.into());
            }
            under_way += 1;
        }
        while under_way > 0 {
            match self.0.submit_and_wait(under_way) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    std::mem::forget(std::mem::take(entries));
                    return Err(error);
                }
            }
            for done in self.0.completion() {
                let result = done.result();
                let result = if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(result as usize) };
                if let Some(place) = sent.get_mut(done.user_data() as usize) {
                    *place = result;
                }
                under_way -= 1;
            }
        }
        Ok(())
    }
}
