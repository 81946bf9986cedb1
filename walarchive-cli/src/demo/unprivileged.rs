//! Root's demo, done by this program running as somebody else.

use std::env;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use walarchive_core::{Error, Kind, Result};

use super::failed;
use super::place::Place;
use crate::interrupt::Interrupt;

const PROGRAMS: [&str; 3] = ["walarchive", "walarchive-push", "walarchive-fetch"];
/// Nobody waits longer: every step of the demo has a limit of its own.
const LIMIT: Duration = Duration::from_secs(900);

/// An account.
#[derive(Debug, PartialEq, Eq)]
struct User {
    name: String,
    uid: u32,
    gid: u32,
}

/// Gives `place` to an unprivileged user, and runs this program there again, as that user; its exit code.
pub(super) fn run(place: &Place, interrupt: &Interrupt) -> Result<u8> {
    let user = user()?;
    let program = copy_programs(place)?;
    for dir in [place.path(), &place.join("bin")] {
        chown(dir, Some(user.uid), Some(user.gid))
            .map_err(|error| Error::io(format!("cannot give {} to {}", dir.display(), user.name), error))?;
    }
    let mut command = Command::new(program);
    command.args(env::args_os().skip(1)).arg("--inside").arg(place.path());
    command.current_dir(place.path()).stdin(Stdio::null());
    // A signal from the terminal reaches this process alone, which passes it on. Setting the user id as root also
    // drops the supplementary groups.
    command.process_group(0).gid(user.gid).uid(user.uid);
    let child = command.spawn().map_err(|error| {
        let doing = format!("cannot run as {} in {}", user.name, place.path().display());
        Error::io(doing, error).hint("say --dir with a directory that programs can be run from")
    })?;
    wait(child, interrupt)
}

fn wait(mut child: Child, interrupt: &Interrupt) -> Result<u8> {
    let mut status = None;
    let mut ask = || -> Result<bool> {
        status = child.try_wait().map_err(|error| Error::io("cannot wait for the demo", error))?;
        Ok(status.is_some())
    };
    if let Err(error) = interrupt.wait("the demo ends", LIMIT, &mut ask) {
        if let Some(pid) = Pid::from_raw(i32::try_from(child.id()).unwrap_or_default()) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = child.wait();
        return Err(error);
    }
    match status.and_then(|status| status.code().and_then(|code| u8::try_from(code).ok())) {
        Some(code) => Ok(code),
        None => Err(failed(format!(
            "the demo was ended by signal {}",
            status.and_then(|status| status.signal()).unwrap_or_default()
        ))),
    }
}

/// Has this process told to stop when its parent ends in whatever way: nobody else would clean up.
pub(super) fn die_with_parent() -> Result<()> {
    set_parent_process_death_signal(Some(Signal::TERM))
        .map_err(|error| Error::io("cannot tie the demo to its parent", error.into()))
}

fn user() -> Result<User> {
    let accounts =
        fs::read_to_string("/etc/passwd").map_err(|error| Error::io("cannot read /etc/passwd", error))?;
    ["postgres", "nobody"].iter().find_map(|name| account(&accounts, name)).ok_or_else(|| {
        Error::new(Kind::Local, "PostgreSQL does not run as root, and there is no account postgres or nobody")
            .hint("run the demo as an ordinary user")
    })
}

fn account(accounts: &str, name: &str) -> Option<User> {
    let line = accounts.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut fields = line.split(':').skip(2);
    let (uid, gid) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(User { name: name.to_owned(), uid, gid }).filter(|user| user.uid != 0)
}

/// Copies the programs to where the user can run them: they may be where only root can go.
fn copy_programs(place: &Place) -> Result<PathBuf> {
    let own = env::current_exe().map_err(|error| Error::io("cannot find this program's own path", error))?;
    let bin = place.dir("bin")?;
    open_to_all(&bin)?;
    for name in PROGRAMS {
        let from = if name == PROGRAMS[0] { own.clone() } else { own.with_file_name(name) };
        let to = bin.join(name);
        match fs::copy(&from, &to) {
            Ok(_) => open_to_all(&to)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound && name != PROGRAMS[0] => {}
            Err(error) => {
                return Err(Error::io(format!("cannot copy {} to {}", from.display(), to.display()), error));
            }
        }
    }
    Ok(bin.join(PROGRAMS[0]))
}

fn open_to_all(path: &Path) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .map_err(|error| Error::io(format!("cannot set the mode of {}", path.display()), error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_found_by_their_whole_name_and_root_is_none() {
        let accounts = "toor:x:0:0::/:/bin/sh\nnobody2:x:7:8::/:/bin/sh\nnobody:x:65534:65533:n:/:/bin/false\nbad:x:q:1\n";
        let found = account(accounts, "nobody").unwrap();
        assert_eq!((found.uid, found.gid), (65534, 65533));
        for name in ["postgres", "toor", "bad", ""] {
            assert_eq!(account(accounts, name), None);
        }
    }
}
