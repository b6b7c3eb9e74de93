//! Deflate's reading half (RFC 1951) for small blocks: simple rather than fast.

/// A stream of deflate blocks that arrives in flushed pieces.
#[derive(Debug)]
pub(super) struct Inflater {
    /// What references may reach back to.
    window: Vec<u8>,
}

const WINDOW: usize = 32 << 10;
const MAX_BITS: usize = 15;
const LENGTH_BASE: [u16; 29] =
    [3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258];
const LENGTH_EXTRA: [u8; 29] = [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0];
const DISTANCE_BASE: [u16; 30] = [
    1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145,
    8193, 12289, 16385, 24577,
];
const DISTANCE_EXTRA: [u8; 30] =
    [0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13];
/// The order in which code lengths of the code lengths are written.
const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

impl Inflater {
    pub fn with_dictionary(dictionary: Vec<u8>) -> Self {
        Inflater { window: dictionary }
    }

    /// Unpacks one piece that ends at a flush: whole blocks, at most `limit` bytes. `None` when it is broken.
    pub fn inflate(&mut self, input: &[u8], limit: usize) -> Option<Vec<u8>> {
        let mut bits = Bits { input, at: 0 };
        let mut out = Output { bytes: std::mem::take(&mut self.window), begin: 0, limit };
        out.begin = out.bytes.len();
        // Less than a block's head is padding.
        while bits.left() >= 8 {
            let last = bits.take(1)? == 1;
            match bits.take(2)? {
                0 => stored(&mut bits, &mut out)?,
                1 => {
                    let (literals, distances) = fixed();
                    coded(&mut bits, &mut out, &literals, &distances)?;
                }
                2 => {
                    let (literals, distances) = dynamic(&mut bits)?;
                    coded(&mut bits, &mut out, &literals, &distances)?;
                }
                _ => return None,
            }
            if last {
                break;
            }
        }
        let fresh = out.bytes[out.begin..].to_vec();
        let keep = out.bytes.len().saturating_sub(WINDOW);
        self.window = out.bytes.split_off(keep);
        Some(fresh)
    }
}

struct Output {
    bytes: Vec<u8>,
    begin: usize,
    limit: usize,
}

impl Output {
    fn push(&mut self, byte: u8) -> Option<()> {
        if self.bytes.len() - self.begin >= self.limit {
            return None;
        }
        self.bytes.push(byte);
        Some(())
    }

    fn copy(&mut self, length: usize, distance: usize) -> Option<()> {
        for _ in 0..length {
            let from = self.bytes.len().checked_sub(distance)?;
            self.push(self.bytes[from])?;
        }
        Some(())
    }
}

/// Bits, least significant first.
struct Bits<'a> {
    input: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn left(&self) -> usize {
        self.input.len() * 8 - self.at
    }

    fn take(&mut self, count: u8) -> Option<u16> {
        let mut out = 0;
        for bit in 0..count {
            let byte = *self.input.get(self.at / 8)?;
            out |= u16::from(byte >> (self.at % 8) & 1) << bit;
            self.at += 1;
        }
        Some(out)
    }

    fn align(&mut self) {
        self.at = self.at.div_ceil(8) * 8;
    }
}

fn stored(bits: &mut Bits<'_>, out: &mut Output) -> Option<()> {
    bits.align();
    let length = bits.take(16)?;
    if bits.take(16)? != !length {
        return None;
    }
    for _ in 0..length {
        out.push(bits.take(8)? as u8)?;
    }
    Some(())
}

/// A canonical Huffman code: how many codes each length has, and their symbols in order.
struct Code {
    counts: [u16; MAX_BITS + 1],
    symbols: Vec<u16>,
}

impl Code {
    fn new(lengths: &[u8]) -> Option<Code> {
        let mut counts = [0u16; MAX_BITS + 1];
        for length in lengths {
            counts[usize::from(*length)] += 1;
        }
        counts[0] = 0;
        // More codes than there are bit patterns: no code at all.
        let mut free = 1i32;
        for count in &counts[1..] {
            free = free * 2 - i32::from(*count);
            if free < 0 {
                return None;
            }
        }
        let mut symbols = Vec::new();
        for bits in 1..=MAX_BITS as u8 {
            symbols.extend((0..lengths.len() as u16).filter(|symbol| lengths[usize::from(*symbol)] == bits));
        }
        Some(Code { counts, symbols })
    }

    fn read(&self, bits: &mut Bits<'_>) -> Option<u16> {
        let (mut code, mut first, mut index) = (0i32, 0i32, 0i32);
        for count in &self.counts[1..] {
            code |= i32::from(bits.take(1)?);
            let count = i32::from(*count);
            if code - count < first {
                return self.symbols.get(usize::try_from(index + code - first).ok()?).copied();
            }
            index += count;
            first = (first + count) * 2;
            code *= 2;
        }
        None
    }
}

fn fixed() -> (Code, Code) {
    let mut lengths = [8u8; 288];
    lengths[144..256].fill(9);
    lengths[256..280].fill(7);
    let empty = || Code { counts: [0; MAX_BITS + 1], symbols: Vec::new() };
    (Code::new(&lengths).unwrap_or_else(empty), Code::new(&[5; 30]).unwrap_or_else(empty))
}

fn dynamic(bits: &mut Bits<'_>) -> Option<(Code, Code)> {
    let literals = usize::from(bits.take(5)?) + 257;
    let distances = usize::from(bits.take(5)?) + 1;
    let lengths = usize::from(bits.take(4)?) + 4;
    let mut of_lengths = [0u8; 19];
    for at in &ORDER[..lengths] {
        of_lengths[*at] = bits.take(3)? as u8;
    }
    let code = Code::new(&of_lengths)?;
    let mut all: Vec<u8> = Vec::with_capacity(literals + distances);
    while all.len() < literals + distances {
        let (value, times) = match code.read(bits)? {
            16 => (*all.last()?, bits.take(2)? + 3),
            17 => (0, bits.take(3)? + 3),
            18 => (0, bits.take(7)? + 11),
            length => (length as u8, 1),
        };
        all.extend(std::iter::repeat_n(value, usize::from(times)));
    }
    if all.len() != literals + distances {
        return None;
    }
    Some((Code::new(&all[..literals])?, Code::new(&all[literals..])?))
}

fn coded(bits: &mut Bits<'_>, out: &mut Output, literals: &Code, distances: &Code) -> Option<()> {
    loop {
        match literals.read(bits)? {
            literal @ 0..256 => out.push(literal as u8)?,
            256 => return Some(()),
            length => {
                let at = usize::from(length - 257);
                let length = *LENGTH_BASE.get(at)? + bits.take(LENGTH_EXTRA[at])?;
                let at = usize::from(distances.read(bits)?);
                let distance = usize::from(*DISTANCE_BASE.get(at)?) + usize::from(bits.take(DISTANCE_EXTRA[at])?);
                out.copy(usize::from(length), distance)?;
            }
        }
    }
}
