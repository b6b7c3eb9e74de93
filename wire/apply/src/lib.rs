//! Patch algebra: JSON patch, merge patch, strategic merge, server-side apply.
