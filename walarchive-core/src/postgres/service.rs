//! The server of a data directory, started and stopped as its administrator does it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::client::Client;
use super::datadir::{running_server, runs_server_started_at, system_id_of};
use super::instance::Alive;
use super::postmaster::{Options, Place};
use super::programs::ServerPrograms;
use crate::error::{Error, Kind, Result};
use crate::files;
use crate::wal::Lsn;

const PAUSE: Duration = Duration::from_millis(100);
/// A server that was just started needs a moment to be seen.
const SEEN: Duration = Duration::from_secs(5);

/// A server that is there to stay.
pub struct Service {
    /// PostgreSQL's programs.
    pub programs: ServerPrograms,
    /// Its data directory.
    pub data_dir: PathBuf,
    /// The shell's command that stops it; pg_ctl when not given.
    pub stop_command: Option<String>,
    /// The shell's command that starts it; pg_ctl when not given.
    pub start_command: Option<String>,
    /// How to ask it.
    pub client: Client,
    /// How long it may take to stop, or to start and recover.
    pub timeout: Duration,
}

/// A server that has come out of recovery.
#[derive(Clone)]
pub struct Recovered {
    /// How it was reached.
    pub client: Client,
    /// Where, if that is not where the connection of the settings leads.
    pub elsewhere: Option<Place>,
    /// Where recovery ended; unknown if it has been restarted since.
    pub lsn: Option<Lsn>,
    /// When the last transaction ended that was replayed.
    pub time: Option<String>,
}

/// Keeps what a cluster writes from the archive, for now: WAL waits until it is taken out again.
const HELD: &str = "archive_command = 'exit 1' # walarchive: until the restored cluster is proven\n";
/// A module would archive whatever the command says. Earlier servers know no such setting, and would not start with it.
const HELD_MODULE: &str = "archive_library = '' # walarchive: until the restored cluster is proven\n";
const MODULES_SINCE: u32 = 15;
const SETTINGS_MAX: u64 = 64 << 20;

/// Has the cluster in a data directory archive nothing until [`Service::let_archive`]: should it be given up again, the archive
/// knows nothing of its timeline, which others would follow.
pub fn hold_archiving(data_dir: &Path) -> Result<()> {
    let version = files::read(&data_dir.join("PG_VERSION"), SETTINGS_MAX)?;
    let version = String::from_utf8_lossy(&version).trim().parse::<u32>();
    let module = if version.is_ok_and(|major| major >= MODULES_SINCE) { HELD_MODULE } else { "" };
    rewrite(data_dir, |text| format!("{text}{HELD}{module}"))
}

fn unhold(data_dir: &Path) -> Result<()> {
    rewrite(data_dir, |text| text.replace(HELD, "").replace(HELD_MODULE, ""))
}

fn rewrite(data_dir: &Path, change: impl FnOnce(String) -> String) -> Result<()> {
    let path = data_dir.join("postgresql.auto.conf");
    let bytes = files::read(&path, SETTINGS_MAX)?;
    let text = String::from_utf8(bytes)
        .map_err(|_| Error::new(Kind::Local, format!("{} is not text", path.display())))?;
    files::write_as_it_was(&path, change(text).as_bytes())
}

const ABOUT: &str = "select pg_is_in_recovery(), extract(epoch from pg_postmaster_start_time())::bigint, \
    (select system_identifier from pg_control_system()), pg_last_wal_replay_lsn(), \
    to_char(pg_last_xact_replay_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";

impl Service {
    /// Whether it runs.
    pub fn is_running(&self) -> Result<bool> {
        Ok(self.data_dir.is_dir() && running_server(&self.data_dir)?.is_some())
    }

    /// Stops it, fast, and waits until none of its processes is left.
    pub fn stop(&self, alive: Alive<'_>) -> Result<()> {
        if !self.is_running()? {
            return Ok(());
        }
        let command = match &self.stop_command {
            Some(command) => shell(command),
            None => self.pg_ctl(&["-m", "fast", "-W", "stop"])?,
        };
        run(command, alive).map_err(|error| error.during("stopping the server"))?;
        self.until("the server has stopped", alive, || Ok(!self.is_running()?))
    }

    /// Starts it, without waiting for its recovery; by pg_ctl with what the server of the data directory `as_in`, which is this one or
    /// the one that was in its place, was started with.
    pub fn start(&self, as_in: &Path, alive: Alive<'_>) -> Result<()> {
        if self.is_running()? {
            return Ok(());
        }
        let command = match &self.start_command {
            Some(command) => shell(command),
            None => {
                let mut command = self.pg_ctl(&["-W", "start", "-l"])?;
                let mut log = self.data_dir.clone().into_os_string();
                log.push(".restore-latest.log");
                command.arg(log);
                let options = Options::of(as_in)?;
                let is_this = as_in == self.data_dir;
                let options = if is_this { options.as_they_were() } else { options.for_recovery() };
                if let Some(options) = options.for_shell() {
                    command.arg("-o").arg(options);
                }
                command
            }
        };
        run(command, alive).map_err(|error| error.during("starting the server"))
    }

    /// An error where it was started with options that archive: they are stronger than what holds archiving back.
    pub fn refuse_options_that_archive(&self) -> Result<()> {
        if self.start_command.is_some() || !Options::of(&self.data_dir)?.archive() {
            return Ok(());
        }
        let message = format!(
            "the server of {} was started with archive_command on its command line, where it cannot be held back until the restored \
             cluster is proven; nothing was touched",
            self.data_dir.display()
        );
        Err(Error::usage(message)
            .hint("set it in postgresql.conf instead, or set restore_latest.start_command"))
    }

    /// Waits until it takes writes.
    pub fn wait_for_writes(&self, alive: Alive<'_>) -> Result<Recovered> {
        let begun = Instant::now();
        let mut last;
        loop {
            alive()?;
            match self.ask() {
                Ok(Some(recovered)) => return Ok(recovered),
                Ok(None) => last = "it is in recovery".to_owned(),
                Err(error) if error.kind() == Kind::Usage => return Err(error),
                Err(error) if error.kind() == Kind::WrongCluster && begun.elapsed() > SEEN => {
                    return Err(error);
                }
                Err(error) => last = error.story(),
            }
            if begun.elapsed() > SEEN && !self.is_running()? {
                return Err(
                    Error::new(Kind::Local, format!("the server has ended; {last}")).hint("its log says why")
                );
            }
            if begun.elapsed() > self.timeout {
                let waited = self.timeout.as_secs();
                return Err(Error::new(
                    Kind::Unreachable,
                    format!("after {waited} s the server takes no writes: {last}"),
                )
                .hint("restore_latest.timeout says how long it may take"));
            }
            thread::sleep(PAUSE);
        }
    }

    /// Lets it archive what was held back.
    pub fn let_archive(&self, recovered: &Recovered) -> Result<()> {
        unhold(&self.data_dir)?;
        recovered
            .client
            .sql(None, "select pg_reload_conf()")
            .map(drop)
            .map_err(|error| error.during("letting the restored cluster archive"))
    }

    /// Whether it answers within so long a time, in recovery or not.
    pub fn answers_within(&self, limit: Duration) -> bool {
        let begun = Instant::now();
        while self.ask().is_err() {
            if begun.elapsed() > limit {
                return false;
            }
            thread::sleep(PAUSE);
        }
        true
    }

    /// Asks where the connection of the settings leads, and if that is in vain, where the server says that it listens.
    fn ask(&self) -> Result<Option<Recovered>> {
        let asked = self.ask_by(&self.client, None);
        let Err(error) = asked else { return asked };
        let place = Place::of(&self.data_dir);
        let there = place.and_then(|place| Some((self.client.at(place.clone())?, place)));
        let Some((client, place)) = there else { return Err(error) };
        match self.ask_by(&client, Some(place)) {
            // It may have come up in between.
            Ok(found) => self.ask_by(&self.client, None).or(Ok(found)),
            // It is still coming up, and it is another one that answers already.
            Err(own) if own.kind() == Kind::Unreachable => Err(own),
            Err(_) => Err(error),
        }
    }

    fn ask_by(&self, client: &Client, elsewhere: Option<Place>) -> Result<Option<Recovered>> {
        let said = client.sql(None, ABOUT)?;
        let columns: Vec<&str> = said.split('\t').collect();
        let [recovering, started, system, lsn, time] = columns[..] else {
            return Err(Error::new(Kind::Unreachable, "the server does not say how far it has come"));
        };
        let own = system_id_of(&self.data_dir)?.map(|id| id.to_string());
        let started = started.parse().unwrap_or_default();
        if own.as_deref() != Some(system) || !runs_server_started_at(&self.data_dir, started) {
            let message =
                format!("the connection leads to another server than that of {}", self.data_dir.display());
            return Err(
                Error::new(Kind::WrongCluster, message).hint("postgres.connection says how to reach it")
            );
        }
        let time = Some(time).filter(|time| !time.is_empty()).map(str::to_owned);
        let lsn = lsn.parse().ok();
        Ok((recovering == "f").then(|| Recovered { client: client.clone(), elsewhere, lsn, time }))
    }

    fn until(&self, what: &str, alive: Alive<'_>, done: impl Fn() -> Result<bool>) -> Result<()> {
        let begun = Instant::now();
        while !done()? {
            alive()?;
            if begun.elapsed() > self.timeout {
                return Err(Error::new(
                    Kind::Local,
                    format!("waited {} s in vain until {what}", self.timeout.as_secs()),
                ));
            }
            thread::sleep(PAUSE);
        }
        Ok(())
    }

    fn pg_ctl(&self, args: &[&str]) -> Result<Command> {
        let mut command = Command::new(self.programs.path("pg_ctl")?);
        command.arg("-D").arg(&self.data_dir).arg("-s").args(args);
        Ok(command)
    }
}

fn shell(command: &str) -> Command {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", command]);
    shell
}

/// Runs a command to its end. A server that it starts must not keep pipes of this program open.
fn run(mut command: Command, alive: Alive<'_>) -> Result<()> {
    let log = tempfile::tempfile().map_err(|error| Error::io("cannot make a passing file", error))?;
    let copy = log.try_clone().map_err(|error| Error::io("cannot share a passing file", error))?;
    let spawned = command.stdin(Stdio::null()).stdout(log).stderr(copy).spawn();
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = spawned.map_err(|error| Error::io(format!("cannot run {name}"), error))?;
    loop {
        let state = child.try_wait().map_err(|error| Error::io(format!("cannot wait for {name}"), error))?;
        match state {
            Some(status) if status.success() => return Ok(()),
            Some(status) => return Err(Error::new(Kind::Local, format!("{name} failed ({status})"))),
            None => {}
        }
        if let Err(error) = alive() {
            let _ = child.kill();
            let _ = child.wait();
            return Err(error);
        }
        thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holds_archiving_back_is_known_to_the_server_and_goes_again() {
        let dir = tempfile::tempdir().unwrap();
        let (settings, own) = (dir.path().join("postgresql.auto.conf"), "archive_library = 'x'\n");
        for (version, lines) in [("13\n", 1), ("14\n", 1), ("15\n", 2), ("18\n", 2)] {
            std::fs::write(dir.path().join("PG_VERSION"), version).unwrap();
            std::fs::write(&settings, own).unwrap();
            hold_archiving(dir.path()).unwrap();
            let held = std::fs::read_to_string(&settings).unwrap();
            let added: Vec<&str> = held.strip_prefix(own).unwrap().lines().collect();
            assert!(added.len() == lines && added[0].starts_with("archive_command = 'exit 1'"), "{held}");
            assert!(added.get(1).is_none_or(|line| line.starts_with("archive_library = ''")), "{held}");
            unhold(dir.path()).unwrap();
            assert_eq!(std::fs::read_to_string(&settings).unwrap(), own);
        }
    }
}
