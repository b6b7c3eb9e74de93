//! How a request ended, as labels tell it.

/// Envoy's response flags: who is to blame for an answer that is not the endpoint's own. Shown in `response_flags` and access logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Flag {
    /// The endpoint's own answer.
    #[default]
    None,
    /// No route.
    NoRoute,
    /// The route leads to a service that is not there.
    NoCluster,
    /// No endpoint is ready.
    NoHealthyUpstream,
    /// No connection to an endpoint.
    ConnectionFailure,
    /// The endpoint's connection broke.
    ConnectionTermination,
    /// The endpoint did not answer in time.
    Timeout,
    /// A limit on connections or requests of the service.
    Overflow,
    /// What the endpoint answered is no HTTP.
    ProtocolError,
    /// The client went away.
    DownstreamTermination,
    /// What the client sent cannot be passed on.
    DownstreamProtocolError,
    /// A rate limit.
    RateLimited,
    /// An external authorizer refused or did not answer.
    UnauthorizedExternal,
    /// An error that was made on purpose.
    FaultInjected,
}

impl Flag {
    const ALL: [Flag; 14] = [
        Flag::None,
        Flag::NoRoute,
        Flag::NoCluster,
        Flag::NoHealthyUpstream,
        Flag::ConnectionFailure,
        Flag::ConnectionTermination,
        Flag::Timeout,
        Flag::Overflow,
        Flag::ProtocolError,
        Flag::DownstreamTermination,
        Flag::DownstreamProtocolError,
        Flag::RateLimited,
        Flag::UnauthorizedExternal,
        Flag::FaultInjected,
    ];

    /// Envoy's letters; `-` for none.
    pub fn as_str(self) -> &'static str {
        match self {
            Flag::None => "-",
            Flag::NoRoute => "NR",
            Flag::NoCluster => "NC",
            Flag::NoHealthyUpstream => "UH",
            Flag::ConnectionFailure => "UF",
            Flag::ConnectionTermination => "UC",
            Flag::Timeout => "UT",
            Flag::Overflow => "UO",
            Flag::ProtocolError => "UPE",
            Flag::DownstreamTermination => "DC",
            Flag::DownstreamProtocolError => "DPE",
            Flag::RateLimited => "RL",
            Flag::UnauthorizedExternal => "UAEX",
            Flag::FaultInjected => "FI",
        }
    }
}

/// Whether it was a gRPC call, and its status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Grpc {
    /// Plain HTTP.
    #[default]
    No,
    /// A call that ended without a status.
    Unknown,
    /// A call with this status (0 to 16).
    Status(u8),
}

impl Grpc {
    /// Out of the text of `grpc-status`.
    pub fn of_text(text: Option<&[u8]>) -> Self {
        let status = text.and_then(|text| std::str::from_utf8(text).ok()).and_then(|text| text.parse::<u8>().ok());
        status.filter(|status| *status <= 16).map_or(Self::Unknown, Self::Status)
    }

    /// Statuses that are the server's fault: UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE, DATA_LOSS; and none at all.
    pub fn is_failure(self) -> bool {
        matches!(self, Self::Unknown | Self::Status(2 | 4 | 13 | 14 | 15))
    }
}

/// The labels of a request that its ends do not decide.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// HTTP status; 0: there was no answer.
    pub status: u16,
    /// Who is to blame.
    pub flag: Flag,
    /// gRPC's view.
    pub grpc: Grpc,
}

/// An outcome in four bytes, as cells are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OutcomeKey(u32);

impl OutcomeKey {
    /// What is over the bound on outcomes of an edge.
    pub const OTHER: OutcomeKey = OutcomeKey(u32::MAX);

    /// HTTP status as a label.
    pub fn code(self) -> String {
        if self == Self::OTHER { "other".into() } else { (self.0 >> 16).to_string() }
    }

    /// Letters of the flag.
    pub fn flag(self) -> &'static str {
        Flag::ALL.get((self.0 >> 8 & 0xff) as usize).map_or("-", |flag| flag.as_str())
    }

    /// Whether it is of gRPC calls.
    pub fn is_grpc(self) -> bool {
        self != Self::OTHER && self.0 & 0xff != 0
    }

    /// gRPC status as a label; empty if there is none.
    pub fn grpc_status(self) -> String {
        match self.0 & 0xff {
            code @ 2..=18 if self != Self::OTHER => (code - 2).to_string(),
            _ => String::new(),
        }
    }
}

impl From<Outcome> for OutcomeKey {
    fn from(of: Outcome) -> Self {
        let grpc = match of.grpc {
            Grpc::No => 0,
            Grpc::Unknown => 1,
            Grpc::Status(status) => 2 + u32::from(status.min(16)),
        };
        OutcomeKey(u32::from(of.status.min(999)) << 16 | u32::from(of.flag as u8) << 8 | grpc)
    }
}

impl Outcome {
    /// Not answered, answered 5xx, or a gRPC status that is the server's fault. A caller who did not wait is nobody's.
    pub fn is_failure(self) -> bool {
        if self.flag == Flag::DownstreamTermination {
            return false;
        }
        self.status == 0 || self.status >= 500 || (self.grpc != Grpc::No && self.grpc.is_failure())
    }
}

/// Counts the messages of a gRPC stream: each has five bytes before it, a flag and its length (gRPC over HTTP/2).
#[derive(Debug, Default)]
pub struct Messages {
    head: [u8; 5],
    have: u8,
    left: u32,
    count: u64,
}

impl Messages {
    /// Bytes of the stream, in order.
    pub fn take(&mut self, mut bytes: &[u8]) {
        loop {
            let skip = bytes.len().min(self.left as usize);
            self.left -= skip as u32;
            bytes = &bytes[skip..];
            if bytes.is_empty() {
                return;
            }
            self.head[usize::from(self.have)] = bytes[0];
            self.have += 1;
            bytes = &bytes[1..];
            if self.have == 5 {
                let [_, a, b, c, d] = self.head;
                (self.left, self.have) = (u32::from_be_bytes([a, b, c, d]), 0);
                self.count += 1;
            }
        }
    }

    /// Messages begun.
    pub fn count(&self) -> u64 {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_tell_what_they_were_made_of() {
        for (at, flag) in Flag::ALL.into_iter().enumerate() {
            assert_eq!(flag as usize, at);
            for (grpc, text) in [(Grpc::No, ""), (Grpc::Unknown, ""), (Grpc::Status(0), "0"), (Grpc::Status(16), "16")]
            {
                let key = OutcomeKey::from(Outcome { status: 418, flag, grpc });
                assert_eq!((key.code().as_str(), key.flag(), key.grpc_status().as_str()), ("418", flag.as_str(), text));
                assert_eq!(key.is_grpc(), grpc != Grpc::No);
            }
        }
        assert_eq!((OutcomeKey::OTHER.code().as_str(), OutcomeKey::OTHER.is_grpc()), ("other", false));
        assert_eq!(Grpc::of_text(Some(b"17")), Grpc::Unknown);
    }

    #[test]
    fn messages_are_counted_however_the_stream_is_cut() {
        let mut stream = Vec::new();
        for length in [0u32, 1, 7, 300] {
            stream.push(0);
            stream.extend(length.to_be_bytes());
            stream.extend(std::iter::repeat_n(b'x', length as usize));
        }
        for size in 1..stream.len() {
            let mut messages = Messages::default();
            stream.chunks(size).for_each(|piece| messages.take(piece));
            assert_eq!(messages.count(), 4, "pieces of {size}");
        }
    }
}
