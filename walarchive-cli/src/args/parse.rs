//! Arguments as text, read by what knows them.

use walarchive_core::archive::{BackupId, DumpFormat};
use walarchive_core::ops::restore::{Action, TablespaceMapping, Target, TimelineChoice};
use walarchive_core::ops::verify::Share;

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

pub(super) fn age(text: &str) -> Result<std::time::Duration, String> {
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
