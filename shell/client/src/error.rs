use std::fmt;

/// A refusal or failure of an API call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// HTTP status; 0 when no answer came (connection refused, cut, timed out).
    pub code: u16,
    /// `Status.reason`: `NotFound`, `AlreadyExists`, `Conflict`, `Expired`, `Invalid`, `Forbidden`, ...
    pub reason: String,
    /// `Status.message`, for a person.
    pub message: String,
}

impl ApiError {
    /// An error with an answer's code, reason and message.
    pub fn new(code: u16, reason: impl Into<String>, message: impl Into<String>) -> Self {
        ApiError { code, reason: reason.into(), message: message.into() }
    }
    /// The call got no answer.
    pub fn unreachable(message: impl Into<String>) -> Self {
        ApiError::new(0, "Unreachable", message)
    }
    /// 404.
    pub fn is_not_found(&self) -> bool {
        self.code == 404
    }
    /// 409: somebody changed it first, or it exists already.
    pub fn is_conflict(&self) -> bool {
        self.code == 409
    }
    /// 410: the watch window has moved on; list again.
    pub fn is_expired(&self) -> bool {
        self.code == 410
    }
    /// Whether the same call may succeed later without anybody changing it.
    pub fn is_transient(&self) -> bool {
        matches!(self.code, 0 | 429 | 500 | 502 | 503 | 504)
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} {})", self.message, self.code, self.reason)
    }
}

impl std::error::Error for ApiError {}
