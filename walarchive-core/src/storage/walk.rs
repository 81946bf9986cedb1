//! Walks a directory tree for objects. An entry that cannot be read is an error, never left out; what cannot
//! be an object by its name (staging files, `lost+found`) is passed over unread.

use std::fs::{self, ReadDir};
use std::io;
use std::path::Path;

use jiff::Timestamp;

use super::key::is_segment;
use super::{Entry, Unfinished};

/// Directories under way, the innermost last, each with the key of its entries up to the last slash.
pub(super) struct Walk {
    open: Vec<(ReadDir, String)>,
}

impl Walk {
    /// Everything below `prefix` in the archive at `root`; a prefix that is not there has nothing below it.
    pub(super) fn new(root: &Path, prefix: &str) -> io::Result<Self> {
        let mut walk = Walk { open: Vec::new() };
        if prefix.is_empty() {
            walk.open.push((fs::read_dir(root)?, String::new()));
        } else {
            walk.enter(&root.join(prefix), prefix)?;
        }
        Ok(walk)
    }

    fn enter(&mut self, path: &Path, key: &str) -> io::Result<()> {
        match fs::read_dir(path) {
            Ok(entries) => self.open.push((entries, format!("{key}/"))),
            Err(source) if is_absent(&source) => {}
            Err(source) => return Err(source),
        }
        Ok(())
    }

    /// The next object.
    pub(super) fn next(&mut self) -> io::Result<Option<Entry>> {
        while let Some((entries, prefix)) = self.open.last_mut() {
            let Some(entry) = entries.next() else {
                self.open.pop();
                continue;
            };
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| is_segment(name)) else { continue };
            let key = format!("{prefix}{name}");
            match fs::metadata(entry.path()) {
                Ok(found) if found.is_dir() => self.enter(&entry.path(), &key)?,
                Ok(found) if found.is_file() => return Ok(Some(Entry { key, size: found.len() })),
                Ok(_) => {}
                Err(source) if is_absent(&source) => {}
                Err(source) => return Err(source),
            }
        }
        Ok(None)
    }
}

/// The names directly below `prefix` that have an object somewhere below them.
pub(super) fn directories(root: &Path, prefix: &str) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    let entries = match fs::read_dir(root.join(prefix)) {
        Err(source) if is_absent(&source) => return Ok(names),
        other => other?,
    };
    for entry in entries {
        let name = entry?.file_name();
        let Some(name) = name.to_str().filter(|name| is_segment(name)) else { continue };
        let below = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") };
        if Walk::new(root, &below)?.next()?.is_some() {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// The files of writers that did not finish, whether they are dead or still writing: an object's name, `#` and a number.
pub(super) fn staging(root: &Path) -> io::Result<Vec<Unfinished>> {
    let mut found = Vec::new();
    let mut directories = vec![String::new()];
    while let Some(prefix) = directories.pop() {
        let entries = match fs::read_dir(root.join(&prefix)) {
            Err(source) if is_absent(&source) && !prefix.is_empty() => continue,
            other => other?,
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let metadata = match entry.metadata() {
                Err(source) if is_absent(&source) => continue,
                other => other?,
            };
            if metadata.is_dir() && is_segment(name) {
                directories.push(format!("{prefix}{name}/"));
            }
            let Some(object) = staged(name).filter(|_| metadata.is_file()) else { continue };
            let since = metadata.modified().ok().and_then(|time| Timestamp::try_from(time).ok());
            found.push(Unfinished {
                key: format!("{prefix}{object}"),
                id: format!("{prefix}{name}"),
                // Without a time, as if it were new: it is left alone.
                since: since.unwrap_or(Timestamp::MAX),
            });
        }
    }
    Ok(found)
}

/// The name of the object that a staging file of this name is for.
pub(super) fn staged(name: &str) -> Option<&str> {
    let (object, number) = name.rsplit_once('#')?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    (is_number && is_segment(object)).then_some(object)
}

/// Removes a directory with all empty directories in it, as far as they are empty.
pub(super) fn remove_empty(path: &Path) -> io::Result<()> {
    use io::ErrorKind as Io;
    match fs::read_dir(path) {
        Err(source) if is_absent(&source) => return Ok(()),
        Err(source) => return Err(source),
        Ok(entries) => {
            for entry in entries {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    remove_empty(&entry.path())?;
                }
            }
        }
    }
    match fs::remove_dir(path) {
        Err(source) if matches!(source.kind(), Io::DirectoryNotEmpty | Io::NotFound) => Ok(()),
        other => other,
    }
}

/// Whether a name is not there, or leads through a file.
fn is_absent(source: &io::Error) -> bool {
    matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
