//! What the rules of retention keep of a source: more of it would only be removed from the copy again.

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::archive::{BackupId, Catalog};
use crate::error::Result;
use crate::retention::dumps::{DumpRules, by_content, decide as decide_dumps};
use crate::retention::{Rules, WalNeed, decide};

/// The rules of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeptRules {
    /// Of backups and WAL.
    pub backups: Rules,
    /// Of dumps.
    pub dumps: DumpRules,
}

/// What they keep of one place.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) ids: BTreeSet<BackupId>,
    pub(super) wal: WalNeed,
}

impl Kept {
    pub(super) async fn of(catalog: &Catalog, rules: &KeptRules) -> Result<Kept> {
        if catalog.place.system().is_some() {
            let decided = decide(&catalog.inventory().await?, &rules.backups, Timestamp::now())?;
            return Ok(Kept { ids: decided.keep.into_keys().collect(), wal: decided.wal });
        }
        let (dumps, _) = catalog.dumps().await?;
        let of_each = by_content(&dumps).into_values();
        let ids = of_each.flat_map(|of_one| decide_dumps(&of_one, &rules.dumps).keep.into_keys()).collect();
        Ok(Kept { ids, wal: WalNeed::default() })
    }
}
