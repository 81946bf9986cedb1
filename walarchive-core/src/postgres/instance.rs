//! A server of this program's own: started on a data directory, reached through a private socket alone, and gone with its owner.

mod verdict;

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use postgres::{Client, Config, NoTls};
use rustix::process::{Pid, Signal, kill_process};

use super::client::Running;
use super::conninfo::ConnInfo;
use super::programs::ServerPrograms;
use crate::error::{Error, Kind, Result};
use crate::files;

/// Part of the socket's name, and of nothing else.
const PORT: u16 = 5499;
const PAUSE: Duration = Duration::from_millis(50);
/// How long a server may take to shut down in good order, and then in any.
const STOPPING: Duration = Duration::from_secs(120);
const QUITTING: Duration = Duration::from_secs(10);
/// So much of the end of a server's log is looked at.
const LOG_MAX: u64 = 1 << 20;

/// What a copy of a cluster is told, whatever its own files say: it listens to nobody else, keeps to itself what the original would
/// tell the archive, other servers and their subscribers, and waits for no standby. What is lost in a crash of the machine is of no value.
const SECLUDED: [(&str, &str); 27] = [
    ("listen_addresses", ""),
    ("ssl", "off"),
    ("external_pid_file", ""),
    ("archive_mode", "off"),
    ("archive_cleanup_command", ""),
    ("recovery_end_command", ""),
    ("primary_conninfo", ""),
    ("synchronous_standby_names", ""),
    ("max_logical_replication_workers", "0"),
    ("cron.launch_active_jobs", "off"),
    ("hot_standby", "off"),
    ("recovery_min_apply_delay", "0"),
    ("restart_after_crash", "off"),
    ("default_transaction_read_only", "off"),
    ("shared_buffers", "32MB"),
    ("huge_pages", "off"),
    ("dynamic_shared_memory_type", "mmap"),
    ("fsync", "off"),
    ("autovacuum", "off"),
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("logging_collector", "off"),
    ("log_destination", "stderr"),
    ("log_min_messages", "warning"),
    ("log_min_error_statement", "error"),
    ("log_line_prefix", "%m [%p] "),
    ("lc_messages", "C"),
];

/// For clusters whose postgresql.conf is elsewhere: what the WAL may need to be replayed.
const WITHOUT_CONFIGURATION: &str = "max_connections = 100\nmax_prepared_transactions = 1000\n";

/// Says whether work is to go on: an error ends it.
pub type Alive<'a> = &'a dyn Fn() -> Result<()>;

/// A data directory, and what a server needs to be started on it.
#[derive(Debug, Clone)]
pub struct Site {
    /// PostgreSQL's programs.
    pub programs: ServerPrograms,
    /// The data directory.
    pub data_dir: PathBuf,
    /// The directory of its socket, which nobody else can enter.
    pub socket_dir: PathBuf,
    /// Where the server's messages go.
    pub log: PathBuf,
    /// The role to connect as; a usual one when not given.
    pub role: Option<String>,
}

impl Site {
    /// Makes a new cluster in the data directory.
    pub fn initdb(&self, alive: Alive<'_>) -> Result<()> {
        let mut command = Command::new(self.programs.path("initdb")?);
        command.args(["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--username=postgres"]);
        command.env("LC_ALL", "C").arg("--pgdata").arg(&self.data_dir);
        Running::start(&mut command, Stdio::null())?.collect(0, alive)?.end().map(drop)
    }

    /// Secludes the cluster, by settings that stay with it.
    pub fn seclude(&self) -> Result<()> {
        let hba = self.data_dir.join("walarchive_hba.conf");
        files::write(&hba, 0o600, b"local all all trust\n")?;
        let config = self.data_dir.join("postgresql.conf");
        if !config.exists() {
            files::write(&config, 0o600, WITHOUT_CONFIGURATION.as_bytes())?;
        }
        let mut text = String::from("\n# Written by walarchive: this is a copy that nobody but it uses.\n");
        let mut set = |name: &str, value: &str| {
            let value = value.replace('\\', r"\\").replace('\'', "''");
            text.push_str(&format!("{name} = '{value}'\n"));
        };
        SECLUDED.iter().for_each(|(name, value)| set(name, value));
        set("hba_file", &hba.to_string_lossy());
        set("unix_socket_directories", &self.socket_dir.to_string_lossy());
        set("port", &PORT.to_string());
        let path = self.data_dir.join("postgresql.auto.conf");
        let mut all = if path.exists() { files::read(&path, LOG_MAX)? } else { Vec::new() };
        all.extend_from_slice(text.as_bytes());
        files::write(&path, 0o600, &all)
    }

    /// Starts the server. Its commands have this program's environment.
    pub fn start(&self) -> Result<Instance> {
        let failed = |error| Error::io(format!("cannot write {}", self.log.display()), error);
        let log = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.log).map_err(failed)?;
        let copy: File = log.try_clone().map_err(failed)?;
        let program = self.programs.path("postgres")?;
        let mut command = Command::new(&program);
        command.env_remove("PGDATA").env_remove("PGPORT").env_remove("PGTZ").env("LC_MESSAGES", "C");
        // Ctrl-C reaches this program alone, which stops the server in good order.
        command.arg("-D").arg(&self.data_dir).process_group(0);
        let child = command.stdin(Stdio::null()).stdout(log).stderr(copy).spawn();
        let child = child.map_err(|error| Error::io(format!("cannot run {}", program.display()), error))?;
        Ok(Instance { child, site: self.clone(), role: String::new() })
    }
}

/// A running server; stopped when it is dropped.
#[derive(Debug)]
pub struct Instance {
    child: Child,
    site: Site,
    role: String,
}

impl Instance {
    /// Waits until recovery is over and the server takes writes. What stands in its way is found in its messages.
    pub fn wait_for_writes(&mut self, alive: Alive<'_>) -> Result<()> {
        loop {
            alive()?;
            if let Some(status) = self.ended()? {
                return Err(verdict::of(status, &self.log()?).on(self.site.data_dir.display()));
            }
            if self.takes_writes()? {
                return Ok(());
            }
            thread::sleep(PAUSE);
        }
    }

    fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().map_err(|error| Error::io("cannot wait for the server", error))
    }

    /// The server's messages; of long ones the end.
    pub fn log(&self) -> Result<String> {
        use std::io::{Read, Seek, SeekFrom};
        let failed = |error| Error::io(format!("cannot read {}", self.site.log.display()), error);
        let mut file = File::open(&self.site.log).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_MAX))).map_err(failed)?;
        let mut text = Vec::new();
        file.take(LOG_MAX).read_to_end(&mut text).map_err(failed)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    fn takes_writes(&mut self) -> Result<bool> {
        let roles = self.site.role.clone().map_or_else(usual_roles, |role| vec![role]);
        for role in &roles {
            match self.connect(role, "template1") {
                Ok(mut client) => {
                    self.role = role.clone();
                    let row = client.query_one("SELECT pg_is_in_recovery()", &[]);
                    return Ok(row.is_ok_and(|row| !row.get::<_, bool>(0)));
                }
                // Class 28: the server is there, and has no such role.
                Err(error) if error.code().is_some_and(|code| code.code().starts_with("28")) => {}
                Err(_) => return Ok(false),
            }
        }
        let message = format!("the restored cluster has no role that is called {}", roles.join(" or "));
        Err(Error::usage(message).hint("--role names one of its superusers"))
    }

    fn connect(&self, role: &str, database: &str) -> Result<Client, postgres::Error> {
        let mut config = Config::new();
        config.host_path(&self.site.socket_dir).port(PORT).user(role).dbname(database);
        config.application_name("walarchive").connect_timeout(Duration::from_secs(10)).connect(NoTls)
    }

    /// A session in a database.
    pub fn client(&self, database: &str) -> Result<Client> {
        self.connect(&self.role, database).map_err(|error| {
            let said = error.as_db_error().map(|said| format!(": {}", said.message())).unwrap_or_default();
            Error::new(Kind::Local, format!("cannot connect to the restored database {database:?}{said}"))
                .because(error)
        })
    }

    /// How PostgreSQL's programs connect.
    pub fn connection(&self, database: &str) -> ConnInfo {
        let quoted = |text: &str| format!("'{}'", text.replace('\\', r"\\").replace('\'', r"\'"));
        let host = quoted(&self.site.socket_dir.to_string_lossy());
        let (role, database) = (quoted(&self.role), quoted(database));
        ConnInfo::new(Some(format!("host={host} port={PORT} user={role} dbname={database}")))
    }

    /// Where it was started.
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// Stops the server in good order.
    pub fn stop(mut self) {
        self.end(Signal::INT, STOPPING);
    }

    /// Sends a signal and waits for the end; who does not end is killed, its processes end by themselves.
    fn end(&mut self, with: Signal, patience: Duration) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        for (signal, patience) in [(with, patience), (Signal::QUIT, QUITTING), (Signal::KILL, QUITTING)] {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            if let Some(pid) = pid {
                let _ = kill_process(pid, signal);
            }
            let begun = Instant::now();
            while begun.elapsed() < patience && matches!(self.child.try_wait(), Ok(None)) {
                thread::sleep(PAUSE);
            }
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // On the way out of a failure: nothing of it is needed any more, but it tidies up after itself.
        self.end(Signal::QUIT, QUITTING);
    }
}

/// Who is usually a superuser.
fn usual_roles() -> Vec<String> {
    let named = ["PGUSER", "USER", "LOGNAME"].iter().filter_map(|name| std::env::var(name).ok());
    let mut roles = vec!["postgres".to_owned()];
    for role in named.filter(|role| !role.is_empty()) {
        if !roles.contains(&role) {
            roles.push(role);
        }
    }
    roles
}
