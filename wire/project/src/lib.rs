//! Between object bytes and the model: projection of events, rendering of effects.

pub mod scheduling;
