//! An archive in memory.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::memory::InMemory;

use super::object::Objects;
use super::{Created, Entry, Part, Storage, Upload};
use crate::error::Result;

/// An archive in memory, gone with its last owner; for tests.
#[derive(Debug)]
pub struct MemoryStorage(Objects);

impl MemoryStorage {
    /// An empty archive.
    pub fn new() -> Self {
        MemoryStorage(Objects::new(Arc::new(InMemory::new())))
    }
}

impl Default for MemoryStorage {
    fn default() -> Self {
        MemoryStorage::new()
    }
}

#[async_trait]
impl Storage for MemoryStorage {
    async fn create(&self, key: &str, payload: Vec<Bytes>) -> Result<Created> {
        self.0.create(key, payload).await
    }

    async fn upload(&self, key: &str) -> Result<Box<dyn Upload>> {
        self.0.upload(key).await
    }

    async fn replace(&self, key: &str) -> Result<Box<dyn Upload>> {
        self.0.replace(key).await
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Part> {
        self.0.get(key, range).await
    }

    async fn size(&self, key: &str) -> Result<u64> {
        self.0.size(key).await
    }

    fn list(&self, prefix: &str) -> BoxStream<'static, Result<Entry>> {
        self.0.list(prefix)
    }

    async fn list_dirs(&self, prefix: &str) -> Result<Vec<String>> {
        self.0.list_dirs(prefix).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.0.delete(key).await
    }
}
