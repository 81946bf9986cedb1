//! The rehearsal of a dump.

use std::time::Instant;

use walarchive_core::archive::{Catalog, DrillCheck, Drilled, Dump, DumpContent};
use walarchive_core::ops::drill::{self, Examination};
use walarchive_core::ops::dump_restore::{
    DumpRestoreRequest, Existing, GlobalNames, Selection, names_in_globals, rehearse_globals, restore,
};
use walarchive_core::postgres::instance::Instance;
use walarchive_core::postgres::programs::{Programs, ServerPrograms};
use walarchive_core::postgres::stop::Stop;
use walarchive_core::{Error, Kind, Result};

use super::room::Room;
use super::{Found, Stage, broken, report};
use crate::args::DumpArgs;
use crate::dump::find;
use crate::output::bytes;

/// What the restored database is called.
const NAME: &str = "drill";

pub(super) fn drill(stage: &Stage<'_>, id: &str) -> Result<Found> {
    let args = DumpArgs { id: id.to_owned(), database: stage.args.database.clone() };
    let (catalog, dump, names) = stage.wait(choose(stage, &args))?;
    let mut found = Found {
        catalog,
        of: Drilled::Dump(dump.id.to_string()),
        database: Some(dump.facts.database.clone()),
        target: None,
        complete_at: Some(dump.facts.started_at),
        reached: None,
        server_version: None,
        checks: Vec::new(),
    };
    let room = Room::make(stage)?;
    let server = serve(stage, &room, dump.facts.pg_major)?;
    stage.say(&format!("restoring dump {} of {:?}", dump.id, dump.facts.database));
    let begun = Instant::now();
    let rehearsed = match dump.facts.content {
        DumpContent::Globals => globals(stage, &room, &server, &found.catalog, &dump),
        DumpContent::Database => database(stage, &room, &server, &found.catalog, &dump, names),
    };
    match rehearsed {
        Ok(check) => {
            let is_whole = check.ok != Some(false);
            found.checks.push(check);
            if is_whole {
                found.checks.extend(examine(stage, &server, &dump)?);
            }
        }
        Err(error) => found.checks.push(broken("restore", begun, of_the_dump(error))?),
    }
    found.server_version = Some(server.site().programs.version.clone());
    server.stop();
    room.clean(stage)?;
    Ok(found)
}

/// A database, with the roles and tablespaces of its run.
fn database(
    stage: &Stage<'_>,
    room: &Room,
    server: &Instance,
    catalog: &Catalog,
    dump: &Dump,
    names: Option<GlobalNames>,
) -> Result<DrillCheck> {
    let begun = Instant::now();
    if let Some(names) = &names {
        drill::make_globals(server, &names.roles, &names.tablespaces, room.path())?;
    }
    let done = stage.wait(restore(request(stage, room, server, catalog, dump, names.is_some())))?;
    let detail = format!("{}, every statement succeeded", bytes(done.dump.data_bytes));
    Ok(restored(begun, true, detail))
}

/// Roles, with their passwords and rights, and tablespaces.
fn globals(
    stage: &Stage<'_>,
    room: &Room,
    server: &Instance,
    catalog: &Catalog,
    dump: &Dump,
) -> Result<DrillCheck> {
    let begun = Instant::now();
    let bin_dir = Programs::named(stage.context.settings.bin_dir());
    let (connection, dir) = (server.connection("postgres"), room.path().to_owned());
    let done = stage.wait(rehearse_globals(catalog, &dump.id, connection, bin_dir, dir))?;
    let failed = done.errors.len();
    let detail = match failed {
        0 => format!("{}, every statement succeeded", bytes(done.dump.data_bytes)),
        _ => format!(
            "{failed} statements failed: {}",
            done.errors.iter().take(3).cloned().collect::<Vec<_>>().join("; ")
        ),
    };
    Ok(restored(begun, failed == 0, detail))
}

fn examine(stage: &Stage<'_>, server: &Instance, dump: &Dump) -> Result<Vec<DrillCheck>> {
    let is_database = dump.facts.content == DumpContent::Database;
    let what = Examination {
        databases: if is_database { vec![NAME] } else { Vec::new() },
        main: if is_database { NAME } else { "postgres" },
        sql: &stage.args.sql,
        jobs: 1,
        amcheck: false,
    };
    drill::examine(server, &what, &|| stage.alive(), stage.context.progress.as_ref())
}

async fn choose(stage: &Stage<'_>, args: &DumpArgs) -> Result<(Catalog, Dump, Option<GlobalNames>)> {
    let catalog = stage.context.dumps().await?;
    let dump = find(&catalog, args, false).await?;
    let facts = &dump.facts;
    if facts.with_create {
        return Err(Error::usage(format!(
            "dump {} makes its database itself, which no drill allows",
            dump.id
        )));
    }
    let (dumps, _) = catalog.dumps().await?;
    let of_run = |other: &&Dump| other.facts.run == facts.run && other.facts.content == DumpContent::Globals;
    let names = match dumps.iter().find(of_run) {
        Some(globals) if globals.id != dump.id => Some(names_in_globals(&catalog, &globals.id).await?),
        _ => None,
    };
    Ok((catalog, dump, names))
}

/// A new server of the dump's version.
fn serve(stage: &Stage<'_>, room: &Room, major: u32) -> Result<Instance> {
    let site = room.site(ServerPrograms::of(stage.context.settings.bin_dir().as_deref(), major)?, None);
    let alive = || stage.alive();
    site.initdb(&alive)?;
    site.seclude()?;
    let mut server = site.start()?;
    server.wait_for_writes(&alive)?;
    Ok(server)
}

fn request(
    stage: &Stage<'_>,
    room: &Room,
    server: &Instance,
    catalog: &Catalog,
    dump: &Dump,
    has_roles: bool,
) -> DumpRestoreRequest {
    DumpRestoreRequest {
        stop: Stop::default(),
        catalog: catalog.clone(),
        id: dump.id.clone(),
        connection: server.connection("postgres"),
        bin_dir: Programs::named(stage.context.settings.bin_dir()),
        name: Some(NAME.to_owned()),
        existing: Existing::Refuse,
        selection: Selection::default(),
        no_owner: !has_roles,
        allow_errors: false,
        transform: None,
        jobs: usize::from(stage.args.jobs),
        scratch_dir: Some(room.path().to_owned()),
        progress: stage.context.progress.clone(),
    }
}

fn restored(begun: Instant, ok: bool, detail: String) -> DrillCheck {
    DrillCheck { name: "restore".to_owned(), ok: Some(ok), detail, ms: report::millis(begun.elapsed()) }
}

/// The server is this program's own: when one of PostgreSQL's programs fails there, it is for what the dump says, unless this
/// machine lacks something.
fn of_the_dump(error: Error) -> Error {
    let story = error.story();
    let lacks = ["No space left on device", "is not available", "could not open extension control file"];
    if lacks.iter().any(|what| story.contains(what)) {
        return Error::new(Kind::Local, story);
    }
    let by_program = ["psql ended", "pg_restore ended"].iter().any(|what| story.contains(what));
    if by_program { Error::new(Kind::Unrestorable, story) } else { error }
}
