//! Protobuf, written field by field.
use bytes::Bytes;
use prost::encoding::{WireType, encode_key, encode_varint};

/// A message under construction.
#[derive(Clone, Debug, Default)]
pub struct Message(Vec<u8>);

impl Message {
    /// Empty.
    pub fn new() -> Self {
        Self::default()
    }

    /// A string; also an empty one (a oneof that is set is there).
    pub fn text(self, tag: u32, text: &str) -> Self {
        self.bytes(tag, text.as_bytes())
    }

    /// Bytes.
    pub fn bytes(mut self, tag: u32, bytes: &[u8]) -> Self {
        encode_key(tag, WireType::LengthDelimited, &mut self.0);
        encode_varint(bytes.len() as u64, &mut self.0);
        self.0.extend_from_slice(bytes);
        self
    }

    /// A number, an enum, a bool.
    pub fn number(mut self, tag: u32, value: u64) -> Self {
        encode_key(tag, WireType::Varint, &mut self.0);
        encode_varint(value, &mut self.0);
        self
    }

    /// `envoy.type.v3.Percent`.
    pub fn percent(self, tag: u32, percent: u32) -> Self {
        self.child(tag, Self::default().double(1, f64::from(percent)))
    }

    /// A double.
    pub fn double(mut self, tag: u32, value: f64) -> Self {
        encode_key(tag, WireType::SixtyFourBit, &mut self.0);
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// A number's wrapper, if it is not 0.
    pub fn wrapped_some(self, tag: u32, value: u32) -> Self {
        if value == 0 { self } else { self.wrapped(tag, u64::from(value)) }
    }

    /// A message.
    pub fn child(self, tag: u32, child: Message) -> Self {
        self.bytes(tag, &child.0)
    }

    /// A message, if there is one.
    pub fn maybe(self, tag: u32, child: Option<Message>) -> Self {
        match child {
            Some(child) => self.child(tag, child),
            None => self,
        }
    }

    /// Messages.
    pub fn children(self, tag: u32, children: impl IntoIterator<Item = Message>) -> Self {
        children.into_iter().fold(self, |message, child| message.child(tag, child))
    }

    /// `google.protobuf.UInt32Value` and `BoolValue`.
    pub fn wrapped(self, tag: u32, value: u64) -> Self {
        self.child(tag, Message::new().number(1, value))
    }

    /// `google.protobuf.Duration`.
    pub fn duration_ms(self, tag: u32, ms: u64) -> Self {
        self.child(tag, Message::new().number(1, ms / 1000).number(2, ms % 1000 * 1_000_000))
    }

    /// `google.protobuf.Any`.
    pub fn any(self, tag: u32, type_url: &str, value: Message) -> Self {
        self.child(tag, Message::new().text(1, type_url).child(2, value))
    }

    /// The encoded message.
    pub fn finish(self) -> Bytes {
        self.0.into()
    }
}

/// `envoy.config.core.v3.ConfigSource`: the same stream.
pub fn ads() -> Message {
    // ads, resource_api_version V3
    Message::new().child(3, Message::new()).number(6, 2)
}

/// `envoy.config.core.v3.Address` with a socket address.
pub fn address(address: &str, port: u16) -> Message {
    Message::new().child(1, Message::new().text(2, address).number(3, u64::from(port)))
}

/// A name and a typed configuration: filters, transport sockets.
pub fn extension(name: &str, tag: u32, type_url: &str, value: Message) -> Message {
    Message::new().text(1, name).any(tag, type_url, value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;

    #[test]
    fn what_is_written_is_what_prost_reads() {
        let any = Message::new().text(1, "type.googleapis.com/a.B").bytes(2, b"xyz").finish();
        let read = crate::discovery::Any::decode(any).unwrap();
        assert_eq!((read.type_url.as_str(), &read.value[..]), ("type.googleapis.com/a.B", &b"xyz"[..]));
        let status = Message::new().number(1, 3).text(2, "why").finish();
        let read = crate::discovery::Status::decode(status).unwrap();
        assert_eq!((read.code, read.message.as_str()), (3, "why"));
    }
}
