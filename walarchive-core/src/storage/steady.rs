//! A store whose calls are tried again while it may come back.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};

use super::{Created, Entry, Part, Parts, Storage, Unfinished, Upload};
use crate::error::{Kind, Result};
use crate::patience::Patience;

/// How much is read at a time to compare what is stored with what was sent.
const STEP: u64 = 8 << 20;

/// Any store, with patience. A listing is held in memory until it is complete, so that it can begin anew.
#[derive(Debug, Clone)]
pub(super) struct Steady {
    store: Arc<dyn Storage>,
    patience: Patience,
}

impl Steady {
    pub(super) fn new(store: Arc<dyn Storage>, patience: Patience) -> Steady {
        Steady { store, patience }
    }
}

#[async_trait]
impl Storage for Steady {
    /// A create that failed may have stored its object all the same: when the next one finds an object, their bytes tell
    /// whether it is this one.
    async fn create(&self, key: &str, payload: Vec<Bytes>) -> Result<Created> {
        let doubt = AtomicBool::new(false);
        let attempt = || async {
            match self.store.create(key, payload.clone()).await {
                Ok(Created::Exists) if doubt.load(Ordering::Relaxed) => {
                    match is_stored(self.store.as_ref(), key, &payload).await {
                        Ok(true) => Ok(Created::New),
                        // Without the right to read, who wrote it stays open.
                        Ok(false) => Ok(Created::Exists),
                        Err(error) if error.kind() == Kind::Denied => Ok(Created::Exists),
                        Err(error) => Err(error),
                    }
                }
                Err(error) if error.kind().is_transient() => {
                    doubt.store(true, Ordering::Relaxed);
                    Err(error)
                }
                done => done,
            }
        };
        self.patience.run(attempt).await
    }

    async fn upload(&self, key: &str) -> Result<Box<dyn Upload>> {
        let upload = self.patience.run(|| self.store.upload(key)).await?;
        Ok(Box::new(SteadyUpload { upload, patience: self.patience.clone() }))
    }

    async fn replace(&self, key: &str) -> Result<Box<dyn Upload>> {
        let upload = self.patience.run(|| self.store.replace(key)).await?;
        Ok(Box::new(SteadyUpload { upload, patience: self.patience.clone() }))
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Part> {
        self.patience.run(|| self.store.get(key, range.clone())).await
    }

    async fn size(&self, key: &str) -> Result<u64> {
        self.patience.run(|| self.store.size(key)).await
    }

    fn list(&self, prefix: &str) -> BoxStream<'static, Result<Entry>> {
        let (steady, prefix) = (self.clone(), prefix.to_owned());
        let listed = async move {
            let entries = steady.patience.run(|| steady.store.list(&prefix).try_collect::<Vec<_>>()).await?;
            Ok(stream::iter(entries.into_iter().map(Ok)))
        };
        stream::once(listed).try_flatten().boxed()
    }

    async fn list_dirs(&self, prefix: &str) -> Result<Vec<String>> {
        self.patience.run(|| self.store.list_dirs(prefix)).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.patience.run(|| self.store.delete(key)).await
    }

    async fn tidy(&self, prefix: &str) -> Result<()> {
        self.patience.run(|| self.store.tidy(prefix)).await
    }

    fn parts(&self) -> Parts {
        self.store.parts()
    }

    fn unfinished(&self) -> BoxStream<'static, Result<Unfinished>> {
        let steady = self.clone();
        let listed = async move {
            let found = steady.patience.run(|| steady.store.unfinished().try_collect::<Vec<_>>()).await?;
            Ok(stream::iter(found.into_iter().map(Ok)))
        };
        stream::once(listed).try_flatten().boxed()
    }

    async fn discard(&self, unfinished: &Unfinished) -> Result<()> {
        self.patience.run(|| self.store.discard(unfinished)).await
    }
}

/// Whether the object has exactly these bytes.
pub(crate) async fn is_stored(store: &dyn Storage, key: &str, payload: &[Bytes]) -> Result<bool> {
    let len: u64 = payload.iter().map(|piece| piece.len() as u64).sum();
    let mut pieces = payload.iter();
    let mut wanted: &[u8] = &[];
    let mut at = 0;
    loop {
        let part = store.get(key, Some(at..at + STEP)).await?;
        if part.object_size != len || (part.bytes.is_empty() && at < len) {
            return Ok(false);
        }
        at += part.bytes.len() as u64;
        let mut found: &[u8] = &part.bytes;
        while !found.is_empty() {
            if wanted.is_empty() {
                let Some(piece) = pieces.next() else { return Ok(false) };
                wanted = piece;
                continue;
            }
            let common = wanted.len().min(found.len());
            if wanted.get(..common) != found.get(..common) {
                return Ok(false);
            }
            (wanted, found) =
                (wanted.get(common..).unwrap_or_default(), found.get(common..).unwrap_or_default());
        }
        if at >= len {
            return Ok(true);
        }
    }
}

/// An upload whose parts and end are tried again.
struct SteadyUpload {
    upload: Box<dyn Upload>,
    patience: Patience,
}

#[async_trait]
impl Upload for SteadyUpload {
    async fn part(&self, number: usize, pieces: Vec<Bytes>) -> Result<()> {
        self.patience.run(|| self.upload.part(number, pieces.clone())).await
    }

    async fn finish(&self) -> Result<()> {
        self.patience.run(|| self.upload.finish()).await
    }

    async fn abort(&self) -> Result<()> {
        self.patience.run(|| self.upload.abort()).await
    }
}
