//! The programs of a server, which may be installed without those that connect to it.

use std::path::{Path, PathBuf};

use super::{Programs, is_executable, of_path, usual, version_of};
use crate::error::{Error, Kind, Result};

/// A server's programs, and client programs for it: beside them, or in another directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerPrograms {
    dir: PathBuf,
    clients: Programs,
    /// The server's major version.
    pub major: u32,
    /// The server's version, as it says it.
    pub version: String,
}

impl ServerPrograms {
    /// Of this major version, and of no other, with clients that are not older. What the directory that is named has of both is
    /// taken from there; the rest is looked for.
    pub fn of(named: Option<&Path>, major: u32) -> Result<ServerPrograms> {
        let has = |program: &str| named.filter(|dir| is_executable(&dir.join(program)));
        let (server, clients) = (has("postgres"), has("pg_dump"));
        if let Some(dir) = named.filter(|_| server.is_none() && clients.is_none()) {
            let message = format!("postgres.bin_dir: {} has neither postgres nor pg_dump", dir.display());
            return Err(Error::usage(message));
        }
        let (dir, version) = find(server, major)?;
        let beside = is_executable(&dir.join("pg_dump")).then_some(dir.as_path());
        let clients = Programs::for_server(clients.or(beside), major)?;
        Ok(ServerPrograms { dir, clients, major, version })
    }

    /// The client programs for it.
    pub fn clients(&self) -> &Programs {
        &self.clients
    }

    /// The path of one of the server's own programs.
    pub fn path(&self, program: &str) -> Result<PathBuf> {
        let path = self.dir.join(program);
        if is_executable(&path) {
            return Ok(path);
        }
        Err(Error::new(Kind::Local, format!("{} has no program {program}", self.dir.display()))
            .hint("install all of the server's package, or name its directory with postgres.bin_dir"))
    }
}

/// The directory of a server of this version: the one that is named, or else the first that has clients as well (links to a
/// server may lie anywhere), or else the first.
fn find(named: Option<&Path>, major: u32) -> Result<(PathBuf, String)> {
    let places = match named {
        Some(dir) => vec![dir.to_owned()],
        None => [of_path(), usual()].concat(),
    };
    let fits = |dir: PathBuf| {
        let program = dir.join("postgres");
        let (version, found, _) = is_executable(&program).then(|| version_of(&program).ok())??;
        (found == major).then_some((dir, version))
    };
    let has_clients = |dir: &PathBuf| is_executable(&dir.join("pg_dump"));
    let (whole, alone): (Vec<_>, Vec<_>) = places.into_iter().partition(has_clients);
    whole.into_iter().chain(alone).find_map(fits).ok_or_else(|| {
        let place = named.map(|dir| format!(" in {}", dir.display())).unwrap_or_default();
        Error::new(Kind::Local, format!("the server of PostgreSQL {major} is not installed{place}")).hint(
            format!(
                "install it (postgresql-{major}), or name the directory of its programs with postgres.bin_dir"
            ),
        )
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn dir_with(programs: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, version) in programs {
            let path = dir.path().join(name);
            fs::write(&path, format!("#!/bin/sh\necho '{name} (PostgreSQL) {version}'\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        dir
    }

    #[test]
    fn one_directory_may_have_both() {
        let both = dir_with(&[("postgres", "97.1"), ("pg_dump", "97.1"), ("pg_ctl", "97.1")]);
        let found = ServerPrograms::of(Some(both.path()), 97).unwrap();
        assert_eq!((found.version.as_str(), found.clients().major), ("97.1", 97));
        assert_eq!(found.path("pg_ctl").unwrap(), both.path().join("pg_ctl"));
        assert!(found.path("initdb").unwrap_err().story().contains("initdb"));
        let other = ServerPrograms::of(Some(both.path()), 96).unwrap_err();
        assert!(other.story().contains("PostgreSQL 96 is not installed in"), "{other:?}");
    }

    #[test]
    fn a_directory_with_neither_is_refused() {
        let none = dir_with(&[("psql", "97.1")]);
        let error = ServerPrograms::of(Some(none.path()), 97).unwrap_err();
        assert_eq!(error.kind(), Kind::Usage);
    }

    #[test]
    fn clients_are_not_taken_for_a_server_nor_older_ones_for_clients() {
        let clients = dir_with(&[("pg_dump", "98.1")]);
        let error = ServerPrograms::of(Some(clients.path()), 97).unwrap_err();
        assert!(error.story().contains("server of PostgreSQL 97"), "{error:?}");
        let older = dir_with(&[("postgres", "97.1"), ("pg_dump", "96.2")]);
        let error = ServerPrograms::of(Some(older.path()), 97).unwrap_err();
        assert!(error.story().contains("pg_dump 97 or newer"), "{error:?}");
    }
}
