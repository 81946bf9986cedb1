//! Arguments as text, read by what knows them.

use std::time::Duration;

use walarchive_core::archive::{BackupId, DumpFormat};
use walarchive_core::codec::CodecSpec;
use walarchive_core::ops::restore::{Action, TablespaceMapping, Target, TimelineChoice};
use walarchive_core::ops::verify::Share;
use walarchive_core::storage::bytes;

pub(super) fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && text.len() <= 1024 => Ok((key.to_owned(), value.to_owned())),
        _ => Err("a label is KEY=VALUE, at most 1024 bytes".to_owned()),
    }
}

pub(super) fn story<T>(parsed: walarchive_core::Result<T>) -> Result<T, String> {
    parsed.map_err(|error| error.story())
}

pub(super) fn backup_id(text: &str) -> Result<BackupId, String> {
    story(text.parse())
}

pub(super) fn share(text: &str) -> Result<Share, String> {
    story(text.parse())
}

pub(super) fn age(text: &str) -> Result<Duration, String> {
    story(walarchive_core::config::duration(text))
}

pub(super) fn dump_format(text: &str) -> Result<DumpFormat, String> {
    story(text.parse())
}

pub(super) fn target(text: &str) -> Result<Target, String> {
    story(text.parse())
}

pub(super) fn timeline(text: &str) -> Result<TimelineChoice, String> {
    story(text.parse())
}

pub(super) fn action(text: &str) -> Result<Action, String> {
    story(text.parse())
}

pub(super) fn mapping(text: &str) -> Result<TablespaceMapping, String> {
    story(text.parse())
}

pub(super) fn codec(text: &str) -> Result<CodecSpec, String> {
    story(text.parse())
}

/// Bytes with an optional unit, as settings have them.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let bytes = bytes("the size", text).ok().filter(|bytes| *bytes > 0);
    bytes.ok_or_else(|| "write more than 0 bytes like 8MiB or 500k".to_owned())
}

pub(super) fn size_per_second(text: &str) -> Result<u64, String> {
    size(text.strip_suffix("/s").unwrap_or(text)).map_err(|_| "write it like 10MiB/s".to_owned())
}

pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| *seconds > 0.0 && *seconds <= 3600.0);
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "more than 0, at most 3600".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_rates() {
        assert_eq!(size("256MiB"), Ok(256 << 20));
        assert_eq!(size("500k"), Ok(500 << 10));
        assert_eq!(size_per_second("10MB/s"), Ok(10 << 20));
        assert_eq!(size_per_second("7"), Ok(7));
        for bad in ["", "0", "MiB", "-1", "1.5MiB", "99999999999999999999", "99999999999G", "1 parsec"] {
            assert!(size(bad).is_err(), "{bad}");
        }
        assert_eq!(seconds("0.25"), Ok(Duration::from_millis(250)));
        for bad in ["0", "-1", "nan", "inf", "4000", "soon"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
