//! PostgreSQL's programs: which are here, and where.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use walarchive_core::{Error, Kind, Result};

/// Directories that hold directories of installed versions: the parent, how a name begins, and what follows the name.
const PACKAGED: [(&str, &str, &str); 4] = [
    ("/usr/lib/postgresql", "", "bin"),
    ("/usr", "pgsql-", "bin"),
    ("/usr/lib", "postgresql", "bin"),
    ("/usr/local", "pgsql", "bin"),
];

/// What the demo cannot do without.
const NEEDED: [&str; 2] = ["initdb", "postgres"];
/// What it uses where it is installed.
pub(super) const PGBENCH: &str = "pgbench";
pub(super) const PG_VERIFYBACKUP: &str = "pg_verifybackup";

/// One installation of PostgreSQL.
#[derive(Debug, Clone)]
pub(super) struct Programs {
    /// The directory of its programs.
    pub(super) bin: PathBuf,
    /// Its version, as it says it.
    pub(super) version: String,
    number: Vec<u32>,
}

impl Programs {
    /// The installation in `chosen`; without a choice the newest that is found.
    pub(super) fn find(chosen: Option<&Path>) -> Result<Programs> {
        if let Some(bin) = chosen {
            let bin = std::path::absolute(bin)
                .map_err(|error| Error::io(format!("cannot resolve {}", bin.display()), error))?;
            return Programs::in_dir(&bin).ok_or_else(|| missing_in(&bin));
        }
        let mut found: Vec<_> = places().iter().filter_map(|bin| Programs::in_dir(bin)).collect();
        // The first of equals wins: it stands earlier in PATH.
        found.reverse();
        found.into_iter().max_by_key(|found| (found.number.clone(), found.extent())).ok_or_else(missing)
    }

    /// How many of the programs that may be missing are there: links in PATH are often to the server's alone.
    fn extent(&self) -> usize {
        [PGBENCH, PG_VERIFYBACKUP].iter().filter(|name| self.optional(name).is_some()).count()
    }

    fn in_dir(bin: &Path) -> Option<Programs> {
        if !NEEDED.iter().all(|name| is_executable(bin.join(name))) {
            return None;
        }
        let output = Command::new(bin.join("postgres")).arg("--version").output().ok()?;
        let text = String::from_utf8(output.stdout).ok().filter(|_| output.status.success())?;
        let version = text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
        let digits = version.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse().ok());
        Some(Programs { bin: bin.to_owned(), version: version.to_owned(), number: digits.collect() })
    }

    /// A program that is needed.
    pub(super) fn needed(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    /// A program that may be missing: some packages come without it.
    pub(super) fn optional(&self, name: &str) -> Option<PathBuf> {
        Some(self.bin.join(name)).filter(|file| is_executable(file))
    }
}

fn places() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = env::split_paths(&path).filter(|place| place.is_absolute()).collect();
    for (parent, begins, below) in PACKAGED {
        let entries = fs::read_dir(parent).into_iter().flatten().flatten();
        let named = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(begins));
        places.extend(named.map(|entry| entry.path().join(below)));
    }
    places
}

fn is_executable(file: impl AsRef<OsStr>) -> bool {
    fs::metadata(Path::new(&file)).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

fn missing_in(bin: &Path) -> Error {
    let message = format!("PostgreSQL's {} are not in {}", NEEDED.join(" and "), bin.display());
    Error::usage(message)
        .on(bin.display())
        .hint("--pg-bin names the directory of the server's programs, for example /usr/lib/postgresql/17/bin")
}

fn missing() -> Error {
    let looked = "PATH, /usr/lib/postgresql/*/bin, /usr/pgsql-*/bin and /usr/local/pgsql/bin";
    Error::new(
        Kind::Local,
        format!("PostgreSQL's server is not installed: no {} in {looked}", NEEDED.join(" and ")),
    )
    .hint(
        "install it (apt install postgresql, dnf install postgresql-server postgresql-contrib), \
             or say --pg-bin DIR",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fake(dir: &Path, name: &str, text: &str) {
        let file = dir.join(name);
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn an_installation_needs_both_programs_and_a_version() {
        let dir = tempfile::tempdir().unwrap();
        let find = || Programs::find(Some(dir.path()));
        let error = find().unwrap_err();
        assert_eq!(error.kind(), Kind::Usage);
        assert!(error.story().contains(&dir.path().display().to_string()), "{}", error.story());
        fake(dir.path(), "initdb", "#!/bin/sh\n");
        assert!(find().is_err());
        fake(dir.path(), "postgres", "#!/bin/sh\nexit 1\n");
        assert!(find().is_err());
        fake(dir.path(), "postgres", "#!/bin/sh\necho 'postgres (PostgreSQL) 18beta1 (Somebody 18~1)'\n");
        let found = find().unwrap();
        assert_eq!((found.version.as_str(), found.number), ("18beta1", vec![18]));
    }

    #[test]
    fn a_program_that_cannot_be_run_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        fake(dir.path(), "initdb", "#!/bin/sh\n");
        fake(dir.path(), "postgres", "#!/bin/sh\necho 'postgres (PostgreSQL) 15.3'\n");
        fs::write(dir.path().join("pgbench"), "").unwrap();
        let found = Programs::find(Some(dir.path())).unwrap();
        assert_eq!(found.number, [15, 3]);
        assert_eq!(found.optional("pgbench"), None);
    }
}
