//! Files with secrets.

use std::fs::{self, Metadata, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::OFlags;
use zeroize::Zeroizing;

use crate::error::{Error, Kind, Result};

/// No file of keys is longer (bytes).
const MAX_FILE: usize = 64 * 1024;

/// Reads a file that only its owner can read.
///
/// [`Kind::Key`] when it is missing (`missing` says what to do), is not a regular file (nothing else is opened, so this never
/// waits for a FIFO), is readable by its group or others, or is longer than 64 KiB.
pub(super) fn read(path: &Path, missing: &str) -> Result<Zeroizing<Vec<u8>>> {
    let unreadable = |error| unreadable(error, missing);
    check_private(&fs::metadata(path).map_err(unreadable)?)?;
    let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path).map_err(unreadable)?;
    // Another file may have taken the name in between.
    check_private(&file.metadata().map_err(unreadable)?)?;
    // Room for all of it at once: a vector that grows leaves copies of the secret behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_FILE + 64));
    file.take(MAX_FILE as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() > MAX_FILE {
        return Err(Error::new(Kind::Key, "it is longer than 64 KiB, as no file of keys is"));
    }
    Ok(bytes)
}

fn unreadable(error: std::io::Error, missing: &str) -> Error {
    let refusal = if error.kind() == ErrorKind::NotFound {
        Error::new(Kind::Key, "there is no such file").hint(missing)
    } else {
        Error::new(Kind::Key, "it cannot be read").hint("let the user who runs this program own the file")
    };
    refusal.because(error)
}

fn check_private(metadata: &Metadata) -> Result<()> {
    if !metadata.is_file() {
        let found = if metadata.is_dir() { "a directory" } else { "not a regular file" };
        return Err(Error::new(Kind::Key, format!("it is {found}")));
    }
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(Error::new(Kind::Key, format!("its mode {mode:04o} lets others than its owner at it"))
            .hint("chmod 600 it; if others could read it until now, consider the key known to them"));
    }
    Ok(())
}
