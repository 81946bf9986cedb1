//! What the server has to dump.

use serde::Deserialize;
use serde_json::Value;

use super::plan::Database;
use crate::error::{Error, Kind, Result};
use crate::postgres::client::Client;

/// What is asked for each database: its size, and what a dump does not say of it. Columns that only some versions have are
/// taken from the row as a whole.
const DATABASES: &str = "select coalesce(json_agg(json_build_object(
  'name', d.datname, 'template', d.datistemplate, 'connects', d.datallowconn,
  'bytes', case when has_database_privilege(d.oid, 'connect') then pg_database_size(d.oid) else 0 end,
  'definition', json_build_object(
    'encoding', pg_encoding_to_char(d.encoding), 'collate', d.datcollate, 'ctype', d.datctype,
    'provider', to_jsonb(d)->>'datlocprovider',
    'locale', coalesce(to_jsonb(d)->>'datlocale', to_jsonb(d)->>'daticulocale'),
    'icu_rules', to_jsonb(d)->>'daticurules',
    'owner', pg_get_userbyid(d.datdba),
    'tablespace', (select t.spcname from pg_tablespace t where t.oid = d.dattablespace),
    'connection_limit', d.datconnlimit, 'template', d.datistemplate,
    'comment', shobj_description(d.oid, 'pg_database'),
    'grants', (select json_agg(json_build_object('to', case a.grantee when 0 then null else pg_get_userbyid(a.grantee) end,
      'privilege', a.privilege_type, 'grantable', a.is_grantable)) from aclexplode(d.datacl) a),
    'settings', (select json_agg(json_build_object('role', case s.setrole when 0 then null else pg_get_userbyid(s.setrole) end,
      'values', s.setconfig)) from pg_db_role_setting s where s.setdatabase = d.oid))
  ) order by d.datname), '[]') from pg_database d";

/// A database as the server tells of it.
#[derive(Debug, Deserialize)]
struct Row {
    name: String,
    template: bool,
    connects: bool,
    bytes: u64,
    definition: Value,
}

/// What is known of the server before the first dump.
pub(super) struct Server {
    pub(super) major: u32,
    pub(super) version: String,
    /// Unknown to roles that may not ask.
    pub(super) system_id: Option<String>,
    databases: Vec<Row>,
}

impl Server {
    /// Asks the server.
    pub(super) fn ask(client: &Client) -> Result<Server> {
        let (major, version) = client.server_version()?;
        let text = client.sql(None, DATABASES)?;
        let databases = serde_json::from_str(&text).map_err(|error| {
            Error::new(Kind::Unreachable, "the server's list of databases cannot be read").because(error)
        })?;
        let system_id = client.sql(None, "select system_identifier from pg_control_system()").ok();
        Ok(Server { major, version, system_id, databases })
    }

    /// The databases that can be dumped. Templates are dumped only when they are named as they are.
    pub(super) fn databases(&self, named: &[String]) -> Vec<Database> {
        let wanted = |row: &&Row| row.connects && (!row.template || named.contains(&row.name));
        let rows = self.databases.iter().filter(wanted);
        rows.map(|row| Database { name: row.name.clone(), bytes: row.bytes }).collect()
    }

    /// The databases that nobody can connect to, templates apart.
    pub(super) fn closed(&self) -> impl Iterator<Item = &str> {
        self.databases.iter().filter(|row| !row.connects && !row.template).map(|row| row.name.as_str())
    }

    /// What a dump does not say of its database.
    pub(super) fn definition(&self, name: &str) -> Option<Value> {
        self.databases.iter().find(|row| row.name == name).map(|row| row.definition.clone())
    }
}
