//! Container Runtime Interface v1 messages.
