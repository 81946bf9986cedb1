//! Whether what is in tables and indexes holds together, as PostgreSQL's extension `amcheck` sees it.

use super::programs::{Examination, first, of_end, run};
use super::timed;
use crate::archive::DrillCheck;
use crate::error::{Error, Kind, Result};
use crate::postgres::client::Client;
use crate::postgres::instance::{Alive, Instance};

/// The program came with this version; the extension of older ones knows indexes alone.
const PROGRAM_SINCE: u32 = 14;
/// The server's own troubles, which say nothing of the data: lack of resources, and being stopped.
const TROUBLE: [&str; 2] = ["53", "57"];

const IS_KNOWN: &str = "SELECT 1 FROM pg_available_extensions WHERE name = 'amcheck'";
const PLACE: &str = "SELECT pg_catalog.quote_ident(n.nspname) FROM pg_catalog.pg_extension e \
    JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'amcheck'";
const INDEXES: &str = "SELECT c.oid, c.oid::pg_catalog.regclass::pg_catalog.text FROM pg_catalog.pg_index i \
    JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid JOIN pg_catalog.pg_am a ON a.oid = c.relam \
    WHERE a.amname = 'btree' AND c.relkind = 'i' AND c.relpersistence <> 't' AND i.indisready AND i.indisvalid";

/// What was found: damage or none, or unknown; and the words for it.
type Found = (Option<bool>, String);

/// Looks through all databases. The extension is made where it is not: in this copy, nobody else sees it.
pub(super) fn check(
    server: &Instance,
    client: &Client,
    what: &Examination<'_>,
    alive: Alive<'_>,
) -> Result<DrillCheck> {
    let has_program = server.site().programs.major >= PROGRAM_SINCE;
    timed(if has_program { "pg_amcheck" } else { "amcheck" }, || {
        if has_program && client.programs().path("pg_amcheck").is_err() {
            return Ok((None, "skipped: pg_amcheck is not installed".to_owned()));
        }
        if !is_known(server)? {
            return Ok((None, "skipped: the extension amcheck is not installed".to_owned()));
        }
        match has_program {
            true => by_program(client, what.jobs, alive),
            false => by_sql(server, &what.databases, alive),
        }
    })
}

fn is_known(server: &Instance) -> Result<bool> {
    let rows = server.client("template1")?.query(IS_KNOWN, &[]);
    rows.map(|rows| !rows.is_empty())
        .map_err(|error| Error::new(Kind::Local, "the server does not list its extensions").because(error))
}

fn by_program(client: &Client, jobs: usize, alive: Alive<'_>) -> Result<Found> {
    let mut command = client.command("pg_amcheck")?;
    command.args(["--all", "--install-missing", "--jobs", &jobs.to_string()]);
    let done = run(command, alive)?;
    let lines: Vec<&str> = done.printed.lines().filter(|line| !line.trim().is_empty()).collect();
    match done.status.code() {
        Some(0) => Ok((Some(true), "no damage was found".to_owned())),
        Some(2) => Ok((Some(false), format!("{} lines: {}", lines.len(), first(lines.iter().copied())))),
        _ => of_end(done),
    }
}

/// Every index against its table.
fn by_sql(server: &Instance, databases: &[&str], alive: Alive<'_>) -> Result<Found> {
    let (mut indexes, mut damage) = (0, Vec::new());
    for database in databases {
        let failed = |error: postgres::Error| {
            Error::new(
                Kind::Local,
                format!("the indexes of the restored database {database:?} cannot be listed"),
            )
            .because(error)
        };
        let mut session = server.client(database)?;
        session
            .batch_execute("CREATE EXTENSION IF NOT EXISTS amcheck; SET search_path = ''")
            .map_err(failed)?;
        let place: String = session.query_one(PLACE, &[]).map_err(failed)?.get(0);
        let sql = format!("SELECT {place}.bt_index_check($1::pg_catalog.oid, true)");
        for row in session.query(INDEXES, &[]).map_err(failed)? {
            alive()?;
            let (index, name): (u32, String) = (row.get(0), row.get(1));
            indexes += 1;
            if let Err(error) = session.query(sql.as_str(), &[&index]) {
                damage.push(format!("{database:?}, {name}: {}", damage_of(error)?));
            }
        }
    }
    match damage.len() {
        0 => Ok((
            Some(true),
            format!(
                "no damage was found in {indexes} indexes; tables are looked through from PostgreSQL 14 on"
            ),
        )),
        found => Ok((
            Some(false),
            format!("{found} of {indexes} indexes: {}", first(damage.iter().map(String::as_str))),
        )),
    }
}

/// What the server says of the data; its own troubles are errors.
fn damage_of(error: postgres::Error) -> Result<String> {
    let said =
        error.as_db_error().filter(|said| !TROUBLE.iter().any(|class| said.code().code().starts_with(class)));
    match said.map(|said| said.message().to_owned()) {
        Some(said) => Ok(said),
        None => Err(Error::new(Kind::Local, "an index of the restored cluster cannot be looked through")
            .because(error)),
    }
}
