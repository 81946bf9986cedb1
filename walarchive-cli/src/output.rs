//! The only place that prints: results to standard output, all else to standard error.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};

use serde::Serialize;
use walarchive_core::error::{Trouble, Troubles};
pub(crate) use walarchive_core::told::{bytes, many};
use walarchive_core::{Error, Kind, Result};

use crate::args::{Global, LogFormat};

/// How the program speaks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    json: bool,
    quiet: bool,
    verbose: bool,
    log: LogFormat,
    bars: bool,
}

impl Output {
    pub(crate) fn new(global: &Global) -> Output {
        let bars = !global.no_progress && !global.quiet && io::stderr().is_terminal();
        Output {
            json: global.json,
            quiet: global.quiet,
            verbose: global.verbose > 0,
            log: global.log_format,
            bars: bars && global.log_format == LogFormat::Text,
        }
    }

    /// Whether a progress bar may be drawn.
    pub(crate) fn bars(self) -> bool {
        self.bars
    }

    /// A result: as one JSON document, or as the text that `text` makes.
    pub(crate) fn result(self, value: &impl Serialize, text: impl FnOnce() -> String) -> Result<()> {
        let text = if self.json {
            serde_json::to_string(value)
                .map_err(|error| Error::bug("a result cannot be written").because(error))?
        } else {
            text()
        };
        self.line(text.trim_end())
    }

    /// A report of work that went well or not: as a [`result`](Output::result), but not for people who asked for quiet.
    pub(crate) fn report(self, value: &impl Serialize, text: impl FnOnce() -> String) -> Result<()> {
        if self.quiet && !self.json { Ok(()) } else { self.result(value, text) }
    }

    /// Standard output for bytes that are no text; a terminal is no place for them.
    pub(crate) fn raw(self) -> Result<Box<dyn Write + Send>> {
        if io::stdout().is_terminal() {
            return Err(
                Error::usage("a dump is not printed to a terminal").hint("-o names a file, or pipe it")
            );
        }
        Ok(Box::new(io::stdout()))
    }

    fn line(self, text: &str) -> Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        let mut out = io::stdout().lock();
        match writeln!(out, "{text}").and_then(|()| out.flush()) {
            // Whoever reads has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Err(error) => Err(Error::io("cannot write to standard output", error)),
            Ok(()) => Ok(()),
        }
    }

    /// What went wrong with single objects; what is the same of many is said once.
    pub(crate) fn troubles(self, troubles: &Troubles) {
        let mut alike: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for Trouble { object, detail, .. } in &troubles.each {
            let what = detail.replace(&format!(" ({object})"), "");
            alike.entry(what).or_default().push(object);
        }
        for (what, objects) in alike {
            let more = match objects.len() - 1 {
                0 => String::new(),
                more => format!(" and {}", many(more, "more object")),
            };
            self.warning(&format!("{}{more}: {what}", objects[0]));
        }
    }

    fn log(self, level: &str, text: &str) {
        let text = text.replace('\n', " ");
        let line = match self.log {
            LogFormat::Json => {
                serde_json::json!({ "time": jiff::Timestamp::now(), "level": level, "message": text })
                    .to_string()
            }
            LogFormat::Text if level == "info" => format!("walarchive: {text}"),
            LogFormat::Text => format!("walarchive: {level}: {text}"),
        };
        // There is nowhere left to say that this failed.
        let _ = writeln!(io::stderr().lock(), "{line}");
    }

    pub(crate) fn info(self, text: &str) {
        if !self.quiet {
            self.log("info", text);
        }
    }

    pub(crate) fn detail(self, text: &str) {
        if self.verbose {
            self.log("info", text);
        }
    }

    pub(crate) fn warning(self, text: &str) {
        self.log("warning", text);
    }

    /// One of several errors, which a report tells of, too.
    pub(crate) fn problem(self, error: &Error) {
        self.log("error", &error.story());
    }

    /// An error: a line on standard error, and with `--json` a document on standard output.
    pub(crate) fn error(self, error: &Error, code: u8) {
        // That something is not there is an answer; PostgreSQL asks for such files all the time.
        let level = if error.kind() == Kind::Absent { "info" } else { "error" };
        self.log(level, &error.story());
        if self.json {
            let document = serde_json::json!({ "error": {
                "code": code, "kind": error.kind().name(), "message": error.story(), "object": error.object(),
            }});
            let _ = self.line(&document.to_string());
        }
    }

    /// A note that the command line could not be understood.
    pub(crate) fn usage(self, text: &str, code: u8) {
        let _ = write!(io::stderr().lock(), "{text}");
        if self.json {
            let first = text.lines().next().unwrap_or_default();
            let document = serde_json::json!({ "error": { "code": code, "kind": "usage", "message": first, "object": null }});
            let _ = self.line(&document.to_string());
        }
    }
}

/// A table, for people.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(head.get(column).map(|cell| cell.chars().count())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<_> = cells.zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        padded.join("  ").trim_end().to_owned()
    };
    let mut lines = vec![line(&mut head.iter().copied())];
    lines.extend(rows.iter().map(|row| line(&mut row.iter().map(String::as_str))));
    lines.join("\n")
}
