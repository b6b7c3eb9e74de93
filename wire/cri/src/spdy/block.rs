//! Header blocks: names and values, in a zlib stream that runs through all blocks of one direction, with a preset dictionary.

use super::inflate::Inflater;
use super::{Headers, SpdyError};

/// zlib's two header bytes (deflate, 32 KiB window, a preset dictionary follows) and the dictionary's Adler-32.
const HEAD: [u8; 6] = [0x78, 0xbb, 0xe3, 0xc6, 0xa7, 0xc2];

/// The protocol's dictionary: these words, each with its length in four bytes before it, and then the rest.
const WORDS: &str = "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow authorization cache-control connection content-base content-encoding content-language content-length content-location content-md5 content-range content-type date etag expect expires from host if-match if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade user-agent vary via warning www-authenticate method get status";
const REST: &str = "version HTTP/1.1 url public set-cookie keep-alive origin";
const TAIL: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

/// A block of some dozens of bytes is normal; the limit holds off one that unpacks to gigabytes.
const MAX_BLOCK: usize = 64 << 10;

fn dictionary() -> Vec<u8> {
    let mut out = Vec::new();
    for word in WORDS.split(' ').chain(["200 OK"]).chain(REST.split(' ')) {
        out.extend((word.len() as u32).to_be_bytes());
        out.extend(word.as_bytes());
    }
    out.extend(TAIL.as_bytes());
    out
}

#[derive(Debug)]
pub(super) struct Unpacker {
    inflater: Inflater,
    begun: bool,
}

impl Default for Unpacker {
    fn default() -> Self {
        Unpacker { inflater: Inflater::with_dictionary(dictionary()), begun: false }
    }
}

impl Unpacker {
    pub fn unpack(&mut self, mut block: &[u8]) -> Result<Headers, SpdyError> {
        if !self.begun {
            // Some packers choose another window or level; the dictionary is always the protocol's.
            let rest = block.get(HEAD.len()..).filter(|_| block[2..6] == HEAD[2..] && block[0] & 0xf == 8);
            block = rest.ok_or(SpdyError::Headers)?;
            self.begun = true;
        }
        let bytes = self.inflater.inflate(block, MAX_BLOCK).ok_or(SpdyError::Headers)?;
        parse(&bytes).ok_or(SpdyError::Headers)
    }
}

fn parse(bytes: &[u8]) -> Option<Headers> {
    let mut rest = bytes;
    let word = |rest: &mut &[u8]| -> Option<usize> {
        let (head, tail) = rest.split_first_chunk::<4>()?;
        *rest = tail;
        usize::try_from(u32::from_be_bytes(*head)).ok()
    };
    let text = |rest: &mut &[u8]| -> Option<String> {
        let length = word(rest)?;
        let (text, tail) = rest.split_at_checked(length)?;
        *rest = tail;
        String::from_utf8(text.to_vec()).ok()
    };
    let count = word(&mut rest)?;
    let mut out = Vec::new();
    for _ in 0..count {
        let name = text(&mut rest)?.to_ascii_lowercase();
        out.push((name, text(&mut rest)?));
    }
    Some(out)
}

/// Packs without compressing: a stored deflate block is a legal one, and these headers are few and short.
#[derive(Debug, Default)]
pub(super) struct Packer {
    begun: bool,
}

impl Packer {
    pub fn pack(&mut self, headers: &[(&str, &str)]) -> Vec<u8> {
        let mut plain = (headers.len() as u32).to_be_bytes().to_vec();
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            plain.extend((text.len() as u32).to_be_bytes());
            plain.extend(text.as_bytes());
        }
        let mut out = Vec::new();
        if !self.begun {
            out.extend(HEAD);
            self.begun = true;
        }
        for piece in plain.chunks(usize::from(u16::MAX)) {
            let length = piece.len() as u16;
            out.push(0);
            out.extend(length.to_le_bytes());
            out.extend((!length).to_le_bytes());
            out.extend(piece);
        }
        // What zlib writes for a flush: an empty stored block, so that a reader knows that the block is whole.
        out.extend([0, 0, 0, 0xff, 0xff]);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dictionary_is_the_protocols() {
        let (a, b) = dictionary().iter().fold((1u32, 0u32), |(a, b), byte| {
            let a = (a + u32::from(*byte)) % 65521;
            (a, (b + a) % 65521)
        });
        assert_eq!((b << 16 | a).to_be_bytes(), HEAD[2..]);
    }

    /// Written by zlib itself (level 9, sync flush after each block): Huffman codes and references into the dictionary.
    #[test]
    fn unpacks_what_zlib_packed() {
        let mut unpacker = Unpacker::default();
        let (one, two) = (include_bytes!("testdata/block1.bin"), include_bytes!("testdata/block2.bin"));
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let common = [pair("port", "8080"), pair("requestid", "0")];
        let expect = |kind: &str| [&[pair("streamtype", kind)][..], &common].concat();
        assert_eq!(unpacker.unpack(one).unwrap(), expect("error"));
        assert_eq!(unpacker.unpack(two).unwrap(), expect("data"));
    }
}
