//! A command that runs beside the test.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use crate::kill::signal;
use crate::{kill_tree, wait_until};

/// A running command; killed with all its children when dropped.
#[derive(Debug)]
pub struct Background {
    child: Child,
    log: PathBuf,
}

impl Background {
    /// Starts `command`; what it prints goes to the file `log`.
    pub fn start(mut command: Command, log: PathBuf) -> Background {
        let file = File::create(&log).unwrap_or_else(|error| panic!("create {}: {error}", log.display()));
        let copy = file.try_clone().expect("share the log");
        command.stdout(Stdio::from(file)).stderr(Stdio::from(copy));
        let child = command.spawn().unwrap_or_else(|error| panic!("start {command:?}: {error}"));
        Background { child, log }
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All that it printed so far.
    pub fn printed(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Whether it has ended, and how.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("ask for the child's status")
    }

    /// Waits for its end; panics after `timeout`.
    pub fn wait(&mut self, timeout: Duration) -> ExitStatus {
        let mut status = None;
        wait_until("a background command ends", timeout, || {
            status = self.ended();
            status.is_some()
        });
        status.expect("it has ended")
    }

    /// Stops it where it is, until it is told to [`go on`](Background::go_on).
    pub fn hold(&self) {
        signal(self.child.id(), Signal::STOP);
    }

    /// Lets it go on.
    pub fn go_on(&self) {
        signal(self.child.id(), Signal::CONT);
    }

    /// Kills it and all its children, and returns what it printed.
    pub fn kill(&mut self) -> String {
        if self.ended().is_none() {
            kill_tree(self.child.id());
            let _ = self.child.wait();
        }
        self.printed()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.kill();
    }
}
