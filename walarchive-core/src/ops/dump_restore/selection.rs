//! Parts of a dump.

use std::collections::BTreeSet;
use std::fmt;
use std::process::Command;
use std::str::FromStr;

use crate::error::{Error, Kind, Result};
use crate::postgres::client::{Client, identifier, literal};

/// Which parts of a database are restored, by their names as they are; nothing said means all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Only these schemas.
    pub schemas: Vec<String>,
    /// Only these tables, with their data; not what only belongs to them, such as indexes.
    pub tables: Vec<TableName>,
}

/// A table, of one schema or of any: `NAME` or `SCHEMA.NAME`, each as it is, or in double quotes where it has a dot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableName {
    /// Its schema, where there are several of a name.
    pub schema: Option<String>,
    /// Its own name.
    pub name: String,
}

impl FromStr for TableName {
    type Err = Error;

    fn from_str(text: &str) -> Result<TableName> {
        let wrong = || {
            Error::usage(format!("{text} does not name a table")).hint(
                "write it as NAME or SCHEMA.NAME; a name with dots in double quotes, as \"SCHEMA\".\"a.b\"",
            )
        };
        let mut parts = parts(text).ok_or_else(wrong)?;
        let name = parts.pop().ok_or_else(wrong)?;
        let schema = parts.pop();
        if parts.is_empty() { Ok(TableName { schema, name }) } else { Err(wrong()) }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let schema = self.schema.as_ref().map(|schema| format!("{schema:?}."));
        write!(f, "{}{:?}", schema.unwrap_or_default(), self.name)
    }
}

/// The name of a schema: as it is, or in double quotes.
pub fn schema_name(text: &str) -> Result<String> {
    if !text.starts_with('"') {
        return Ok(text.to_owned());
    }
    match parts(text).as_deref() {
        Some([name]) => Ok(name.clone()),
        _ => Err(Error::usage(format!("{text} does not name a schema")).hint("a quote in it is doubled")),
    }
}

/// Names with dots between them, some of them in double quotes, in which a quote is doubled.
fn parts(text: &str) -> Option<Vec<String>> {
    let mut parts = vec![String::new()];
    let (mut chars, mut is_quoted) = (text.chars().peekable(), false);
    let mut is_begin = true;
    while let Some(c) = chars.next() {
        let part = parts.last_mut()?;
        match c {
            '"' if is_quoted && chars.next_if_eq(&'"').is_some() => part.push('"'),
            '"' if is_quoted => {
                is_quoted = false;
                if chars.peek().is_some_and(|next| *next != '.') {
                    return None;
                }
            }
            '"' if is_begin => is_quoted = true,
            '.' if !is_quoted => parts.push(String::new()),
            c => part.push(c),
        }
        is_begin = c == '.' && !is_quoted;
    }
    (!is_quoted && parts.iter().all(|part| !part.is_empty())).then_some(parts)
}

impl Selection {
    /// Whether it is everything.
    pub fn is_all(&self) -> bool {
        self.schemas.is_empty() && self.tables.is_empty()
    }

    /// Refuses what pg_restore would take for more or less than is meant: it looks for each table in each schema.
    pub(super) fn check(&self) -> Result<()> {
        let of_tables: BTreeSet<Option<&str>> = self.named_tables().map(|(schema, _)| schema).collect();
        let is_mixed =
            of_tables.len() > 1 || (!self.schemas.is_empty() && of_tables.iter().any(Option::is_some));
        match is_mixed {
            false => Ok(()),
            true => Err(Error::usage("tables of several schemas cannot be restored at once")
                .hint("one run for each schema: --add puts the second into the same database")),
        }
    }

    /// pg_restore knows tables by their names alone.
    pub(super) fn add_to(&self, command: &mut Command) {
        for schema in self.all_schemas() {
            command.arg(format!("--schema={schema}"));
        }
        for (_, table) in self.named_tables() {
            command.arg(format!("--table={table}"));
        }
    }

    fn named_tables(&self) -> impl Iterator<Item = (Option<&str>, &str)> {
        self.tables.iter().map(|table| (table.schema.as_deref(), table.name.as_str()))
    }

    fn all_schemas(&self) -> BTreeSet<&str> {
        let of_tables = self.named_tables().filter_map(|(schema, _)| schema);
        self.schemas.iter().map(String::as_str).chain(of_tables).collect()
    }

    /// What is in a schema is restored without it: in a new database it has to be made.
    pub(super) fn make_schemas(&self, client: &Client, database: &str) -> Result<()> {
        for schema in self.all_schemas() {
            client.sql(Some(database), &format!("CREATE SCHEMA IF NOT EXISTS {};", identifier(schema)))?;
        }
        Ok(())
    }

    /// Proves that what was asked for is there: pg_restore says nothing of names that a dump does not have.
    pub(super) fn prove(&self, client: &Client, database: &str) -> Result<()> {
        for (schema, table) in self.named_tables() {
            let in_schema =
                schema.map(|schema| format!(" AND n.nspname = {}", literal(schema))).unwrap_or_default();
            let sql = format!(
                "SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relname = {}{in_schema} LIMIT 1",
                literal(table)
            );
            missing(client.sql(Some(database), &sql)?.is_empty(), "table", table)?;
        }
        for schema in &self.schemas {
            let sql = format!(
                "SELECT 1 FROM pg_namespace n WHERE n.nspname = {} AND (EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = n.oid) \
                 OR EXISTS (SELECT FROM pg_proc p WHERE p.pronamespace = n.oid) OR EXISTS (SELECT FROM pg_type t WHERE t.typnamespace = n.oid))",
                literal(schema)
            );
            missing(client.sql(Some(database), &sql)?.is_empty(), "schema", schema)?;
        }
        Ok(())
    }
}

fn missing(is_missing: bool, what: &str, name: &str) -> Result<()> {
    match is_missing {
        false => Ok(()),
        true => Err(Error::new(Kind::Absent, format!("the dump has no {what} {name:?}, or nothing in it"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_they_are_or_quoted() {
        let read = |text: &str| text.parse::<TableName>().map(|table| (table.schema, table.name)).ok();
        let name = |schema: Option<&str>, name: &str| Some((schema.map(str::to_owned), name.to_owned()));
        assert_eq!(read("Orders"), name(None, "Orders"));
        assert_eq!(read("s.a b"), name(Some("s"), "a b"));
        assert_eq!(read("\"a.b\""), name(None, "a.b"));
        assert_eq!(read("\"s.t\".\"a\"\".b\""), name(Some("s.t"), "a\".b"));
        assert_eq!(read("s.\"a.b\""), name(Some("s"), "a.b"));
        assert_eq!(read("a\"b"), name(None, "a\"b"));
        for wrong in ["", ".", "s.", "a.b.c", "\"a", "\"a\"b", "\"\"", "\"a\".\"b\".c"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
        assert_eq!(schema_name("s.t").unwrap(), "s.t");
        assert_eq!(schema_name("\"s.\"\"t\"").unwrap(), "s.\"t");
        assert!(schema_name("\"s").is_err());
    }
}
