//! Verification finds whatever was done to an archive, names it with what it endangers, and heals it from a copy.
//!
//! `WALARCHIVE_TEST_FLIPS=2000` flips more bits.

mod damage;
mod missing;
mod stored;
mod told;
