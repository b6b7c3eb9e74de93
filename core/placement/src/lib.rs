//! The placement engine: which node a pod goes to, why that one, and if none, why not and what would help.
//!
//! [`Pool`] holds nodes, pods and storage under dense ids. A pod's spec, labels, namespace and owner make its *class*: equal pods
//! are placed by one computation. [`Pool::decide`] answers for one pod with kube-scheduler's semantics: the filters in its order
//! and wording, its default scores and weights, over every node. It has two ways to the same answer, which a property test holds
//! equal: the whole evaluation ([`evaluate`], one pass over all nodes) and the indexes ([`index`], logarithmic in nodes, for
//! classes without node-specific constraints).
//!
//! Ties go to the node that joined the pool first. Nothing here knows YAML, time or chance: same input, same output.
#![warn(missing_docs)]

pub mod bands;
mod class;
mod column;
mod decide;
mod devices;
pub mod division;
mod evaluate;
mod explain;
mod filter;
mod gang;
pub mod gpu;
mod help;
mod index;
mod load;
mod numa;
mod pool;
mod preempt;
mod queue;
pub mod quota;
mod reschedule;
mod reservation;
mod score;
mod storage;
mod topology;

pub use decide::{Answered, Decision, Placement};
pub use devices::{GPU_BOTH, GPU_CORE, GPU_MEMORY, GPU_WHOLE, GpuShare};
pub use explain::{Diagnosis, Reason};
pub use help::Help;
pub use load::LoadPolicy;
pub use numa::{NodeTopology, TopologyPolicy, ZONES_MAX};
pub use pool::{NodeId, PodId, Pool, PoolSize};
pub use preempt::{Band, Clearance, Place, Preemption, Victim};
pub use queue::{Hint, Queue};
pub use reschedule::{Cause, Move, MoveLimits};
pub use reservation::ReservationState;
pub use score::FitStrategy;
pub use storage::{ClaimPlan, StorageChange};
