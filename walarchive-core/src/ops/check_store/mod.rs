//! Proves on a live store that it keeps the promises which an archive is built on.

mod probes;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::TryStreamExt;

use crate::error::{Error, Kind, Result};
use crate::storage::Storage;

/// How a guarantee fared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// It holds.
    Holds,
    /// Archiving is safe without it; something else is not possible.
    Lacking,
    /// It does not hold, and archives in this store are in danger.
    Broken,
}

/// One promise, and what was found of it.
#[derive(Debug, Clone)]
pub struct Guarantee {
    /// Its short name.
    pub name: &'static str,
    /// How it fared.
    pub verdict: Verdict,
    /// What was seen, in plain words, and what it means if it does not hold.
    pub detail: String,
    /// How long the proof took.
    pub took: Duration,
}

/// What was found of a store.
#[derive(Debug)]
pub struct StoreReport {
    /// All that was proven, or not.
    pub guarantees: Vec<Guarantee>,
    /// Objects and uploads that could not be removed afterwards, by key.
    pub left: Vec<String>,
    /// Why the check could not go on: the store cannot be reached.
    pub unreachable: Option<Error>,
}

impl StoreReport {
    /// The worst of all verdicts.
    pub fn verdict(&self) -> Verdict {
        let worst = self.guarantees.iter().map(|guarantee| guarantee.verdict).max();
        let left = if self.left.is_empty() { Verdict::Holds } else { Verdict::Lacking };
        worst.unwrap_or(Verdict::Holds).max(left)
    }
}

/// What a proof found: how it fared, and in which words.
type Finding = (Verdict, String);

/// Where and how the store is tried.
pub(super) struct Bench {
    store: Arc<dyn Storage>,
    prefix: String,
    /// Objects that listings are proven with.
    objects: usize,
    made: Mutex<BTreeSet<String>>,
    /// Whether the store removes what it is told to.
    stays: Mutex<bool>,
}

/// A number for a fresh prefix.
pub fn random() -> Result<u64> {
    getrandom::u64()
        .map_err(|error| Error::new(Kind::Local, "the system gives no random numbers").because(error))
}

/// Tries all guarantees of `store`, below a fresh prefix named by `random`, and removes what it made, also when a
/// guarantee does not hold. Listings are proven with `objects` objects. Nothing else in the store is touched.
pub async fn check(store: Arc<dyn Storage>, random: u64, objects: usize) -> StoreReport {
    let prefix = format!("check-{random:016x}");
    let (made, stays) = (Mutex::default(), Mutex::default());
    let bench = Bench { store, prefix, objects: objects.max(3), made, stays };
    let mut report = StoreReport { guarantees: Vec::new(), left: Vec::new(), unreachable: None };
    if let Err(error) = bench.prove_all(&mut report.guarantees).await {
        report.unreachable = Some(error);
    }
    report.left = bench.clean_up().await;
    report
}

impl Bench {
    /// Tries all; an error when the store is out of reach.
    async fn prove_all(&self, found: &mut Vec<Guarantee>) -> Result<()> {
        macro_rules! prove {
            ($($name:literal: $probe:ident;)*) => {
                $(found.push(self.prove($name, self.$probe()).await?);)*
            };
        }
        prove! {
            "create": create_makes;
            "create-only": create_never_replaces;
            "one-winner": one_of_many_wins;
            "absent": absence_is_told;
            "ranges": ranges_are_exact;
            "list": listings_are_exact;
            "list-dirs": directories_are_listed;
            "upload": uploads_show_when_finished;
            "abort": aborted_uploads_never_show;
            "leftovers": leftovers_are_found;
            "delete": deletion_removes;
        }
        Ok(())
    }

    async fn prove(
        &self,
        name: &'static str,
        proof: impl Future<Output = Result<Finding>>,
    ) -> Result<Guarantee> {
        let begun = Instant::now();
        let (verdict, detail) = match proof.await {
            Ok(finding) => finding,
            Err(error) if error.kind().is_transient() => return Err(error),
            Err(error) => (Verdict::Broken, error.story()),
        };
        Ok(Guarantee { name, verdict, detail, took: begun.elapsed() })
    }

    /// A key below the prefix, remembered for the end.
    fn key(&self, name: &str) -> String {
        let key = format!("{}/{name}", self.prefix);
        self.made.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone());
        key
    }

    /// Removes all that was made; what is still there afterwards is returned.
    async fn clean_up(&self) -> Vec<String> {
        let mut keys = self.made.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // Perhaps there is more than is known; perhaps the listing cannot be believed.
        let listed = |store: Arc<dyn Storage>| async move {
            let found: Result<Vec<_>> =
                store.list(&self.prefix).map_ok(|entry| entry.key).try_collect().await;
            found.unwrap_or_default()
        };
        keys.extend(listed(self.store.clone()).await.into_iter().filter(|key| key.starts_with(&self.prefix)));
        let mut left = BTreeSet::new();
        let mut keys = keys.into_iter();
        while let Some(key) = keys.next() {
            match self.is_gone(&key).await {
                Ok(true) => {}
                Ok(false) => _ = left.insert(key),
                Err(_) => {
                    // Out of reach, after all the patience there is: not for each object again.
                    left.insert(key);
                    left.extend(keys);
                    return left.into_iter().collect();
                }
            }
        }
        for upload in self.own_uploads().await.unwrap_or_default() {
            if self.store.discard(&upload).await.is_err() {
                left.insert(format!("{} (an unfinished upload)", upload.key));
            }
        }
        // An empty directory that stays does no harm.
        let _ = self.store.tidy(&self.prefix).await;
        left.into_iter().collect()
    }

    /// Removes an object; whether it is gone. An error when the store is out of reach.
    async fn is_gone(&self, key: &str) -> Result<bool> {
        match self.store.delete(key).await {
            Err(error) if error.kind().is_transient() => return Err(error),
            Ok(()) if !*self.stays.lock().unwrap_or_else(PoisonError::into_inner) => return Ok(true),
            _ => {}
        }
        match self.store.size(key).await {
            Err(error) if error.kind().is_transient() => Err(error),
            found => Ok(found.is_err_and(|error| error.kind() == Kind::Absent)),
        }
    }
}
