//! What a restored server is told about its recovery.

use std::path::Path;

use super::plan::Plan;
use super::target::Target;
use crate::archive::Facts;
use crate::error::{Error, Result};

/// What the server does when recovery reached its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Action {
    /// Wait, read-only, for a decision.
    Pause,
    /// Open for writing, on a new timeline.
    #[default]
    Promote,
    /// Shut down.
    Shutdown,
}

impl std::str::FromStr for Action {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "pause" => Ok(Action::Pause),
            "promote" => Ok(Action::Promote),
            "shutdown" => Ok(Action::Shutdown),
            _ => {
                Err(Error::usage(format!("{text:?} is not an action")).hint("use pause, promote or shutdown"))
            }
        }
    }
}

impl Action {
    fn name(self) -> &'static str {
        match self {
            Action::Pause => "pause",
            Action::Promote => "promote",
            Action::Shutdown => "shutdown",
        }
    }
}

/// Recovery settings beside the target.
#[derive(Debug, Clone, Default)]
pub struct Recovery {
    /// The shell command that fetches WAL, with `%f` and `%p`.
    pub restore_command: String,
    /// Stop before the target instead of behind it.
    pub exclusive: bool,
    /// What to do at the target.
    pub action: Action,
    /// Go on as a standby.
    pub standby: bool,
}

/// A shell command for `restore_command` that runs `program` (and leading arguments) with these variables.
pub fn restore_command(program: &[&str], variables: &[(&str, String)], config: Option<&Path>) -> String {
    let mut words = Vec::new();
    if !variables.is_empty() {
        words.push("env".to_owned());
        words.extend(variables.iter().map(|(name, value)| format!("{name}={}", shell(value))));
    }
    words.extend(program.iter().map(|word| shell(word)));
    if let Some(config) = config {
        words.push("--config".to_owned());
        words.push(shell(&config.to_string_lossy()));
    }
    // Everything so far is taken as it is; in restore_command a lone % would begin a placeholder.
    let command = words.join(" ").replace('%', "%%");
    format!("{command} %f %p")
}

fn shell(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-:=@,+".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// A value in a postgresql.conf file.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\\', r"\\").replace('\'', "''"))
}

/// From this version on, recovery reads WAL ahead of what it replays.
const READS_AHEAD_SINCE: u32 = 15;

const TARGETS: [&str; 5] = [
    "recovery_target",
    "recovery_target_lsn",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_xid",
];

impl Recovery {
    /// What is appended to postgresql.auto.conf. All target settings are set, so that none of an earlier recovery of the
    /// same cluster stays in force.
    pub(super) fn text(&self, facts: &Facts, target: &Target, plan: &Plan) -> Result<String> {
        if self.standby && *target != Target::Latest {
            return Err(Error::usage(
                "a standby follows its primary: --standby and a recovery target exclude each other",
            ));
        }
        // A number needs the timeline's history file, which a cluster that was promoted before it archived does not have
        // in the archive.
        let known = plan.timeline == 1 || !plan.history.entries.is_empty();
        let timeline = match (self.standby, known) {
            (true, _) => "latest".to_owned(),
            (false, true) => plan.timeline.to_string(),
            (false, false) => "current".to_owned(),
        };
        let set = |text: &mut String, name: &str, value: &str| {
            text.push_str(&format!("{name} = {}\n", quoted(value)))
        };
        let mut text = format!("\n# Written by walarchive when backup {} was restored.\n", facts.id);
        set(&mut text, "restore_command", &self.restore_command);
        set(&mut text, "recovery_target_timeline", &timeline);
        let (kind, value) = match target {
            Target::Latest => ("", String::new()),
            Target::Immediate => ("recovery_target", "immediate".to_owned()),
            Target::Time(at) => ("recovery_target_time", at.strftime("%Y-%m-%d %H:%M:%S%.6f+00").to_string()),
            Target::Lsn(lsn) => ("recovery_target_lsn", lsn.to_string()),
            Target::Xid(xid) => ("recovery_target_xid", xid.to_string()),
            Target::Name(name) => ("recovery_target_name", name.clone()),
        };
        // The one that counts comes last: PostgreSQL takes even an empty one behind it for a second target.
        TARGETS.iter().filter(|name| **name != kind).for_each(|name| set(&mut text, name, ""));
        if !kind.is_empty() {
            set(&mut text, kind, &value);
        }
        // Reading ahead, recovery would meet what is behind its target, and end of damage that it does not need.
        let is_near = *target == Target::Immediate || !plan.passed_over.is_empty();
        if is_near && facts.pg_major >= READS_AHEAD_SINCE {
            set(&mut text, "recovery_prefetch", "off");
        }
        set(&mut text, "recovery_target_inclusive", if self.exclusive { "off" } else { "on" });
        set(&mut text, "recovery_target_action", self.action.name());
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_survives_shell_and_placeholders() {
        let command = restore_command(
            &["/opt/my tools/walarchive-fetch"],
            &[("WALARCHIVE_ARCHIVE", "file:///srv/it's 100%".to_owned())],
            Some(Path::new("/etc/w.toml")),
        );
        assert_eq!(
            command,
            r"env WALARCHIVE_ARCHIVE='file:///srv/it'\''s 100%%' '/opt/my tools/walarchive-fetch' --config /etc/w.toml %f %p"
        );
        assert_eq!(quoted(r"a'b\c"), r"'a''b\\c'");
    }
}
