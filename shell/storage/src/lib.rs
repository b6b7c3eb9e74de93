//! The store on disk: segments, group commit, snapshots.
