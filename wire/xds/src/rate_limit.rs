//! Messages of Envoy's rate limit service, `envoy.service.ratelimit.v3`, as far as asking it needs them.

/// Path of the call.
pub const SHOULD_RATE_LIMIT_PATH: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";

/// A question.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct RateLimitRequest {
    /// Whose limits.
    #[prost(string, tag = "1")]
    pub domain: String,
    /// What is known of the request.
    #[prost(message, repeated, tag = "2")]
    pub descriptors: Vec<Descriptor>,
    /// For how many requests; 0 stands for one.
    #[prost(uint32, tag = "3")]
    pub hits_addend: u32,
}

/// `envoy.extensions.common.ratelimit.v3.RateLimitDescriptor`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Descriptor {
    /// In order.
    #[prost(message, repeated, tag = "1")]
    pub entries: Vec<Entry>,
}

/// An entry of a descriptor.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Entry {
    /// Key.
    #[prost(string, tag = "1")]
    pub key: String,
    /// Value.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// An answer.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RateLimitResponse {
    /// See [`Code`].
    #[prost(enumeration = "Code", tag = "1")]
    pub overall_code: i32,
    /// In the order of the descriptors.
    #[prost(message, repeated, tag = "2")]
    pub statuses: Vec<DescriptorStatus>,
    /// Headers for the caller.
    #[prost(message, repeated, tag = "3")]
    pub response_headers_to_add: Vec<crate::ext_authz::HeaderValue>,
    /// Headers for who is called.
    #[prost(message, repeated, tag = "4")]
    pub request_headers_to_add: Vec<crate::ext_authz::HeaderValue>,
    /// Body of the refusal.
    #[prost(bytes = "bytes", tag = "5")]
    pub raw_body: bytes::Bytes,
}

/// What is said of a descriptor.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct DescriptorStatus {
    /// See [`Code`].
    #[prost(enumeration = "Code", tag = "1")]
    pub code: i32,
    /// The limit that holds for it.
    #[prost(message, optional, tag = "2")]
    pub current_limit: Option<RateLimit>,
    /// Requests that would pass now.
    #[prost(uint32, tag = "3")]
    pub limit_remaining: u32,
    /// Until the limit is whole again.
    #[prost(message, optional, tag = "4")]
    pub duration_until_reset: Option<Duration>,
}

/// A limit.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct RateLimit {
    /// Requests.
    #[prost(uint32, tag = "1")]
    pub requests_per_unit: u32,
    /// 1 second, 2 minute, 3 hour, 4 day, 5 month, 6 year, 7 week.
    #[prost(uint32, tag = "2")]
    pub unit: u32,
    /// Name.
    #[prost(string, tag = "3")]
    pub name: String,
}

/// `google.protobuf.Duration`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct Duration {
    /// Seconds.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// Nanoseconds.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

/// What an answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Code {
    /// Nothing.
    Unknown = 0,
    /// It may pass.
    Ok = 1,
    /// There are too many.
    OverLimit = 2,
}

/// Length of a unit in seconds, none for one that is not known.
pub fn unit_s(unit: u32) -> Option<u64> {
    const DAY: u64 = 86_400;
    [1, 60, 3_600, DAY, 30 * DAY, 365 * DAY, 7 * DAY].get(unit.checked_sub(1)? as usize).copied()
}
