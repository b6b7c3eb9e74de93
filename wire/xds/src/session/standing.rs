//! How far a client is with one type: what both protocols keep of it.

use crate::envoy::types;

/// Whenever an Envoy is told a cluster it waits (15 s by default) for that cluster's endpoints before it uses what is new, and does not ask for those that it
/// has: what is told of the first of these types has the resources of the same names of the second told again.
pub(super) const WARMED_BY: (&str, &str) = (types::CLUSTER, types::ENDPOINT);

/// A response that the client refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Position that the response would have brought.
    pub position: u64,
    /// In the client's words.
    pub message: String,
}

/// How far a client is with a type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The type.
    pub type_url: &'static str,
    /// Position that it was told up to.
    pub told: u64,
    /// Position that it accepted.
    pub acked: u64,
    /// Whether an answer is awaited.
    pub in_flight: bool,
    /// The last answer was a refusal.
    pub refusal: Option<Refusal>,
}

/// Positions in the catalog up to which the client was told and accepted, and the one response that may be under way.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// Position up to which it was told.
    pub told: u64,
    acked: u64,
    /// A response is owed even if there is nothing new to tell: the client waits for it.
    pub owed: bool,
    /// Nonce and position of the response that is not answered yet.
    in_flight: Option<(String, u64)>,
    refusal: Option<Refusal>,
}

impl Standing {
    /// Whether an answer is awaited; nothing is sent meanwhile.
    pub fn is_in_flight(&self) -> bool {
        self.in_flight.is_some()
    }

    /// A response goes out that tells up to `told`.
    pub fn sent(&mut self, nonce: String) {
        self.in_flight = Some((nonce, self.told));
    }

    /// An answer came. `false`: not to the response under way. Late news about one that was superseded says nothing.
    pub fn answered(&mut self, nonce: &str, refusal: Option<String>) -> bool {
        let Some((_, position)) = self.in_flight.take_if(|(under_way, _)| under_way == nonce) else { return false };
        match refusal {
            None => (self.acked, self.refusal) = (position, None),
            // Not sent again until the resource changes: the same bytes would be refused again.
            Some(message) => self.refusal = Some(Refusal { position, message }),
        }
        true
    }

    /// Nothing of what changed concerns this client, so it is up to date without saying so; but by a refusal.
    pub fn passed(&mut self) {
        if self.refusal.is_none() {
            self.acked = self.told;
        }
    }

    /// For reports.
    pub fn progress(&self, type_url: &'static str) -> Progress {
        let (told, acked, in_flight) = (self.told, self.acked, self.is_in_flight());
        Progress { type_url, told, acked, in_flight, refusal: self.refusal.clone() }
    }
}
