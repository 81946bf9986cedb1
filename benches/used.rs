//! What a child process took.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use wait4::Wait4;

use crate::{median, thread_time};

/// What a process, with those that it waited for, took.
#[derive(Debug, Clone, Copy, Default)]
pub struct Used {
    /// From its start to its end.
    pub wall: Duration,
    /// User and system time.
    pub cpu: Duration,
    /// Its largest resident set in bytes. The system counts the moment before it became its own program too, so
    /// nothing below the size of the measuring process can be seen.
    pub rss: u64,
}

impl Used {
    /// Runs a command to its end; panics when it fails.
    pub fn by(command: Command) -> Used {
        Used::tried(command).unwrap_or_else(|failed| panic!("{failed}"))
    }

    /// Runs a command to its end.
    ///
    /// # Errors
    /// A line that says how it failed.
    pub fn tried(mut command: Command) -> Result<Used, String> {
        command.stdout(Stdio::null());
        let begun = Instant::now();
        let mut child = command.spawn().unwrap_or_else(|error| panic!("start {command:?}: {error}"));
        let ended = child.wait4().unwrap_or_else(|error| panic!("wait for {command:?}: {error}"));
        let wall = begun.elapsed();
        if !ended.status.success() {
            return Err(format!("{command:?} failed: {}", ended.status));
        }
        Ok(Used { wall, cpu: ended.rusage.utime + ended.rusage.stime, rss: ended.rusage.maxrss })
    }

    /// Work on this thread.
    pub fn here(work: impl FnOnce()) -> Used {
        let (wall, cpu) = (Instant::now(), thread_time());
        work();
        Used { wall: wall.elapsed(), cpu: thread_time().saturating_sub(cpu), rss: 0 }
    }

    /// Medians of the times, and the largest of the resident sets.
    pub fn middle(of: &[Used]) -> Used {
        Used {
            wall: median(of.iter().map(|used| used.wall).collect()),
            cpu: median(of.iter().map(|used| used.cpu).collect()),
            rss: of.iter().map(|used| used.rss).max().unwrap_or_default(),
        }
    }

    /// A line of a table: times in milliseconds, and memory in MiB.
    pub fn line(&self, name: &str) -> String {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let mib = self.rss as f64 / f64::from(1 << 20);
        format!("  {name:36} {:9.2} ms wall {:9.2} ms CPU {mib:7.1} MiB", ms(self.wall), ms(self.cpu))
    }
}

/// What several processes took together.
#[derive(Debug, Clone)]
pub struct AtOnce {
    /// From the start of the first to the end of the last.
    pub wall: Duration,
    /// Each.
    pub used: Vec<Used>,
}

/// Runs a command for every item, `jobs` at a time, each to its end; `after` a command is over, it is told (and timed).
/// Panics when one fails.
pub fn at_once<T: Sync>(
    jobs: usize,
    items: &[T],
    command: impl Fn(&T) -> Command + Sync,
    after: impl Fn(&T) + Sync,
) -> AtOnce {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut used = Vec::new();
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            used.push(Used::by(command(item)));
            after(item);
        }
        used
    };
    let begun = Instant::now();
    let used = thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a command failed")).collect()
    });
    AtOnce { wall: begun.elapsed(), used }
}
