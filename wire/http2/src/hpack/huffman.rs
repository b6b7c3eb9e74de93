//! Huffman's code of RFC 7541, appendix B. It is canonical: codes are given by their lengths alone, so only these are written down.

/// Bits of each byte's code. The end of string, which must not occur, has the last code of [`MOST_BITS`].
#[rustfmt::skip]
const BITS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,];
const MOST_BITS: usize = 30;
/// Codes up to this are found in one step: every letter and digit has one.
const FAST_BITS: u32 = 8;

/// The code, made from the lengths.
struct Code {
    /// By byte.
    codes: [u32; 256],
    /// Bytes in the order of their codes.
    order: [u8; 256],
    /// By length: the first code, and its byte's place in `order`.
    first: [(u32, u16); MOST_BITS + 1],
    /// By length: what follows its last code, as the first of 32 bits.
    limit: [u64; MOST_BITS + 1],
    /// By the first eight bits: byte and length; no length: it is longer.
    fast: [(u8, u8); 1 << FAST_BITS],
}

static CODE: Code = Code::new();

impl Code {
    const fn new() -> Self {
        let mut made = Self {
            codes: [0; 256],
            order: [0; 256],
            first: [(0, 0); MOST_BITS + 1],
            limit: [0; MOST_BITS + 1],
            fast: [(0, 0); 1 << FAST_BITS],
        };
        let (mut code, mut place, mut bits) = (0u32, 0, 1);
        while bits <= MOST_BITS {
            code <<= 1;
            made.first[bits] = (code, place as u16);
            let mut byte = 0;
            while byte < 256 {
                if BITS[byte] as usize == bits {
                    made.codes[byte] = code;
                    made.order[place] = byte as u8;
                    made.fill_fast(byte as u8, code, bits as u32);
                    place += 1;
                    code += 1;
                }
                byte += 1;
            }
            made.limit[bits] = (code as u64) << (32 - bits);
            bits += 1;
        }
        made
    }

    const fn fill_fast(&mut self, byte: u8, code: u32, bits: u32) {
        if bits > FAST_BITS {
            return;
        }
        let free = FAST_BITS - bits;
        let mut rest = 0;
        while rest < 1 << free {
            self.fast[((code << free) | rest) as usize] = (byte, bits as u8);
            rest += 1;
        }
    }

    /// Byte and length of the code with which 32 bits begin. None: the end of string.
    fn find(&self, window: u32) -> Option<(u8, u32)> {
        let (byte, bits) = self.fast[(window >> (32 - FAST_BITS)) as usize];
        if bits > 0 {
            return Some((byte, u32::from(bits)));
        }
        let bits = (FAST_BITS as usize + 1..=MOST_BITS).find(|bits| u64::from(window) < self.limit[*bits])?;
        let (first, place) = self.first[bits];
        let nth = (window >> (32 - bits)) - first;
        Some((self.order[usize::from(place) + nth as usize], bits as u32))
    }
}

/// Appends what `coded` stands for. None: it is no such code (padding of a whole byte or of zeros, or the end of string).
pub fn decode(coded: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let (mut kept, mut bits, mut rest) = (0u64, 0u32, coded.iter());
    loop {
        while bits <= 56
            && let Some(byte) = rest.next()
        {
            kept = kept << 8 | u64::from(*byte);
            bits += 8;
        }
        // What is missing at the end is ones, as padding is.
        let window = match bits {
            0 => return Some(()),
            1..32 => (kept << (32 - bits)) as u32 | (u32::MAX >> bits),
            _ => (kept >> (bits - 32)) as u32,
        };
        match CODE.find(window) {
            Some((byte, used)) if used <= bits => {
                out.push(byte);
                bits -= used;
            }
            _ => return (bits < 8 && window == u32::MAX).then_some(()),
        }
    }
}

/// Bytes that a text takes when coded.
pub fn encoded_len(text: &[u8]) -> usize {
    text.iter().map(|byte| usize::from(BITS[usize::from(*byte)])).sum::<usize>().div_ceil(8)
}

/// Appends a text, coded.
pub fn encode(text: &[u8], out: &mut Vec<u8>) {
    let (mut kept, mut bits) = (0u64, 0u32);
    for byte in text {
        let used = u32::from(BITS[usize::from(*byte)]);
        kept = kept << used | u64::from(CODE.codes[usize::from(*byte)]);
        bits += used;
        while bits >= 8 {
            bits -= 8;
            out.push((kept >> bits) as u8);
        }
    }
    if bits > 0 {
        let free = 8 - bits;
        out.push((kept << free) as u8 | (0xff >> bits));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 7541, C.4 and C.6.
    #[test]
    fn the_rfcs_examples() {
        let cases: [(&str, &[u8]); 5] = [
            ("www.example.com", &[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff]),
            ("no-cache", &[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf]),
            ("custom-value", &[0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xb8, 0xe8, 0xb4, 0xbf]),
            ("302", &[0x64, 0x02]),
            ("private", &[0xae, 0xc3, 0x77, 0x1a, 0x4b]),
        ];
        for (text, coded) in cases {
            let (mut there, mut back) = (Vec::new(), Vec::new());
            encode(text.as_bytes(), &mut there);
            assert_eq!((&there[..], encoded_len(text.as_bytes())), (coded, coded.len()), "{text}");
            decode(coded, &mut back).unwrap();
            assert_eq!(back, text.as_bytes());
        }
    }

    #[test]
    fn what_is_no_code_is_refused() {
        // More than seven bits of padding, padding by zeros, the end of string, alone and behind a letter.
        for coded in [&[0x1f, 0xff][..], &[0x18], &[0xff, 0xff, 0xff, 0xff], &[0xff], &[0x07, 0xff, 0xff, 0xff, 0xff]] {
            assert_eq!(decode(coded, &mut Vec::new()), None, "{coded:x?}");
        }
        assert_eq!(CODE.find(0xffff_fffc), None, "30 ones are the end of string");
    }

    proptest! {
        #[test]
        fn any_bytes_come_back(text in proptest::collection::vec(any::<u8>(), 0..60)) {
            let (mut coded, mut back) = (Vec::new(), Vec::new());
            encode(&text, &mut coded);
            prop_assert_eq!(coded.len(), encoded_len(&text));
            prop_assert_eq!(decode(&coded, &mut back), Some(()));
            prop_assert_eq!(back, text);
        }

        /// Whatever is taken for a code is the code of what it was read as.
        #[test]
        fn one_reading_only(coded in proptest::collection::vec(any::<u8>(), 0..12)) {
            let (mut text, mut again) = (Vec::new(), Vec::new());
            if decode(&coded, &mut text).is_some() {
                encode(&text, &mut again);
                prop_assert_eq!(again, coded);
            }
        }
    }
}
