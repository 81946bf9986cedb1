use std::collections::{HashSet, VecDeque};
use std::path::{Path, PathBuf};

use async_trait::async_trait;

use super::{WalFile, WalSource};
use crate::crossing::blocking;
use crate::error::{Error, Result};
use crate::wal::WalName;

/// What `pg_wal/archive_status` of a data directory lists as ready. Looks once, and changes nothing there:
/// PostgreSQL will offer the files again, and finds them stored.
#[derive(Debug)]
pub struct ReadySource {
    pg_wal: PathBuf,
    waiting: Option<VecDeque<WalName>>,
}

impl ReadySource {
    /// The ready files of the data directory.
    pub fn new(data_dir: &Path) -> ReadySource {
        ReadySource { pg_wal: data_dir.join("pg_wal"), waiting: None }
    }
}

/// Names that `archive_status` lists, in the order in which they are archived.
#[derive(Debug, Default)]
pub(super) struct Listed {
    /// Complete, and not archived.
    pub(super) ready: Vec<WalName>,
    /// Archived, and not yet removed.
    pub(super) done: Vec<WalName>,
}

/// What `archive_status` of a `pg_wal` lists as ready, in the order in which the server takes it.
pub fn ready(pg_wal: &Path) -> Result<Vec<WalName>> {
    list(pg_wal).map(|listed| listed.ready)
}

/// Lists `archive_status`. A status file outlives its file when the server crashed in between; such are left out.
pub(super) fn list(pg_wal: &Path) -> Result<Listed> {
    let (mut listed, mut found) = (Listed::default(), Vec::new());
    each(&pg_wal.join("archive_status"), |file| {
        let Some((name, status)) = file.rsplit_once('.') else { return };
        let names = match status {
            "ready" => &mut listed.ready,
            "done" => &mut listed.done,
            _ => return,
        };
        names.extend(name.parse::<WalName>());
    })?;
    // Behind the other listing: what was archived and removed in between waits no more.
    each(pg_wal, |file| found.extend(file.parse::<WalName>()))?;
    let found: HashSet<WalName> = found.into_iter().collect();
    for names in [&mut listed.ready, &mut listed.done] {
        names.retain(|name| found.contains(name));
        names.sort_by_cached_key(|name| (!matches!(name, WalName::History(_)), name.to_string()));
    }
    Ok(listed)
}

fn each(dir: &Path, mut tell: impl FnMut(&str)) -> Result<()> {
    let attempt = |error| Error::io(format!("cannot list {}", dir.display()), error).on(dir.display());
    for entry in std::fs::read_dir(dir).map_err(attempt)? {
        if let Some(file) = entry.map_err(attempt)?.file_name().to_str() {
            tell(file);
        }
    }
    Ok(())
}

#[async_trait]
impl WalSource for ReadySource {
    async fn next(&mut self) -> Result<Option<WalFile>> {
        if self.waiting.is_none() {
            let pg_wal = self.pg_wal.clone();
            self.waiting = Some(blocking(move || ready(&pg_wal)).await?.into());
        }
        let name = self.waiting.as_mut().and_then(VecDeque::pop_front);
        Ok(name.map(|name| WalFile { name, path: self.pg_wal.join(name.to_string()) }))
    }

    async fn stored(&mut self, _: &WalFile) -> Result<()> {
        Ok(())
    }
}
