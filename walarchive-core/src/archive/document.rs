//! What programs and embedders are told of what is stored, as JSON.

use serde_json::{Value, json};

use super::{Backup, Share};

impl Backup {
    /// What `backup list` tells of a backup; its share of what is stored is null where that is unknown.
    pub fn document(&self, share: Option<Share>) -> Value {
        let facts = &self.facts;
        json!({
            "id": facts.id, "kind": facts.kind, "base": facts.base, "cluster": facts.cluster, "system_id": facts.system_id,
            "pg_major": facts.pg_major, "server_version": facts.server_version, "from_standby": facts.from_standby, "timeline": facts.timeline,
            "started_at": facts.started_at, "finished_at": facts.finished_at,
            "start_lsn": facts.start_lsn, "stop_lsn": facts.stop_lsn,
            "data_bytes": facts.data_bytes, "stored_bytes": facts.stored_bytes, "files": facts.files,
            "unique_bytes": share.map(|share| share.unique), "shared_bytes": share.map(|share| share.shared),
            "damaged_pages": facts.damaged_pages, "tablespaces": facts.tablespaces, "databases": facts.databases,
            "pinned": self.pinned, "labels": facts.labels,
        })
    }
}
