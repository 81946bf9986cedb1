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
    Attributes, Error as StoreError, GetOptions, GetRange, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMode, PutOptions, PutPayload,
    path::{self, Path},
};
use tokio::sync::Mutex;

use super::http;
use super::readable::readable;
use super::{Created, Entry, Part, Storage, Upload, key};
use crate::error::{Error, Kind, Result};

/// Ranges end here at the latest, which no object reaches: stores refuse numbers that do not fit into their own.
const FARTHEST: u64 = i64::MAX as u64;

/// A store over an [`ObjectStore`], or over all of it below a prefix, without what is special to any.
#[derive(Debug)]
pub(super) struct Objects {
    store: Arc<dyn ObjectStore>,
    root: Root,
    attributes: Attributes,
}

/// What stands before all keys in the store: nothing, or a prefix without a slash at its end.
#[derive(Debug, Clone, Default)]
pub(super) struct Root(pub(super) String);

impl Root {
    /// The path of an object.
    pub(super) fn object(&self, key: &str) -> Result<Path> {
        let path = key::object(key)?;
        if self.0.is_empty() { Ok(path) } else { key::object(&format!("{}/{key}", self.0)) }
    }

    /// The path of a prefix, `None` for the whole store.
    pub(super) fn prefix(&self, prefix: &str) -> Result<Option<Path>> {
        if prefix.is_empty() { key::prefix(&self.0) } else { self.object(prefix).map(Some) }
    }

    /// The key of an object that the store names so.
    pub(super) fn key(&self, path: &str) -> Option<String> {
        let key = if self.0.is_empty() { path } else { path.strip_prefix(&self.0)?.strip_prefix('/')? };
        key::is_key(key).then(|| key.to_owned())
    }
}

impl Objects {
    /// A store over `store`.
    pub(super) fn new(store: Arc<dyn ObjectStore>) -> Self {
        Objects::below(store, Root::default(), Attributes::new())
    }

    /// A store over what is below `root` in `store`; what it creates has these attributes.
    pub(super) fn below(store: Arc<dyn ObjectStore>, root: Root, attributes: Attributes) -> Self {
        Objects { store, root, attributes }
    }

    /// Stores an object, replacing what is there.
    #[cfg_attr(not(feature = "cloud"), allow(dead_code))]
    pub(super) async fn overwrite(&self, key: &str, payload: Vec<Bytes>) -> Result<()> {
        let options = PutOptions { attributes: self.attributes.clone(), ..PutOptions::default() };
        let put = self.store.put_opts(&self.root.object(key)?, PutPayload::from_iter(payload), options).await;
        put.map(drop).map_err(|source| failed("storing", key, source))
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
        let path = self.root.object(key)?;
        let attributes = self.attributes.clone();
        let options = PutOptions { mode: PutMode::Create, attributes, ..PutOptions::default() };
        match self.store.put_opts(&path, PutPayload::from_iter(payload), options).await {
            Ok(_) => Ok(Created::New),
            Err(StoreError::AlreadyExists { .. }) => Ok(Created::Exists),
            Err(source) => Err(failed("storing", key, source)),
        }
    }

    async fn upload(&self, key: &str) -> Result<Box<dyn Upload>> {
        let upload = self.store.put_multipart(&self.root.object(key)?).await;
        let upload = upload.map_err(|source| failed("starting the upload of", key, source))?;
        let turn = Turn { upload: Some(upload), finished: false, next: 0, early: BTreeMap::new() };
        let turn = Mutex::new(turn);
        Ok(Box::new(ObjectUpload { key: key.to_owned(), turn }))
    }

    async fn replace(&self, key: &str) -> Result<Box<dyn Upload>> {
        self.upload(key).await
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Part> {
        let path = self.root.object(key)?;
        let range = range.map(|range| range.start.min(FARTHEST)..range.end.min(FARTHEST));
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
            (Some(source), None) => Err(failed("reading", key, source)),
            (Some(source), _) if !may_be_of_range(&source) => Err(failed("reading", key, source)),
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
        let meta = self.store.head(&self.root.object(key)?).await;
        Ok(meta.map_err(|source| failed("looking up", key, source))?.size)
    }

    fn list(&self, prefix: &str) -> BoxStream<'static, Result<Entry>> {
        let path = match self.root.prefix(prefix) {
            Ok(path) => path,
            Err(error) => return stream::once(async { Err(error) }).boxed(),
        };
        let (prefix, root) = (prefix.to_owned(), self.root.clone());
        let found = self.store.list(path.as_ref());
        let found = found.map_err(move |source| failed("listing", &prefix, source));
        let entry = move |meta: ObjectMeta| {
            let key = root.key(meta.location.as_ref());
            std::future::ready(Ok(key.map(|key| Entry { key, size: meta.size })))
        };
        found.try_filter_map(entry).boxed()
    }

    async fn list_dirs(&self, prefix: &str) -> Result<Vec<String>> {
        let path = self.root.prefix(prefix)?;
        let found = self.store.list_with_delimiter(path.as_ref()).await;
        let found = found.map_err(|source| failed("listing", prefix, source))?;
        let names = found.common_prefixes.iter().filter_map(|path| path.filename());
        Ok(names.filter(|name| key::is_segment(name)).map(str::to_owned).collect())
    }

    async fn delete(&self, key: &str) -> Result<()> {
        match self.store.delete(&self.root.object(key)?).await {
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
    /// Gone once it has ended: it holds files open.
    upload: Option<Box<dyn MultipartUpload>>,
    finished: bool,
    next: usize,
    early: BTreeMap<usize, Vec<Bytes>>,
}

impl Turn {
    fn upload(&mut self, key: &str) -> Result<&mut Box<dyn MultipartUpload>> {
        // A part that failed cannot be given again: this kind of upload puts parts one behind the other.
        let ended = || Error::new(Kind::Local, format!("the upload of {key} failed or ended before")).on(key);
        self.upload.as_mut().ok_or_else(ended)
    }
}

#[async_trait]
impl Upload for ObjectUpload {
    async fn part(&self, number: usize, pieces: Vec<Bytes>) -> Result<()> {
        let mut turn = self.turn.lock().await;
        if number < turn.next {
            return Ok(());
        }
        turn.early.insert(number, pieces);
        loop {
            let next = turn.next;
            let Some(pieces) = turn.early.remove(&next) else { return Ok(()) };
            let sent = turn.upload(&self.key)?.put_part(PutPayload::from_iter(pieces)).await;
            if let Err(source) = sent {
                turn.upload = None;
                return Err(failed("uploading", &self.key, source));
            }
            turn.next += 1;
        }
    }

    async fn finish(&self) -> Result<()> {
        let mut turn = self.turn.lock().await;
        if turn.finished {
            return Ok(());
        }
        if let Some(number) = turn.early.keys().next() {
            let message =
                format!("finishing the upload of {}: a part before number {number} is missing", self.key);
            return Err(Error::bug(message).on(&self.key));
        }
        let done = turn.upload(&self.key)?.complete().await;
        done.map_err(|source| failed("finishing the upload of", &self.key, source))?;
        turn.finished = true;
        turn.upload = None;
        Ok(())
    }

    async fn abort(&self) -> Result<()> {
        let Some(mut upload) = self.turn.lock().await.upload.take() else { return Ok(()) };
        upload.abort().await.map_err(|source| failed("giving up the upload of", &self.key, source))
    }
}

/// What a store's error means for the object `key`.
pub(super) fn failed(attempt: &str, key: &str, source: StoreError) -> Error {
    if let Some(trouble) = http::trouble(&source) {
        let error = trouble.error(format!("{attempt} {}", name(key))).on(name(key));
        return if asked_the_machine(&source) { error.hint(NO_CREDENTIALS) } else { error };
    }
    if asked_the_machine(&source) {
        let error = Error::new(Kind::Unreachable, format!("{attempt} {}", name(key))).on(name(key));
        return error.hint(NO_CREDENTIALS).because(source);
    }
    if let Some(own) = own_cause(&source) {
        return Error::new(own.kind(), format!("{attempt} {}", name(key))).on(name(key)).because(source);
    }
    if let StoreError::InvalidPath { source } = &source {
        return impossible(attempt, key, source);
    }
    let kind = match &source {
        StoreError::NotFound { .. } => Kind::Absent,
        StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. } => Kind::Denied,
        StoreError::NotSupported { .. } | StoreError::NotImplemented { .. } => Kind::Bug,
        _ => match io_cause(&source) {
            Some(cause) => return explained(attempt, key, cause.kind()).because(source),
            None => Kind::Unreachable,
        },
    };
    Error::new(kind, format!("{attempt} {}", name(key))).on(name(key)).because(plain(source))
}

/// The store named an object that cannot be one of the archive's, and of which its client makes nothing. Our own keys
/// have been looked at before.
fn impossible(attempt: &str, key: &str, source: &path::Error) -> Error {
    let found = match source {
        path::Error::EmptySegment { path } | path::Error::BadSegment { path, .. } => path.clone(),
        other => other.to_string(),
    };
    let found: String = found.chars().take(LONGEST_NAME).collect();
    Error::damaged(format!("{attempt} {}: the store holds {found:?}, which cannot name an object", name(key)))
        .on(name(key))
        .hint("nothing of this program has made it: remove it with the provider's own tools")
}

/// A store's error; one whose text, which may be a stranger's, is long or not fit for a terminal, as its readable part.
fn plain(source: StoreError) -> Box<dyn StdError + Send + Sync> {
    let text = source.to_string();
    if text.len() <= LONGEST_TEXT && !text.contains(char::is_control) {
        return source.into();
    }
    readable(&text, LONGEST_TEXT).into()
}

/// As many characters are shown of a name that is none.
const LONGEST_NAME: usize = 200;

/// As many characters are shown of an error of object_store, which holds the object's path and a store's words.
const LONGEST_TEXT: usize = 1000;

const NO_CREDENTIALS: &str = "no credentials were found in the environment or in files, so this machine's metadata service was \
    asked for some: name them with AWS_ACCESS_KEY_ID, AWS_PROFILE, GOOGLE_APPLICATION_CREDENTIALS, AZURE_STORAGE_KEY or their like";

/// Whether the request that failed went to the metadata service of the machine that this runs on.
fn asked_the_machine(source: &StoreError) -> bool {
    let text = source.to_string();
    ["//169.254.169.254/", "//169.254.170.2/", "//metadata.google.internal/"]
        .iter()
        .any(|host| text.contains(host))
}

/// Whether an error may mean that a range starts behind the end, for which there is no error of its own.
fn may_be_of_range(source: &StoreError) -> bool {
    matches!(source, StoreError::Generic { .. }) && http::trouble(source).is_none()
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

/// The error of our own that a client was given, when it asked for credentials.
fn own_cause<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Error> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(own) = error.downcast_ref::<Error>() {
            return Some(own);
        }
        cause = error.source();
    }
    None
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
