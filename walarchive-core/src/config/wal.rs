//! The settings of the way of WAL.

use std::num::NonZero;

use super::{
    Settings, WAL_BATCH_DONE, WAL_FETCH_AHEAD, WAL_IONICE, WAL_JOBS, WAL_MEMORY, WAL_NICE, WAL_PUSH_AHEAD,
};
use crate::error::{Error, Result};
use crate::storage::bytes;

/// What is used of the machine, and how much is done ahead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalWork {
    /// How many ready files a push stores beside the one that it is asked for.
    pub push_ahead: usize,
    /// Whether it marks them as archived itself.
    pub batch_done: bool,
    /// How many segments a fetch has fetched for the next calls.
    pub fetch_ahead: usize,
    /// How many segments are compressed or unpacked at once.
    pub jobs: usize,
    /// How many bytes of segments may be in memory.
    pub memory: u64,
    /// What a push adds to its niceness.
    pub nice: i32,
    /// The class and level that a push does its input and output with, as `ionice` has them.
    pub ionice: Option<(String, Option<u8>)>,
}

const JOBS_MAX: usize = 8;
const MEMORY: u64 = 128 << 20;
/// The database gets three times the time of an archiver that wants the same processor.
const NICE: i32 = 5;

impl Settings {
    /// What is used of the machine for WAL, and how much is done ahead.
    pub fn wal_work(&self) -> Result<WalWork> {
        let count =
            |text: &str| text.parse().map_err(|_| Error::usage(format!("{text:?} is not a number of files")));
        let jobs = |text: &str| match text.parse() {
            Ok(jobs) if jobs > 0 => Ok(jobs),
            _ => Err(Error::usage(format!("{text:?} is not a number of processors"))),
        };
        let nice =
            |text: &str| match text.parse() {
                Ok(nice @ 0..=19) => Ok(nice),
                _ => Err(Error::usage(format!("{text:?} is not a niceness"))
                    .hint("0 to 19; 0 is that of the caller")),
            };
        Ok(WalWork {
            push_ahead: self.parsed(&WAL_PUSH_AHEAD, 0, count)?,
            batch_done: self.parsed(&WAL_BATCH_DONE, false, yes)?,
            fetch_ahead: self.parsed(&WAL_FETCH_AHEAD, 0, count)?,
            jobs: self.parsed(&WAL_JOBS, processors(), jobs)?,
            memory: self.parsed(&WAL_MEMORY, MEMORY, |text| bytes("memory", text))?,
            nice: self.parsed(&WAL_NICE, NICE, nice)?,
            ionice: self.parsed(&WAL_IONICE, None, |text| ionice(text).map(Some))?,
        })
    }

    /// A digest of all that is set: what was done under other settings is done anew.
    pub fn fingerprint(&self) -> String {
        let mut digest = blake3::Hasher::new();
        let values = self.values.iter().map(|(key, (value, _))| (*key, value));
        let variables = self.variables.iter().map(|(name, value)| (name.as_str(), value));
        for (name, value) in values.chain(variables) {
            for text in [name, value] {
                digest.update(&(text.len() as u64).to_le_bytes());
                digest.update(text.as_bytes());
            }
        }
        digest.finalize().to_hex().to_string()
    }
}

/// All of a small machine's processors, and some of a large one's.
fn processors() -> usize {
    let all = std::thread::available_parallelism().map_or(1, NonZero::get);
    (all / 2).max(2).min(all).min(JOBS_MAX)
}

fn yes(text: &str) -> Result<bool> {
    text.parse().map_err(|_| Error::usage(format!("{text:?} is neither true nor false")))
}

fn ionice(text: &str) -> Result<(String, Option<u8>)> {
    let (class, level) = match text.split_once(':') {
        Some((class, level)) => (class, level.parse().ok().filter(|level| *level <= 7)),
        None => (text, None),
    };
    match (class, level, text.contains(':')) {
        ("idle", None, false) => Ok((class.to_owned(), None)),
        ("best-effort", Some(_), true) | ("best-effort", None, false) => Ok((class.to_owned(), level)),
        _ => Err(Error::usage(format!("{text:?} is no way of input and output"))
            .hint("idle, or best-effort with a level from 0 to 7: best-effort:7")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Flags;

    fn settings(variables: &[(&str, &str)]) -> Settings {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Settings::load(&Flags::default(), variables).unwrap()
    }

    #[test]
    fn what_is_set_is_taken_and_what_makes_no_sense_is_refused() {
        let work = settings(&[
            ("WALARCHIVE_WAL_PUSH_AHEAD", "0"),
            ("WALARCHIVE_WAL_BATCH_DONE", "true"),
            ("WALARCHIVE_WAL_JOBS", "3"),
            ("WALARCHIVE_WAL_MEMORY", "64MiB"),
            ("WALARCHIVE_WAL_NICE", "0"),
            ("WALARCHIVE_WAL_IONICE", "best-effort:7"),
        ])
        .wal_work()
        .unwrap();
        assert_eq!(
            (work.push_ahead, work.batch_done, work.jobs, work.memory, work.nice),
            (0, true, 3, 64 << 20, 0)
        );
        assert_eq!(work.ionice, Some(("best-effort".to_owned(), Some(7))));
        for (name, value) in [
            ("WALARCHIVE_WAL_PUSH_AHEAD", "-1"),
            ("WALARCHIVE_WAL_BATCH_DONE", "maybe"),
            ("WALARCHIVE_WAL_JOBS", "0"),
            ("WALARCHIVE_WAL_MEMORY", "much"),
            ("WALARCHIVE_WAL_NICE", "20"),
            ("WALARCHIVE_WAL_NICE", "-5"),
            ("WALARCHIVE_WAL_IONICE", "realtime"),
            ("WALARCHIVE_WAL_IONICE", "idle:3"),
            ("WALARCHIVE_WAL_IONICE", "best-effort:8"),
        ] {
            let error = settings(&[(name, value)]).wal_work().unwrap_err();
            assert!(error.story().contains(name) && error.story().contains(value), "{}", error.story());
        }
    }

    #[test]
    fn every_setting_is_in_the_fingerprint_and_its_place_is_not() {
        let base = [("WALARCHIVE_ARCHIVE", "s3://bucket"), ("AWS_ENDPOINT_URL", "http://one")];
        let same = settings(&base).fingerprint();
        assert_eq!(settings(&base).fingerprint(), same);
        for other in [
            [("WALARCHIVE_ARCHIVE", "s3://bucke"), ("AWS_ENDPOINT_URL", "thttp://one")],
            [("WALARCHIVE_ARCHIVE", "s3://bucket"), ("AWS_ENDPOINT_URL", "http://two")],
            [("WALARCHIVE_ARCHIVE", "s3://bucket"), ("WALARCHIVE_CLUSTER", "http://one")],
        ] {
            assert_ne!(settings(&other).fingerprint(), same);
        }
    }
}
