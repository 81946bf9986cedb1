//! What PostgreSQL's own programs find in a restored server.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{amcheck, timed};
use crate::archive::DrillCheck;
use crate::error::Result;
use crate::files;
use crate::postgres::client::{Client, Collected, Running, literal};
use crate::postgres::instance::{Alive, Instance};
use crate::postgres::libpq;
use crate::postgres::stop::Stop;
use crate::progress::Progress;

/// So much of what a program prints is looked at.
const PRINTED: usize = 64 * 1024;
/// So many of its lines are told.
const TOLD: usize = 3;

/// What is looked at.
pub struct Examination<'a> {
    /// The databases that one can connect to.
    pub databases: Vec<&'a str>,
    /// The one that SQL is run in.
    pub main: &'a str,
    /// Files with SQL.
    pub sql: &'a [PathBuf],
    /// How many connections look for damage at once.
    pub jobs: usize,
    /// Whether tables and indexes are looked through: not of what was just made from a dump.
    pub amcheck: bool,
}

/// Looks through all of it.
pub fn examine(
    server: &Instance,
    what: &Examination<'_>,
    alive: Alive<'_>,
    progress: &dyn Progress,
) -> Result<Vec<DrillCheck>> {
    let client = |database: &str| {
        Client::new(server.site().programs.clients().clone(), server.connection(database), Stop::default())
    };
    let mut checks = Vec::new();
    if what.amcheck {
        progress.note("looking for damage in tables and indexes");
        checks.push(amcheck::check(server, &client("template1"), what, alive)?);
    }
    for database in &what.databases {
        progress.note(&format!("dumping {database:?} to nowhere"));
        let work = || pg_dump(&client(database), database, alive);
        checks.push(timed(&format!("pg_dump {database:?}"), work)?);
    }
    for file in what.sql {
        progress.note(&format!("running {}", file.display()));
        let work = || sql(&client(what.main), file, alive);
        checks.push(timed(&format!("sql {}", file.display()), work)?);
    }
    Ok(checks)
}

/// What a program found, and what it would mean if it did not run at all.
pub(super) fn run(mut command: Command, alive: Alive<'_>) -> Result<Collected> {
    Running::start(&mut command, Stdio::null())?.collect(PRINTED, alive)
}

fn pg_dump(client: &Client, database: &str, alive: Alive<'_>) -> Result<(Option<bool>, String)> {
    let mut command = client.command("pg_dump")?;
    command.args(["--format=plain", "--file=/dev/null", "-d"]).arg(libpq::dbname(database));
    let done = run(command, alive)?;
    if done.status.success() { Ok((Some(true), "all of it can be read".to_owned())) } else { of_end(done) }
}

fn sql(client: &Client, file: &Path, alive: Alive<'_>) -> Result<(Option<bool>, String)> {
    let mut command = client.command("psql")?;
    command.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-f"]).arg(file);
    let done = run(command, alive)?;
    if done.status.success() {
        let printed = first(done.printed.lines());
        return Ok((Some(true), if printed.is_empty() { "no error".to_owned() } else { printed }));
    }
    of_end(done)
}

/// What a program that did not end well says of the data; if this machine has no space left, that says nothing.
pub(super) fn of_end(done: Collected) -> Result<(Option<bool>, String)> {
    let lacks_space = done.complaints.iter().any(|line| line.contains("No space left on device"));
    let killed = done.status.code().is_none();
    match done.end() {
        Ok(printed) => Ok((Some(true), printed)),
        Err(error) if lacks_space || killed => Err(error),
        Err(error) => Ok((Some(false), error.story())),
    }
}

pub(super) fn first<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    let all: Vec<&str> = lines.take(TOLD + 1).collect();
    let more = if all.len() > TOLD { " …" } else { "" };
    format!("{}{more}", all[..all.len().min(TOLD)].join("; "))
}

/// Makes roles, without passwords or rights, and tablespaces below `dir`, so that what belongs to them can be restored. Names
/// are as SQL writes them; what cannot be made is missed by whatever needs it.
pub fn make_globals(server: &Instance, roles: &[String], tablespaces: &[String], dir: &Path) -> Result<()> {
    let mut client = server.client("postgres")?;
    for role in roles {
        let _ = client.batch_execute(&format!("CREATE ROLE {role}"));
    }
    for (number, name) in tablespaces.iter().enumerate() {
        let place = dir.join(format!("tablespace{number}"));
        files::make_dir(&place, 0o700)?;
        let place = literal(&place.to_string_lossy());
        let _ = client.batch_execute(&format!("CREATE TABLESPACE {name} LOCATION {place}"));
    }
    Ok(())
}
