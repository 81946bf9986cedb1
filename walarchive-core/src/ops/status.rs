//! What can be restored, from what is stored.

use serde::Serialize;

use crate::archive::{Archive, Catalog, Census, Histories, compare};
use crate::error::{Error, Kind, Result};
use crate::wal::{TimelineHistory, TimelineId};

/// Stored bytes of a cluster.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct StoredBytes {
    /// All of it.
    pub bytes: u64,
    /// WAL.
    pub wal_bytes: u64,
    /// Packs, whoever needs them.
    pub packs_bytes: u64,
    /// Manifests, and the pins and leases beside them.
    pub manifests_bytes: u64,
    /// Those of the packs that no backup needs; unknown without an identity, and where a manifest is damaged.
    pub unneeded_bytes: Option<u64>,
}

/// Sums up what is stored besides this much WAL. Two listings.
pub async fn stored(catalog: &Catalog, wal_bytes: u64, census: Option<&Census>) -> Result<StoredBytes> {
    let packs = catalog.all_packs().await?;
    let packs_bytes = packs.values().sum();
    let manifests_bytes = catalog.marks().await?.stored_bytes;
    Ok(StoredBytes {
        bytes: wal_bytes + packs_bytes + manifests_bytes,
        wal_bytes,
        packs_bytes,
        manifests_bytes,
        unneeded_bytes: census.and_then(|census| census.unneeded(&packs)),
    })
}

/// The histories of all timelines that are stored, and what is wrong with the others. Without an identity there are
/// none but timeline 1's.
pub async fn histories(catalog: &Catalog) -> Result<(Histories, Vec<String>)> {
    let wal = catalog.wal().await?;
    let mut histories = Histories::from([(TimelineId::FIRST, TimelineHistory::initial())]);
    let mut problems = Vec::new();
    for timeline in &wal.histories {
        match catalog.history(*timeline).await {
            Ok(history) => drop(histories.insert(*timeline, history)),
            Err(error) if error.kind() == Kind::Damaged => problems.push(error.story()),
            Err(error) if error.kind() == Kind::Key => break,
            Err(error) => return Err(error),
        }
    }
    Ok((histories, problems))
}

/// One of the archive's stores.
#[derive(Debug)]
pub struct StoreState {
    /// Its name; empty where there is only one.
    pub name: String,
    /// Why it cannot be used, if so.
    pub error: Option<Error>,
    /// Objects that others have and this one lacks.
    pub missing: u64,
    /// Their stored bytes.
    pub missing_bytes: u64,
    /// Objects that have another length here than elsewhere.
    pub differ: Vec<String>,
}

/// The state of each of the archive's stores. One that cannot be reached is said to lack nothing.
pub async fn stores(archive: &Archive) -> Vec<StoreState> {
    if !archive.is_mirrored() {
        let state =
            StoreState { name: String::new(), error: None, missing: 0, missing_bytes: 0, differ: Vec::new() };
        return vec![state];
    }
    let states = compare(archive).await.into_iter().map(|state| {
        let (missing, error) = match state.missing {
            Ok(missing) => (missing, None),
            Err(error) => (Vec::new(), Some(error)),
        };
        StoreState {
            name: state.name,
            error,
            missing: missing.len() as u64,
            missing_bytes: missing.iter().map(|object| object.size).sum(),
            differ: state.differ,
        }
    });
    states.collect()
}
