//! The server's side of HTTP/2 (RFC 9113) without IO: bytes of a client become requests, pieces of bodies and resets; answers become bytes.
//!
//! Who reads, writes and waits is not known here. Three rules shape it:
//!
//! - **Heads are the house's.** A header block is read straight into the head that HTTP/1.1 has, and an answer's head is written straight
//!   from it: no map of headers is made on the way. What HTTP/1.1 could not say, or could say in two ways, is refused here.
//! - **What a client makes us hold is bounded**: streams, windows, header lists before and after unpacking, what waits to be sent; and what
//!   costs us without asking for anything (resets, pings, settings, empty frames) has a rate.
//! - **A stream has an owner** until it says that it is done, whatever the client does meanwhile.
#![warn(missing_docs)]

mod connection;
mod error;
mod frame;
mod head;
mod hpack;
mod output;
mod rate;
mod stream;

pub use connection::{Connection, Event, Events, Limits, Sent};
pub use error::{Code, Fault};
pub use output::Output;
