//! Bytes that wait to be sent: frames in one text, and large bodies as they are.
use bytes::{Buf, Bytes};
use std::collections::VecDeque;
use std::io::IoSlice;

/// Up to this a body is copied: one piece costs the kernel less than three.
const COPIED_BYTES: usize = 4 * 1024;
/// Sent text is forgotten when it is so much.
const FORGET_BYTES: usize = 16 * 1024;
/// What a connection keeps of its memory while nothing waits.
const KEPT_BYTES: usize = 1024;

/// What waits to be sent.
#[derive(Debug, Default)]
pub struct Output {
    text: Vec<u8>,
    /// Bytes of `text` that were sent.
    sent: usize,
    /// Bytes of texts that were forgotten.
    gone: u64,
    /// Bodies, each behind so many bytes of the text.
    bodies: VecDeque<(usize, Bytes)>,
    body_bytes: usize,
}

impl Output {
    /// Bytes.
    pub fn len(&self) -> usize {
        self.text.len() - self.sent + self.body_bytes
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Frames are appended to it.
    pub(crate) fn text(&mut self) -> &mut Vec<u8> {
        &mut self.text
    }

    /// A body behind what was appended.
    pub(crate) fn body(&mut self, bytes: Bytes) {
        if bytes.len() <= COPIED_BYTES {
            return self.text.extend_from_slice(&bytes);
        }
        self.body_bytes += bytes.len();
        self.bodies.push_back((self.text.len(), bytes));
    }

    /// The place of what is appended next, among all that ever was.
    pub(crate) fn place(&self) -> u64 {
        self.gone + self.text.len() as u64
    }

    /// Adds flags to those that wait at this place. False: they were sent.
    pub(crate) fn add_flags(&mut self, place: u64, flags: u8) -> bool {
        let at = place.checked_sub(self.gone).map(|at| at as usize).filter(|at| *at >= self.sent);
        match at.and_then(|at| self.text.get_mut(at)) {
            Some(byte) => {
                *byte |= flags;
                true
            }
            None => false,
        }
    }

    /// Fills `slices` with what comes next; their number.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let (mut count, mut at) = (0, self.sent);
        let mut put = |bytes: &'a [u8]| match slices.get_mut(count) {
            Some(slice) if !bytes.is_empty() => {
                *slice = IoSlice::new(bytes);
                count += 1;
            }
            _ => {}
        };
        for (behind, bytes) in &self.bodies {
            put(&self.text[at..*behind]);
            put(bytes);
            at = *behind;
        }
        put(&self.text[at..]);
        count
    }

    /// So many bytes of it were sent.
    pub fn advance(&mut self, count: usize) {
        self.take(count);
        // What waits is behind what was sent, bodies too.
        if self.is_empty() || self.sent >= FORGET_BYTES {
            self.forget_sent();
        }
    }

    fn take(&mut self, mut count: usize) {
        while let Some((behind, bytes)) = self.bodies.front_mut() {
            let text = (*behind - self.sent).min(count);
            self.sent += text;
            count -= text;
            if self.sent < *behind {
                return;
            }
            let body = bytes.len().min(count);
            bytes.advance(body);
            self.body_bytes -= body;
            count -= body;
            if !bytes.is_empty() {
                return;
            }
            self.bodies.pop_front();
        }
        self.sent += count;
        debug_assert!(self.sent <= self.text.len());
    }

    fn forget_sent(&mut self) {
        let gone = std::mem::take(&mut self.sent);
        self.gone += gone as u64;
        self.text.drain(..gone);
        self.bodies.iter_mut().for_each(|(behind, _)| *behind -= gone);
        if self.text.is_empty() {
            self.text.shrink_to(KEPT_BYTES);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Do {
        Text(usize),
        Body(usize),
        Send(usize),
    }

    fn what() -> impl Strategy<Value = Do> {
        prop_oneof![
            (0..9_000usize).prop_map(Do::Text),
            (0..9_000usize).prop_map(Do::Body),
            (0..30_000usize).prop_map(Do::Send),
        ]
    }

    proptest! {
        #[test]
        fn bytes_leave_in_order(steps in proptest::collection::vec(what(), 0..60), most in 1usize..6) {
            let (mut output, mut put, mut sent) = (Output::default(), Vec::new(), Vec::new());
            let send = |output: &mut Output, sent: &mut Vec<u8>, count: usize| {
                let mut slices = [IoSlice::new(&[]); 6];
                let filled = output.slices(&mut slices[..most]);
                let next: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.iter().copied()).collect();
                let count = count.min(next.len());
                sent.extend_from_slice(&next[..count]);
                output.advance(count);
            };
            for step in steps {
                let bytes = |length: usize| -> Vec<u8> { (0..length).map(|at| (at * 31 + put.len()) as u8).collect() };
                match step {
                    Do::Text(length) => {
                        let bytes = bytes(length);
                        output.text().extend_from_slice(&bytes);
                        put.extend(bytes);
                    }
                    Do::Body(length) => {
                        let bytes = bytes(length);
                        output.body(bytes.clone().into());
                        put.extend(bytes);
                    }
                    Do::Send(count) => send(&mut output, &mut sent, count),
                }
                prop_assert_eq!(output.len(), put.len() - sent.len());
                prop_assert!(output.text.len() <= output.len() + FORGET_BYTES, "what was sent is forgotten");
            }
            while !output.is_empty() {
                send(&mut output, &mut sent, usize::MAX);
            }
            prop_assert!(sent == put);
            prop_assert!(output.text.is_empty() && output.bodies.is_empty() && output.sent == 0);
        }
    }

    #[test]
    fn flags_are_added_until_they_are_sent() {
        let mut output = Output::default();
        output.text().push(0);
        output.advance(1);
        let place = output.place();
        output.text().extend_from_slice(&[0, 0]);
        assert!(output.add_flags(place, 4) && output.add_flags(place, 1));
        assert_eq!(output.text, [5, 0]);
        output.advance(1);
        assert!(!output.add_flags(place, 8) && output.add_flags(place + 1, 8));
        output.advance(1);
        assert!(!output.add_flags(place + 1, 1) && !output.add_flags(place + 2, 1));
    }
}
