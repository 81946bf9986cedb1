//! Which reports of drills are kept. Pure.

use std::collections::BTreeSet;

use crate::archive::BackupId;

/// So many of a room's reports are kept: two years of weekly drills.
pub const KEPT: usize = 100;

/// The reports that go: all but the newest `keep`. Names sort by time.
pub fn expired(reports: &BTreeSet<BackupId>, keep: usize) -> Vec<BackupId> {
    let go = reports.len().saturating_sub(keep);
    reports.iter().take(go).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(day: i64) -> BackupId {
        // The random part says nothing about age.
        BackupId::new(jiff::Timestamp::from_second(day * 86_400).unwrap(), 1000 - day as u32)
    }

    #[test]
    fn the_oldest_go_and_never_the_newest() {
        let all: BTreeSet<_> = (0..103).map(id).collect();
        assert_eq!(expired(&all, KEPT), [id(0), id(1), id(2)]);
        let few: BTreeSet<_> = (0..100).map(id).collect();
        assert!(expired(&few, KEPT).is_empty());
        assert!(expired(&BTreeSet::new(), KEPT).is_empty());
    }
}
