//! Whole stories over the small cluster.

mod batch;
mod cluster;
mod engine;
mod workloads;
