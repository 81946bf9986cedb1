//! What can be restored, and what stands in the way.

use serde_json::{Value, json};
use walarchive_core::archive::Catalog;
use walarchive_core::ops::status::{self as facts, Recoverable, StoreState, StoredBytes};
use walarchive_core::ops::wal_list::{self, WalList};
use walarchive_core::storage::CreateMode;
use walarchive_core::{Error, Kind, Result};

use crate::backup::entry;
use crate::output::{bytes, table};
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
    if found.wal.timelines.is_empty() {
        found.problems.push("no WAL is stored".to_owned());
    }
    found.problems.extend(problems);
    let document = json!({
        "cluster": context.settings.cluster()?.to_string(), "archive": context.settings.archive_url()?, "archives": stores,
        "latest_backup": found.latest, "stored": found.stored, "wal": found.wal, "recoverable": found.recoverable, "problems": found.problems,
    });
    context.output.result(&document, || told(&found, &stores))?;
    for problem in &found.problems {
        context.output.warning(problem);
    }
    Ok(0)
}

async fn look(catalog: &Catalog) -> Result<Found> {
    let wal = wal_list::list(catalog).await?;
    let mut problems = wal.problems.clone();
    for timeline in wal.timelines.iter().filter(|timeline| timeline.missing_count > 0) {
        let first = timeline.missing.first().map(String::as_str).unwrap_or_default();
        problems.push(format!(
            "{} segments of timeline {} are missing, the first is {first}",
            timeline.missing_count, timeline.timeline
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
    let mut recoverable = Vec::new();
    if let Some(size) = wal_list::segment_size(catalog, &stored).await? {
        let by_number = stored.by_number(size);
        recoverable = facts::recoverable(backups, &by_number, &histories, size)?;
        let incomplete = facts::without_wal(backups, &by_number, size);
        problems.extend(
            incomplete.iter().map(|backup| {
                format!("backup {} cannot be restored: WAL that it needs is missing", backup.id)
            }),
        );
    }
    let latest = backups.last().map(|backup| entry(backup, census.share(&backup.id)));
    let stored = facts::stored(catalog, wal.stored_bytes, Some(&census)).await?;
    Ok(Found { latest, stored, wal, recoverable, problems, sealed: false })
}

/// The archive's stores, as they are told.
async fn stores(context: &Context, states: &[StoreState], problems: &mut Vec<String>) -> Result<Vec<Value>> {
    let notes = context.settings.notes();
    let mut told = Vec::new();
    for ((name, create), state) in context.settings.stores()?.iter().zip(states) {
        let noted = notes.of(name).await.map(|notes| notes.len() as u64).unwrap_or_default();
        let behind = if state.error.is_some() { noted } else { state.missing };
        if let Some(error) = &state.error {
            let lacks =
                if noted > 0 { format!(" and lacks at least {noted} objects") } else { String::new() };
            problems.push(format!("{name} cannot be used{lacks}: {}", error.story()));
        }
        if state.missing > 0 {
            problems.push(format!(
                "{name} is behind by {} objects, {}; 'walarchive catch-up' copies them",
                state.missing,
                bytes(state.missing_bytes)
            ));
        }
        if !state.differ.is_empty() {
            problems.push(format!(
                "{} objects have another length in {name} than in another mirror, the first is {}; 'walarchive catch-up' tells more",
                state.differ.len(),
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
            (true, behind) => format!("reachable, behind by {behind} objects"),
            (false, 0) => "cannot be used".to_owned(),
            (false, behind) => format!("cannot be used, behind by {behind} objects"),
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
