//! The contract of [`Storage`] over any [`ObjectStore`].

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::{
    Error as StoreError, GetOptions, GetRange, MultipartUpload, ObjectStore, ObjectStoreExt, PutMode,
    PutOptions, PutPayload, path::Path,
};
use tokio::sync::Mutex;

use super::{Created, Entry, Part, Storage, Upload, key};
use crate::error::{Error, Kind, Result};

/// A store over an [`ObjectStore`], without what is special to any.
#[derive(Debug)]
pub(super) struct Objects {
    store: Arc<dyn ObjectStore>,
}

impl Objects {
    /// A store over `store`.
    pub(super) fn new(store: Arc<dyn ObjectStore>) -> Self {
        Objects { store }
    }

    /// The bytes of a range that is not empty, or of the whole object.
    async fn read(&self, path: &Path, range: Option<Range<u64>>) -> Result<Part, StoreError> {
        let options = GetOptions { range: range.map(GetRange::Bounded), ..GetOptions::default() };
        let result = self.store.get_opts(path, options).await?;
        let object_size = result.meta.size;
        Ok(Part { bytes: result.bytes().await?, object_size })
    }
}

#[async_trait]
impl Storage for Objects {
    async fn create(&self, key: &str, payload: Vec<Bytes>) -> Result<Created> {
        let path = key::object(key)?;
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.store.put_opts(&path, PutPayload::from_iter(payload), options).await {
            Ok(_) => Ok(Created::New),
            Err(StoreError::AlreadyExists { .. }) => Ok(Created::Exists),
            Err(source) => Err(failed("storing", key, source)),
        }
    }

    async fn upload(&self, key: &str) -> Result<Box<dyn Upload>> {
        let upload = self.store.put_multipart(&key::object(key)?).await;
        let upload = upload.map_err(|source| failed("starting the upload of", key, source))?;
        let turn = Mutex::new(Turn { upload, next: 0, early: BTreeMap::new() });
        Ok(Box::new(ObjectUpload { key: key.to_owned(), turn }))
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Part> {
        let path = key::object(key)?;
        let start = range.as_ref().map(|range| range.start);
        let source = if range.as_ref().is_some_and(Range::is_empty) {
            None
        } else {
            match self.read(&path, range).await {
                Ok(part) => return Ok(part),
                Err(source) => Some(source),
            }
        };
        // Stores disagree on how to say that a range starts behind the end: the size tells.
        match (source, start) {
            (Some(source @ StoreError::NotFound { .. }), _) | (Some(source), None) => {
                Err(failed("reading", key, source))
            }
            (source, start) => {
                let object_size = self.size(key).await?;
                match source {
                    Some(source) if start < Some(object_size) => Err(failed("reading", key, source)),
                    _ => Ok(Part { bytes: Bytes::new(), object_size }),
                }
            }
        }
    }

    async fn size(&self, key: &str) -> Result<u64> {
        let meta = self.store.head(&key::object(key)?).await;
        Ok(meta.map_err(|source| failed("looking up", key, source))?.size)
    }

    fn list(&self, prefix: &str) -> BoxStream<'static, Result<Entry>> {
        let path = match key::prefix(prefix) {
            Ok(path) => path,
            Err(error) => return stream::once(async { Err(error) }).boxed(),
        };
        let prefix = prefix.to_owned();
        let found = self.store.list(path.as_ref());
        let found = found.map_err(move |source| failed("listing", &prefix, source));
        let found = found.map_ok(|meta| Entry { key: meta.location.into(), size: meta.size });
        found.try_filter(|entry| std::future::ready(key::is_key(&entry.key))).boxed()
    }

    async fn list_dirs(&self, prefix: &str) -> Result<Vec<String>> {
        let path = key::prefix(prefix)?;
        let found = self.store.list_with_delimiter(path.as_ref()).await;
        let found = found.map_err(|source| failed("listing", prefix, source))?;
        let names = found.common_prefixes.iter().filter_map(|path| path.filename());
        Ok(names.filter(|name| key::is_segment(name)).map(str::to_owned).collect())
    }

    async fn delete(&self, key: &str) -> Result<()> {
        match self.store.delete(&key::object(key)?).await {
            Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
            Err(source) => Err(failed("removing", key, source)),
        }
    }
}

/// An upload whose parts go out one after the other: one that comes too early waits here for its turn.
struct ObjectUpload {
    key: String,
    turn: Mutex<Turn>,
}

struct Turn {
    upload: Box<dyn MultipartUpload>,
    next: usize,
    early: BTreeMap<usize, Vec<Bytes>>,
}

#[async_trait]
impl Upload for ObjectUpload {
    async fn part(&self, number: usize, pieces: Vec<Bytes>) -> Result<()> {
        let mut turn = self.turn.lock().await;
        turn.early.insert(number, pieces);
        loop {
            let next = turn.next;
            let Some(pieces) = turn.early.remove(&next) else { return Ok(()) };
            let sent = turn.upload.put_part(PutPayload::from_iter(pieces)).await;
            sent.map_err(|source| failed("uploading", &self.key, source))?;
            turn.next += 1;
        }
    }

    async fn finish(&self) -> Result<()> {
        let mut turn = self.turn.lock().await;
        if let Some(number) = turn.early.keys().next() {
            let message =
                format!("finishing the upload of {}: a part before number {number} is missing", self.key);
            return Err(Error::bug(message).on(&self.key));
        }
        let done = turn.upload.complete().await;
        done.map(drop).map_err(|source| failed("finishing the upload of", &self.key, source))
    }

    async fn abort(&self) -> Result<()> {
        let done = self.turn.lock().await.upload.abort().await;
        done.map_err(|source| failed("giving up the upload of", &self.key, source))
    }
}

/// What a store's error means for the object `key`.
pub(super) fn failed(attempt: &str, key: &str, source: StoreError) -> Error {
    let kind = match &source {
        StoreError::NotFound { .. } => Kind::Absent,
        StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. } => Kind::Denied,
        StoreError::InvalidPath { .. }
        | StoreError::NotSupported { .. }
        | StoreError::NotImplemented { .. } => Kind::Bug,
        _ => match io_cause(&source) {
            Some(cause) => return explained(attempt, key, cause.kind()).because(source),
            None => Kind::Unreachable,
        },
    };
    Error::new(kind, format!("{attempt} {}", name(key))).on(name(key)).because(source)
}

/// What an error of the file system means for the object `key`.
pub(super) fn failed_io(attempt: &str, key: &str, source: io::Error) -> Error {
    explained(attempt, key, source.kind()).because(source)
}

fn explained(attempt: &str, key: &str, cause: io::ErrorKind) -> Error {
    use io::ErrorKind as Io;
    let (kind, hint) = match cause {
        Io::NotFound => (Kind::Absent, ""),
        Io::StorageFull | Io::QuotaExceeded => (Kind::Local, "make room there: nothing was stored"),
        Io::PermissionDenied => (Kind::Local, "let the user that runs this program read and write there"),
        Io::ReadOnlyFilesystem => (Kind::Local, "mount the file system for writing"),
        Io::StaleNetworkFileHandle | Io::NotConnected | Io::TimedOut | Io::HostUnreachable => {
            (Kind::Unreachable, "is it mounted, and does its server answer?")
        }
        _ => (Kind::Local, ""),
    };
    let error = Error::new(kind, format!("{attempt} {}", name(key))).on(name(key));
    if hint.is_empty() { error } else { error.hint(hint) }
}

fn name(key: &str) -> &str {
    if key.is_empty() { "the archive" } else { key }
}

/// The error of the operating system under a store's error.
pub(super) fn io_cause<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a io::Error> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return Some(io);
        }
        cause = error.source();
    }
    None
}
