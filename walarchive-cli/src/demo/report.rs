//! What the demo has proven.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use walarchive_core::Kind;

use super::balance::Balance;
use super::ledger::Comparison;

/// What was proven.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) ok: bool,
    /// What differs; empty when all is proven.
    pub(super) differences: Vec<String>,
    pub(super) postgres: String,
    pub(super) postgres_bin: PathBuf,
    pub(super) backup: String,
    pub(super) moment: Timestamp,
    pub(super) ledger: Comparison,
    pub(super) balance: Balance,
    /// Whether pg_verifybackup found nothing; absent where it is not installed.
    pub(super) pg_verifybackup: Option<bool>,
    pub(super) timelines: Vec<u64>,
    pub(super) seconds: f64,
    /// Where everything still is, when it was to be kept.
    pub(super) work_dir: Option<PathBuf>,
}

impl Report {
    /// 0 when everything is proven.
    pub(super) fn exit_code(&self) -> u8 {
        if self.ok { 0 } else { Kind::Damaged.exit_code() }
    }

    /// For people.
    pub(super) fn told(&self) -> String {
        let mut lines = vec![match self.ok {
            true => format!(
                "proven in {:.1} s: the cluster was destroyed, and is back as it was at {}",
                self.seconds, self.moment
            ),
            false => format!("NOT PROVEN: the restored cluster is not what it was at {}", self.moment),
        }];
        lines.extend(self.differences.iter().map(|difference| format!("  differs: {difference}")));
        lines.push(format!("  ledger: {}", self.ledger.told()));
        lines.push(format!("  load: {}", self.balance.told()));
        lines.extend(self.work_dir.iter().map(|dir| format!("  everything is kept in {}", dir.display())));
        lines.join("\n")
    }

    /// Gathers what differs; `wal` is the answer of `wal list`.
    pub(super) fn judge(&mut self, wal: &Value) {
        let mut all = self.ledger.differences();
        all.extend(self.balance.differences());
        if self.pg_verifybackup == Some(false) {
            all.push("pg_verifybackup found fault with the restored files".to_owned());
        }
        for timeline in wal["timelines"].as_array().into_iter().flatten() {
            self.timelines.extend(timeline["timeline"].as_u64());
            if timeline["missing"].as_array().is_none_or(|missing| !missing.is_empty()) {
                all.push(format!("WAL is missing: {timeline}"));
            }
        }
        if self.timelines != [1, 2] {
            all.push(format!("the archive should hold timelines 1 and 2, it holds {:?}", self.timelines));
        }
        self.ok = all.is_empty();
        self.differences = all;
    }
}
