//! Replacing objects that do not hold by what another copy of the archive has.

use std::sync::Arc;

use super::Problem;
use crate::archive::{Archive, PackRecord};
use crate::error::{Kind, Result};
use crate::storage::Storage;

/// What came of [`put_back_descriptions`].
#[derive(Debug, Default)]
pub struct PutBack {
    /// The descriptions that were missing or damaged.
    pub repaired: Vec<Problem>,
    /// Why others were not put back.
    pub notes: Vec<String>,
}

/// Puts back what describes the archive where that was lost: without it, the archive cannot be opened. Of several stores each is looked
/// at by itself.
///
/// # Errors
///
/// When the one store that there is cannot be helped.
pub async fn put_back_descriptions(storage: &Arc<dyn Storage>, other: &Archive) -> Result<PutBack> {
    let mut done = PutBack::default();
    let stores = match storage.mirrors() {
        Some(mirrors) => mirrors.stores(),
        None => vec![(String::new(), storage.clone())],
    };
    for (name, store) in stores {
        match other.put_back(store).await {
            Ok(None) => {}
            Ok(Some(wrong)) => done.repaired.push(Problem::of_description(&wrong, &name)),
            Err(error) if name.is_empty() => return Err(error),
            Err(error) => done.notes.push(format!("{name} was not repaired: {}", error.story())),
        }
    }
    Ok(done)
}

/// Replaces an object. The other copy is proven before anything is removed here, and what was put in its place afterwards.
pub(super) async fn repair(
    archive: &Archive,
    other: &Archive,
    problem: &Problem,
    record: Option<&PackRecord>,
) -> Result<()> {
    let key = &problem.object;
    other.prove(key, record).await.map_err(|error| error.during("looking at the other copy"))?;
    match archive.storage().size(key).await {
        Ok(_) => archive.storage().delete(key).await?,
        Err(error) if error.kind() == Kind::Absent => {}
        Err(error) => return Err(error),
    }
    archive.bring(other, key, record).await?;
    archive.prove(key, record).await.map(drop)
}
