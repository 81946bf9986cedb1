//! A temporary directory, and the user whom everything real runs as.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use tempfile::TempDir;

/// An account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    /// Its user id.
    pub uid: u32,
    /// Its group id.
    pub gid: u32,
}

impl User {
    /// Whom to run as: `postgres` or `nobody` when the tests run as root; `None`, ourselves, otherwise.
    pub fn unprivileged() -> Option<User> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let accounts = fs::read_to_string("/etc/passwd").expect("read /etc/passwd");
        let user = ["postgres", "nobody"].iter().find_map(|name| find_account(&accounts, name));
        Some(user.expect("an account postgres or nobody"))
    }
}

fn find_account(accounts: &str, name: &str) -> Option<User> {
    let line = accounts.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut fields = line.split(':').skip(2);
    Some(User { uid: fields.next()?.parse().ok()?, gid: fields.next()?.parse().ok()? })
}

/// A temporary directory, owned by the user whom everything real runs as, removed with its last clone.
#[derive(Debug, Clone)]
pub struct Scratch(Arc<TempDir>);

impl Scratch {
    /// A new, empty one. Its path is short (socket names may have 107 bytes) and has no characters to quote.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Scratch {
        // Not TMPDIR: the unprivileged user may be unable to reach it.
        let dir =
            tempfile::Builder::new().prefix("wa-").tempdir_in("/tmp").expect("make a scratch directory");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))
            .expect("open the scratch directory");
        let scratch = Scratch(Arc::new(dir));
        scratch.own(scratch.path());
        scratch
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// The path of `name` in the directory; nothing is made.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path().join(name)
    }

    /// Makes a directory (mode 0700) in the scratch directory.
    pub fn dir(&self, name: impl AsRef<Path>) -> PathBuf {
        let path = self.join(name);
        fs::create_dir(&path).unwrap_or_else(|error| panic!("make {}: {error}", path.display()));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("set the mode");
        self.own(&path);
        path
    }

    /// Writes a file (mode 0600) in the scratch directory.
    pub fn write(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.join(name);
        fs::write(&path, content).unwrap_or_else(|error| panic!("write {}: {error}", path.display()));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set the mode");
        self.own(&path);
        path
    }

    /// Gives `path`, and what is in it, to the user whom everything real runs as.
    pub fn own(&self, path: &Path) {
        let Some(user) = User::unprivileged() else { return };
        let meta =
            fs::symlink_metadata(path).unwrap_or_else(|error| panic!("stat {}: {error}", path.display()));
        if meta.is_symlink() {
            return;
        }
        chown(path, Some(user.uid), Some(user.gid))
            .unwrap_or_else(|error| panic!("chown {}: {error}", path.display()));
        if meta.is_dir() {
            for entry in fs::read_dir(path).expect("list a directory of ours") {
                self.own(&entry.expect("list a directory of ours").path());
            }
        }
    }

    /// A command that runs `program` as the unprivileged user (ourselves, when we are not root), in the scratch
    /// directory and with it as home, without input, and with no setting of ours or of libpq inherited.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.path()).stdin(Stdio::null()).env("HOME", self.path()).env("LC_ALL", "C");
        for (name, _) in env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("PG") || text.starts_with("WALARCHIVE_") || text.starts_with("AWS_") {
                command.env_remove(name);
            }
        }
        if let Some(user) = User::unprivileged() {
            // Setting a user id as root also drops the supplementary groups.
            command.gid(user.gid).uid(user.uid);
        }
        command
    }
}
