//! The directory that everything happens in.

use std::env;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use walarchive_core::{Error, Kind, Result};

use crate::scratch::{cannot_remove, private_dir, remove};

/// The work directory, removed when dropped, with what it holds.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    fate: Fate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It stays as it is.
    Stays,
    /// What it holds goes: the directory was there before, or is somebody else's to remove.
    Emptied,
    /// It goes.
    Removed,
}

impl Place {
    /// `wanted`, made if it is not there, or a temporary directory. Root's is for others to reach.
    pub(super) fn make(wanted: Option<&Path>, root: bool, keep: bool) -> Result<Place> {
        let (path, made) = match wanted {
            Some(dir) => empty(dir)?,
            None => (temporary(root)?, true),
        };
        let fate = match (keep, made) {
            (true, _) => Fate::Stays,
            (false, true) => Fate::Removed,
            (false, false) => Fate::Emptied,
        };
        let place = Place { path, fate };
        if root && let Some(closed) = closed_ancestor(&place.path) {
            let message = format!(
                "the demo cannot run in {}: as an unprivileged user it cannot pass {}",
                place.path.display(),
                closed.display()
            );
            return Err(Error::usage(message)
                .on(place.path.display())
                .hint("say --dir with a directory that others can reach"));
        }
        Ok(place)
    }

    /// The directory that the outer process made and removes. It is emptied here, should the outer process be gone.
    pub(super) fn inside(path: PathBuf, keep: bool) -> Place {
        Place { path, fate: if keep { Fate::Stays } else { Fate::Emptied } }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Makes a directory that only its owner can enter.
    pub(super) fn dir(&self, name: &str) -> Result<PathBuf> {
        let path = self.join(name);
        private_dir(&path)?;
        Ok(path)
    }

    /// Removes what is to be removed; an error when that fails.
    pub(super) fn clean(mut self) -> Result<()> {
        self.remove()
    }

    fn remove(&mut self) -> Result<()> {
        let fate = std::mem::replace(&mut self.fate, Fate::Stays);
        match fate {
            Fate::Stays => Ok(()),
            Fate::Removed => remove(&self.path),
            Fate::Emptied => {
                let entries = fs::read_dir(&self.path).map_err(|error| cannot_remove(&self.path, error))?;
                entries.flatten().try_for_each(|entry| remove(&entry.path()))
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // `clean` tells about failures; this is the way out of another one.
        let _ = self.remove();
    }
}

fn temporary(root: bool) -> Result<PathBuf> {
    // Root's temporary directory may be closed to the user that the servers run as.
    let base = Some(env::temp_dir())
        .filter(|dir| dir.is_absolute() && (!root || closed_ancestor(&dir.join("x")).is_none()));
    let base = base.unwrap_or_else(|| PathBuf::from("/tmp"));
    let dir = tempfile::Builder::new().prefix("walarchive-demo-").tempdir_in(&base);
    let dir = dir.map_err(|error| {
        Error::io(format!("cannot make a temporary directory in {}", base.display()), error)
            .hint("say --dir with a directory that can be written to")
    })?;
    Ok(dir.keep())
}

fn empty(dir: &Path) -> Result<(PathBuf, bool)> {
    let path = std::path::absolute(dir)
        .map_err(|error| Error::io(format!("cannot resolve {}", dir.display()), error))?;
    match fs::read_dir(&path).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok((path, false)),
        Ok(false) => {
            let message = format!("the demo cannot run in {}: it is not empty", path.display());
            Err(Error::new(Kind::UnsafeTarget, message)
                .on(path.display())
                .hint("name an absent or an empty directory"))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => private_dir(&path).map(|()| (path, true)),
        Err(error) => Err(Error::io(format!("cannot use the directory {}", path.display()), error)),
    }
}

/// The directory on the way to `path` that not everybody can pass.
fn closed_ancestor(path: &Path) -> Option<PathBuf> {
    let real = path.parent().and_then(|parent| parent.canonicalize().ok())?;
    let closed = |dir: &&Path| !fs::metadata(dir).is_ok_and(|meta| meta.permissions().mode() & 0o001 != 0);
    real.ancestors().find(closed).map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_stays_and_what_was_made_goes() {
        let outer = tempfile::tempdir().unwrap();
        let there = outer.path().join("there");
        fs::create_dir(&there).unwrap();
        let place = Place::make(Some(&there), false, false).unwrap();
        place.dir("data").unwrap();
        fs::write(place.join("file"), "x").unwrap();
        place.clean().unwrap();
        assert!(fs::read_dir(&there).unwrap().next().is_none());

        let absent = outer.path().join("absent");
        drop(Place::make(Some(&absent), false, false).unwrap());
        assert!(!absent.exists());
        drop(Place::make(Some(&absent), false, true).unwrap());
        assert!(absent.exists());
    }

    #[test]
    fn a_directory_with_something_in_it_is_never_touched() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("precious"), "x").unwrap();
        let error = Place::make(Some(dir.path()), false, false).unwrap_err();
        assert_eq!(error.kind(), Kind::UnsafeTarget);
        assert!(dir.path().join("precious").exists());
    }

    #[test]
    fn a_directory_that_others_cannot_reach_is_refused_to_root() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let wanted = dir.path().join("work");
        assert_eq!(Place::make(Some(&wanted), true, false).unwrap_err().kind(), Kind::Usage);
        assert!(!wanted.exists());
    }
}
