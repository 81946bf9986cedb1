//! What is found of a cluster, as JSON.

use serde_json::{Value, json};

use super::{DumpsStatus, LastDrill, Status, StoreStatus};
use crate::source::Waiting;
use crate::storage::CreateMode;

impl Status {
    /// What `status` tells, as JSON.
    pub fn document(&self) -> Value {
        let archive: Vec<&str> = self.stores.iter().map(|store| store.name.as_str()).collect();
        let latest = self.latest.as_ref().map(|(backup, share)| backup.document(*share));
        json!({
            "cluster": self.cluster.to_string(), "archive": archive.join(" "),
            "archives": self.stores.iter().map(StoreStatus::document).collect::<Vec<_>>(),
            "latest_backup": latest, "stored": self.stored, "wal": self.wal,
            "waiting": self.waiting.as_ref().map(Waiting::document), "recoverable": self.recoverable,
            "problems": self.problems,
            "dumps": self.dumps.as_ref().map(DumpsStatus::document),
            "drill": self.drill.as_ref().map(LastDrill::document),
        })
    }
}

impl StoreStatus {
    fn document(&self) -> Value {
        let create = if self.create == CreateMode::CheckFirst { "check-first" } else { "conditional" };
        json!({
            "url": self.name, "reachable": self.reachable, "create": create,
            "behind": self.behind, "behind_bytes": self.behind_bytes,
        })
    }
}

impl DumpsStatus {
    fn document(&self) -> Value {
        match self {
            DumpsStatus::Sealed => json!({ "count": null, "stored_bytes": null, "databases": null }),
            DumpsStatus::Known { count, stored_bytes, newest } => {
                let newest = newest.iter().map(|facts| {
                    json!({
                        "content": facts.content, "database": facts.database, "partial": facts.is_partial(),
                        "latest": facts.id, "finished_at": facts.finished_at,
                    })
                });
                let newest: Vec<Value> = newest.collect();
                json!({ "count": count, "stored_bytes": stored_bytes, "databases": newest })
            }
        }
    }
}

impl LastDrill {
    fn document(&self) -> Value {
        match &self.report {
            Some(report) => json!({
                "report": self.id, "ok": report.ok, "of": report.subject(), "finished_at": report.finished_at,
                "host": report.host, "duration_ms": report.duration_ms,
            }),
            None => json!({ "report": self.id, "ok": null, "of": null, "finished_at": null }),
        }
    }
}
