//! `wal fetch`: one WAL file, and what recovery will ask for next.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;
use walarchive_core::archive::{Catalog, SystemId};
use walarchive_core::config::WalWork;
use walarchive_core::ops::fetch::{Keeping, Shelf, fetch as fetch_file};
use walarchive_core::patience::Patience;
use walarchive_core::postgres::datadir;
use walarchive_core::wal::{SegmentName, WalName};
use walarchive_core::{Error, Result};

use crate::args::FetchArgs;
use crate::exit::Caller;
use crate::run::{Context, block_on};
use crate::wal::OTHERWISE;

const IN_RECOVERY: Duration = Duration::from_secs(300);
/// Where a server has its segments put that it recovers from.
const RECOVERED: &str = "RECOVERYXLOG";
/// More at once would only keep the first one waiting.
const AT_ONCE: usize = 4;

/// A variable of the process that fetches ahead.
const AHEAD: &str = "_WALARCHIVE_AHEAD";

/// `wal fetch`
pub(crate) fn fetch(context: Context, caller: Caller, args: FetchArgs) -> Result<u8> {
    // restore_command runs in the data directory.
    let here = datadir::system_id_of(Path::new("."))?.map(SystemId);
    let ahead = Ahead::of(&context, &args, here)?;
    if is_ahead() {
        return ahead.map_or(Ok(()), |ahead| block_on(ahead.keep(&context, here))).map(|()| 0);
    }
    // Before anything is set up: this is to take a few milliseconds.
    let ready = ahead.as_ref().and_then(|ahead| ahead.shelf.take(&ahead.name, &args.dest).ok().flatten());
    let len = match ready {
        Some(len) => {
            context.output.detail(&format!("{} was fetched ahead", args.name));
            len
        }
        None => block_on(fetch_now(&context, caller, &args, here))?,
    };
    if let (Some(ahead), None) = (ahead, ready) {
        ahead.go_on(&context);
    }
    let document = json!({ "name": args.name.to_string(), "dest": args.dest, "data_bytes": len });
    context.output.result(&document, String::new)?;
    Ok(0)
}

async fn fetch_now(
    context: &Context,
    caller: Caller,
    args: &FetchArgs,
    here: Option<SystemId>,
) -> Result<u64> {
    let in_recovery =
        matches!(caller, Caller::Recovery { standby: true }) || Path::new("recovery.signal").exists();
    let budget = context.settings.retry_budget(if in_recovery { IN_RECOVERY } else { OTHERWISE })?;
    let patience = context.patience(budget);
    let attempt = || async {
        let catalog = catalog(context, &patience, here).await?;
        fetch_file(&catalog, &args.name, &args.dest).await
    };
    patience.run(attempt).await
}

async fn catalog(context: &Context, patience: &Patience, here: Option<SystemId>) -> Result<Catalog> {
    let archive = context.settings.archive(patience).await?;
    match (context.settings.system_id()?, here) {
        (None, Some(system)) => context.catalog_of(&archive, Some(system)).await,
        _ => context.catalog(&archive).await,
    }
}

/// What is fetched ahead for a server that recovers.
struct Ahead {
    shelf: Shelf,
    name: SegmentName,
    work: WalWork,
}

impl Ahead {
    /// Nothing for anybody but a server in recovery that asks for a segment.
    fn of(context: &Context, args: &FetchArgs, here: Option<SystemId>) -> Result<Option<Ahead>> {
        let work = context.settings.wal_work()?;
        let (WalName::Segment(name), Some(here)) = (args.name, here) else { return Ok(None) };
        let is_recovery = args.dest.file_name().is_some_and(|name| name == RECOVERED) && recovers();
        if work.fetch_ahead == 0 || !is_recovery {
            return Ok(None);
        }
        let place = format!("{} {here}", context.settings.fingerprint());
        Ok(Some(Ahead { shelf: Shelf::beside(&args.dest, &place), name, work }))
    }

    /// Has the next segments fetched, while the server replays this one. Nobody who recovers has to know if that fails.
    fn go_on(&self, context: &Context) {
        let started = match self.shelf.tell(&self.name) {
            Ok(false) => start(),
            told => told.map(drop),
        };
        if let Err(error) = started {
            context.output.detail(&format!("nothing is fetched ahead: {}", error.story()));
        }
    }

    async fn keep(self, context: &Context, here: Option<SystemId>) -> Result<()> {
        let (control, _) = datadir::read_control(Path::new("."))?;
        let size = control.wal_segment_size;
        let keeping = Keeping {
            catalog: catalog(context, &Patience::none(), here).await?,
            size,
            first: self.name.next(size)?,
            segments: self.work.fetch_ahead,
            at_once: AT_ONCE.min(self.work.fetch_ahead),
            wanted: recovers,
        };
        self.shelf.keep(keeping).await
    }
}

/// Whether a server recovers from an archive in this directory.
fn recovers() -> bool {
    let signalled = ["recovery.signal", "standby.signal"].iter().any(|name| Path::new(name).exists());
    signalled && matches!(datadir::running_server(Path::new(".")), Ok(Some(_)))
}

/// Whether this is the process that fetches ahead. Nobody waits for it, but the server may be its parent in the end: to that, any code
/// but 0 means that one of its own has crashed.
pub(crate) fn is_ahead() -> bool {
    std::env::var_os(AHEAD).is_some()
}

/// Starts this program once more, in a group of its own: what the server sends to this call is not for it.
fn start() -> Result<()> {
    let failed = |error| Error::io("cannot start another process", error);
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    command.args(std::env::args_os().skip(1)).env(AHEAD, "1").process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().map(drop).map_err(failed)
}
