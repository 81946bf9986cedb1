//! The throw-away servers.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use postgres::Client;
use rustix::process::Signal;
use walarchive_core::{Error, Result};

use super::client::{PORT, USER, connect, during};
use super::failed;
use super::process::{Running, Stage};
use super::programs::Programs;
use crate::scratch::remove;

/// How long a server may take to start, recover or archive.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Small and quiet, reached through a socket alone, and as durable as a real one. What is left in shared memory when the
/// server is killed would stay on the machine: it is kept in the data directory.
const SETTINGS: &str = "
listen_addresses = ''
shared_buffers = '32MB'
max_connections = 20
dynamic_shared_memory_type = mmap
logging_collector = off
log_destination = 'stderr'
wal_level = replica
archive_mode = on
";

/// A running server.
#[derive(Debug)]
pub(super) struct Server {
    running: Running,
    data_dir: PathBuf,
    socket: PathBuf,
}

/// Makes a cluster that archives with `archive_command`.
pub(super) fn initdb(
    stage: &Stage,
    programs: &Programs,
    data_dir: &Path,
    archive_command: &str,
) -> Result<()> {
    let mut command = stage.command(programs.needed("initdb"));
    command.args(["--data-checksums", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]);
    command.arg(format!("--username={USER}")).arg("--pgdata").arg(data_dir);
    stage.run("initdb", command, PATIENCE)?;
    let path = data_dir.join("postgresql.conf");
    let failed = |error| Error::io(format!("cannot write {}", path.display()), error);
    let text = fs::read_to_string(&path).map_err(failed)?;
    fs::write(&path, format!("{text}{SETTINGS}archive_command = '{archive_command}'\n")).map_err(failed)
}

impl Server {
    /// Starts the server in `data_dir` and waits until it takes writes, which after a restore is when it was promoted.
    pub(super) fn start(
        stage: &Stage,
        programs: &Programs,
        data_dir: &Path,
        socket: &Path,
    ) -> Result<Server> {
        let name = data_dir.file_name().unwrap_or_default().to_string_lossy();
        let mut command = stage.command(programs.needed("postgres"));
        command.arg("-D").arg(data_dir).arg("-k").arg(socket).arg("-p").arg(PORT.to_string());
        let running = stage.start(&format!("postgres-{name}"), command)?;
        let mut server = Server { running, data_dir: data_dir.to_owned(), socket: socket.to_owned() };
        stage.interrupt.wait("the server takes writes", PATIENCE, || server.takes_writes()).map_err(
            |error| {
                error.during(format!(
                    "starting the server in {} ({})",
                    data_dir.display(),
                    server.running.last_words()
                ))
            },
        )?;
        Ok(server)
    }

    fn takes_writes(&mut self) -> Result<bool> {
        if let Some(status) = self.running.ended()? {
            return Err(failed(format!("the server ended ({status})")));
        }
        let answer =
            connect(&self.socket).and_then(|mut client| client.query_one("SELECT pg_is_in_recovery()", &[]));
        Ok(answer.is_ok_and(|row| !row.get::<_, bool>(0)))
    }

    /// A new session.
    pub(super) fn client(&self) -> Result<Client> {
        connect(&self.socket).map_err(during("taking a connection"))
    }

    /// The directory of its socket.
    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Ends the current WAL segment and waits until the archive has it; its name.
    pub(super) fn archive_now(&self, stage: &Stage) -> Result<String> {
        let mut client = self.client()?;
        let row = client.query_one("SELECT pg_walfile_name(pg_switch_wal())", &[]);
        let segment: String = row.map_err(during("ending a WAL segment"))?.get(0);
        const ARCHIVED: &str =
            "SELECT coalesce(left(last_archived_wal, 24) COLLATE \"C\" >= $1, false) FROM pg_stat_archiver";
        let archived = stage.interrupt.wait(&format!("{segment} is archived"), PATIENCE, || {
            let row = client.query_one(ARCHIVED, &[&segment]).map_err(during("asking what is archived"))?;
            Ok(row.get(0))
        });
        archived.map_err(|error| error.during(format!("archiving ({})", self.running.last_words())))?;
        Ok(segment)
    }

    /// Kills the server as a power failure would, and removes its data.
    pub(super) fn destroy(mut self, stage: &Stage) -> Result<()> {
        let segment = shared_memory(&self.data_dir);
        self.running.end(Signal::KILL, PATIENCE);
        remove(&self.data_dir)?;
        // The next start in this data directory would have removed it; there is none.
        if let Some(id) = segment {
            let mut command = stage.command("ipcrm");
            command.arg("-m").arg(id);
            let _ = stage.finish("ipcrm", command, PATIENCE);
        }
        Ok(())
    }

    /// Stops the server as an administrator would.
    pub(super) fn stop(mut self) {
        self.running.end(Signal::INT, PATIENCE);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // On the way out of a failure: nothing of it is needed any more, but it tidies up after itself.
        self.running.end(Signal::QUIT, Duration::from_secs(10));
    }
}

/// The id of the System V segment by which a server keeps others out of its data directory, from `postmaster.pid`.
fn shared_memory(data_dir: &Path) -> Option<String> {
    let text = fs::read_to_string(data_dir.join("postmaster.pid")).ok()?;
    let id = text.lines().nth(6)?.split_whitespace().nth(1)?;
    id.parse::<u32>().ok().map(|id| id.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shared_memory_of_a_server_is_found_where_it_is_told() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(shared_memory(dir.path()), None);
        let file = dir.path().join("postmaster.pid");
        fs::write(&file, "123\n/data\n1700000000\n5432\n/s\n\n  5432001    65538\nready\n").unwrap();
        assert_eq!(shared_memory(dir.path()), Some("65538".to_owned()));
        fs::write(&file, "123\n/data\n1700000000\n5432\n/s\n\n  5432001 -a\n").unwrap();
        assert_eq!(shared_memory(dir.path()), None);
    }
}
