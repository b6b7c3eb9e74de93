//! The delta stream as two state machines, without IO: [`Client`] in the proxy, [`Server`] in the control plane.
//!
//! What both keep to, for each resource type by itself:
//! - a response has a nonce, and is answered once: accepted (ACK) or refused with a reason (NACK);
//! - the server has at most one unanswered response under way, so a slow proxy costs no queue: changes that come meanwhile are
//!   told together, in their last state, with the next response;
//! - a client that comes again names what it has (`initial_resource_versions`), and gets only what differs, including what is gone.
//!
//! The server remembers no resource names of a client that asks for all (`*`): the position in the [`Catalog`](crate::catalog::Catalog)'s
//! sequence of changes up to which the client was told says it. That is what makes a thousand clients of a hundred thousand resources
//! cost nothing but their own position.

mod client;
mod server;
mod standing;
mod whole;

pub use client::{Client, Received, ReceivedResource};
pub use server::Server;
pub use standing::{Progress, Refusal};
pub use whole::WholeServer;

/// The peer broke the protocol; the stream is to be closed (and the client may connect again).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// A type that was not subscribed to, or that this server does not have.
    #[error("resource type {0:?} is not known on this stream")]
    UnknownType(String),
    /// More names than a session may hold.
    #[error("a session subscribes to at most {limit} names of a type")]
    TooManyNames {
        /// The limit.
        limit: usize,
    },
    /// A response without nonce or with an unfit one.
    #[error("a response to {type_url} carries no nonce")]
    NoNonce {
        /// Of this type.
        type_url: String,
    },
}

/// Most names that a client may subscribe to by name in one type.
pub const NAMES_LIMIT: usize = 100_000;
