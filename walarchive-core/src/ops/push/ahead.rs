//! More files than the one that was asked for, at the same time.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::{StreamExt, future, stream};

use super::receipts::{Receipt, Receipts};
use super::{Push, Pushed};
use crate::crossing::blocking;
use crate::error::{Error, Result};
use crate::patience::Patience;
use crate::source::{WalFile, ready};
use crate::wal::WalName;

/// So long files beside the one that was asked for are begun: nobody shall wait for long who wants to stop the server.
const BEGUN_FOR: Duration = Duration::from_secs(1);
/// More at once would not be faster in any store.
const AT_ONCE_MAX: usize = 32;

/// How files that are ready are stored before the server asks for it.
#[derive(Debug, Clone)]
pub struct Ahead {
    /// Where it is remembered.
    pub receipts: Receipts,
    /// How many at most, beside the one that was asked for.
    pub files: usize,
    /// How many bytes of them may be in memory: so many are stored at once. The archive says how many of those are [sealed at
    /// once](crate::archive::Archive::sealing_at_once).
    pub memory: u64,
    /// Whether the server's notes in `archive_status` are changed from `.ready` to `.done`, so that it does not even ask. It is
    /// prepared for that, but does not count such files in `pg_stat_archiver`.
    pub batch_done: bool,
}

/// What became of the other files.
#[derive(Debug, Default)]
pub struct AlsoPushed {
    /// Those that are stored.
    pub pushed: Vec<(WalFile, Pushed)>,
    /// Why not more could be stored, or why it could not be remembered; the server will ask for those files.
    pub problem: Option<Error>,
}

impl Push {
    /// Does what [`run`](Push::run) does with `file`, as patiently as is said, and stores the next files that are ready in the same
    /// `pg_wal` at the same time: for these there are receipts then, so that the calls for them have nothing left to do.
    /// History files come before all segments. Whatever becomes of the other files, the result is that of `file`.
    ///
    /// Only for a file that the server waits for: one that it has not noted as ready is stored alone.
    pub async fn run_ahead(
        &self,
        file: &WalFile,
        ahead: &Ahead,
        patience: &Patience,
    ) -> Result<(Pushed, AlsoPushed)> {
        let asked = patience.run(|| self.run(file));
        let (wal, plan) = (file.clone(), ahead.clone());
        let others = match file.name {
            WalName::Segment(_) if ahead.files > 0 => blocking(move || plan.next(&wal)).await,
            _ => Ok(Vec::new()),
        };
        let others = async {
            match others {
                Ok(others) => self.others(file, others, ahead).await,
                Err(error) => AlsoPushed { problem: Some(error), ..AlsoPushed::default() },
            }
        };
        let (pushed, mut also) = future::join(asked, others).await;
        let pushed = pushed?;
        let (plan, sent) = (ahead.clone(), std::mem::take(&mut also.pushed));
        let noted;
        (also.pushed, noted) = blocking(move || Ok(plan.note(sent))).await?;
        also.problem = also.problem.or(noted.err());
        Ok((pushed, also))
    }

    async fn others(&self, file: &WalFile, files: Vec<WalFile>, ahead: &Ahead) -> AlsoPushed {
        let begun = Instant::now();
        let mut pushed = Vec::new();
        let goes_on = || begun.elapsed() < BEGUN_FOR;
        let push = |wal: WalFile| async move {
            let pushed = self.push_for_receipt(&wal).await;
            (wal, pushed)
        };
        let each = |wal, done| pushed.push((wal, done));
        let stored = in_order(files, at_once(ahead.memory, &file.path), goes_on, push, each).await;
        AlsoPushed { pushed, problem: stored.err() }
    }

    /// Stores all of these files as [`run`](Push::run) does, as patiently as is said for each, with so many bytes of them on their way at
    /// once: history files before all segments. Tells `each` of what is stored, in the order of `files`, up to the first failure.
    pub async fn run_all(
        &self,
        files: Vec<WalFile>,
        memory: u64,
        patience: &Patience,
        each: impl FnMut(WalFile, Pushed),
    ) -> Result<()> {
        let at_once = files.last().map_or(1, |last| at_once(memory, &last.path));
        let push = |wal: WalFile| async move {
            let pushed = patience.run(|| self.run(&wal)).await;
            (wal, pushed)
        };
        in_order(files, at_once, || true, push, each).await
    }
}

/// Stores files, several at once, for as long as it goes on and nothing fails, and waits for what was begun.
async fn in_order<F>(
    files: Vec<WalFile>,
    at_once: usize,
    goes_on: impl Fn() -> bool,
    push: impl Fn(WalFile) -> F,
    mut each: impl FnMut(WalFile, Pushed),
) -> Result<()>
where
    F: Future<Output = (WalFile, Result<Pushed>)>,
{
    let (histories, rest): (Vec<_>, Vec<_>) =
        files.into_iter().partition(|wal| matches!(wal.name, WalName::History(_)));
    let failed = AtomicBool::new(false);
    for (wave, at_once) in [(histories, 1), (rest, at_once)] {
        let mut first = None;
        let begins = |_: &WalFile| future::ready(!failed.load(Ordering::Relaxed) && goes_on());
        let mut results = stream::iter(wave).take_while(begins).map(&push).buffered(at_once);
        while let Some((wal, pushed)) = results.next().await {
            match pushed {
                Ok(pushed) if first.is_none() => each(wal, pushed),
                Ok(_) => {}
                Err(error) => {
                    failed.store(true, Ordering::Relaxed);
                    first = first.or(Some(error));
                }
            }
        }
        if let Some(error) = first {
            return Err(error);
        }
    }
    Ok(())
}

/// How many files like this one have room in so much memory, beside another one.
fn at_once(memory: u64, path: &Path) -> usize {
    let size = std::fs::metadata(path).map_or(0, |facts| facts.len()).max(1);
    usize::try_from(memory / size).unwrap_or(usize::MAX).saturating_sub(1).clamp(1, AT_ONCE_MAX)
}

impl Ahead {
    /// The next files that are ready, as the server takes them, beside `asked`, and without those that there are receipts for.
    fn next(&self, asked: &WalFile) -> Result<Vec<WalFile>> {
        let Some(pg_wal) = asked.path.parent() else { return Ok(Vec::new()) };
        if !pg_wal.join(format!("archive_status/{}.ready", asked.name)).exists() {
            return Ok(Vec::new());
        }
        if !self.batch_done {
            self.receipts.prove()?;
        }
        let stored: BTreeSet<String> = self.receipts.names().collect();
        let wanted = |name: &WalName| {
            *name != asked.name && !matches!(name, WalName::Partial(_)) && !stored.contains(&name.to_string())
        };
        let names = ready(pg_wal)?.into_iter().filter(wanted).take(self.files);
        Ok(names.map(|name| WalFile { name, path: pg_wal.join(name.to_string()) }).collect())
    }

    /// Remembers what was stored: in the server's notes where that is wanted, or as receipts.
    fn note(&self, sent: Vec<(WalFile, Pushed)>) -> (Vec<(WalFile, Pushed)>, Result<()>) {
        let receipts: Vec<(WalFile, Receipt)> =
            sent.iter().filter_map(|(wal, pushed)| Some((wal.clone(), pushed.receipt.clone()?))).collect();
        let noted = match self.batch_done {
            true => receipts.iter().try_for_each(|(wal, _)| mark_done(&wal.path)),
            false => self.receipts.keep(receipts.into_iter().map(|(_, receipt)| receipt).collect()),
        };
        (sent, noted)
    }
}

/// Tells the server that a file is archived, as it tells itself.
fn mark_done(path: &Path) -> Result<()> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    let note = |end: &str| dir.join("archive_status").join(format!("{}.{end}", name.to_string_lossy()));
    // Not made durable, as the server does not either: after a crash it asks for a file that is stored.
    std::fs::rename(note("ready"), note("done"))
        .map_err(|error| Error::io(format!("cannot mark {} as archived", path.display()), error))
}
