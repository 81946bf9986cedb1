//! A verified, encrypted archive for PostgreSQL: continuous WAL archiving, base backups, and restore to any moment.
//!
//! The modules, from the ground up: [`wal`] knows PostgreSQL's WAL files and does no input or output; [`storage`],
//! [`codec`] and [`cipher`] are the seams where implementations differ; [`archive`] defines what is stored
//! (FORMAT.md); [`postgres`] talks to servers and their files; [`ops`] has one file per flow; [`config`] turns
//! settings into objects. ARCHITECTURE.md says who may use whom.

pub mod archive;
pub mod behind;
pub mod cipher;
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
pub mod wal;

pub use error::{Error, Kind, Result};
pub use files::write as write_file;
