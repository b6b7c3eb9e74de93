//! Virtual time, faults, load models, independent checkers.
