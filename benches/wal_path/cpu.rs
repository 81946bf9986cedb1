//! CPU time of processes that others wait for.

use std::fs;
use std::time::Duration;

use rustix::process::{WaitOptions, wait};

/// The system's unit in `/proc`, on every machine of today.
const TICK: Duration = Duration::from_millis(10);

/// CPU time of the children of a process, and of theirs, that have ended.
pub fn of_children(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Behind the name in parentheses, the third field is the first.
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace()).into_iter().flatten();
    let ticks: u32 = fields.skip(13).take(2).filter_map(|field| field.parse::<u32>().ok()).sum();
    TICK * ticks
}

/// CPU time of our own, after those that we adopted are buried.
pub fn of_ours() -> Duration {
    while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
    of_children(std::process::id())
}
