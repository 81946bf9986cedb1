//! Manifests: what a backup consists of (FORMAT.md §7), or a dump (§9).

mod beginning;
mod dump;
mod facts;
mod line;
mod read;
mod sum;
mod write;

pub use beginning::{Needs, read_facts, read_needs};
pub use dump::{DumpContent, DumpFacts, DumpFormat};
pub use facts::{Database, Facts, FirstLine, Named, Tablespace};
pub use line::{FileRecord, Line, PackRecord, StreamRecord, Stretch, safe_path};
pub use read::{Manifest, Visitor, scan};
pub use sum::SumCheck;
pub use write::ManifestWriter;
