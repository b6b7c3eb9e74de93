//! What each built-in kind does on write and read: defaults, validation, strategy, tables.
