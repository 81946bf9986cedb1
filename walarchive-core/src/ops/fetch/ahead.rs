//! Segments that are fetched before recovery asks for them.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};

use super::fetch;
use crate::archive::Catalog;
use crate::crossing::blocking;
use crate::error::{Error, Result};
use crate::files::{self, Lock};
use crate::wal::{SegmentName, SegmentSize, WalName};

/// The directory in `pg_wal`. PostgreSQL looks at nothing there that is not named as it names files, and leaves it out of base
/// backups with all of `pg_wal`.
const SHELF: &str = "walarchive.ahead";
/// What recovery asked for last, beside what lay ready.
const ASKED: &str = "asked";
/// Behind the name of a segment that is being fetched.
const COMING: &str = "coming";
/// Without a call for so long, nobody is served any more.
const IDLE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Where nobody has asked for a second.
const LOOK_SELDOM: Duration = Duration::from_millis(100);
/// Who waits longer for a segment that is coming fetches it himself.
const COMES_WITHIN: Duration = Duration::from_secs(60);
/// What is not in the archive may come: it is looked for ever more seldom.
const ABSENT_FOR: Duration = Duration::from_secs(1);
const ABSENT_FOR_AT_MOST: Duration = Duration::from_secs(16);
/// So much room, in segments, is left to the server at least.
const ROOM: u64 = 16;

/// Where segments lie ready for one cluster's recovery: in the file system of its `pg_wal`, so that a call has only to rename one.
///
/// Who fetches ([`keep`](Shelf::keep)) and who is asked (any process) know of each other by what is in the directory: a segment
/// has its name when every byte of it was proven and is on disk. Either may be killed at any moment.
#[derive(Debug, Clone)]
pub struct Shelf {
    dir: PathBuf,
}

/// What is fetched ahead.
pub struct Keeping {
    /// Where from.
    pub catalog: Catalog,
    /// The size of the cluster's segments.
    pub size: SegmentSize,
    /// The first segment.
    pub first: SegmentName,
    /// How many lie ready or are coming, at most.
    pub segments: usize,
    /// How many are fetched at once.
    pub at_once: usize,
    /// Whether recovery goes on.
    pub wanted: fn() -> bool,
}

impl Shelf {
    /// The shelf in the directory of `dest`, for what comes from `place`: whatever tells archives and clusters apart.
    pub fn beside(dest: &Path, place: &str) -> Shelf {
        let digest = blake3::hash(place.as_bytes()).to_hex();
        let dir = dest.parent().unwrap_or(Path::new("")).join(SHELF).join(&digest[..32]);
        Shelf { dir }
    }

    /// Takes a segment from the shelf to `dest`, in the same directory, and gives its length; one that is coming is waited for.
    /// `None`: it is not there, or nobody who is alive answers for what is, and has to be fetched. Durable is what lies there, but not yet its new name: the server sees to that.
    pub fn take(&self, name: &SegmentName, dest: &Path) -> Result<Option<u64>> {
        let begun = Instant::now();
        loop {
            // Before the look at the shelf: what came in between lies there.
            let coming = self.note(name).exists() && begun.elapsed() < COMES_WITHIN;
            if !self.is_kept() {
                return Ok(None);
            }
            match fs::rename(self.place(name), dest) {
                Ok(()) => {
                    let taken = fs::metadata(dest).map_err(|error| self.failed(error))?;
                    return Ok(Some(taken.len()));
                }
                Err(error) if error.kind() == ErrorKind::NotFound && coming => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(_) => return Ok(None),
            }
        }
    }

    /// Tells whoever fetches ahead that `name` was not found here, so that it goes on behind it. Whether there is somebody.
    pub fn tell(&self, name: &SegmentName) -> Result<bool> {
        if !self.is_kept() {
            return Ok(false);
        }
        let new = self.dir.join(format!("{ASKED}.{}", std::process::id()));
        let told = fs::write(&new, name.to_string()).and_then(|()| fs::rename(&new, self.dir.join(ASKED)));
        told.map(|()| true).map_err(|error| self.failed(error))
    }

    /// Removes what somebody who was killed has left in a `pg_wal`.
    pub fn remove_left(pg_wal: &Path) -> Result<()> {
        let shelves = pg_wal.join(SHELF);
        // Of nothing but what was made here: whatever else has the name, or is linked to from there, is somebody's.
        let is_dir = |path: &Path| fs::symlink_metadata(path).is_ok_and(|found| found.is_dir());
        if !is_dir(&shelves) {
            return Ok(());
        }
        for dir in files::list(&shelves)?.into_iter().filter(|dir| is_dir(dir) && is_digest(dir)) {
            let shelf = Shelf { dir };
            if !shelf.is_kept() {
                shelf.remove()?;
            }
        }
        Ok(())
    }

    /// Fetches segments until nobody wants them any more, and removes what is left. One process at a time does so: another one
    /// returns at once.
    pub async fn keep(&self, keeping: Keeping) -> Result<()> {
        files::make_dirs(&self.dir, 0o700)?;
        let Some(_lock) = self.lock().await? else { return Ok(()) };
        self.clear()?;
        let ended = self.keep_locked(&keeping).await;
        self.remove()?;
        ended
    }

    async fn keep_locked(&self, keeping: &Keeping) -> Result<()> {
        let mut coming = FuturesUnordered::new();
        let mut state = State::new(keeping.first);
        loop {
            let (shelf, wanted) = (self.clone(), keeping.wanted);
            let look = blocking(move || shelf.look(wanted)).await?;
            if !look.wanted || state.idle_since.elapsed() > IDLE {
                return Ok(());
            }
            if state.saw(&look, keeping.size)? {
                coming.clear();
                self.clear()?;
            }
            self.remove_strays(&look, &state)?;
            while let Some(name) = state.another(&look, keeping)? {
                coming.push(self.bring(&keeping.catalog, name).map(move |brought| (name, brought)));
            }
            tokio::select! {
                Some((name, brought)) = coming.next(), if !coming.is_empty() => match brought {
                    Ok(()) => state.came(name),
                    // Whoever asks for it gets to know why.
                    Err(_) => state.wait_for(name),
                },
                () = tokio::time::sleep(state.pause()) => {}
            }
        }
    }

    async fn bring(&self, catalog: &Catalog, name: SegmentName) -> Result<()> {
        let note = self.note(&name);
        let noted = note.clone();
        blocking(move || {
            fs::write(&noted, "").map_err(|error| Error::io("cannot note what is fetched", error))
        })
        .await?;
        let brought = fetch(catalog, &WalName::Segment(name), &self.place(&name)).await;
        blocking(move || files::remove(&note)).await?;
        brought.map(|_| ())
    }

    async fn lock(&self) -> Result<Option<Lock>> {
        // Whoever looks whether there is somebody holds it for a moment.
        for _ in 0..10 {
            let dir = self.dir.clone();
            if let Some(lock) = blocking(move || Lock::take(&dir)).await? {
                return Ok(Some(lock));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(None)
    }

    fn is_kept(&self) -> bool {
        self.dir.exists() && matches!(Lock::take(&self.dir), Ok(None))
    }

    fn place(&self, name: &SegmentName) -> PathBuf {
        self.dir.join(name.to_string())
    }

    fn note(&self, name: &SegmentName) -> PathBuf {
        self.dir.join(format!("{name}.{COMING}"))
    }

    fn look(&self, wanted: fn() -> bool) -> Result<Look> {
        let asked = self.dir.join(ASKED);
        let text = fs::read_to_string(&asked).unwrap_or_default();
        if !text.is_empty() {
            files::remove(&asked)?;
        }
        let names = files::list(&self.dir)?.into_iter();
        let ready = names.filter_map(|path| path.file_name()?.to_str()?.parse().ok()).collect();
        let free =
            rustix::fs::statvfs(&self.dir).map_or(0, |found| found.f_bavail.saturating_mul(found.f_frsize));
        Ok(Look { ready, asked: text.parse().ok(), free, wanted: wanted() })
    }

    fn clear(&self) -> Result<()> {
        files::list(&self.dir)?.iter().try_for_each(|path| files::remove(path))
    }

    /// Who was killed leaves segments behind, and a fetch that was given up may still have come to its end.
    fn remove_strays(&self, look: &Look, state: &State) -> Result<()> {
        let known = |name: &&SegmentName| state.ready.contains(name) || state.begun.contains(name);
        look.ready.iter().filter(|name| !known(name)).try_for_each(|name| files::remove(&self.place(name)))
    }

    fn remove(&self) -> Result<()> {
        files::remove_tree(&self.dir)?;
        if let Some(shelves) = self.dir.parent() {
            // Unless another one has its place there.
            let _ = fs::remove_dir(shelves);
        }
        Ok(())
    }

    fn failed(&self, error: std::io::Error) -> Error {
        Error::io(format!("cannot use {}", self.dir.display()), error)
    }
}

/// Whether a directory is named as [`Shelf::beside`] does.
fn is_digest(dir: &Path) -> bool {
    let name = dir.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What is seen of a shelf.
struct Look {
    ready: BTreeSet<SegmentName>,
    asked: Option<SegmentName>,
    free: u64,
    wanted: bool,
}

/// What is fetched next.
struct State {
    next: SegmentName,
    begun: BTreeSet<SegmentName>,
    ready: BTreeSet<SegmentName>,
    not_before: Option<Instant>,
    absent_for: Duration,
    idle_since: Instant,
}

impl State {
    fn new(next: SegmentName) -> State {
        State {
            next,
            begun: BTreeSet::new(),
            ready: BTreeSet::new(),
            not_before: None,
            absent_for: ABSENT_FOR,
            idle_since: Instant::now(),
        }
    }

    /// Takes note of what was seen. Whether recovery went elsewhere, and all that is ready or coming is of no use.
    fn saw(&mut self, look: &Look, size: SegmentSize) -> Result<bool> {
        if look.asked.is_some() || !self.ready.is_subset(&look.ready) {
            self.idle_since = Instant::now();
        }
        self.ready.retain(|name| look.ready.contains(name));
        let Some(asked) = look.asked else { return Ok(false) };
        let follows = asked.next(size)?;
        if self.next == follows || self.begun.contains(&follows) || self.ready.contains(&follows) {
            return Ok(false);
        }
        *self = State::new(follows);
        Ok(true)
    }

    /// The segment that is to be fetched now, beside those that are.
    fn another(&mut self, look: &Look, keeping: &Keeping) -> Result<Option<SegmentName>> {
        let room = (self.begun.len() as u64 + ROOM).saturating_mul(keeping.size.bytes());
        if self.ready.len() + self.begun.len() >= keeping.segments
            || self.begun.len() >= if self.is_at_the_end() { 1 } else { keeping.at_once }
            || self.not_before.is_some_and(|moment| moment > Instant::now())
            || look.free < room
        {
            return Ok(None);
        }
        while self.ready.contains(&self.next) || self.begun.contains(&self.next) {
            self.next = self.next.next(keeping.size)?;
        }
        self.begun.insert(self.next);
        Ok(Some(self.next))
    }

    /// Whether the last one that was looked for was not there.
    fn is_at_the_end(&self) -> bool {
        self.absent_for > ABSENT_FOR
    }

    fn pause(&self) -> Duration {
        if self.idle_since.elapsed() > Duration::from_secs(1) { LOOK_SELDOM } else { LOOK_EVERY }
    }

    fn came(&mut self, name: SegmentName) {
        self.begun.remove(&name);
        self.ready.insert(name);
        self.absent_for = ABSENT_FOR;
    }

    fn wait_for(&mut self, name: SegmentName) {
        self.begun.remove(&name);
        self.next = self.next.min(name);
        self.not_before = Some(Instant::now() + self.absent_for);
        self.absent_for = (self.absent_for * 2).min(ABSENT_FOR_AT_MOST);
    }
}
