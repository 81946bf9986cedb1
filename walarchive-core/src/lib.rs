//! A verified, encrypted archive for PostgreSQL: continuous WAL archiving, base backups, and restore to any moment.
//!
//! [`Cluster`] is where to begin: one cluster of an archive, with a call for each thing that can be done. What differs from
//! user to user are traits: [`storage::Storage`], [`codec::Codec`], [`cipher::Cipher`], [`source::WalSource`],
//! [`progress::Progress`]. Calls are async and run on the caller's tokio runtime; there is no global state. [`Blocking`] is
//! for callers that are not async. The crate's `examples` are programs that push and fetch, back up and restore, and bring
//! a storage and a codec of their own.
//!
//! # Versions
//!
//! Semantic versioning: what this page shows as public changes incompatibly only with a new first number (until 1.0, the
//! second one), and so does the oldest Rust that compiles it (`rust-version`). Fields may join the requests and results of the
//! flows, and kinds the errors: take requests from [`Cluster`] and change what is to differ. [`Kind`]s keep their exit codes. Archives have a version of their own (FORMAT.md), and what
//! one version wrote every later one reads.
//!
//! # Inside
//!
//! The modules, from the ground up: [`wal`] knows PostgreSQL's WAL files and does no input or output; [`storage`],
//! [`codec`] and [`cipher`] are the seams where implementations differ; [`archive`] defines what is stored
//! (FORMAT.md); [`postgres`] talks to servers and their files; [`ops`] has one file per flow; [`config`] turns
//! settings into objects. ARCHITECTURE.md says who may use whom.

pub mod archive;
pub mod behind;
pub mod cipher;
pub mod cluster;
pub mod codec;
pub mod config;
pub mod crossing;
pub mod error;
mod files;
pub mod ops;
pub mod patience;
pub mod pipeline;
pub mod postgres;
pub mod progress;
pub mod retention;
pub mod source;
pub mod storage;
pub mod told;
pub mod wal;

pub use archive::Archive;
pub use cluster::Cluster;
pub use crossing::Blocking;
pub use error::{Error, Kind, Result};
pub use files::write as write_file;
