//! Manifests: what a backup consists of (FORMAT.md §7).

mod beginning;
mod facts;
mod line;
mod read;
mod write;

pub use beginning::{Needs, read_facts, read_needs};
pub use facts::{Database, Facts, Tablespace};
pub use line::{FileRecord, Line, PackRecord, safe_path};
pub use read::{Manifest, Visitor, scan};
pub use write::ManifestWriter;
