//! A store that is asked only so much at a time.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::{Created, Entry, Part, Parts, Storage, Unfinished, Upload};
use crate::error::{Error, Result};

/// Any store, with a limit to the calls at a time, and to the bytes a second in each direction. Bytes are counted by
/// whole calls: a part goes out at full speed, and the next one waits.
#[derive(Debug)]
pub(super) struct Limited {
    store: Arc<dyn Storage>,
    limits: Arc<Limits>,
}

#[derive(Debug)]
struct Limits {
    calls: Semaphore,
    up: Option<Pace>,
    down: Option<Pace>,
}

impl Limits {
    async fn enter(&self, bytes_up: u64) -> Result<SemaphorePermit<'_>> {
        let permit = self.calls.acquire().await;
        let permit = permit.map_err(|error| Error::bug("the limit of calls is closed").because(error))?;
        if let Some(pace) = &self.up {
            pace.take(bytes_up).await;
        }
        Ok(permit)
    }
}

impl Limited {
    pub(super) fn new(store: Arc<dyn Storage>, concurrency: usize, bandwidth: Option<u64>) -> Limited {
        let limits = Limits {
            calls: Semaphore::new(concurrency.max(1)),
            up: bandwidth.map(Pace::new),
            down: bandwidth.map(Pace::new),
        };
        Limited { store, limits: Arc::new(limits) }
    }
}

/// Lets so many bytes through a second.
#[derive(Debug)]
struct Pace {
    rate: u64,
    /// When what was let through until now is over.
    free: Mutex<Instant>,
}

impl Pace {
    fn new(rate: u64) -> Pace {
        Pace { rate: rate.max(1), free: Mutex::new(Instant::now()) }
    }

    /// Waits until `bytes` may begin.
    async fn take(&self, bytes: u64) {
        let wait = self.book(bytes, Instant::now());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }

    fn book(&self, bytes: u64, now: Instant) -> Duration {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = (*free).max(now);
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.rate);
        let takes = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        *free = begin.checked_add(takes).unwrap_or(begin);
        begin.saturating_duration_since(now)
    }
}

fn len(payload: &[Bytes]) -> u64 {
    payload.iter().map(|piece| piece.len() as u64).sum()
}

#[async_trait]
impl Storage for Limited {
    async fn create(&self, key: &str, payload: Vec<Bytes>) -> Result<Created> {
        let _permit = self.limits.enter(len(&payload)).await?;
        self.store.create(key, payload).await
    }

    async fn upload(&self, key: &str) -> Result<Box<dyn Upload>> {
        let _permit = self.limits.enter(0).await?;
        let upload = self.store.upload(key).await?;
        Ok(Box::new(LimitedUpload { upload, limits: self.limits.clone() }))
    }

    async fn replace(&self, key: &str) -> Result<Box<dyn Upload>> {
        let _permit = self.limits.enter(0).await?;
        let upload = self.store.replace(key).await?;
        Ok(Box::new(LimitedUpload { upload, limits: self.limits.clone() }))
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Part> {
        let _permit = self.limits.enter(0).await?;
        let part = self.store.get(key, range).await?;
        if let Some(pace) = &self.limits.down {
            pace.take(part.bytes.len() as u64).await;
        }
        Ok(part)
    }

    async fn size(&self, key: &str) -> Result<u64> {
        let _permit = self.limits.enter(0).await?;
        self.store.size(key).await
    }

    fn list(&self, prefix: &str) -> BoxStream<'static, Result<Entry>> {
        self.store.list(prefix)
    }

    async fn list_dirs(&self, prefix: &str) -> Result<Vec<String>> {
        let _permit = self.limits.enter(0).await?;
        self.store.list_dirs(prefix).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        let _permit = self.limits.enter(0).await?;
        self.store.delete(key).await
    }

    async fn tidy(&self, prefix: &str) -> Result<()> {
        let _permit = self.limits.enter(0).await?;
        self.store.tidy(prefix).await
    }

    fn parts(&self) -> Parts {
        self.store.parts()
    }

    fn unfinished(&self) -> BoxStream<'static, Result<Unfinished>> {
        self.store.unfinished()
    }

    async fn discard(&self, unfinished: &Unfinished) -> Result<()> {
        let _permit = self.limits.enter(0).await?;
        self.store.discard(unfinished).await
    }
}

struct LimitedUpload {
    upload: Box<dyn Upload>,
    limits: Arc<Limits>,
}

#[async_trait]
impl Upload for LimitedUpload {
    async fn part(&self, number: usize, pieces: Vec<Bytes>) -> Result<()> {
        let _permit = self.limits.enter(len(&pieces)).await?;
        self.upload.part(number, pieces).await
    }

    async fn finish(&self) -> Result<()> {
        let _permit = self.limits.enter(0).await?;
        self.upload.finish().await
    }

    async fn abort(&self) -> Result<()> {
        let _permit = self.limits.enter(0).await?;
        self.upload.abort().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_wait_for_those_before_them() {
        let pace = Pace::new(1000);
        let now = Instant::now();
        let second = Duration::from_secs(1);
        assert_eq!(pace.book(500, now), Duration::ZERO);
        assert_eq!(pace.book(1000, now), second / 2);
        assert_eq!(pace.book(1, now + second), second / 2);
        assert_eq!(pace.book(1, now + second * 10), Duration::ZERO, "what was not used is not saved up");
    }
}
