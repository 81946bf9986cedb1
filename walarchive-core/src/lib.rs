//! A verified, encrypted archive for PostgreSQL.

pub mod cipher;
pub mod codec;
pub mod error;
pub mod postgres;
pub mod storage;
pub mod wal;
