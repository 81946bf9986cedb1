//! A store that remembers what was asked of it, and can be made to fail or to lie.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt, once};
use walarchive_core::error::{Error, Kind, Result};
use walarchive_core::storage::{Created, Entry, Part, Storage, Upload};

/// Makes what is given out from the key and the whole stored object.
pub type Lie = Box<dyn Fn(&str, Bytes) -> Bytes + Send + Sync>;

/// What is wrong with the store.
#[derive(Default)]
pub enum Trouble {
    /// Nothing.
    #[default]
    None,
    /// It cannot be reached.
    Unreachable,
    /// It does what it is told, but the answers to `create` are lost.
    AnswersLost,
    /// It gives out other bytes than were stored.
    Lies(Lie),
}

/// A store around another one.
pub struct Recorder {
    inner: Arc<dyn Storage>,
    calls: Mutex<Vec<String>>,
    trouble: Mutex<Trouble>,
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recorder({:?})", self.inner)
    }
}

impl Recorder {
    pub fn new(inner: Arc<dyn Storage>) -> Recorder {
        Recorder { inner, calls: Mutex::default(), trouble: Mutex::default() }
    }

    pub fn set(&self, trouble: Trouble) {
        *self.trouble.lock().unwrap() = trouble;
    }

    /// The calls since the last time, each as `operation key`.
    pub fn take_calls(&self) -> Vec<String> {
        std::mem::take(&mut *self.calls.lock().unwrap())
    }

    fn note(&self, operation: &str, key: &str) -> Result<()> {
        self.calls.lock().unwrap().push(format!("{operation} {key}"));
        match *self.trouble.lock().unwrap() {
            Trouble::Unreachable => Err(unreachable_store()),
            _ => Ok(()),
        }
    }

    fn answer_lost(&self) -> bool {
        matches!(*self.trouble.lock().unwrap(), Trouble::AnswersLost)
    }

    fn lied(&self, key: &str, whole: Bytes) -> Bytes {
        match &*self.trouble.lock().unwrap() {
            Trouble::Lies(lie) => lie(key, whole),
            _ => whole,
        }
    }
}

fn unreachable_store() -> Error {
    Error::new(Kind::Unreachable, "the store does not answer")
}

#[async_trait]
impl Storage for Recorder {
    async fn create(&self, key: &str, payload: Vec<Bytes>) -> Result<Created> {
        self.note("create", key)?;
        let created = self.inner.create(key, payload).await;
        if self.answer_lost() { Err(unreachable_store()) } else { created }
    }

    async fn upload(&self, key: &str) -> Result<Box<dyn Upload>> {
        self.note("upload", key)?;
        self.inner.upload(key).await
    }

    async fn replace(&self, key: &str) -> Result<Box<dyn Upload>> {
        self.note("replace", key)?;
        self.inner.replace(key).await
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Part> {
        self.note("get", key)?;
        let whole = self.inner.get(key, None).await?.bytes;
        let whole = self.lied(key, whole);
        let clip = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(whole.len());
        let bytes = match range {
            Some(range) => whole.slice(clip(range.start)..clip(range.end)),
            None => whole.clone(),
        };
        Ok(Part { bytes, object_size: whole.len() as u64 })
    }

    async fn size(&self, key: &str) -> Result<u64> {
        self.note("size", key)?;
        self.inner.size(key).await
    }

    fn list(&self, prefix: &str) -> BoxStream<'static, Result<Entry>> {
        match self.note("list", prefix) {
            Ok(()) => self.inner.list(prefix),
            Err(error) => once(async { Err(error) }).boxed(),
        }
    }

    async fn list_dirs(&self, prefix: &str) -> Result<Vec<String>> {
        self.note("list_dirs", prefix)?;
        self.inner.list_dirs(prefix).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.note("delete", key)?;
        self.inner.delete(key).await
    }
}
