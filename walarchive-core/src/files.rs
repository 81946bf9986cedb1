//! Files of this machine: written under another name, synced, put in place, synced again. The only place that
//! does so.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};

use crate::error::{Error, Result};

/// A file that appears at its place whole, or not at all. Dropped before [`publish`](NewFile::publish), it leaves
/// nothing behind; on most file systems not even when the process is killed, because it has no name until then.
pub struct NewFile {
    file: File,
    dest: PathBuf,
    named: Option<PathBuf>,
}

impl NewFile {
    /// Starts a file with the given permission bits that will be at `dest`.
    pub fn create(dest: &Path, mode: u32) -> Result<NewFile> {
        let attempt = || format!("cannot write {}", dest.display());
        let dir = parent(dest);
        let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        if let Ok(fd) = rustix::fs::open(dir, flags, Mode::from_raw_mode(mode)) {
            return Ok(NewFile { file: File::from(fd), dest: dest.to_owned(), named: None });
        }
        let name = beside(dest)?;
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&name)
            .map_err(|error| Error::io(attempt(), error).on(dest.display()))?;
        Ok(NewFile { file, dest: dest.to_owned(), named: Some(name) })
    }

    /// Makes the file durable and puts it in its place, over a file that may be there.
    pub fn publish(mut self) -> Result<()> {
        self.put_in_place().map_err(|error| {
            Error::io(format!("cannot write {}", self.dest.display()), error).on(self.dest.display())
        })
    }

    /// Makes the file durable and puts it in its place, unless there is a file already: then `false`, and nothing changed.
    pub fn publish_new(mut self) -> Result<bool> {
        let linked = self.put_where_nothing_is();
        linked.map_err(|error| {
            Error::io(format!("cannot write {}", self.dest.display()), error).on(self.dest.display())
        })
    }

    fn put_where_nothing_is(&mut self) -> io::Result<bool> {
        self.file.sync_all()?;
        let linked = match self.named.take() {
            None => self.link(&self.dest)?,
            Some(name) => {
                let linked = fs::hard_link(&name, &self.dest);
                fs::remove_file(&name)?;
                match linked {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
                    linked => linked.map(|()| true)?,
                }
            }
        };
        File::open(parent(&self.dest))?.sync_all()?;
        Ok(linked)
    }

    fn put_in_place(&mut self) -> io::Result<()> {
        self.file.sync_all()?;
        if self.named.is_none() && !self.link(&self.dest.clone())? {
            let name = beside(&self.dest).map_err(io::Error::other)?;
            self.link(&name)?;
            self.named = Some(name);
        }
        if let Some(name) = &self.named {
            fs::rename(name, &self.dest)?;
            self.named = None;
        }
        File::open(parent(&self.dest))?.sync_all()
    }

    /// Gives the nameless file a name; `false` if something has that name already.
    fn link(&self, name: &Path) -> io::Result<bool> {
        use std::os::fd::AsRawFd;
        let source = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        match rustix::fs::linkat(CWD, source, CWD, name, AtFlags::SYMLINK_FOLLOW) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::EXIST) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some(name) = &self.named {
            let _ = fs::remove_file(name);
        }
    }
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

fn beside(dest: &Path) -> Result<PathBuf> {
    let mut random = [0u8; 4];
    getrandom::fill(&mut random).map_err(|error| {
        Error::new(crate::Kind::Local, "the system gives no random numbers").because(error)
    })?;
    let name = dest.file_name().unwrap_or_default().to_string_lossy();
    Ok(parent(dest).join(format!(".{name}.{:08x}.walarchive", u32::from_le_bytes(random))))
}

/// Writes a whole small file: durable, and in place whole or not at all.
pub fn write(dest: &Path, mode: u32, bytes: &[u8]) -> Result<()> {
    let mut file = NewFile::create(dest, mode)?;
    file.write_all(bytes).map_err(|error| Error::io(format!("cannot write {}", dest.display()), error))?;
    file.publish()
}

/// The same for a file that is there: it keeps its mode, and its owner where that can be.
pub fn write_as_it_was(dest: &Path, bytes: &[u8]) -> Result<()> {
    let attempt = |error| Error::io(format!("cannot write {}", dest.display()), error);
    let facts = fs::metadata(dest).map_err(attempt)?;
    let mut file = NewFile::create(dest, facts.permissions().mode() & 0o777)?;
    file.write_all(bytes).map_err(attempt)?;
    std::os::unix::fs::fchown(&file.file, Some(facts.uid()), Some(facts.gid())).map_err(attempt)?;
    file.publish()
}

/// Reads a whole small file; more than `limit` bytes are an error.
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let attempt = |error| Error::io(format!("cannot read {}", path.display()), error).on(path.display());
    let mut bytes = Vec::new();
    // Looked at first: opening a FIFO would wait for a writer.
    if !fs::metadata(path).map_err(attempt)?.is_file() {
        return Err(
            Error::new(crate::Kind::Local, format!("{} is not a file", path.display())).on(path.display())
        );
    }
    let file = File::open(path).map_err(attempt)?;
    file.take(limit + 1).read_to_end(&mut bytes).map_err(attempt)?;
    if bytes.len() as u64 > limit {
        return Err(Error::new(
            crate::Kind::Local,
            format!("{} is longer than {limit} bytes", path.display()),
        ));
    }
    Ok(bytes)
}

/// Makes a directory with exactly these permission bits, whatever the umask; one that is there gets them too.
pub fn make_dir(path: &Path, mode: u32) -> Result<()> {
    let attempt = |error| Error::io(format!("cannot make the directory {}", path.display()), error);
    match DirBuilder::new().mode(mode).create(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        Err(error) => return Err(attempt(error)),
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(attempt)
}

/// Makes a directory with all that lead to it, durably, each with these permission bits; those that are there stay as
/// they are.
pub fn make_dirs(path: &Path, mode: u32) -> Result<()> {
    let attempt = |error| Error::io(format!("cannot make the directory {}", path.display()), error);
    let missing: Vec<&Path> = path.ancestors().take_while(|path| !path.is_dir()).collect();
    for dir in missing.into_iter().rev().filter(|dir| !dir.as_os_str().is_empty()) {
        match DirBuilder::new().mode(mode).create(dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => {}
            made => made.map_err(attempt)?,
        }
        sync_dir(parent(dir))?;
    }
    Ok(())
}

/// A directory for large passing files, for this user alone, that vanishes with its owner: in `dir`, or in that of temporary
/// files.
pub fn scratch_dir(dir: Option<&Path>) -> Result<tempfile::TempDir> {
    let mut builder = tempfile::Builder::new();
    let builder = builder.prefix("walarchive-").permissions(fs::Permissions::from_mode(0o700));
    let made = dir.map_or_else(|| builder.tempdir(), |dir| builder.tempdir_in(dir));
    made.map_err(|error| Error::io("cannot make a directory for passing files", error))
}

/// The files in a directory, in the order of their names; none where there is no directory.
pub fn list(dir: &Path) -> Result<Vec<PathBuf>> {
    let attempt = |error| Error::io(format!("cannot list {}", dir.display()), error);
    let entries = match fs::read_dir(dir) {
        Err(error) if is_missing(&error) => return Ok(Vec::new()),
        entries => entries.map_err(attempt)?,
    };
    let mut paths: Vec<PathBuf> =
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<_>>().map_err(attempt)?;
    paths.sort();
    Ok(paths)
}

/// A name that leads through a file is the name of nothing.
fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Removes a file, if it is there. That is not made durable.
pub fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if !is_missing(&error) => {
            Err(Error::io(format!("cannot remove {}", path.display()), error))
        }
        _ => Ok(()),
    }
}

/// Gives a file or directory another name in the same file system, durably.
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to)
        .map_err(|error| Error::io(format!("cannot rename {} to {}", from.display(), to.display()), error))?;
    sync_dir(parent(to))?;
    sync_dir(parent(from))
}

/// Removes a directory with all that it holds; one that is gone already is fine.
pub fn remove_tree(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if !is_missing(&error) => {
            Err(Error::io(format!("cannot remove {}", path.display()), error).on(path.display()))
        }
        _ => Ok(()),
    }
}

/// Removes what a directory holds; one that is not there is fine.
pub fn empty(path: &Path) -> Result<()> {
    let attempt = |error| Error::io(format!("cannot empty {}", path.display()), error);
    let entries = match fs::read_dir(path) {
        Err(error) if is_missing(&error) => return Ok(()),
        entries => entries.map_err(attempt)?,
    };
    for entry in entries {
        let entry = entry.map_err(attempt)?;
        match entry.file_type().map_err(attempt)?.is_dir() {
            true => remove_tree(&entry.path())?,
            false => remove(&entry.path())?,
        }
    }
    Ok(())
}

/// A directory that one process at a time can hold; the system lets go of it when the process ends in whatever way.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code)] File);

impl Lock {
    /// Takes it; `None` while somebody else holds it.
    pub fn take(path: &Path) -> Result<Option<Lock>> {
        let attempt = |error: io::Error| Error::io(format!("cannot lock {}", path.display()), error);
        let file = File::open(path).map_err(attempt)?;
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Lock(file))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(attempt(error.into())),
        }
    }
}

/// Makes what was done to the entries of a directory durable.
pub fn sync_dir(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|dir| dir.sync_all())
        .map_err(|error| Error::io(format!("cannot sync {}", path.display()), error))
}

/// Makes everything on the file system of `path` durable: one call instead of one per file.
pub fn sync_file_system(path: &Path) -> Result<()> {
    let attempt =
        |error: io::Error| Error::io(format!("cannot sync the file system of {}", path.display()), error);
    let dir = File::open(path).map_err(attempt)?;
    rustix::fs::syncfs(&dir).map_err(|error| attempt(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passing_files_are_for_this_user_alone() {
        let base = tempfile::tempdir().unwrap();
        let dir = scratch_dir(Some(base.path())).unwrap();
        assert_eq!(dir.path().metadata().unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let dest = dir.path().join("dest");
        let mut file = NewFile::create(&dest, 0o600).unwrap();
        file.write_all(b"first").unwrap();
        assert!(!dest.exists());
        drop(file);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0, "a dropped file leaves nothing");
        write(&dest, 0o600, b"first").unwrap();
        write(&dest, 0o600, b"second").unwrap();
        assert_eq!(fs::read(&dest).unwrap(), b"second");
        assert_eq!(fs::metadata(&dest).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "no temporary names stay");
    }
}
