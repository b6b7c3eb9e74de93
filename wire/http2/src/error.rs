//! Error codes (RFC 9113, 7) and what has them.

/// Why a stream or a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code(pub u32);

#[allow(missing_docs, reason = "RFC 9113, 7")]
impl Code {
    pub const NO_ERROR: Self = Self(0);
    pub const PROTOCOL_ERROR: Self = Self(1);
    pub const INTERNAL_ERROR: Self = Self(2);
    pub const FLOW_CONTROL_ERROR: Self = Self(3);
    pub const STREAM_CLOSED: Self = Self(5);
    pub const FRAME_SIZE_ERROR: Self = Self(6);
    pub const REFUSED_STREAM: Self = Self(7);
    pub const CANCEL: Self = Self(8);
    pub const COMPRESSION_ERROR: Self = Self(9);
    pub const ENHANCE_YOUR_CALM: Self = Self(11);
}

/// What a client did that ends the connection. It is the client's fault; on a new connection it may try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why} (HTTP/2 error {})", code.0)]
pub struct Fault {
    /// What it is told.
    pub code: Code,
    /// For the log.
    pub why: &'static str,
}

impl Fault {
    pub(crate) const fn protocol(why: &'static str) -> Self {
        Self { code: Code::PROTOCOL_ERROR, why }
    }

    pub(crate) const fn size(why: &'static str) -> Self {
        Self { code: Code::FRAME_SIZE_ERROR, why }
    }

    pub(crate) const fn window(why: &'static str) -> Self {
        Self { code: Code::FLOW_CONTROL_ERROR, why }
    }

    pub(crate) const fn too_much(why: &'static str) -> Self {
        Self { code: Code::ENHANCE_YOUR_CALM, why }
    }
}
