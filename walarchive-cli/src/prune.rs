//! `prune`: what retention does not keep, and what nobody needs.

use jiff::Timestamp;
use serde_json::{Value, json};
use walarchive_core::archive::{Archive, Catalog};
use walarchive_core::ops::prune::expire::{self, Expired, Expiry};
use walarchive_core::ops::prune::expire_dumps::{self, DumpExpiry};
use walarchive_core::ops::prune::expire_reports;
use walarchive_core::ops::prune::{self as pruning, Kept, Limits, PrunePlan, Removal, delete};
use walarchive_core::{Error, Kind, Result};

use crate::args::PruneArgs;
use crate::output::{bytes, many};
use crate::run::Context;

/// What `prune` did, or would do, of backups or of dumps.
struct Part {
    document: Value,
    text: String,
    problems: Vec<Error>,
}

/// `prune`. What could not be found out stays, and decides the exit code.
pub(crate) async fn prune(context: Context, args: PruneArgs) -> Result<u8> {
    let limits = Limits::new(Timestamp::now(), context.settings.prune_grace()?);
    let archive = context.archive().await?.strict();
    let backups = match context.catalog(&archive).await {
        Ok(catalog) => Some(of_backups(&context, &catalog, limits, args.yes).await?),
        Err(error) if error.kind() == Kind::Absent => None,
        Err(error) => return Err(error),
    };
    let dumps = of_dumps(&context, &archive, limits, args.yes).await?;
    let mut document = match &backups {
        Some(part) => part.document.clone(),
        None => document(&PrunePlan::default()),
    };
    document["pruned"] = Value::from(args.yes);
    document["dumps"] = dumps.as_ref().map(|part| part.document.clone()).unwrap_or_default();
    let parts: Vec<Part> = [backups, dumps].into_iter().flatten().collect();
    context.output.result(&document, || match parts.as_slice() {
        [] => "nothing is stored yet: nothing goes".to_owned(),
        parts => parts.iter().map(|part| part.text.as_str()).collect::<Vec<_>>().join("\n"),
    })?;
    let problems: Vec<&Error> = parts.iter().flat_map(|part| &part.problems).collect();
    for problem in &problems {
        context.output.warning(&problem.story());
    }
    Ok(problems.first().map_or(0, |problem| problem.kind().exit_code()))
}

async fn of_backups(context: &Context, catalog: &Catalog, limits: Limits, yes: bool) -> Result<Part> {
    let (expiry, problem) = expiry(context, catalog, limits).await?;
    let expired = match &expiry {
        Some(expiry) if yes => Some(expire::run(catalog, expiry, limits).await?),
        _ => None,
    };
    // What expired backups leave counts as theirs, not as leftovers: it is looked for when they are gone.
    let mut part = leftovers(context, catalog, limits, yes).await?;
    part.document["retention"] = expiry.as_ref().map(retention).unwrap_or_default();
    if let Some(expiry) = &expiry {
        part.text = format!("{}\n{}", told_of_retention(expiry, yes), part.text);
    }
    part.problems.extend(problem);
    reports(catalog, yes, &mut part).await?;
    warn(context, expiry.as_ref(), expired.as_ref());
    Ok(part)
}

/// The same of dumps, if there are any.
async fn of_dumps(context: &Context, archive: &Archive, limits: Limits, yes: bool) -> Result<Option<Part>> {
    let cluster = context.settings.cluster()?;
    let rooms = archive.storage().list_dirs(&cluster.to_string()).await?;
    let catalog = Catalog::of_dumps(archive, cluster);
    if !rooms.contains(&catalog.place.room.to_string()) {
        return Ok(None);
    }
    let rules = context.settings.dump_retention()?;
    let (expiry, problem) = match expire_dumps::plan(&catalog, &rules, |_| !rules.keeps_all()).await {
        Ok(expiry) => (expiry, None),
        Err(error) if matches!(error.kind(), Kind::Key | Kind::Damaged) => {
            (DumpExpiry::default(), Some(error.during("retention of dumps is not applied")))
        }
        Err(error) => return Err(error),
    };
    if let (Some(plan), true) = (&expiry.deletion, yes)
        && let Some(lease) = delete::run(&catalog, plan).await?.running
    {
        context.output.warning(&format!(
            "packs of the dumps that went stay for now: run {} may be going on until {} and need them",
            lease.backup, lease.until
        ));
    }
    let mut part = leftovers(context, &catalog, limits, yes).await?;
    part.document["retention"] = if rules.keeps_all() { Value::Null } else { retention_of_dumps(&expiry) };
    if !rules.keeps_all() {
        part.text = format!("{}\n{}", told_of_dumps(&expiry, yes), part.text);
    }
    part.problems.extend(problem);
    reports(&catalog, yes, &mut part).await?;
    Ok(Some(part))
}

/// Reports of drills that have many newer ones.
async fn reports(catalog: &Catalog, yes: bool, part: &mut Part) -> Result<()> {
    let old = expire_reports::plan(catalog).await?;
    if yes {
        expire_reports::run(catalog, &old).await?;
    }
    part.document["reports"] = Value::from(old.len());
    if !old.is_empty() {
        let verb = if yes { "expired" } else { "would expire" };
        part.text = format!("{} reports of drills {verb}\n{}", old.len(), part.text);
    }
    Ok(())
}

fn retention_of_dumps(expiry: &DumpExpiry) -> Value {
    let keep = expiry.retention.iter().flat_map(|(_, database, retention)| {
        let kept = retention.keep.iter();
        kept.map(move |(id, why)| json!({ "dump": id.as_str(), "database": database, "why": why }))
    });
    json!({
        "keep": keep.collect::<Vec<_>>(),
        "expire": expiry.expire().map(|id| id.as_str()).collect::<Vec<_>>(),
        "packs": expiry.deletion.as_ref().map_or(0, |plan| plan.packs.len()),
        "stored_bytes": expiry.deletion.iter().flat_map(|plan| &plan.packs).map(|(_, size)| size).sum::<u64>(),
    })
}

fn told_of_dumps(expiry: &DumpExpiry, done: bool) -> String {
    let mut lines = Vec::new();
    for (_, database, retention) in &expiry.retention {
        let why = |why: &std::collections::BTreeSet<&str>| why.iter().copied().collect::<Vec<_>>().join(", ");
        lines.extend(
            retention.keep.iter().map(|(id, rules)| format!("keep    {id}  {database:?}: {}", why(rules))),
        );
        lines.extend(retention.expire.iter().map(|id| format!("expire  {id}  {database:?}")));
    }
    let size: u64 = expiry.deletion.iter().flat_map(|plan| &plan.packs).map(|(_, size)| size).sum();
    let verb = if done { "expired" } else { "would expire" };
    lines.push(format!("{} {verb}, {}", many(expiry.expire().count(), "dump"), bytes(size)));
    lines.join("\n")
}

/// What dead programs left.
async fn leftovers(context: &Context, catalog: &Catalog, limits: Limits, yes: bool) -> Result<Part> {
    let noun = catalog.place.noun();
    let mut plan = pruning::plan(pruning::find(catalog, limits).await?, &catalog.place, limits);
    let mut document = document(&plan);
    let mut summary = format!(
        "leftovers of dead programs: {} would go, {}; --yes does it",
        many(plan.remove.len(), "object"),
        bytes(plan.stored_bytes())
    );
    if yes {
        let done = pruning::run(catalog, &plan, limits).await?;
        document["spared"] = done.spared.iter().map(|id| Value::from(id.as_str())).collect();
        document["removed"] = json!({ "objects": done.removed, "stored_bytes": done.stored_bytes });
        summary = format!(
            "leftovers of dead programs: {} removed, {}",
            many(done.removed, "object"),
            bytes(done.stored_bytes)
        );
        for id in &done.spared {
            context.output.warning(&format!("{noun} {id} has become active: what it left was not touched"));
        }
    }
    let text = told(&plan, &summary, noun);
    Ok(Part { document, text, problems: std::mem::take(&mut plan.problems) })
}

/// What the rules remove; a problem, where that cannot be told.
async fn expiry(
    context: &Context,
    catalog: &Catalog,
    limits: Limits,
) -> Result<(Option<Expiry>, Option<Error>)> {
    let rules = context.settings.retention()?;
    if rules.keeps_all() {
        return Ok((None, None));
    }
    match expire::plan(catalog, &rules, limits.now).await {
        Ok(expiry) => Ok((Some(expiry), None)),
        Err(error) if matches!(error.kind(), Kind::Key | Kind::Damaged) => {
            Ok((None, Some(error.during("retention is not applied"))))
        }
        Err(error) => Err(error),
    }
}

fn warn(context: &Context, expiry: Option<&Expiry>, expired: Option<&Expired>) {
    for note in expiry.iter().flat_map(|expiry| &expiry.retention.notes) {
        context.output.warning(note);
    }
    let Some(expired) = expired else { return };
    if let Some(lease) = &expired.packs.running {
        context.output.warning(&format!(
            "packs of the backups that went stay for now: backup {} may be running until {} and need them",
            lease.backup, lease.until
        ));
    }
    if let Some(why) = &expired.spared {
        context.output.warning(&format!("WAL that was to go stays for now: {why}"));
    }
}

fn retention(expiry: &Expiry) -> Value {
    let keep = expiry.retention.keep.iter().map(|(id, why)| json!({ "backup": id.as_str(), "why": why }));
    let packs = expiry.backups.as_ref().map(|plan| plan.packs.as_slice()).unwrap_or_default();
    json!({
        "keep": keep.collect::<Vec<_>>(),
        "expire": expiry.retention.expire.iter().map(|id| id.as_str()).collect::<Vec<_>>(),
        "packs": packs.len(),
        "stored_bytes": packs.iter().map(|(_, size)| size).sum::<u64>(),
        "wal": expiry.wal.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "notes": expiry.retention.notes,
    })
}

fn told_of_retention(expiry: &Expiry, done: bool) -> String {
    let why = |why: &std::collections::BTreeSet<&str>| why.iter().copied().collect::<Vec<_>>().join(", ");
    let keep = expiry.retention.keep.iter().map(|(id, rules)| format!("keep    {id}  {}", why(rules)));
    let expire = expiry.retention.expire.iter().map(|id| format!("expire  {id}"));
    let mut lines: Vec<_> = keep.chain(expire).collect();
    let packs = expiry.backups.as_ref().map(|plan| plan.packs.as_slice()).unwrap_or_default();
    let size: u64 = packs.iter().map(|(_, size)| size).sum();
    let range = match expiry.wal.as_slice() {
        [] => String::new(),
        [only] => format!(" ({only})"),
        [first, .., last] => format!(" ({first} to {last})"),
    };
    lines.push(format!(
        "{}{}, {}, {}; {}{range}",
        many(expiry.retention.expire.len(), "backup"),
        if done { " expired" } else { " would expire" },
        many(packs.len(), "pack"),
        bytes(size),
        many(expiry.wal.len(), "WAL file"),
    ));
    lines.join("\n")
}

fn document(plan: &PrunePlan) -> Value {
    let removal = |removal: &Removal| {
        json!({
            "what": removal.leftover.name(), "key": removal.key, "why": removal.why,
            "backup": removal.backup.as_ref().map(|id| id.as_str()), "stored_bytes": removal.stored,
        })
    };
    let kept = |(kept, count): (&Kept, &usize)| json!({ "what": kept.what, "count": count, "why": kept.why, "backup": kept.backup.as_ref().map(|id| id.as_str()) });
    let problems = plan
        .problems
        .iter()
        .map(|problem| json!({ "kind": problem.kind().name(), "detail": problem.story() }));
    json!({
        "remove": plan.remove.iter().map(removal).collect::<Vec<_>>(),
        "keep": plan.keep.iter().map(kept).collect::<Vec<_>>(),
        "stored_bytes": plan.stored_bytes(),
        "problems": problems.collect::<Vec<_>>(),
    })
}

fn told(plan: &PrunePlan, summary: &str, noun: &str) -> String {
    let mut lines: Vec<_> = plan
        .remove
        .iter()
        .map(|removal| format!("{}  {}: {}", removal.leftover.name(), removal.key, removal.why))
        .collect();
    lines.extend(plan.keep.iter().map(|(kept, count)| {
        let of = kept.backup.as_ref().map(|id| format!(" of {noun} {id}")).unwrap_or_default();
        format!("kept  {count} × {}{of}: {}", kept.what, kept.why)
    }));
    lines.push(summary.to_owned());
    lines.join("\n")
}
