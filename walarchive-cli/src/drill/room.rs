//! The scratch place of a drill.

use std::env;
use std::path::{Path, PathBuf};

use walarchive_core::postgres::instance::Site;
use walarchive_core::postgres::programs::ServerPrograms;
use walarchive_core::postgres::scratch::{Claim, left_in};
use walarchive_core::{Error, Result};

use super::Stage;
use crate::scratch::{SocketDir, private_temporary, remove};

/// A directory for this user alone, with what it holds removed when it is dropped.
#[derive(Debug)]
pub(super) struct Room {
    path: PathBuf,
    socket: SocketDir,
    keep: bool,
    /// Not of what is to stay.
    _claim: Option<Claim>,
}

impl Room {
    pub(super) fn make(stage: &Stage<'_>) -> Result<Room> {
        let set = stage.args.scratch_dir.clone().or_else(|| stage.context.settings.drill_scratch_dir());
        let base = set.unwrap_or_else(env::temp_dir);
        // The server works in another directory.
        let base = std::path::absolute(&base)
            .map_err(|error| Error::io(format!("cannot resolve {}", base.display()), error))?;
        clean_up_after_others(stage, &base);
        let made = private_temporary("walarchive-drill-", &base);
        let path = made.map(tempfile::TempDir::keep).map_err(|error| {
            Error::io(format!("cannot make a scratch directory in {}", base.display()), error)
                .on(base.display())
                .hint("--scratch-dir or drill.scratch_dir names a directory with space for all of it")
        })?;
        match Room::furnish(&path, stage.args.keep) {
            Ok((socket, claim)) => Ok(Room { path, socket, keep: stage.args.keep, _claim: claim }),
            Err(error) => {
                let _ = remove(&path);
                Err(error)
            }
        }
    }

    fn furnish(path: &Path, keep: bool) -> Result<(SocketDir, Option<Claim>)> {
        let socket = SocketDir::make(path)?;
        let claim = if keep { None } else { Some(Claim::take(path, socket.path())?) };
        Ok((socket, claim))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn site(&self, programs: ServerPrograms, role: Option<String>) -> Site {
        Site {
            programs,
            data_dir: self.path.join("data"),
            socket_dir: self.socket.path().to_owned(),
            log: self.path.join("server.log"),
            role,
        }
    }

    /// Removes it, unless it is kept; an error when that fails.
    pub(super) fn clean(mut self, stage: &Stage<'_>) -> Result<()> {
        if self.keep {
            stage.say(&format!(
                "everything stays in {}; settings in data/postgresql.auto.conf keep a server there to itself",
                self.path.display()
            ));
            return Ok(());
        }
        self.keep = true;
        remove(&self.path)
    }
}

/// A drill that was killed leaves its directory, and its server running.
fn clean_up_after_others(stage: &Stage<'_>, base: &Path) {
    for left in left_in(base) {
        let dir = left.dir().display();
        match left.remove() {
            Ok(true) => stage.say(&format!(
                "ended the server that a drill had left in {dir} when it was killed, and removed it"
            )),
            Ok(false) => stage.say(&format!("removed {dir}, which a drill had left when it was killed")),
            Err(error) => {
                let message = format!(
                    "what a drill has left in {dir} when it was killed cannot be removed: {}",
                    error.story()
                );
                stage.context.output.warning(&message);
            }
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if !self.keep {
            // `clean` tells about failures; this is the way out of another one.
            let _ = remove(&self.path);
        }
    }
}
