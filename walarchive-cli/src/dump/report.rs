//! What is told of a run of dumps.

use serde_json::{Value, json};
use walarchive_core::Error;
use walarchive_core::archive::Dump;
use walarchive_core::config::MailWhen;
use walarchive_core::ops::dump::{Outcome, RunDone};

use super::{called, entry};
use crate::output::{bytes, many, table};

/// Grows while the run goes on.
#[derive(Default)]
pub(super) struct Report {
    cluster: String,
    done: Option<RunDone>,
    errors: Vec<Error>,
    warnings: Vec<String>,
    expired: Vec<String>,
    mail: Option<(String, MailWhen)>,
    is_refused: bool,
}

impl Report {
    pub(super) fn begin(&mut self, cluster: String, mail: Option<(String, MailWhen)>) {
        (self.cluster, self.mail) = (cluster, mail);
    }

    pub(super) fn take(&mut self, done: RunDone) {
        for dump in done.outcomes.iter().filter_map(|outcome| outcome.result.as_ref().ok()) {
            let of = called(dump.facts.content, &dump.facts.database);
            self.warnings.extend(dump.facts.warnings.iter().map(|warning| format!("{of}: {warning}")));
        }
        self.done = Some(done);
    }

    pub(super) fn fail(&mut self, error: Error) {
        self.errors.push(error);
    }

    pub(super) fn warn(&mut self, warning: String) {
        self.warnings.push(warning);
    }

    pub(super) fn expired(&mut self, ids: Vec<String>) {
        self.expired = ids;
    }

    /// The run was told to stop, which some of its dumps may have told already.
    pub(super) fn stopped(&mut self, stopped: Error) {
        if self.errors().next().is_none() {
            self.fail(stopped);
        }
    }

    /// Another run is under way.
    pub(super) fn somebody_else(&mut self) {
        self.is_refused = true;
    }

    pub(super) fn is_refused(&self) -> bool {
        self.is_refused
    }

    pub(super) fn warnings(&self) -> &[String] {
        &self.warnings
    }

    fn outcomes(&self) -> &[Outcome] {
        self.done.as_ref().map(|done| done.outcomes.as_slice()).unwrap_or_default()
    }

    /// What went wrong: dumps that failed, and then all else.
    pub(super) fn errors(&self) -> impl Iterator<Item = &Error> {
        self.outcomes().iter().filter_map(|outcome| outcome.result.as_ref().err()).chain(&self.errors)
    }

    /// That of the first thing that went wrong.
    pub(super) fn exit_code(&self) -> u8 {
        self.errors().next().map_or(0, |error| error.kind().exit_code())
    }

    fn failed(&self) -> usize {
        self.outcomes().iter().filter(|outcome| outcome.result.is_err()).count()
    }

    fn dumps(&self) -> impl Iterator<Item = &Dump> {
        self.outcomes().iter().filter_map(|outcome| outcome.result.as_ref().ok())
    }

    fn stored_bytes(&self) -> u64 {
        self.dumps().map(|dump| dump.facts.stored_bytes).sum()
    }

    fn data_bytes(&self) -> u64 {
        self.dumps().map(|dump| dump.facts.data_bytes).sum()
    }

    fn status(&self) -> &'static str {
        if self.errors().next().is_none() { "ok" } else { "failed" }
    }

    /// For hooks.
    pub(super) fn facts(&self) -> Vec<(&'static str, String)> {
        let done = self.done.as_ref();
        let names = |failed: bool| {
            let of = self.outcomes().iter().filter(|outcome| outcome.result.is_err() == failed);
            of.map(|outcome| outcome.database.as_str()).collect::<Vec<_>>().join("\n")
        };
        vec![
            ("DUMP_STATUS", self.status().to_owned()),
            ("DUMP_CLUSTER", self.cluster.clone()),
            ("DUMP_RUN", done.map(|done| done.id.to_string()).unwrap_or_default()),
            ("DUMP_STARTED_AT", done.map(|done| done.started_at.to_string()).unwrap_or_default()),
            ("DUMP_FINISHED_AT", done.map(|done| done.finished_at.to_string()).unwrap_or_default()),
            ("DUMP_DATABASES", names(false)),
            ("DUMP_FAILED", names(true)),
            ("DUMP_DATA_BYTES", self.data_bytes().to_string()),
            ("DUMP_STORED_BYTES", self.stored_bytes().to_string()),
            ("DUMP_EXIT_CODE", self.exit_code().to_string()),
        ]
    }

    pub(super) fn document(&self) -> Value {
        let done = self.done.as_ref();
        let errors: Vec<_> = self.errors().map(error).collect();
        let mut document = json!({
            "run": done.map(|done| done.id.to_string()), "cluster": self.cluster, "ok": errors.is_empty(),
            "started_at": done.map(|done| done.started_at), "finished_at": done.map(|done| done.finished_at),
            "server_version": done.map(|done| done.server_version.as_str()),
            "dump_version": done.map(|done| done.dump_version.as_str()),
            "failed": self.failed(), "data_bytes": self.data_bytes(), "stored_bytes": self.stored_bytes(),
            "dumps": self.outcomes().iter().map(|outcome| self.of(outcome)).collect::<Vec<_>>(),
            "expired": self.expired, "warnings": self.warnings, "errors": errors,
        });
        if let Some(first) = errors.first() {
            document["error"] = first.clone();
        }
        document
    }

    fn of(&self, outcome: &Outcome) -> Value {
        let mut document = match &outcome.result {
            Ok(dump) => {
                // Which slots it fills depends on the others; 'dump list' looks at them.
                entry(dump, None)
            }
            Err(failed) => {
                json!({ "database": outcome.database, "content": outcome.content, "error": error(failed) })
            }
        };
        document["ok"] = Value::from(outcome.result.is_ok());
        document["seconds"] = Value::from((outcome.took.as_secs_f64() * 1000.0).round() / 1000.0);
        document["data_bytes_before"] = outcome.bytes_before.map_or(Value::Null, Value::from);
        document
    }

    pub(super) fn text(&self) -> String {
        let rows: Vec<_> = self.outcomes().iter().map(row).collect();
        let mut lines = Vec::new();
        if !rows.is_empty() {
            lines.push(table(&["", "database", "size", "change", "stored", "took", "dump"], &rows));
        }
        if !self.expired.is_empty() {
            lines.push(format!("expired: {}", self.expired.join(", ")));
        }
        let failed = self.errors().count();
        lines.push(match self.done {
            Some(_) if failed == 0 => format!(
                "{}, {}, of which {} were stored anew",
                many(self.dumps().count(), "dump"),
                bytes(self.data_bytes()),
                bytes(self.stored_bytes())
            ),
            Some(_) => {
                format!("made: {}; went wrong: {}", many(self.dumps().count(), "dump"), many(failed, "thing"))
            }
            None => "nothing was dumped".to_owned(),
        });
        lines.join("\n")
    }

    /// The mail that is to be sent.
    pub(super) fn letter(&self) -> Option<(String, String)> {
        let (to, when) = self.mail.as_ref()?;
        if *when == MailWhen::Errors && self.errors().next().is_none() {
            return None;
        }
        let status = if self.status() == "ok" { "OK" } else { "FAILED" };
        let mut text = format!(
            "To: {to}\nSubject: walarchive dumps of cluster {}: {status}\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n\n{}\n",
            self.cluster,
            self.text()
        );
        let wrong = self.errors().map(|error| format!("\nerror: {}\n", error.story()));
        let warned = self.warnings.iter().map(|warning| format!("\nwarning: {warning}\n"));
        text.extend(wrong.chain(warned));
        Some((to.clone(), text))
    }
}

fn error(error: &Error) -> Value {
    let kind = error.kind();
    json!({ "code": kind.exit_code(), "kind": kind.name(), "message": error.story(), "object": error.object() })
}

fn row(outcome: &Outcome) -> Vec<String> {
    let name = called(outcome.content, &outcome.database);
    let took = format!("{:.1} s", outcome.took.as_secs_f64());
    match &outcome.result {
        Ok(dump) => vec![
            "ok".to_owned(),
            name,
            bytes(dump.facts.data_bytes),
            change(outcome.bytes_before, dump.facts.data_bytes),
            bytes(dump.facts.stored_bytes),
            took,
            dump.facts.id.clone(),
        ],
        Err(error) => {
            let empty = String::new;
            // The whole story is told beside the table.
            vec!["FAILED".to_owned(), name, empty(), empty(), empty(), took, error.kind().name().to_owned()]
        }
    }
}

fn change(before: Option<u64>, now: u64) -> String {
    match before {
        None => "new".to_owned(),
        Some(before) if before == now => "none".to_owned(),
        Some(before) if now > before => format!("+{}", bytes(now - before)),
        Some(before) => format!("-{}", bytes(before - now)),
    }
}
