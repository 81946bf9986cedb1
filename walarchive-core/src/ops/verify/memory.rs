//! What earlier verifications saw and proved, in a file of this machine: so a store that was set back is found out, and all bytes
//! are proven in turn.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Share;
use crate::archive::{Archive, ClusterName};
use crate::error::{Error, Result};
use crate::files;

/// Objects fall into so many parts, by their keys.
const PARTS: usize = 256;
const FILE_MAX: u64 = 1 << 20;

/// The part that an object is in.
pub(super) fn part_of(key: &str) -> u8 {
    blake3::hash(key.as_bytes()).as_bytes()[0]
}

/// All of them.
pub(super) fn all_parts() -> BTreeSet<u8> {
    (0..=u8::MAX).collect()
}

/// What is remembered of one copy of an archive.
#[derive(Debug, Default)]
pub(super) struct Memory {
    path: PathBuf,
    content: Content,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Content {
    /// When each part was proven last.
    #[serde(default)]
    proven: BTreeMap<u8, Timestamp>,
    /// The newest that was seen, by the prefix of its place.
    #[serde(default)]
    seen: BTreeMap<String, Seen>,
}

/// The newest that was seen in a place.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seen {
    /// The newest manifest, by its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) manifest: Option<String>,
    /// The last segment of each timeline.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) wal: BTreeMap<u32, String>,
}

impl Memory {
    /// What is remembered; nothing, if the file cannot be read.
    pub(super) fn load(dir: &Path, archive: &Archive, known_as: &str, cluster: &ClusterName) -> Memory {
        let place = &blake3::hash(known_as.as_bytes()).to_hex()[..16];
        let path = dir.join("verify").join(format!("{}-{cluster}-{place}.json", archive.info().id()));
        let content = files::read(&path, FILE_MAX).ok();
        let content = content.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        Memory { path, content }
    }

    /// What is remembered of another archive that was at the same place.
    pub(super) fn of_another(&self) -> Option<PathBuf> {
        let own = self.path.file_name()?.to_str()?;
        let (_, of_place) = own.split_once('-')?;
        let is_other = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name != own && name.split_once('-').is_some_and(|(_, of)| of == of_place)
        };
        files::list(self.path.parent()?).ok()?.into_iter().find(is_other)
    }

    /// Keeps it.
    pub(super) fn store(&self) -> Result<()> {
        if let Some(dir) = self.path.parent() {
            files::make_dirs(dir, 0o700)?;
        }
        let bytes = serde_json::to_vec(&self.content)
            .map_err(|error| Error::bug("what was seen cannot be written").because(error))?;
        files::write(&self.path, 0o600, &bytes)
    }

    /// Where it is kept.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The parts that make up a share, those first that were not proven for longest.
    pub(super) fn oldest(&self, share: Share) -> BTreeSet<u8> {
        let count = (PARTS as u64 * u64::from(share.part)).div_ceil(u64::from(share.of)) as usize;
        let mut parts: Vec<u8> = all_parts().into_iter().collect();
        parts.sort_by_key(|part| self.content.proven.get(part).copied());
        parts.into_iter().take(count).collect()
    }

    pub(super) fn were_proven(&mut self, parts: &BTreeSet<u8>, now: Timestamp) {
        self.content.proven.extend(parts.iter().map(|part| (*part, now)));
    }

    /// Since when each part was proven at least once.
    pub(super) fn proven_since(&self) -> Option<Timestamp> {
        let proven = &self.content.proven;
        if proven.len() < PARTS { None } else { proven.values().min().copied() }
    }

    pub(super) fn seen(&self, place: &str) -> Option<&Seen> {
        self.content.seen.get(place)
    }

    pub(super) fn see(&mut self, place: String, seen: Seen) {
        self.content.seen.insert(place, seen);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_take_turns() {
        let mut memory = Memory::default();
        let third = Share { part: 1, of: 3 };
        let mut all = BTreeSet::new();
        for day in 1..=3 {
            assert_eq!(memory.proven_since(), None);
            let parts = memory.oldest(third);
            assert_eq!(parts.len(), 86);
            all.extend(&parts);
            memory.were_proven(&parts, Timestamp::from_second(day).unwrap());
        }
        assert_eq!(all, all_parts());
        assert_eq!(memory.proven_since(), Some(Timestamp::from_second(1).unwrap()));
        assert_eq!(memory.oldest(Share { part: 1, of: 1 }), all_parts());
    }

    #[test]
    fn fractions_are_understood() {
        assert_eq!("1/7".parse::<Share>().unwrap(), Share { part: 1, of: 7 });
        for wrong in ["", "1", "0/7", "8/7", "1/0", "-1/7", "a/b", "1/7/2", "1 / 7"] {
            assert!(wrong.parse::<Share>().is_err(), "{wrong:?}");
        }
    }
}
