//! The supplementary groups of a peer (`SO_PEERGROUPS`), as the kernel noted them when it connected.
#![expect(
    unsafe_code,
    reason = "the option has no safe form: the kernel writes numbers into a buffer whose length in bytes it is told, and says how many it wrote"
)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Supplementary groups that a process can have (Linux: NGROUPS_MAX).
const MOST_GROUPS: usize = 65_536;

/// The supplementary groups that the process had when it connected.
pub fn supplementary(stream: &impl AsFd) -> io::Result<Vec<u32>> {
    let mut groups = vec![0_u32; 64];
    loop {
        let mut bytes = (groups.len() * size_of::<u32>()) as libc::socklen_t;
        let fd = stream.as_fd().as_raw_fd();
        // SAFETY: the descriptor is open as long as `stream` is borrowed; the buffer has as many bytes as is said, of plain numbers, and the
        // kernel writes no more than that.
        let failed = unsafe {
            libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_PEERGROUPS, groups.as_mut_ptr().cast(), &raw mut bytes) != 0
        };
        let error = failed.then(io::Error::last_os_error);
        let told = bytes as usize / size_of::<u32>();
        match error {
            None => {
                groups.truncate(told);
                return Ok(groups);
            }
            // It says how much it needs.
            Some(error) if error.raw_os_error() == Some(libc::ERANGE) && told > groups.len() && told <= MOST_GROUPS => {
                groups.resize(told, 0);
            }
            Some(error) => return Err(error),
        }
    }
}
