//! Walks a directory tree for objects. An entry that cannot be read is an error, never left out; what cannot
//! be an object by its name (staging files, `lost+found`) is passed over unread.

use std::fs::{self, ReadDir};
use std::io;
use std::path::Path;

use super::Entry;
use super::key::is_segment;

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

/// Whether a name is not there, or leads through a file.
fn is_absent(source: &io::Error) -> bool {
    matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
