//! Where objects live: a small contract over any object store.

#[cfg(feature = "cloud")]
mod cloud;
mod gathered;
#[cfg(feature = "cloud")]
mod http;
#[cfg(not(feature = "cloud"))]
#[path = "no_http.rs"]
mod http;
mod key;
mod lazy;
mod limited;
mod local;
mod memory;
mod mirrors;
mod object;
mod open;
mod options;
mod readable;
mod root;
#[cfg(feature = "sftp")]
mod sftp;
mod steady;
mod url;
mod walk;

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use jiff::Timestamp;
use tokio::sync::Semaphore;

#[cfg(feature = "cloud")]
pub use cloud::CloudStorage;
pub use gathered::Gathered;
pub use local::LocalStorage;
pub use memory::MemoryStorage;
pub use mirrors::{Check, Mirrors, Policy, Witness};
pub use open::{Mirrored, create, create_mode, open, open_mirrors, shown};
pub use options::{CreateMode, StoreOptions, bytes};
#[cfg(feature = "sftp")]
pub use sftp::{SftpOptions, SftpStorage};
pub(crate) use steady::is_stored;

use crate::error::{Error, Result};

/// What a [`Storage::create`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// The object was not there; it is now, whole and durable.
    New,
    /// An object was there already and is untouched; it is durable.
    Exists,
}

/// One entry of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The whole key, relative to the archive's root.
    pub key: String,
    /// Stored bytes.
    pub size: u64,
}

/// Bytes of an object, and how long the whole object is.
#[derive(Debug, Clone)]
pub struct Part {
    /// The bytes that were asked for; fewer when the object ends earlier.
    pub bytes: Bytes,
    /// Stored bytes of the whole object.
    pub object_size: u64,
}

/// A flat store of immutable objects, named by keys: `/`-separated, relative, of characters
/// `A–Z a–z 0–9 . _ -`, no empty, `.` or `..` segment.
///
/// # Contract
///
/// * **Atomic:** an object is visible whole or not at all, whenever the writer dies.
/// * **Durable:** when `create` or `Upload::finish` returns success, the object survives the loss of power.
/// * **Never replaced:** `create` never changes an object that exists, even under concurrent creates of the
///   same key, of which exactly one returns [`Created::New`].
/// * **Absent or unreachable:** reading an object that is not there is [`Kind::Absent`](crate::error::Kind);
///   when the store cannot tell (unmounted directory, network), it is `Unreachable`, `Denied` or `Local`.
///   A missing *store* (root directory, bucket) may look like an absent object: callers prove the archive's
///   identity before they believe in absence.
/// * **Listings** are complete as of some moment during the call, and unordered.
#[async_trait]
pub trait Storage: Send + Sync + Debug {
    /// Stores `payload` (its parts in order) under `key`, if there is no such object.
    async fn create(&self, key: &str, payload: Vec<Bytes>) -> Result<Created>;

    /// Starts a large object, given part by part. `key` must be fresh (contain a new id): the last of two
    /// uploads of one key would win. Stores that only take whole objects give [`Gathered`].
    async fn upload(&self, key: &str) -> Result<Box<dyn Upload>>;

    /// Starts what is to take an object's place, given part by part: until `Upload::finish` returns success there is the old
    /// object, or already the new one. Only heads are ever changed, for other readers of the same payload. `Usage` where the store
    /// cannot do that in one step.
    async fn replace(&self, key: &str) -> Result<Box<dyn Upload>> {
        Err(Error::usage("this store cannot put an object in another one's place in one step").on(key))
    }

    /// Reads the bytes of `range`, clipped to the object's end; empty when the object ends before it.
    /// `None` reads the whole object.
    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Part>;

    /// The stored size of an object.
    async fn size(&self, key: &str) -> Result<u64> {
        Ok(self.get(key, Some(0..0)).await?.object_size)
    }

    /// All objects whose key starts with `prefix` followed by `/` (all, when `prefix` is empty), unordered.
    fn list(&self, prefix: &str) -> BoxStream<'static, Result<Entry>>;

    /// The names directly below `prefix` that have something below them, unordered. Stores that keep directories of
    /// their own may still name one from which the last object was removed.
    async fn list_dirs(&self, prefix: &str) -> Result<Vec<String>> {
        let below = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        let mut names = BTreeSet::new();
        let mut entries = self.list(prefix);
        while let Some(entry) = entries.try_next().await? {
            let name =
                entry.key.strip_prefix(&below).and_then(|rest| Some(rest.split_once('/')?.0.to_owned()));
            names.extend(name);
        }
        Ok(names.into_iter().collect())
    }

    /// Removes an object; removing one that is not there is success.
    async fn delete(&self, key: &str) -> Result<()>;

    /// Removes the directories at and below `prefix` that hold nothing, where a store has directories. No object may be
    /// created there at the same time.
    async fn tidy(&self, prefix: &str) -> Result<()> {
        let _ = prefix;
        Ok(())
    }

    /// How large objects are cut into parts here, and how much of them may be in memory.
    fn parts(&self) -> Parts {
        Parts::default()
    }

    /// Uploads that were begun and not ended, of dead writers and of living ones, unordered. None where the
    /// store cannot keep such a thing, or removes it by itself.
    fn unfinished(&self) -> BoxStream<'static, Result<Unfinished>> {
        stream::empty().boxed()
    }

    /// Removes what an upload left; one that is not there any more is success.
    async fn discard(&self, unfinished: &Unfinished) -> Result<()> {
        Err(Error::bug(format!("this store knows no unfinished uploads, as of {}", unfinished.key)))
    }

    /// The stores behind this one, where it is several.
    fn mirrors(&self) -> Option<&Mirrors> {
        None
    }
}

/// A large object under way. Dropped without [`finish`](Upload::finish), it leaves no visible object.
#[async_trait]
pub trait Upload: Send + Sync {
    /// Stores part `number`, counted from 0, given as pieces in order. All parts but the last have the length that
    /// [`Storage::parts`] says. Parts may be stored at once and in any order, and one that failed may be given again.
    async fn part(&self, number: usize, pieces: Vec<Bytes>) -> Result<()>;

    /// Makes the object of all parts visible and durable. May be called again when it failed.
    async fn finish(&self) -> Result<()>;

    /// Gives up and removes what was sent.
    async fn abort(&self) -> Result<()>;
}

/// How large objects are cut.
#[derive(Debug, Clone)]
pub struct Parts {
    /// Bytes of each part but the last.
    pub size: usize,
    /// How many parts an object may have.
    pub most: usize,
    /// A permit is held for each part that is on its way, whatever upload it belongs to. So memory is bounded by the
    /// permits, and the part that each writer is making.
    pub budget: Arc<Semaphore>,
}

impl Parts {
    /// Parts of `size` bytes, at most `most` for an object. Of what fits into `memory` bytes, three are left for
    /// the writers of two packs and a manifest, the others may be on their way; one always may.
    pub fn new(size: usize, most: usize, memory: usize) -> Parts {
        let on_their_way = (memory / size.max(1)).saturating_sub(3).max(1);
        Parts { size, most, budget: Arc::new(Semaphore::new(on_their_way)) }
    }
}

impl Default for Parts {
    /// 8 MiB, 10,000 parts, 64 MiB of memory.
    fn default() -> Self {
        Parts::new(8 << 20, 10_000, 64 << 20)
    }
}

/// An upload that was begun and not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfinished {
    /// The key that the object was to have.
    pub key: String,
    /// The store's own name of the upload.
    pub id: String,
    /// When it began, or was written to last, by the store's clock.
    pub since: Timestamp,
}
