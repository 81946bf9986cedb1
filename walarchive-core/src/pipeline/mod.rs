//! Composes codec and cipher over bytes.
//!
//! Transforms are synchronous; one blocking worker serves one object. Storage is async. [`ObjectWriter`] sends what a
//! worker makes to storage while the worker goes on.

mod buffer;
mod open;
mod seal;
mod writer;

pub use buffer::{open_buffer, seal_buffer};
pub use open::Opener;
pub use seal::Sealer;
pub use writer::{ObjectWriter, Written};
