//! What the stored WAL says about a target: read from its newest end backwards, as far as needed.

use jiff::Timestamp;

use super::plan::{Candidate, Found, Plan};
use super::target::Target;
use crate::archive::{Backup, Catalog, ObjectKind};
use crate::crossing::blocking;
use crate::error::{Error, Kind, Result};
use crate::progress::Progress;
use crate::wal::records::{Fact, ScanEnd, Scanner, unix_us};
use crate::wal::{Lsn, SegmentName, SegmentSize, WalName, last_segno_before};

/// Looks for the target in the WAL behind `candidate`. Reads nothing for targets that need no look.
pub async fn probe(
    catalog: &Catalog,
    candidate: &Candidate<'_>,
    target: &Target,
    progress: &dyn Progress,
) -> Result<Found> {
    match target {
        Target::Latest | Target::Immediate => Ok(Found::default()),
        Target::Lsn(lsn) => match candidate.chain.end_segno.checked_sub(1) {
            // A position before the last segment is passed for certain.
            Some(last) if lsn.segno(candidate.size) < last => {
                Ok(Found { last_record: Some(start(last, candidate.size)), ..Found::default() })
            }
            _ => backwards(catalog, candidate, target, progress).await,
        },
        Target::Time(_) | Target::Xid(_) | Target::Name(_) => {
            backwards(catalog, candidate, target, progress).await
        }
    }
}

fn start(segno: u64, size: SegmentSize) -> Lsn {
    Lsn(segno.saturating_mul(size.bytes()))
}

/// A segment that is damaged is passed over, as the target may be before it. Where it is not, the damage is the error.
async fn backwards(
    catalog: &Catalog,
    candidate: &Candidate<'_>,
    target: &Target,
    progress: &dyn Progress,
) -> Result<Found> {
    let (from, end) = (candidate.chain.from_segno, candidate.chain.end_segno);
    let mut later: Option<Vec<u8>> = None;
    let (mut passed_over, mut damage) = (Vec::new(), None);
    progress.begin("looking for the target in the WAL", (end - from) * candidate.size.bytes());
    for segno in (from..end).rev() {
        let name = WalName::Segment(candidate.chain.name(segno)?);
        let key = catalog.place.wal(&name);
        let read = catalog.archive.read_bytes(&key, ObjectKind::Wal, candidate.size.bytes()).await;
        let segment = match read.map_err(|error| (error.kind(), error)) {
            Ok(segment) => segment,
            Err((Kind::Absent, _)) => {
                return Err(Error::damaged(format!("{name} was listed, and is gone")).on(&key));
            }
            Err((kind, error)) => {
                let error = error.during("looking for the target in the WAL");
                if kind != Kind::Damaged {
                    return Err(error);
                }
                passed_over.push(name.to_string());
                damage.get_or_insert(error);
                later = None;
                continue;
            }
        };
        let (wanted, size) = (target.clone(), candidate.size);
        let (found, segment) = blocking(move || {
            let found = look(&wanted, segno, size, &segment, later.as_deref())?;
            Ok((found, segment))
        })
        .await?;
        progress.advance(candidate.size.bytes())?;
        if let Some(found) = found {
            progress.end();
            return match damage {
                Some(error) if !found.reaches(target) => Err(error),
                _ => Ok(Found { passed_over, ..found }),
            };
        }
        later = Some(segment);
    }
    progress.end();
    damage.map_or_else(|| Ok(Found::default()), Err)
}

/// A position that recovery passes, or ends at, if the restored cluster is what `plan` promises: the beginning of the last record
/// for all WAL that is stored, else the end of the backup.
pub async fn promised_end(catalog: &Catalog, backup: &Backup, target: &Target, plan: &Plan) -> Result<Lsn> {
    let facts = &backup.facts;
    // No record ends a standby's backup: its pg_control does, at this position or before.
    let consistent = if facts.from_standby { facts.start_lsn } else { facts.stop_lsn };
    match target {
        Target::Latest => {}
        Target::Lsn(lsn) => return Ok(consistent.max(*lsn)),
        _ => return Ok(consistent),
    }
    let size = SegmentSize::new(facts.segment_size)?;
    let (first, end) = (facts.start_lsn.segno(size), plan.wal_end.segno(size));
    for segno in (first..end).rev() {
        let name = SegmentName::from_segno(plan.history.owner_of(segno, size), segno, size)?;
        let key = catalog.place.wal(&WalName::Segment(name));
        let segment = catalog.archive.read_bytes(&key, ObjectKind::Wal, size.bytes()).await?;
        let last = blocking(move || {
            let mut scanner = Scanner::new(size);
            scanner.segment(start(segno, size), &segment, &mut |_| {})?;
            Ok(scanner.last_record())
        });
        if let Some(last) = last.await? {
            return Ok(consistent.max(last));
        }
    }
    Ok(consistent)
}

/// Where the first restore point of that name behind the backup's start ends, looking no further than `newest`.
pub(super) async fn first_point(
    catalog: &Catalog,
    candidate: &Candidate<'_>,
    name: &str,
    newest: Lsn,
) -> Result<Option<Lsn>> {
    let size = candidate.size;
    let mut scanner = Scanner::new(size);
    for segno in candidate.chain.from_segno..=last_segno_before(newest, size) {
        let key = catalog.place.wal(&WalName::Segment(candidate.chain.name(segno)?));
        let segment = catalog.archive.read_bytes(&key, ObjectKind::Wal, size.bytes()).await?;
        let wanted = name.to_owned();
        let (hit, again) = blocking(move || {
            let mut hit = None;
            scanner.segment(start(segno, size), &segment, &mut |fact| match &fact {
                Fact::RestorePoint { name, .. } if *name == wanted => {
                    hit.get_or_insert(fact.range().1);
                }
                _ => {}
            })?;
            Ok((hit, scanner))
        })
        .await?;
        scanner = again;
        if hit.is_some() {
            return Ok(hit);
        }
    }
    Ok(None)
}

/// Looks through one segment; the one behind it completes a record that crosses the border.
fn look(
    target: &Target,
    segno: u64,
    size: SegmentSize,
    segment: &[u8],
    later: Option<&[u8]>,
) -> Result<Option<Found>> {
    let mut scanner = Scanner::new(size);
    let mut facts = Vec::new();
    let end = scanner.segment(start(segno, size), segment, &mut |fact| facts.push(fact))?;
    let last_record = scanner.last_record();
    if let (Some(later), ScanEnd::Whole) = (later, end) {
        let border = start(segno + 1, size);
        let crosses = |fact: &Fact| fact.range().0 < border;
        scanner.segment(border, later, &mut |fact| facts.extend(Some(fact).filter(crosses)))?;
    }
    Ok(match target {
        Target::Lsn(_) => Some(Found { last_record, ..Found::default() }),
        // Recovery stops at a time only where a transaction ends, not at a restore point.
        Target::Time(_) => {
            let ends = facts.iter().filter(|fact| !matches!(fact, Fact::RestorePoint { .. }));
            ends.map(Fact::time_us).max().map(|last| Found {
                last_time: Timestamp::from_microsecond(unix_us(last)).ok(),
                ..Found::default()
            })
        }
        Target::Xid(wanted) => at(
            &facts,
            |fact| matches!(fact, Fact::Commit { xid, .. } | Fact::Abort { xid, .. } if xid == wanted),
        ),
        Target::Name(wanted) => {
            at(&facts, |fact| matches!(fact, Fact::RestorePoint { name, .. } if name == wanted))
        }
        Target::Latest | Target::Immediate => None,
    })
}

fn at(facts: &[Fact], is: impl Fn(&Fact) -> bool) -> Option<Found> {
    facts
        .iter()
        .rev()
        .find(|fact| is(fact))
        .map(|fact| Found { at: Some(fact.range().1), ..Found::default() })
}
