//! HTTP/1.1 without IO: strict framing, no allocation a message on a warm connection, W3C trace context, and the PROXY protocol.
//!
//! The decoders take bytes and say what they are; who read them and from where is not known here. Three rules shape it:
//!
//! - **One reading only.** Whatever two parsers could read differently (both lengths, two lengths, folded lines, bare line
//!   feeds, blanks before a colon) is refused, never repaired: a message that reaches the next hop means there what it meant
//!   here. That is the whole defence against request smuggling.
//! - **End-to-end fields only.** `Connection`, lengths, `Upgrade`, `Host` and their like are read once into typed fields of
//!   the head and are not among [`Fields`]; the encoder writes them anew. So no hop-by-hop field can leak through.
//! - **One text.** All names and values of a head live in one buffer that is reused by the next head.
#![warn(missing_docs)]

mod body;
mod encode;
mod error;
mod fields;
mod head;
mod parse;
pub mod proxy_protocol;
pub mod trace;

pub use body::{BodyDecoder, Step, encode_chunk_head, encode_last_chunk, is_trailer};
pub use encode::{digits_of, encode_interim, encode_request, encode_response};
pub use error::{BodyError, HeadError};
pub use fields::{FieldError, Fields};
pub use head::{Framing, RequestHead, ResponseHead, Upgrade, Version};
pub use parse::{
    Limits, RequestKind, authority_is_sound, content_length, escapes_are_sound, method_is_sound, parse_request,
    parse_response,
};
