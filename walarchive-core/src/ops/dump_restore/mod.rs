//! A dump back into a server: beside what is there, and in its place only when it is whole.

mod definition;
mod export;
mod globals;
mod plain;
mod script;
mod selection;
mod swap;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use self::definition::Definition;
pub use self::export::{Outlet, export};
pub use self::globals::{GlobalNames, GlobalsDone, names_in_globals, rehearse_globals, restore_globals};
pub use self::selection::{Selection, TableName, schema_name};
use crate::archive::{BackupId, Catalog, DumpContent, DumpFacts, DumpFormat, StreamsReader};
use crate::crossing::blocking;
use crate::error::{Error, Kind, Result};
use crate::files;
use crate::postgres::client::{Client, Complaints, Running, failed, identifier, literal};
use crate::postgres::conninfo::ConnInfo;
use crate::postgres::libpq;
use crate::postgres::programs::{self, Programs};
use crate::postgres::stop::Stop;
use crate::progress::Progress;

/// PostgreSQL cuts longer names.
const NAME_MAX: usize = 63;

/// psql's exit code when a statement of a script fails.
const SCRIPT_FAILED: i32 = 3;

/// What happens to a database that has the name already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Nothing is restored.
    Refuse,
    /// It is replaced, and dropped when the dump has taken its place.
    Replace,
    /// It is replaced, and stays under another name.
    SetAside,
    /// Tables or schemas are added to it.
    Add,
}

/// How a dump is restored.
#[derive(Clone)]
pub struct DumpRestoreRequest {
    /// The cluster's dumps.
    pub catalog: Catalog,
    /// The dump.
    pub id: BackupId,
    /// How to reach the server.
    pub connection: ConnInfo,
    /// Where PostgreSQL's client programs are; looked for when not given.
    pub bin_dir: Option<PathBuf>,
    /// The name of the database; its own when not given.
    pub name: Option<String>,
    /// What happens to one that is there.
    pub existing: Existing,
    /// Which parts of it.
    pub selection: Selection,
    /// Whether owners and privileges are left out.
    pub no_owner: bool,
    /// Whether statements may fail.
    pub allow_errors: bool,
    /// SQL that is run in the database before anybody sees it.
    pub transform: Option<PathBuf>,
    /// How many connections there are at once.
    pub jobs: usize,
    /// Where dumps are put that several connections read; that of temporary files when not given.
    pub scratch_dir: Option<PathBuf>,
    /// Hears how it goes.
    pub progress: Arc<dyn Progress>,
    /// Ends it: what was restored so far is dropped.
    pub stop: Stop,
}

/// What was restored.
#[derive(Debug, Clone)]
pub struct DumpRestored {
    /// The dump.
    pub dump: DumpFacts,
    /// The name of the database.
    pub database: String,
    /// Where the database is now that had this name, if it was set aside.
    pub set_aside: Option<String>,
    /// What failed, if that was allowed.
    pub errors: Vec<String>,
    /// Databases that restores to the same name have left, which were killed.
    pub leftovers: Vec<String>,
}

/// Restores a dump of a database. Until its last byte is proven and every statement has succeeded, nothing has the name:
/// whatever fails, what was there stays as it was.
pub async fn restore(request: DumpRestoreRequest) -> Result<DumpRestored> {
    let reader = StreamsReader::open(&request.catalog, &request.id).await?;
    let facts = reader.manifest.facts.clone();
    check(&request, &facts)?;
    let worker = move || Work::begin(request, reader)?.run();
    blocking(worker)
        .await
        .map_err(|error| error.during(format!("restoring dump {} of {:?}", facts.id, facts.database)))
}

fn check(request: &DumpRestoreRequest, facts: &DumpFacts) -> Result<()> {
    if facts.content == DumpContent::Globals {
        return Err(Error::usage(format!("dump {} is of the globals, and not of a database", facts.id))
            .hint("'dump restore' with --globals restores them"));
    }
    if facts.with_create {
        return Err(Error::usage(format!("dump {} makes its database itself, under its own name", facts.id))
            .hint(format!("'walarchive dump export {} | psql -X postgres' runs it", facts.id)));
    }
    if facts.dump_format == DumpFormat::Plain && !request.selection.is_all() {
        return Err(Error::usage("of a plain dump nothing can be selected: it is one script"));
    }
    if matches!(request.existing, Existing::Replace | Existing::SetAside) && !request.selection.is_all() {
        return Err(Error::usage("a whole database is not replaced by parts of it")
            .hint("--add puts tables or schemas into the database that is there, --as NAME into a new one"));
    }
    request.selection.check()?;
    if let Some(script) = &request.transform {
        script::check(script)?;
    }
    if request.existing == Existing::Add && request.selection.is_all() {
        return Err(Error::usage("to a database that is there only tables or schemas are added")
            .hint("--table or --schema says which; --swap or --overwrite replaces the whole database"));
    }
    if let Some(name) = request.name.as_ref().filter(|name| name.is_empty() || name.len() > NAME_MAX) {
        return Err(Error::usage(format!(
            "{name:?} cannot be a database's name: it has 1 to {NAME_MAX} bytes"
        )));
    }
    Ok(())
}

struct Work {
    request: DumpRestoreRequest,
    reader: StreamsReader,
    client: Client,
    major: u32,
    /// The name that it shall have.
    name: String,
    exists: bool,
    leftovers: Vec<String>,
}

impl Work {
    fn begin(request: DumpRestoreRequest, reader: StreamsReader) -> Result<Work> {
        let facts = &reader.manifest.facts;
        let bin_dir = request.bin_dir.as_deref();
        let asking = Client::new(Programs::any(bin_dir)?, request.connection.clone(), request.stop.clone());
        let (major, _) = asking.server_version()?;
        let made_by = facts.dump_version.split('.').next().and_then(|major| major.parse().ok());
        let programs = Programs::for_dump(bin_dir, made_by.unwrap_or(facts.pg_major), major)?;
        let client = Client::new(programs, request.connection.clone(), request.stop.clone());
        let name = request.name.clone().unwrap_or_else(|| facts.database.clone());
        let exists = swap::exists(&client, &name)?;
        let leftovers = swap::leftovers(&client, &name)?;
        for left in &leftovers {
            request.progress.note(&format!(
                "database {left:?} is what a restore to {name:?} has left that was killed, unless one is going on just now: \
                 DROP DATABASE {}; removes it",
                identifier(left)
            ));
        }
        let work = Work { request, reader, client, major, name, exists, leftovers };
        work.refuse()?;
        Ok(work)
    }

    fn refuse(&self) -> Result<()> {
        let (name, add) = (&self.name, self.request.existing == Existing::Add);
        if self.exists && self.request.existing == Existing::Refuse {
            return Err(Error::new(Kind::UnsafeTarget, format!("database {name:?} exists; nothing was changed")).hint(
                "--as restores under another name, --swap replaces it and keeps it under another name, --overwrite drops it",
            ));
        }
        let programs = self.client.programs();
        if add && programs.major >= 17 && self.major < 17 {
            let (tools, server) = (&programs.version, self.major);
            return Err(Error::new(
                Kind::Local,
                format!("pg_restore {tools} cannot add to a server of version {server} in one transaction"),
            )
            .hint(format!(
                "install the client programs of PostgreSQL {server}, or restore with --as and move the tables"
            )));
        }
        if add && !self.exists {
            return Err(Error::new(Kind::Absent, format!("there is no database {name:?} to add to")));
        }
        Ok(())
    }

    fn run(self) -> Result<DumpRestored> {
        let facts = self.reader.manifest.facts.clone();
        if self.request.existing == Existing::Add {
            let errors = self.fill(&self.name, true)?;
            let (database, leftovers) = (self.name, self.leftovers);
            return Ok(DumpRestored { dump: facts, database, set_aside: None, errors, leftovers });
        }
        let beside = swap::name_beside(&self.name, "restore")?;
        let definition = Definition::read(facts.definition.as_ref())?;
        let tablespaces = self.client.sql(None, "select spcname from pg_tablespace")?;
        let tablespaces: Vec<String> = tablespaces.lines().map(str::to_owned).collect();
        let create = definition.create(&beside, self.major, &tablespaces);
        // Told to stop, psql may have made it all the same.
        let made = self.client.sql(None, &create).and_then(|_| self.make(&beside, &definition));
        let (errors, set_aside) = match made {
            Ok(made) => made,
            Err(error) => {
                let dropped = swap::drop_database(&self.client.unstoppable(), &beside, self.major);
                return Err(match dropped {
                    Ok(()) => error,
                    Err(_) => {
                        error.hint(format!("what was restored so far is in database {beside:?}: drop it"))
                    }
                });
            }
        };
        let (database, leftovers) = (self.name, self.leftovers);
        Ok(DumpRestored { dump: facts, database, set_aside, errors, leftovers })
    }

    fn make(&self, beside: &str, definition: &Definition) -> Result<(Vec<String>, Option<String>)> {
        let errors = self.fill(beside, false)?;
        if let Some(script) = &self.request.transform {
            self.request.progress.note("the transformation runs");
            self.transform(beside, script)?;
        }
        // From here on it is brought to its end: it takes a moment.
        self.client.stop().check()?;
        let client = self.client.unstoppable();
        let complete = definition.complete(beside, !self.request.no_owner);
        client.sql(None, &complete).map_err(|error| {
            error.during("giving the database its owner, privileges and settings").hint(
                "roles come with the globals: 'dump restore ID --globals' first, or --no-owner leaves them out",
            )
        })?;
        let set_aside = match self.exists {
            false => swap::rename(&client, beside, &self.name).map(|()| None)?,
            true => Some(swap::swap(&client, beside, &self.name)?),
        };
        if self.request.existing != Existing::Replace {
            return Ok((errors, set_aside));
        }
        if let Some(old) = &set_aside {
            swap::drop_database(&client, old, self.major).map_err(|error| {
                error.during(format!("the dump is in place; dropping the old database, now {old:?}"))
            })?;
        }
        Ok((errors, None))
    }

    fn transform(&self, database: &str, script: &Path) -> Result<()> {
        let during = |error: Error| error.during(format!("running {}", script.display()));
        let mut command = self.client.command("psql")?;
        command
            .args(["-X", "-q", "--single-transaction", "-v", "ON_ERROR_STOP=1", "-d"])
            .arg(libpq::dbname(database));
        if programs::restricts(&self.client.programs().version) {
            command.arg("-c").arg(format!("\\restrict {}", script::key()?));
        }
        let mut running = self.client.start(command.arg("-f").arg(script), Stdio::null())?;
        running.drain()?;
        let (status, complaints) = running.wait()?;
        match status.code() {
            Some(0) => Ok(()),
            Some(SCRIPT_FAILED) => {
                let told = told(&complaints).join("; ");
                Err(during(Error::new(Kind::Unrestorable, told).hint("nothing was changed; mend the script")))
            }
            _ => Err(during(failed("psql", status, &complaints))),
        }
    }

    /// Restores into a database; what failed, if that is allowed.
    fn fill(&self, database: &str, at_once: bool) -> Result<Vec<String>> {
        let facts = &self.reader.manifest.facts;
        let total = facts.data_bytes;
        self.request.progress.begin(&format!("restore {:?}", facts.database), total);
        if !at_once {
            self.request.selection.make_schemas(&self.client, database)?;
        }
        let filled = match facts.dump_format {
            DumpFormat::Plain => plain::fill(
                &self.client,
                &self.reader,
                database,
                self.major,
                self.request.allow_errors,
                self.progress(),
            ),
            DumpFormat::Custom if self.request.jobs < 2 => self.pg_restore_piped(database, at_once),
            DumpFormat::Custom | DumpFormat::Directory => self.pg_restore_from_scratch(database, at_once),
        };
        self.request.progress.end();
        let errors = filled?;
        self.request.selection.prove(&self.client, database)?;
        Ok(errors)
    }

    fn progress(&self) -> &dyn Progress {
        self.request.progress.as_ref()
    }

    fn pg_restore(&self, database: &str, at_once: bool) -> Result<std::process::Command> {
        let mut command = self.client.command("pg_restore")?;
        command.arg("-d").arg(libpq::dbname(database));
        if self.request.no_owner {
            command.args(["--no-owner", "--no-privileges"]);
        }
        if at_once {
            command.arg("--single-transaction");
        }
        self.request.selection.add_to(&mut command);
        Ok(command)
    }

    fn pg_restore_piped(&self, database: &str, at_once: bool) -> Result<Vec<String>> {
        let mut command = self.pg_restore(database, at_once)?;
        let mut running = self.client.start(command.arg("-Fc"), Stdio::piped())?;
        let input = running.input()?;
        let given = plain::give(&self.reader, input, self.client.stop(), self.progress());
        self.end(running, given)
    }

    fn pg_restore_from_scratch(&self, database: &str, at_once: bool) -> Result<Vec<String>> {
        let dir = files::scratch_dir(self.request.scratch_dir.as_deref())
            .map_err(|error| error.hint("dump.scratch_dir (or TMPDIR) names a place for it"))?;
        let from = dir.path().join("dump");
        export::write(&self.reader, &from, self.client.stop(), self.progress())?;
        let mut command = self.pg_restore(database, at_once)?;
        // Several connections cannot share a transaction.
        if self.request.jobs > 1 && !at_once {
            command.args(["-j", &self.request.jobs.to_string()]);
        }
        let mut running = self.client.start(command.arg(&from), Stdio::null())?;
        let drained = running.drain();
        self.end(running, drained)
    }

    /// Waits for pg_restore. What it says of its own failure tells more than that it stopped reading; a dump that does not
    /// hold tells more than both.
    fn end(&self, running: Running, given: Result<()>) -> Result<Vec<String>> {
        if let Err(error) = given.as_ref().map_err(Error::kind)
            && matches!(error, Kind::Damaged | Kind::Key)
        {
            drop(running);
            return given.map(|()| Vec::new());
        }
        let (status, complaints) = running.wait()?;
        let errors = real_errors(&complaints);
        if !status.success() && (status.code() != Some(1) || !only_ignored(&complaints)) {
            return Err(failed("pg_restore", status, &complaints));
        }
        if !errors.is_empty() && !self.request.allow_errors {
            let told: Vec<_> = errors.iter().take(3).cloned().collect();
            let count = errors.len();
            return Err(Error::new(Kind::Unrestorable, format!("{count} statements failed: {}", told.join("; "))).hint(
                "roles come with the globals ('dump restore ID --globals'), or --no-owner leaves owners and privileges out; \
                 --allow-errors keeps what could be restored",
            ));
        }
        given?;
        Ok(errors)
    }
}

/// Statements that failed. A setting that only newer servers know is not missed.
fn real_errors(complaints: &[String]) -> Vec<String> {
    let is_real =
        |line: &&String| line.contains("error:") && !line.contains("unrecognized configuration parameter");
    complaints.iter().filter(is_real).cloned().collect()
}

/// Whether pg_restore went on to its end.
fn only_ignored(complaints: &[String]) -> bool {
    complaints.iter().any(|line| line.contains("errors ignored on restore"))
}

/// The last of many complaints are in there, too.
fn told(complaints: &Complaints) -> Vec<String> {
    complaints.iter().filter(|line| line.contains("ERROR:") || line.contains("error:")).cloned().collect()
}

/// The roles that a server has, as SQL writes their names.
fn roles(client: &Client) -> Result<Vec<String>> {
    let names = client.sql(None, "select quote_ident(rolname) from pg_roles")?;
    Ok(names.lines().map(str::to_owned).collect())
}

/// SQL that renames a database.
fn rename_sql(from: &str, to: &str) -> String {
    format!("ALTER DATABASE {} RENAME TO {};", identifier(from), identifier(to))
}

/// SQL that ends the sessions of a database, but this one.
fn end_sessions_sql(database: &str) -> String {
    format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = {} AND pid <> pg_backend_pid();",
        literal(database)
    )
}
