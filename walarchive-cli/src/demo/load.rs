//! Load: pgbench, or the same transactions where it is not installed.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::Signal;
use walarchive_core::{Error, Result};

use super::client::{PORT, USER, connect, during};
use super::failed;
use super::process::{Running, Stage};
use super::server::{PATIENCE, Server};

/// pgbench's tables at scale 1.
const TABLES: &str = "
CREATE TABLE pgbench_branches (bid int PRIMARY KEY, bbalance int);
CREATE TABLE pgbench_tellers (tid int PRIMARY KEY, bid int, tbalance int);
CREATE TABLE pgbench_accounts (aid int PRIMARY KEY, bid int, abalance int, filler char(84) DEFAULT '');
CREATE TABLE pgbench_history (tid int, bid int, aid int, delta int, mtime timestamp);
INSERT INTO pgbench_branches VALUES (1, 0);
INSERT INTO pgbench_tellers SELECT tid, 1, 0 FROM generate_series(1, 10) AS tid;
INSERT INTO pgbench_accounts (aid, bid, abalance) SELECT aid, 1, 0 FROM generate_series(1, 100000) AS aid;
";
const ACCOUNTS: i64 = 100_000;
const TELLERS: i64 = 10;

/// Load on a server, until it is stopped.
pub(super) enum Load {
    /// pgbench itself.
    Pgbench(Running),
    /// The same transactions, one after the other.
    Own(Own),
}

pub(super) struct Own {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

fn command(stage: &Stage, pgbench: &Path, server: &Server) -> Command {
    let mut command = stage.command(pgbench);
    command.arg("--host").arg(server.socket()).args(["--port", &PORT.to_string(), "--username", USER]);
    command
}

impl Load {
    /// Makes the tables and begins.
    pub(super) fn start(stage: &Stage, pgbench: Option<&PathBuf>, server: &Server) -> Result<Load> {
        let Some(pgbench) = pgbench else { return Own::start(server).map(Load::Own) };
        let mut init = command(stage, pgbench, server);
        stage.run(
            "pgbench-init",
            {
                init.args(["--initialize", "--quiet", "postgres"]);
                init
            },
            PATIENCE,
        )?;
        let mut work = command(stage, pgbench, server);
        work.args(["--no-vacuum", "--client=2", "--time=600", "postgres"]);
        stage.start("pgbench", work).map(Load::Pgbench)
    }

    /// Ends it; an error if it had ended by itself.
    pub(super) fn stop(self) -> Result<()> {
        match self {
            Load::Pgbench(mut running) => {
                if let Some(status) = running.ended()? {
                    return Err(failed(format!("pgbench ended ({status}): {}", running.last_words())));
                }
                running.end(Signal::INT, PATIENCE);
                Ok(())
            }
            Load::Own(mut own) => own.join(),
        }
    }
}

impl Own {
    fn start(server: &Server) -> Result<Own> {
        let mut client = server.client()?;
        client.batch_execute(TABLES).map_err(during("making the tables of the load"))?;
        drop(client);
        let stop = Arc::new(AtomicBool::new(false));
        let (socket, told) = (server.socket().to_owned(), stop.clone());
        Ok(Own { stop, thread: Some(thread::spawn(move || work(&socket, &told))) })
    }

    fn join(&mut self) -> Result<()> {
        self.stop.store(true, Ordering::SeqCst);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(done)) => done,
            Some(Err(_)) => Err(Error::bug("the load failed in a way that it should not")),
            None => Ok(()),
        }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let _ = self.join();
    }
}

fn work(socket: &Path, stop: &AtomicBool) -> Result<()> {
    let failed = during("working under load");
    let mut client = connect(socket).map_err(&failed)?;
    let mut turn: i64 = 0;
    while !stop.load(Ordering::SeqCst) {
        turn += 1;
        // Spread like random numbers, without being any.
        let (aid, tid) = (turn * 7919 % ACCOUNTS + 1, turn % TELLERS + 1);
        let delta = turn * 31 % 10_001 - 5000;
        let transaction = format!(
            "BEGIN;
             UPDATE pgbench_accounts SET abalance = abalance + {delta} WHERE aid = {aid};
             UPDATE pgbench_tellers SET tbalance = tbalance + {delta} WHERE tid = {tid};
             UPDATE pgbench_branches SET bbalance = bbalance + {delta} WHERE bid = 1;
             INSERT INTO pgbench_history VALUES ({tid}, 1, {aid}, {delta}, CURRENT_TIMESTAMP);
             COMMIT"
        );
        client.batch_execute(&transaction).map_err(&failed)?;
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
