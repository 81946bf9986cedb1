//! Scratch directories: claimed by whoever works there, found again when that was killed.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use super::datadir::servers_below;
use crate::error::{Error, Kind, Result};
use crate::files::{self, Lock};

/// Stands in a directory that is claimed.
const MARKER: &str = "walarchive-scratch.json";
const MARK_MAX: u64 = 1 << 16;
/// How long servers may take to end that were told to, and then that were killed.
const ENDING: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(50);
const TRIES: u32 = 20;

#[derive(Debug, Serialize, Deserialize)]
struct Mark {
    pid: u32,
    socket_dir: PathBuf,
}

/// The claim to a directory. The system lets go of it when the program ends in whatever way; the mark that it was claimed stays.
#[derive(Debug)]
pub struct Claim(#[allow(dead_code)] Lock);

impl Claim {
    /// Claims a directory that this program has made, for a server with its socket in `socket_dir`.
    pub fn take(dir: &Path, socket_dir: &Path) -> Result<Claim> {
        let lock = Lock::take(dir)?.ok_or_else(|| {
            Error::new(Kind::Busy, format!("{} was just made, and somebody else has it", dir.display()))
        })?;
        let mark = Mark { pid: std::process::id(), socket_dir: socket_dir.to_owned() };
        let text = serde_json::to_vec(&mark)
            .map_err(|error| Error::bug("a mark cannot be written").because(error))?;
        files::write(&dir.join(MARKER), 0o600, &text)?;
        Ok(Claim(lock))
    }
}

/// A directory whose claim nobody holds any more: who had it was killed.
#[derive(Debug)]
pub struct Left {
    dir: PathBuf,
    mark: Mark,
    _claim: Lock,
}

/// All that this user's programs have left in a directory. What others own, or can enter, is not looked at, and neither is what has no mark.
pub fn left_in(base: &Path) -> Vec<Left> {
    let entries = fs::read_dir(base).into_iter().flatten().flatten();
    entries.filter_map(|entry| Left::look(entry.path())).collect()
}

fn is_own(dir: &Path) -> bool {
    let user = rustix::process::geteuid().as_raw();
    let facts = dir.symlink_metadata();
    facts.is_ok_and(|facts| facts.is_dir() && facts.uid() == user && facts.mode() & 0o077 == 0)
}

impl Left {
    fn look(dir: PathBuf) -> Option<Left> {
        // It is marked when it is claimed: what is not may be about to be.
        if !is_own(&dir) || !dir.join(MARKER).is_file() {
            return None;
        }
        let claim = Lock::take(&dir).ok()??;
        let mark = serde_json::from_slice(&files::read(&dir.join(MARKER), MARK_MAX).ok()?).ok()?;
        Some(Left { dir, mark, _claim: claim })
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Ends the servers that still work there, and removes it; whether there were any.
    pub fn remove(&self) -> Result<bool> {
        let had_servers = end_servers(&self.dir)?;
        let socket_dir = &self.mark.socket_dir;
        if !socket_dir.starts_with(&self.dir) && is_own(socket_dir) {
            // Nothing but a socket is in there, which has gone with its server.
            let _ = fs::remove_dir(socket_dir);
        }
        let mut tries = 0;
        while let Err(error) = files::remove_tree(&self.dir) {
            tries += 1;
            if tries > TRIES {
                return Err(error);
            }
            // What ends with the server may still tidy up after itself.
            thread::sleep(PAUSE);
        }
        Ok(had_servers)
    }
}

fn end_servers(dir: &Path) -> Result<bool> {
    let had_servers = !servers_below(dir).is_empty();
    for signal in [Signal::QUIT, Signal::KILL] {
        let servers = servers_below(dir);
        for pid in servers.iter().filter_map(|pid| Pid::from_raw(*pid)) {
            let _ = kill_process(pid, signal);
        }
        let begun = Instant::now();
        while begun.elapsed() < ENDING && !servers_below(dir).is_empty() {
            thread::sleep(PAUSE);
        }
    }
    match servers_below(dir).first() {
        None => Ok(had_servers),
        Some(pid) => {
            let message = format!("process {pid}, a server in {}, does not end", dir.display());
            Err(Error::new(Kind::Local, message).hint("end it, and remove the directory"))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn names(base: &Path) -> Vec<PathBuf> {
        left_in(base).iter().map(|left| left.dir().to_owned()).collect()
    }

    fn private(base: &Path, name: &str) -> PathBuf {
        let dir = base.join(name);
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
        dir
    }

    #[test]
    fn only_what_was_claimed_and_is_so_no_more_was_left() {
        let base = tempfile::tempdir().unwrap();
        let (dir, other) = (private(base.path(), "claimed"), private(base.path(), "other"));
        assert_eq!(names(base.path()), [] as [PathBuf; 0]);
        let claim = Claim::take(&dir, &dir).unwrap();
        assert_eq!(names(base.path()), [] as [PathBuf; 0], "it is claimed");
        assert!(Claim::take(&dir, &dir).is_err());
        drop(claim);
        assert_eq!(names(base.path()), std::slice::from_ref(&dir));
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(names(base.path()), [] as [PathBuf; 0], "others can enter it");
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
        std::os::unix::fs::symlink(&dir, base.path().join("link")).unwrap();
        let left = left_in(base.path());
        assert_eq!(left.len(), 1);
        assert!(!left[0].remove().unwrap());
        assert!(!dir.exists() && other.exists());
    }
}
