//! What a rehearsal looks at: whether a restored server is what the archive promised, and whether all of it can be read.

mod amcheck;
mod programs;

use std::collections::BTreeSet;
use std::time::Instant;

use jiff::Timestamp;

pub use self::programs::{Examination, examine, make_globals};
use crate::archive::{Backup, BackupId, DrillCheck, Inventory};
use crate::error::{Error, Kind, Result};
use crate::files;
use crate::postgres::instance::Instance;
use crate::wal::{Lsn, TimelineHistory, TimelineId};

/// A history file is not longer.
const HISTORY_MAX: u64 = 1 << 20;

/// One of the backups that can be restored; `random` says which.
pub fn any(inventory: &Inventory, random: u32) -> Option<BackupId> {
    let restorable: Vec<&Backup> =
        inventory.backups.iter().filter(|backup| inventory.is_restorable(backup)).collect();
    let place = (random as usize).checked_rem(restorable.len())?;
    restorable.get(place).map(|backup| backup.id.clone())
}

/// What the archive promised.
#[derive(Debug, Clone)]
pub struct Promise {
    /// Of which cluster.
    pub system_id: String,
    /// The timelines that recovery may end on.
    pub timelines: BTreeSet<u32>,
    /// Where it does not end before.
    pub end: Lsn,
    /// How many databases there were when the backup began; unknown where it does not say.
    pub databases: Option<usize>,
    /// Whether all changes since the backup are left out.
    pub is_immediate: bool,
}

/// What a restored server says of itself.
#[derive(Debug, Clone)]
pub struct Reached {
    /// Which cluster it is.
    pub system_id: String,
    /// The timeline that recovery ended on.
    pub timeline: u32,
    /// Where it ended.
    pub lsn: Lsn,
    /// When the last transaction ended that was replayed.
    pub time: Option<Timestamp>,
    /// All databases, and whether one can connect to them.
    pub databases: Vec<(String, bool)>,
    /// The server's version.
    pub version: String,
}

const ABOUT: &str = "SELECT (SELECT system_identifier::text FROM pg_control_system()) AS system_id, \
    pg_last_wal_replay_lsn()::text AS lsn, \
    (extract(epoch FROM pg_last_xact_replay_timestamp()) * 1000000)::bigint AS time_us, \
    left(pg_walfile_name(pg_current_wal_lsn()), 8) AS timeline, current_setting('server_version') AS version";

/// Asks a server that has come out of recovery.
pub fn look(server: &Instance) -> Result<Reached> {
    let failed = |error: postgres::Error| {
        Error::new(Kind::Local, "the restored server does not say how far it has come").because(error)
    };
    let mut client = server.client("template1")?;
    let row = client.query_one(ABOUT, &[]).map_err(failed)?;
    let now: String = row.get("timeline");
    let now = u32::from_str_radix(&now, 16)
        .ok()
        .and_then(|number| TimelineId::new(number).ok())
        .ok_or_else(|| Error::bug(format!("the server is on timeline {now:?}")))?;
    let file = server.site().data_dir.join("pg_wal").join(format!("{}.history", now.hex8()));
    let history = TimelineHistory::parse(now, &files::read(&file, HISTORY_MAX)?)?;
    let ended = history.parent();
    let lsn = match row.get::<_, Option<String>>("lsn") {
        Some(text) => text.parse()?,
        None => ended.map(|entry| entry.end).unwrap_or_default(),
    };
    let databases = client
        .query("SELECT datname::text, datallowconn AND datconnlimit <> -2 FROM pg_database ORDER BY oid", &[])
        .map_err(failed)?;
    let time: Option<i64> = row.get("time_us");
    Ok(Reached {
        system_id: row.get("system_id"),
        timeline: ended.map_or(now.get(), |entry| entry.timeline.get()),
        lsn,
        time: time.and_then(|micros| Timestamp::from_microsecond(micros).ok()),
        databases: databases.iter().map(|row| (row.get(0), row.get(1))).collect(),
        version: row.get("version"),
    })
}

/// Holds what came back against what was promised.
pub fn compare(promise: &Promise, reached: &Reached) -> Vec<DrillCheck> {
    let check = |name: &str, ok: Option<bool>, detail: String| DrillCheck {
        name: name.to_owned(),
        ok,
        detail,
        ms: 0,
    };
    let promised =
        |is: bool, wanted: &str| if is { String::new() } else { format!(", and {wanted} was promised") };
    let same = reached.system_id == promise.system_id;
    let follows = promise.timelines.contains(&reached.timeline);
    let far = reached.lsn >= promise.end;
    let timelines: Vec<_> = promise.timelines.iter().map(u32::to_string).collect();
    vec![
        check(
            "system identifier",
            Some(same),
            format!("{}{}", reached.system_id, promised(same, &promise.system_id)),
        ),
        check(
            "timeline",
            Some(follows),
            format!("{}{}", reached.timeline, promised(follows, &timelines.join(" or "))),
        ),
        check(
            "reached position",
            Some(far),
            format!("{}{}", reached.lsn, promised(far, &format!("{} or more", promise.end))),
        ),
        databases(promise, reached.databases.len(), check),
    ]
}

/// The backup knows how many databases there were at its beginning: they may have become others since.
fn databases(
    promise: &Promise,
    found: usize,
    check: impl Fn(&str, Option<bool>, String) -> DrillCheck,
) -> DrillCheck {
    let name = "number of databases";
    match promise.databases {
        None => check(name, None, format!("{found}; the backup does not say how many there were")),
        Some(known) if known == found => check(name, Some(true), found.to_string()),
        Some(known) if promise.is_immediate && found < known => {
            check(name, Some(false), format!("{found}, and {known} were there when the backup began"))
        }
        Some(known) => check(
            name,
            None,
            format!(
                "{found}; {known} were there when the backup began, and may have been made or dropped since"
            ),
        ),
    }
}

/// A check that takes time. What `work` finds wrong with the restored data is its result; this machine's own troubles are errors.
pub(super) fn timed(name: &str, work: impl FnOnce() -> Result<(Option<bool>, String)>) -> Result<DrillCheck> {
    let begun = Instant::now();
    let (ok, detail) = work()?;
    let ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(DrillCheck { name: name.to_owned(), ok, detail, ms })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn promise() -> Promise {
        Promise {
            system_id: "7".to_owned(),
            timelines: [1, 2].into(),
            end: Lsn(100),
            databases: Some(4),
            is_immediate: false,
        }
    }

    fn reached() -> Reached {
        Reached {
            system_id: "7".to_owned(),
            timeline: 2,
            lsn: Lsn(100),
            time: None,
            databases: vec![(String::new(), true); 4],
            version: "15.1".to_owned(),
        }
    }

    fn wrong(promise: &Promise, reached: &Reached) -> Vec<String> {
        let checks = compare(promise, reached);
        checks.into_iter().filter(|check| check.ok != Some(true)).map(|check| check.name).collect()
    }

    #[test]
    fn what_came_back_is_held_against_every_promise() {
        assert_eq!(wrong(&promise(), &reached()), Vec::<String>::new());
        let off = Reached { system_id: "8".to_owned(), timeline: 3, lsn: Lsn(99), ..reached() };
        assert_eq!(wrong(&promise(), &off), ["system identifier", "timeline", "reached position"]);
        let fewer = Reached { databases: vec![(String::new(), true); 3], ..reached() };
        let ok = |promise: &Promise| compare(promise, &fewer).last().and_then(|check| check.ok);
        assert_eq!(ok(&promise()), None);
        assert_eq!(ok(&Promise { is_immediate: true, ..promise() }), Some(false));
        assert_eq!(ok(&Promise { databases: None, ..promise() }), None);
    }
}
