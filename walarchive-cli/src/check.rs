//! `check`: one line for Nagios and the like, then the details.

use serde_json::{Value, json};
use walarchive_core::ops::check_store::{self, Guarantee, StoreReport, Verdict};
use walarchive_core::{Error, Result};

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
    fn of(report: &StoreReport) -> Status {
        match report.verdict() {
            Verdict::Broken => Status::Critical,
            _ if report.unreachable.is_some() => Status::Unknown,
            Verdict::Lacking => Status::Warning,
            Verdict::Holds => Status::Ok,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Status::Ok => "OK",
            Status::Warning => "WARNING",
            Status::Critical => "CRITICAL",
            Status::Unknown => "UNKNOWN",
        }
    }
}

/// `check store`
pub(crate) async fn store(context: Context, objects: u32) -> Result<u8> {
    let url = context.settings.archive_url()?;
    let report = match context.settings.storage(&context.each_patient()?).await {
        Ok(store) => {
            check_store::check(store, check_store::random()?, usize::try_from(objects).unwrap_or(usize::MAX))
                .await
        }
        Err(error) if error.kind().is_transient() => {
            StoreReport { guarantees: Vec::new(), left: Vec::new(), unreachable: Some(error) }
        }
        Err(error) => return Err(error),
    };
    let status = Status::of(&report);
    context.output.result(&document(&url, &report, status), || told(&url, &report, status))?;
    Ok(status as u8)
}

fn document(url: &str, report: &StoreReport, status: Status) -> Value {
    let guarantee = |found: &Guarantee| {
        json!({
            "name": found.name, "holds": found.verdict == Verdict::Holds, "critical": found.verdict == Verdict::Broken,
            "detail": found.detail, "ms": u64::try_from(found.took.as_millis()).unwrap_or(u64::MAX),
        })
    };
    json!({
        "ok": status == Status::Ok, "status": status.word(), "store": url,
        "guarantees": report.guarantees.iter().map(guarantee).collect::<Vec<_>>(),
        "left": report.left, "unreachable": report.unreachable.as_ref().map(Error::story),
    })
}

fn told(url: &str, report: &StoreReport, status: Status) -> String {
    let mut lines = vec![format!("{} - {}", status.word(), summary(url, report))];
    lines.extend(report.guarantees.iter().map(|found| {
        let sign = match found.verdict {
            Verdict::Holds => "holds",
            Verdict::Lacking => "lacks",
            Verdict::Broken => "BROKEN",
        };
        format!("{sign:7} {:12} {} ({} ms)", found.name, found.detail, found.took.as_millis())
    }));
    lines.extend(report.left.iter().map(|key| format!("left    {key} could not be removed")));
    lines.join("\n")
}

fn summary(url: &str, report: &StoreReport) -> String {
    let bad: Vec<_> = report
        .guarantees
        .iter()
        .filter(|found| found.verdict != Verdict::Holds)
        .map(|found| found.name)
        .collect();
    let mut parts = Vec::new();
    if !bad.is_empty() {
        parts.push(format!("not all holds in {url}: {}", bad.join(", ")));
    }
    if let Some(error) = &report.unreachable {
        parts.push(format!("{url} cannot be reached: {}", error.story()));
    }
    if !report.left.is_empty() {
        parts.push(format!("{} objects could not be removed", report.left.len()));
    }
    if parts.is_empty() {
        parts.push(format!("{url} keeps all {} promises", report.guarantees.len()));
    }
    parts.join("; ")
}
