//! What the stores of one archive hold of it, held against each other by their listings.

use std::collections::{BTreeMap, BTreeSet};

use futures::TryStreamExt;
use futures::future::join_all;

use super::{Archive, BackupId, ObjectKind, key};
use crate::error::{Error, Result};

/// An object that one copy lacks and another has. Sorted in the order in which they are to be copied: what a
/// manifest needs comes before it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Missing {
    rank: u8,
    /// Its key.
    pub key: String,
    /// Its stored bytes, where it is.
    pub size: u64,
}

impl Missing {
    /// An object that is to be copied.
    pub fn new(key: &str, size: u64) -> Missing {
        let rank = match key::kind_of(key) {
            Some((ObjectKind::Manifest, _)) => 1,
            Some((ObjectKind::Pin, _)) => 2,
            _ => 0,
        };
        Missing { rank, key: key.to_owned(), size }
    }

    /// Whether it may be copied only when all others are there that come before it.
    pub fn waits(&self) -> bool {
        self.rank > 0
    }
}

/// One copy of the archive.
#[derive(Debug)]
pub struct CopyState {
    /// The store's name; empty where there is only one.
    pub name: String,
    /// The archive in that store.
    pub archive: Archive,
    /// What it lacks, in the order of copying; or why that cannot be told.
    pub missing: Result<Vec<Missing>>,
    /// Objects that have another length here than in the first copy that has them.
    pub differ: Vec<String>,
}

type Listing = BTreeMap<String, u64>;

/// Compares the copies. A listing for each. Leases are passed over, and packs that no manifest can
/// name, as it would be older than they are: those are under way, or garbage.
pub async fn compare(archive: &Archive) -> Vec<CopyState> {
    let copies = archive.copies();
    let listings = copies.iter().map(|(_, copy)| async move {
        let entries = copy.storage.list("").try_collect::<Vec<_>>().await?;
        // A store that lists nothing may be an empty mirror, or not the archive at all.
        super::ArchiveInfo::read(copy.storage.as_ref()).await?;
        Ok(entries.into_iter().map(|entry| (entry.key, entry.size)).collect::<Listing>())
    });
    let listings: Vec<Result<Listing>> = join_all(listings.collect::<Vec<_>>()).await;
    let union = union(listings.iter().flatten());
    let state = |((name, archive), listing): ((String, Archive), Result<Listing, Error>)| {
        let mut differ = Vec::new();
        let missing = listing.map(|own| {
            let mut missing = Vec::new();
            for (key, size) in &union {
                match own.get(key) {
                    None => missing.push(Missing::new(key, *size)),
                    Some(found) if found != size => differ.push(key.clone()),
                    Some(_) => {}
                }
            }
            missing.sort();
            missing
        });
        CopyState { name, archive, missing, differ }
    };
    copies.into_iter().zip(listings).map(state).collect()
}

/// All objects that every copy should have, with their sizes in the first copy that has them.
fn union<'a>(listings: impl Iterator<Item = &'a Listing>) -> Listing {
    let mut union = Listing::new();
    for (key, size) in listings.flatten() {
        union.entry(key.clone()).or_insert(*size);
    }
    let of_manifest = |key: &String| match key::kind_of(key) {
        Some((ObjectKind::Manifest, id)) => id,
        _ => None,
    };
    let whole: BTreeSet<BackupId> = union.keys().filter_map(of_manifest).collect();
    union.retain(|key, _| match key::kind_of(key) {
        Some((ObjectKind::Lease, _)) | None => false,
        Some((ObjectKind::Pin, Some(id))) => whole.contains(&id),
        // What is newer may point to packs of what was deleted.
        Some((ObjectKind::Pack, Some(id))) => whole.contains(&id) || whole.last() > Some(&id),
        Some(_) => true,
    });
    union
}
