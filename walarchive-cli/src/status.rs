//! What can be restored, and what stands in the way.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use walarchive_core::archive::{Archive, Catalog, Recoverable, recoverable, segment_size, without_wal};
use walarchive_core::ops::status::{self as facts, StoreState, StoredBytes};
use walarchive_core::ops::wal_list::{self, WalList};
use walarchive_core::retention::dumps::by_content;
use walarchive_core::storage::CreateMode;
use walarchive_core::{Error, Kind, Result};

use crate::drill::subject;
use crate::output::{bytes, many, table};
use crate::run::Context;

/// What is found of the cluster.
#[derive(Default)]
struct Found {
    latest: Option<Value>,
    stored: StoredBytes,
    wal: WalList,
    recoverable: Vec<Recoverable>,
    problems: Vec<String>,
    /// Backups cannot be read without an identity.
    sealed: bool,
}

/// `status`
pub(crate) async fn status(context: Context) -> Result<u8> {
    let archive = context.archive().await?;
    let mut problems = Vec::new();
    let states = facts::stores(&archive).await;
    let stores = stores(&context, &states, &mut problems).await?;
    let usable = |name: &str| states.iter().any(|state| state.name == name && state.error.is_none());
    let Some(reachable) = archive.only(usable) else {
        let first = states.into_iter().find_map(|state| state.error);
        return Err(first.unwrap_or_else(|| Error::bug("an archive has no stores")));
    };
    let mut found = match context.catalog(&reachable).await {
        Ok(catalog) => look(&catalog).await?,
        Err(error) if error.kind() == Kind::Absent => Found::default(),
        Err(error) => return Err(error),
    };
    let dumps = dumps(&context, &reachable, &mut problems).await?;
    let drill = last_drill(&context, &reachable, &mut problems).await?;
    if found.wal.timelines.is_empty() && dumps.is_none() {
        found.problems.push("no WAL is stored".to_owned());
    }
    found.problems.extend(problems);
    let document = json!({
        "cluster": context.settings.cluster()?.to_string(), "archive": context.settings.archive_url()?, "archives": stores,
        "latest_backup": found.latest, "stored": found.stored, "wal": found.wal, "recoverable": found.recoverable, "problems": found.problems,
        "dumps": dumps, "drill": drill,
    });
    context.output.result(&document, || {
        let mut text = told(&found, &stores);
        if let Some(dumps) = &dumps {
            text = format!("{text}\n{}", told_of_dumps(dumps));
        }
        if let Some(drill) = &drill {
            text = format!("{text}\n{}", told_of_drill(drill));
        }
        text
    })?;
    for problem in &found.problems {
        context.output.warning(problem);
    }
    Ok(0)
}

/// What there is of dumps: nothing, when there are none.
async fn dumps(context: &Context, archive: &Archive, problems: &mut Vec<String>) -> Result<Option<Value>> {
    let catalog = Catalog::of_dumps(archive, context.settings.cluster()?);
    let (dumps, damaged) = match catalog.dumps().await {
        Ok(found) => found,
        Err(error) if error.kind() == Kind::Key => {
            return Ok(Some(json!({ "count": null, "stored_bytes": null, "databases": null })));
        }
        Err(error) => return Err(error),
    };
    problems
        .extend(damaged.iter().map(|(id, error)| format!("dump {id} cannot be restored: {}", error.story())));
    if dumps.is_empty() && damaged.is_empty() {
        return Ok(None);
    }
    let newest = by_content(&dumps).into_iter().filter_map(|((content, database, partial), dumps)| {
        let newest = dumps.last()?;
        let (id, finished_at) = (&newest.facts.id, newest.facts.finished_at);
        Some(json!({
            "content": content, "database": database, "partial": partial, "latest": id, "finished_at": finished_at
        }))
    });
    let newest: Vec<_> = newest.collect();
    let stored: u64 = catalog.all_packs().await?.values().sum();
    Ok(Some(json!({ "count": dumps.len(), "stored_bytes": stored, "databases": newest })))
}

fn told_of_dumps(dumps: &Value) -> String {
    let Some(databases) = dumps["databases"].as_array() else {
        return "dumps          unknown (an identity reads them)".to_owned();
    };
    let oldest =
        databases.iter().filter_map(|newest| newest["finished_at"].as_str()).min().unwrap_or("never");
    let count = many(dumps["count"].as_u64().unwrap_or_default() as usize, "dump");
    let stored = bytes(dumps["stored_bytes"].as_u64().unwrap_or_default());
    let of = databases.iter().map(|newest| (&newest["content"], &newest["database"]));
    let of = of.map(|(content, database)| format!("{content} {database}")).collect::<BTreeSet<_>>().len();
    format!(
        "dumps          {count} of {of} databases and globals, {stored}; each has one from {oldest} or later"
    )
}

/// The last drill of a backup or dump of the cluster; nothing, when there was none.
async fn last_drill(
    context: &Context,
    archive: &Archive,
    problems: &mut Vec<String>,
) -> Result<Option<Value>> {
    let mut catalogs = vec![Catalog::of_dumps(archive, context.settings.cluster()?)];
    match context.catalog(archive).await {
        Ok(catalog) => catalogs.push(catalog),
        Err(error) if error.kind() == Kind::Absent => {}
        Err(error) => return Err(error),
    }
    let mut last = None;
    for catalog in &catalogs {
        let Some(id) = catalog.report_ids().await?.pop_last() else { continue };
        if last.as_ref().is_none_or(|(known, _)| *known < id) {
            last = Some((id, catalog));
        }
    }
    let Some((id, catalog)) = last else { return Ok(None) };
    match catalog.report(&id).await {
        Ok(report) => {
            if !report.ok {
                problems.push(format!(
                    "the last drill, of {}, did not bring back all that was promised",
                    subject(&report)
                ));
            }
            Ok(Some(json!({
                "report": id.as_str(), "ok": report.ok, "of": subject(&report), "finished_at": report.finished_at,
                "host": report.host, "duration_ms": report.duration_ms,
            })))
        }
        Err(error) if error.kind() == Kind::Key => {
            Ok(Some(json!({ "report": id.as_str(), "ok": null, "of": null, "finished_at": null })))
        }
        Err(error) if error.kind() == Kind::Damaged => {
            problems.push(format!("the report of the last drill cannot be read: {}", error.story()));
            Ok(Some(json!({ "report": id.as_str(), "ok": null, "of": null, "finished_at": null })))
        }
        Err(error) if error.kind() == Kind::Absent => Ok(None),
        Err(error) => Err(error),
    }
}

fn told_of_drill(drill: &Value) -> String {
    let text = |key: &str| drill[key].as_str().unwrap_or_default();
    match drill["ok"].as_bool() {
        Some(true) => format!("last drill     {}, of {}: ok", text("finished_at"), text("of")),
        Some(false) => format!("last drill     {}, of {}: FAILED", text("finished_at"), text("of")),
        None => format!("last drill     {}: unknown (an identity reads it)", text("report")),
    }
}

async fn look(catalog: &Catalog) -> Result<Found> {
    let wal = wal_list::list(catalog).await?;
    let mut problems = wal.problems.clone();
    for timeline in wal.timelines.iter().filter(|timeline| timeline.missing_count > 0) {
        let first = timeline.missing.first().map(String::as_str).unwrap_or_default();
        problems.push(format!(
            "timeline {} lacks {}, the first is {first}",
            timeline.timeline,
            many(timeline.missing_count, "segment")
        ));
    }
    let census = match catalog.census().await {
        Ok(census) => census,
        Err(error) if error.kind() == Kind::Key => {
            problems.push("what can be restored is not shown: reading backups needs an identity".to_owned());
            let stored = facts::stored(catalog, wal.stored_bytes, None).await?;
            return Ok(Found { wal, stored, problems, sealed: true, ..Found::default() });
        }
        Err(error) => return Err(error),
    };
    let backups = &census.backups;
    problems.extend(
        census.damaged.iter().map(|(id, error)| format!("backup {id} cannot be restored: {}", error.story())),
    );
    if backups.is_empty() {
        problems.push("there is no backup that can be restored".to_owned());
    }
    let (histories, of_histories) = facts::histories(catalog).await?;
    problems.extend(of_histories.into_iter().filter(|problem| !wal.problems.contains(problem)));
    let stored = catalog.wal().await?;
    let mut stretches = Vec::new();
    if let Some(size) = segment_size(catalog, &stored).await? {
        let by_number = stored.by_number(size);
        stretches = recoverable(backups, &by_number, &histories, size)?;
        let incomplete = without_wal(backups, &by_number, size);
        problems.extend(
            incomplete.iter().map(|backup| {
                format!("backup {} cannot be restored: WAL that it needs is missing", backup.id)
            }),
        );
    }
    let latest = backups.last().map(|backup| backup.document(census.share(&backup.id)));
    let stored = facts::stored(catalog, wal.stored_bytes, Some(&census)).await?;
    Ok(Found { latest, stored, wal, recoverable: stretches, problems, sealed: false })
}

/// The archive's stores, as they are told.
async fn stores(context: &Context, states: &[StoreState], problems: &mut Vec<String>) -> Result<Vec<Value>> {
    let notes = context.settings.notes();
    let mut told = Vec::new();
    for ((name, create), state) in context.settings.stores()?.iter().zip(states) {
        let noted = notes.of(name).await.map(|notes| notes.len() as u64).unwrap_or_default();
        let behind = if state.error.is_some() { noted } else { state.missing };
        if let Some(error) = &state.error {
            let lacks = if noted > 0 {
                format!(" and lacks at least {}", many(noted, "object"))
            } else {
                String::new()
            };
            problems.push(format!("{name} cannot be used{lacks}: {}", error.story()));
        }
        if state.missing > 0 {
            problems.push(format!(
                "{name} is behind by {}, {}; 'walarchive catch-up' copies them",
                many(state.missing, "object"),
                bytes(state.missing_bytes)
            ));
        }
        if !state.differ.is_empty() {
            problems.push(format!(
                "{name} holds {} of another length than another mirror, the first is {}; 'walarchive catch-up' tells more",
                many(state.differ.len(), "object"),
                state.differ[0]
            ));
        }
        let weak = *create == CreateMode::CheckFirst;
        if weak {
            problems.push(format!(
                "{name} is used with store.create = check-first: two writers of one name at the same moment may both be told theirs was stored"
            ));
        }
        told.push(json!({
            "url": name, "reachable": state.error.is_none(), "create": if weak { "check-first" } else { "conditional" },
            "behind": behind, "behind_bytes": state.missing_bytes,
        }));
    }
    Ok(told)
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

fn told(found: &Found, stores: &[Value]) -> String {
    let mut lines = Vec::new();
    for store in stores {
        let reachable = store["reachable"] == true;
        let behind = store["behind"].as_u64().unwrap_or_default();
        let state = match (reachable, behind) {
            (true, 0) => "reachable".to_owned(),
            (true, behind) => format!("reachable, behind by {}", many(behind, "object")),
            (false, 0) => "cannot be used".to_owned(),
            (false, behind) => format!("cannot be used, behind by {}", many(behind, "object")),
        };
        lines.push(format!("archive        {}  {state}", store["url"].as_str().unwrap_or_default()));
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    lines.push(match &found.latest {
        Some(latest) => {
            format!("latest backup  {}, complete at {}", text(&latest["id"]), text(&latest["finished_at"]))
        }
        None if found.sealed => "latest backup  unknown (an identity reads it)".to_owned(),
        None => "latest backup  none".to_owned(),
    });
    lines.push(format!("stored         {}", sums(&found.stored)));
    let row = |stretch: &Recoverable| {
        let from = stretch.from.map(|time| time.strftime("%Y-%m-%d %H:%M:%SZ").to_string());
        vec![
            stretch.timeline.to_string(),
            from.unwrap_or_else(|| "-".to_owned()),
            stretch.from_lsn.to_string(),
            stretch.to_lsn.to_string(),
        ]
    };
    match found.recoverable.iter().map(row).collect::<Vec<_>>() {
        rows if rows.is_empty() && found.sealed => {
            lines.push("restorable     unknown (an identity reads it)".to_owned());
        }
        rows if rows.is_empty() => lines.push("restorable     nothing".to_owned()),
        rows => lines.push(table(&["timeline", "restorable from", "LSN", "to LSN"], &rows)),
    }
    lines.join("\n")
}
