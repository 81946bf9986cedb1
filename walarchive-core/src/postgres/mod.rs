//! PostgreSQL's own files, and running servers.

pub mod changes;
pub mod conninfo;
pub mod control;
pub mod datadir;
pub mod page;
pub mod session;
pub mod summaries;
