//! Exit codes, and what they mean to PostgreSQL.

use std::path::Path;

use walarchive_core::Kind;

/// Added to the code of a fetch that could not tell: PostgreSQL takes 1–125 for "no such file", and ends recovery.
const COULD_NOT_TELL: u8 = 200;
/// The largest exit code there is.
const LARGEST: u8 = 255;

/// How a command's failure is told to whoever started it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caller {
    /// A person or script.
    Anybody,
    /// `restore_command`, as far as the working directory tells.
    Recovery {
        /// The server will ask again.
        standby: bool,
    },
}

impl Caller {
    /// The server that runs `restore_command` does so in its data directory.
    pub(crate) fn of_fetch(dir: &Path) -> Caller {
        Caller::Recovery { standby: dir.join("standby.signal").exists() }
    }

    /// The exit code for a failure of this kind.
    pub(crate) fn code(self, kind: Kind) -> u8 {
        match self {
            Caller::Recovery { standby: false } if kind != Kind::Absent => {
                COULD_NOT_TELL.checked_add(kind.exit_code()).unwrap_or(LARGEST)
            }
            _ => kind.exit_code(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recovery_never_takes_a_failure_for_the_end_of_wal() {
        let recovery = Caller::Recovery { standby: false };
        assert_eq!(recovery.code(Kind::Absent), 1);
        for (kind, code) in [
            (Kind::Usage, 202),
            (Kind::Damaged, 204),
            (Kind::Key, 204),
            (Kind::Unreachable, 205),
            (Kind::Local, 206),
            (Kind::Bug, 255),
        ] {
            assert_eq!(recovery.code(kind), code);
            assert!((1..=125).contains(&Caller::Recovery { standby: true }.code(kind)));
        }
    }
}
