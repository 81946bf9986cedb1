//! PostgreSQL's write-ahead log: positions, names, timelines, and what segments hold.
//!
//! Everything here is pure: no input, no output, no clock. Rules that PostgreSQL fixes (how a position maps
//! to a file name, which timeline owns a segment, what a page header says) are spelled here and nowhere else.
//!
//! Two rules about positions run through the module. A *start* position belongs to the segment
//! `lsn / size`; an *end* position, one past the last byte, belongs to `(lsn - 1) / size`
//! (see [`last_segno_before`]). Names that a server reports for an exact boundary are not to be trusted: they
//! changed with PostgreSQL 17.

mod check;
pub mod coverage;
mod history;
mod lsn;
mod name;
pub mod page;
pub mod records;
mod segment;
mod sequencer;

pub use check::check_segment;
pub use history::{HistoryEntry, TimelineHistory};
pub use lsn::{Lsn, SegmentSize, last_segno_before};
pub use name::WalName;
pub use page::LongHeader;
pub use segment::{SegmentName, TimelineId};
pub use sequencer::{Sequencer, Verdict};
