//! Delta xDS session and Diolkos's own mesh resources.

pub mod attach;
