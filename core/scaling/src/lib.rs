//! Usage windows, forecasts, horizontal demand.
#![warn(missing_docs)]

mod graph;
mod horizontal;
mod window;

pub use graph::{Counters, EdgeKey, EdgeRate, Graph, Growth, Peer};
pub use horizontal::{Demand, MetricReading, PodReading, Reading, replicas_for, stabilise, tolerance};
pub use window::{ContainerUsage, NodeUsage, PodUsage, Sample, Window};
