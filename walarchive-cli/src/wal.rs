//! WAL files.

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use walarchive_core::archive::{Archive, SystemId};
use walarchive_core::ops::catch_up;
use walarchive_core::ops::push::Push;
use walarchive_core::ops::wal_list::{self, WalList};
use walarchive_core::patience::Patience;
use walarchive_core::postgres::datadir;
use walarchive_core::source::{FileSource, ReadySource, WalSource};
use walarchive_core::wal::WalName;
use walarchive_core::{Kind, Result};

use crate::args::{FetchArgs, PushArgs};
use crate::exit::Caller;
use crate::output::{bytes, table};
use crate::run::Context;

/// So many missing segments of a timeline are printed; JSON has more.
const GAPS_SHOWN: usize = 50;
const IN_RECOVERY: Duration = Duration::from_secs(300);
const OTHERWISE: Duration = Duration::from_secs(60);
/// So long a push goes on starting copies of what mirrors lack.
const CATCH_UP: Duration = Duration::from_secs(3);

/// `wal push`
pub(crate) async fn push(context: Context, args: PushArgs) -> Result<u8> {
    let mut source: Box<dyn WalSource> = match (&args.path, &args.ready) {
        (Some(path), _) => Box::new(FileSource::new(path)?),
        (None, Some(data_dir)) => Box::new(ReadySource::new(data_dir)),
        (None, None) => return Ok(0),
    };
    let budget = context.settings.retry_budget(OTHERWISE)?;
    // One file has the whole budget; of many, each request has.
    let patience = match args.ready {
        Some(_) => context.telling(Patience::each(budget)),
        None => context.patience(budget),
    };
    let archive = patience.run(|| context.settings.archive(&patience)).await?;
    let push = Push {
        archive: archive.clone(),
        cluster: context.settings.cluster()?,
        codec: context.settings.wal_codec()?,
        system: expected_system(&context)?,
    };
    let mut pushed = Vec::new();
    while let Some(file) = source.next().await? {
        let done = patience.run(|| push.run(&file)).await?;
        source.stored(&file).await?;
        let was = if done.was_there() { "was there already" } else { "stored" };
        context.output.detail(&format!("{} {was} as {}, {} bytes", file.name, done.key, done.stored.stored));
        pushed.push(json!({
            "name": file.name.to_string(), "object": done.key, "new": !done.was_there(),
            "data_bytes": done.stored.plain, "stored_bytes": done.stored.stored,
        }));
    }
    if archive.is_mirrored() && !pushed.is_empty() {
        catch_up(&context, &archive).await;
    }
    let count = pushed.len();
    context.output.result(&json!({ "pushed": pushed }), || match args.ready {
        Some(_) => format!("{count} WAL files that were ready are in the archive; the one that was being written is not among them"),
        None => String::new(),
    })?;
    Ok(0)
}

/// Brings mirrors that were away some of what they lack. The push is done, whatever comes of it.
async fn catch_up(context: &Context, archive: &Archive) {
    match catch_up::some(archive, &context.settings.notes(), CATCH_UP).await {
        Ok(0) => {}
        Ok(count) => {
            context.output.detail(&format!("{count} objects were copied to mirrors that lacked them"))
        }
        Err(error) => {
            context
                .output
                .warning(&format!("a mirror that is behind cannot be caught up: {}", error.story()));
        }
    }
}

fn expected_system(context: &Context) -> Result<Option<SystemId>> {
    match (context.settings.system_id()?, context.settings.data_dir()) {
        (Some(system), _) => Ok(Some(system)),
        (None, Some(dir)) => Ok(datadir::system_id_of(&dir)?.map(SystemId)),
        (None, None) => Ok(None),
    }
}

/// `wal fetch`
pub(crate) async fn fetch(context: Context, caller: Caller, args: FetchArgs) -> Result<u8> {
    let in_recovery =
        matches!(caller, Caller::Recovery { standby: true }) || Path::new("recovery.signal").exists();
    let budget = context.settings.retry_budget(if in_recovery { IN_RECOVERY } else { OTHERWISE })?;
    let patience = context.patience(budget);
    let attempt = || async {
        let archive = context.settings.archive(&patience).await?;
        // restore_command runs in the data directory.
        let here = datadir::system_id_of(Path::new("."))?.map(SystemId);
        let catalog = match (context.settings.system_id()?, here) {
            (None, Some(system)) => context.catalog_of(&archive, Some(system)).await?,
            _ => context.catalog(&archive).await?,
        };
        walarchive_core::ops::fetch::fetch(&catalog, &args.name, &args.dest).await
    };
    let len = patience.run(attempt).await?;
    let document = json!({ "name": args.name.to_string(), "dest": args.dest, "data_bytes": len });
    context.output.result(&document, String::new)?;
    Ok(0)
}

/// `wal list`
pub(crate) async fn list(context: Context) -> Result<u8> {
    let archive = context.archive().await?;
    let list = match context.catalog(&archive).await {
        Ok(catalog) => wal_list::list(&catalog).await?,
        Err(error) if error.kind() == Kind::Absent => WalList::default(),
        Err(error) => return Err(error),
    };
    context.output.result(&list, || shown(&list))?;
    for problem in &list.problems {
        context.output.warning(problem);
    }
    Ok(0)
}

fn shown(list: &WalList) -> String {
    if list.timelines.is_empty() {
        return "no WAL is stored".to_owned();
    }
    let row = |timeline: &wal_list::TimelineSummary| {
        let missing = match timeline.missing.as_slice() {
            [] => "none".to_owned(),
            _ => timeline.missing_count.to_string(),
        };
        let branch = match (timeline.parent, timeline.branch_lsn) {
            (Some(parent), Some(lsn)) => format!("{parent} at {lsn}"),
            _ => "-".to_owned(),
        };
        let name = |name: &Option<String>| name.clone().unwrap_or_else(|| "-".to_owned());
        vec![
            timeline.timeline.to_string(),
            name(&timeline.first),
            name(&timeline.last),
            timeline.segments.to_string(),
            missing,
            branch,
        ]
    };
    let rows: Vec<_> = list.timelines.iter().map(row).collect();
    let head = ["timeline", "first", "last", "segments", "missing", "branched off"];
    let mut lines = vec![table(&head, &rows)];
    for timeline in &list.timelines {
        lines.extend(timeline.missing.iter().take(GAPS_SHOWN).map(|name| format!("missing: {name}")));
        if timeline.missing_count > GAPS_SHOWN as u64 {
            lines.push(format!(
                "missing: … {} in all on timeline {}",
                timeline.missing_count, timeline.timeline
            ));
        }
    }
    lines.push(format!("{} stored", bytes(list.stored_bytes)));
    lines.join("\n")
}

/// `wal show`
pub(crate) async fn show(context: Context, name: WalName) -> Result<u8> {
    let archive = context.archive().await?;
    let catalog = context.catalog(&archive).await?;
    let facts = wal_list::show(&catalog, &name).await?;
    context.output.result(&facts, || {
        let mut lines = vec![format!("{} ({})", facts.name, facts.kind), format!("object    {}", facts.key)];
        if let (Some(start), Some(end)) = (facts.start_lsn, facts.end_lsn) {
            lines.push(format!("WAL       {start} to {end}, timeline {}", facts.timeline));
        }
        lines.push(format!(
            "size      {}, stored {} ({})",
            bytes(facts.data_bytes.unwrap_or_default()),
            bytes(facts.stored_bytes),
            facts.codec
        ));
        lines.join("\n")
    })?;
    Ok(0)
}
