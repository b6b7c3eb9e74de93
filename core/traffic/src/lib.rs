//! Route tables, matching, balancing, retries.
