//! Why bytes are not a message. All of these are the sender's fault; a retry of the same bytes never helps.

/// A head that is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// Not HTTP/1 at all, or a line that is not what the grammar says.
    #[error("malformed {0}")]
    Malformed(&'static str),
    /// A line that ends with a line feed alone: some parsers take it for a line end, some do not.
    #[error("a line ends without a carriage return")]
    BareLineFeed,
    /// `Content-Length` together with `Transfer-Encoding`.
    #[error("both content-length and transfer-encoding")]
    TwoFramings,
    /// More than one `Content-Length`, or one that is no number.
    #[error("content-length is repeated or not a number")]
    BadLength,
    /// A transfer coding other than a single `chunked`.
    #[error("transfer-encoding is not exactly \"chunked\"")]
    UnknownCoding,
    /// No `Host`, more than one, or one that is no authority.
    #[error("host is missing, repeated or malformed")]
    BadHost,
    /// An expectation that is not `100-continue`.
    #[error("unknown expectation")]
    UnknownExpectation,
    /// The request line alone is over its limit.
    #[error("request target over the limit")]
    TargetTooLong,
    /// The head is over its limit in bytes or in number of fields.
    #[error("head over the limit")]
    TooLarge,
}

impl HeadError {
    /// The status that a server answers to a request with this fault.
    pub fn status(self) -> u16 {
        match self {
            Self::TargetTooLong => 414,
            Self::TooLarge => 431,
            Self::UnknownCoding => 501,
            Self::UnknownExpectation => 417,
            _ => 400,
        }
    }
}

/// A body that is refused; the connection is beyond use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// A chunk that is not as the grammar says.
    #[error("malformed chunk")]
    Chunk,
    /// Chunk extensions or trailers over their limit.
    #[error("chunk extensions or trailers over the limit")]
    TooLarge,
    /// A trailer that is malformed or may not be a trailer.
    #[error("malformed trailer")]
    Trailer,
    /// The connection ended within the body.
    #[error("the connection ended within the body")]
    Truncated,
}
