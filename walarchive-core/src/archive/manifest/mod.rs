//! Manifests: what a backup consists of (FORMAT.md §7).

mod facts;
mod line;
mod read;
mod write;

pub use facts::{Database, Facts, Tablespace};
pub use line::{FileRecord, Line, PackRecord, safe_path};
pub use read::{Manifest, Visitor, read_facts, scan};
pub use write::ManifestWriter;
