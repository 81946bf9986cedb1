//! What earlier backups have stored, and this one can point to.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use super::state::{Header, Look, State, Sums};
use crate::archive::{BackupId, Catalog, Extent, FileRecord, PAGE, PackName, PackRecord};
use crate::error::Result;
use crate::wal::{Lsn, TimelineHistory, TimelineId};

/// Packs of earlier backups have this bit in their numbers, until the manifest is written.
pub(super) const EARLIER: u32 = 1 << 31;
/// A pack is given up when less than one in so many of its pages is needed.
const WORTH: u64 = 4;
/// One backup stores at most one in so many pages anew to give up packs.
const AT_MOST: u64 = 20;

/// What a new backup can point to.
pub(super) struct Base {
    states: Vec<Known>,
    packs: Vec<PackRecord>,
    /// Packs that nothing is to point to any more.
    given_up: BTreeSet<u32>,
    /// The backup that was committed last, and which is the base therefore.
    pub(super) id: Option<BackupId>,
    /// When the last backup began that stored everything anew.
    pub(super) full_since: Option<Timestamp>,
}

struct Known {
    state: State,
    /// From the numbers of the state to those of the base.
    numbers: HashMap<u32, u32>,
}

/// A file of the base. Its extents have the base's numbers.
pub(super) struct BaseFile {
    pub(super) record: FileRecord,
    look: Option<Look>,
    /// As the backup saw it, and whether that was brought to its end.
    seen: Option<Look>,
    is_of_backup: bool,
    pub(super) sums: Sums,
    /// Where the backup began that read it: pages that were changed later have a later position.
    pub(super) start: Lsn,
}

impl BaseFile {
    /// Whether nothing has written to the file since.
    pub(super) fn looks_like(&self, now: &Look) -> bool {
        self.look.as_ref() == Some(now) && self.record.size == now.size()
    }

    /// Whether it is the file that the last backup read, so that what the WAL has not changed since is as it was.
    pub(super) fn goes_on_as(&self, now: &Look) -> bool {
        self.is_of_backup && self.seen.is_some_and(|seen| seen.is_in_place_of(now))
    }
}

/// Why a backup stores everything anew.
pub(super) type Reason = String;

/// What the new backup is like, which its base must fit.
pub(super) struct Fit<'a> {
    pub(super) header: &'a Header,
    /// How far the server's WAL goes at least.
    pub(super) reached: Lsn,
    pub(super) full_every: Duration,
    /// The timelines that the server has come along.
    pub(super) history: Option<&'a TimelineHistory>,
}

impl Fit<'_> {
    /// Whether a new backup may point to what the state's backup has stored.
    fn refuses(&self, state: &State) -> Option<Reason> {
        let (now, then) = (self.header, &state.header);
        let end = state.stop.unwrap_or(then.start);
        let older = now.began.duration_since(then.full_since).unsigned_abs();
        if (&now.archive, &now.place) != (&then.archive, &then.place) {
            Some("the last one is in another archive".to_owned())
        } else if now.readers != then.readers {
            Some("the recipients have changed".to_owned())
        } else if now.block_size != then.block_size || now.block_size as usize != PAGE {
            Some("the server's pages are of another size".to_owned())
        } else if older >= self.full_every {
            let days = older.as_secs() / 86_400;
            Some(format!("the last full one is {days} days old (backup.full_every)"))
        } else if end > self.reached {
            let reached = self.reached;
            Some(format!(
                "the last one ended at {end}, and this server has come to {reached}: it was set back, or lags behind"
            ))
        } else if !self.is_past(then.timeline, end) {
            Some(format!(
                "the last one, on timeline {} up to {end}, is not of this server's past",
                then.timeline
            ))
        } else {
            None
        }
    }

    fn is_past(&self, timeline: u32, end: Lsn) -> bool {
        let Ok(timeline) = TimelineId::new(timeline) else { return false };
        timeline.get() == self.header.timeline
            || self.history.is_some_and(|history| history.is_ancestor_position(timeline, end))
    }
}

impl Base {
    /// What the states in `dir` offer to a new backup; the reason, if it is nothing. `cut_off` says whether a backup that
    /// was cut off counts.
    pub(super) fn choose(dir: &Path, fit: &Fit<'_>, cut_off: bool) -> Result<Result<Base, Reason>> {
        let cut_off = if cut_off { State::cut_off(dir)? } else { None };
        let Some(committed) = State::committed(dir)? else {
            return Ok(match cut_off.filter(|state| fit.refuses(state).is_none()) {
                Some(state) => Ok(Base::new(vec![state])),
                None => Err("this machine remembers no earlier one".to_owned()),
            });
        };
        if let Some(reason) = fit.refuses(&committed) {
            return Ok(Err(reason));
        }
        // What was read last is nearest to what is there now.
        let newer =
            cut_off.filter(|state| state.header.id > committed.header.id && fit.refuses(state).is_none());
        Ok(Ok(Base::new(newer.into_iter().chain([committed]).collect())))
    }

    fn new(states: Vec<State>) -> Base {
        let committed = states.iter().find(|state| state.stop.is_some());
        let id = committed.and_then(|state| state.header.backup().ok());
        let full_since = committed.map(|state| state.header.full_since);
        let given_up: BTreeSet<PackName> = committed.map(hardly_used).unwrap_or_default();
        let mut packs: Vec<PackRecord> = Vec::new();
        let mut known = BTreeMap::new();
        let states = states.into_iter().map(|state| {
            // What its files do not need may be gone.
            let needed = state.packs.iter().filter(|(number, _)| state.used.contains_key(number));
            let numbers = needed.map(|(number, pack)| {
                let own = *known.entry(pack.name.clone()).or_insert_with(|| {
                    packs.push(pack.clone());
                    packs.len() as u32 - 1
                });
                (*number, own)
            });
            let numbers = numbers.collect();
            Known { state, numbers }
        });
        let states = states.collect();
        let given_up = given_up.iter().filter_map(|name| known.get(name).copied()).collect();
        Base { states, packs, given_up, id, full_since }
    }

    /// Whether all that may be pointed to is still stored; the reason, if it is not. The new backup must have its lease
    /// by now: what is there under it stays.
    pub(super) async fn is_stored(&self, catalog: &Catalog) -> Result<Result<(), Reason>> {
        if let Some(id) = &self.id
            && !catalog.exists(id).await?
        {
            return Ok(Err(format!("the last one, {id}, is not in the archive any more")));
        }
        if let Some((pack, _)) = catalog.first_lost(&self.packs).await? {
            return Ok(Err(format!("pack {} is not in the archive any more", pack.name)));
        }
        Ok(Ok(()))
    }

    /// The last backup, and where it ended.
    pub(super) fn last(&self) -> Option<(&Header, Lsn)> {
        self.states.iter().find_map(|known| Some((&known.state.header, known.state.stop?)))
    }

    /// All packs, in the order of their numbers.
    pub(super) fn packs(&self) -> &[PackRecord] {
        &self.packs
    }

    /// The backups that were cut off, and which this one went on with.
    pub(super) fn cut_off(&self) -> impl Iterator<Item = BackupId> + '_ {
        let cut_off = self.states.iter().filter(|known| known.state.stop.is_none());
        cut_off.filter_map(|known| known.state.header.backup().ok())
    }

    /// Their packs are another backup's now, or nobody's.
    pub(super) fn forget_cut_off(&self) -> Result<()> {
        self.states
            .iter()
            .filter(|known| known.state.stop.is_none())
            .try_for_each(|known| known.state.remove())
    }

    /// A file as the newest of the states has it.
    pub(super) fn find(&self, path: &Path) -> Option<BaseFile> {
        self.states.iter().find_map(|known| {
            let mut file = known.state.find(path)?;
            let number = |pack| Ok(known.numbers.get(&pack).copied().unwrap_or(u32::MAX));
            file.record.extents.renumber(number).ok()?;
            let settled = |look: &Look| look.is_settled_before(known.state.header.began);
            Some(BaseFile {
                record: file.record,
                look: file.look.filter(settled),
                seen: file.look,
                is_of_backup: known.state.stop.is_some(),
                sums: file.sums,
                start: known.state.header.start,
            })
        })
    }

    /// The extent as a new manifest may have it; `None` if its pack is not to be pointed to.
    pub(super) fn offer(&self, extent: Extent) -> Option<Extent> {
        let known = (extent.pack as usize) < self.packs.len() && !self.given_up.contains(&extent.pack);
        known.then_some(Extent { pack: extent.pack | EARLIER, ..extent })
    }
}

/// The packs of which so little is needed that it is better stored anew: then they go when older backups do.
fn hardly_used(state: &State) -> BTreeSet<PackName> {
    let all: u64 = state.used.values().sum();
    let mut packs: Vec<(u64, &PackRecord)> = state
        .packs
        .iter()
        .filter_map(|(number, pack)| Some((*state.used.get(number)?, pack)))
        .filter(|(used, pack)| used * WORTH < pack.plain / PAGE as u64)
        .collect();
    packs.sort_by_key(|(used, pack)| (*used, pack.name.clone()));
    let mut left = all / AT_MOST;
    let within = packs.into_iter().take_while(|(used, _)| match left.checked_sub(*used) {
        Some(rest) => {
            left = rest;
            true
        }
        None => false,
    });
    within.map(|(_, pack)| pack.name.clone()).collect()
}
