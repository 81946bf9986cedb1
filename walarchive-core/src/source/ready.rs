use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use jiff::Timestamp;

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

/// Files that wait to be archived.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Waiting {
    /// How many.
    pub files: u64,
    /// Since when the first of them waits; by the server's file system.
    pub since: Option<Timestamp>,
}

/// Looks at what `pg_wal/archive_status` of a data directory lists as ready.
pub fn waiting(data_dir: &Path) -> Result<Waiting> {
    let pg_wal = data_dir.join("pg_wal");
    let names = ready(&pg_wal)?;
    let since = names.iter().filter_map(|name| {
        let ready = pg_wal.join("archive_status").join(format!("{name}.ready"));
        let changed = std::fs::metadata(ready).and_then(|meta| meta.modified()).ok()?;
        Timestamp::try_from(changed).ok()
    });
    Ok(Waiting { files: names.len() as u64, since: since.min() })
}

/// What `archive_status` of a `pg_wal` lists as ready, in the order in which the server takes it.
pub fn ready(pg_wal: &Path) -> Result<VecDeque<WalName>> {
    let status = pg_wal.join("archive_status");
    let attempt = |error| Error::io(format!("cannot list {}", status.display()), error).on(status.display());
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&status).map_err(attempt)? {
        let file = entry.map_err(attempt)?.file_name();
        let name = file.to_str().and_then(|name| name.strip_suffix(".ready"));
        let Some(Ok(name)) = name.map(str::parse::<WalName>) else { continue };
        // A status file outlives its segment when the server crashed in between; the server removes it.
        if pg_wal.join(name.to_string()).exists() {
            names.push(name);
        }
    }
    names.sort_by_key(|name| (!matches!(name, WalName::History(_)), name.to_string()));
    Ok(names.into())
}

#[async_trait]
impl WalSource for ReadySource {
    async fn next(&mut self) -> Result<Option<WalFile>> {
        if self.waiting.is_none() {
            let pg_wal = self.pg_wal.clone();
            self.waiting = Some(blocking(move || ready(&pg_wal)).await?);
        }
        let name = self.waiting.as_mut().and_then(VecDeque::pop_front);
        Ok(name.map(|name| WalFile { name, path: self.pg_wal.join(name.to_string()) }))
    }

    async fn stored(&mut self, _: &WalFile) -> Result<()> {
        Ok(())
    }
}
