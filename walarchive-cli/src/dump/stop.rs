//! Being told to stop while PostgreSQL's programs run: they end first, and what was begun is put away.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use walarchive_core::postgres::stop::Stop;
use walarchive_core::{Error, Result};

const PAUSE: Duration = Duration::from_millis(20);
const SIGNALS: [(i32, usize, &str); 3] =
    [(SIGHUP, 1, "by SIGHUP"), (SIGINT, 2, "by SIGINT"), (SIGTERM, 3, "by SIGTERM")];

/// What the signals that ask for an end stop, from now on. Those that were ignored stay so, as with nohup.
pub(super) fn on_signals() -> Result<Stop> {
    let seen = Arc::new(AtomicUsize::new(0));
    let ignored = ignored();
    for (signal, number, _) in SIGNALS.into_iter().filter(|(signal, ..)| ignored >> (signal - 1) & 1 == 0) {
        flag::register_usize(signal, seen.clone(), number)
            .map_err(|error| Error::io("cannot listen for signals", error))?;
    }
    let stop = Stop::default();
    let told = stop.clone();
    // Ends with the process.
    std::thread::spawn(move || {
        loop {
            let came = seen.load(Ordering::SeqCst);
            if let Some((_, _, name)) = SIGNALS.iter().find(|(_, number, _)| *number == came) {
                return told.stop(name);
            }
            std::thread::sleep(PAUSE);
        }
    });
    Ok(stop)
}

/// The signals that this process ignores, a bit for each; none where the system does not tell.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
