//! HPACK (RFC 7541): fields said again are a number.
mod decode;
mod encode;
mod huffman;
mod table;

pub use decode::{Decoder, Malformed};
pub use encode::Encoder;
pub use table::ENTRY_BYTES;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Said = Vec<(Vec<u8>, Vec<u8>)>;

    fn read(decoder: &mut Decoder, block: &[u8]) -> Result<Said, Malformed> {
        let mut said = Vec::new();
        decoder.decode(block, |name, value, _| {
            said.push((name.to_vec(), value.to_vec()));
            Ok::<_, Malformed>(())
        })?;
        Ok(said)
    }

    fn text(said: &Said) -> Vec<String> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        said.iter().map(|(name, value)| format!("{}: {}", text(name), text(value))).collect()
    }

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u32> = hex.chars().filter_map(|digit| digit.to_digit(16)).collect();
        digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
    }

    /// RFC 7541, C.4: three requests on one connection.
    #[test]
    fn the_rfcs_requests() {
        let mut decoder = Decoder::default();
        let first = bytes("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff");
        let second = bytes("8286 84be 5886 a8eb 1064 9cbf");
        let third = bytes("8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf");
        let common = [":method: GET", ":scheme: http", ":path: /", ":authority: www.example.com"];
        assert_eq!(text(&read(&mut decoder, &first).unwrap()), common);
        assert_eq!(text(&read(&mut decoder, &second).unwrap()), [&common[..], &["cache-control: no-cache"]].concat());
        let last = [":method: GET", ":scheme: https", ":path: /index.html", common[3], "custom-key: custom-value"];
        assert_eq!(text(&read(&mut decoder, &third).unwrap()), last);
        assert_eq!(decoder.size(), (3, 164));
    }

    /// RFC 7541, C.6: a table of 256 bytes, from which the first fields fall.
    #[test]
    fn the_rfcs_answers() {
        let mut decoder = Decoder::default();
        // The size of the examples, said as an encoder would.
        read(&mut decoder, &bytes("3fe1 01")).unwrap();
        let first = bytes(
            "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718
             63c7 8f0b 97c8 e9ae 82ae 43d3",
        );
        assert_eq!(
            text(&read(&mut decoder, &first).unwrap()),
            [
                ":status: 302",
                "cache-control: private",
                "date: Mon, 21 Oct 2013 20:13:21 GMT",
                "location: https://www.example.com"
            ]
        );
        assert_eq!(decoder.size(), (4, 222));
        let second = bytes("4883 640e ffc1 c0bf");
        assert_eq!(text(&read(&mut decoder, &second).unwrap())[0], ":status: 307");
        assert_eq!(decoder.size(), (4, 222));
    }

    #[test]
    fn a_field_said_twice_is_a_number_from_then_on() {
        let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
        let mut lengths = Vec::new();
        for _ in 0..3 {
            let mut block = Vec::new();
            encoder.begin(&mut block);
            encoder.status(200, &mut block);
            encoder.field(b"Server", b"bookstore", false, &mut block);
            encoder.field(b"set-cookie", b"a=secret", false, &mut block);
            lengths.push(block.len());
            let said = text(&read(&mut decoder, &block).unwrap());
            assert_eq!(said, [":status: 200", "server: bookstore", "set-cookie: a=secret"]);
        }
        assert!(lengths[2] < lengths[1], "{lengths:?}");
        assert_eq!(decoder.size().0, 1, "secrets are not kept");
    }

    /// RFC 7541, 6.2.3 and C.2.3.
    #[test]
    fn what_nobody_is_to_keep_is_said_so() {
        let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
        for _ in 0..3 {
            let mut block = Vec::new();
            encoder.field(b"password", b"secret", true, &mut block);
            encoder.field(b"other", b"value", false, &mut block);
            assert_eq!(block[0], 0x10);
            let mut marks = Vec::new();
            let each = |name: &[u8], _: &[u8], marked: bool| {
                marks.push((name.to_vec(), marked));
                Ok::<_, Malformed>(())
            };
            decoder.decode(&block, each).unwrap();
            assert_eq!(marks, [(b"password".to_vec(), true), (b"other".to_vec(), false)]);
        }
        assert_eq!(decoder.size().0, 1);
    }

    #[test]
    fn a_table_that_shrank_and_grew_is_said_so() {
        let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
        let say = |encoder: &mut Encoder| {
            let mut block = Vec::new();
            encoder.begin(&mut block);
            encoder.field(b"x", b"y", false, &mut block);
            block
        };
        for _ in 0..3 {
            read(&mut decoder, &say(&mut encoder)).unwrap();
        }
        encoder.resize(0);
        encoder.resize(10_000);
        let block = say(&mut encoder);
        assert_eq!(block[..4], [0x20, 0x3f, 0xe1, 0x1f], "0, then 4096");
        assert_eq!(text(&read(&mut decoder, &block).unwrap()), ["x: y"]);
        assert_eq!(say(&mut encoder)[0], 0xbe, "known anew");
    }

    fn names() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            Just(b"content-type".to_vec()),
            Just(b"set-cookie".to_vec()),
            Just(b"server".to_vec()),
            proptest::collection::vec(b'a'..=b'z', 1..40),
        ]
    }

    proptest! {
        /// Whatever is said, in whichever order, with tables of changing size, comes out.
        #[test]
        fn what_is_said_is_read(
            blocks in proptest::collection::vec(
                (
                    proptest::option::of(0..5_000usize),
                    proptest::collection::vec((names(), proptest::collection::vec(b' '..=b'~', 0..200)), 0..12),
                ),
                1..12,
            )
        ) {
            let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
            for (size, fields) in blocks {
                if let Some(size) = size {
                    encoder.resize(size);
                }
                // Twice, so that tables are used.
                for _ in 0..2 {
                    let mut block = Vec::new();
                    encoder.begin(&mut block);
                    for (name, value) in &fields {
                        encoder.field(name, value, false, &mut block);
                    }
                    prop_assert_eq!(&read(&mut decoder, &block).unwrap(), &fields);
                    prop_assert_eq!(decoder.size(), encoder.size());
                }
            }
        }

        #[test]
        fn noise_is_read_or_refused(blocks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..80), 1..6)) {
            let mut decoder = Decoder::default();
            for block in blocks {
                let _ = read(&mut decoder, &block);
                prop_assert!(decoder.size().1 <= 4096);
            }
        }
    }

    impl Decoder {
        fn size(&self) -> (usize, usize) {
            self.table().size()
        }
    }

    impl Encoder {
        fn size(&self) -> (usize, usize) {
            self.table().size()
        }
    }
}
