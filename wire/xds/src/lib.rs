//! Delta xDS session and Diolkos's own mesh resources.
//!
//! A proxy is a [`session::Client`]: it subscribes to all of each type of [`resources`], decodes what it receives with
//! [`convert::decode`] into `model::mesh` nouns, applies it and answers. The control plane keeps a [`catalog::Catalog`] and one
//! [`session::Server`] for each stream. [`ca`] holds the messages of the certificate and join calls, [`trust`] what proxies say of
//! roots, [`attach`] what node agent and proxy say to each other.

pub mod attach;
pub mod ca;
pub mod catalog;
pub mod convert;
pub mod discovery;
pub mod envoy;
pub mod ext_authz;
pub mod rate_limit;
pub mod resources;
pub mod session;
pub mod trust;
pub mod workload_api;
