//! What a drill tells, and leaves in the archive.

use std::time::Duration;

use jiff::Timestamp;
use walarchive_core::archive::{DrillCheck, DrillReport, Drilled};
use walarchive_core::{Kind, Result};

use super::{Found, Stage};
use crate::output::table;

/// Stores the report and prints it; the exit code.
pub(super) fn conclude(stage: &Stage<'_>, found: Found) -> Result<u8> {
    let (catalog, mut report) = (found.catalog.clone(), made(stage, found));
    let settings = &stage.context.settings;
    let codec = match &report.of {
        Drilled::Backup(_) => settings.backup_codec(),
        Drilled::Dump(_) => settings.dump_codec(),
    };
    let stored =
        codec.and_then(|codec| stage.wait(async { catalog.put_report(&stage.id, &report, codec).await }));
    if let Err(error) = stored {
        report.report = None;
        stage.context.output.warning(&format!("the report of this drill was not stored: {}", error.story()));
    }
    stage.context.output.report(&report, || told(&report))?;
    if report.ok {
        return Ok(0);
    }
    for check in report.checks.iter().filter(|check| check.ok == Some(false)) {
        stage.context.output.warning(&format!("{}: {}", check.name, check.detail));
    }
    Ok(Kind::Damaged.exit_code())
}

fn made(stage: &Stage<'_>, found: Found) -> DrillReport {
    let reached = found.reached.as_ref();
    // The backup's end is a moment that was reached, should nobody have written since.
    let came_back = reached.is_some() || found.target.is_none();
    let point = reached.and_then(|reached| reached.time).max(found.complete_at.filter(|_| came_back));
    let age = point.map(|point| stage.started.duration_since(point).as_secs());
    DrillReport {
        ok: found.checks.iter().all(|check| check.ok != Some(false)),
        of: found.of,
        database: found.database,
        target: found.target,
        reached_lsn: reached.map(|reached| reached.lsn),
        reached_time: reached.and_then(|reached| reached.time),
        timeline: reached.map(|reached| reached.timeline),
        duration_ms: millis(stage.begun.elapsed()),
        recovery_point_age_seconds: age.map(|age| u64::try_from(age).unwrap_or_default()),
        checks: found.checks,
        report: Some(stage.id.to_string()),
        started_at: stage.started,
        finished_at: Timestamp::now(),
        host: host(),
        created_by: format!("walarchive {}", env!("CARGO_PKG_VERSION")),
        server_version: found.server_version,
    }
}

fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() { "unknown".to_owned() } else { name.trim().to_owned() }
}

pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn told(report: &DrillReport) -> String {
    let verdict =
        if report.ok { "all that was promised came back" } else { "NOT all that was promised came back" };
    let mut lines = vec![format!("drill of {}: {verdict}", report.subject())];
    if let (Some(target), Some(lsn), Some(timeline)) = (&report.target, report.reached_lsn, report.timeline) {
        lines.push(format!("reached        {lsn} on timeline {timeline} ({target})"));
    }
    if let Some(time) = report.reached_time {
        lines.push(format!("last commit    {time}"));
    }
    if let Some(age) = report.recovery_point_age_seconds {
        lines.push(format!("recovery point {age} s before the drill"));
    }
    lines.push(format!("took           {:.1} s", report.duration_ms as f64 / 1000.0));
    let row = |check: &DrillCheck| {
        let result = match check.ok {
            Some(true) => "ok",
            Some(false) => "FAILED",
            None => "unknown",
        };
        let detail = check.detail.replace('\n', " ");
        vec![
            check.name.replace('\n', " "),
            result.to_owned(),
            format!("{:.1}", check.ms as f64 / 1000.0),
            detail,
        ]
    };
    let rows: Vec<_> = report.checks.iter().map(row).collect();
    lines.push(table(&["check", "result", "seconds", ""], &rows));
    if let Some(id) = &report.report {
        lines.push(format!("stored as report {id}"));
    }
    lines.join("\n")
}
