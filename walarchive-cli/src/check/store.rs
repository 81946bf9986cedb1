//! `check store`: whether the store keeps what archives depend on.

use serde_json::{Value, json};
use walarchive_core::ops::check_store::{self, Guarantee, StoreReport, Verdict};
use walarchive_core::{Error, Result};

use super::Status;
use crate::run::Context;

fn status_of(report: &StoreReport) -> Status {
    match report.verdict() {
        Verdict::Broken => Status::Critical,
        _ if report.unreachable.is_some() => Status::Unknown,
        Verdict::Lacking => Status::Warning,
        Verdict::Holds => Status::Ok,
    }
}

/// `check store`: each mirror on its own.
pub(crate) async fn store(context: Context, objects: u32) -> Result<u8> {
    let url = context.settings.archive_url()?;
    let objects = usize::try_from(objects).unwrap_or(usize::MAX);
    let mut reports = Vec::new();
    match context.settings.storage(&context.each_patient()?).await {
        Ok(store) => {
            let alone = || vec![(url.clone(), store.clone())];
            for (name, store) in store.mirrors().map_or_else(alone, |mirrors| mirrors.stores()) {
                reports.push((name, check_store::check(store, check_store::random()?, objects).await));
            }
        }
        Err(error) if error.kind().is_transient() => {
            let (guarantees, left) = (Vec::new(), Vec::new());
            reports.push((url, StoreReport { guarantees, left, unreachable: Some(error) }));
        }
        Err(error) => return Err(error),
    }
    let reports: Vec<_> = reports.iter().map(|(url, report)| (url, report, status_of(report))).collect();
    let worst = reports
        .iter()
        .map(|(.., status)| *status)
        .max_by_key(|status| status.rank())
        .unwrap_or(Status::Unknown);
    let mut documents: Vec<_> =
        reports.iter().map(|(url, report, status)| document(url, report, *status)).collect();
    let document = match documents.len() {
        1 => documents.remove(0),
        _ => json!({ "ok": worst == Status::Ok, "status": worst.word(), "stores": documents }),
    };
    context.output.result(&document, || {
        let summaries: Vec<_> = reports.iter().map(|(url, report, _)| summary(url, report)).collect();
        let first = format!("{} - {}", worst.word(), summaries.join("; "));
        std::iter::once(first)
            .chain(reports.iter().map(|(url, report, _)| details(url, report)))
            .collect::<Vec<_>>()
            .join("\n")
    })?;
    Ok(worst as u8)
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

fn details(url: &str, report: &StoreReport) -> String {
    let mut lines = vec![format!("{url}:")];
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
