//! The rehearsal of a backup.

use std::collections::BTreeSet;
use std::time::Instant;

use walarchive_core::archive::{Backup, Catalog, Drilled};
use walarchive_core::ops::drill::{self, Examination, Promise, Reached};
use walarchive_core::ops::restore::{
    Action, Delta, Plan, Recovery, RestoreRequest, TablespaceMapping, Target, Wish, plan_restore,
    promised_end, restore,
};
use walarchive_core::postgres::instance::{Instance, Site};
use walarchive_core::postgres::programs::ServerPrograms;
use walarchive_core::{Error, Kind, Result};

use super::room::Room;
use super::{Found, Stage, broken};
use crate::restore::fetch_command;

pub(super) fn drill(stage: &Stage<'_>) -> Result<Found> {
    let begun = Instant::now();
    let (catalog, wish) = stage.wait(choose(stage))?;
    let named = wish.backup.as_ref().map_or_else(|| "latest".to_owned(), ToString::to_string);
    let mut found = Found {
        catalog,
        of: Drilled::Backup(named),
        database: None,
        target: Some(wish.target.to_string()),
        complete_at: None,
        reached: None,
        server_version: None,
        checks: Vec::new(),
    };
    match stage.wait(plan(&found.catalog, &wish, stage)) {
        Ok((plan, backup)) => {
            found.of = Drilled::Backup(plan.backup.clone());
            found.complete_at = Some(backup.facts.finished_at);
            let room = Room::make(stage)?;
            rehearse(stage, &room, &wish, (&plan, &backup), &mut found)?;
            room.clean(stage)?;
        }
        // A target that no backup leads to is nothing that the archive promised.
        Err(error) if error.kind() == Kind::Unrestorable && !is_promised(&wish.target) => return Err(error),
        Err(error) => found.checks.push(broken("plan", begun, error)?),
    }
    Ok(found)
}

/// Whether every backup leads there.
fn is_promised(target: &Target) -> bool {
    matches!(target, Target::Latest | Target::Immediate)
}

async fn choose(stage: &Stage<'_>) -> Result<(Catalog, Wish)> {
    let (context, args) = (stage.context, stage.args);
    let archive = context.archive().await?;
    let catalog = context.catalog_of(&archive, context.settings.system_id()?).await?;
    let none = || {
        Error::new(Kind::Absent, "the archive holds no backup of this cluster")
            .hint("'walarchive backup create' makes one")
    };
    let backup = match args.backup.as_str() {
        // Any that leads there will do.
        "latest" if !is_promised(&args.to) => None,
        "latest" => Some(catalog.inventory().await?.newest().cloned().ok_or_else(none)?),
        "random" => Some(drill::any(&catalog.inventory().await?, stage.id.random()).ok_or_else(none)?),
        id => Some(id.parse()?),
    };
    Ok((catalog, Wish { target: args.to.clone(), backup, ..Wish::default() }))
}

async fn plan(catalog: &Catalog, wish: &Wish, stage: &Stage<'_>) -> Result<(Plan, Backup)> {
    let plan = plan_restore(catalog, wish, stage.context.progress.as_ref()).await?;
    let backup = catalog.backup(&plan.id).await?;
    Ok((plan, backup))
}

/// Restores, recovers, and looks through all of it.
fn rehearse(
    stage: &Stage<'_>,
    room: &Room,
    wish: &Wish,
    (plan, backup): (&Plan, &Backup),
    found: &mut Found,
) -> Result<()> {
    let programs = ServerPrograms::of(stage.context.settings.bin_dir().as_deref(), backup.facts.pg_major)?;
    let site = room.site(programs, stage.args.role.clone());
    let begun = Instant::now();
    stage.say(&format!("restoring backup {} to {}", plan.backup, room.path().display()));
    let request = request(stage, room, &site, &found.catalog, wish, backup)?;
    if let Err(error) = stage.wait(restore(request)) {
        found.checks.push(broken("restore", begun, error)?);
        return Ok(());
    }
    found.checks.push(done("restore", begun, "every byte is proven"));
    let begun = Instant::now();
    stage.say(&format!("replaying WAL to {}", plan.to));
    let (server, reached) = match recover(stage, &site) {
        Ok(recovered) => recovered,
        Err(error) => {
            found.checks.push(broken("recovery", begun, error)?);
            return Ok(());
        }
    };
    found.checks.push(done("recovery", begun, "the server takes writes"));
    match stage.wait(promised_end(&found.catalog, backup, &wish.target, plan)) {
        Ok(end) => found.checks.extend(drill::compare(&promise(wish, plan, backup, end), &reached)),
        Err(error) => found.checks.push(broken("reached position", begun, error)?),
    }
    let main = reached.databases.iter().find(|(name, connects)| name == "postgres" && *connects);
    let what = Examination {
        databases: reached
            .databases
            .iter()
            .filter(|(_, connects)| *connects)
            .map(|(name, _)| name.as_str())
            .collect(),
        main: main.map_or("template1", |(name, _)| name.as_str()),
        sql: &stage.args.sql,
        jobs: usize::from(stage.args.jobs),
        amcheck: true,
    };
    let alive = || stage.alive();
    found.checks.extend(drill::examine(&server, &what, &alive, stage.context.progress.as_ref())?);
    found.server_version = Some(reached.version.clone());
    found.reached = Some(reached);
    server.stop();
    Ok(())
}

fn done(name: &str, begun: Instant, detail: &str) -> walarchive_core::archive::DrillCheck {
    let ms = super::report::millis(begun.elapsed());
    walarchive_core::archive::DrillCheck {
        name: name.to_owned(),
        ok: Some(true),
        detail: detail.to_owned(),
        ms,
    }
}

/// Tablespaces go into the scratch place, too.
fn request(
    stage: &Stage<'_>,
    room: &Room,
    site: &Site,
    catalog: &Catalog,
    wish: &Wish,
    backup: &Backup,
) -> Result<RestoreRequest> {
    let moved = |tablespace: &walarchive_core::archive::Tablespace| TablespaceMapping {
        old: tablespace.location.clone(),
        new: room.path().join(format!("tablespace{}", tablespace.oid)),
    };
    Ok(RestoreRequest {
        catalog: catalog.clone(),
        wish: Wish { backup: Some(backup.id.clone()), ..wish.clone() },
        target_dir: site.data_dir.clone(),
        delta: Delta::Refused,
        only_databases: Vec::new(),
        tablespaces: backup.facts.tablespaces.iter().map(moved).collect(),
        recovery: Recovery {
            restore_command: fetch_command(stage.context, catalog)?,
            exclusive: false,
            action: Action::Promote,
            standby: false,
        },
        jobs: usize::from(stage.args.jobs),
        progress: stage.context.progress.clone(),
    })
}

fn recover(stage: &Stage<'_>, site: &Site) -> Result<(Instance, Reached)> {
    site.seclude()?;
    let mut server = site.start()?;
    server.wait_for_writes(&|| stage.alive())?;
    let reached = drill::look(&server)?;
    Ok((server, reached))
}

fn promise(wish: &Wish, plan: &Plan, backup: &Backup, end: walarchive_core::wal::Lsn) -> Promise {
    // A target may lie before the last branch; the latest state does not.
    let timelines: BTreeSet<u32> = match wish.target {
        Target::Latest => [plan.timeline].into(),
        _ => plan.timelines.iter().copied().collect(),
    };
    let known = backup.facts.databases.len();
    Promise {
        system_id: backup.facts.system_id.clone(),
        timelines,
        end,
        databases: (known > 0).then_some(known),
        is_immediate: wish.target == Target::Immediate,
    }
}
