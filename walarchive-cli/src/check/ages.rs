//! How old the newest of each kind is, from what is stored.

use jiff::Timestamp;
use serde_json::json;
use walarchive_core::archive::{Archive, Catalog};
use walarchive_core::ops::copy::{CopyRequest, Wanted, lag};
use walarchive_core::retention::dumps::by_content;
use walarchive_core::source::{Waiting, ready, waiting};
use walarchive_core::wal::WalName;
use walarchive_core::{Error, Result};

use super::retention::lost_packs;
use super::{Found, Status};
use crate::args::Limits;
use crate::output::{bytes, many};
use crate::run::Context;

const HOUR: u64 = 3600;

/// Seconds since a moment; of one that is still to come, none.
fn age(of: Timestamp) -> u64 {
    u64::try_from(Timestamp::now().as_second() - of.as_second()).unwrap_or_default()
}

pub(super) fn told(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / HOUR),
        _ => format!("{} d", seconds / (24 * HOUR)),
    }
}

/// A moment that is still to come is no age: a clock went wrong, or somebody makes believe.
fn not_to_come(of: Timestamp, found: &mut Found) {
    if of.as_second() > Timestamp::now().as_second() + 600 {
        found.but(Status::Unknown, &format!("the clock says that {of} is still to come"));
    }
}

/// How an age is judged; without limits of its own, it is critical from so many seconds on.
fn judge(seconds: u64, limits: &Limits, critical: u64) -> Status {
    let critical = limits.critical.map_or(critical, |limit| limit.as_secs());
    let warning = limits.warning.map_or(critical, |limit| limit.as_secs());
    if seconds > critical {
        Status::Critical
    } else if seconds > warning {
        Status::Warning
    } else {
        Status::Ok
    }
}

/// The newest backup that can be restored.
pub(super) async fn backup(context: &Context, limits: &Limits) -> Result<Found> {
    let archive = context.archive().await?;
    let inventory = context.catalog(&archive).await?.inventory().await?;
    let newest = inventory.backups.iter().rev().find(|backup| inventory.is_restorable(backup));
    let Some(newest) = newest else {
        return Ok(Found::new(Status::Critical, "there is no backup that can be restored"));
    };
    let seconds = age(newest.facts.finished_at);
    let line = format!("backup {} of {} ago can be restored", newest.id, told(seconds));
    let mut found = Found::new(judge(seconds, limits, 28 * HOUR), line)
        .number("age_seconds", seconds as f64)
        .number("backups", inventory.backups.len() as f64);
    for (id, damage) in &inventory.damaged {
        found.but(Status::Critical, &format!("backup {id} cannot be restored: {damage}"));
    }
    not_to_come(newest.facts.finished_at, &mut found);
    lost_packs(&context.catalog(&archive).await?, &[newest.id.clone()].into(), &mut found).await?;
    found.details = json!({ "backup": newest.id.as_str(), "finished_at": newest.facts.finished_at });
    Ok(found)
}

/// The newest dump of each database, and of the globals.
pub(super) async fn dump(context: &Context, limits: &Limits) -> Result<Found> {
    let archive = context.archive().await?;
    let (dumps, damaged) = Catalog::of_dumps(&archive, context.settings.cluster()?).dumps().await?;
    let newest =
        by_content(&dumps).into_values().filter_map(|dumps| dumps.last().map(|dump| dump.facts.clone()));
    let mut newest: Vec<_> = newest.collect();
    newest.sort_by_key(|facts| facts.finished_at);
    let Some(oldest) = newest.first() else {
        return Ok(Found::new(Status::Critical, "there is no dump"));
    };
    let seconds = age(oldest.finished_at);
    let status = judge(seconds, limits, 28 * HOUR);
    let late = newest.iter().filter(|facts| judge(age(facts.finished_at), limits, 28 * HOUR) != Status::Ok);
    let late: Vec<&str> = late.map(|facts| facts.database.as_str()).collect();
    let line = match late.as_slice() {
        [] => format!("each of {} has a dump of the last {}", many(newest.len(), "database"), told(seconds)),
        late => format!("no dump is newer than {}: {}", told(seconds), late.join(", ")),
    };
    let mut found = Found::new(status, line)
        .number("age_seconds", seconds as f64)
        .number("databases", newest.len() as f64);
    for (id, error) in &damaged {
        found.but(Status::Critical, &format!("dump {id} cannot be restored: {}", error.story()));
    }
    newest.iter().for_each(|facts| not_to_come(facts.finished_at, &mut found));
    let ids = newest.iter().filter_map(|facts| facts.id.parse().ok()).collect();
    lost_packs(&Catalog::of_dumps(&archive, context.settings.cluster()?), &ids, &mut found).await?;
    let each =
        newest.iter().map(|facts| json!({ "database": facts.database, "finished_at": facts.finished_at }));
    found.details = each.collect();
    Ok(found)
}

/// What a copy lacks.
pub(super) async fn copy(
    context: &Context,
    from: Option<&str>,
    to: Option<&str>,
    limits: &Limits,
) -> Result<Found> {
    let open = async |url: Option<&str>| -> Result<Archive> {
        match url {
            Some(url) => context.settings.with_archive(url).archive(&context.each_patient()?).await,
            None => context.archive().await,
        }
    };
    if from.is_none() && to.is_none() {
        return Err(Error::usage("the copy is not named").hint("--to or --from names it"));
    }
    let (from, to) = (open(from).await?, open(to).await?);
    if from.info().id() != to.info().id() {
        return Ok(Found::new(Status::Critical, "this is no copy, but another archive"));
    }
    let reseal = from.info().encrypted() != to.info().encrypted();
    let cluster = context.settings.named_cluster()?;
    let wanted = Wanted { wal: true, backups: true, dumps: true, since: None, newest: false, kept: None };
    let progress = context.progress.clone();
    let lag = lag(&CopyRequest { from, to, cluster, wanted, reseal, jobs: 4, progress }).await?;
    let seconds = lag.since.map_or(0, age);
    let line = match lag.objects {
        0 => "the copy has everything".to_owned(),
        objects => {
            let behind = lag.since.map(|_| format!(", backups or dumps of {} ago among them", told(seconds)));
            format!(
                "the copy lacks {}, {}{}",
                many(objects, "object"),
                bytes(lag.bytes),
                behind.unwrap_or_default()
            )
        }
    };
    let mut found = Found::new(judge(seconds, limits, 32 * HOUR), line)
        .number("age_seconds", seconds as f64)
        .number("missing_objects", lag.objects as f64)
        .number("missing_bytes", lag.bytes as f64);
    if lag.unreadable > 0 {
        let manifests = many(lag.unreadable, "manifest");
        found.but(
            Status::Critical,
            &format!("{manifests} of the source damaged, so what they are of does not come"),
        );
    }
    Ok(found)
}

/// The last drill.
pub(super) async fn drill(context: &Context, limits: &Limits) -> Result<Found> {
    let archive = context.archive().await?;
    let mut reports = Vec::new();
    for catalog in
        [Catalog::of_dumps(&archive, context.settings.cluster()?), context.catalog(&archive).await?]
    {
        if let Some(id) = catalog.report_ids().await?.pop_last() {
            reports.push(catalog.report(&id).await?);
        }
    }
    let Some(last) = reports.into_iter().max_by_key(|report| report.finished_at) else {
        return Ok(Found::new(Status::Critical, "no drill was ever done"));
    };
    let seconds = age(last.finished_at);
    let line =
        format!("the drill of {}, {} ago, took {} s", last.subject(), told(seconds), last.duration_ms / 1000);
    let mut found =
        Found::new(judge(seconds, limits, 8 * 24 * HOUR), line).number("age_seconds", seconds as f64);
    if !last.ok {
        found.but(Status::Critical, "not all came back that was promised");
    }
    Ok(found)
}

/// Gaps in the WAL, and how long files have been waiting to be archived.
pub(super) async fn wal(context: &Context, limits: &Limits) -> Result<Found> {
    let archive = context.archive().await?;
    let catalog = context.catalog(&archive).await?;
    let past = catalog.past().await?;
    let segments: usize = past.wal.segments.values().map(std::collections::BTreeSet::len).sum();
    if segments == 0 {
        return Ok(Found::new(Status::Critical, "no WAL is stored"));
    }
    let mut found = match context.settings.data_dir() {
        Some(dir) => told_of_waiting(&waiting(&dir, Timestamp::now())?, limits),
        None => Found::new(
            Status::Unknown,
            "how long WAL waits to be archived cannot be told without the data directory (PGDATA)",
        ),
    };
    // What the server has still to archive is not missing, though later segments may be stored.
    let waits =
        context.settings.data_dir().and_then(|dir| ready(&dir.join("pg_wal")).ok()).unwrap_or_default();
    let mut missing = catalog.missing(&past).await?;
    missing.retain(|name| !waits.contains(&WalName::Segment(*name)));
    if let Some(first) = missing.first() {
        let count = many(missing.len(), "segment");
        found.but(Status::Critical, &format!("{count} of stored WAL missing, the first is {first}"));
    }
    for problem in &past.problems {
        found.but(Status::Critical, &problem.story());
    }
    Ok(found.number("missing_segments", missing.len() as f64).number("segments", segments as f64))
}

/// What waits, and a warning when it grows.
fn told_of_waiting(waiting: &Waiting, limits: &Limits) -> Found {
    let seconds = waiting.age().as_secs();
    let line = match waiting.files {
        0 => "no WAL waits to be archived".to_owned(),
        files => format!(
            "{} of WAL, {}, wait to be archived, the first for {}",
            many(files, "file"),
            bytes(waiting.bytes),
            told(seconds)
        ),
    };
    let mut found = Found::new(judge(seconds, limits, 900), line)
        .number("age_seconds", seconds as f64)
        .number("waiting_files", waiting.files as f64)
        .number("waiting_bytes", waiting.bytes as f64);
    if let Some(pace) = waiting.pace {
        found = found
            .number("written_bytes_per_second", pace.written_per_second().round())
            .number("archived_bytes_per_second", pace.archived_per_second().round());
    }
    match (waiting.deficit(), waiting.caught_up_in()) {
        (Some(deficit), _) => found.but(Status::Warning, &deficit),
        (None, Some(time)) if waiting.is_backlog() => {
            found.line = format!("{}; at this pace none in {}", found.line, told(time.as_secs()));
        }
        _ => {}
    }
    found.details = json!({ "waiting": waiting.document() });
    found
}
