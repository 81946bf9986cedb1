//! PostgreSQL's own programs: clients of the version that fits a server, and the server itself.

mod server;

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub use self::server::ServerPrograms;
use crate::error::{Error, Kind, Result};

/// Where distributions keep the programs of several versions: what stands for the version is between both parts.
const KNOWN: [(&str, &str); 3] = [("/usr/lib/postgresql", "bin"), ("/usr", "bin"), ("/opt", "bin")];
const ELSEWHERE: [&str; 2] = ["/usr/local/pgsql/bin", "/opt/homebrew/bin"];

/// The client programs in one directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs {
    dir: PathBuf,
    /// Their major version.
    pub major: u32,
    /// Their version, as they say it.
    pub version: String,
    minor: u32,
}

impl Programs {
    /// The programs for a server of this major version: in `dir`, if one is named; else those that PATH leads to, if
    /// they are of that version; else any of that version that are installed; else the newest, which must be newer than it.
    pub fn for_server(dir: Option<&Path>, major: u32) -> Result<Programs> {
        let found = installed(dir)?;
        let newest = |wanted: &dyn Fn(&Programs) -> bool| {
            found
                .iter()
                .filter(|programs| wanted(programs))
                .max_by_key(|programs| (programs.major, programs.minor))
        };
        let first = found.first().filter(|programs| programs.major == major);
        let fits = first
            .or_else(|| newest(&|programs| programs.major == major))
            .or_else(|| newest(&|programs| programs.major > major));
        fits.cloned().ok_or_else(|| too_old(&found, major, "the server"))
    }

    /// The programs that read what `pg_dump` of this major version wrote, for a server of major version `server`.
    pub fn for_dump(dir: Option<&Path>, dump: u32, server: u32) -> Result<Programs> {
        Programs::for_server(dir, server)
            .ok()
            .filter(|programs| programs.major >= dump)
            .map_or_else(|| Programs::for_server(dir, dump), Ok)
            .map_err(|error| error.during("looking for a pg_restore that reads this dump"))
    }

    /// Any of them: to ask a server for its version.
    pub fn any(dir: Option<&Path>) -> Result<Programs> {
        installed(dir)?.into_iter().next().ok_or_else(none)
    }

    /// The directory that is named, unless it has a server alone: then client programs are looked for.
    pub fn named(dir: Option<PathBuf>) -> Option<PathBuf> {
        dir.filter(|dir| is_executable(&dir.join("pg_dump")) || !is_executable(&dir.join("postgres")))
    }

    /// The path of a program.
    pub fn path(&self, program: &str) -> Result<PathBuf> {
        let path = self.dir.join(program);
        if is_executable(&path) {
            return Ok(path);
        }
        Err(Error::new(Kind::Local, format!("{} has no program {program}", self.dir.display()))
            .hint("install PostgreSQL's client programs, or name their directory with postgres.bin_dir"))
    }
}

fn none() -> Error {
    Error::new(Kind::Local, "pg_dump is not installed: neither PATH nor the usual directories have it")
        .hint("install PostgreSQL's client programs, or name their directory with postgres.bin_dir")
}

fn too_old(found: &[Programs], major: u32, what: &str) -> Error {
    if found.is_empty() {
        return none();
    }
    let versions: BTreeSet<_> = found.iter().map(|programs| programs.version.clone()).collect();
    let versions = versions.into_iter().collect::<Vec<_>>().join(", ");
    Error::new(Kind::Local, format!("pg_dump {major} or newer is needed for {what}; installed: {versions}"))
        .hint(format!(
            "install the client programs of PostgreSQL {major}, or name their directory with postgres.bin_dir"
        ))
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|facts| facts.is_file() && facts.permissions().mode() & 0o111 != 0)
}

/// All that can be found, those of PATH first. The first one of PATH is what people get when they type its name: one that
/// does not work is an error, not passed over.
fn installed(dir: Option<&Path>) -> Result<Vec<Programs>> {
    let has = |dir: &PathBuf| is_executable(&dir.join("pg_dump"));
    if let Some(dir) = dir {
        return match has(&dir.to_owned()) {
            true => Ok(vec![look(dir.to_owned())?]),
            false => Err(Error::usage(format!("postgres.bin_dir: {} has no pg_dump", dir.display()))),
        };
    }
    let mut found: Vec<Programs> = Vec::new();
    for dir in of_path().into_iter().filter(has) {
        match look(dir) {
            Ok(programs) => found.push(programs),
            Err(error) if found.is_empty() => return Err(error),
            Err(_) => {}
        }
    }
    found.extend(usual().into_iter().filter(has).filter_map(|dir| look(dir).ok()));
    Ok(found)
}

fn of_path() -> Vec<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect()
}

fn usual() -> Vec<PathBuf> {
    let mut dirs = Vec::new();
    for (above, below) in KNOWN {
        let entries = std::fs::read_dir(above).into_iter().flatten().flatten().map(|entry| entry.path());
        let named = |path: &PathBuf| {
            above.ends_with("postgresql")
                || path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("pgsql"))
        };
        dirs.extend(entries.filter(named).map(|path| path.join(below)));
    }
    dirs.sort();
    dirs.extend(ELSEWHERE.iter().map(PathBuf::from));
    dirs
}

fn look(dir: PathBuf) -> Result<Programs> {
    let program = dir.join("pg_dump");
    let (version, major, minor) = version_of(&program)?;
    Ok(Programs { dir, major, version, minor })
}

/// What a program says that its version is: all of it, its major and its minor number.
fn version_of(program: &Path) -> Result<(String, u32, u32)> {
    let shown = program.display();
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output();
    let output = output.map_err(|error| Error::io(format!("cannot run {shown}"), error))?;
    let said = String::from_utf8_lossy(&output.stdout);
    version(&said).filter(|_| output.status.success()).ok_or_else(|| {
        let status = output.status;
        let message =
            format!("'{shown} --version' does not say its version ({status}); it cannot be trusted");
        Error::new(Kind::Local, message)
            .hint("mend it, take it out of PATH, or name another directory with postgres.bin_dir")
    })
}

/// `pg_dump (PostgreSQL) 15.18 (Debian 15.18-1)`
fn version(said: &str) -> Option<(String, u32, u32)> {
    let version = said.split_once(") ")?.1.split_whitespace().next()?;
    let number = |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok();
    let (major, minor) = version.split_once('.').unwrap_or((version, "0"));
    Some((version.to_owned(), number(major)?, number(minor).unwrap_or(0)))
}

/// Whether pg_dump of this version begins plain dumps with a line that forbids psql's commands in them, and psql knows it.
pub fn restricts(version: &str) -> bool {
    let (major, minor) = version.split_once('.').unwrap_or((version, "0"));
    let number =
        |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap_or(0);
    let since = match number(major) {
        13 => 22,
        14 => 19,
        15 => 14,
        16 => 10,
        17 => 6,
        major => return major >= 18,
    };
    number(minor) >= since
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        let read = |said| version(said).map(|(_, major, minor)| (major, minor));
        assert_eq!(read("pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some((15, 18)));
        assert_eq!(read("pg_dump (PostgreSQL) 19devel\n"), Some((19, 0)));
        assert_eq!(read("pg_dump (EnterpriseDB) 16.4\n"), Some((16, 4)));
        assert_eq!(read("no version"), None);
        assert_eq!(read(""), None);
    }

    #[test]
    fn restriction_came_with_minor_versions() {
        assert!(restricts("15.14") && restricts("18.0") && restricts("19devel") && restricts("17.10"));
        assert!(!restricts("15.13") && !restricts("12.22") && !restricts("17.5"));
    }
}
