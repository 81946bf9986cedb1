//! Where WAL comes from.

mod file;
mod ready;

use std::path::{Path, PathBuf};

use async_trait::async_trait;
pub use file::FileSource;
pub use ready::{ReadySource, Waiting, ready, waiting};

use crate::error::{Error, Result};
use crate::wal::WalName;

/// One WAL file that is complete and waits to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalFile {
    /// Its name, which says what it is.
    pub name: WalName,
    /// Where its bytes are.
    pub path: PathBuf,
}

impl WalFile {
    /// The file at `path`, whose last part is a WAL file's name.
    pub fn at(path: &Path) -> Result<WalFile> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let name = name.parse().map_err(|error: Error| error.on(path.display()))?;
        Ok(WalFile { name, path: path.to_owned() })
    }
}

/// Gives WAL files in the order in which they are to be stored.
///
/// # Contract
///
/// * **Order:** timeline history files before everything else, so that no segment of a timeline is stored before the
///   file that says where the timeline came from; then by name, so that a lower timeline goes before a higher one.
/// * **Complete:** a file is given only when PostgreSQL will not change it any more.
/// * **Not lost:** a file that was given and not [`stored`](WalSource::stored) is given again by a new source.
/// * Nothing is given twice by one source.
#[async_trait]
pub trait WalSource: Send {
    /// The next file, or `None` when there is nothing to store now.
    async fn next(&mut self) -> Result<Option<WalFile>>;

    /// Says that a file is durable in the archive.
    async fn stored(&mut self, file: &WalFile) -> Result<()>;
}
