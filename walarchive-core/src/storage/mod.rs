//! Where objects live: a small contract over any object store.

mod key;
mod local;
mod memory;
mod object;
mod root;
mod url;
mod walk;

use std::fmt::Debug;
use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

pub use local::LocalStorage;
pub use memory::MemoryStorage;
pub use url::{create_url, open_url};

use crate::error::Result;

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

    /// Starts a large object, given piece by piece. `key` must be fresh (contain a new id): the last of two
    /// uploads of one key would win.
    async fn upload(&self, key: &str) -> Result<Box<dyn Upload>>;

    /// Reads the bytes of `range`, clipped to the object's end; empty when the object ends before it.
    /// `None` reads the whole object.
    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Part>;

    /// The stored size of an object.
    async fn size(&self, key: &str) -> Result<u64>;

    /// All objects whose key starts with `prefix` followed by `/` (all, when `prefix` is empty), unordered.
    fn list(&self, prefix: &str) -> BoxStream<'static, Result<Entry>>;

    /// The names directly below `prefix` that have something below them, unordered.
    async fn list_dirs(&self, prefix: &str) -> Result<Vec<String>>;

    /// Removes an object; removing one that is not there is success.
    async fn delete(&self, key: &str) -> Result<()>;
}

/// A large object under way. Dropped without [`finish`](Upload::finish), it leaves no visible object.
#[async_trait]
pub trait Upload: Send {
    /// Appends a piece, given as parts in order. All pieces but the last have the same length, at least 5 MiB on cloud stores.
    async fn write(&mut self, piece: Vec<Bytes>) -> Result<()>;

    /// Makes the object visible and durable.
    async fn finish(self: Box<Self>) -> Result<()>;

    /// Gives up and removes what was sent.
    async fn abort(self: Box<Self>) -> Result<()>;
}
