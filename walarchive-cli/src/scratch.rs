//! Directories of servers that are soon gone again.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;
use walarchive_core::{Error, Result};

/// The largest path of a Unix socket, in bytes, on every system that PostgreSQL runs on.
const SOCKET_MAX: usize = 103;
const SOCKET_NAME: &str = "/.s.PGSQL.5432.lock";
const TRIES: u32 = 20;

/// A directory for the server's socket: the name of a socket cannot be long, that of a directory can.
#[derive(Debug)]
pub(crate) struct SocketDir {
    path: PathBuf,
    _temporary: Option<TempDir>,
}

impl SocketDir {
    pub(crate) fn make(dir: &Path) -> Result<SocketDir> {
        let path = dir.join("s");
        // A comma would separate two directories.
        let speakable = !path.as_os_str().as_encoded_bytes().contains(&b',');
        if speakable && path.as_os_str().len() + SOCKET_NAME.len() <= SOCKET_MAX {
            private_dir(&path)?;
            return Ok(SocketDir { path, _temporary: None });
        }
        let dir = private_temporary("wa-", Path::new("/tmp"));
        let dir =
            dir.map_err(|error| Error::io("cannot make a directory in /tmp for the server's socket", error))?;
        Ok(SocketDir { path: dir.path().to_owned(), _temporary: Some(dir) })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// Makes a directory with a name of its own that only its owner can enter.
pub(crate) fn private_temporary(prefix: &str, dir: &Path) -> std::io::Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(prefix).permissions(fs::Permissions::from_mode(0o700)).tempdir_in(dir)
}

/// Makes a directory that only its owner can enter.
pub(crate) fn private_dir(path: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .mode(0o700)
        .create(path)
        .map_err(|error| Error::io(format!("cannot make the directory {}", path.display()), error))
}

/// Removes a directory tree or a file. Processes that end may still write into it: what appears meanwhile goes too.
pub(crate) fn remove(path: &Path) -> Result<()> {
    let mut tries = 0;
    loop {
        let is_dir = fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir());
        let removed = if is_dir { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        match removed {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(_) if tries < TRIES => tries += 1,
            Err(error) => return Err(cannot_remove(path, error)),
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// That something could not be removed.
pub(crate) fn cannot_remove(path: &Path, error: std::io::Error) -> Error {
    Error::io(format!("cannot remove {}", path.display()), error).on(path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_path_gets_a_short_socket() {
        let outer = tempfile::tempdir().unwrap();
        let long = outer.path().join("x".repeat(120));
        let socket = SocketDir::make(&long).unwrap();
        assert!(socket.path().as_os_str().len() + SOCKET_NAME.len() <= SOCKET_MAX);
        assert!(socket.path().is_dir());
        assert_eq!(socket.path().metadata().unwrap().permissions().mode() & 0o777, 0o700);
    }
}
