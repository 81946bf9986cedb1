//! One run at a time, and only onto the mount that is meant.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::error::{Error, Kind, Result};
use crate::files;

/// Held while a run goes on; the system gives it back when the program ends, however it does.
#[derive(Debug)]
pub struct RunLock {
    _file: File,
}

impl RunLock {
    /// Takes the lock of an archive's cluster on this machine, in the state directory or, where that cannot be used, in a
    /// directory of the user's own: nobody else may hold the place.
    ///
    /// # Errors
    ///
    /// `Busy` when another run holds it.
    pub fn take(state_dir: &Path, archive: &str, cluster: &str) -> Result<RunLock> {
        let name = format!("{cluster}.lock");
        let dir = state_dir.join("dumps").join(archive);
        let path = match files::make_dirs(&dir, 0o700) {
            Ok(()) => dir.join(&name),
            Err(_) => own_dir()?.join(format!("{archive}-{name}")),
        };
        let failed = |error| {
            Error::io(format!("cannot take the lock {}", path.display()), error)
                .hint("WALARCHIVE_STATE_DIR names a directory that this user may write to")
        };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.custom_flags(OFlags::NOFOLLOW.bits() as i32).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(RunLock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(Error::new(
                Kind::Busy,
                format!("another run of dumps of cluster {cluster} holds the lock {}", path.display()),
            )
            .hint("nothing was done; wait until it has ended")),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }
}

/// A directory that is this user's alone: below the home directory, if that is the user's own, or else that of temporary files.
fn own_dir() -> Result<PathBuf> {
    let user = rustix::process::geteuid().as_raw();
    let home = std::env::var_os("HOME").map(PathBuf::from).filter(|home| is_of(home, user, 0));
    let in_home = home.map(|home| home.join(".local/state/walarchive"));
    if let Some(dir) = in_home.filter(|dir| files::make_dirs(dir, 0o700).is_ok() && is_of(dir, user, 0o022)) {
        return Ok(dir);
    }
    let dir = std::env::temp_dir().join(format!("walarchive-{user}"));
    files::make_dirs(&dir, 0o700)?;
    match is_of(&dir, user, 0o077) {
        true => Ok(dir),
        false => Err(Error::new(
            Kind::Local,
            format!(
                "the directory {} is not this user's alone, and cannot hold the lock of a run",
                dir.display()
            ),
        )
        .hint("WALARCHIVE_STATE_DIR names a directory that this user may write to")),
    }
}

/// Whether it is a directory, and no link to one, of this user, and none of these bits are open to others.
fn is_of(dir: &Path, user: u32, closed: u32) -> bool {
    let facts = fs::symlink_metadata(dir);
    facts.is_ok_and(|facts| facts.is_dir() && facts.uid() == user && facts.mode() & closed == 0)
}

/// Refuses to go on when the directory is not where something is mounted: `PATH`, or `PATH=SOURCE` for one thing only, as
/// /proc/self/mountinfo names it.
pub fn check_mount(wanted: &str) -> Result<()> {
    let (path, source) = match wanted.split_once('=') {
        Some((path, source)) => (path, Some(source)),
        None => (wanted, None),
    };
    let missing = |what: String| {
        Err(Error::new(Kind::UnsafeTarget, what)
            .hint("nothing was done; mount it, or change dump.expect_mount"))
    };
    let path = match fs::canonicalize(path) {
        Ok(path) => path,
        Err(error) => {
            return missing(format!("{path} cannot be looked at, so nothing is mounted there: {error}"));
        }
    };
    match source {
        None if is_mount_point(&path) => Ok(()),
        None => missing(format!("nothing is mounted at {}", path.display())),
        Some(source) => {
            let table = fs::read_to_string("/proc/self/mountinfo");
            let table = table.map_err(|error| Error::io("cannot read the table of mounts", error))?;
            match mounted_at(&table, &path) {
                Some(found) if found == source => Ok(()),
                Some(found) => missing(format!("{found} is mounted at {}, and not {source}", path.display())),
                None => missing(format!("nothing is mounted at {}", path.display())),
            }
        }
    }
}

fn is_mount_point(path: &Path) -> bool {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    if mounted_at(&table, path).is_some() {
        return true;
    }
    // Where there is no such table: another device than that of the directory above.
    let device = |path: &Path| fs::metadata(path).ok().map(|facts| facts.dev());
    table.is_empty() && path.parent().is_some_and(|above| device(path) != device(above))
}

/// What is mounted at a path, the last of several.
fn mounted_at(table: &str, path: &Path) -> Option<String> {
    let entry = |line: &str| {
        let (place, kind) = line.split_once(" - ")?;
        let at = unescaped(place.split(' ').nth(4)?);
        (Path::new(&at) == path).then(|| kind.split(' ').nth(1).map(unescaped))?
    };
    table.lines().filter_map(entry).next_back()
}

/// Spaces and the like are written as three octal digits.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((byte, behind)) = rest.split_first() {
        let octal = behind.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        let octal = octal.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match octal.filter(|_| *byte == b'\\') {
            Some(value) => {
                bytes.push(value);
                rest = behind.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(*byte);
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_run_is_refused_until_the_first_has_ended() {
        let dir = tempfile::tempdir().unwrap();
        let first = RunLock::take(dir.path(), "a", "main").unwrap();
        assert_eq!(RunLock::take(dir.path(), "a", "main").unwrap_err().kind(), Kind::Busy);
        RunLock::take(dir.path(), "a", "other").unwrap();
        drop(first);
        RunLock::take(dir.path(), "a", "main").unwrap();
    }

    #[test]
    fn mounts_are_read_from_the_table() {
        let table = "36 35 98:0 / /mnt rw shared:1 - ext3 /dev/root rw\n\
                     37 35 98:1 / /srv/my\\040backup rw - nfs nas:/x rw\n\
                     38 35 98:2 / /mnt rw - ext4 /dev/second rw\n";
        assert_eq!(mounted_at(table, Path::new("/mnt")).as_deref(), Some("/dev/second"));
        assert_eq!(mounted_at(table, Path::new("/srv/my backup")).as_deref(), Some("nas:/x"));
        assert_eq!(mounted_at(table, Path::new("/srv")), None);
    }

    #[test]
    fn only_the_expected_mount_will_do() {
        check_mount("/proc").unwrap();
        check_mount("/proc=proc").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let plain = dir.path().display().to_string();
        for wanted in [plain.as_str(), "/proc=/dev/sdx1", "/nowhere/at/all"] {
            assert_eq!(check_mount(wanted).unwrap_err().kind(), Kind::UnsafeTarget, "{wanted}");
        }
    }
}
