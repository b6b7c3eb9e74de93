//! Route tables, matching, balancing, retries: what happens to a request, decided without touching it.
//!
//! The proxy's half works on compiled nouns of `model::mesh`: [`directory`] joins what the control plane tells, [`table`] finds the rule, [`rewrite`] and [`cors`] say what its filters
//! do, [`balance`] chooses backend and endpoint, [`retry`] whether to try again, [`hedge`] whether not to wait for that, [`limit`] whether there are too many. The control plane's half,
//! [`compile`], makes those nouns from the objects that people write, and the status that they read.
#![warn(missing_docs)]

pub mod balance;
pub mod compile;
pub mod cors;
pub mod directory;
pub mod hedge;
pub mod limit;
pub mod meant;
pub mod outlier;
pub mod pattern;
pub mod request;
pub mod retry;
pub mod rewrite;
pub mod stream;
pub mod table;
pub mod warmup;

pub use balance::{Policy, Pool};
pub use compile::{AddressPool, Compiler, Output, Settings};
pub use directory::{Directory, GatewayEntry, ListenerEntry, PortEntry, ServiceEntry};
pub use request::{Headers, RequestView};
pub use table::{Hit, RouteTable};
