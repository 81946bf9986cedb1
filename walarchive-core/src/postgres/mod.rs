//! What an archive knows about PostgreSQL's own files and servers.

pub mod control;
pub mod page;
