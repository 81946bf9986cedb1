//! What whole programs took: in units of one that is named, printed, and kept for one page with plots.
//!
//! Every run of a bench replaces its own file in `target/bench-report/` and makes the page there anew from all of them.

mod machine;
mod page;
mod plot;
#[cfg(test)]
mod tests;

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::data::target_dir;
use crate::{Used, smoke};

/// Whose time it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// This product's.
    Ours,
    /// Of a part of the work, by programs that do nothing else: nobody can take much less.
    Floor,
    /// Another program's, that does the same work.
    Other,
}

/// One case of a table.
#[derive(Debug, Clone)]
struct Row {
    case: String,
    who: Who,
    used: Used,
    stored: Option<u64>,
    note: String,
}

/// Cases that do the same work, and the one that they are compared with.
#[derive(Debug, Clone)]
pub struct Table {
    title: String,
    unit: String,
    stored_unit: Option<u64>,
    rows: Vec<Row>,
}

impl Table {
    /// A table whose ratios are to the case `unit`; without such a case, there are none.
    pub fn new(title: impl Into<String>, unit: impl Into<String>) -> Table {
        Table { title: title.into(), unit: unit.into(), stored_unit: None, rows: Vec::new() }
    }

    /// The bytes that what is stored is compared with, in place of the unit's own.
    pub fn stored_in_units_of(&mut self, bytes: u64) {
        self.stored_unit = Some(bytes);
    }

    /// Adds a case; `stored` are the bytes that it left, if it leaves any.
    pub fn row(&mut self, who: Who, case: impl Into<String>, used: Used, stored: Option<u64>) {
        self.noted(who, case, used, stored, "");
    }

    /// Adds a case with something else that is worth telling.
    pub fn noted(
        &mut self,
        who: Who,
        case: impl Into<String>,
        used: Used,
        stored: Option<u64>,
        note: impl Into<String>,
    ) {
        self.rows.push(Row { case: case.into(), who, used, stored, note: note.into() });
    }

    fn unit(&self) -> Option<&Row> {
        self.rows.iter().find(|row| row.case == self.unit)
    }

    /// Wall time, CPU time and stored bytes in units of the unit's.
    fn ratios(&self, row: &Row) -> [Option<f64>; 3] {
        let unit = self.unit();
        let times = |of: fn(&Used) -> Duration| {
            let unit = of(&unit?.used).as_secs_f64();
            (unit > 0.0).then(|| of(&row.used).as_secs_f64() / unit)
        };
        let stored = || {
            let unit = self.stored_unit.or(unit?.stored).filter(|bytes| *bytes > 0)?;
            Some(row.stored? as f64 / unit as f64)
        };
        [times(|used| used.wall), times(|used| used.cpu), stored()]
    }

    fn print(&self) {
        println!(
            "\n{}\n  (in brackets: in units of `{}`; memory: the most of one process)",
            self.title, self.unit
        );
        for row in &self.rows {
            let [wall, cpu, stored] = self.ratios(row).map(|ratio| ratio.map(|ratio| format!("{ratio:.2}")));
            let dash = || "-".to_owned();
            let mut line = row.used.line(&row.case);
            line += &format!(" ({} wall, {} CPU)", wall.unwrap_or_else(dash), cpu.unwrap_or_else(dash));
            if let Some(bytes) = row.stored {
                line += &format!(", {:.2} MB ({})", bytes as f64 / 1e6, stored.unwrap_or_else(dash));
            }
            if !row.note.is_empty() {
                line += &format!(", {}", row.note);
            }
            println!("{line}");
        }
    }

    fn json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            let [wall, cpu, stored] = self.ratios(row);
            json!({
                "case": row.case,
                "who": match row.who { Who::Ours => "ours", Who::Floor => "floor", Who::Other => "other" },
                "wall_seconds": row.used.wall.as_secs_f64(),
                "cpu_seconds": row.used.cpu.as_secs_f64(),
                "memory_bytes": row.used.rss,
                "stored_bytes": row.stored,
                "wall_ratio": wall,
                "cpu_ratio": cpu,
                "stored_ratio": stored,
                "note": row.note,
            })
        });
        json!({ "title": self.title, "unit": self.unit, "rows": rows.collect::<Vec<_>>() })
    }
}

/// Everything that one run of a bench has to tell.
#[derive(Debug)]
pub struct Report {
    bench: String,
    machine: Value,
    facts: Vec<String>,
    tables: Vec<Table>,
}

impl Report {
    /// A report of a bench, or of a part of it that can be run alone; its name is that of a file.
    pub fn new(bench: &str) -> Report {
        Report { bench: bench.to_owned(), machine: machine::facts(), facts: Vec::new(), tables: Vec::new() }
    }

    /// Tells, and keeps, a line about the whole run.
    pub fn fact(&mut self, line: impl Into<String>) {
        let line = line.into();
        println!("{}: {line}", self.bench);
        self.facts.push(line);
    }

    /// Prints and keeps a table.
    pub fn add(&mut self, table: Table) {
        table.print();
        self.tables.push(table);
    }

    /// Keeps everything. What ran once, to see that it runs, is kept apart from what was measured.
    pub fn finish(self) {
        let dir = target_dir().join(if smoke() { "bench-report-smoke" } else { "bench-report" });
        self.write_to(&dir);
        println!("\nreport: {}", dir.join(page::NAME).display());
    }

    fn write_to(&self, dir: &Path) {
        let tables: Vec<Value> = self.tables.iter().map(Table::json).collect();
        let run = json!({
            "bench": self.bench,
            "made_at": machine::now(),
            "machine": self.machine,
            "facts": self.facts,
            "tables": tables,
        });
        fs::create_dir_all(dir).expect("make the directory of the report");
        let text = serde_json::to_string_pretty(&run).expect("JSON");
        fs::write(dir.join(format!("{}.json", self.bench)), text).expect("write what was measured");
        fs::write(dir.join(page::NAME), page::of(&runs(dir))).expect("write the report");
    }
}

/// All runs in the directory, by their names.
fn runs(dir: &Path) -> Vec<Value> {
    let entries = fs::read_dir(dir).expect("list the directory of the report");
    let files = entries.map(|entry| entry.expect("list the directory of the report").path());
    let mut files: Vec<_> = files.filter(|file| file.extension().is_some_and(|end| end == "json")).collect();
    files.sort();
    let read = |file: &Path| {
        let text = fs::read_to_string(file).expect("read what was measured");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}: remove it", file.display()))
    };
    files.iter().map(|file| read(file)).collect()
}
