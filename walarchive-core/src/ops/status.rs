//! What can be restored, from what is stored.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use crate::archive::{Archive, Backup, Catalog, Census, compare};
use crate::error::{Error, Kind, Result};
use crate::wal::coverage::{self, Stored};
use crate::wal::{Lsn, SegmentSize, TimelineHistory, TimelineId, last_segno_before};

/// A stretch of the past that can be restored, on the line of one timeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Recoverable {
    /// The timeline; the stretch may begin on one of its ancestors.
    pub timeline: u32,
    /// The first moment.
    pub from: Option<Timestamp>,
    /// The last moment; unknown, as only the WAL itself tells.
    pub to: Option<Timestamp>,
    /// The first position.
    pub from_lsn: Lsn,
    /// Where the stored WAL ends, or has a gap.
    pub to_lsn: Lsn,
}

/// Stored bytes of a cluster.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct StoredBytes {
    /// All of it.
    pub bytes: u64,
    /// WAL.
    pub wal_bytes: u64,
    /// Packs, whoever needs them.
    pub packs_bytes: u64,
    /// Manifests, and the pins and leases beside them.
    pub manifests_bytes: u64,
    /// Those of the packs that no backup needs; unknown without an identity, and where a manifest is damaged.
    pub unneeded_bytes: Option<u64>,
}

/// Sums up what is stored besides this much WAL. Two listings.
pub async fn stored(catalog: &Catalog, wal_bytes: u64, census: Option<&Census>) -> Result<StoredBytes> {
    let packs = catalog.all_packs().await?;
    let packs_bytes = packs.values().sum();
    let manifests_bytes = catalog.marks().await?.stored_bytes;
    Ok(StoredBytes {
        bytes: wal_bytes + packs_bytes + manifests_bytes,
        wal_bytes,
        packs_bytes,
        manifests_bytes,
        unneeded_bytes: census.and_then(|census| census.unneeded(&packs)),
    })
}

/// Timeline histories by timeline.
pub type Histories = BTreeMap<TimelineId, TimelineHistory>;

/// The histories of all timelines that are stored, and what is wrong with the others. Without an identity there are
/// none but timeline 1's.
pub async fn histories(catalog: &Catalog) -> Result<(Histories, Vec<String>)> {
    let wal = catalog.wal().await?;
    let mut histories = Histories::from([(TimelineId::FIRST, TimelineHistory::initial())]);
    let mut problems = Vec::new();
    for timeline in &wal.histories {
        match catalog.history(*timeline).await {
            Ok(history) => drop(histories.insert(*timeline, history)),
            Err(error) if error.kind() == Kind::Damaged => problems.push(error.story()),
            Err(error) if error.kind() == Kind::Key => break,
            Err(error) => return Err(error),
        }
    }
    Ok((histories, problems))
}

/// The stretches of each timeline's line that can be restored: from each backup's end as far as the WAL goes without a
/// gap. Stretches that meet are one.
///
/// # Errors
/// `Damaged` for a backup that names the impossible.
pub fn recoverable(
    backups: &[Backup],
    stored: &Stored,
    histories: &Histories,
    size: SegmentSize,
) -> Result<Vec<Recoverable>> {
    let mut lines = histories.clone();
    for timeline in stored.keys() {
        lines.entry(*timeline).or_insert_with(|| TimelineHistory::alone(*timeline));
    }
    let mut all = Vec::new();
    for (timeline, line) in &lines {
        // An ancestor's stretch up to the branch is part of the child's; the ancestor's own goes on elsewhere.
        if !stored.contains_key(timeline) {
            continue;
        }
        let mut stretches: Vec<Recoverable> = Vec::new();
        for backup in backups {
            let Some(stretch) = stretch(backup, stored, line, size)? else { continue };
            match stretches.iter_mut().find(|known| known.to_lsn == stretch.to_lsn) {
                Some(known) if known.from_lsn <= stretch.from_lsn => {}
                Some(known) => *known = stretch,
                None => stretches.push(stretch),
            }
        }
        stretches.sort_by_key(|stretch| stretch.from_lsn);
        all.extend(stretches);
    }
    Ok(all)
}

/// What can be restored with one backup along a line.
fn stretch(
    backup: &Backup,
    stored: &Stored,
    line: &TimelineHistory,
    size: SegmentSize,
) -> Result<Option<Recoverable>> {
    let facts = &backup.facts;
    let own = TimelineId::new(facts.timeline)
        .map_err(|error| Error::damaged("a manifest names timeline 0").because(error).on(&backup.id))?;
    if facts.segment_size != size.bytes() || !line.is_ancestor_position(own, facts.stop_lsn) {
        return Ok(None);
    }
    let chain = coverage::chain(line, stored, facts.start_lsn.segno(size), size);
    if !chain.covers(chain.from_segno, last_segno_before(facts.stop_lsn, size)) {
        return Ok(None);
    }
    Ok(Some(Recoverable {
        timeline: line.timeline.get(),
        from: Some(facts.finished_at),
        to: None,
        from_lsn: facts.stop_lsn,
        to_lsn: Lsn(chain.end_segno.saturating_mul(size.bytes())),
    }))
}

/// Backups that the stored WAL does not make consistent.
pub fn without_wal<'a>(backups: &'a [Backup], stored: &Stored, size: SegmentSize) -> Vec<&'a Backup> {
    let lacks = |backup: &&Backup| {
        let facts = &backup.facts;
        let Ok(own) = TimelineId::new(facts.timeline) else { return true };
        let (first, last) = (facts.start_lsn.segno(size), last_segno_before(facts.stop_lsn, size));
        let chain = coverage::chain(&TimelineHistory::alone(own), stored, first, size);
        facts.segment_size != size.bytes() || !chain.covers(first, last)
    };
    backups.iter().filter(lacks).collect()
}

/// One of the archive's stores.
#[derive(Debug)]
pub struct StoreState {
    /// Its name; empty where there is only one.
    pub name: String,
    /// Why it cannot be used, if so.
    pub error: Option<Error>,
    /// Objects that others have and this one lacks.
    pub missing: u64,
    /// Their stored bytes.
    pub missing_bytes: u64,
    /// Objects that have another length here than elsewhere.
    pub differ: Vec<String>,
}

/// The state of each of the archive's stores. One that cannot be reached is said to lack nothing.
pub async fn stores(archive: &Archive) -> Vec<StoreState> {
    if !archive.is_mirrored() {
        let state =
            StoreState { name: String::new(), error: None, missing: 0, missing_bytes: 0, differ: Vec::new() };
        return vec![state];
    }
    let states = compare(archive).await.into_iter().map(|state| {
        let (missing, error) = match state.missing {
            Ok(missing) => (missing, None),
            Err(error) => (Vec::new(), Some(error)),
        };
        StoreState {
            name: state.name,
            error,
            missing: missing.len() as u64,
            missing_bytes: missing.iter().map(|object| object.size).sum(),
            differ: state.differ,
        }
    });
    states.collect()
}
