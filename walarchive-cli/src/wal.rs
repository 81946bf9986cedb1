//! WAL files.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use walarchive_core::archive::{Archive, SystemId};
use walarchive_core::config::WalWork;
use walarchive_core::ops::catch_up;
use walarchive_core::ops::fetch::Shelf;
use walarchive_core::ops::push::{Ahead, Push, Pushed, Receipt, Receipts};
use walarchive_core::ops::wal_list::{self, WalList};
use walarchive_core::patience::Patience;
use walarchive_core::postgres::datadir;
use walarchive_core::source::{WalFile, ready};
use walarchive_core::wal::WalName;
use walarchive_core::{Error, Kind, Result};

use crate::args::PushArgs;
use crate::output::{bytes, table};
use crate::run::{Context, block_on};

/// So many missing segments of a timeline are printed; JSON has more.
const GAPS_SHOWN: usize = 50;
pub(crate) const OTHERWISE: Duration = Duration::from_secs(60);
/// So long a push goes on starting copies of what mirrors lack.
const CATCH_UP: Duration = Duration::from_secs(3);

/// `wal push`
pub(crate) fn push(context: Context, args: PushArgs) -> Result<u8> {
    let work = context.settings.wal_work()?;
    let receipts = Receipts::new(&context.settings.state_dir(), &context.settings.fingerprint());
    if let Some(path) = &args.path {
        let file = WalFile::at(path)?;
        if let Some(pg_wal) = path.parent() {
            // A recovery that is over.
            let _ = Shelf::remove_left(pg_wal);
        }
        // Before anything is set up: this is to take a few milliseconds.
        let known = is_by_server(&context, &args).then(|| receipts.acknowledge(&file)).flatten();
        if let Some(receipt) = known {
            return told(&context, &args, &[of_receipt(&context, &file, &receipt)]);
        }
    }
    step_back(&context, &work)?;
    block_on(push_now(context, args, work, receipts))
}

/// Whether the server calls, as far as can be seen: who pushes a file by hand, or elsewhere, means this one, and wants it pushed.
fn is_by_server(context: &Context, args: &PushArgs) -> bool {
    let in_pg_wal = args.path.as_ref().is_some_and(|path| path.parent() == Some(Path::new("pg_wal")));
    in_pg_wal && !context.settings.names_archive_by_flag()
}

async fn push_now(context: Context, args: PushArgs, work: WalWork, receipts: Receipts) -> Result<u8> {
    let budget = context.settings.retry_budget(OTHERWISE)?;
    // One file has the whole budget; of many, each request has.
    let patience = match args.ready {
        Some(_) => context.telling(Patience::each(budget)),
        None => context.patience(budget),
    };
    let archive = patience.run(|| context.settings.archive(&patience)).await?;
    let push = Push {
        archive: archive.sealing_at_once(work.jobs),
        cluster: context.settings.cluster()?,
        codec: context.settings.wal_codec()?,
        system: expected_system(&context)?,
    };
    let files = if is_by_server(&context, &args) { work.push_ahead } else { 0 };
    let ahead = Ahead { receipts, files, memory: work.memory, batch_done: work.batch_done };
    let pushed = match (&args.path, &args.ready) {
        (Some(path), _) => vec![push_one(&context, &push, &WalFile::at(path)?, &ahead, &patience).await?],
        (None, Some(data_dir)) => push_ready(&context, &push, data_dir, work.memory, &patience).await?,
        (None, None) => Vec::new(),
    };
    if archive.is_mirrored() && !pushed.is_empty() {
        catch_up(&context, &archive).await;
    }
    told(&context, &args, &pushed)
}

fn told(context: &Context, args: &PushArgs, pushed: &[Value]) -> Result<u8> {
    let count = pushed.len();
    context.output.result(&json!({ "pushed": pushed }), || match args.ready {
        Some(_) => format!("{count} WAL files that were ready are in the archive; the one that was being written is not among them"),
        None => String::new(),
    })?;
    Ok(0)
}

async fn push_one(
    context: &Context,
    push: &Push,
    file: &WalFile,
    ahead: &Ahead,
    patience: &Patience,
) -> Result<Value> {
    let (pushed, also) = push.run_ahead(file, ahead, patience).await?;
    let told = of_pushed(context, file, &pushed);
    for (file, pushed) in &also.pushed {
        of_pushed(context, file, pushed);
    }
    if let Some(problem) = &also.problem {
        let told = format!("not all that is ready was stored ahead: {}", problem.story());
        match also.pushed.is_empty() && problem.kind() == Kind::Local {
            // Nobody would ever know that it does nothing.
            true => context.output.warning(&told),
            false => context.output.detail(&told),
        }
    }
    Ok(told)
}

async fn push_ready(
    context: &Context,
    push: &Push,
    data_dir: &Path,
    memory: u64,
    patience: &Patience,
) -> Result<Vec<Value>> {
    let pg_wal = data_dir.join("pg_wal");
    let file = |name: WalName| WalFile { path: pg_wal.join(name.to_string()), name };
    let files = ready(&pg_wal)?.into_iter().map(file).collect();
    let mut pushed = Vec::new();
    let each = |file, done| pushed.push(of_pushed(context, &file, &done));
    push.run_all(files, memory, patience, each).await?;
    Ok(pushed)
}

fn of_pushed(context: &Context, file: &WalFile, done: &Pushed) -> Value {
    let was = if done.was_there() { "was there already" } else { "stored" };
    context.output.detail(&format!("{} {was} as {}, {} bytes", file.name, done.key, done.stored.stored));
    json!({
        "name": file.name.to_string(), "object": done.key, "new": !done.was_there(),
        "data_bytes": done.stored.plain, "stored_bytes": done.stored.stored,
    })
}

fn of_receipt(context: &Context, file: &WalFile, receipt: &Receipt) -> Value {
    context.output.detail(&format!("{} was stored ahead as {}", file.name, receipt.key));
    json!({
        "name": file.name.to_string(), "object": receipt.key, "new": false,
        "data_bytes": receipt.plain(), "stored_bytes": receipt.stored,
    })
}

/// Lets the database go first, where both want the same processor or disk.
fn step_back(context: &Context, work: &WalWork) -> Result<()> {
    if work.nice > 0 {
        rustix::process::nice(work.nice).map_err(|error| Error::io("cannot become nicer", error.into()))?;
    }
    let Some((class, level)) = &work.ionice else { return Ok(()) };
    let level = level.map(|level| format!("-n{level}"));
    let own = std::process::id().to_string();
    let ran = Command::new("ionice").args(["-c", class]).args(level).args(["-p", &own]).output();
    if !ran.is_ok_and(|ran| ran.status.success()) {
        context.output.warning("wal.ionice is set, and the program 'ionice' could not be run, or failed");
    }
    Ok(())
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
