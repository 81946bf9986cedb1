//! Roles and tablespaces.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::{roles, told};
use crate::archive::{BackupId, Catalog, DumpContent, DumpFacts, StreamsReader};
use crate::crossing::blocking;
use crate::error::{Error, Kind, Result};
use crate::files;
use crate::postgres::client::{Client, failed, literal};
use crate::postgres::conninfo::ConnInfo;
use crate::postgres::programs::Programs;
use crate::postgres::stop::Stop;

/// No server has more roles than fit into this.
const SCRIPT_MAX: u64 = 256 << 20;

/// What became of globals that were restored.
#[derive(Debug, Clone)]
pub struct GlobalsDone {
    /// The dump.
    pub dump: DumpFacts,
    /// Roles that were there, and stayed as they were.
    pub left_alone: Vec<String>,
    /// Statements that failed, as where a tablespace's directory is missing.
    pub errors: Vec<String>,
}

/// Makes the roles and tablespaces that a server lacks. Roles that are there stay as they are, passwords included, unless
/// `overwrite` is said.
pub async fn restore_globals(
    catalog: &Catalog,
    id: &BackupId,
    connection: ConnInfo,
    bin_dir: Option<PathBuf>,
    overwrite: bool,
    stop: Stop,
) -> Result<GlobalsDone> {
    let change = move |script: String, there: &[String]| {
        Ok(if overwrite { (script, Vec::new()) } else { without(&script, there) })
    };
    run(catalog, id, Client::new(Programs::any(bin_dir.as_deref())?, connection, stop), change)
        .await
        .map_err(|error| error.during(format!("restoring the globals of dump {id}")))
}

/// The same in a server that is for nothing else: its tablespaces are made below `dir`, and not where those of the original are.
pub async fn rehearse_globals(
    catalog: &Catalog,
    id: &BackupId,
    connection: ConnInfo,
    bin_dir: Option<PathBuf>,
    dir: PathBuf,
) -> Result<GlobalsDone> {
    let change = move |script: String, there: &[String]| {
        let (script, left_alone) = without(&script, there);
        Ok((relocated(&script, &dir)?, left_alone))
    };
    run(catalog, id, Client::new(Programs::any(bin_dir.as_deref())?, connection, Stop::default()), change)
        .await
        .map_err(|error| error.during(format!("rehearsing the globals of dump {id}")))
}

/// Runs the script, changed with regard to the roles that are there.
async fn run(
    catalog: &Catalog,
    id: &BackupId,
    client: Client,
    change: impl FnOnce(String, &[String]) -> Result<(String, Vec<String>)> + Send + 'static,
) -> Result<GlobalsDone> {
    let reader = StreamsReader::open(catalog, id).await?;
    let facts = reader.manifest.facts.clone();
    if facts.content != DumpContent::Globals {
        return Err(Error::usage(format!(
            "dump {id} is of database {:?}, and not of the globals",
            facts.database
        )));
    }
    blocking(move || {
        let script = whole(&reader)?;
        let (script, left_alone) = change(script, &roles(&client)?)?;
        let mut command = client.command("psql")?;
        let mut running = client.start(command.args(["-X", "-q", "-f", "-"]), Stdio::piped())?;
        running.talk(script.into_bytes())?;
        let (status, complaints) = running.wait()?;
        if !status.success() {
            return Err(failed("psql", status, &complaints));
        }
        let is_new = |line: &String| !line.contains("already exists");
        let errors = told(&complaints).into_iter().filter(is_new).collect();
        Ok(GlobalsDone { dump: facts, left_alone, errors })
    })
    .await
}

/// The script with other directories for its tablespaces, which are made.
fn relocated(script: &str, dir: &Path) -> Result<String> {
    let mut text = String::with_capacity(script.len());
    for (number, line) in script.split_inclusive('\n').enumerate() {
        let Some(rest) = line.strip_prefix("CREATE TABLESPACE ") else {
            text.push_str(line);
            continue;
        };
        let name = first_name(rest);
        if !line.trim_end_matches('\n').ends_with("';") {
            return Err(Error::usage(format!(
                "the place of tablespace {name} has a line break; it cannot be rehearsed"
            )));
        }
        let owner = rest.get(name.len()..).and_then(|rest| rest.strip_prefix(" OWNER ")).map(first_name);
        let owner = owner.map(|owner| format!(" OWNER {owner}")).unwrap_or_default();
        let place = dir.join(format!("tablespace{number}"));
        files::make_dir(&place, 0o700)?;
        text.push_str(&format!(
            "CREATE TABLESPACE {name}{owner} LOCATION {};\n",
            literal(&place.to_string_lossy())
        ));
    }
    Ok(text)
}

/// The roles and tablespaces of globals, by their names as SQL writes them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GlobalNames {
    /// Roles.
    pub roles: Vec<String>,
    /// Tablespaces.
    pub tablespaces: Vec<String>,
}

/// Reads the names out of a dump of globals.
pub async fn names_in_globals(catalog: &Catalog, id: &BackupId) -> Result<GlobalNames> {
    let reader = StreamsReader::open(catalog, id).await?;
    blocking(move || Ok(names_in(&whole(&reader)?))).await
}

fn names_in(script: &str) -> GlobalNames {
    let made = |what: &str| {
        let names = script.lines().filter_map(|line| line.strip_prefix(what)).map(first_name);
        names.map(str::to_owned).collect()
    };
    GlobalNames { roles: made("CREATE ROLE "), tablespaces: made("CREATE TABLESPACE ") }
}

fn whole(reader: &StreamsReader) -> Result<String> {
    let [stream] = reader.streams() else {
        return Err(Error::damaged("a dump in one file has several streams"));
    };
    if stream.record.size > SCRIPT_MAX {
        return Err(Error::new(Kind::Damaged, "the globals have an impossible length"));
    }
    let mut text = Vec::new();
    reader.read(stream, &mut |bytes| {
        text.extend_from_slice(bytes);
        Ok(())
    })?;
    String::from_utf8(text).map_err(|_| Error::damaged("the globals are not text"))
}

/// The script without the statements that make or change roles that are there.
fn without(script: &str, there: &[String]) -> (String, Vec<String>) {
    let mut left_alone = Vec::new();
    let mut kept = String::with_capacity(script.len());
    for line in script.split_inclusive('\n') {
        let role =
            ["CREATE ROLE ", "ALTER ROLE "].iter().find_map(|begin| line.strip_prefix(begin)).map(first_name);
        match role.filter(|role| there.iter().any(|known| known == role)) {
            Some(role) if !left_alone.iter().any(|known| known == role) => left_alone.push(role.to_owned()),
            Some(_) => {}
            None => kept.push_str(line),
        }
    }
    (kept, left_alone)
}

/// The name that a statement goes on with, as SQL writes it.
fn first_name(text: &str) -> &str {
    let end = if text.starts_with('"') {
        let mut rest = text.char_indices().skip(1).peekable();
        let mut end = text.len();
        while let Some((at, c)) = rest.next() {
            if c == '"' && rest.next_if(|(_, next)| *next == '"').is_none() {
                end = at + 1;
                break;
            }
        }
        end
    } else {
        text.find([' ', ';']).unwrap_or(text.len())
    };
    text.get(..end).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tablespaces_of_a_rehearsal_are_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let script = "CREATE ROLE app;\nCREATE TABLESPACE \"o \"\"d\" OWNER app LOCATION '/srv/it''s';\nCREATE TABLESPACE s LOCATION '/t';\n";
        let place = |number: u32| dir.path().join(format!("tablespace{number}"));
        let expected = format!(
            "CREATE ROLE app;\nCREATE TABLESPACE \"o \"\"d\" OWNER app LOCATION '{}';\nCREATE TABLESPACE s LOCATION '{}';\n",
            place(1).display(),
            place(2).display()
        );
        assert_eq!(relocated(script, dir.path()).unwrap(), expected);
        assert!(place(1).is_dir() && place(2).is_dir());
        let broken = "CREATE TABLESPACE s OWNER app LOCATION '/a\nb';\n";
        assert!(relocated(broken, dir.path()).is_err());
    }

    #[test]
    fn roles_that_are_there_are_left_alone() {
        let script = "CREATE ROLE app;\nALTER ROLE app WITH LOGIN;\nCREATE ROLE \"o \"\"dd\";\nALTER ROLE \"o \"\"dd\" WITH LOGIN;\n\
                      CREATE ROLE new;\nALTER ROLE new WITH LOGIN;\nGRANT app TO new;\n";
        let there = ["app".to_owned(), "\"o \"\"dd\"".to_owned()];
        let (kept, left) = without(script, &there);
        assert_eq!(kept, "CREATE ROLE new;\nALTER ROLE new WITH LOGIN;\nGRANT app TO new;\n");
        assert_eq!(left, there);
    }
}
