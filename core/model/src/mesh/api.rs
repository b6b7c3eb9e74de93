//! The objects that people and controllers write, as far as the mesh reads them.
