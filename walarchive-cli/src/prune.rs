//! `prune`: what retention does not keep, and what nobody needs.

use jiff::Timestamp;
use serde_json::{Value, json};
use walarchive_core::archive::Catalog;
use walarchive_core::ops::prune::expire::{self, Expired, Expiry};
use walarchive_core::ops::prune::{self as pruning, Kept, Limits, PrunePlan, Removal};
use walarchive_core::{Error, Kind, Result};

use crate::args::PruneArgs;
use crate::output::bytes;
use crate::run::Context;

/// `prune`. What could not be found out stays, and decides the exit code.
pub(crate) async fn prune(context: Context, args: PruneArgs) -> Result<u8> {
    let limits = Limits::new(Timestamp::now(), context.settings.prune_grace()?);
    let archive = context.archive().await?.strict();
    let catalog = match context.catalog(&archive).await {
        Ok(catalog) => catalog,
        Err(error) if error.kind() == Kind::Absent => return nothing(&context, args.yes),
        Err(error) => return Err(error),
    };
    let (expiry, problem) = expiry(&context, &catalog, limits).await?;
    let expired = match &expiry {
        Some(expiry) if args.yes => Some(expire::run(&catalog, expiry, limits).await?),
        _ => None,
    };
    // What expired backups leave counts as theirs, not as leftovers: it is looked for when they are gone.
    let mut plan = pruning::plan(pruning::find(&catalog, limits).await?, &catalog.place, limits);
    plan.problems.extend(problem);
    let mut document = document(&plan);
    document["retention"] = expiry.as_ref().map(retention).unwrap_or_default();
    let mut summary = format!(
        "leftovers of dead programs: {} objects would go, {}; --yes does it",
        plan.remove.len(),
        bytes(plan.stored_bytes())
    );
    document["pruned"] = Value::from(args.yes);
    if args.yes {
        let done = pruning::run(&catalog, &plan, limits).await?;
        document["spared"] = done.spared.iter().map(|id| Value::from(id.as_str())).collect();
        document["removed"] = json!({ "objects": done.removed, "stored_bytes": done.stored_bytes });
        summary = format!(
            "leftovers of dead programs: {} objects removed, {}",
            done.removed,
            bytes(done.stored_bytes)
        );
        for id in &done.spared {
            context.output.warning(&format!("backup {id} has become active: what it left was not touched"));
        }
    }
    context.output.result(&document, || {
        let retention = expiry.as_ref().map(|expiry| told_of_retention(expiry, args.yes));
        [retention, Some(told(&plan, &summary))].into_iter().flatten().collect::<Vec<_>>().join("\n")
    })?;
    warn(&context, expiry.as_ref(), expired.as_ref());
    for problem in &plan.problems {
        context.output.warning(&problem.story());
    }
    Ok(pruning::worst(&plan).map_or(0, |problem| problem.kind().exit_code()))
}

/// A new archive has nothing that could go.
fn nothing(context: &Context, yes: bool) -> Result<u8> {
    let mut document = document(&PrunePlan::default());
    (document["retention"], document["pruned"]) = (Value::Null, Value::from(yes));
    context.output.result(&document, || "nothing is stored yet: nothing goes".to_owned())?;
    Ok(0)
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
        "{} backups{}, {} packs, {}; {} WAL files{range}",
        expiry.retention.expire.len(),
        if done { " expired" } else { " would expire" },
        packs.len(),
        bytes(size),
        expiry.wal.len(),
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

fn told(plan: &PrunePlan, summary: &str) -> String {
    let mut lines: Vec<_> = plan
        .remove
        .iter()
        .map(|removal| format!("{}  {}: {}", removal.leftover.name(), removal.key, removal.why))
        .collect();
    lines.extend(plan.keep.iter().map(|(kept, count)| {
        let of = kept.backup.as_ref().map(|id| format!(" of backup {id}")).unwrap_or_default();
        format!("kept  {count} × {}{of}: {}", kept.what, kept.why)
    }));
    lines.push(summary.to_owned());
    lines.join("\n")
}
