//! Why a server ended before its recovery did, from its messages.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use crate::error::{Error, Kind};

/// What `wal fetch` adds to its exit codes, so that PostgreSQL stops.
const ADDED: u32 = 200;
/// What this machine lacks.
const LACKS: [&str; 9] = [
    "No space left on device",
    "Disk quota exceeded",
    "could not map anonymous shared memory",
    "could not create shared memory segment",
    "could not create semaphores",
    "out of memory",
    "could not bind Unix",
    "Too many open files",
    "Permission denied",
];
/// Settings that cannot be used here.
const SETTINGS: [&str; 5] = [
    "could not open configuration",
    "contains errors",
    "unrecognized configuration parameter",
    "invalid value for parameter",
    "could not load",
];
/// So many of the server's last messages are repeated.
const TOLD: usize = 4;

/// The error that a server's end and its log stand for. Whatever is not this machine's fault, nor the way's to the archive, is
/// damage: with what was restored, recovery did not come to its target.
pub(super) fn of(status: ExitStatus, log: &str) -> Error {
    if let Some(signal) = status.signal() {
        let message = format!("the server was ended by signal {signal}: {}", last_words(log));
        return Error::new(Kind::Local, message);
    }
    let fatal: Vec<&str> =
        log.lines().filter(|line| line.contains("FATAL:") || line.contains("PANIC:")).collect();
    let says = |what: &[&str]| fatal.iter().any(|line| what.iter().any(|what| line.contains(what)));
    if let Some(error) = fatal.iter().rev().find_map(|line| of_fetch(line, log)) {
        return error;
    }
    if let Some(library) = fatal.iter().find_map(|line| missing_library(line)) {
        return Error::new(
            Kind::Local,
            format!("this machine lacks the library {library:?}, which the cluster preloads"),
        )
        .hint("install the extension's package for this version of PostgreSQL");
    }
    let told = last_words(log);
    if says(&LACKS) {
        return Error::new(Kind::Local, format!("the server cannot run on this machine: {told}"));
    }
    if says(&SETTINGS) {
        return Error::new(
            Kind::Local,
            format!("the cluster's settings do not work on this machine: {told}"),
        );
    }
    Error::damaged(format!("the server ended ({status}) before recovery came to its target: {told}"))
}

/// The failure of a `restore_command`: its exit code says of what kind, its own messages say what.
fn of_fetch(line: &str, log: &str) -> Option<Error> {
    let (_, behind) = line.split_once("could not restore file ")?;
    let (file, behind) = behind.split_once(" from archive")?;
    let code: u32 = behind.rsplit_once("exit code ")?.1.trim().parse().ok()?;
    let kind = match code.checked_sub(ADDED)? {
        1 => Kind::Absent,
        2 => Kind::Usage,
        3 => Kind::Conflict,
        4 => Kind::Damaged,
        5 => Kind::Unreachable,
        _ => Kind::Local,
    };
    let own = log.lines().rev().find_map(|line| line.split_once("walarchive: error: "));
    let said = own.map_or_else(|| format!("exit code {code}"), |(_, said)| said.to_owned());
    Some(Error::new(kind, format!("WAL file {file} could not be fetched: {said}")).on(file.trim_matches('"')))
}

/// `FATAL:  could not access file "timescaledb": No such file or directory`
fn missing_library(line: &str) -> Option<&str> {
    let (_, behind) = line.split_once("could not access file \"")?;
    let (library, why) = behind.split_once('"')?;
    why.contains("No such file").then_some(library)
}

fn last_words(log: &str) -> String {
    let worth = |line: &&str| ["FATAL:", "PANIC:", "ERROR:"].iter().any(|level| line.contains(level));
    let mut lines: Vec<&str> = log.lines().filter(worth).collect();
    if lines.is_empty() {
        lines = log.lines().filter(|line| !line.trim().is_empty()).collect();
    }
    let first = lines.len().saturating_sub(TOLD);
    if lines.is_empty() { "it said nothing".to_owned() } else { lines[first..].join("; ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(log: &str) -> Error {
        of(ExitStatus::from_raw(1 << 8), log)
    }

    #[test]
    fn the_kind_of_a_failed_fetch_is_its_exit_code() {
        let log = |code: u32| {
            format!(
                "walarchive: error: pack 7 is damaged\n2026 [1] FATAL:  could not restore file \"000000010000000000000003\" \
                 from archive: child process exited with exit code {code}\n2026 [1] LOG:  startup process exited with exit code 1\n"
            )
        };
        for (code, kind) in
            [(204, Kind::Damaged), (205, Kind::Unreachable), (206, Kind::Local), (202, Kind::Usage)]
        {
            let error = verdict(&log(code));
            assert_eq!(error.kind(), kind, "{code}");
            assert!(error.story().contains("pack 7 is damaged"), "{}", error.story());
        }
    }

    #[test]
    fn what_this_machine_lacks_is_not_the_archives_damage() {
        let library =
            verdict("x [1] FATAL:  could not access file \"timescaledb\": No such file or directory\n");
        assert_eq!(library.kind(), Kind::Local);
        assert!(
            library.story().contains("\"timescaledb\", which the cluster preloads"),
            "{}",
            library.story()
        );
        let full = "x [1] FATAL:  could not write to file \"pg_wal/xlogtemp.9\": No space left on device\n";
        assert_eq!(verdict(full).kind(), Kind::Local);
        assert_eq!(of(ExitStatus::from_raw(9), "").kind(), Kind::Local);
    }

    #[test]
    fn a_recovery_that_does_not_come_to_its_target_is_damage() {
        for why in [
            "WAL ends before consistent recovery point",
            "recovery ended before configured recovery target was reached",
        ] {
            let error = verdict(&format!("x [1] LOG:  starting\nx [1] FATAL:  {why}\n"));
            assert_eq!(error.kind(), Kind::Damaged);
            assert!(error.story().contains(why), "{}", error.story());
        }
    }
}
