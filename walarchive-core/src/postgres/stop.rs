//! Ending PostgreSQL's programs from outside, as when this one is told to stop.

use std::collections::BTreeSet;
use std::process::{Child, ExitStatus};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use crate::error::{Error, Kind, Result};

/// Shared by whoever runs programs and whoever may end them.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    why: Option<String>,
    /// Each program that runs leads a group of its own: what it has started ends with it.
    running: BTreeSet<i32>,
}

impl Stop {
    /// Ends every program that runs, and lets none be started any more. `why` goes on with "stopped …".
    pub fn stop(&self, why: &str) {
        let mut state = self.state();
        state.why.get_or_insert_with(|| why.to_owned());
        for group in &state.running {
            signal(*group, Signal::TERM);
        }
    }

    /// An error once it was told to stop.
    pub fn check(&self) -> Result<()> {
        match &self.state().why {
            Some(why) => Err(Error::new(Kind::Local, format!("stopped {why}"))),
            None => Ok(()),
        }
    }

    /// Starts a program, unless it was told to stop. It must lead a process group of its own.
    pub fn start(&self, start: impl FnOnce() -> Result<Child>) -> Result<Child> {
        self.check()?;
        let child = start()?;
        self.state().running.insert(id(&child));
        // It may have been told meanwhile.
        if self.check().is_err() {
            signal(id(&child), Signal::TERM);
        }
        Ok(child)
    }

    /// Waits for the end of a program. Its number is given back only when nobody can signal it any more.
    pub fn wait(&self, child: &mut Child) -> std::io::Result<ExitStatus> {
        if let Some(pid) = Pid::from_raw(id(child)) {
            let end = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            while let Err(rustix::io::Errno::INTR) = waitid(WaitId::Pid(pid), end) {}
        }
        let mut state = self.state();
        state.running.remove(&id(child));
        child.wait()
    }

    /// Whether a program has ended.
    pub(super) fn has_ended(&self, child: &mut Child) -> std::io::Result<bool> {
        let mut state = self.state();
        let ended = child.try_wait()?.is_some();
        if ended {
            state.running.remove(&id(child));
        }
        Ok(ended)
    }

    /// Ends a program and all that it has started at once.
    pub(super) fn kill(&self, child: &mut Child) {
        if self.state().running.contains(&id(child)) {
            signal(id(child), Signal::KILL);
        }
        let _ = self.wait(child);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn id(child: &Child) -> i32 {
    i32::try_from(child.id()).unwrap_or_default()
}

fn signal(group: i32, signal: Signal) {
    if let Some(group) = Pid::from_raw(group).filter(|_| group > 1) {
        let _ = kill_process_group(group, signal);
    }
}
