//! Whether the server that answers can be backed up, and where its data are.

use std::path::PathBuf;

use crate::error::{Error, Kind, Result};
use crate::postgres::control::ControlFile;
use crate::postgres::datadir;
use crate::postgres::session::ServerFacts;

/// What a standby's settings say holds once it is promoted; the WAL that it replays is the primary's.
pub(super) fn check(server: &ServerFacts) -> Result<()> {
    if server.in_recovery {
        return Ok(());
    }
    if server.archive_mode == "off" {
        return Err(Error::usage(
            "archive_mode is off: the WAL that makes a backup restorable would not be archived",
        )
        .hint("set archive_mode = on and archive_command = 'walarchive-push %p', and restart PostgreSQL"));
    }
    if server.wal_level == "minimal" {
        return Err(Error::usage("wal_level is minimal: the WAL cannot restore a backup")
            .hint("set wal_level = replica and restart PostgreSQL"));
    }
    Ok(())
}

/// The data directory on this machine, proven to be the server's.
pub(super) fn find_data_dir(dir: Option<PathBuf>, server: &ServerFacts) -> Result<(PathBuf, ControlFile)> {
    let dir = dir.or_else(|| server.data_dir.clone()).ok_or_else(|| {
        Error::usage("the server does not tell this role where its data directory is")
            .hint("set PGDATA or postgres.data_dir, or grant pg_read_all_settings")
    })?;
    let (control, _) = datadir::read_control(&dir).map_err(|error| {
        error.hint(format!(
            "{} must be the server's data directory on this machine, readable for this user",
            dir.display()
        ))
    })?;
    if control.system_id != server.system_id {
        return Err(Error::new(
            Kind::WrongCluster,
            format!(
                "{} belongs to the cluster with system identifier {}, the server that answers is {}",
                dir.display(),
                control.system_id,
                server.system_id
            ),
        )
        .hint("do PGDATA and the connection name the same cluster?"));
    }
    if !datadir::runs_server_started_at(&dir, server.started) {
        return Err(Error::new(
            Kind::WrongCluster,
            format!("the server that answers does not run in {}: its postmaster.pid is missing or another server's", dir.display()),
        )
        .hint("is that directory a copy of the cluster? Do PGDATA and the connection name the same one?"));
    }
    Ok((dir, control))
}
