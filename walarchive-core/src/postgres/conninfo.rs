//! How to reach a server, as libpq finds out: a connection string, the PG* variables, the password file.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use postgres::config::Host;
use postgres::{Client, Config, NoTls};
use zeroize::Zeroizing;

use super::libpq::{self, Variables};
use super::postmaster::Place;
use crate::error::{Error, Kind, Result};
use crate::files;

const SOCKET_DIRS: [&str; 2] = ["/var/run/postgresql", "/tmp"];
const PASSWORD_FILE_MAX: u64 = 1 << 20;

/// What a connection is made from: a connection string or URI, and for everything that it leaves open the variables
/// and files that libpq looks at.
#[derive(Clone, Default)]
pub struct ConnInfo {
    text: Option<Zeroizing<String>>,
    place: Option<Place>,
}

impl std::fmt::Debug for ConnInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.text.is_some() { "ConnInfo(string)" } else { "ConnInfo(environment)" })
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

impl ConnInfo {
    /// From a connection string or URI; `None` leaves everything to the environment.
    pub fn new(text: Option<String>) -> ConnInfo {
        ConnInfo { text: text.map(Zeroizing::new), place: None }
    }

    /// The same to a server that listens there, for libpq's own programs. None where a service file says where to connect: that
    /// counts for more.
    pub fn at(&self, place: Place) -> Option<ConnInfo> {
        let here = ConnInfo { place: Some(place), ..self.clone() };
        let has_service = here.variables().ok()?.iter().any(|(name, _)| *name == "PGSERVICE");
        (!has_service && variable("PGSERVICE").is_none()).then_some(here)
    }

    /// The connection as variables for libpq's own programs, which find out the rest as they always do: service files,
    /// password files, peer authentication, TLS.
    pub(super) fn variables(&self) -> Result<Variables> {
        let mut found = match &self.text {
            Some(text) => libpq::variables(text)?,
            None => Vec::new(),
        };
        if let Some(place) = &self.place {
            let is_elsewhere = |name: &str| matches!(name, "PGHOST" | "PGHOSTADDR" | "PGPORT");
            found.retain(|(name, _)| !is_elsewhere(name));
            // An address that is inherited would count for more than the host.
            let here = [
                ("PGHOST", place.host.clone()),
                ("PGPORT", place.port.to_string()),
                ("PGHOSTADDR", String::new()),
            ];
            found.extend(here.map(|(name, value)| (name, Zeroizing::new(value))));
        }
        let names = |known: &str| found.iter().any(|(name, _)| *name == known) || variable(known).is_some();
        let is_found = names("PGHOST") || names("PGHOSTADDR") || names("PGSERVICE");
        let has_database = names("PGDATABASE");
        if !is_found {
            found.push(("PGHOST", Zeroizing::new(default_host())));
        }
        if !has_database {
            found.push(("PGDATABASE", Zeroizing::new("postgres".to_owned())));
        }
        Ok(found)
    }

    fn config(&self) -> Result<Config> {
        let mut config = match &self.text {
            Some(text) => text
                .parse::<Config>()
                .map_err(|error| Error::usage("the connection string cannot be read").because(error))?,
            None => Config::new(),
        };
        if config.get_hosts().is_empty() {
            let host = variable("PGHOST").unwrap_or_else(default_host);
            for part in host.split(',') {
                config.host(part);
            }
        }
        if config.get_ports().is_empty() {
            let port = variable("PGPORT").unwrap_or_else(|| "5432".to_owned());
            for part in port.split(',') {
                config
                    .port(part.parse().map_err(|_| Error::usage(format!("PGPORT {port:?} is not a port")))?);
            }
        }
        if config.get_user().is_none() {
            config.user(&variable("PGUSER").unwrap_or_else(system_user));
        }
        if config.get_dbname().is_none() {
            config.dbname(&variable("PGDATABASE").unwrap_or_else(|| "postgres".to_owned()));
        }
        if config.get_password().is_none() {
            self.add_password(&mut config);
        }
        if config.get_connect_timeout().is_none() {
            let seconds = variable("PGCONNECT_TIMEOUT").and_then(|text| text.parse().ok()).unwrap_or(30);
            config.connect_timeout(Duration::from_secs(seconds));
        }
        if config.get_application_name().is_none() {
            config.application_name("walarchive");
        }
        Ok(config)
    }

    fn add_password(&self, config: &mut Config) {
        if let Some(password) = variable("PGPASSWORD").map(Zeroizing::new) {
            config.password(password.as_bytes());
            return;
        }
        let file = variable("PGPASSFILE")
            .map(PathBuf::from)
            .or_else(|| variable("HOME").map(|home| Path::new(&home).join(".pgpass")));
        if let Some(password) = file.and_then(|file| password_from(&file, config)) {
            config.password(password.as_bytes());
        }
    }

    /// Connects, on a thread that may block.
    pub fn connect(&self) -> Result<Client> {
        refuse_unkept_promises()?;
        let config = self.config()?;
        let server = describe(&config);
        config.connect(NoTls).map_err(|error| {
            let refused = error.code().is_some_and(|code| code.code().starts_with("28"));
            let kind = if refused { Kind::Denied } else { Kind::Unreachable };
            Error::new(kind, format!("cannot connect to PostgreSQL at {server}"))
                .because(error)
                .hint("PGHOST, PGPORT, PGUSER and ~/.pgpass count as for psql, or set WALARCHIVE_CONNECTION")
        })
    }
}

/// Variables that ask for more than this client does: silence would be a lie.
fn refuse_unkept_promises() -> Result<()> {
    let mode = variable("PGSSLMODE").unwrap_or_default();
    if matches!(mode.as_str(), "require" | "verify-ca" | "verify-full") {
        return Err(Error::usage(format!(
            "PGSSLMODE={mode} asks for TLS, which this program does not speak to PostgreSQL"
        ))
        .hint("base backups run on the server's own machine: connect through its Unix socket"));
    }
    if let Some(service) = variable("PGSERVICE") {
        return Err(Error::usage(format!("PGSERVICE={service}: service files are not read"))
            .hint("set WALARCHIVE_CONNECTION to what the service file says"));
    }
    Ok(())
}

fn describe(config: &Config) -> String {
    let hosts = config.get_hosts().iter().map(|host| match host {
        // A password with an '@' that is not escaped ends up here.
        Host::Tcp(name) => name.rsplit('@').next().unwrap_or_default().to_owned(),
        Host::Unix(dir) => dir.display().to_string(),
    });
    let ports: Vec<_> = config.get_ports().iter().map(u16::to_string).collect();
    let user = config.get_user().unwrap_or_default();
    format!("{} port {} as {user}", hosts.collect::<Vec<_>>().join(","), ports.join(","))
}

fn default_host() -> String {
    let port = variable("PGPORT").unwrap_or_else(|| "5432".to_owned());
    let has_socket = |dir: &&&str| Path::new(dir).join(format!(".s.PGSQL.{port}")).exists();
    SOCKET_DIRS.iter().find(has_socket).unwrap_or(&SOCKET_DIRS[0]).to_string()
}

/// The name of the user that this process runs as.
fn system_user() -> String {
    let uid = rustix::process::geteuid().as_raw().to_string();
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let entry = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|line| line.get(2) == Some(&uid.as_str()));
    match entry.and_then(|line| line.first().map(|name| (*name).to_owned())) {
        Some(name) => name,
        None => variable("USER").unwrap_or_else(|| "postgres".to_owned()),
    }
}

/// The password for this connection in a file of libpq's format. Like libpq, a file that others can read is not used.
fn password_from(file: &Path, config: &Config) -> Option<Zeroizing<String>> {
    let facts = std::fs::metadata(file).ok()?;
    if !facts.is_file() || facts.mode() & 0o077 != 0 {
        return None;
    }
    let bytes = Zeroizing::new(files::read(file, PASSWORD_FILE_MAX).ok()?);
    let text = std::str::from_utf8(&bytes).ok()?;
    let host = match config.get_hosts().first()? {
        Host::Tcp(name) => name.clone(),
        Host::Unix(dir) if SOCKET_DIRS.iter().any(|known| dir == Path::new(known)) => "localhost".to_owned(),
        Host::Unix(dir) => dir.display().to_string(),
    };
    let port = config.get_ports().first()?.to_string();
    let wanted = [host.as_str(), port.as_str(), config.get_dbname()?, config.get_user()?];
    text.lines().find_map(|line| password_in(line, wanted))
}

fn password_in(line: &str, wanted: [&str; 4]) -> Option<Zeroizing<String>> {
    if line.starts_with('#') {
        return None;
    }
    let mut fields = vec![Zeroizing::new(String::new())];
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            ':' if fields.len() < 5 => fields.push(Zeroizing::new(String::new())),
            '\\' => fields.last_mut()?.extend(chars.next()),
            other => fields.last_mut()?.push(other),
        }
    }
    let matches =
        fields.iter().zip(wanted).all(|(field, wanted)| field.as_str() == "*" || field.as_str() == wanted);
    (fields.len() == 5 && matches).then(|| fields.pop()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn password_lines_are_read_as_libpq_reads_them() {
        let wanted = ["db.example", "5432", "postgres", "me"];
        let password = |line| password_in(line, wanted).map(|password| password.to_string());
        assert_eq!(password("db.example:5432:postgres:me:se:cret").as_deref(), Some("se:cret"));
        assert_eq!(password(r"*:*:*:me:a\:b\\c").as_deref(), Some(r"a:b\c"));
        assert_eq!(password("*:*:*:you:x"), None);
        assert_eq!(password("#*:*:*:*:x"), None);
        assert_eq!(password("*:*:*:me"), None);
    }

    #[test]
    fn a_connection_string_is_not_shown() {
        let info = ConnInfo::new(Some("host=x password=geheim".to_owned()));
        assert!(!format!("{info:?}").contains("geheim"));
        let bad = ConnInfo::new(Some("host=x password='geheim".to_owned()));
        assert!(!bad.connect().err().unwrap().story().contains("geheim"));
    }
}
