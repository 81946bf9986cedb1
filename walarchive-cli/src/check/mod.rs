//! `check`: one line for Nagios and the like, then the details. What cannot be told is unknown, and never fine.

mod ages;
mod retention;
mod store;

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};
use walarchive_core::{Error, Result, write_file};

use crate::args::{CheckCommand, Reporting};
use crate::output::Output;
use crate::run::Context;

/// How a check ends, as Nagios has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Ok = 0,
    Warning = 1,
    Critical = 2,
    Unknown = 3,
}

impl Status {
    fn word(self) -> &'static str {
        match self {
            Status::Ok => "OK",
            Status::Warning => "WARNING",
            Status::Critical => "CRITICAL",
            Status::Unknown => "UNKNOWN",
        }
    }

    /// What is known to be bad tells more than what cannot be told.
    fn rank(self) -> u8 {
        match self {
            Status::Ok => 0,
            Status::Warning => 1,
            Status::Unknown => 2,
            Status::Critical => 3,
        }
    }
}

/// What a check found.
struct Found {
    status: Status,
    /// What is told first.
    line: String,
    /// Numbers for whoever keeps them.
    numbers: Vec<(&'static str, f64)>,
    details: Value,
}

impl Found {
    fn new(status: Status, line: impl Into<String>) -> Found {
        Found { status, line: line.into(), numbers: Vec::new(), details: Value::Null }
    }

    /// Makes it worse, and says why.
    fn but(&mut self, status: Status, why: &str) {
        if status.rank() > self.status.rank() {
            self.status = status;
        }
        self.line = format!("{}; {why}", self.line);
    }

    fn number(mut self, name: &'static str, value: f64) -> Found {
        self.numbers.push((name, value));
        self
    }
}

/// `check …`
pub(crate) async fn check(context: Context, command: CheckCommand) -> Result<u8> {
    let (name, reporting, found) = match command {
        CheckCommand::Store { objects } => return store::store(context, objects).await,
        CheckCommand::Wal { limits, reporting } => ("wal", reporting, ages::wal(&context, &limits).await),
        CheckCommand::Backup { limits, reporting } => {
            ("backup", reporting, ages::backup(&context, &limits).await)
        }
        CheckCommand::Dump { limits, reporting } => ("dump", reporting, ages::dump(&context, &limits).await),
        CheckCommand::Copy { from, to, limits, reporting } => {
            ("copy", reporting, ages::copy(&context, from.as_deref(), to.as_deref(), &limits).await)
        }
        CheckCommand::Retention { limits, reporting } => {
            ("retention", reporting, retention::retention(&context, &limits).await)
        }
        CheckCommand::Drill { limits, reporting } => {
            ("drill", reporting, ages::drill(&context, &limits).await)
        }
    };
    let found = found.unwrap_or_else(|error| Found::new(Status::Unknown, error.story()));
    if let Some(path) = &reporting.prometheus {
        write_metrics(path, name, &found)?;
    }
    tell(context.output, name, &reporting, &found)
}

fn tell(output: Output, name: &str, reporting: &Reporting, found: &Found) -> Result<u8> {
    let numbers: Value =
        found.numbers.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    let document = json!({
        "check": name, "ok": found.status == Status::Ok, "status": found.status.word(), "message": found.line,
        "numbers": numbers, "details": found.details,
    });
    output.result(&document, || {
        let performance: Vec<String> =
            found.numbers.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut line = format!("{} - {}", found.status.word(), found.line.replace(['\n', '\t', '|'], " "));
        if !performance.is_empty() {
            let _ = write!(line, " | {}", performance.join(" "));
        }
        match &reporting.nsca {
            Some(host) => format!("{host}\twalarchive {name}\t{}\t{line}", found.status as u8),
            None => line,
        }
    })?;
    Ok(found.status as u8)
}

/// A file for the textfile collector of Prometheus' node exporter, whole at every moment.
fn write_metrics(path: &Path, name: &str, found: &Found) -> Result<()> {
    let mut text = String::new();
    let mut metric = |metric: &str, value: f64| {
        let _ = writeln!(text, "walarchive_check_{metric}{{check=\"{name}\"}} {value}");
    };
    metric("status", f64::from(found.status as u8));
    for (number, value) in &found.numbers {
        metric(number, *value);
    }
    write_file(path, 0o644, text.as_bytes()).map_err(|error: Error| error.during("writing the metrics"))
}
