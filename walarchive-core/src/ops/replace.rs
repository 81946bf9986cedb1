//! One data directory in the place of another: with a journal, so that whoever finds it half done can finish or undo it.
//!
//! The new one is made beside the old one. The journal says which step is under way before that is begun; what of it was done is
//! seen from the names that are there: a name is moved at once or not at all.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};
use crate::files::{self, Lock};

/// A journal is not longer.
const JOURNAL_MAX: u64 = 1 << 20;

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// The old server may be stopped, the new directory is being made. The old one is in its place.
    Restoring,
    /// The directories change places.
    Swapping,
    /// The new one is in its place; its server is being started and looked at.
    Starting,
}

/// What is to be known to finish or undo it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    /// Part of the names of the directories.
    pub id: String,
    /// How far it is.
    pub step: Step,
    /// Whether there was a directory before.
    pub had_old: bool,
    /// Whether its server ran.
    pub was_running: bool,
    /// What is restored.
    pub backup: String,
    /// Directories that were absent or empty, and get the new cluster's tablespaces.
    pub tablespaces: Vec<PathBuf>,
}

/// A replacement under way. Nobody else works on the same directory meanwhile.
#[derive(Debug)]
pub struct Replacement {
    target: PathBuf,
    journal: Journal,
    held: Held,
}

fn beside(target: &Path, what: &str) -> PathBuf {
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(what);
    target.with_file_name(name)
}

fn journal_of(target: &Path) -> PathBuf {
    beside(target, ".restore-latest.json")
}

fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// The right to replace a directory, as long as it is held.
#[derive(Debug)]
pub struct Held(#[allow(dead_code)] Lock);

/// Takes the right to replace a directory.
pub fn lock(target: &Path) -> Result<Held> {
    let path = target.parent().unwrap_or(Path::new("/"));
    Lock::take(path)?.map(Held).ok_or_else(|| {
        Error::new(Kind::Busy, format!("somebody else is replacing {} right now", target.display()))
            .on(path.display())
    })
}

impl Replacement {
    /// One that was begun and neither finished nor undone; or the lock back.
    pub fn find(target: &Path, held: Held) -> Result<std::result::Result<Replacement, Held>> {
        let path = journal_of(target);
        if !is_there(&path) {
            return Ok(Err(held));
        }
        let journal = serde_json::from_slice(&files::read(&path, JOURNAL_MAX)?).map_err(|error| {
            Error::new(Kind::Local, format!("the journal {} cannot be read", path.display()))
                .because(error)
                .hint("look which of the directories beside it is the one that is wanted, and remove the journal")
        })?;
        Ok(Ok(Replacement { target: target.to_owned(), journal, held }))
    }

    /// Begins one.
    pub fn begin(target: &Path, journal: Journal, held: Held) -> Result<Replacement> {
        let replacement = Replacement { target: target.to_owned(), journal, held };
        replacement.note()?;
        Ok(replacement)
    }

    fn note(&self) -> Result<()> {
        let text = serde_json::to_vec(&self.journal)
            .map_err(|error| Error::bug("a journal cannot be written").because(error))?;
        files::write(&journal_of(&self.target), 0o600, &text)
    }

    /// What the journal says.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Where the new directory is made.
    pub fn new_dir(&self) -> PathBuf {
        beside(&self.target, &format!(".new-{}", self.journal.id))
    }

    /// Where the old one is afterwards.
    pub fn old_dir(&self) -> PathBuf {
        beside(&self.target, &format!(".before-{}", self.journal.id))
    }

    /// Where one is put that was in its place for a while.
    pub fn undone_dir(&self) -> PathBuf {
        beside(&self.target, &format!(".undone-{}", self.journal.id))
    }

    /// Puts the new directory, which is complete, in the place of the old one.
    pub fn swap(&mut self) -> Result<()> {
        self.journal.step = Step::Swapping;
        self.note()?;
        if self.journal.had_old {
            files::rename(&self.target, &self.old_dir())?;
        }
        files::rename(&self.new_dir(), &self.target)?;
        self.journal.step = Step::Starting;
        self.note()
    }

    /// Puts the old directory back, if it is not in its place. A new one that was in its place is kept, as it may have been written to:
    /// where it is. Nothing may run in either. Can be done again when it was cut off.
    pub fn put_back(&mut self) -> Result<Option<PathBuf>> {
        let (old, new, undone) = (self.old_dir(), self.new_dir(), self.undone_dir());
        let is_placed = match self.journal.had_old {
            true => is_there(&old) && is_there(&self.target),
            false => self.journal.step > Step::Restoring && !is_there(&new) && is_there(&self.target),
        };
        if is_placed {
            files::rename(&self.target, &undone)?;
        }
        if is_there(&old) {
            files::rename(&old, &self.target)?;
        }
        let kept = is_there(&undone).then_some(undone);
        if is_there(&new) {
            files::remove_tree(&new)?;
        }
        if kept.is_none() {
            self.journal.tablespaces.iter().try_for_each(|place| files::empty(place))?;
        }
        self.journal.step = Step::Restoring;
        self.note()?;
        Ok(kept)
    }

    /// It is over: finished, or undone.
    pub fn end(self) -> Result<()> {
        self.release().map(drop)
    }

    /// The same; the right to the directory stays.
    pub fn release(self) -> Result<Held> {
        let path = journal_of(&self.target);
        files::remove(&path)?;
        files::sync_dir(path.parent().unwrap_or(Path::new("/")))?;
        Ok(self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn begun(target: &Path, had_old: bool) -> Replacement {
        let journal = Journal {
            id: "1".to_owned(),
            step: Step::Restoring,
            had_old,
            was_running: true,
            backup: String::new(),
            tablespaces: Vec::new(),
        };
        let replacement = Replacement::begin(target, journal, lock(target).unwrap()).unwrap();
        fs::create_dir(replacement.new_dir()).unwrap();
        fs::write(replacement.new_dir().join("new"), "").unwrap();
        replacement
    }

    fn again(target: &Path) -> Replacement {
        Replacement::find(target, lock(target).unwrap()).unwrap().unwrap()
    }

    /// What cuts a swap off: after how many of its three steps with names and journals.
    fn cut_off(target: &Path, had_old: bool, after: u32) -> Replacement {
        let mut replacement = begun(target, had_old);
        if after >= 1 {
            replacement.journal.step = Step::Swapping;
            replacement.note().unwrap();
        }
        if after >= 2 && had_old {
            files::rename(target, &replacement.old_dir()).unwrap();
        }
        if after >= 3 {
            files::rename(&replacement.new_dir(), target).unwrap();
        }
        drop(replacement);
        again(target)
    }

    #[test]
    fn wherever_it_is_cut_off_it_can_be_undone_and_again() {
        for had_old in [true, false] {
            for after in 0..=3 {
                let dir = tempfile::tempdir().unwrap();
                let target = dir.path().join("data");
                if had_old {
                    fs::create_dir(&target).unwrap();
                    fs::write(target.join("old"), "").unwrap();
                }
                let mut replacement = cut_off(&target, had_old, after);
                let kept = replacement.put_back().unwrap();
                drop(replacement);
                assert_eq!(kept.is_some(), after == 3, "{after}");
                assert_eq!(target.join("old").exists(), had_old, "{had_old} {after}");
                assert!(!target.join("new").exists());
                let mut replacement = again(&target);
                assert_eq!(replacement.put_back().unwrap(), kept);
                assert_eq!(target.join("old").exists(), had_old, "{had_old} {after}");
                replacement.end().unwrap();
                assert!(Replacement::find(&target, lock(&target).unwrap()).unwrap().is_err());
            }
        }
    }

    #[test]
    fn a_swap_keeps_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("data");
        fs::create_dir(&target).unwrap();
        fs::write(target.join("old"), "").unwrap();
        let mut replacement = begun(&target, true);
        assert_eq!(lock(&target).unwrap_err().kind(), Kind::Busy);
        replacement.swap().unwrap();
        assert!(target.join("new").exists() && replacement.old_dir().join("old").exists());
        assert_eq!(replacement.journal().step, Step::Starting);
        replacement.end().unwrap();
    }
}
