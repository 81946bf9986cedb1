//! A rehearsal: a backup or dump is restored in a scratch place, its server started, and all of it looked through.

mod backup;
mod dump;
mod report;
mod room;

use std::future::Future;
use std::time::Instant;

use jiff::Timestamp;
use tokio::runtime::Runtime;
use walarchive_core::archive::{BackupId, Catalog, DrillCheck, Drilled};
use walarchive_core::ops::drill::Reached;
use walarchive_core::{Error, Kind, Result};

use crate::args::DrillArgs;
use crate::interrupt::Interrupt;
use crate::run::{Context, runtime};

/// `drill`: 0 when all that was promised came back, 4 when not; 128 and the signal's number when it was told to stop.
pub(crate) fn drill(context: &Context, args: &DrillArgs) -> Result<u8> {
    refuse(args)?;
    let interrupt = Interrupt::listen()?;
    let id = BackupId::fresh()?;
    let (started, begun) = (Timestamp::now(), Instant::now());
    let stage = Stage { context, args, interrupt, runtime: runtime()?, id, started, begun };
    let found = match args.dump.as_deref() {
        Some(dump) => dump::drill(&stage, dump),
        None => backup::drill(&stage),
    };
    let code = match (stage.interrupt.signal(), found) {
        (Some(signal), _) => {
            context
                .output
                .warning("told to stop: nothing was proven, and everything that was started is gone");
            Ok(128_u8.saturating_add(signal))
        }
        (None, Ok(found)) => report::conclude(&stage, found),
        (None, Err(error)) => Err(error),
    };
    // What still writes into the scratch directory, when it was told to stop, is not waited for.
    stage.runtime.shutdown_background();
    code
}

/// Before anything is begun.
fn refuse(args: &DrillArgs) -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return Err(Error::usage("PostgreSQL does not run as root, so a drill cannot")
            .hint("run it as PostgreSQL's user: sudo -u postgres walarchive drill"));
    }
    if let Some(file) = args.sql.iter().find(|file| !file.is_file()) {
        return Err(Error::usage(format!("{} is not a file with SQL", file.display())));
    }
    Ok(())
}

/// What a drill works with.
struct Stage<'a> {
    context: &'a Context,
    args: &'a DrillArgs,
    interrupt: Interrupt,
    runtime: Runtime,
    /// The name of the report.
    id: BackupId,
    started: Timestamp,
    begun: Instant,
}

impl Stage<'_> {
    /// Waits for async work, until a signal comes.
    fn wait<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.interrupt.during(&self.runtime, work)
    }

    /// For blocking work: an error when a signal came.
    fn alive(&self) -> Result<()> {
        self.interrupt.check()
    }

    fn say(&self, text: &str) {
        self.context.output.info(text);
    }
}

/// What a drill found.
struct Found {
    /// Where its report belongs.
    catalog: Catalog,
    of: Drilled,
    database: Option<String>,
    target: Option<String>,
    /// The backup's or dump's own end: the restored state is not older.
    complete_at: Option<Timestamp>,
    reached: Option<Reached>,
    server_version: Option<String>,
    checks: Vec<DrillCheck>,
}

/// That something promised did not come back, as a check that failed; errors that say nothing about the archive stay errors.
fn broken(name: &str, begun: Instant, error: Error) -> Result<DrillCheck> {
    if !matches!(error.kind(), Kind::Damaged | Kind::Unrestorable) {
        return Err(error);
    }
    let ms = report::millis(begun.elapsed());
    Ok(DrillCheck { name: name.to_owned(), ok: Some(false), detail: error.story(), ms })
}
