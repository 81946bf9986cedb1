//! PostgreSQL's own files, and running servers.

pub mod changes;
pub mod client;
pub mod conninfo;
pub mod control;
pub mod datadir;
pub mod dump_archive;
pub mod instance;
pub(crate) mod libpq;
pub mod page;
pub mod postmaster;
pub mod programs;
pub mod scratch;
pub mod service;
pub mod session;
pub mod stop;
pub mod summaries;
