//! The settings of logical dumps.

use std::path::PathBuf;
use std::sync::Arc;

use jiff::tz::TimeZone;

use super::{
    BIN_DIR, DUMP_ARGUMENTS, DUMP_CODEC, DUMP_DATABASES, DUMP_EXCLUDE, DUMP_EXPECT_MOUNT, DUMP_FORMAT,
    DUMP_FULL_EVERY, DUMP_GLOBALS, DUMP_GLOBALS_ARGUMENTS, DUMP_JOBS, DUMP_KEEP_DAILY, DUMP_KEEP_LAST,
    DUMP_KEEP_MONTHLY, DUMP_KEEP_WEEKLY, DUMP_KEEP_YEARLY, DUMP_MAIL, DUMP_MAIL_TO, DUMP_MONTHDAY,
    DUMP_PARALLEL_FROM, DUMP_POST_HOOK, DUMP_PRE_HOOK, DUMP_SCRATCH_DIR, DUMP_SENDMAIL, DUMP_TIME_ZONE,
    DUMP_WEEKDAY, Setting, Settings, duration,
};
use crate::archive::DumpFormat;
use crate::codec::{Codec, CodecSpec};
use crate::error::{Error, Result};
use crate::retention::dumps::{DumpRules, Keep};

/// When a report is mailed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailWhen {
    /// After every run.
    Always,
    /// When something went wrong.
    Errors,
}

const WEEKDAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];

impl Settings {
    /// Where PostgreSQL's client programs are, when it is set.
    pub fn bin_dir(&self) -> Option<PathBuf> {
        self.text(&BIN_DIR).map(PathBuf::from)
    }

    /// How dumps are compressed.
    pub fn dump_codec(&self) -> Result<Arc<dyn Codec>> {
        self.parsed(&DUMP_CODEC, CodecSpec::default(), str::parse).map(CodecSpec::build)
    }

    /// The databases that are dumped, as names or patterns; none means all.
    pub fn dump_databases(&self) -> Vec<String> {
        self.list(&DUMP_DATABASES)
    }

    /// The databases that are left out, as names or patterns.
    pub fn dump_exclude(&self) -> Vec<String> {
        self.list(&DUMP_EXCLUDE)
    }

    /// More arguments for pg_dump.
    pub fn dump_arguments(&self) -> Vec<String> {
        self.list(&DUMP_ARGUMENTS)
    }

    /// More arguments for pg_dumpall.
    pub fn dump_globals_arguments(&self) -> Vec<String> {
        self.list(&DUMP_GLOBALS_ARGUMENTS)
    }

    /// Whether roles and tablespaces are dumped.
    pub fn dump_globals(&self) -> Result<bool> {
        self.parsed(&DUMP_GLOBALS, true, |text| {
            text.parse().map_err(|_| Error::usage(format!("{text:?} is neither true nor false")))
        })
    }

    /// How many connections dump at once.
    pub fn dump_jobs(&self) -> Result<u16> {
        self.parsed(&DUMP_JOBS, 1, |text| {
            let jobs = text.parse().ok().filter(|jobs| (1..=256).contains(jobs));
            jobs.ok_or_else(|| Error::usage(format!("{text:?} is not a number from 1 to 256")))
        })
    }

    /// How old the last dump of a database may be that stored everything, before the next one does again.
    pub fn dump_full_every(&self) -> Result<std::time::Duration> {
        self.parsed(&DUMP_FULL_EVERY, std::time::Duration::from_secs(30 * 24 * 3600), duration)
    }

    /// In which format dumps are.
    pub fn dump_format(&self) -> Result<DumpFormat> {
        self.parsed(&DUMP_FORMAT, DumpFormat::Custom, str::parse)
    }

    /// From how many bytes on a database is worth several connections.
    pub fn dump_parallel_from(&self) -> Result<u64> {
        self.parsed(&DUMP_PARALLEL_FROM, 256 << 20, |text| crate::storage::bytes("dump.parallel_from", text))
    }

    /// Where directories of dumps grow, when it is set.
    pub fn dump_scratch_dir(&self) -> Option<PathBuf> {
        self.text(&DUMP_SCRATCH_DIR).map(PathBuf::from)
    }

    /// By which days are told apart: the machine's time zone, unless another is set.
    pub fn dump_time_zone(&self) -> Result<TimeZone> {
        self.parsed(&DUMP_TIME_ZONE, TimeZone::system(), |text| {
            TimeZone::get(text).map_err(|error| {
                Error::usage(format!("{text:?} is not a time zone"))
                    .because(error)
                    .hint("write it like Europe/London, or UTC")
            })
        })
    }

    /// Which dumps are kept. Nothing set: all.
    pub fn dump_retention(&self) -> Result<DumpRules> {
        let keep = |setting: &Setting| self.parsed(setting, None, |text| keep(text).map(Some));
        let default = DumpRules::default();
        let rules = DumpRules {
            last: keep(&DUMP_KEEP_LAST)?,
            daily: keep(&DUMP_KEEP_DAILY)?,
            weekly: keep(&DUMP_KEEP_WEEKLY)?,
            monthly: keep(&DUMP_KEEP_MONTHLY)?,
            yearly: keep(&DUMP_KEEP_YEARLY)?,
            weekday: self.parsed(&DUMP_WEEKDAY, default.weekday, weekday)?,
            monthday: self.parsed(&DUMP_MONTHDAY, default.monthday, |text| {
                text.parse().map_err(|_| Error::usage(format!("{text:?} is not a day of the month")))
            })?,
        };
        rules.check()?;
        Ok(rules)
    }

    /// What must be mounted where, when it is set.
    pub fn dump_expect_mount(&self) -> Option<&str> {
        self.text(&DUMP_EXPECT_MOUNT)
    }

    /// A command of the shell that is run before dumps.
    pub fn dump_pre_hook(&self) -> Option<&str> {
        self.text(&DUMP_PRE_HOOK)
    }

    /// A command of the shell that is run after them.
    pub fn dump_post_hook(&self) -> Option<&str> {
        self.text(&DUMP_POST_HOOK)
    }

    /// Whom reports are mailed to, and when.
    pub fn dump_mail(&self) -> Result<Option<(String, MailWhen)>> {
        let when = self.parsed(&DUMP_MAIL, MailWhen::Errors, |text| match text {
            "always" => Ok(MailWhen::Always),
            "errors" => Ok(MailWhen::Errors),
            _ => Err(Error::usage(format!("{text:?} is not a time for mail")).hint("use always or errors")),
        })?;
        let to = self.parsed(&DUMP_MAIL_TO, None, |text| match text.contains(['\n', '\r']) {
            true => Err(Error::usage("an address of mail is one line")),
            false => Ok(Some(text.to_owned())),
        })?;
        Ok(to.map(|to| (to, when)))
    }

    /// The program that sends mail.
    pub fn dump_sendmail(&self) -> &str {
        self.text(&DUMP_SENDMAIL).unwrap_or("/usr/sbin/sendmail")
    }

    /// A list: of the file; or of a variable, one in each line, or separated by commas.
    fn list(&self, setting: &Setting) -> Vec<String> {
        let text = self.text(setting).unwrap_or_default();
        let separator = if text.contains('\n') { '\n' } else { ',' };
        text.split(separator).filter(|part| !part.is_empty()).map(str::to_owned).collect()
    }
}

/// A count, or a duration with its unit.
fn keep(text: &str) -> Result<Keep> {
    if let Ok(count) = text.parse() {
        return Ok(Keep::Count(count));
    }
    let age = duration(text).map_err(|_| {
        Error::usage(format!("{text:?} is neither a number of dumps nor a duration"))
            .hint("write it like 14, or 28d")
    })?;
    match age.is_zero() {
        false => Ok(Keep::Age(age)),
        true => Err(Error::usage(format!("{text:?} is no time in which a dump could be made"))
            .hint("to keep none of a kind, leave the setting out")),
    }
}

fn weekday(text: &str) -> Result<i8> {
    let named =
        WEEKDAYS.iter().position(|name| *name == text.to_ascii_lowercase()).map(|place| place as i8 + 1);
    named.or_else(|| text.parse().ok()).ok_or_else(|| {
        Error::usage(format!("{text:?} is not a day of the week"))
            .hint("use 1 (Monday) to 7, or its English name")
    })
}
