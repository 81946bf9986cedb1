//! Composes codec and cipher over bytes, and crosses between async and blocking threads: the only place that
//! does either.
//!
//! Transforms are synchronous; one blocking worker serves one object. Storage is async. [`blocking`] runs a
//! worker from async code, [`ObjectWriter`] sends what a worker makes to storage while the worker goes on.

mod bridge;
mod open;
mod seal;
mod writer;

pub use bridge::{Bridge, blocking};
pub use open::Opener;
pub use seal::{SealedFacts, Sealer};
pub use writer::{ObjectWriter, PART_SIZE};
