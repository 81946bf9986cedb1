//! Logical dumps of a server's databases and globals: real `pg_dump` and `pg_dumpall`, straight into the archive.
//!
//! A dump exists when its manifest does: after the program has ended well, what it gave was found whole, and every pack was
//! read back from the store. Whatever fails before that leaves nothing, and changes nothing of what is there.

mod known;
mod lock;
mod making;
mod packing;
mod plan;
mod server;
mod source;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::{Either, select};
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

pub use self::lock::{RunLock, check_mount};
pub use self::plan::fits;
use self::plan::{Database, choose, turns};
use self::server::Server;
use crate::archive::{
    Archive, BackupId, Catalog, ClusterName, Dump, DumpContent, DumpFormat, HeldLease, Place,
};
use crate::codec::{Codec, CodecId};
use crate::crossing::blocking;
use crate::error::{Error, Kind, Result};
use crate::postgres::client::Client;
use crate::postgres::conninfo::ConnInfo;
use crate::postgres::programs::Programs;
use crate::postgres::stop::Stop;
use crate::progress::Progress;

/// The pseudo database of roles and tablespaces.
pub const GLOBALS: &str = "globals";

/// How dumps are made.
#[derive(Clone)]
pub struct DumpRequest {
    /// Where to.
    pub archive: Archive,
    /// Under whose name.
    pub cluster: ClusterName,
    /// How to reach the server.
    pub connection: ConnInfo,
    /// Where PostgreSQL's client programs are; looked for when not given.
    pub bin_dir: Option<PathBuf>,
    /// How data are compressed. pg_dump compresses nothing.
    pub codec: Arc<dyn Codec>,
    /// The databases, as names or patterns; none means all but templates.
    pub databases: Vec<String>,
    /// Databases that are left out, as names or patterns.
    pub exclude: Vec<String>,
    /// Custom or plain. A custom one of a large database becomes a directory when there are several connections.
    pub format: DumpFormat,
    /// Whether a plain dump makes its database itself.
    pub with_create: bool,
    /// Whether roles and tablespaces are dumped, too.
    pub globals: bool,
    /// Each dump as one object that standard tools restore: nothing is shared with other dumps.
    pub as_file: bool,
    /// More arguments for pg_dump.
    pub arguments: Vec<String>,
    /// More arguments for pg_dumpall.
    pub globals_arguments: Vec<String>,
    /// How many connections there are at once.
    pub jobs: usize,
    /// From how many bytes on a database is worth several of them.
    pub parallel_from: u64,
    /// How long what a run has stored stays protected when its program dies.
    pub lease: Duration,
    /// Where this machine remembers what it has stored; without it every dump stores everything anew.
    pub state_dir: Option<PathBuf>,
    /// Where directories grow before they are stored; that of temporary files when not given.
    pub scratch_dir: Option<PathBuf>,
    /// Whether to store everything anew.
    pub full: bool,
    /// When the last dump that stored everything is so old, the next one does, too: what is pointed to is not read again.
    pub full_every: Duration,
    /// By which days are told apart.
    pub time_zone: TimeZone,
    /// The user's labels.
    pub labels: BTreeMap<String, String>,
    /// Whether the dumps are pinned from the beginning.
    pub pin: bool,
    /// Hears how it goes.
    pub progress: Arc<dyn Progress>,
    /// Ends it: dumps that are not committed by then are not made.
    pub stop: Stop,
}

/// What became of one dump of a run.
#[derive(Debug)]
pub struct Outcome {
    /// The database, or `globals`.
    pub database: String,
    /// Which of both.
    pub content: DumpContent,
    /// How long it took.
    pub took: Duration,
    /// Bytes of the dump before it, as far as this machine remembers.
    pub bytes_before: Option<u64>,
    /// The dump that is committed, or why there is none.
    pub result: Result<Dump>,
}

/// What became of a run.
#[derive(Debug)]
pub struct RunDone {
    /// The run.
    pub id: BackupId,
    /// When it began, by this machine's clock.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
    /// Full version of the server.
    pub server_version: String,
    /// The programs that dumped, as they say themselves.
    pub dump_version: String,
    /// One for each database that was wanted, and for the globals.
    pub outcomes: Vec<Outcome>,
}

/// Dumps. One dump that fails does not keep others from being made; what became of each stands in the result. Needs no
/// identity. The caller holds a [`RunLock`].
///
/// # Errors
///
/// Only what keeps all dumps from being made: the server or the archive cannot be reached, programs are missing.
pub async fn run(request: DumpRequest) -> Result<RunDone> {
    check(&request)?;
    let (connection, bin_dir, stop) =
        (request.connection.clone(), request.bin_dir.clone(), request.stop.clone());
    let (client, server) = blocking(move || {
        let asking = Client::new(Programs::any(bin_dir.as_deref())?, connection.clone(), stop.clone());
        let server =
            Server::ask(&asking).map_err(|error| error.during("asking the server for its databases"))?;
        let programs = Programs::for_server(bin_dir.as_deref(), server.major)?;
        Ok((Client::new(programs, connection, stop), server))
    })
    .await?;
    let started_at = Timestamp::now();
    let id = BackupId::fresh()?;
    let place = Place::of_dumps(request.cluster.clone());
    let (archive, codec) = (request.archive.clone(), request.codec.clone());
    let lease = HeldLease::take(archive, place.clone(), id.clone(), codec, request.lease).await?;
    let date = started_at.to_zoned(request.time_zone.clone()).date();
    let run = Run { request, place, id, lease, client, server, date };
    let outcomes = {
        let (working, keeping) = (pin!(run.all()), pin!(run.lease.keep()));
        match select(working, keeping).await {
            Either::Left((outcomes, _)) => outcomes,
            Either::Right(_) => return Err(Error::bug("a lease ended before its run")),
        }
    };
    run.lease.end().await;
    Ok(RunDone {
        id: run.id,
        started_at,
        finished_at: Timestamp::now(),
        server_version: run.server.version,
        dump_version: run.client.programs().version.clone(),
        outcomes,
    })
}

fn check(request: &DumpRequest) -> Result<()> {
    source::check_arguments(&request.arguments)?;
    source::check_arguments(&request.globals_arguments)?;
    let codec = request.codec.id();
    if request.as_file && !matches!(codec, CodecId::Zstd | CodecId::Lz4 | CodecId::None) {
        return Err(Error::usage(format!(
            "a dump as one file cannot be compressed with {}: its own program does not pass over the index at its end",
            codec.name()
        ))
        .hint("set dump.codec to zstd, lz4 or none"));
    }
    if request.with_create && request.format != DumpFormat::Plain {
        return Err(Error::usage("--create is for plain dumps")
            .hint("restoring any other dump makes its database as it was, without being told"));
    }
    Ok(())
}

struct Run {
    request: DumpRequest,
    place: Place,
    id: BackupId,
    lease: HeldLease,
    client: Client,
    server: Server,
    date: Date,
}

/// One dump that is to be made.
struct Task {
    database: String,
    content: DumpContent,
    connections: usize,
    bytes: u64,
}

impl Run {
    async fn all(&self) -> Vec<Outcome> {
        let request = &self.request;
        let all = self.server.databases(&request.databases);
        let (chosen, lost) = choose(all, &request.databases, &request.exclude);
        for name in self.server.closed().filter(|_| request.databases.is_empty()) {
            request.progress.note(&format!("database {name:?} allows no connections and is not dumped"));
        }
        let mut outcomes: Vec<Outcome> = lost.into_iter().map(no_such_database).collect();
        // First: whoever restores a database needs its roles.
        if request.globals {
            let content = DumpContent::Globals;
            let task = Task { database: GLOBALS.to_owned(), content, connections: 1, bytes: 0 };
            outcomes.push(self.one(task).await);
        }
        let can_split = request.format == DumpFormat::Custom && !request.as_file;
        let split_from = if can_split { request.parallel_from } else { u64::MAX };
        for turn in turns(chosen, request.jobs, split_from) {
            let task = |database: Database| Task {
                database: database.name,
                content: DumpContent::Database,
                connections: turn.connections,
                bytes: database.bytes,
            };
            let dumps: Vec<_> = turn.databases.into_iter().map(|database| self.one(task(database))).collect();
            outcomes.extend(futures::stream::iter(dumps).buffered(turn.at_once).collect::<Vec<_>>().await);
        }
        outcomes
    }

    async fn one(&self, task: Task) -> Outcome {
        let begun = std::time::Instant::now();
        let progress = &self.request.progress;
        progress.begin(&task.database, task.bytes);
        let (result, bytes_before) = self.make(&task).await;
        progress.end();
        let Task { database, content, .. } = task;
        let result = result.map_err(|error| match content {
            DumpContent::Database => error.during(format!("dumping database {database:?}")),
            DumpContent::Globals => error.during("dumping the globals"),
        });
        Outcome { database, content, took: begun.elapsed(), bytes_before, result }
    }

    fn catalog(&self) -> Catalog {
        Catalog { archive: self.request.archive.clone(), place: self.place.clone() }
    }
}

fn no_such_database(name: String) -> Outcome {
    let error = Error::new(
        Kind::Absent,
        format!("no database of the server that could be dumped is named {name:?}, or fits that"),
    )
    .hint("its name is case-sensitive; one that allows no connections cannot be dumped");
    Outcome {
        database: name,
        content: DumpContent::Database,
        took: Duration::ZERO,
        bytes_before: None,
        result: Err(error),
    }
}
