//! Revisioned index, watch windows, log records, recovery; no IO.
