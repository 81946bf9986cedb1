//! The proofs, one for each guarantee.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;

use bytes::Bytes;
use futures::future::join_all;
use futures::{StreamExt, TryStreamExt};
use jiff::{SignedDuration, Timestamp};

use super::{Bench, Finding, Verdict};
use crate::error::{Error, Kind, Result};
use crate::storage::{Created, Part, Unfinished};

/// Creates of one key at the same moment, and how often that is tried.
const RACERS: u8 = 16;
const ROUNDS: usize = 4;
/// Length of the object that is read in pieces.
const LONG: u64 = 100_000;
/// A clock that differs by more is worth a warning: signatures and leases depend on it.
const CLOCK: SignedDuration = SignedDuration::from_secs(60);

fn holds(detail: impl Into<String>) -> Result<Finding> {
    Ok((Verdict::Holds, detail.into()))
}

fn broken(detail: impl Into<String>) -> Result<Finding> {
    Ok((Verdict::Broken, detail.into()))
}

fn lacking(detail: impl Into<String>) -> Result<Finding> {
    Ok((Verdict::Lacking, detail.into()))
}

/// Bytes that differ everywhere, so that no two ranges are alike.
fn pattern(len: u64, seed: u32) -> Bytes {
    let mut state = 0x9E37_79B9 ^ seed;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[1]
    };
    (0..len).map(|_| next()).collect::<Vec<u8>>().into()
}

const OVERWRITES: &str = "two servers that push the same name would overwrite each other; set store.create = check-first, which is \
weaker, or use another store";

impl Bench {
    async fn whole(&self, key: &str) -> Result<Bytes> {
        Ok(self.store.get(key, None).await?.bytes)
    }

    /// Whether there is no such object.
    async fn is_absent(&self, key: &str) -> Result<bool> {
        match self.store.size(key).await {
            Ok(_) => Ok(false),
            Err(error) if error.kind() == Kind::Absent => Ok(true),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn create_makes(&self) -> Result<Finding> {
        let (key, content) = (self.key("create/one"), pattern(1000, 1));
        let (first, second) = (content.slice(..400), content.slice(400..));
        let created = self.store.create(&key, vec![first, second]).await?;
        if created != Created::New {
            return broken("a create of a fresh name says that the object is there already");
        }
        if self.whole(&key).await? != content || self.store.size(&key).await? != 1000 {
            return broken("what is read is not what was stored: nothing in this store can be trusted");
        }
        holds("what is created can be read at once, byte for byte")
    }

    pub(super) async fn create_never_replaces(&self) -> Result<Finding> {
        let key = self.key("create/two");
        self.store.create(&key, vec![pattern(500, 2)]).await?;
        let again = self.store.create(&key, vec![pattern(600, 3)]).await?;
        if self.whole(&key).await? != pattern(500, 2) {
            return broken(format!("create-only does not hold: an object was replaced; {OVERWRITES}"));
        }
        if again != Created::Exists {
            return broken(
                "the second create of a name is said to have stored its object, and it is not there: it would be lost unnoticed",
            );
        }
        holds("a second create of the same name changes nothing, and says so")
    }

    pub(super) async fn one_of_many_wins(&self) -> Result<Finding> {
        for round in 0..ROUNDS {
            let key = self.key(&format!("race/{round}"));
            let racers = (0..RACERS).map(|racer| {
                let content = Bytes::from(vec![racer; 2000]);
                self.store.create(&key, vec![content])
            });
            let results: Vec<Created> = join_all(racers).await.into_iter().collect::<Result<_>>()?;
            let winners: Vec<_> =
                (0..RACERS).zip(results).filter(|(_, created)| *created == Created::New).collect();
            let stored = self.whole(&key).await?;
            match winners.as_slice() {
                [(winner, _)] if stored == vec![*winner; 2000] => {}
                [(_, _)] => {
                    return broken(format!(
                        "of {RACERS} creates at once one won, and another's object is stored; {OVERWRITES}"
                    ));
                }
                [] => {
                    return broken(format!(
                        "of {RACERS} creates at once none won: an object was stored that nobody knows of"
                    ));
                }
                several => {
                    return broken(format!(
                        "of {RACERS} creates at once {} were told that theirs is stored; {OVERWRITES}",
                        several.len()
                    ));
                }
            }
        }
        holds(format!("of {RACERS} creates of one name at once exactly one wins, {ROUNDS} times"))
    }

    pub(super) async fn absence_is_told(&self) -> Result<Finding> {
        let key = format!("{}/absent/none", self.prefix);
        let answers = [
            ("reading", self.store.get(&key, None).await.map(drop)),
            ("reading a range of", self.store.get(&key, Some(0..10)).await.map(drop)),
            ("looking up", self.store.size(&key).await.map(drop)),
        ];
        for (doing, answer) in answers {
            match answer {
                Err(error) if error.kind() == Kind::Absent => {}
                Err(error) if error.kind() == Kind::Denied => {
                    return broken(format!(
                        "{doing} an object that is not there is refused, as stores do without the right to list: PostgreSQL's recovery \
                         would not come to its end; grant listing ({})",
                        error.story()
                    ));
                }
                Err(error) => return Err(error),
                Ok(()) => return broken(format!("{doing} an object that is not there succeeds")),
            }
        }
        holds("an object that is not there is said to be absent")
    }

    pub(super) async fn ranges_are_exact(&self) -> Result<Finding> {
        let (key, content) = (self.key("ranges/one"), pattern(LONG, 4));
        self.store.create(&key, vec![content.clone()]).await?;
        for range in [
            0..10,
            50_000..60_000,
            LONG - 10..LONG,
            LONG - 10..LONG + 10,
            LONG..LONG + 10,
            LONG + 5..LONG + 10,
        ] {
            let Part { bytes, object_size } = self.store.get(&key, Some(range.clone())).await?;
            let clip = |at: u64| usize::try_from(at.min(LONG)).unwrap_or(usize::MAX);
            if Some(bytes.as_ref()) != content.get(clip(range.start)..clip(range.end)) || object_size != LONG
            {
                return broken(format!(
                    "bytes {}..{} of an object of {LONG} come back as {} bytes of {object_size}, or other ones: backups cannot be restored from here",
                    range.start,
                    range.end,
                    bytes.len()
                ));
            }
        }
        holds("ranges are exact, in the middle, at the end and behind it")
    }

    async fn listed(&self, name: &str) -> Result<BTreeMap<String, u64>> {
        let prefix = format!("{}/{name}", self.prefix);
        self.store.list(&prefix).map_ok(|entry| (entry.key, entry.size)).try_collect().await
    }

    pub(super) async fn listings_are_exact(&self) -> Result<Finding> {
        let names = (0..self.objects).map(|n| match n {
            0 => "list/top".to_owned(),
            1 => "list-beside".to_owned(),
            _ => format!("list/{}/{n:06}", n % 3),
        });
        let keys: Vec<String> = names.map(|name| self.key(&name)).collect();
        let creates = keys.iter().map(|key| self.store.create(key, vec![Bytes::from_static(b"listed")]));
        futures::stream::iter(creates.collect::<Vec<_>>())
            .buffer_unordered(16)
            .try_collect::<Vec<_>>()
            .await?;
        let within = format!("{}/list/", self.prefix);
        let made: BTreeMap<_, _> =
            keys.iter().filter(|key| key.starts_with(&within)).map(|key| (key.clone(), 6)).collect();
        let listed = self.listed("list").await?;
        if listed != made {
            let missing = made.keys().filter(|key| !listed.contains_key(*key)).count();
            return broken(format!(
                "of {} objects that were just created a listing shows {}, {missing} are missing: backups would not be found, and what is missing \
                 in the archive could not be told",
                made.len(),
                listed.len()
            ));
        }
        if !self.listed("list-none").await?.is_empty() {
            return broken("a listing shows what is not below its prefix");
        }
        holds(format!("a listing shows all {} objects at once, and nothing else", made.len()))
    }

    pub(super) async fn directories_are_listed(&self) -> Result<Finding> {
        for name in ["dirs/b/one", "dirs/b/two", "dirs/a/x/three", "dirs/four", "dirs-beside/five"] {
            self.store.create(&self.key(name), vec![Bytes::from_static(b"x")]).await?;
        }
        let found = self.store.list_dirs(&format!("{}/dirs", self.prefix)).await?;
        let names: BTreeSet<&str> = found.iter().map(String::as_str).collect();
        if found.len() != 2 || names != BTreeSet::from(["a", "b"]) {
            return broken(format!(
                "the directories a and b are listed as {found:?}: clusters would not be found"
            ));
        }
        holds("what has something below it is listed by its name")
    }

    pub(super) async fn uploads_show_when_finished(&self) -> Result<Finding> {
        let key = self.key("upload/whole");
        let size = self.store.parts().size;
        let (first, second) = (pattern(size as u64, 5), pattern(1000, 6));
        let upload = self.store.upload(&key).await?;
        let halves = first.len() / 2;
        // The last part first: parts may come in any order.
        upload.part(1, vec![second.clone()]).await?;
        upload.part(0, vec![first.slice(..halves), first.slice(halves..)]).await?;
        if !self.is_absent(&key).await? || self.listed("upload").await?.contains_key(&key) {
            let _ = upload.abort().await;
            return broken(
                "an upload shows before it is finished: a writer that dies would leave half an object that looks whole",
            );
        }
        upload.finish().await?;
        let whole = [first, second].concat();
        if self.whole(&key).await? != whole {
            return broken(
                "an upload in two parts is not what was sent: backups cannot be trusted to this store",
            );
        }
        holds(format!("an upload in parts of {size} bytes shows only when it is finished, and is whole then"))
    }

    pub(super) async fn aborted_uploads_never_show(&self) -> Result<Finding> {
        let key = self.key("abort/half");
        let upload = self.store.upload(&key).await?;
        upload.part(0, vec![pattern(1000, 7)]).await?;
        upload.abort().await?;
        if !self.is_absent(&key).await? || !self.listed("abort").await?.is_empty() {
            return broken("an upload that was given up shows: half objects would look whole");
        }
        if self.own_uploads().await.is_ok_and(|uploads| uploads.iter().any(|upload| upload.key == key)) {
            return lacking(
                "an upload that was given up is kept by the store: it goes on costing space; let the store remove such by a rule",
            );
        }
        holds("an upload that is given up leaves nothing")
    }

    /// Unfinished uploads of this check.
    pub(super) async fn own_uploads(&self) -> Result<Vec<Unfinished>> {
        let prefix = format!("{}/", self.prefix);
        let all: Vec<_> = self.store.unfinished().try_collect().await?;
        Ok(all.into_iter().filter(|upload| upload.key.starts_with(&prefix)).collect())
    }

    pub(super) async fn leftovers_are_found(&self) -> Result<Finding> {
        let key = self.key("leftover/half");
        let upload = self.store.upload(&key).await?;
        upload.part(0, vec![pattern(1000, 8)]).await?;
        let now = Timestamp::now();
        let found = self.own_uploads().await;
        let _ = upload.abort().await;
        let since = match found {
            Err(error) if error.kind().is_transient() => return Err(error),
            Err(error) => {
                return lacking(format!(
                    "unfinished uploads cannot be listed, so 'prune' cannot remove what killed programs leave: let the store do it by a rule ({})",
                    error.story()
                ));
            }
            Ok(found) => found.into_iter().find(|upload| upload.key == key).map(|upload| upload.since),
        };
        let Some(since) = since else {
            return holds(
                "the store shows no unfinished uploads: it has none, or removes them by itself, as Azure does after a week",
            );
        };
        let ahead = since.duration_since(now);
        if ahead.abs() > CLOCK {
            return lacking(format!(
                "the store's clock differs from this machine's by {} s: requests may be refused, and what is old cannot be told; set the clock",
                ahead.as_secs()
            ));
        }
        holds("unfinished uploads are found by 'prune', and the store's clock agrees with this machine's")
    }

    pub(super) async fn deletion_removes(&self) -> Result<Finding> {
        let key = self.key("delete/one");
        self.store.create(&key, vec![pattern(100, 9)]).await?;
        match self.store.delete(&key).await {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), Kind::Denied | Kind::Local) => {
                *self.stays.lock().unwrap_or_else(PoisonError::into_inner) = true;
                return lacking(format!(
                    "nothing can be removed with these credentials: archiving works, 'prune' and 'backup delete' do not ({})",
                    error.story()
                ));
            }
            Err(error) => return Err(error),
        }
        if !self.is_absent(&key).await? || self.listed("delete").await?.contains_key(&key) {
            *self.stays.lock().unwrap_or_else(PoisonError::into_inner) = true;
            return broken(
                "an object is still there after it was removed: nothing can be deleted from this store",
            );
        }
        self.store.delete(&key).await.map_err(|error: Error| error.during("removing what is not there"))?;
        if self.store.create(&key, vec![pattern(100, 10)]).await? != Created::New {
            return broken("the name of an object that was removed cannot be used again");
        }
        holds("an object that is removed is gone at once")
    }
}
