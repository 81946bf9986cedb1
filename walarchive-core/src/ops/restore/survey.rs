//! The first look through a manifest, before anything is written.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::choice::Choice;
use super::tablespace_of;
use crate::archive::{Facts, FileRecord, Line, PAGE, PackRecord, Visitor};
use crate::error::{Error, Result};
use crate::postgres::datadir::{CONTROL_FILE, RESTORE_MARKER};

const CONTROL_MAX: u64 = 64 * 1024;
/// What a restore itself puts into the data directory: a backup that had them could change what the restore means.
const OWN_FILES: [&str; 4] = [RESTORE_MARKER, "backup_manifest", "recovery.signal", "standby.signal"];

/// The paths of a backup, each in little memory, and whether it is a directory.
#[derive(Default)]
pub(super) struct Paths(BTreeMap<u128, bool>);

impl Paths {
    /// Whether the path is a directory of the backup or a file; `None`: neither.
    pub(super) fn get(&self, path: &Path) -> Option<bool> {
        self.0.get(&digest(path)).copied()
    }
}

fn digest(path: &Path) -> u128 {
    use std::os::unix::ffi::OsStrExt;
    let digest = blake3::hash(path.as_os_str().as_bytes());
    let (half, _) = digest.as_bytes().split_at(16);
    u128::from_le_bytes(half.try_into().unwrap_or_default())
}

/// The bytes of a file that are not in holes.
pub(super) fn stored_bytes(record: &FileRecord) -> u64 {
    record.extents.iter().map(|extent| u64::from(extent.count) * PAGE as u64).sum()
}

/// What the first look found.
#[derive(Default)]
pub(super) struct Survey {
    /// Which databases come back.
    pub(super) choice: Choice,
    /// Bytes to be written, by tablespace; without one, in the data directory.
    pub(super) bytes: BTreeMap<Option<u32>, u64>,
    pub(super) control: Option<FileRecord>,
    pub(super) has_config: bool,
    pub(super) paths: Paths,
    /// The packs that files are in.
    pub(super) packs: BTreeSet<u32>,
}

impl Visitor for Survey {
    fn line(&mut self, _: &Facts, _: &[PackRecord], line: Line) -> Result<()> {
        match line {
            Line::Pack(_) | Line::Stream(_) | Line::Bytes(_) => Ok(()),
            Line::Dir(path, _) => self.path(&path, true),
            Line::File(record) => {
                self.path(&record.path, false)?;
                self.file(self.choice.apply(record))
            }
        }
    }
}

impl Survey {
    fn path(&mut self, path: &Path, is_dir: bool) -> Result<()> {
        if OWN_FILES.iter().any(|own| path == Path::new(own)) {
            return Err(Error::damaged(format!(
                "the manifest names {}, which is never part of a backup",
                path.display()
            )));
        }
        match self.paths.0.insert(digest(path), is_dir) {
            None => Ok(()),
            Some(_) => Err(Error::damaged(format!("the manifest names {} twice", path.display()))),
        }
    }

    fn file(&mut self, record: FileRecord) -> Result<()> {
        *self.bytes.entry(tablespace_of(&record.path)).or_default() += stored_bytes(&record);
        self.packs.extend(record.extents.iter().map(|extent| extent.pack));
        self.has_config |= record.path == Path::new("postgresql.conf");
        if record.path == Path::new(CONTROL_FILE) {
            if record.size > CONTROL_MAX {
                let size = record.size;
                return Err(Error::damaged(format!("the manifest names a pg_control of {size} bytes")));
            }
            self.control = Some(record);
        }
        Ok(())
    }
}
