//! What mirrors are known to lack: noted in a directory of this machine, one file for each object.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::crossing::blocking;
use crate::error::{Error, Kind, Result};
use crate::files;
use crate::storage::Witness;

const NOTE_MAX: u64 = 64 * 1024;

/// That a mirror lacks an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// The mirror, as it is shown.
    pub mirror: String,
    /// The object's key.
    pub key: String,
    /// Since when.
    pub since: Timestamp,
}

/// Who tells people.
pub type Tell = dyn Fn(&str) + Send + Sync;

/// The notes. A note that cannot be made is told: comparing the mirrors finds what they lack without notes, too.
pub struct Notes {
    dir: PathBuf,
    tell: Box<Tell>,
    lately: Mutex<BTreeSet<String>>,
}

impl Notes {
    /// Notes below `state_dir`, which is made when it is needed.
    pub fn new(state_dir: &Path, tell: impl Fn(&str) + Send + Sync + 'static) -> Notes {
        Notes { dir: state_dir.join("behind"), tell: Box::new(tell), lately: Mutex::default() }
    }

    /// Says something to people.
    pub fn tell(&self, text: &str) {
        (self.tell)(text);
    }

    fn dir_of(&self, mirror: &str) -> PathBuf {
        self.dir.join(short(mirror))
    }

    /// What the mirror is noted to lack. Files that are no notes are passed over.
    pub async fn of(&self, mirror: &str) -> Result<Vec<Note>> {
        let (dir, mirror) = (self.dir_of(mirror), mirror.to_owned());
        blocking(move || {
            let notes = files::list(&dir)?.into_iter().filter_map(|path| {
                let bytes = files::read(&path, NOTE_MAX).ok()?;
                serde_json::from_slice::<Note>(&bytes).ok()
            });
            Ok(notes.filter(|note| note.mirror == mirror).collect())
        })
        .await
    }

    /// Takes a note away, if there is one.
    pub async fn forget(&self, mirror: &str, key: &str) -> Result<()> {
        let path = self.dir_of(mirror).join(short(key));
        blocking(move || files::remove(&path)).await
    }

    /// Whether the mirror missed something since these notes were opened.
    pub fn missed_lately(&self, mirror: &str) -> bool {
        self.lately.lock().unwrap_or_else(PoisonError::into_inner).contains(mirror)
    }

    async fn note(&self, mirror: &str, key: &str) -> Result<()> {
        let note = Note { mirror: mirror.to_owned(), key: key.to_owned(), since: Timestamp::now() };
        let (dir, name) = (self.dir_of(mirror), short(key));
        blocking(move || {
            let path = dir.join(name);
            // One that is there says since when.
            if path.is_file() {
                return Ok(());
            }
            files::make_dirs(&dir, 0o700)?;
            let bytes = serde_json::to_vec(&note)
                .map_err(|error| Error::new(Kind::Bug, "a note cannot be written").because(error))?;
            files::write(&path, 0o600, &bytes)
        })
        .await
    }
}

impl fmt::Debug for Notes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Notes({})", self.dir.display())
    }
}

#[async_trait]
impl Witness for Notes {
    async fn missed(&self, mirror: &str, key: &str, why: &Error) {
        let first = self.lately.lock().unwrap_or_else(PoisonError::into_inner).insert(mirror.to_owned());
        if first {
            self.tell(&format!("{mirror} is behind, what it lacks is stored elsewhere: {}", why.story()));
        }
        if let Err(error) = self.note(mirror, key).await {
            self.tell(&format!(
                "that {mirror} lacks {key} could not be noted: {}; 'walarchive catch-up' finds it without notes",
                error.story()
            ));
        }
    }

    fn notice(&self, text: &str) {
        self.tell(text);
    }
}

/// A file's name for a text of any length.
fn short(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex().chars().take(32).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Arc;

    use super::*;

    fn run(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(test);
    }

    #[test]
    fn notes_survive_their_writer_and_are_private() {
        run(async {
            let dir = tempfile::tempdir().unwrap();
            let state = dir.path().join("a/state");
            let away = Error::new(Kind::Unreachable, "away");
            let notes = Notes::new(&state, |_| ());
            assert!(notes.of("s3://b").await.unwrap().is_empty());
            for key in ["main/1/wal/x", "main/1/wal/y", "main/1/wal/x"] {
                notes.missed("s3://b", key, &away).await;
            }
            assert!(notes.missed_lately("s3://b") && !notes.missed_lately("s3://c"));
            let again = Notes::new(&state, |_| ());
            let keys = |notes: Vec<Note>| notes.into_iter().map(|note| note.key).collect::<BTreeSet<_>>();
            assert_eq!(keys(again.of("s3://b").await.unwrap()).len(), 2);
            assert!(again.of("s3://c").await.unwrap().is_empty() && !again.missed_lately("s3://b"));
            let mode = std::fs::metadata(state.join("behind")).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700);
            again.forget("s3://b", "main/1/wal/x").await.unwrap();
            again.forget("s3://b", "main/1/wal/z").await.unwrap();
            assert_eq!(keys(notes.of("s3://b").await.unwrap()), BTreeSet::from(["main/1/wal/y".to_owned()]));
        });
    }

    #[test]
    fn a_note_that_cannot_be_made_is_told() {
        run(async {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("state"), "").unwrap();
            let told: Arc<Mutex<Vec<String>>> = Arc::default();
            let heard = told.clone();
            let notes = Notes::new(&dir.path().join("state"), move |text| {
                heard.lock().unwrap().push(text.to_owned());
            });
            notes.missed("s3://b", "k", &Error::new(Kind::Unreachable, "away")).await;
            let told = told.lock().unwrap();
            assert!(told.len() == 2 && told[1].contains("could not be noted"), "{told:?}");
        });
    }
}
