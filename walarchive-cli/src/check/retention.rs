//! Whether what is stored is what the rules of retention want: nothing less, and nothing that should be gone.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use walarchive_core::archive::{Archive, Backup, BackupId, Catalog, Dump, Inventory};
use walarchive_core::retention::dumps::{by_content, decide as decide_dumps};
use walarchive_core::retention::{Rules, decide};
use walarchive_core::{Error, Kind, Result};

use super::ages::told;
use super::{Found, Status};
use crate::args::Limits;
use crate::output::many;
use crate::run::Context;

/// What should be gone may be there so much longer, as somebody has to run `prune`.
const PATIENCE: Duration = Duration::from_secs(28 * 3600);

/// What should be gone.
struct Overdue {
    backups: BTreeSet<BackupId>,
    dumps: BTreeSet<BackupId>,
}

impl Overdue {
    fn count(&self) -> usize {
        self.backups.len() + self.dumps.len()
    }
}

/// `check retention`
pub(super) async fn retention(context: &Context, limits: &Limits) -> Result<Found> {
    let archive = context.archive().await?;
    let catalog = match context.catalog(&archive).await {
        Ok(catalog) => Some(catalog),
        Err(error) if error.kind() == Kind::Absent => None,
        Err(error) => return Err(error),
    };
    let inventory = match &catalog {
        Some(catalog) => catalog.inventory().await?,
        None => Inventory::default(),
    };
    let of_dumps = Catalog::of_dumps(&archive, context.settings.cluster()?);
    let (dumps, damaged) = of_dumps.dumps().await?;
    let mut found = overdue(context, limits, &inventory, &dumps)?;
    for backup in inventory.backups.iter().filter(|backup| !inventory.is_restorable(backup)) {
        let why = format!("backup {} is kept, and WAL that it needs is gone", backup.id);
        found.but(Status::Critical, &why);
    }
    for (id, damage) in &inventory.damaged {
        found.but(Status::Critical, &format!("backup {id} cannot be read: {damage}"));
    }
    for (id, error) in &damaged {
        found.but(Status::Critical, &format!("dump {id} cannot be read: {}", error.story()));
    }
    for catalog in catalog.iter().chain([&of_dumps]) {
        lost_packs(catalog, &catalog.marks().await?.manifests, &mut found).await?;
    }
    short(&archive, &context.settings.retention()?, &inventory, &mut found);
    Ok(found)
}

/// Packs that backups or dumps need, and that somebody else has removed.
pub(super) async fn lost_packs(catalog: &Catalog, of: &BTreeSet<BackupId>, found: &mut Found) -> Result<()> {
    let needed = match catalog.needed_packs(of).await {
        Ok(needed) => needed,
        // Told already.
        Err(error) if error.kind() == Kind::Damaged => return Ok(()),
        Err(error) => return Err(error),
    };
    let there = catalog.all_packs().await?;
    let lost = needed.iter().filter(|name| !there.contains_key(name)).count();
    if lost > 0 {
        let packs = many(lost, "pack");
        let why = format!(
            "{packs} missing that backups or dumps need: does a rule of the store's own remove objects?"
        );
        found.but(Status::Critical, &why);
    }
    Ok(())
}

fn overdue(context: &Context, limits: &Limits, inventory: &Inventory, dumps: &[Dump]) -> Result<Found> {
    let warning = limits.warning.unwrap_or(limits.critical.unwrap_or(PATIENCE).min(PATIENCE));
    let late = since(context, inventory, dumps, warning)?;
    let very_late = match limits.critical {
        Some(limit) => since(context, inventory, dumps, limit)?.count(),
        None => 0,
    };
    let kept = format!("{} and {} kept", many(inventory.backups.len(), "backup"), many(dumps.len(), "dump"));
    let found = match late.count() {
        0 => {
            let settings = &context.settings;
            let all = settings.retention()?.keeps_all() && settings.dump_retention()?.keeps_all();
            let why = if all { "no rule is set, so nothing is ever removed" } else { "as the rules want" };
            Found::new(Status::Ok, format!("{kept}, {why}"))
        }
        count => {
            let status = if very_late > 0 { Status::Critical } else { Status::Warning };
            let limit =
                told(if very_late > 0 { limits.critical.unwrap_or(warning) } else { warning }.as_secs());
            let line = format!(
                "{kept}, of which {count} should have been removed for more than {limit}: does 'prune --yes' run?"
            );
            Found::new(status, line)
        }
    };
    let mut found = found
        .number("backups", inventory.backups.len() as f64)
        .number("dumps", dumps.len() as f64)
        .number("overdue_backups", late.backups.len() as f64)
        .number("overdue_dumps", late.dumps.len() as f64);
    found.details = json!({
        "overdue_backups": late.backups.iter().map(BackupId::as_str).collect::<Vec<_>>(),
        "overdue_dumps": late.dumps.iter().map(BackupId::as_str).collect::<Vec<_>>(),
    });
    Ok(found)
}

/// What the rules had given up already so long ago.
fn since(context: &Context, inventory: &Inventory, dumps: &[Dump], limit: Duration) -> Result<Overdue> {
    let then = Timestamp::now()
        .checked_sub(limit)
        .map_err(|_| Error::usage("nothing is as old as the limit says"))?;
    let was_there = |backup: &&Backup| backup.facts.finished_at <= then;
    let backups = inventory.backups.iter().filter(was_there).cloned().collect();
    let before = Inventory { backups, ..inventory.clone() };
    let backups = decide(&before, &context.settings.retention()?, then)?.expire.into_iter().collect();
    let rules = context.settings.dump_retention()?;
    let mut gone = BTreeSet::new();
    for of_one in by_content(dumps).into_values() {
        let before: Vec<&Dump> = of_one.into_iter().filter(|dump| dump.facts.finished_at <= then).collect();
        gone.extend(decide_dumps(&before, &rules).expire);
    }
    Ok(Overdue { backups, dumps: gone })
}

/// An archive that is older than its window, and does not reach back so far.
fn short(archive: &Archive, rules: &Rules, inventory: &Inventory, found: &mut Found) {
    let Some(window) = rules.window else { return };
    let Ok(begin) = Timestamp::now().checked_sub(window) else { return };
    let sound = inventory.backups.iter().filter(|backup| inventory.is_restorable(backup));
    let first = sound.map(|backup| backup.facts.finished_at).min();
    if archive.info().created() < begin && first.is_none_or(|first| first > begin) {
        let reaches = first.map_or("no moment".to_owned(), |first| format!("nothing before {first}"));
        let window = told(window.as_secs());
        let why = format!(
            "{reaches} can be restored, and the window is {window}: was something removed, or is the cluster new?"
        );
        found.but(Status::Warning, &why);
    }
}
