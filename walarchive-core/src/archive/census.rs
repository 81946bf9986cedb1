//! Whose the stored bytes are: what one backup alone needs, and what others need as well.

use std::collections::BTreeMap;

use super::catalog::oldest_first;
use super::{Backup, BackupId, Catalog, Needs, PackName, read_needs};
use crate::error::{Error, Result};

/// Stored bytes that a backup needs, counted in whole objects, as these are removed whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Share {
    /// Nobody else needs them, and they go with the backup: its manifest, and packs.
    pub unique: u64,
    /// Packs that other backups need as well.
    pub shared: u64,
}

/// All backups, and what each of them needs.
#[derive(Debug, Default)]
pub struct Census {
    /// Backups, oldest first.
    pub backups: Vec<Backup>,
    /// Backups whose manifests are damaged, and what is wrong with them.
    pub damaged: Vec<(BackupId, Error)>,
    shares: BTreeMap<BackupId, Share>,
    packs: BTreeMap<PackName, Pack>,
}

/// A pack that backups need.
#[derive(Debug)]
struct Pack {
    stored: u64,
    by: BackupId,
    shared: bool,
}

impl Census {
    /// What a backup needs; unknown where a damaged manifest does not tell whether it needs the same.
    pub fn share(&self, id: &BackupId) -> Option<Share> {
        if self.damaged.is_empty() { self.shares.get(id).copied() } else { None }
    }

    /// Stored bytes of those of these packs that no backup needs; unknown where a manifest is damaged.
    pub fn unneeded(&self, packs: &BTreeMap<PackName, u64>) -> Option<u64> {
        let unneeded = packs.iter().filter(|(name, _)| !self.packs.contains_key(*name));
        self.damaged.is_empty().then(|| unneeded.map(|(_, stored)| stored).sum())
    }

    fn add(&mut self, id: &BackupId, needs: Needs) {
        self.shares.entry(id.clone()).or_default().unique += needs.manifest_bytes;
        for (name, stored) in needs.packs {
            self.need(id, name, stored);
        }
    }

    fn need(&mut self, id: &BackupId, name: PackName, stored: u64) {
        let Some(known) = self.packs.get_mut(&name) else {
            self.packs.insert(name, Pack { stored, by: id.clone(), shared: false });
            self.shares.entry(id.clone()).or_default().unique += stored;
            return;
        };
        if !std::mem::replace(&mut known.shared, true) {
            let first = self.shares.entry(known.by.clone()).or_default();
            first.unique = first.unique.saturating_sub(known.stored);
            first.shared += known.stored;
        }
        self.shares.entry(id.clone()).or_default().shared += known.stored;
    }
}

impl Catalog {
    /// All backups and what each of them needs: one listing, and as a rule two small reads for each backup, as
    /// [`sound_backups`](Catalog::sound_backups) takes them. Needs an identity in an encrypted archive.
    pub async fn census(&self) -> Result<Census> {
        let read = |id: BackupId, pinned| async move {
            let needs: Needs = read_needs(&self.archive, &self.place, &id).await?;
            Ok((Backup { id, facts: needs.facts.clone(), pinned }, needs))
        };
        let (found, damaged) = self.each_backup(read).await?;
        let mut census = Census { damaged, ..Census::default() };
        for (backup, needs) in found {
            census.add(&backup.id, needs);
            census.backups.push(backup);
        }
        oldest_first(&mut census.backups);
        Ok(census)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEEDS: [(u64, &[(u32, u64)]); 3] =
        [(1, &[(0, 10), (1, 20)]), (2, &[(1, 20), (2, 40)]), (4, &[(1, 20)])];

    fn id(number: usize) -> BackupId {
        BackupId::new(jiff::Timestamp::UNIX_EPOCH, number as u32)
    }

    fn pack(number: u32) -> PackName {
        PackName { backup: id(9), number }
    }

    /// The census of some of the three backups.
    fn census(of: &[usize]) -> Census {
        let mut census = Census::default();
        for number in of {
            let (manifest, packs) = NEEDS[*number];
            census.shares.entry(id(*number)).or_default().unique += manifest;
            packs.iter().for_each(|(name, stored)| census.need(&id(*number), pack(*name), *stored));
        }
        census
    }

    #[test]
    fn what_two_need_is_nobodys_alone() {
        let share = |of: &[usize], number| census(of).share(&id(number)).unwrap();
        assert_eq!(share(&[0], 0), Share { unique: 31, shared: 0 });
        for of in [[0, 1, 2], [2, 0, 1], [1, 2, 0]] {
            assert_eq!(share(&of, 0), Share { unique: 11, shared: 20 });
            assert_eq!(share(&of, 1), Share { unique: 42, shared: 20 });
            assert_eq!(share(&of, 2), Share { unique: 4, shared: 20 });
        }
        assert_eq!(share(&[0, 1], 1), Share { unique: 42, shared: 20 });
        assert_eq!(share(&[1], 1), Share { unique: 62, shared: 0 });
        assert_eq!(census(&[0]).share(&id(1)), None);
    }

    #[test]
    fn what_a_damaged_manifest_needs_is_unknown() {
        let stored = [(pack(0), 10), (pack(7), 5)].into();
        assert_eq!(census(&[0, 1]).unneeded(&stored), Some(5));
        let mut census = census(&[0, 1]);
        census.damaged.push((id(2), Error::damaged("cut off")));
        assert_eq!(census.share(&id(0)), None);
        assert_eq!(census.unneeded(&stored), None);
    }
}
