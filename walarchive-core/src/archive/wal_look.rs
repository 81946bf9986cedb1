//! Whether WAL is what its name says.

use super::SystemId;
use crate::error::{Error, Result};
use crate::wal::{LongHeader, SegmentName, TimelineHistory, WalName, check_segment};

/// History files and backup history files are a few lines; the first page of a segment is no longer either.
const START_MAX: usize = 1 << 20;
const FIRST_PAGE: usize = 8192;

/// What tells of a WAL file whether it is what its name says: its beginning, and its length.
#[derive(Debug, Default)]
pub struct WalLook {
    len: u64,
    start: Vec<u8>,
}

impl WalLook {
    /// Looks at the next bytes of the file.
    pub fn take(&mut self, plain: &[u8]) {
        let wanted = START_MAX.saturating_sub(self.start.len());
        self.start.extend_from_slice(&plain[..wanted.min(plain.len())]);
        self.len += plain.len() as u64;
    }

    /// Bytes seen.
    pub fn seen(&self) -> u64 {
        self.len
    }

    /// Holds what was seen against the name, and the cluster's system identifier.
    ///
    /// # Errors
    ///
    /// `Damaged` when it is something else.
    pub fn prove(&self, name: &WalName, system: SystemId) -> Result<()> {
        match name {
            WalName::Segment(segment) | WalName::Partial(segment) => self.prove_segment(segment, system),
            WalName::History(timeline) => {
                let parsed = TimelineHistory::parse(*timeline, &self.start);
                parsed
                    .map(drop)
                    .map_err(|error| Error::damaged("it is not a timeline history").because(error))
            }
            WalName::Backup { .. } => Ok(()),
        }
    }

    fn prove_segment(&self, segment: &SegmentName, system: SystemId) -> Result<()> {
        let page = self.start.get(..FIRST_PAGE.min(self.start.len())).unwrap_or_default();
        let header: LongHeader = check_segment(segment, page, self.len)
            .map_err(|error| Error::damaged("the stored segment is not what its name says").because(error))?;
        if header.system_id != system.0 {
            return Err(Error::damaged(format!(
                "the stored segment belongs to the cluster with system identifier {}, not {system}",
                header.system_id
            )));
        }
        Ok(())
    }
}
