//! Mirrors brought to what the others have.

use std::time::{Duration, Instant};

use futures::StreamExt;
use serde::Serialize;

use crate::archive::{Archive, Brought, CopyState, Missing, compare};
use crate::behind::Notes;
use crate::error::{Error, Kind, Result};
use crate::progress::Progress;

/// So many objects are copied at once.
const AT_ONCE: usize = 4;

/// What was copied.
#[derive(Debug, Default, Serialize)]
pub struct CaughtUp {
    /// For each mirror, the primary first.
    pub mirrors: Vec<MirrorCaughtUp>,
    /// What could not be done, in plain words.
    pub problems: Vec<String>,
    /// The gravest of it.
    #[serde(skip)]
    pub error: Option<Error>,
}

/// What was copied into one mirror.
#[derive(Debug, Default, Serialize)]
pub struct MirrorCaughtUp {
    /// Which one.
    pub archive: String,
    /// How many objects.
    pub objects: u64,
    /// Their stored bytes.
    pub bytes: u64,
}

impl CaughtUp {
    fn problem(&mut self, error: Error) {
        self.problems.push(error.story());
        // What may go away by itself counts less than what will not.
        if self.error.as_ref().is_none_or(|known| known.kind().is_transient()) {
            self.error = Some(error);
        }
    }
}

/// Brings each mirror what it lacks and another has, byte by byte, manifests last. Nothing that is stored is changed,
/// nothing is deleted, and what differs is left as it is and told. It may be interrupted, and goes on where it was.
pub async fn all(archive: &Archive, notes: &Notes, progress: &dyn Progress) -> CaughtUp {
    let mut done = CaughtUp::default();
    let states = compare(archive).await;
    let wanted = |state: &CopyState| match &state.missing {
        Ok(missing) => missing.iter().map(|object| object.size).sum(),
        Err(_) => 0,
    };
    progress.begin("catching up", states.iter().map(wanted).sum());
    let sources: Vec<(String, Archive)> = states
        .iter()
        .filter(|state| state.missing.is_ok())
        .map(|state| (state.name.clone(), state.archive.clone()))
        .collect();
    for state in states {
        for key in &state.differ {
            if let Err(error) = same_content(&state, &sources, key).await {
                done.problem(error.during(&state.name));
            }
        }
        let missing = match state.missing {
            Ok(missing) => missing,
            Err(error) => {
                done.problem(error.during(&state.name));
                continue;
            }
        };
        let target =
            Target { name: &state.name, archive: &state.archive, sources: &sources, notes, progress };
        let mut caught = MirrorCaughtUp { archive: state.name.clone(), ..MirrorCaughtUp::default() };
        target.fill(missing, &mut caught, &mut done).await;
        done.mirrors.push(caught);
        if let Err(error) = forget_what_is_there(&state.name, &state.archive, notes).await {
            done.problem(error);
        }
    }
    progress.end();
    done
}

/// Objects of different length may be one content that was sealed twice. The first copy that has it is the measure.
async fn same_content(state: &CopyState, sources: &[(String, Archive)], key: &str) -> Result<()> {
    for (name, source) in sources.iter().filter(|(name, _)| *name != state.name) {
        match state.archive.bring(source, key, None).await {
            Err(error) if error.kind() == Kind::Absent => {}
            brought => {
                return brought.map(drop).map_err(|error| error.during(format!("compared with {name}")));
            }
        }
    }
    Ok(())
}

async fn forget_what_is_there(name: &str, archive: &Archive, notes: &Notes) -> Result<()> {
    for note in notes.of(name).await? {
        if archive.storage().size(&note.key).await.is_ok() {
            notes.forget(name, &note.key).await?;
        }
    }
    Ok(())
}

/// A mirror that is being filled.
struct Target<'a> {
    name: &'a str,
    archive: &'a Archive,
    sources: &'a [(String, Archive)],
    notes: &'a Notes,
    progress: &'a dyn Progress,
}

impl Target<'_> {
    /// What others need goes first; what needs them is left out when any of that failed.
    async fn fill(&self, missing: Vec<Missing>, caught: &mut MirrorCaughtUp, done: &mut CaughtUp) {
        let (later, now): (Vec<Missing>, Vec<Missing>) = missing.into_iter().partition(Missing::waits);
        for (objects, at_once) in [(now, AT_ONCE), (later, 1)] {
            let before = done.problems.len();
            let mut brought = futures::stream::iter(objects)
                .map(|object| async move { (self.bring(&object.key).await, object.size) })
                .buffer_unordered(at_once);
            while let Some((result, size)) = brought.next().await {
                match result.and_then(|brought| self.progress.advance(size).map(|()| brought)) {
                    Ok(Brought::New(bytes)) => {
                        caught.objects += 1;
                        caught.bytes += bytes;
                    }
                    Ok(Brought::There) => {}
                    Err(error) => {
                        let lost = error.kind().concerns_all();
                        done.problem(error);
                        // It will not be reached for the others either.
                        if lost {
                            break;
                        }
                    }
                }
            }
            if done.problems.len() > before {
                return;
            }
        }
    }

    /// Copies one object from the first mirror that has it undamaged, and takes its note away.
    async fn bring(&self, key: &str) -> Result<Brought> {
        let brought = bring(self.name, self.archive, self.sources, key).await?;
        self.notes.forget(self.name, key).await?;
        Ok(brought)
    }
}

async fn bring(name: &str, target: &Archive, sources: &[(String, Archive)], key: &str) -> Result<Brought> {
    let mut failed = None;
    for (other, source) in sources.iter().filter(|(other, _)| other != name) {
        match target.bring(source, key, None).await {
            Ok(brought) => return Ok(brought),
            Err(error) if error.kind() == Kind::Absent => {
                failed = failed.or(Some(error));
            }
            Err(error) => failed = Some(error.during(format!("copying from {other} to {name}"))),
        }
    }
    Err(failed.unwrap_or_else(|| Error::new(Kind::Absent, "no other mirror has the object").on(key)))
}

/// Brings mirrors some of what is noted that they lack, if they can be reached, until `budget` is used up. Gives how many
/// objects were copied.
///
/// # Errors
///
/// The first failure; it concerns nothing but the catching up.
pub async fn some(archive: &Archive, notes: &Notes, budget: Duration) -> Result<u64> {
    let began = Instant::now();
    let copies = archive.copies_once();
    let mut count = 0;
    for (name, copy) in copies.iter().filter(|(name, _)| !notes.missed_lately(name)) {
        let mut wanted: Vec<Missing> =
            notes.of(name).await?.iter().map(|note| Missing::new(&note.key, 0)).collect();
        wanted.sort();
        for object in wanted {
            if began.elapsed() >= budget {
                return Ok(count);
            }
            match bring(name, copy, &copies, &object.key).await {
                Ok(Brought::New(_)) => count += 1,
                // Nobody has it any more: it was deleted since.
                Ok(Brought::There) => {}
                Err(error) if error.kind() == Kind::Absent => {}
                Err(error) => return Err(error),
            }
            notes.forget(name, &object.key).await?;
        }
    }
    Ok(count)
}
