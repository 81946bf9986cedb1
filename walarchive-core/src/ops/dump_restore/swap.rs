//! One database in the place of another.

use std::time::Duration;

use super::{NAME_MAX, end_sessions_sql, rename_sql};
use crate::error::{Error, Kind, Result};
use crate::postgres::client::{Client, identifier, literal};

/// Clients connect again between the end of their sessions and the renaming: it is tried so often.
const TRIES: u32 = 10;
const PAUSE: Duration = Duration::from_millis(200);
/// Characters of a passing name that nobody else has.
const RANDOM: usize = 8;

pub(super) fn exists(client: &Client, name: &str) -> Result<bool> {
    let found = client.sql(None, &format!("select 1 from pg_database where datname = {}", literal(name)))?;
    Ok(!found.is_empty())
}

/// Databases that were to get this name, of restores that did not come to their end.
pub(super) fn leftovers(client: &Client, name: &str) -> Result<Vec<String>> {
    let sql = format!(
        "select coalesce(json_agg(datname), '[]') from pg_database where left(datname, -8) = {} and right(datname, 8) ~ '^[0-9a-f]{{8}}$'",
        literal(&format!("{}_restore_", beginning(name, RANDOM + "_restore_".len())))
    );
    let names = client.sql(None, &sql)?;
    serde_json::from_str(&names).map_err(|error| {
        Error::new(Kind::Unreachable, "the server's list of databases cannot be read").because(error)
    })
}

/// So much of a name that `more` bytes may follow.
fn beginning(name: &str, more: usize) -> &str {
    let mut end = name.len().min(NAME_MAX - more);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name.get(..end).unwrap_or_default()
}

/// A name that says what it is of and what for, and that nobody has.
pub(super) fn name_beside(name: &str, what: &str) -> Result<String> {
    let random = getrandom::u32()
        .map_err(|error| Error::new(Kind::Local, "the system gives no random numbers").because(error))?;
    let behind = format!("_{what}_{random:08x}");
    Ok(format!("{}{behind}", beginning(name, behind.len())))
}

/// Gives a database a name that nobody has; whoever is connected to it is not asked.
pub(super) fn rename(client: &Client, from: &str, to: &str) -> Result<()> {
    again(|| client.sql(None, &format!("{}{}", end_sessions_sql(from), rename_sql(from, to))).map(drop))
        .map_err(|error| error.during(format!("giving the restored database the name {to:?}")))
}

/// Puts a database in the place of another, at one moment; gives the name that the other has now.
pub(super) fn swap(client: &Client, new: &str, name: &str) -> Result<String> {
    let aside = name_beside(name, "before")?;
    let sql = format!(
        "BEGIN;\n{}{}{}{}\nCOMMIT;",
        end_sessions_sql(name),
        end_sessions_sql(new),
        rename_sql(name, &aside),
        rename_sql(new, name)
    );
    again(|| client.sql(None, &sql).map(drop)).map_err(|error| {
        error
            .during(format!("swapping the restored database for {name:?}"))
            .hint("end the sessions of its clients, then again")
    })?;
    Ok(aside)
}

pub(super) fn drop_database(client: &Client, name: &str, major: u32) -> Result<()> {
    let _ = client.sql(None, &format!("ALTER DATABASE {} IS_TEMPLATE false;", identifier(name)));
    let force = if major >= 13 { " WITH (FORCE)" } else { "" };
    client.sql(None, &format!("DROP DATABASE IF EXISTS {}{force};", identifier(name))).map(drop)
}

fn again(mut attempt: impl FnMut() -> Result<()>) -> Result<()> {
    for _ in 1..TRIES {
        if attempt().is_ok() {
            return Ok(());
        }
        std::thread::sleep(PAUSE);
    }
    attempt()
}
