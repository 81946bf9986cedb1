//! `walarchive status`: what can be restored, and what stands in the way, for people.

use std::collections::BTreeSet;

use walarchive_core::Result;
use walarchive_core::archive::Recoverable;
use walarchive_core::cluster::{DumpsStatus, LastDrill, Status, StatusRequest, StoreStatus};
use walarchive_core::ops::status::StoredBytes;
use walarchive_core::source::Waiting;

use crate::output::{bytes, many, table};
use crate::run::Context;

/// `status`
pub(crate) async fn status(context: Context) -> Result<u8> {
    let request = StatusRequest {
        archive: context.archive().await?,
        cluster: context.settings.cluster()?,
        system: context.system()?,
        stores: context.settings.stores()?,
        notes: Some(context.settings.notes()),
        data_dir: context.settings.data_dir(),
    };
    let status = request.run().await?;
    context.output.result(&status.document(), || told(&status))?;
    for problem in &status.problems {
        context.output.warning(problem);
    }
    Ok(0)
}

fn told(status: &Status) -> String {
    let mut lines: Vec<String> = status.stores.iter().map(told_of_store).collect();
    lines.push(match &status.latest {
        Some((latest, _)) => {
            format!("latest backup  {}, complete at {}", latest.id, latest.facts.finished_at)
        }
        None if status.sealed => "latest backup  unknown (an identity reads it)".to_owned(),
        None => "latest backup  none".to_owned(),
    });
    lines.push(format!("stored         {}", sums(&status.stored)));
    lines.push(match status.recoverable.iter().map(row).collect::<Vec<_>>() {
        rows if rows.is_empty() && status.sealed => {
            "restorable     unknown (an identity reads it)".to_owned()
        }
        rows if rows.is_empty() => "restorable     nothing".to_owned(),
        rows => table(&["timeline", "restorable from", "LSN", "to LSN"], &rows),
    });
    lines.extend(status.waiting.as_ref().map(told_of_waiting));
    lines.extend(status.dumps.as_ref().map(told_of_dumps));
    lines.extend(status.drill.as_ref().map(told_of_drill));
    lines.join("\n")
}

fn told_of_store(store: &StoreStatus) -> String {
    let state = match (store.reachable, store.behind) {
        (true, 0) => "reachable".to_owned(),
        (true, behind) => format!("reachable, behind by {}", many(behind, "object")),
        (false, 0) => "cannot be used".to_owned(),
        (false, behind) => format!("cannot be used, behind by {}", many(behind, "object")),
    };
    format!("archive        {}  {state}", store.name)
}

fn sums(stored: &StoredBytes) -> String {
    let unneeded = match stored.unneeded_bytes {
        Some(0) | None => String::new(),
        Some(unneeded) => format!(" ({} of them needed by no backup)", bytes(unneeded)),
    };
    format!(
        "{}: WAL {}, packs {}{unneeded}, manifests {}",
        bytes(stored.bytes),
        bytes(stored.wal_bytes),
        bytes(stored.packs_bytes),
        bytes(stored.manifests_bytes)
    )
}

fn row(stretch: &Recoverable) -> Vec<String> {
    let from = stretch.from.map(|time| time.strftime("%Y-%m-%d %H:%M:%SZ").to_string());
    vec![
        stretch.timeline.to_string(),
        from.unwrap_or_else(|| "-".to_owned()),
        stretch.from_lsn.to_string(),
        stretch.to_lsn.to_string(),
    ]
}

fn told_of_waiting(waiting: &Waiting) -> String {
    let what = match (waiting.oldest, waiting.since) {
        (Some(oldest), Some(since)) => {
            format!(
                "{}, {}, the oldest {oldest} since {since}",
                many(waiting.files, "file"),
                bytes(waiting.bytes)
            )
        }
        _ => "nothing".to_owned(),
    };
    let pace = waiting.pace.map(|pace| format!("; {}", pace.story()));
    format!("waits          {what}{}", pace.unwrap_or_default())
}

fn told_of_dumps(dumps: &DumpsStatus) -> String {
    let DumpsStatus::Known { count, stored_bytes, newest } = dumps else {
        return "dumps          unknown (an identity reads them)".to_owned();
    };
    let oldest = newest.iter().map(|facts| facts.finished_at).min();
    let oldest = oldest.map_or_else(|| "never".to_owned(), |time| time.to_string());
    let of: BTreeSet<_> = newest.iter().map(|facts| (facts.content, &facts.database)).collect();
    format!(
        "dumps          {} of {} databases and globals, {}; each has one from {oldest} or later",
        many(*count as u64, "dump"),
        of.len(),
        bytes(*stored_bytes)
    )
}

fn told_of_drill(drill: &LastDrill) -> String {
    match &drill.report {
        Some(report) => format!(
            "last drill     {}, of {}: {}",
            report.finished_at,
            report.subject(),
            if report.ok { "ok" } else { "FAILED" }
        ),
        None => format!("last drill     {}: unknown (an identity reads it)", drill.id),
    }
}
