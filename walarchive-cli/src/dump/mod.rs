//! Logical dumps.

mod create;
mod hooks;
mod report;
mod restore;
mod stop;

use serde_json::{Value, json};
use walarchive_core::archive::{BackupId, Catalog, Dump, DumpContent};
use walarchive_core::ops::dump::GLOBALS;
use walarchive_core::ops::pin as pins;
use walarchive_core::ops::prune::{delete as deletion, expire_dumps};
use walarchive_core::retention::dumps::{DumpRules, Reasons, by_content, slots};
use walarchive_core::{Error, Kind, Result};

use crate::args::{DumpArgs, DumpCommand};
use crate::output::{bytes, many, table};
use crate::run::Context;

pub(crate) async fn dump(context: Context, command: DumpCommand) -> Result<u8> {
    match command {
        DumpCommand::Create(args) => create::create(context, args).await,
        DumpCommand::List { database } => list(context, database.as_deref()).await,
        DumpCommand::Show(args) => show(context, args).await,
        DumpCommand::Restore(args) => restore::restore(context, args).await,
        DumpCommand::Export { dump, output } => restore::export(context, dump, output).await,
        DumpCommand::Pin(args) => pin(context, args, true).await,
        DumpCommand::Unpin(args) => pin(context, args, false).await,
        DumpCommand::Delete { dump, yes, even_the_last } => delete(context, dump, yes, even_the_last).await,
    }
}

impl Context {
    /// The cluster's dumps. Reading, unlike writing, asks for them by name: an empty archive has none, a mistyped cluster is
    /// told.
    pub(crate) async fn dumps(&self) -> Result<Catalog> {
        Ok(Catalog::of_dumps(&self.archive().await?, self.settings.cluster()?))
    }
}

/// What is told of a dump; its slots, where they are known.
fn entry(dump: &Dump, slots: Option<&Reasons>) -> Value {
    let facts = &dump.facts;
    let mut document = json!({
        "id": facts.id, "run": facts.run, "database": facts.database, "content": facts.content,
        "format": facts.dump_format.name(), "as_file": facts.as_file, "cluster": facts.cluster,
        "pg_major": facts.pg_major, "server_version": facts.server_version, "dump_version": facts.dump_version,
        "started_at": facts.started_at, "finished_at": facts.finished_at, "date": facts.date,
        "data_bytes": facts.data_bytes, "stored_bytes": facts.stored_bytes,
        "pinned": dump.pinned, "labels": facts.labels, "arguments": facts.arguments, "partial": facts.is_partial(), "warnings": facts.warnings,
    });
    if let Some(slots) = slots {
        document["slots"] = json!(slots.get(&dump.id).cloned().unwrap_or_default());
    }
    document
}

/// The slots of all dumps.
fn all_slots(dumps: &[Dump], rules: &DumpRules) -> Reasons {
    by_content(dumps).values().flat_map(|of_one| slots(of_one, rules)).collect()
}

/// `dump list`
async fn list(context: Context, database: Option<&str>) -> Result<u8> {
    let catalog = context.dumps().await?;
    let rules = context.settings.dump_retention()?;
    let (mut dumps, damaged) = catalog.dumps().await?;
    let slots = all_slots(&dumps, &rules);
    dumps.retain(|dump| database.is_none_or(|database| dump.facts.database == database));
    let damage: Vec<_> =
        damaged.iter().map(|(id, error)| json!({ "id": id.as_str(), "detail": error.story() })).collect();
    let entries: Vec<_> = dumps.iter().map(|dump| entry(dump, Some(&slots))).collect();
    let document = json!({ "dumps": entries, "damaged": damage });
    context.output.result(&document, || shown(&dumps, &slots))?;
    for (id, error) in &damaged {
        context.output.warning(&format!("dump {id} cannot be read: {}", error.story()));
    }
    Ok(if damaged.is_empty() { 0 } else { Kind::Damaged.exit_code() })
}

fn shown(dumps: &[Dump], slots: &Reasons) -> String {
    if dumps.is_empty() {
        return "no dumps are stored".to_owned();
    }
    let row = |dump: &Dump| {
        let facts = &dump.facts;
        let mut fills: Vec<_> = slots.get(&dump.id).into_iter().flatten().copied().collect();
        fills.extend(facts.is_partial().then_some("partial"));
        fills.extend(dump.pinned.then_some("pinned"));
        vec![
            facts.id.clone(),
            called(facts.content, &facts.database),
            facts.dump_format.name().to_owned(),
            facts.finished_at.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
            bytes(facts.data_bytes),
            bytes(facts.stored_bytes),
            fills.join(" "),
        ]
    };
    let rows: Vec<_> = dumps.iter().map(row).collect();
    table(&["dump", "database", "format", "finished", "size", "stored", ""], &rows)
}

/// How a dump's content is called: a database may be named `globals`, or have a line break in its name.
fn called(content: DumpContent, database: &str) -> String {
    let is_plain = !database.is_empty() && !database.chars().any(|c| c.is_control() || c.is_whitespace());
    match content {
        DumpContent::Database if is_plain && database != GLOBALS => database.to_owned(),
        DumpContent::Database => format!("{database:?}"),
        DumpContent::Globals => GLOBALS.to_owned(),
    }
}

/// The dump that is meant: by its id; by any id of the same run, and a database; or the latest of a database.
pub(crate) async fn find(catalog: &Catalog, args: &DumpArgs, globals: bool) -> Result<Dump> {
    let (mut dumps, damaged) = catalog.dumps().await?;
    let is_meant = |dump: &Dump| match (&args.database, globals) {
        (_, true) => dump.facts.content == DumpContent::Globals,
        (Some(name), _) if name == GLOBALS && dump.facts.content == DumpContent::Globals => true,
        (Some(name), _) => dump.facts.content == DumpContent::Database && dump.facts.database == *name,
        (None, _) => true,
    };
    if args.id == "latest" {
        dumps.retain(|dump| is_meant(dump));
        if args.database.is_none() && !globals {
            dumps.retain(|dump| dump.facts.content == DumpContent::Database);
            refuse_several(&dumps)?;
        }
        let found = dumps.pop();
        refuse_doubtful(damaged, found.as_ref())?;
        refuse_partial(found.as_ref(), &dumps)?;
        return found.ok_or_else(|| none_such(catalog, args.database.as_deref()));
    }
    let id: BackupId = args.id.parse().map_err(|_| {
        Error::usage(format!("{:?} is not a dump's id", args.id))
            .hint("'walarchive dump list' shows them, for example 20260101T020000Z-0f3a9c2e; or say latest")
    })?;
    if let Some((_, error)) = damaged.into_iter().find(|(other, _)| *other == id) {
        return Err(error.during(format!("reading dump {id}")));
    }
    let named = dumps.iter().find(|dump| dump.id == id || dump.facts.run == id.as_str()).cloned();
    let named = named.ok_or_else(|| catalog.place.no_such(&id))?;
    if named.id == id && is_meant(&named) {
        return Ok(named);
    }
    dumps.retain(|dump| dump.facts.run == named.facts.run && is_meant(dump));
    if args.database.is_none() && !globals {
        dumps.retain(|dump| dump.facts.content == DumpContent::Database);
        refuse_several(&dumps)?;
    }
    dumps.pop().ok_or_else(|| none_such(catalog, args.database.as_deref()))
}

/// An older dump must not pass for the latest because that cannot be read.
fn refuse_doubtful(damaged: Vec<(BackupId, Error)>, found: Option<&Dump>) -> Result<()> {
    let doubtful = damaged.into_iter().find(|(id, _)| found.is_none_or(|dump| id.may_follow(&dump.id)));
    let Some((id, error)) = doubtful else { return Ok(()) };
    let hint = match found {
        Some(dump) => format!("'{}' in place of latest is the newest one that can be read", dump.id),
        None => "'walarchive dump list' shows what can be read".to_owned(),
    };
    Err(error.during(format!("dump {id}, which may be the latest, cannot be read")).hint(hint))
}

/// A dump that leaves something out must not pass for the latest where there are whole ones, nor an older one unasked.
fn refuse_partial(found: Option<&Dump>, older: &[Dump]) -> Result<()> {
    let Some(partial) = found.filter(|dump| dump.facts.is_partial()) else { return Ok(()) };
    let Some(whole) = older.iter().rev().find(|dump| !dump.facts.is_partial()) else { return Ok(()) };
    let (with, of) = (partial.facts.arguments.join(" "), &partial.facts.database);
    Err(Error::usage(format!(
        "the latest dump of {of:?}, {}, leaves something out (made with {with})",
        partial.id
    ))
    .hint(format!("say which one is meant: that, or {}, the latest whole one", whole.id)))
}

fn refuse_several(dumps: &[Dump]) -> Result<()> {
    let names: std::collections::BTreeSet<_> =
        dumps.iter().map(|dump| dump.facts.database.as_str()).collect();
    if names.len() < 2 {
        return Ok(());
    }
    let names = names.into_iter().collect::<Vec<_>>().join(", ");
    Err(Error::usage(format!("there are dumps of several databases: {names}"))
        .hint("--database says which one"))
}

fn none_such(catalog: &Catalog, database: Option<&str>) -> Error {
    let cluster = &catalog.place.cluster;
    let message = match database {
        Some(database) => format!("there is no dump of {database:?} of cluster {cluster}"),
        None => format!("there is no dump of cluster {cluster}"),
    };
    Error::new(Kind::Absent, message).hint("'walarchive dump list' shows what there is")
}

/// `dump show`. Reads the whole dump: what is shown is proven.
async fn show(context: Context, args: DumpArgs) -> Result<u8> {
    let catalog = context.dumps().await?;
    let dump = find(&catalog, &args, false).await?;
    let manifest = catalog.prove_dump(&dump.id).await?;
    let (dumps, _) = catalog.dumps().await?;
    let slots = all_slots(&dumps, &context.settings.dump_retention()?);
    let mut document = entry(&dump, Some(&slots));
    let objects: Vec<_> = manifest.packs.iter().map(|pack| catalog.place.pack(&pack.name)).collect();
    document["objects"] = json!(objects);
    document["definition"] = dump.facts.definition.clone().unwrap_or_default();
    context.output.result(&document, || told(&dump, &slots, &objects))?;
    Ok(0)
}

fn told(dump: &Dump, slots: &Reasons, objects: &[String]) -> String {
    let facts = &dump.facts;
    let fills: Vec<_> = slots.get(&dump.id).into_iter().flatten().copied().collect();
    let mut lines = vec![
        format!(
            "dump      {} ({}{})",
            facts.id,
            facts.dump_format,
            if dump.pinned { ", pinned" } else { "" }
        ),
        format!(
            "of        {} (cluster {}, PostgreSQL {})",
            called(facts.content, &facts.database),
            facts.cluster,
            facts.server_version
        ),
        format!(
            "made      {} to {} by pg_dump {}, in run {}",
            facts.started_at, facts.finished_at, facts.dump_version, facts.run
        ),
        format!(
            "size      {}, of which {} were stored anew",
            bytes(facts.data_bytes),
            bytes(facts.stored_bytes)
        ),
        format!("slots     {}", fills.join(" ")),
    ];
    if !facts.arguments.is_empty() {
        let partial = if facts.is_partial() { " (leaves something out)" } else { "" };
        lines.push(format!("with      {}{partial}", facts.arguments.join(" ")));
    }
    if facts.as_file {
        lines.extend(objects.iter().map(|object| format!("object    {object}")));
    }
    lines.extend(facts.warnings.iter().map(|warning| format!("warning   {warning}")));
    lines.push("every byte of it was read and holds".to_owned());
    lines.join("\n")
}

/// `dump pin` and `dump unpin`
async fn pin(context: Context, args: DumpArgs, pinned: bool) -> Result<u8> {
    let catalog = context.dumps().await?;
    let id = find(&catalog, &args, false).await?.id;
    match pinned {
        true => pins::pin(&catalog, &id).await?,
        false => pins::unpin(&catalog, &id).await?,
    }
    let is = if pinned { "pinned" } else { "not pinned" };
    context
        .output
        .result(&json!({ "id": id.as_str(), "pinned": pinned }), || format!("dump {id} is {is}"))?;
    Ok(0)
}

/// `dump delete`. A damaged dump is deleted by its id.
async fn delete(context: Context, args: DumpArgs, yes: bool, even_the_last: bool) -> Result<u8> {
    let archive = context.archive().await?.strict();
    let catalog = Catalog::of_dumps(&archive, context.settings.cluster()?);
    let id = match find(&catalog, &args, false).await {
        Ok(dump) => dump.id,
        Err(error) if error.kind() == Kind::Damaged => args.id.parse()?,
        Err(error) => return Err(error),
    };
    if !even_the_last {
        expire_dumps::refuse_the_last(&catalog, &id).await?;
    }
    let plan = deletion::plan(&catalog, &[id.clone()].into()).await?;
    let stored: u64 = plan.packs.iter().map(|(_, size)| size).sum();
    let running = if yes { deletion::run(&catalog, &plan).await?.running } else { None };
    let document = json!({
        "id": id.as_str(), "deleted": yes, "packs": plan.packs.len(), "stored_bytes": stored, "shared_packs": plan.shared,
        "packs_left": if running.is_some() { plan.packs.len() } else { 0 },
    });
    context.output.result(&document, || {
        let packs = format!("{}, {}", many(plan.packs.len(), "pack"), bytes(stored));
        match yes {
            true => format!("deleted dump {id} ({packs})"),
            false => format!("would delete dump {id} ({packs}); --yes does it"),
        }
    })?;
    if let Some(lease) = running {
        let until = lease.until;
        context.output.warning(&format!(
            "its packs stay for now: a run of dumps may be going on until {until} and need them; 'walarchive prune --yes' removes them then"
        ));
    }
    Ok(0)
}
