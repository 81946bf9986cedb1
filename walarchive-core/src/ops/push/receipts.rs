//! Receipts for files that were stored before the server asked for it, in a file of this machine. The call that the server makes
//! later finds its work done.

use std::collections::BTreeSet;
use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{Advice, fadvise};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};
use crate::files;
use crate::source::WalFile;

/// Older receipts are not believed: much may have happened to an archive since. The server asks within seconds.
const BELIEVED_FOR: Duration = Duration::from_secs(600);
const FILE_MAX: u64 = 16 << 20;
/// So many receipts are kept beside new ones: the server asks in order, so older ones have been used.
const KEPT: usize = 256;
const CHUNK: usize = 256 * 1024;

/// What a file's inode says. Whoever writes to the file, or puts another in its place, changes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Facts {
    device: u64,
    inode: u64,
    pub(super) len: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Facts {
    pub(super) fn of(found: &Metadata) -> Facts {
        Facts {
            device: found.dev(),
            inode: found.ino(),
            len: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }

    /// Whether nothing was written since.
    pub(super) fn same_content(&self, later: &Facts) -> bool {
        (self.len, self.modified) == (later.len, later.modified)
    }
}

/// That the archive durably holds what a file holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    pub(super) name: String,
    pub(super) facts: Facts,
    /// CRC-32C of the content.
    pub(super) sum: u32,
    /// Seconds since 1970.
    pub(super) stored_at: u64,
    /// The object's key.
    pub key: String,
    /// Its bytes in the archive.
    pub stored: u64,
}

impl Receipt {
    /// Bytes of the file.
    pub fn plain(&self) -> u64 {
        self.facts.len
    }

    fn is_believed(&self, now: u64) -> bool {
        now.checked_sub(self.stored_at).is_some_and(|age| age <= BELIEVED_FOR.as_secs())
    }
}

/// The receipts of one cluster in one archive, in `state_dir/pushed`.
#[derive(Debug, Clone)]
pub struct Receipts {
    path: PathBuf,
}

impl Receipts {
    /// Receipts for what goes to `place`: whatever tells archives, clusters and ways to store apart.
    pub fn new(state_dir: &Path, place: &str) -> Receipts {
        let digest = blake3::hash(place.as_bytes()).to_hex();
        Receipts { path: state_dir.join("pushed").join(&digest[..32]) }
    }

    /// Whether the file, as it is now, was stored before: there is a receipt for this very inode, unchanged since, and every byte
    /// is read and agrees with it. Whatever else is the case, the file is to be pushed.
    pub fn acknowledge(&self, wal: &WalFile) -> Option<Receipt> {
        let name = wal.name.to_string();
        let known = self.believed().into_iter().find(|receipt| receipt.name == name);
        known.filter(|receipt| receipt.fits(&wal.path).unwrap_or(false))
    }

    /// The names of files that there are receipts for.
    pub(super) fn names(&self) -> impl Iterator<Item = String> {
        self.believed().into_iter().map(|receipt| receipt.name)
    }

    /// Keeps more receipts, and forgets those that are not believed any more.
    pub(super) fn keep(&self, more: Vec<Receipt>) -> Result<()> {
        if more.is_empty() {
            return Ok(());
        }
        let new: BTreeSet<&str> = more.iter().map(|new| new.name.as_str()).collect();
        let mut all = self.believed();
        all.retain(|old| !new.contains(old.name.as_str()));
        all.drain(..all.len().saturating_sub(KEPT));
        all.extend(more);
        self.write(&all)
    }

    fn write(&self, all: &[Receipt]) -> Result<()> {
        let bytes = serde_json::to_vec(all)
            .map_err(|error| Error::new(Kind::Bug, "receipts cannot be written").because(error))?;
        if let Some(dir) = self.path.parent() {
            files::make_dirs(dir, 0o700)?;
            self.remove_others(dir)?;
        }
        files::write(&self.path, 0o600, &bytes)
    }

    /// Fails where receipts could not be kept: what is stored ahead would be stored again and again.
    pub(super) fn prove(&self) -> Result<()> {
        let all = self.believed();
        let last = all.last().cloned().into_iter().collect();
        match all.is_empty() {
            true => self.write(&all),
            false => self.keep(last),
        }
    }

    /// Removes what other settings have left and nobody believes any more.
    fn remove_others(&self, dir: &Path) -> Result<()> {
        let is_old = |path: &PathBuf| {
            let modified = std::fs::metadata(path).and_then(|found| found.modified()).ok();
            modified.and_then(|modified| modified.elapsed().ok()).is_some_and(|age| age > BELIEVED_FOR)
        };
        files::list(dir)?
            .iter()
            .filter(|path| **path != self.path && is_old(path))
            .try_for_each(|path| files::remove(path))
    }

    /// A file that others can write to, or that is not whole, tells nothing.
    fn believed(&self) -> Vec<Receipt> {
        let private = |found: &Metadata| {
            found.uid() == rustix::process::geteuid().as_raw() && found.mode() & 0o022 == 0
        };
        if !std::fs::metadata(&self.path).is_ok_and(|found| private(&found)) {
            return Vec::new();
        }
        let bytes = files::read(&self.path, FILE_MAX).unwrap_or_default();
        let all: Vec<Receipt> = serde_json::from_slice(&bytes).unwrap_or_default();
        let now = now();
        all.into_iter().filter(|receipt| receipt.is_believed(now)).collect()
    }
}

impl Receipt {
    fn fits(&self, path: &Path) -> std::io::Result<bool> {
        // Opened only where it is the same file: opening a FIFO would wait for a writer.
        if Facts::of(&std::fs::metadata(path)?) != self.facts {
            return Ok(false);
        }
        let mut file = File::open(path)?;
        let mut buffer = vec![0; CHUNK];
        let mut sum = 0;
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                count => sum = crc32c::crc32c_append(sum, &buffer[..count]),
            }
        }
        let same = sum == self.sum && Facts::of(&file.metadata()?) == self.facts;
        forget_pages(&file);
        Ok(same)
    }
}

/// Tells the system that nobody will read the file soon: its memory is worth more to the database. Pages that are not written
/// to disk yet stay.
pub(super) fn forget_pages(file: &File) {
    let _ = fadvise(file, 0, None, Advice::DontNeed);
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    struct Made {
        dir: tempfile::TempDir,
        wal: WalFile,
        receipts: Receipts,
    }

    impl Made {
        fn is_acknowledged(&self) -> bool {
            self.receipts.acknowledge(&self.wal).is_some()
        }
    }

    fn receipt(path: &Path, stored_at: u64) -> Receipt {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let facts = Facts::of(&fs::metadata(path).unwrap());
        let sum = crc32c::crc32c(&fs::read(path).unwrap());
        Receipt { name, facts, sum, stored_at, key: String::new(), stored: 0 }
    }

    fn made() -> Made {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("000000010000000000000001");
        fs::write(&path, vec![7; 600_000]).unwrap();
        let receipts = Receipts::new(&dir.path().join("state"), "place");
        receipts.keep(vec![receipt(&path, now())]).unwrap();
        Made { wal: WalFile::at(&path).unwrap(), dir, receipts }
    }

    #[test]
    fn what_is_as_it_was_stored_is_acknowledged() {
        let made = made();
        assert!(made.is_acknowledged());
        assert!(made.is_acknowledged(), "more than once");
        assert!(Receipts::new(&made.dir.path().join("state"), "elsewhere").acknowledge(&made.wal).is_none());
    }

    #[test]
    fn a_file_of_the_same_name_is_not_the_same_file() {
        let made = made();
        let content = fs::read(&made.wal.path).unwrap();
        fs::rename(&made.wal.path, made.dir.path().join("aside")).unwrap();
        assert!(!made.is_acknowledged(), "gone");
        fs::write(&made.wal.path, content).unwrap();
        assert!(!made.is_acknowledged(), "another inode");
    }

    #[test]
    fn other_bytes_are_seen_even_if_the_inode_tells_nothing() {
        let made = made();
        let mut lying = receipt(&made.wal.path, now());
        lying.sum ^= 1;
        made.receipts.keep(vec![lying]).unwrap();
        assert!(!made.is_acknowledged());
    }

    #[test]
    fn used_ones_and_those_of_other_settings_do_not_pile_up() {
        let made = made();
        let dir = made.dir.path().join("state");
        let other = Receipts::new(&dir, "other settings");
        other.keep(vec![receipt(&made.wal.path, now())]).unwrap();
        let path = &made.wal.path;
        let named = |number: usize| Receipt { name: format!("{number}"), ..receipt(path, now()) };
        for batch in 0..10 {
            made.receipts.keep((batch * 64..batch * 64 + 64).map(named).collect()).unwrap();
        }
        let names: Vec<String> = made.receipts.names().collect();
        let newest: Vec<String> = (640 - KEPT - 64..640).map(|number| number.to_string()).collect();
        assert_eq!(names, newest);
        assert!(other.path.exists());
        let old = SystemTime::now() - BELIEVED_FOR - Duration::from_secs(1);
        File::options().write(true).open(&other.path).unwrap().set_modified(old).unwrap();
        made.receipts.keep(vec![named(700)]).unwrap();
        assert!(!other.path.exists() && made.receipts.path.exists());
    }

    #[test]
    fn receipts_age_and_none_is_from_the_future() {
        let made = made();
        for (stored_at, believed) in [
            (now() - BELIEVED_FOR.as_secs() + 60, true),
            (now() - BELIEVED_FOR.as_secs() - 1, false),
            (now() + 60, false),
        ] {
            made.receipts.keep(vec![receipt(&made.wal.path, stored_at)]).unwrap();
            assert_eq!(made.is_acknowledged(), believed, "{stored_at}");
        }
    }

    #[test]
    fn what_others_could_write_and_what_is_torn_is_not_believed() {
        let made = made();
        let path = &made.receipts.path;
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
        fs::set_permissions(path, fs::Permissions::from_mode(0o622)).unwrap();
        assert!(!made.is_acknowledged());
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(made.is_acknowledged());
        let whole = fs::read(path).unwrap();
        fs::write(path, &whole[..whole.len() - 1]).unwrap();
        assert!(!made.is_acknowledged());
    }
}
