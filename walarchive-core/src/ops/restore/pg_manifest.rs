//! PostgreSQL's own `backup_manifest`, so that `pg_verifybackup` can check what was restored.

use std::io::Write;
use std::path::Path;

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::archive::Facts;
use crate::error::{Error, Result};
use crate::files::NewFile;

const FIRST_WITH_SYSTEM_ID: u32 = 17;

/// The manifest being written.
pub(super) struct PgManifest {
    file: NewFile,
    digest: Sha256,
    first: bool,
}

fn json(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

impl PgManifest {
    pub(super) fn create(path: &Path, mode: u32, facts: &Facts) -> Result<PgManifest> {
        let mut manifest =
            PgManifest { file: NewFile::create(path, mode)?, digest: Sha256::new(), first: true };
        let start = match facts.pg_major {
            FIRST_WITH_SYSTEM_ID.. => {
                format!(
                    "{{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n\"System-Identifier\": {},\n",
                    facts.system_id
                )
            }
            _ => "{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n".to_owned(),
        };
        manifest.put(&format!("{start}\"Files\": ["))?;
        Ok(manifest)
    }

    fn put(&mut self, text: &str) -> Result<()> {
        self.digest.update(text.as_bytes());
        self.file.write_all(text.as_bytes()).map_err(|error| Error::io("cannot write backup_manifest", error))
    }

    /// Adds a file by its path, size and CRC-32C.
    pub(super) fn file(&mut self, path: &Path, size: u64, mtime: Timestamp, crc32c: u32) -> Result<()> {
        use std::os::unix::ffi::OsStrExt;
        let name = match path.to_str() {
            Some(text) => format!("\"Path\": {}", json(text)),
            None => {
                let hex: String =
                    path.as_os_str().as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
                format!("\"Encoded-Path\": \"{hex}\"")
            }
        };
        let comma = if std::mem::take(&mut self.first) { "\n" } else { ",\n" };
        // PostgreSQL prints the checksum's bytes in memory order.
        let sum: String = crc32c.to_le_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        let time = mtime.strftime("%Y-%m-%d %H:%M:%S GMT");
        self.put(&format!(
            "{comma}{{ {name}, \"Size\": {size}, \"Last-Modified\": \"{time}\", \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"{sum}\" }}"
        ))
    }

    /// Adds the WAL that the backup needs, and ends the file.
    pub(super) fn finish(mut self, facts: &Facts) -> Result<()> {
        self.put(&format!(
            "\n],\n\"WAL-Ranges\": [\n{{ \"Timeline\": {}, \"Start-LSN\": \"{}\", \"End-LSN\": \"{}\" }}\n],\n",
            facts.timeline, facts.start_lsn, facts.stop_lsn
        ))?;
        let digest: String =
            self.digest.clone().finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        self.put(&format!("\"Manifest-Checksum\": \"{digest}\"}}\n"))?;
        self.file.publish()
    }
}
