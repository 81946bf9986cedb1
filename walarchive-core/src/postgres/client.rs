//! A server reached through PostgreSQL's own programs: with everything that libpq knows about connections.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;

use super::conninfo::ConnInfo;
use super::instance::Alive;
use super::libpq;
use super::postmaster::Place;
use super::programs::Programs;
use super::stop::Stop;
use crate::error::{Error, Kind, Result};

/// Lines of complaints that are kept, of the first and of the last.
const KEPT: usize = 40;
/// No line of complaints is kept longer.
const LINE_MAX: usize = 1000;
const PAUSE: std::time::Duration = std::time::Duration::from_millis(10);

/// How the programs are run.
#[derive(Clone)]
pub struct Client {
    programs: Programs,
    connection: ConnInfo,
    stop: Stop,
}

/// What a program said that ended well: its warnings.
pub type Complaints = Vec<String>;

impl Client {
    /// With these programs, which `stop` ends.
    pub fn new(programs: Programs, connection: ConnInfo, stop: Stop) -> Client {
        Client { programs, connection, stop }
    }

    /// The same, for what has to be done even after being told to stop.
    pub fn unstoppable(&self) -> Client {
        Client { stop: Stop::default(), ..self.clone() }
    }

    /// The same for a server that listens elsewhere, where that can be said.
    pub fn at(&self, place: Place) -> Option<Client> {
        Some(Client { connection: self.connection.at(place)?, ..self.clone() })
    }

    /// What ends its programs.
    pub fn stop(&self) -> &Stop {
        &self.stop
    }

    /// Starts one of the programs, its output piped to here, and listens to what it complains of.
    pub fn start(&self, command: &mut Command, input: Stdio) -> Result<Running> {
        Running::start_with(command, input, self.stop.clone())
    }

    /// The programs.
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// One of the programs, told how to connect, and to ask nobody for a password.
    pub fn command(&self, program: &str) -> Result<Command> {
        let mut command = Command::new(self.programs.path(program)?);
        for (name, value) in self.connection.variables()? {
            command.env(name, value.as_str());
        }
        if std::env::var_os("PGAPPNAME").is_none() {
            command.env("PGAPPNAME", "walarchive");
        }
        // Messages are read by this program, too.
        command.env("LC_MESSAGES", "C").arg("--no-password");
        Ok(command)
    }

    /// Runs SQL in a database (that of the connection when none is named) and gives what it prints: rows in lines, columns
    /// apart by tabs. The first error ends it.
    pub fn sql(&self, database: Option<&str>, sql: &str) -> Result<String> {
        let mut command = self.command("psql")?;
        command.args(["-X", "-A", "-t", "-q", "-F", "\t", "-v", "ON_ERROR_STOP=1"]);
        if let Some(name) = database {
            command.arg("-d").arg(libpq::dbname(name));
        }
        let mut running = self.start(command.args(["-f", "-"]), Stdio::piped())?;
        let printed = running.talk(sql.as_bytes().to_vec())?;
        running.end()?;
        Ok(String::from_utf8_lossy(&printed).trim_end_matches('\n').to_owned())
    }

    /// Major version of the server, and its full one.
    pub fn server_version(&self) -> Result<(u32, String)> {
        let said = self
            .sql(None, "select current_setting('server_version_num'), current_setting('server_version')")?;
        let wrong = || Error::new(Kind::Unreachable, "the server does not say its version");
        let (number, version) = said.split_once('\t').ok_or_else(wrong)?;
        let number: u32 = number.parse().map_err(|_| wrong())?;
        Ok((number / 10_000, version.to_owned()))
    }
}

/// A name as SQL wants it.
pub fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text as SQL wants it, whatever the server's settings.
pub fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') {
        format!(" E'{}'", quoted.replace('\\', "\\\\"))
    } else {
        format!("'{quoted}'")
    }
}

/// One of the programs while it runs. Dropped before its [`end`](Running::end), it is killed.
pub struct Running {
    name: String,
    child: Child,
    complaints: Option<JoinHandle<Complaints>>,
    stop: Stop,
}

impl Running {
    /// Starts a program that talks to no server of the user's, as [`Client::start`] starts those that do. Nobody but who holds it
    /// ends it.
    pub fn start(command: &mut Command, input: Stdio) -> Result<Running> {
        Running::start_with(command, input, Stop::default())
    }

    fn start_with(command: &mut Command, input: Stdio, stop: Stop) -> Result<Running> {
        let path = command.get_program().to_owned();
        let name = std::path::Path::new(&path).file_name().unwrap_or_default().to_string_lossy().into_owned();
        command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = stop.start(|| {
            let failed = |error| Error::io(format!("cannot run {}", path.to_string_lossy()), error);
            command.spawn().map_err(failed)
        })?;
        let complaints = child.stderr.take().map(|pipe| std::thread::spawn(move || listen(pipe)));
        Ok(Running { name, child, complaints, stop })
    }

    /// Where its input goes.
    pub fn input(&mut self) -> Result<ChildStdin> {
        self.child.stdin.take().ok_or_else(|| Error::bug("a program has no input"))
    }

    /// The pipe of its output, to be made larger.
    pub fn output(&mut self) -> Result<&mut std::process::ChildStdout> {
        self.child.stdout.as_mut().ok_or_else(|| Error::bug("a program has no output"))
    }

    /// Gives it all of its input and reads all of its output, beside each other: neither waits for the other. Why it did not
    /// want all of it, it says by itself.
    pub fn talk(&mut self, input: Vec<u8>) -> Result<Vec<u8>> {
        let mut pipe = self.input()?;
        let giving = std::thread::spawn(move || drop(pipe.write_all(&input)));
        let mut printed = Vec::new();
        let read = self.output()?.read_to_end(&mut printed);
        let _ = giving.join();
        read.map_err(|error| Error::io(format!("cannot read what {} prints", self.name), error))?;
        Ok(printed)
    }

    /// Waits for its end, as long as `alive` says so, and keeps the first `keep` bytes of what it prints. It is killed
    /// when it is to go on no longer.
    pub fn collect(mut self, keep: usize, alive: Alive<'_>) -> Result<Collected> {
        let mut pipe = self.child.stdout.take().ok_or_else(|| Error::bug("a program has no output"))?;
        let reading = std::thread::spawn(move || {
            let mut printed = Vec::new();
            let _ = pipe.by_ref().take(keep as u64).read_to_end(&mut printed);
            let _ = std::io::copy(&mut pipe, &mut std::io::sink());
            printed
        });
        while !self.has_ended()? {
            alive()?;
            std::thread::sleep(PAUSE);
        }
        let printed = reading.join().unwrap_or_default();
        let name = self.name.clone();
        let (status, complaints) = self.wait()?;
        let printed = String::from_utf8_lossy(&printed).into_owned();
        Ok(Collected { name, status, printed, complaints })
    }

    /// Reads its output to the end, and forgets it.
    pub fn drain(&mut self) -> Result<()> {
        let drained = std::io::copy(self.output()?, &mut std::io::sink());
        drained.map(drop).map_err(|error| Error::io(format!("cannot read what {} prints", self.name), error))
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> Result<bool> {
        let ended = self.stop.has_ended(&mut self.child);
        ended.map_err(|error| Error::io(format!("cannot wait for {}", self.name), error))
    }

    /// Waits for its end: its exit status, and what it complained of. An error when it was told to stop before.
    pub fn wait(mut self) -> Result<(ExitStatus, Complaints)> {
        drop(self.child.stdout.take());
        let status = self.stop.wait(&mut self.child);
        let status = status.map_err(|error| Error::io(format!("cannot wait for {}", self.name), error))?;
        let complaints = self.complaints();
        if !status.success() {
            self.stop.check()?;
        }
        Ok((status, complaints))
    }

    /// Waits for its end, which must be a good one: what it complained of all the same.
    pub fn end(self) -> Result<Complaints> {
        let name = self.name.clone();
        let (status, complaints) = self.wait()?;
        if status.success() {
            return Ok(complaints);
        }
        Err(failed(&name, status, &complaints))
    }

    fn complaints(&mut self) -> Complaints {
        self.complaints.take().and_then(|thread| thread.join().ok()).unwrap_or_default()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.complaints.is_some() {
            self.stop.kill(&mut self.child);
        }
    }
}

/// A program that has ended.
#[derive(Debug)]
pub struct Collected {
    name: String,
    /// How.
    pub status: ExitStatus,
    /// The beginning of what it printed.
    pub printed: String,
    /// What it complained of.
    pub complaints: Complaints,
}

impl Collected {
    /// What it printed; an error when it did not end well.
    pub fn end(self) -> Result<String> {
        if self.status.success() {
            return Ok(self.printed);
        }
        Err(failed(&self.name, self.status, &self.complaints))
    }
}

/// What a program says on its way, its first and its last lines.
fn listen(pipe: impl Read) -> Complaints {
    let mut reader = BufReader::new(pipe);
    let (mut first, mut last) = (Vec::new(), VecDeque::new());
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        let text = String::from_utf8_lossy(&line);
        let text: String = text.trim_end().chars().filter(|c| !c.is_control()).take(LINE_MAX).collect();
        line.clear();
        if text.is_empty() {
            continue;
        }
        if first.len() < KEPT {
            first.push(text);
        } else {
            last.push_back(text);
            if last.len() > KEPT {
                last.pop_front();
            }
        }
    }
    first.extend(last);
    first
}

/// No room is left, wherever it was.
const FULL: [&str; 3] = ["No space left on device", "could not write", "Disk quota exceeded"];
const REFUSED: [&str; 5] = [
    "permission denied",
    "authentication failed",
    "no password supplied",
    "must be superuser",
    "no pg_hba.conf entry",
];
/// How libpq and the server tell that there is no connection, or none any more.
const AWAY: [&str; 12] = [
    "could not translate host name",
    "could not connect",
    "connection to server",
    "connection to database",
    "server closed the connection",
    "terminating connection",
    "could not send data to server",
    "could not receive data from server",
    "no connection to the server",
    "timeout expired",
    "Connection refused",
    "FATAL:",
];
/// How pg_dump and its relatives tell that their arguments make no sense.
const NONSENSE: [&str; 15] = [
    "unrecognized option",
    "invalid option",
    "illegal option",
    "is ambiguous",
    "requires an argument",
    "doesn't allow an argument",
    "cannot be used together",
    "too many command-line arguments",
    "no matching ",
    "invalid value ",
    "must be in range",
    "improper qualified name",
    "unrecognized section name",
    "is not a valid encoding name",
    "invalid client encoding",
];

/// What kind of failure a program tells of.
fn kind_of(name: &str, status: ExitStatus, complaints: &[String]) -> Kind {
    let says = |what: &[&str]| complaints.iter().any(|line| what.iter().any(|what| line.contains(what)));
    // Of a script, psql tells that the connection holds, and a statement does not.
    let is_sql = name == "psql" && status.code() == Some(3) || says(&["could not execute query"]);
    if status.code().is_none() || says(&FULL) {
        Kind::Local
    } else if says(&["already exists"]) {
        Kind::UnsafeTarget
    } else if says(&REFUSED) {
        Kind::Denied
    } else if !is_sql && says(&AWAY) {
        Kind::Unreachable
    } else if !is_sql && says(&NONSENSE) {
        Kind::Usage
    } else if is_sql {
        Kind::Unrestorable
    } else if says(&["query failed"]) || (name == "psql" && status.code() == Some(2)) {
        Kind::Unreachable
    } else {
        Kind::Local
    }
}

/// That a program failed, in its own words.
pub fn failed(name: &str, status: ExitStatus, complaints: &[String]) -> Error {
    use std::os::unix::process::ExitStatusExt;
    let end = match (status.code(), status.signal()) {
        (Some(code), _) => format!("with exit code {code}"),
        (None, Some(signal)) => format!("by signal {signal}"),
        (None, None) => "somehow".to_owned(),
    };
    let wrong =
        |line: &&String| line.contains("error:") || line.contains("ERROR:") || line.contains("FATAL:");
    let told: Vec<_> = complaints.iter().filter(wrong).take(3).cloned().collect();
    let told = if told.is_empty() {
        complaints.iter().skip(complaints.len().saturating_sub(3)).cloned().collect()
    } else {
        told
    };
    let said = if told.is_empty() { "and said nothing".to_owned() } else { told.join("; ") };
    Error::new(kind_of(name, status, complaints), format!("{name} ended {end}: {said}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    const FAILURES: [(&str, i32, &str, Kind); 11] = [
        (
            "psql",
            2,
            "psql: error: could not translate host name \"x\" to address: nobody knows",
            Kind::Unreachable,
        ),
        (
            "pg_dump",
            1,
            "pg_dump: error: connection to server at \"x\" failed: Connection refused",
            Kind::Unreachable,
        ),
        (
            "pg_restore",
            1,
            "pg_restore: error: connection to server on socket failed: FATAL:  sorry",
            Kind::Unreachable,
        ),
        (
            "psql",
            2,
            "connection to server failed: FATAL:  password authentication failed for user",
            Kind::Denied,
        ),
        (
            "psql",
            3,
            "psql:x.sql:1: ERROR:  column \"connection to server\" does not exist",
            Kind::Unrestorable,
        ),
        ("pg_dump", 1, "pg_dump: unrecognized option '--nonsense'", Kind::Usage),
        ("pg_dump", 1, "pg_dump: error: no matching tables were found", Kind::Usage),
        ("pg_dump", 1, "pg_dump: error: query failed: ERROR:  permission denied for table t", Kind::Denied),
        (
            "pg_dump",
            1,
            "pg_dump: error: could not write to output file: No space left on device",
            Kind::Local,
        ),
        (
            "pg_restore",
            1,
            "pg_restore: error: could not execute query: ERROR:  relation \"t\" already exists",
            Kind::UnsafeTarget,
        ),
        (
            "pg_restore",
            1,
            "pg_restore: error: could not execute query: ERROR:  schema \"s\" does not exist",
            Kind::Unrestorable,
        ),
    ];

    #[test]
    fn failures_are_told_apart_by_what_programs_say() {
        for (name, code, said, kind) in FAILURES {
            let status = ExitStatus::from_raw(code << 8);
            assert_eq!(failed(name, status, &[said.to_owned()]).kind(), kind, "{said}");
        }
        assert_eq!(failed("pg_dump", ExitStatus::from_raw(9), &[]).kind(), Kind::Local);
    }
}
