//! Ends processes together with all that they started.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::wait_until;

/// How often a test kills: as often as usual, or as `WALARCHIVE_TEST_KILLS` says.
pub fn kills(usual: u32) -> u32 {
    std::env::var("WALARCHIVE_TEST_KILLS").ok().and_then(|count| count.parse().ok()).unwrap_or(usual)
}

/// Moments at which to kill a program: spread over the time that it takes, from its beginning to its end.
///
/// How long that is changes with the machine's other work, so it is corrected by what was hit and what was missed: about three
/// quarters are hits.
pub struct Moments {
    whole: Duration,
    times: u32,
    nth: u32,
}

impl Moments {
    /// `times` of them, of a program that once took `whole`.
    pub fn new(whole: Duration, times: u32) -> Moments {
        Moments { whole, times, nth: 0 }
    }

    /// How long to wait before the next kill. Not in their order: what one leaves is what the next one finds.
    pub fn wait(&mut self) -> Duration {
        let part = f64::from(self.nth * 37 % self.times) / f64::from(self.times);
        self.nth += 1;
        self.whole.mul_f64(part)
    }

    /// Says whether it still ran.
    pub fn was_hit(&mut self, is_hit: bool) {
        self.whole = self.whole.mul_f64(if is_hit { 1.05 } else { 0.85 });
    }
}

/// The processes that descend from `root`, itself first, as long as they live.
///
/// Process groups would not do: every backend of PostgreSQL makes itself the leader of its own.
pub fn tree_of(root: u32) -> Vec<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for (pid, process) in processes() {
        children.entry(process.parent).or_default().push(pid);
    }
    let mut tree = if is_alive(root) { vec![root] } else { Vec::new() };
    let mut next = 0;
    while next < tree.len() {
        tree.extend(children.get(&tree[next]).into_iter().flatten());
        next += 1;
    }
    tree
}

/// Kills `root` and all its descendants with SIGKILL, so that none can tidy up or start another, and waits until
/// none is left. The caller still has to wait for its child.
pub fn kill_tree(root: u32) {
    let mut stopped = BTreeSet::new();
    loop {
        let fresh: Vec<u32> = tree_of(root).into_iter().filter(|pid| stopped.insert(*pid)).collect();
        if fresh.is_empty() {
            break;
        }
        fresh.iter().for_each(|pid| signal(*pid, Signal::STOP));
    }
    stopped.iter().for_each(|pid| signal(*pid, Signal::KILL));
    wait_until("the killed processes are gone", Duration::from_secs(30), || {
        !stopped.iter().any(|pid| is_alive(*pid))
    });
}

/// Sends a signal; a process that is gone already is none of our concern.
pub(crate) fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// Whether every thread of a process has heard of a STOP: it takes effect a moment after it was sent.
pub(crate) fn is_stopped(pid: u32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return true };
    threads.flatten().all(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        state_of(&stat).is_none_or(|state| matches!(state, 'T' | 'Z' | 'X'))
    })
}

struct Process {
    parent: u32,
    state: char,
}

fn is_alive(pid: u32) -> bool {
    // A zombie waits for its parent only.
    process(pid).is_some_and(|process| !matches!(process.state, 'Z' | 'X'))
}

fn processes() -> Vec<(u32, Process)> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| Some((pid, process(pid)?))).filter(|(_, process)| process.state != 'Z').collect()
}

fn process(pid: u32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let parent = fields(&stat)?.nth(1)?.parse().ok()?;
    Some(Process { state: state_of(&stat)?, parent })
}

/// What follows the name in parentheses, which may contain anything.
fn fields(stat: &str) -> Option<std::str::SplitWhitespace<'_>> {
    Some(stat.rsplit_once(')')?.1.split_whitespace())
}

fn state_of(stat: &str) -> Option<char> {
    fields(stat)?.next()?.chars().next()
}
