//! A store that is opened, or proven to be the right one, when it is first used.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, TryStreamExt};
use tokio::sync::OnceCell;

use super::{Created, Entry, Part, Parts, Storage, Unfinished, Upload};
use crate::error::Result;

/// Opens a store; called again until it succeeds once.
pub(super) type Opener = Arc<dyn Fn() -> BoxFuture<'static, Result<Arc<dyn Storage>>> + Send + Sync>;

/// Each call fails as the opening does, until the opening has succeeded.
#[derive(Clone)]
pub(super) struct Lazy {
    opener: Opener,
    opened: Arc<OnceCell<Arc<dyn Storage>>>,
    parts: Parts,
}

impl Lazy {
    /// `parts` are known before the store is.
    pub(super) fn new(opener: Opener, parts: Parts) -> Lazy {
        Lazy { opener, opened: Arc::default(), parts }
    }

    async fn store(&self) -> Result<&Arc<dyn Storage>> {
        self.opened.get_or_try_init(|| (self.opener)()).await
    }
}

impl fmt::Debug for Lazy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lazy({:?})", self.opened.get())
    }
}

#[async_trait]
impl Storage for Lazy {
    async fn create(&self, key: &str, payload: Vec<Bytes>) -> Result<Created> {
        self.store().await?.create(key, payload).await
    }

    async fn upload(&self, key: &str) -> Result<Box<dyn Upload>> {
        self.store().await?.upload(key).await
    }

    async fn replace(&self, key: &str) -> Result<Box<dyn Upload>> {
        self.store().await?.replace(key).await
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Part> {
        self.store().await?.get(key, range).await
    }

    async fn size(&self, key: &str) -> Result<u64> {
        self.store().await?.size(key).await
    }

    fn list(&self, prefix: &str) -> BoxStream<'static, Result<Entry>> {
        let (lazy, prefix) = (self.clone(), prefix.to_owned());
        let listing = async move { Ok(lazy.store().await?.list(&prefix)) };
        Box::pin(stream::once(listing).try_flatten())
    }

    async fn list_dirs(&self, prefix: &str) -> Result<Vec<String>> {
        self.store().await?.list_dirs(prefix).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.store().await?.delete(key).await
    }

    fn parts(&self) -> Parts {
        self.parts.clone()
    }

    fn unfinished(&self) -> BoxStream<'static, Result<Unfinished>> {
        let lazy = self.clone();
        let listing = async move { Ok(lazy.store().await?.unfinished()) };
        Box::pin(stream::once(listing).try_flatten())
    }

    async fn discard(&self, unfinished: &Unfinished) -> Result<()> {
        self.store().await?.discard(unfinished).await
    }
}
