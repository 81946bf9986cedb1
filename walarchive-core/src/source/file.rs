use std::path::{Path, PathBuf};

use async_trait::async_trait;

use super::{WalFile, WalSource};
use crate::error::{Error, Result};

/// The one file that `archive_command` names.
#[derive(Debug)]
pub struct FileSource(Option<WalFile>);

impl FileSource {
    /// The file at `path`, whose last part is a WAL file's name.
    pub fn new(path: &Path) -> Result<FileSource> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let name = name.parse().map_err(|error: Error| error.on(path.display()))?;
        Ok(FileSource(Some(WalFile { name, path: PathBuf::from(path) })))
    }
}

#[async_trait]
impl WalSource for FileSource {
    async fn next(&mut self) -> Result<Option<WalFile>> {
        Ok(self.0.take())
    }

    async fn stored(&mut self, _: &WalFile) -> Result<()> {
        Ok(())
    }
}
