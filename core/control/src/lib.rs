//! Reconcilers as pure steps and the order in which they run.
