//! The moment that a restore aims at.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;

use crate::error::{Error, Result};
use crate::wal::{Lsn, TimelineId};

/// Where recovery ends.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Target {
    /// All WAL that is stored.
    #[default]
    Latest,
    /// As soon as the backup is consistent.
    Immediate,
    /// The last transaction committed at this time or before.
    Time(Timestamp),
    /// This position in the WAL.
    Lsn(Lsn),
    /// This transaction.
    Xid(u32),
    /// What `pg_create_restore_point` was given.
    Name(String),
}

impl Target {
    /// Whether only the WAL's records tell where the target is.
    pub fn is_position_unknown(&self) -> bool {
        matches!(self, Target::Xid(_) | Target::Name(_))
    }
}

const FORMS: &str = "use latest, immediate, a time with its offset like 2026-01-31T14:30:00+01:00, lsn:0/16B3748, xid:795 or name:LABEL";

impl FromStr for Target {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong =
            |what: &str| Error::usage(format!("{text:?} is not a recovery target: {what}")).hint(FORMS);
        if let Some(lsn) = text.strip_prefix("lsn:") {
            return lsn.parse().map(Target::Lsn).map_err(|_| wrong("it is not a position in the WAL"));
        }
        if let Some(xid) = text.strip_prefix("xid:") {
            return match xid.parse::<u32>() {
                Ok(xid) if xid >= 3 => Ok(Target::Xid(xid)),
                _ => Err(wrong("it is not a transaction number")),
            };
        }
        if let Some(name) = text.strip_prefix("name:") {
            let fits = !name.is_empty() && name.len() < 64 && !name.contains(char::is_control);
            return if fits {
                Ok(Target::Name(name.to_owned()))
            } else {
                Err(wrong("a restore point has 1 to 63 bytes"))
            };
        }
        match text {
            "latest" => Ok(Target::Latest),
            "immediate" => Ok(Target::Immediate),
            _ => time(text).map(Target::Time).map_err(|what| wrong(&what)),
        }
    }
}

fn time(text: &str) -> std::result::Result<Timestamp, String> {
    match text.parse::<Timestamp>() {
        Ok(time) => Ok(time),
        Err(_) if text.parse::<jiff::civil::DateTime>().is_ok() => {
            Err("the time has no offset, so nobody knows which clock it means".to_owned())
        }
        Err(_) => Err("it is not a time either".to_owned()),
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Latest => f.write_str("latest"),
            Target::Immediate => f.write_str("immediate"),
            Target::Time(time) => write!(f, "{time}"),
            Target::Lsn(lsn) => write!(f, "lsn:{lsn}"),
            Target::Xid(xid) => write!(f, "xid:{xid}"),
            Target::Name(name) => write!(f, "name:{name}"),
        }
    }
}

/// Which timeline recovery follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TimelineChoice {
    /// The newest that can be reached, as PostgreSQL finds it.
    #[default]
    Latest,
    /// The timeline of the backup.
    Current,
    /// This one.
    Is(TimelineId),
}

impl FromStr for TimelineChoice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong =
            |_| Error::usage(format!("{text:?} is not a timeline")).hint("use latest, current or a number");
        match text {
            "latest" => Ok(TimelineChoice::Latest),
            "current" => Ok(TimelineChoice::Current),
            number => number
                .parse::<u32>()
                .map_err(|error| wrong(error.to_string()))
                .and_then(|number| TimelineId::new(number).map_err(|error| wrong(error.to_string())))
                .map(TimelineChoice::Is),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_needs_its_offset() {
        let time = |text: &str| text.parse::<Target>();
        assert_eq!(time("2026-01-31T14:30:00+01:00").unwrap().to_string(), "2026-01-31T13:30:00Z");
        assert_eq!(time("2026-01-31 14:30:00.25Z").unwrap().to_string(), "2026-01-31T14:30:00.25Z");
        for text in ["2026-01-31T14:30:00", "2026-01-31 14:30", "2026-01-31"] {
            assert!(time(text).unwrap_err().story().contains("no offset"), "{text}");
        }
        for text in [
            "",
            "now",
            "yesterday",
            "2026-02-30T00:00:00Z",
            "99999-01-01T00:00:00Z",
            "lsn:",
            "lsn:x",
            "xid:0",
            "xid:-1",
            "xid:4294967296",
            "name:",
        ] {
            assert!(time(text).is_err(), "{text}");
        }
    }
}
