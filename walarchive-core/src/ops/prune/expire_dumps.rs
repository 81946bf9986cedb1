//! Retention of dumps, planned.

use std::collections::BTreeSet;

use super::delete::{self, DeletePlan};
use crate::archive::{BackupId, Catalog, Dump, DumpContent};
use crate::error::{Error, Result};
use crate::retention::dumps::{DumpRetention, DumpRules, by_content, decide};

/// What the rules remove of dumps.
#[derive(Debug, Default)]
pub struct DumpExpiry {
    /// What stays and what goes, of each database and of the globals; dumps that leave something out apart from whole ones.
    pub retention: Vec<(DumpContent, String, DumpRetention)>,
    /// Their deletion; `None` if none goes.
    pub deletion: Option<DeletePlan>,
}

impl DumpExpiry {
    /// The dumps that go.
    pub fn expire(&self) -> impl Iterator<Item = &BackupId> {
        self.retention.iter().flat_map(|(_, _, retention)| &retention.expire)
    }
}

/// Plans what the rules remove of the dumps that `of` names: of all, or of what was dumped anew. Nothing goes while a
/// manifest cannot be read: whose it is, and which packs it needs, is not known. Needs an identity in an encrypted archive.
pub async fn plan(catalog: &Catalog, rules: &DumpRules, of: impl Fn(&Dump) -> bool) -> Result<DumpExpiry> {
    rules.check()?;
    let (dumps, damaged) = catalog.dumps().await?;
    if let Some((id, error)) = damaged.into_iter().next() {
        return Err(error
            .during(format!("dump {id} cannot be read"))
            .hint(format!("'walarchive dump delete {id}' gives it up")));
    }
    let mut expiry = DumpExpiry::default();
    for ((content, database, _), of_one) in by_content(&dumps) {
        if of_one.iter().any(|dump| of(dump)) {
            expiry.retention.push((content, database.to_owned(), decide(&of_one, rules)));
        }
    }
    let expire: BTreeSet<BackupId> = expiry.expire().cloned().collect();
    if !expire.is_empty() {
        expiry.deletion = Some(delete::plan(catalog, &expire).await?);
    }
    Ok(expiry)
}

/// Refuses to give up the only dump of a database.
pub async fn refuse_the_last(catalog: &Catalog, id: &BackupId) -> Result<()> {
    let (dumps, _) = catalog.dumps().await?;
    let Some(dump) = dumps.iter().find(|dump| dump.id == *id) else { return Ok(()) };
    let same = |other: &&Dump| {
        other.facts.content == dump.facts.content
            && other.facts.database == dump.facts.database
            && (!other.facts.is_partial() || dump.facts.is_partial())
            && other.id != *id
    };
    if dumps.iter().any(|other| same(&other)) {
        return Ok(());
    }
    let message = format!("dump {id} is the only one of {:?}; nothing was deleted", dump.facts.database);
    Err(Error::new(crate::error::Kind::Busy, message)
        .hint("make another one first; --even-the-last gives this one up all the same"))
}
