//! SQL that makes a database like the one that was dumped. Pure.

use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::postgres::client::{identifier, literal};

/// What a manifest says of a database besides its content; what it does not say is left to the server.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Definition {
    encoding: Option<String>,
    collate: Option<String>,
    ctype: Option<String>,
    provider: Option<String>,
    locale: Option<String>,
    icu_rules: Option<String>,
    pub(super) owner: Option<String>,
    tablespace: Option<String>,
    connection_limit: Option<i64>,
    template: Option<bool>,
    comment: Option<String>,
    grants: Option<Vec<Grant>>,
    settings: Option<Vec<Settings>>,
}

#[derive(Debug, Clone, Deserialize)]
struct Grant {
    to: Option<String>,
    privilege: String,
    grantable: bool,
}

#[derive(Debug, Clone, Deserialize)]
struct Settings {
    role: Option<String>,
    values: Vec<String>,
}

impl Definition {
    pub(super) fn read(value: Option<&Value>) -> Result<Definition> {
        match value {
            None => Ok(Definition::default()),
            Some(value) => serde_json::from_value(value.clone()).map_err(|error| {
                Error::damaged("the dump's definition of its database cannot be read").because(error)
            }),
        }
    }

    /// Makes an empty database. `tablespaces` are those that the server has.
    pub(super) fn create(&self, name: &str, major: u32, tablespaces: &[String]) -> String {
        let mut sql = format!("CREATE DATABASE {} TEMPLATE template0", identifier(name));
        let mut add = |word: &str, value: &Option<String>| {
            if let Some(value) = value {
                sql.push_str(&format!(" {word} {}", literal(value)));
            }
        };
        add("ENCODING", &self.encoding);
        add("LC_COLLATE", &self.collate);
        add("LC_CTYPE", &self.ctype);
        if major >= 15 {
            match self.provider.as_deref() {
                Some("i") => {
                    add("LOCALE_PROVIDER", &Some("icu".to_owned()));
                    add("ICU_LOCALE", &self.locale);
                    add("ICU_RULES", &self.icu_rules);
                }
                Some("b") => {
                    add("LOCALE_PROVIDER", &Some("builtin".to_owned()));
                    add("BUILTIN_LOCALE", &self.locale);
                }
                _ => add("LOCALE_PROVIDER", &Some("libc".to_owned())),
            }
        }
        if let Some(tablespace) = self.tablespace.as_ref().filter(|name| tablespaces.contains(name)) {
            sql.push_str(&format!(" TABLESPACE {}", identifier(tablespace)));
        }
        sql.push(';');
        sql
    }

    /// Gives the restored database what belongs to it: comment, owner, privileges, settings, limits.
    pub(super) fn complete(&self, name: &str, with_owner: bool) -> String {
        let database = identifier(name);
        let mut sql = Vec::new();
        if let Some(comment) = &self.comment {
            sql.push(format!("COMMENT ON DATABASE {database} IS {};", literal(comment)));
        }
        for settings in self.settings.iter().flatten() {
            // The server reads a value as it wrote it, whatever its syntax.
            let target = match &settings.role {
                None => format!("ALTER DATABASE {database}"),
                Some(_) if !with_owner => continue,
                Some(role) => format!("ALTER ROLE {} IN DATABASE {database}", identifier(role)),
            };
            for pair in &settings.values {
                let Some((setting, value)) = pair.split_once('=') else { continue };
                let quoted: Vec<_> = setting.split('.').map(identifier).collect();
                let quoted = quoted.join(".");
                sql.push(format!("SELECT set_config({}, {}, false);", literal(setting), literal(value)));
                sql.push(format!("{target} SET {quoted} FROM CURRENT;"));
                sql.push(format!("RESET {quoted};"));
            }
        }
        if with_owner {
            self.privileges(&database, &mut sql);
        }
        if let Some(limit) = self.connection_limit.filter(|limit| *limit >= 0) {
            sql.push(format!("ALTER DATABASE {database} CONNECTION LIMIT {limit};"));
        }
        if self.template == Some(true) {
            sql.push(format!("ALTER DATABASE {database} IS_TEMPLATE true;"));
        }
        sql.join("\n")
    }

    fn privileges(&self, database: &str, sql: &mut Vec<String>) {
        if let Some(owner) = &self.owner {
            sql.push(format!("ALTER DATABASE {database} OWNER TO {};", identifier(owner)));
        }
        let Some(grants) = &self.grants else { return };
        sql.push(format!("REVOKE ALL ON DATABASE {database} FROM PUBLIC;"));
        let is_known =
            |grant: &&Grant| matches!(grant.privilege.as_str(), "CREATE" | "CONNECT" | "TEMPORARY");
        for grant in grants.iter().filter(is_known) {
            let to = grant.to.as_deref().map_or("PUBLIC".to_owned(), identifier);
            let option = if grant.grantable { " WITH GRANT OPTION" } else { "" };
            sql.push(format!("GRANT {} ON DATABASE {database} TO {to}{option};", grant.privilege));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_made_as_it_was() {
        let value = serde_json::json!({
            "encoding": "UTF8", "collate": "C", "ctype": "C", "provider": "i", "locale": "de-AT", "icu_rules": null,
            "owner": "o\"x", "tablespace": "fast", "connection_limit": 5, "template": false, "comment": "it's",
            "grants": [{"to": null, "privilege": "CONNECT", "grantable": false}, {"to": "r", "privilege": "CREATE", "grantable": true}],
            "settings": [{"role": null, "values": ["search_path=\"$user\", app", "my.thing=1"]}, {"role": "r", "values": ["work_mem=4MB"]}],
        });
        let definition = Definition::read(Some(&value)).unwrap();
        let made = definition.create("a\"b", 15, &["fast".to_owned()]);
        assert_eq!(
            made,
            "CREATE DATABASE \"a\"\"b\" TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C' LOCALE_PROVIDER 'icu' \
             ICU_LOCALE 'de-AT' TABLESPACE \"fast\";"
        );
        assert!(!definition.create("x", 14, &[]).contains("PROVIDER"));
        let complete = definition.complete("x", true);
        for part in [
            "COMMENT ON DATABASE \"x\" IS 'it''s';",
            "SELECT set_config('search_path', '\"$user\", app', false);\nALTER DATABASE \"x\" SET \"search_path\" FROM CURRENT;",
            "ALTER ROLE \"r\" IN DATABASE \"x\" SET \"work_mem\" FROM CURRENT;",
            "ALTER DATABASE \"x\" SET \"my\".\"thing\" FROM CURRENT;",
            "ALTER DATABASE \"x\" OWNER TO \"o\"\"x\";\nREVOKE ALL ON DATABASE \"x\" FROM PUBLIC;",
            "GRANT CREATE ON DATABASE \"x\" TO \"r\" WITH GRANT OPTION;",
            "ALTER DATABASE \"x\" CONNECTION LIMIT 5;",
        ] {
            assert!(complete.contains(part), "{part}\n{complete}");
        }
        let without = definition.complete("x", false);
        assert!(!without.contains("OWNER") && !without.contains("GRANT") && !without.contains("ROLE"));
    }
}
