//! The directory that holds an archive: proven to be there before anything is believed or written.

use std::fs::{self, DirBuilder, File, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::object::failed_io;
use super::walk;
use crate::error::{Error, Kind, Result};

/// A root directory, and which one it was when the archive was opened.
#[derive(Debug, Clone)]
pub(super) struct Root {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Root {
    /// The directory `path`, which must exist and be readable.
    pub(super) fn open(path: &Path) -> Result<Self> {
        absolute(path)?;
        let metadata = fs::metadata(path).map_err(|source| unusable(path, source))?;
        let entries = fs::read_dir(path).map_err(|source| unusable(path, source))?;
        drop(entries);
        // Symbolic links are resolved once, so that all operations see one directory.
        let path = fs::canonicalize(path).map_err(|source| unusable(path, source))?;
        Ok(Root { path, device: metadata.dev(), inode: metadata.ino() })
    }

    /// The directory.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the directory is still there, and still the same: under an unmounted file system another one
    /// comes to light.
    pub(super) fn check(&self) -> Result<()> {
        let metadata = fs::metadata(&self.path).map_err(|source| unusable(&self.path, source))?;
        if same(&metadata, self.device, self.inode) {
            return Ok(());
        }
        let message =
            format!("the archive's directory {} is not the one that was opened", self.path.display());
        Err(Error::new(Kind::Unreachable, message)
            .on(self.path.display())
            .hint("was it unmounted or replaced? Mount it and start again"))
    }

    /// Makes the directories that lead to `key`, durably, and never the root itself.
    pub(super) fn make_parents(&self, key: &str) -> Result<()> {
        self.check()?;
        let Some((parents, _)) = key.rsplit_once('/') else { return Ok(()) };
        if self.path.join(parents).is_dir() {
            return Ok(());
        }
        let mut directory = self.path.clone();
        for segment in parents.split('/') {
            let above = directory.clone();
            directory.push(segment);
            let made = match fs::create_dir(&directory) {
                Err(source) if source.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                Err(source) => Err(source),
                Ok(()) => sync_directory(&above),
            };
            made.map_err(|source| failed_io("making the directory of", key, source))?;
        }
        Ok(())
    }

    /// Whether the name of an object is taken, as far as can be told.
    pub(super) fn has_name(&self, key: &str) -> bool {
        fs::symlink_metadata(self.path.join(key)).is_ok()
    }

    /// Makes an object durable that somebody else stored, perhaps a moment ago, perhaps without surviving.
    pub(super) fn sync_object(&self, key: &str) -> Result<()> {
        let failed = |source| failed_io("making durable", key, source);
        let path = self.path.join(key);
        let file = File::open(&path).map_err(failed)?;
        if !file.metadata().map_err(failed)?.is_file() {
            let message = format!("storing {key}: {} is not a file", path.display());
            return Err(Error::new(Kind::Conflict, message).on(key));
        }
        file.sync_all().map_err(failed)?;
        let directories = path.ancestors().skip(1).take_while(|path| path.starts_with(&self.path));
        for directory in directories {
            sync_directory(directory).map_err(failed)?;
        }
        Ok(())
    }

    /// Refuses to remove what lies behind a link: that may be anywhere.
    fn refuse_links(&self, key: &str) -> Result<()> {
        let mut directory = self.path.clone();
        for segment in key.split('/') {
            directory.push(segment);
            if fs::symlink_metadata(&directory).is_ok_and(|found| found.is_symlink()) {
                let message = format!("nothing is removed behind the symbolic link {}", directory.display());
                return Err(Error::new(Kind::Local, message)
                    .on(key)
                    .hint("nothing of this program makes links in an archive: replace it by what it leads to, or remove it"));
            }
        }
        Ok(())
    }

    /// Refuses to believe that there is no object where a link leads nowhere.
    pub(super) fn prove_absent(&self, key: &str) -> Result<()> {
        let mut path = self.path.clone();
        for segment in key.split('/') {
            path.push(segment);
            let Ok(found) = fs::symlink_metadata(&path) else { return Ok(()) };
            if found.is_symlink() && fs::metadata(&path).is_err() {
                let message = format!("the symbolic link {} leads nowhere", path.display());
                return Err(Error::new(Kind::Unreachable, message)
                    .on(key)
                    .hint("is what it leads to mounted?"));
            }
        }
        Ok(())
    }

    /// Refuses what is there and is no file: opening it might wait for ever.
    pub(super) fn check_file(&self, key: &str) -> Result<()> {
        let path = self.path.join(key);
        match fs::metadata(&path) {
            Ok(found) if !found.is_file() && !found.is_dir() => {
                Err(Error::damaged(format!("{} is not a file", path.display())).on(key))
            }
            _ => Ok(()),
        }
    }

    /// Removes an object durably; its directories stay.
    pub(super) fn remove_object(&self, key: &str) -> Result<()> {
        use io::ErrorKind as Io;
        self.check()?;
        self.refuse_links(key)?;
        let path = self.path.join(key);
        let removed = match fs::remove_file(&path) {
            Err(source) if matches!(source.kind(), Io::NotFound | Io::NotADirectory | Io::IsADirectory) => {
                Ok(())
            }
            other => other,
        };
        // Also when there was nothing to remove: another process may have removed it a moment ago.
        let removed = removed.and_then(|()| match path.parent().map(sync_directory) {
            Some(Err(source)) if !matches!(source.kind(), Io::NotFound | Io::NotADirectory) => Err(source),
            _ => Ok(()),
        });
        removed.map_err(|source| failed_io("removing", key, source))?;
        self.check()
    }

    /// Removes the directories at and below `prefix` that hold nothing.
    pub(super) fn tidy(&self, prefix: &str) -> Result<()> {
        self.check()?;
        self.refuse_links(prefix)?;
        walk::remove_empty(&self.path.join(prefix))
            .map_err(|source| failed_io("removing the empty directory", prefix, source))
    }
}

/// Makes the directory `path` with all that lead to it, durably. The last one opens to its owner only, as
/// the server's data directory does; one that exists is left as it is.
pub(super) fn create(path: &Path) -> Result<()> {
    absolute(path)?;
    let failed = |source| Error::io(format_args!("making the directory {}", path.display()), source);
    if fs::metadata(path).is_ok_and(|metadata| metadata.is_dir()) {
        // It may be the work of an earlier attempt that did not survive; who made it otherwise may keep
        // this program out of the directory above.
        let _ = path.parent().map(sync_directory);
        return Ok(());
    }
    let missing: Vec<&Path> = path.ancestors().take_while(|path| !path.exists()).collect();
    for directory in missing.into_iter().rev() {
        let mode = if directory == path { 0o700 } else { 0o755 };
        match DirBuilder::new().mode(mode).create(directory) {
            Err(source) if source.kind() != io::ErrorKind::AlreadyExists => return Err(failed(source)),
            _ => {}
        }
        directory.parent().map_or(Ok(()), sync_directory).map_err(failed)?;
    }
    Ok(())
}

fn absolute(path: &Path) -> Result<()> {
    if path.is_absolute() {
        return Ok(());
    }
    Err(Error::usage(format!("the archive's directory {} is not an absolute path", path.display()))
        .hint("start it with a slash"))
}

fn same(metadata: &Metadata, device: u64, inode: u64) -> bool {
    metadata.is_dir() && metadata.dev() == device && metadata.ino() == inode
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn unusable(path: &Path, source: io::Error) -> Error {
    let shown = path.display();
    let error = match source.kind() {
        io::ErrorKind::NotFound => {
            Error::new(Kind::Unreachable, format!("the archive's directory {shown} is not there"))
                .hint("is it mounted?")
        }
        io::ErrorKind::NotADirectory => {
            Error::usage(format!("the archive's place {shown} is not a directory"))
        }
        _ => {
            let error = failed_io("opening the archive's directory", &shown.to_string(), source);
            return error.on(shown);
        }
    };
    error.on(shown).because(source)
}
