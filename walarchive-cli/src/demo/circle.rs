//! The circle, step by step.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::Value;
use walarchive_core::{Error, Kind, Result};

use super::balance::{self, Balance};
use super::failed;
use super::ledger::{self, Comparison, Ledger, Row};
use super::load::Load;
use super::place::Place;
use super::process::Stage;
use super::programs::{PG_VERIFYBACKUP, PGBENCH, Programs};
use super::report::Report;
use super::server::{Server, initdb};
use crate::interrupt::Interrupt;
use crate::output::{Output, bytes};
use crate::scratch::SocketDir;

/// How many rows the ledger shall gain before a backup, until the moment, and after it.
const ROWS: usize = 40;
/// How long a backup or a restore of so little may take.
const WORK: Duration = Duration::from_secs(120);

/// What the steps share.
struct Circle<'a> {
    output: Output,
    place: &'a Place,
    programs: Programs,
    stage: Stage,
    program: PathBuf,
    socket: SocketDir,
}

/// The state that is to come back.
struct Wanted {
    backup: String,
    moment: Timestamp,
    before: usize,
    committed: Vec<Row>,
}

/// Goes round. An error when a step fails; a report with differences when the end is not as the beginning.
pub(super) fn run(
    output: Output,
    place: &Place,
    programs: Programs,
    interrupt: &Interrupt,
    keep: bool,
) -> Result<Report> {
    let begun = Instant::now();
    let program =
        env::current_exe().map_err(|error| Error::io("cannot find this program's own path", error))?;
    let own_bin = program.parent().unwrap_or(Path::new("/"));
    let stage = Stage::new(place, &[own_bin, &programs.bin], &place.join("walarchive.toml"), interrupt)?;
    let socket = SocketDir::make(place.path())?;
    let circle = Circle { output, place, programs, stage, program, socket };
    let programs = &circle.programs;
    circle.say(1, &format!("PostgreSQL {} in {}", programs.version, programs.bin.display()));
    circle.archive()?;
    let wanted = circle.life()?;
    let pg_verifybackup = circle.restore(&wanted)?;
    let (ledger, balance, timelines) = circle.compare(&wanted)?;
    let mut report = Report {
        ok: true,
        differences: Vec::new(),
        postgres: programs.version.clone(),
        postgres_bin: programs.bin.clone(),
        backup: wanted.backup,
        moment: wanted.moment,
        ledger,
        balance,
        pg_verifybackup,
        timelines: Vec::new(),
        seconds: begun.elapsed().as_secs_f64(),
        work_dir: keep.then(|| place.path().to_owned()),
    };
    report.judge(&timelines);
    Ok(report)
}

impl Circle<'_> {
    fn say(&self, step: u32, text: &str) {
        self.output.info(&format!("{step}/8 {text}"));
    }

    /// Runs `walarchive --json` as a user would; its result.
    fn walarchive(&self, args: &[&str]) -> Result<Value> {
        let name = format!("walarchive-{}", args.iter().take(2).copied().collect::<Vec<_>>().join("-"));
        let mut command: Command = self.stage.command(&self.program);
        command.arg("--json").args(args);
        let finished = self.stage.finish(&name, command, WORK)?;
        let result: Option<Value> = serde_json::from_str(&finished.stdout).ok();
        match result {
            Some(result) if finished.status.success() => Ok(result),
            result => {
                let said = result.and_then(|result| Some(result["error"]["message"].as_str()?.to_owned()));
                let said = said.unwrap_or_else(|| finished.stderr.trim().to_owned());
                let kind = if finished.status.code() == Some(4) { Kind::Damaged } else { Kind::Local };
                Err(Error::new(
                    kind,
                    format!("walarchive {} failed ({}): {said}", args.join(" "), finished.status),
                ))
            }
        }
    }

    /// A key, and an archive that only this key opens.
    fn archive(&self) -> Result<()> {
        let (archive, key) = (self.place.join("archive"), self.place.join("identity.txt"));
        let archive = format!("file://{}", utf8(&archive)?);
        self.settings(&[("archive", &archive)], &[])?;
        let made = self.walarchive(&["key", "generate", "-o", utf8(&key)?])?;
        let recipient = text(&made, "recipient")?;
        self.settings(
            &[("archive", &archive), ("cluster", "demo")],
            &[("recipients", &recipient), ("identity_file", utf8(&key)?)],
        )?;
        self.walarchive(&["init"])?;
        self.say(2, &format!("an archive that is encrypted for {recipient}"));
        Ok(())
    }

    /// Settings in a file: the variable that names it is all that the programs get.
    fn settings(&self, top: &[(&str, &str)], encryption: &[(&str, &str)]) -> Result<()> {
        // A JSON string is a TOML string.
        let line = |(key, value): &(&str, &str)| format!("{key} = {}\n", Value::from(*value));
        let top: String = top.iter().map(line).collect();
        let encryption: String = encryption.iter().map(line).collect();
        let path = self.place.join("walarchive.toml");
        fs::write(&path, format!("{top}[encryption]\n{encryption}"))
            .map_err(|error| Error::io(format!("cannot write {}", path.display()), error))
    }

    /// From the cluster's first day to its last.
    fn life(&self) -> Result<Wanted> {
        let data_dir = self.place.join("data");
        let thin = self.program.with_file_name("walarchive-push").is_file();
        let archive_command = if thin { "walarchive-push %p" } else { "walarchive wal push %p" };
        initdb(&self.stage, &self.programs, &data_dir, archive_command)?;
        let server = Server::start(&self.stage, &self.programs, &data_dir, self.socket.path())?;
        let pgbench = self.programs.optional(PGBENCH);
        let load = Load::start(&self.stage, pgbench.as_ref(), &server)?;
        let ledger = Ledger::start(server.socket())?;
        let loaded = if pgbench.is_some() { "pgbench" } else { "a load like pgbench's" };
        self.say(
            3,
            &format!("a cluster with archive_command = '{archive_command}', {loaded} and a ledger writing"),
        );

        ledger.grow(&self.stage, ROWS)?;
        let (backup, grown) = self.back_up(&server, &ledger)?;
        self.say(4, &format!("backup {backup}, in which the ledger grew by {grown} rows"));

        ledger.grow(&self.stage, ROWS)?;
        let (moment, before) = ledger.moment(&mut server.client()?)?;
        ledger.grow(&self.stage, ROWS)?;
        load.stop()?;
        let committed = ledger.stop()?;
        let segment = server.archive_now(&self.stage)?;
        let after = committed.len().saturating_sub(before);
        self.say(
            5,
            &format!(
                "the moment {moment}: {before} rows before it, {after} after it; archived up to {segment}"
            ),
        );

        server.destroy(&self.stage)?;
        self.say(6, "destroyed: the server was killed with SIGKILL, its data directory is gone");
        Ok(Wanted { backup, moment, before, committed })
    }

    fn back_up(&self, server: &Server, ledger: &Ledger) -> Result<(String, usize)> {
        let count = ledger.count();
        // A conninfo string: backslash and quote are its special characters.
        let socket = utf8(server.socket())?.replace('\\', r"\\").replace('\'', r"\'");
        let mut command = self.stage.command(&self.program);
        command.args(["--json", "backup", "create", "--label", "made_by=demo"]);
        command.env(
            "WALARCHIVE_CONNECTION",
            format!(
                "host='{socket}' port={} user={} dbname=postgres",
                super::client::PORT,
                super::client::USER
            ),
        );
        let stdout = self.stage.run("walarchive-backup-create", command, WORK)?;
        let made: Value = serde_json::from_str(&stdout)
            .map_err(|error| Error::bug("backup create did not answer in JSON").because(error))?;
        let sizes = (
            made["data_bytes"].as_u64().unwrap_or_default(),
            made["stored_bytes"].as_u64().unwrap_or_default(),
        );
        self.output.detail(&format!("{} of data, {} stored", bytes(sizes.0), bytes(sizes.1)));
        Ok((text(&made, "id")?, ledger.count().saturating_sub(count)))
    }

    /// Restores to the moment; whether pg_verifybackup approves, where it is installed.
    fn restore(&self, wanted: &Wanted) -> Result<Option<bool>> {
        let target = self.place.join("restored");
        let moment = wanted.moment.to_string();
        let done = self.walarchive(&["restore", "--target-dir", utf8(&target)?, "--to", &moment])?;
        let written = bytes(done["bytes_written"].as_u64().unwrap_or_default());
        let verified = match self.programs.optional(PG_VERIFYBACKUP) {
            Some(program) => {
                let mut command = self.stage.command(program);
                // WAL comes from the archive.
                command.arg("--no-parse-wal").arg(&target);
                let finished = self.stage.finish("pg_verifybackup", command, WORK)?;
                if !finished.status.success() {
                    self.output.warning(&format!("pg_verifybackup: {}", finished.stderr.trim()));
                }
                Some(finished.status.success())
            }
            None => None,
        };
        let told = match verified {
            Some(true) => "pg_verifybackup approves of it",
            Some(false) => "pg_verifybackup does NOT approve of it",
            None => "pg_verifybackup is not installed",
        };
        self.say(7, &format!("restored {written} to {moment}; {told}"));
        Ok(verified)
    }

    /// Starts the restored cluster and looks; `wal list` after it has archived something, too.
    fn compare(&self, wanted: &Wanted) -> Result<(Comparison, Balance, Value)> {
        let target = self.place.join("restored");
        let server = Server::start(&self.stage, &self.programs, &target, self.socket.path())?;
        let mut client = server.client()?;
        let ledger = ledger::compare(&wanted.committed, wanted.before, &ledger::read(&mut client)?);
        let balance = balance::read(&mut client)?;
        drop(client);
        server.archive_now(&self.stage)?;
        server.stop();
        let wal = self.walarchive(&["wal", "list"])?;
        let range = |timeline: &Value| {
            let name = |key: &str| timeline[key].as_str().unwrap_or("-").to_owned();
            format!("timeline {}: {} to {}", timeline["timeline"], name("first"), name("last"))
        };
        let ranges: Vec<String> = wal["timelines"].as_array().into_iter().flatten().map(range).collect();
        self.say(
            8,
            &format!(
                "the restored server recovered, was promoted and archives; in the archive: {}",
                ranges.join(", ")
            ),
        );
        Ok((ledger, balance, wal))
    }
}

fn utf8(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| Error::usage(format!("the path {} is not UTF-8", path.display())))
}

fn text(value: &Value, key: &str) -> Result<String> {
    let found = value[key].as_str().map(str::to_owned);
    found.ok_or_else(|| failed(format!("walarchive did not say its {key}: {value}")))
}
