use std::path::Path;

use async_trait::async_trait;

use super::{WalFile, WalSource};
use crate::error::Result;

/// The one file that `archive_command` names.
#[derive(Debug)]
pub struct FileSource(Option<WalFile>);

impl FileSource {
    /// The file at `path`, whose last part is a WAL file's name.
    pub fn new(path: &Path) -> Result<FileSource> {
        WalFile::at(path).map(|file| FileSource(Some(file)))
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
