//! `prune`: what nobody needs.

use jiff::Timestamp;
use serde_json::{Value, json};
use walarchive_core::Result;
use walarchive_core::ops::prune::{self as pruning, Kept, Limits, PrunePlan, Removal};

use crate::args::PruneArgs;
use crate::output::bytes;
use crate::run::Context;

/// `prune`. What could not be found out stays, and decides the exit code.
pub(crate) async fn prune(context: Context, args: PruneArgs) -> Result<u8> {
    let limits = Limits::new(Timestamp::now(), context.settings.prune_grace()?);
    let archive = context.archive().await?.strict();
    let catalog = context.catalog(&archive).await?;
    let plan = pruning::plan(pruning::find(&catalog, limits).await?, &catalog.place, limits);
    let mut document = document(&plan);
    let mut summary =
        format!("{} objects would go, {}; --yes does it", plan.remove.len(), bytes(plan.stored_bytes()));
    document["pruned"] = Value::from(args.yes);
    if args.yes {
        let done = pruning::run(&catalog, &plan, limits).await?;
        document["spared"] = done.spared.iter().map(|id| Value::from(id.as_str())).collect();
        document["removed"] = json!({ "objects": done.removed, "stored_bytes": done.stored_bytes });
        summary = format!("{} objects removed, {}", done.removed, bytes(done.stored_bytes));
        for id in &done.spared {
            context.output.warning(&format!("backup {id} has become active: what it left was not touched"));
        }
    }
    context.output.result(&document, || told(&plan, &summary))?;
    for problem in &plan.problems {
        context.output.warning(&problem.story());
    }
    Ok(pruning::worst(&plan).map_or(0, |problem| problem.kind().exit_code()))
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
