//! Where the parts of a restored cluster go, and whether they may.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use crate::archive::{Facts, Tablespace};
use crate::error::{Error, Kind, Result};
use crate::files;
use crate::postgres::datadir::{CONTROL_FILE, RESTORE_MARKER, TABLESPACES, refuse_unless_empty};

/// `OLD=NEW`: a tablespace that was at OLD goes to NEW.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TablespaceMapping {
    /// Where it was.
    pub old: PathBuf,
    /// Where it goes.
    pub new: PathBuf,
}

impl FromStr for TablespaceMapping {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || Error::usage(format!("{text:?} is not OLD=NEW with two absolute paths"));
        // A '=' in a path is written '\='.
        let mut parts = vec![String::new()];
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            match (c, chars.peek()) {
                ('\\', Some('=')) => parts.last_mut().ok_or_else(wrong)?.extend(chars.next()),
                ('=', _) => parts.push(String::new()),
                _ => parts.last_mut().ok_or_else(wrong)?.push(c),
            }
        }
        match parts.as_slice() {
            [old, new] if old.starts_with('/') && new.starts_with('/') && !new.contains("/..") => {
                Ok(TablespaceMapping { old: PathBuf::from(old), new: PathBuf::from(new) })
            }
            _ => Err(wrong()),
        }
    }
}

/// The directories of a restored cluster.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub(super) target: PathBuf,
    pub(super) tablespaces: Vec<Tablespace>,
    /// Whether a tablespace is elsewhere than it was.
    pub(super) moved: bool,
    /// Whether a cluster that is there already is made the one of the backup.
    pub(super) is_over: bool,
    owner: Option<(u32, u32)>,
}

/// A path with the links of all that is there already followed.
fn resolved(path: &Path) -> PathBuf {
    let there = path.ancestors().find_map(|place| Some((place, place.canonicalize().ok()?)));
    match there {
        Some((place, real)) => real.join(path.strip_prefix(place).unwrap_or(Path::new(""))),
        None => path.to_owned(),
    }
}

fn without_dots(path: &Path) -> PathBuf {
    path.components().filter(|part| !matches!(part, Component::CurDir)).collect()
}

impl Layout {
    pub(super) fn new(target: &Path, facts: &Facts, mappings: &[TablespaceMapping]) -> Result<Layout> {
        let target = std::path::absolute(target)
            .map_err(|error| Error::io(format!("cannot resolve {}", target.display()), error))?;
        let mut unused: Vec<_> = mappings.iter().collect();
        let mut tablespaces = facts.tablespaces.clone();
        for tablespace in &mut tablespaces {
            if let Some(at) =
                unused.iter().position(|m| without_dots(&m.old) == without_dots(&tablespace.location))
            {
                tablespace.location = unused.remove(at).new.clone();
            }
        }
        if let Some(mapping) = unused.first() {
            let known: Vec<_> = facts.tablespaces.iter().map(|t| t.location.display().to_string()).collect();
            return Err(Error::usage(format!("this backup has no tablespace at {}", mapping.old.display()))
                .hint(format!(
                    "its tablespaces are: {}",
                    if known.is_empty() { "none".to_owned() } else { known.join(", ") }
                )));
        }
        let moved = tablespaces != facts.tablespaces;
        let layout = Layout { owner: None, target, tablespaces, moved, is_over: false };
        layout.refuse_overlaps()?;
        Ok(layout)
    }

    fn refuse_overlaps(&self) -> Result<()> {
        let dirs: Vec<PathBuf> = [self.target.as_path()]
            .into_iter()
            .chain(self.tablespaces.iter().map(|t| t.location.as_path()))
            .map(resolved)
            .collect();
        for (n, a) in dirs.iter().enumerate() {
            for b in dirs.iter().skip(n + 1) {
                if a.starts_with(b) || b.starts_with(a) {
                    return Err(Error::new(
                        Kind::UnsafeTarget,
                        format!("{} and {} lie one within the other", a.display(), b.display()),
                    )
                    .hint("give each tablespace a place of its own with --tablespace OLD=NEW"));
                }
            }
        }
        Ok(())
    }

    /// Refuses unless every directory is absent or empty. Changes nothing.
    pub(super) fn check(&self) -> Result<()> {
        let marker = self.target.join(RESTORE_MARKER);
        if marker.exists() {
            return Err(Error::new(Kind::UnsafeTarget, format!("a restore into {} was interrupted", self.target.display()))
                .on(self.target.display())
                .hint(format!("its files are incomplete: go on with --delta, or empty the directory and the tablespaces that {} names", marker.display())));
        }
        refuse_unless_empty(&self.target).map_err(|error| {
            error.hint("nothing was changed there; choose an empty or new directory, or --delta if it is this cluster's own")
        })?;
        for tablespace in &self.tablespaces {
            refuse_unless_empty(&tablespace.location)
                .map_err(|error| error.during(format!("tablespace {}", tablespace.oid)))?;
        }
        Ok(())
    }

    /// As root, files are given to whom the target directory belongs: PostgreSQL does not run as root.
    fn find_owner(&mut self) -> Result<()> {
        if !rustix::process::geteuid().is_root() {
            return Ok(());
        }
        let place = self.target.ancestors().find(|place| place.exists()).unwrap_or(Path::new("/"));
        let facts = fs::metadata(place)
            .map_err(|error| Error::io(format!("cannot look at {}", place.display()), error))?;
        self.owner = (facts.uid() != 0).then_some((facts.uid(), facts.gid()));
        Ok(())
    }

    /// Whether nothing is there yet, so that there is nothing to compare with.
    pub(super) fn is_new(&self) -> bool {
        refuse_unless_empty(&self.target).is_ok()
    }

    /// Whether the restored files belong to root.
    pub(super) fn belongs_to_root(&self) -> bool {
        rustix::process::geteuid().is_root() && self.owner.is_none()
    }

    /// Where a path of the backup goes: what is below a tablespace's link goes to its location.
    pub(super) fn place(&self, path: &Path) -> PathBuf {
        let in_tablespaces = path.strip_prefix(TABLESPACES).ok();
        let below = in_tablespaces.and_then(|rest| {
            let oid = rest.components().next()?.as_os_str();
            let tablespace = self.tablespaces.iter().find(|t| oid == t.oid.to_string().as_str())?;
            Some(tablespace.location.join(rest.strip_prefix(oid).ok()?))
        });
        below.unwrap_or_else(|| self.target.join(path))
    }

    /// How the marker of a restore names a tablespace.
    pub(super) fn told(&self, tablespace: &Tablespace) -> String {
        format!("tablespace {}: {}", tablespace.oid, tablespace.location.display())
    }

    /// Makes the directories, and marks the target as incomplete. Without pg_control PostgreSQL does not start from it.
    pub(super) fn begin(&mut self, mode: u32, facts: &Facts) -> Result<()> {
        self.find_owner()?;
        let failed =
            |path: &Path, error| Error::io(format!("cannot make the directory {}", path.display()), error);
        for dir in [&self.target].into_iter().chain(self.tablespaces.iter().map(|t| &t.location)) {
            fs::create_dir_all(dir).map_err(|error| failed(dir, error))?;
            files::make_dir(dir, mode)?;
            self.give(dir)?;
        }
        let mut text = format!(
            "walarchive is restoring backup {} here. While this file exists, or global/pg_control does not, the files are\n\
             incomplete and PostgreSQL must not be started from them. If the restore was interrupted: run it again with\n\
             --delta, or empty this directory and the tablespaces below first.\nsystem identifier {}\n",
            facts.id, facts.system_id
        );
        for tablespace in &self.tablespaces {
            text.push_str(&self.told(tablespace));
            text.push('\n');
        }
        files::write(&self.target.join(RESTORE_MARKER), 0o600, text.as_bytes())?;
        let control = self.target.join(CONTROL_FILE);
        if self.is_over && control.exists() {
            files::remove(&control)?;
            files::sync_dir(&self.target.join("global"))?;
        }
        Ok(())
    }

    /// Links the tablespaces.
    pub(super) fn link(&self) -> Result<()> {
        for tablespace in &self.tablespaces {
            let link = self.target.join("pg_tblspc").join(tablespace.oid.to_string());
            symlink(&tablespace.location, &link)
                .map_err(|error| Error::io(format!("cannot make the link {}", link.display()), error))?;
        }
        Ok(())
    }

    /// The content of `tablespace_map` for where the tablespaces are now.
    pub(super) fn tablespace_map(&self) -> Vec<u8> {
        use std::os::unix::ffi::OsStrExt;
        let mut map = Vec::new();
        for tablespace in &self.tablespaces {
            map.extend_from_slice(format!("{} ", tablespace.oid).as_bytes());
            for byte in tablespace.location.as_os_str().as_bytes() {
                if matches!(byte, b'\n' | b'\r' | b'\\') {
                    map.push(b'\\');
                }
                map.push(*byte);
            }
            map.push(b'\n');
        }
        map
    }

    /// The restore is complete: the target is no longer marked.
    pub(super) fn end(&self) -> Result<()> {
        let marker = self.target.join(RESTORE_MARKER);
        fs::remove_file(&marker)
            .map_err(|error| Error::io(format!("cannot remove {}", marker.display()), error))?;
        files::sync_dir(&self.target)
    }

    /// Gives a file or directory to the owner of the cluster.
    pub(super) fn give(&self, path: &Path) -> Result<()> {
        match self.owner {
            Some((user, group)) => std::os::unix::fs::lchown(path, Some(user), Some(group))
                .map_err(|error| Error::io(format!("cannot give {} to its owner", path.display()), error)),
            None => Ok(()),
        }
    }

    /// Gives everything to the owner of the cluster.
    pub(super) fn give_all(&self) -> Result<()> {
        if self.owner.is_none() {
            return Ok(());
        }
        let mut waiting: Vec<PathBuf> = vec![self.target.clone()];
        waiting.extend(self.tablespaces.iter().map(|t| t.location.clone()));
        while let Some(path) = waiting.pop() {
            self.give(&path)?;
            if path.is_dir() && !path.is_symlink() {
                let failed = |error| Error::io(format!("cannot list {}", path.display()), error);
                for entry in fs::read_dir(&path).map_err(failed)? {
                    waiting.push(entry.map_err(failed)?.path());
                }
            }
        }
        Ok(())
    }

    /// Makes everything durable.
    pub(super) fn sync(&self) -> Result<()> {
        files::sync_file_system(&self.target)?;
        for tablespace in &self.tablespaces {
            files::sync_file_system(&tablespace.location)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_are_two_absolute_paths() {
        let mapping: TablespaceMapping = r"/a\=b=/c d".parse().unwrap();
        assert_eq!((mapping.old, mapping.new), (PathBuf::from("/a=b"), PathBuf::from("/c d")));
        for text in ["", "/a", "a=/b", "/a=b", "/a=/b=/c"] {
            assert!(text.parse::<TablespaceMapping>().is_err(), "{text:?}");
        }
    }
}
