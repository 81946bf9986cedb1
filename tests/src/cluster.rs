//! A throw-away PostgreSQL cluster, reached through a Unix socket alone.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::Signal;

use crate::kill::signal;
use crate::{Background, Product, Scratch, find, kill_tree, postgres_major, require, wait_until};

/// How long a server may take to start, recover or stop.
const PATIENCE: Duration = Duration::from_secs(120);

/// What every cluster is set to: small, quiet, archiving (into nothing yet), as durable as a real one.
const SETTINGS: &str = "listen_addresses = ''
shared_buffers = '32MB'
dynamic_shared_memory_type = mmap
max_connections = 20
autovacuum_naptime = '10min'
log_checkpoints = off
archive_mode = on
wal_level = replica
max_wal_senders = 5
";

/// How a server is told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopMode {
    /// Waits for sessions to end.
    Smart,
    /// Ends sessions, writes a checkpoint.
    Fast,
    /// As if it had crashed, but tidy.
    Immediate,
}

/// What a cluster shall be like; made by [`Cluster::builder`].
#[derive(Debug)]
pub struct Builder {
    scratch: Scratch,
    initdb: Vec<String>,
    conf: String,
    env: Vec<(String, String)>,
    options: Vec<String>,
}

impl Builder {
    /// The size of a WAL segment in MiB: a power of two up to 1024; PostgreSQL's default is 16.
    pub fn wal_segment_mib(self, mib: u32) -> Builder {
        self.initdb_arg(format!("--wal-segsize={mib}"))
    }

    /// Page checksums; on when nothing is said.
    pub fn data_checksums(mut self, on: bool) -> Builder {
        self.initdb.retain(|arg| !arg.ends_with("data-checksums"));
        match on {
            true => self.initdb_arg("--data-checksums"),
            // They became the default, and the option not to have them, in the same version.
            false if postgres_major() >= Some(18) => self.initdb_arg("--no-data-checksums"),
            false => self,
        }
    }

    /// One more argument of `initdb`.
    pub fn initdb_arg(mut self, arg: impl Into<String>) -> Builder {
        self.initdb.push(arg.into());
        self
    }

    /// A line of postgresql.conf.
    pub fn conf(mut self, line: &str) -> Builder {
        writeln!(self.conf, "{line}").expect("strings grow");
        self
    }

    /// A setting on the server's command line: stronger than any file, so it holds in a restored directory too.
    pub fn option(mut self, name: &str, value: &str) -> Builder {
        self.options.push(format!("{name}={value}"));
        self
    }

    /// A variable of the server's environment, which archive and restore commands inherit.
    pub fn env(mut self, name: &str, value: &str) -> Builder {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The product's environment and programs for the commands that the server runs.
    pub fn env_of(mut self, product: &Product) -> Builder {
        self.env.extend(product.env().iter().cloned());
        self.env("PATH", &product.path_variable())
    }

    /// Makes the cluster, without starting it: `None`, after a loud note, when PostgreSQL is not installed.
    pub fn create(self) -> Option<Cluster> {
        let initdb = require("initdb")?;
        let data_dir = self.scratch.join(format!("pg{}", unique()));
        let mut command = self.scratch.command(initdb);
        command.args(["--no-sync", "--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C"]);
        run(command.args(&self.initdb).arg("--pgdata").arg(&data_dir));
        let cluster = self.existing(data_dir)?;
        Some(cluster)
    }

    /// Makes the cluster and starts it: `None`, after a loud note, when PostgreSQL is not installed.
    pub fn start(self) -> Option<Cluster> {
        let mut cluster = self.create()?;
        cluster.start();
        Some(cluster)
    }

    /// The cluster in a directory that is there already, such as a restored one; what was said about `initdb` is
    /// of no effect, lines of [`conf`](Builder::conf) are added. Not started.
    pub fn existing(self, data_dir: PathBuf) -> Option<Cluster> {
        let server = require("postgres")?;
        let number = unique();
        let socket_dir = self.scratch.dir(format!("s{number}"));
        let Builder { scratch, conf, env, options, .. } = self;
        let log = scratch.join(format!("postgres{number}.log"));
        let cluster = Cluster { scratch, data_dir, socket_dir, log, server, env, options, running: None };
        cluster.append_conf(&conf);
        Some(cluster)
    }
}

fn unique() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A PostgreSQL cluster; its server is killed when it is dropped.
#[derive(Debug)]
pub struct Cluster {
    scratch: Scratch,
    data_dir: PathBuf,
    socket_dir: PathBuf,
    log: PathBuf,
    server: PathBuf,
    env: Vec<(String, String)>,
    options: Vec<String>,
    running: Option<Background>,
}

impl Cluster {
    /// A new cluster in `scratch`, with page checksums and segments of 16 MiB unless something else is said.
    pub fn builder(scratch: &Scratch) -> Builder {
        let scratch = scratch.clone();
        let builder = Builder {
            scratch,
            initdb: Vec::new(),
            conf: SETTINGS.to_owned(),
            env: Vec::new(),
            options: Vec::new(),
        };
        builder.data_checksums(true)
    }

    /// Like [`builder`](Cluster::builder), for [`Builder::existing`]: adds no settings of its own.
    pub fn adopt(scratch: &Scratch) -> Builder {
        Builder { conf: String::new(), ..Cluster::builder(scratch) }
    }

    /// The data directory.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// How to connect: as superuser, to the database `postgres`.
    pub fn conninfo(&self) -> String {
        format!("host={} port=5432 user=postgres dbname=postgres", self.socket_dir.display())
    }

    /// What the server wrote to its log since it was started last.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The process id of the running server.
    pub fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(Background::pid)
    }

    /// Starts the server and waits until it answers; panics with its log when it does not.
    pub fn start(&mut self) {
        self.launch();
        let mut last = String::new();
        wait_until("the server answers", PATIENCE, || {
            let ended = self.running.as_mut().and_then(Background::ended);
            assert!(ended.is_none(), "the server ended ({ended:?}) instead of answering:\n{}", self.log());
            self.try_psql("select 1").map_err(|error| last = error).is_ok()
        });
    }

    /// Starts the server without waiting for anything: for recoveries that pause, shut down or fail.
    pub fn launch(&mut self) {
        assert!(self.running.is_none(), "the server runs already");
        let mut command = self.scratch.command(&self.server);
        command.envs(self.env.iter().map(|(name, value)| (name, value))).arg("-D").arg(&self.data_dir);
        command.arg("-k").arg(&self.socket_dir).args([
            "-c",
            "listen_addresses=",
            "-c",
            "logging_collector=off",
        ]);
        self.options.iter().for_each(|option| {
            command.arg("-c").arg(option);
        });
        self.running = Some(Background::start(command, self.log.clone()));
    }

    /// Waits until a launched server has ended by itself; says whether it ended well.
    pub fn wait_ended(&mut self) -> bool {
        let mut running = self.running.take().expect("a running server");
        running.wait(PATIENCE).success()
    }

    /// Stops the server.
    pub fn stop(&mut self, mode: StopMode) {
        let number = match mode {
            StopMode::Smart => Signal::TERM,
            StopMode::Fast => Signal::INT,
            StopMode::Immediate => Signal::QUIT,
        };
        let mut running = self.running.take().expect("a running server");
        signal(running.pid(), number);
        running.wait(PATIENCE);
    }

    /// Stops the server, fast, and starts it again.
    pub fn restart(&mut self) {
        self.stop(StopMode::Fast);
        self.start();
    }

    /// Kills the server and all its children, archive commands too, with SIGKILL.
    pub fn kill9(&mut self) {
        let running = self.running.take().expect("a running server");
        self.forget_shared_memory();
        kill_tree(running.pid());
    }

    /// Adds lines to postgresql.conf; a running server has to reload or restart.
    pub fn append_conf(&self, lines: &str) {
        let path = self.data_dir.join("postgresql.conf");
        let mut file = OpenOptions::new().append(true).open(&path).expect("open postgresql.conf");
        writeln!(file, "{lines}").expect("write postgresql.conf");
    }

    /// Has the server read its configuration again.
    pub fn reload(&self) {
        self.psql("select pg_reload_conf()");
    }

    /// Archives with the product's `walarchive-push` from now on.
    pub fn archive_with(&self, product: &Product) {
        let script = product.script("walarchive-push");
        self.append_conf(&format!("archive_command = '{} %p'", script.display()));
        if self.running.is_some() {
            self.reload();
        }
    }

    /// Runs SQL, possibly several statements, in the database `postgres`; the rows as text, fields separated by
    /// `|`. Panics with the server's message when it fails.
    pub fn psql(&self, sql: &str) -> String {
        self.try_psql(sql).unwrap_or_else(|error| panic!("{sql}: {error}\n{}", self.log()))
    }

    /// Like [`psql`](Cluster::psql), with the server's message as error.
    pub fn try_psql(&self, sql: &str) -> Result<String, String> {
        let mut command = self.client_command("psql");
        command.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-d", "postgres", "-c", sql]);
        let output = command.output().map_err(|error| format!("run psql: {error}"))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned());
        }
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// A connection to the database `postgres`.
    pub fn client(&self) -> postgres::Client {
        postgres::Client::connect(&self.conninfo(), postgres::NoTls).expect("connect to the test's server")
    }

    /// A command of PostgreSQL's client programs (`pg_dump`, `pg_amcheck`, …) that connects to this cluster.
    pub fn client_command(&self, program: &str) -> Command {
        let found = find(program).unwrap_or_else(|| panic!("{program} is not installed"));
        let mut command = self.scratch.command(found);
        command.env("PGHOST", &self.socket_dir).env("PGPORT", "5432").env("PGUSER", "postgres");
        command
    }

    /// Runs a program of PostgreSQL that needs no connection (`pg_controldata`, `pg_waldump`, …) and returns
    /// what it printed; panics when it fails.
    pub fn tool(&self, program: &str, args: &[&str]) -> String {
        let found = find(program).unwrap_or_else(|| panic!("{program} is not installed"));
        run(self.scratch.command(found).args(args))
    }

    /// Everything in the cluster, as pg_dumpall writes it, but for the key that each run has of its own.
    pub fn dump(&self) -> String {
        let output = self.client_command("pg_dumpall").arg("--no-sync").output().expect("run pg_dumpall");
        assert!(output.status.success(), "{output:#?}");
        let dump = String::from_utf8(output.stdout).expect("a dump is text");
        let same = |line: &&str| !line.contains("restrict ") && !line.starts_with("-- Dumped");
        dump.lines().filter(same).collect::<Vec<_>>().join("\n")
    }

    /// Makes pgbench's tables; a scale of 1 is about 16 MiB.
    pub fn pgbench_init(&self, scale: u32) {
        let mut command = self.client_command("pgbench");
        run(command.args(["-i", "-q", "-s", &scale.to_string(), "postgres"]));
    }

    /// Runs pgbench with two clients beside the test for some seconds, or until the handle is killed or dropped.
    pub fn pgbench(&self, seconds: u32) -> Background {
        let mut command = self.client_command("pgbench");
        command.args(["-n", "-c", "2", "-T", &seconds.to_string(), "postgres"]);
        Background::start(command, self.scratch.join(format!("pgbench{}.log", unique())))
    }

    /// Completes the current WAL segment and returns its name.
    pub fn switch_wal(&self) -> String {
        // Between two segments, where nothing is left to complete, the server names the next one since version 17.
        let end = if postgres_major() < Some(17) { "pg_switch_wal()" } else { "pg_switch_wal() - 1" };
        self.psql(&format!("select pg_walfile_name({end})"))
    }

    /// Completes the current WAL segment, waits until it is archived, and returns its name.
    pub fn archive_now(&self) -> String {
        let segment = self.switch_wal();
        self.wait_archived(&segment, Duration::from_secs(60));
        segment
    }

    /// Waits until the server counts `name` (a segment, a history file) as archived; panics after `timeout`.
    pub fn wait_archived(&self, name: &str, timeout: Duration) {
        let status = self.data_dir.join("pg_wal/archive_status");
        let (done, ready) = (status.join(format!("{name}.done")), status.join(format!("{name}.ready")));
        let file = self.data_dir.join("pg_wal").join(name);
        wait_until(&format!("{name} is archived"), timeout, || {
            // Once archived, it may have been recycled together with its status.
            done.exists() || (!ready.exists() && !file.exists())
        });
    }
}

impl Cluster {
    /// Marks the server's shared memory for removal with its last process: one that is killed cannot do so itself.
    fn forget_shared_memory(&self) {
        let pid_file = std::fs::read_to_string(self.data_dir.join("postmaster.pid")).unwrap_or_default();
        let id = pid_file.lines().nth(6).and_then(|line| line.split_whitespace().nth(1));
        if let Some(id) = id {
            let _ = Command::new("ipcrm").args(["-m", id]).stderr(std::process::Stdio::null()).status();
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.forget_shared_memory();
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            eprintln!("the log of {} ends:", self.data_dir.display());
            tail.iter().rev().for_each(|line| eprintln!("    {line}"));
        }
    }
}

/// Runs a command to its end; panics with all that it printed when it fails.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("run {command:?}: {error}"));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?} failed ({}):\n{out}{err}", output.status);
    out.into_owned()
}
